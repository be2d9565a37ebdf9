"""Reads a folder of Hugging Face PEFT as trained LoRA of this project. Imports neither peft nor timm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import UserError, reason, tellable
from ...petl import Site, layout_of
from ...weights.contents import must_be_file
from ...weights.vit import to_timm
from .config import CONFIG, LoRAConfig, read_config
from .low_rank import LowRank, by_slot, padded, shared_scale
from .timm_vit import timm_model
from .writing import LAYERS, PREFIX, TENSORS

FLOATS = {'F32', 'F16', 'BF16'}
# parts of the names of tensors that other methods of PEFT write -> the method
OTHERS = {
    'lora_magnitude': 'DoRA',
    'lora_embedding': 'LoRA on embeddings',
    'hada_': 'LoHa',
    'lokr_': 'LoKr',
    'ia3_': 'IA3',
    'oft_': 'OFT',
    'boft_': 'BOFT',
    'vera_': 'VeRA',
}
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Trained:
    """What a PEFT folder becomes here.

    Args:
        petl: ``dict(deltas=..., train=['head'])``, one LoRA for each place.
        num_classes: of the head, a linear layer without BatchNorm.
        tensors: of deltas and head, under the keys of the model's state dict.
    """

    petl: dict[str, Any]
    num_classes: int
    tensors: dict[str, Tensor]


def from_peft(folder: Path, model: Mapping[str, Any]) -> Trained:
    """Read LoRA and a head that PEFT trained on timm's VisionTransformer: the same logits here.

    A LoRA on a fused qkv becomes one for each slot that it changes; if its B mixes the slots, ``slots='qkv'`` with
    three times the same A. Layers of a place get the highest rank among them, with zeros that stay zeros.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        model: the config of a PETLImageClassifier with the backbone; its ``petl`` and the size of its head do not
            matter.

    Raises:
        UserError: when the folder is not of plain LoRA, for another architecture, or broken.
    """
    settings, file = _files(folder)
    built = timm_model(model, dict(deltas={}, train=['head']))
    sites = {to_timm(s.name): s for place in LAYERS for s in layout_of(built.backbone).sites(built.backbone, place)}
    with _named(file), _opened(file) as opened:
        shapes = _shapes(opened)
        classes = _check_head(shapes, built.head.in_channels)
        layers = _layers(shapes, sites)
        _check_coverage(settings, layers, sites)
        scales = {layer: settings.scale(layer, shapes[_key(layer, 'A')][0]) for layer in layers}
        tensors = {key: opened.get_tensor(key).float() for key in shapes}
        _check_finite(tensors)
    updates = {n: LowRank(tensors[_key(n, 'A')], tensors[_key(n, 'B')], scale) for n, scale in scales.items()}
    deltas: dict[str, Any] = {}
    state = {f'head.fc.{part}': tensors[f'{PREFIX}head.{part}'] for part in ('weight', 'bias')}
    for place, end in LAYERS.items():
        here = {name: site for name, site in sites.items() if name.endswith(end)}
        if any(name in updates for name in here):
            options, parameters = _delta(place, here, updates)
            dropout = dict(dropout=settings.dropout) if settings.dropout else {}
            deltas[f'lora_{place}'] = dict(type='LoRA', at=place, **options, **dropout)
            state |= {key.format(name=f'lora_{place}'): value for key, value in parameters.items()}
    with _named(file):
        _check_finite(state)  # scales may have been too far apart to share one
    kept = {k: v for k, v in (model.get('petl') or {}).items() if k in ('attention', 'fast', 'gelu')}
    return Trained(dict(kept, deltas=deltas, train=['head']), classes, state)


def _files(folder: Path) -> tuple[LoRAConfig, Path]:
    """Return the settings and the file of the tensors."""
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder; a PEFT folder holds {CONFIG} and {TENSORS}.')
    must_be_file(folder / CONFIG, 'This is not a PEFT folder: ')
    if not (folder / TENSORS).is_file() and (folder / 'adapter_model.bin').exists():
        raise UserError(
            f'{folder}/adapter_model.bin is a pickle, which can run code, and is not read: PEFT loads it where you '
            f'trust it, and its save_pretrained then writes {TENSORS}.'
        )
    must_be_file(folder / TENSORS, 'This is not a PEFT folder: ')
    with _named(folder / CONFIG):
        return read_config(folder / CONFIG), folder / TENSORS


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Put the file's name in front of a refusal."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{file}: {error}') from error


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, 'pt') as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise UserError(f'it is broken ({tellable(reason(error))}).') from error


def _shapes(opened: Any) -> Shapes:
    """Return the shapes of a file's tensors, from its header alone."""
    shapes = {}
    for key in opened.keys():  # noqa: SIM118
        part = opened.get_slice(key)
        if part.get_dtype() not in FLOATS:
            raise UserError(f'{key!r:.100} is of type {part.get_dtype()}, not float32, float16 or bfloat16.')
        shapes[key] = tuple(part.get_shape())
    return shapes


def _key(layer: str, which: str) -> str:
    return f'{PREFIX}{layer}.lora_{which}.weight'


def _check_head(shapes: Shapes, width: int) -> int:
    """Return the number of classes."""
    weight, bias = (shapes.get(f'{PREFIX}head.{part}') for part in ('weight', 'bias'))
    if weight is None or bias is None:
        raise UserError("it has no trained head (head.weight and head.bias, by PEFT's modules_to_save=['head']).")
    if len(weight) != 2 or weight[1] != width or bias != weight[:1] or not weight[0]:
        raise UserError(
            f'it is for another architecture: its head.weight is {weight} and head.bias {bias}, and the backbone is '
            f'{width} wide.'
        )
    return weight[0]


def _layers(shapes: Shapes, sites: Mapping[str, Site]) -> list[str]:
    """Return the layers that have LoRA, after checking that each has A and B, and that nothing else is there."""
    found: dict[str, dict[str, int]] = {}
    for key, shape in shapes.items():
        if key in (f'{PREFIX}head.weight', f'{PREFIX}head.bias'):
            continue
        match = re.fullmatch(rf'{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight', key)
        if not match:
            method = next((name for part, name in OTHERS.items() if part in key), None)
            raise UserError(f'it holds {key!r:.100}, which is {method or "not LoRA"}.')
        layer, which = match.groups()
        if layer not in sites:
            raise UserError(_not_here(layer, sites))
        wide, side = (sites[layer].in_dim, 'input') if which == 'A' else (sites[layer].out_dim, 'output')
        if len(shape) != 2 or shape[which == 'A'] != wide:
            raise UserError(f'it is for another architecture: {key} is {shape}, and the {side} there is {wide} wide.')
        found.setdefault(layer, {})[which] = shape[which == 'B']
    for layer, ranks in found.items():
        if len(ranks) < 2:
            raise UserError(f'it lacks {_key(layer, "B" if "A" in ranks else "A")}: LoRA has an A and a B.')
        most = max(sites[layer].in_dim, sites[layer].out_dim)
        if ranks['A'] != ranks['B'] or not 1 <= ranks['A'] <= most:
            raise UserError(
                f'{layer} has an A of rank {ranks["A"]} and a B of rank {ranks["B"]}; LoRA has one rank, of at most '
                f'{most} there.'
            )
    if not found:
        raise UserError('it holds no LoRA.')
    return list(found)


def _not_here(layer: str, sites: Mapping[str, Site]) -> str:
    if re.sub(r'^blocks\.\d+\.', '', layer) in LAYERS.values():
        depth = 1 + max(int(name.split('.')[1]) for name in sites)
        return f'it is for another architecture: it has LoRA on {layer!r:.80}, and the backbone has {depth} blocks.'
    return f'it has LoRA on {layer!r:.80}; here it may be on {", ".join(LAYERS.values())} of a block.'


def _check_coverage(settings: LoRAConfig, layers: list[str], sites: Mapping[str, Site]) -> None:
    """Refuse a folder of a backbone with fewer blocks: the layers that its config names have to be those there."""
    wanted = settings.wanted((int(name.split('.')[1]), name) for name in sites)
    if wanted is None:  # a pattern, which is not run: all layers of the places that it has
        ends = {re.sub(r'^blocks\.\d+\.', '', layer) for layer in layers}
        wanted = {name for name in sites if re.sub(r'^blocks\.\d+\.', '', name) in ends}
        hint = ' If it is meant to, list its layers in target_modules, whose regular expression is not run here.'
    else:
        hint = ''
        beside = [name for name in layers if name not in wanted]
        if beside:
            raise UserError(f'it holds LoRA on {beside[0]}, which {CONFIG} does not name: PEFT would leave it out.')
    lacking = [name for name in sites if name in wanted and name not in layers]
    if lacking:
        raise UserError(f'it is for another architecture: it has no LoRA on {lacking[0]}.{hint}')


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f'{key} holds numbers that are not finite.')


def _delta(
    place: str, sites: Mapping[str, Site], updates: Mapping[str, LowRank]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the options of one LoRA for all layers of a place, and its tensors, ``{name}`` in their keys."""
    found = {n: by_slot(updates[n]) if place == 'qkv' else {'out': updates[n]} for n in sites if n in updates}
    all_updates = [update for slots in found.values() for update in slots.values()]
    rank, scale = max(u.rank for u in all_updates), shared_scale(all_updates)
    slots = [s for s in ('q', 'k', 'v', 'out') if any(s in of_layer for of_layer in found.values())]
    state = {}
    for name, site in sites.items():
        rows = site.out_dim // (3 if place == 'qkv' else 1)
        nothing = LowRank(torch.zeros(1, site.in_dim), torch.zeros(rows, 1), scale)
        for slot in slots:
            values = padded(found.get(name, {}).get(slot, nothing), rank, scale)
            keys = (f'backbone.{site.name}.deltas.{{name}}.{which}.{slot}.weight' for which in 'AB')
            state |= dict(zip(keys, values, strict=True))
    options = dict(rank=rank, alpha=LowRank(torch.zeros(rank, 1), torch.zeros(1, rank), scale).alpha)
    return options | (dict(slots=''.join(slots)) if place == 'qkv' else {}), state


def model_with(model: Mapping[str, Any], trained: Trained) -> dict[str, Any]:
    """Return the model's config with the LoRA and the head of a PEFT folder."""
    head = dict(type='PETLImageHead', num_classes=trained.num_classes, in_channels=model['head']['in_channels'])
    return dict(model, petl=trained.petl, head=dict(head, bn=False))
