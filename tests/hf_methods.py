"""Methods for the models of ``hf_hosts``, and what puts single entries there without an SPT file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from hf_hosts import HOSTS, plain
from tiny import randomised
from torch import nn

from vpetl_mm.petl import Plan, Sparse, adapt, layout_of
from vpetl_mm.petl.placing import put

LINEAR = ('qkv', 'proj', 'fc1', 'fc2')
PATT, ADAPTER = dict(type='PATT', d_bottle=8), dict(type='AdaptMLP', d_bottle=8)
LORA, LINEAR_ADAPTER = dict(type='LoRA', rank=2), dict(type='LinearAdapter', d_bottle=8)
PREFIX, PROMPT = dict(type='Prefix', num_tokens=3, d_middle=4), dict(type='Prompt', num_tokens=3)


def everywhere(spec: Mapping[str, Any], **options: Any) -> dict[str, dict[str, Any]]:
    """A delta at each of the four linear places."""
    return {f'on_{place}': dict(spec, at=place, **options) for place in LINEAR}


METHODS: dict[str, dict[str, dict[str, Any]]] = {
    'bapat': dict(patt=PATT, adapter=ADAPTER),
    'patt_qv': dict(patt=dict(PATT, slots='qv'), adapter=dict(ADAPTER, source='residual')),
    'patt_qkv': dict(patt=dict(PATT, slots='qkv'), adapter=dict(ADAPTER, mode='sequential')),
    'concat': dict(patt=dict(PATT, mode='concat')),
    'lora': everywhere(LORA, slots='qkv'),
    'linear': everywhere(LINEAR_ADAPTER),
    'prefix': dict(prefix=PREFIX),
    'prompt': dict(prompt=PROMPT),
    'shallow': dict(prompt=dict(PROMPT, deep=False)),
    'sparse': {},
    # what a block can carry at once
    'all': dict(
        patt=PATT, lora=LORA, adapter=dict(ADAPTER, source='residual'), after=dict(ADAPTER, mode='sequential')
    )
    | dict(prefix=PREFIX, prompt=PROMPT, fc2=dict(LORA, at='fc2')),
}
PLACES = dict(PATT='qkv', AdaptMLP='mlp', LoRA='qkv', LinearAdapter='qkv', Prefix='attn', Prompt='attn')
SILENT = [method for method in METHODS if not {'concat', 'prefix', 'prompt', 'shallow', 'all'} & {method}]


class Entries:
    """Single entries of every linear place, three of each weight and the first of each bias, as SPT puts them."""

    def tuned(self, backbone: nn.Module) -> set[str]:
        layout = layout_of(backbone)
        return {name for s in self._sites(backbone) for name, *_ in layout.parameters(backbone, s.name) if name}

    def settings(self) -> dict[str, Any]:
        return dict(type='SPT')

    def attach(self, backbone: nn.Module) -> dict[str, str]:
        owners = {}
        for site in self._sites(backbone):
            layout = layout_of(backbone)
            delta = Sparse(_thirds(site.in_dim * site.out_dim), _biases(layout.biases(backbone, site.name)))
            put(layout, backbone, site, 'entries', delta)
            owners |= {f'{site.name}.deltas.entries.{n}': 'entries' for n, _ in delta.named_parameters()}
        return owners

    def _sites(self, backbone: nn.Module) -> list:
        return [site for place in LINEAR for site in layout_of(backbone).sites(backbone, place)]


def _thirds(size: int) -> torch.Tensor:
    return torch.tensor([1, size // 2 + 1, size - 2])


def _biases(starts: Iterable[tuple[str, int]]) -> torch.Tensor | None:
    """The first entry of each bias; None where there is none."""
    starts = [start for _, start in starts]
    return torch.tensor(starts) if starts else None


def adapted(
    model: nn.Module,
    name: str,
    method: str,
    deltas: Mapping[str, Any] | None = None,
    zero: bool = False,
    train: Sequence[str] | None = None,
) -> Plan:
    """Adapt a model of ``hf_hosts`` by a method, with random deltas, or such as start at zero.

    Args:
        model: a copy of the plain one.
        name: of the host.
        method: of ``METHODS``.
        deltas: those of the method that there shall be. Defaults to None, all.
        zero: whether PATT starts at zero, and the others stay as they start.
        train: what else trains. Defaults to None, the host's head.
    """
    specs = METHODS[method] if deltas is None else deltas
    if zero:
        specs = {n: dict(s, init='zero') if s['type'] == 'PATT' else s for n, s in specs.items()}
    train = HOSTS[name].train() if train is None else train
    plan = adapt(model, specs, train, spt=Entries() if method == 'sparse' else None)
    if not zero:
        for seed, delta in enumerate(plan.deltas()):
            randomised(delta, seed=seed + 1, std=0.4)
    return plan


def hosts_of(name: str, method: str) -> set[str]:
    """Where the deltas of a method should be: ``<path of the host>.deltas.<name>``, written down by hand."""
    host = HOSTS[name]
    if method == 'sparse':
        return {f'{path}.deltas.entries' for place in LINEAR for path in host.at(place)}
    found = set()
    for delta, spec in METHODS[method].items():
        place = spec.get('at', PLACES[spec['type']])
        paths = host.at('block')[:1] if spec.get('deep') is False else host.at(place)
        found |= {f'{path}.deltas.{delta}' for path in paths}
    return found


def copy_of(name: str) -> nn.Module:
    """A copy of a plain model."""
    return copy.deepcopy(plain(name))
