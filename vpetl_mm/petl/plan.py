"""From ``petl=dict(deltas=..., train=...)`` to a model: attach, select, freeze, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from .delta import Delta, defaults_of
from .deltas import Deltas, of_delta
from .exchange import restore
from .grid import chain_to
from .host import detach, reattach, share
from .layouts import layout_of
from .merging import check_hosts, merge_hosts
from .placing import places_of, put, sites_for, take_off
from .serving import Serving


class Tuning(Protocol):
    """Interface of SPT, which tunes parameters that it selects, besides deltas and ``train`` names."""

    def attach(self, backbone: nn.Module) -> dict[str, str]:
        """Put its deltas on ``backbone``; return the names of those that train -> their labels."""

    def tuned(self, backbone: nn.Module) -> set[str]:
        """Return the parameters of the plain ``backbone`` that it tunes, whole or in part."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that the trained weights depend on."""


class Plan:
    """The deltas and the trained weights of one model.

    Args:
        model: holds the backbone and the head; frozen and extended in place.
        backbone: the path of the backbone in the model, '' for the model itself.
        head: the path of the head, or several, in the model; '' for none.
        deltas: name -> ``dict(type=..., at=..., **options)``; None drops one.
        train: names of existing weights to train too, such as ``['head']``.
        get_type: finds a delta's class by its type name; raises KeyError for an unknown one.
        spt: what SPT tunes. Defaults to None, nothing.

    Raises:
        UserError: for a name, position or option that does not exist or matches nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: str,
        head: str | tuple[str, ...],
        deltas: Mapping[str, Mapping[str, Any] | None],
        train: Sequence[str],
        get_type: Callable[[str], type[Delta]],
        spt: Tuning | None = None,
    ) -> None:
        self.model, self.backbone, self.spt = model, backbone, spt
        self.heads = tuple(filter(None, (head,) if isinstance(head, str) else head))
        self.layout = layout_of(self._backbone)
        self._exchange_leaves()
        self.train = list(train)
        self.owners = self._select()
        self._settings: dict[str, dict[str, Any]] = {}
        self._shared: dict[str, nn.Module] = {}
        for name, spec in deltas.items():
            if name in ('all', 'head', *self.layout.groups):
                raise UserError(f'petl.deltas.{name}: {name!r} is a train name; give the delta another.')
            if spec is not None:
                self._attach(name, dict(spec), get_type)
        self._check_tokens()
        if spt is not None:
            self._attach_spt(spt)
        self.freeze()

    @property
    def _backbone(self) -> nn.Module:
        return self.model.get_submodule(self.backbone)

    def _path(self, name: str) -> str:
        """Return a path below the backbone as one of the model."""
        return f'{self.backbone}.{name}' if self.backbone else name

    @property
    def _of_heads(self) -> tuple[str, ...]:
        """How the names of the heads' parameters start."""
        return tuple(f'{head}.' for head in self.heads)

    def _exchange_leaves(self) -> None:
        """Exchange attentions that would pass their layers by for ours, which hold the same modules."""
        for site in self.layout.sites(self._backbone, 'attn') if self.layout.leaf else ():
            if type(site.host) is self.layout.leaf.__base__:
                site.host.__class__ = self.layout.leaf

    def groups(self) -> dict[str, list[str]]:
        """Return every valid ``train`` name with the plain model's parameters that it stands for."""
        names = [n for n, _ in self.model.named_parameters()]
        of_head = [n for n in names if n.startswith(self._of_heads)]
        at = self._path('')
        inside = [n.removeprefix(at) for n in names if n.startswith(at) and n not in {*of_head}]
        groups = {'all': names, 'head': of_head}
        for group in self.layout.groups:
            groups[group] = [self._path(n) for n in self.layout.members(group, inside)]
        return groups

    def _select(self) -> dict[str, str]:
        """Return parameter name -> the first ``train`` name that selects it."""
        groups = self.groups() if self.train else {}
        owners: dict[str, str] = {}
        for name in self.train:
            if name not in groups:
                raise unknown('petl.train name', name, groups)
            if not groups[name]:
                there = [g for g, members in groups.items() if members]
                raise UserError(f'petl.train {name!r} matches nothing in this model; it has: {", ".join(there)}.')
            for parameter in groups[name]:
                owners.setdefault(parameter, name)
        return owners

    def _attach(self, name: str, spec: dict[str, Any], get_type: Callable[[str], type[Delta]]) -> None:
        if 'type' not in spec:
            raise UserError(f'petl.deltas.{name} needs a type, such as type="PATT".')
        cls = get_type(spec.pop('type'))
        given = spec.pop('at', None)
        places = places_of(cls, given, spec)
        around = chain_to(self.model, self.backbone)[:-1]
        if given is None and len(places) > 1:  # of its own places those that there are
            places = [p for p in places if next(self.layout.sites(self._backbone, p), None)] or places
        sites = [s for p in places for s in sites_for(self.layout, self._backbone, name, cls, p, around)]
        settings = {**defaults_of(cls), **spec, 'type': cls.__name__, 'at': places if len(places) > 1 else places[0]}
        # as JSON gives them back
        self._settings[name] = {k: [*v] if isinstance(v, tuple) else v for k, v in settings.items()}
        serving, hosts = Serving(self.layout, self._backbone), Counter(id(site.host) for site in sites)
        for site, delta in cls.at_sites(sites, **spec):
            serving.check(name, site, delta)
            key = name if hosts[id(site.host)] == 1 else f'{name}_{site.place}'
            self._own(site.host, delta, f'{site.name}.deltas.{key}', name)
            put(self.layout, self._backbone, site, key, delta)
            if delta.shared is not None and delta.shared is not self._shared.get(name):
                self._own(site.host, delta.shared, f'deltas.{name}', name)
                self._shared[name] = delta.shared
                share(self._backbone, name, delta.shared)

    def _own(self, host: nn.Module, part: nn.Module, path: str, name: str) -> None:
        """Give the tensors of a delta its host's device and format, and note who trains them."""
        if (own := next((p for p in host.parameters() if p.is_floating_point()), None)) is not None:
            part.to(own.device, own.dtype)
        self.owners.update({self._path(f'{path}.{n}'): name for n, _ in part.named_parameters()})

    def _check_tokens(self) -> None:
        """Refuse further tokens beside deltas that would take them for patches, or need the same in every block."""
        lost = next((type(d).__name__ for d in self.deltas() if d.needs_grid), None)
        if lost is not None and any(d.adds_tokens for d in self.deltas()):
            raise UserError(
                f'petl.deltas: {lost} would take the further tokens that pass through the blocks for patches; Prompt '
                'with deep=True fits.'
            )
        same = next((type(d).__name__ for d in self.deltas() if d.needs_same_tokens), None)
        if same is not None and any(d.adds_tokens for d in self.deltas()):
            raise UserError(
                f'petl.deltas: {same} needs the same tokens in front of every block, and further ones enter behind '
                'the first; Prompt with deep=True fits.'
            )

    def _attach_spt(self, spt: Tuning) -> None:
        for name in sorted(self._path(n) for n in spt.tuned(self._backbone)):
            if name in self.owners:
                raise UserError(
                    f'petl.train {self.owners[name]!r} trains {name}, which petl.spt also tunes; name it once.'
                )
        owners = {self._path(n): label for n, label in spt.attach(self._backbone).items()}
        for name in {'spt', *owners.values()} & {*self._settings}:
            raise UserError(f'petl.deltas.{name}: {name!r} is reserved for SPT; give the delta another name.')
        passed_by = 'qkv' in self.layout.passed_by and any('qkv' in name for name in owners)
        if passed_by and not Serving(self.layout, self._backbone).is_served:
            raise UserError(
                "petl.spt: the host's own attention (petl.attention=None) would bypass what it tunes on qkv; leave "
                'petl.attention at its default.'
            )
        self._settings['spt'] = spt.settings()
        self.owners.update(owners)

    def freeze(self) -> None:
        """Let only what the plan trains require gradients."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.owners)

    def merge(self) -> nn.Module:
        """Merge every delta into the weights that it tunes, in place, which leaves the plain model.

        The model then has the plain model's classes, keys and speed. Its outputs are the same up to rounding. Nothing
        in it trains afterwards.

        Returns:
            The model.

        Raises:
            UserError: where a delta does not update weights (an adapter, PATT, a prompt); nothing is then changed.
        """
        check_hosts(self._backbone, self.backbone)
        merge_hosts(self._backbone)
        take_off(self.layout, self._backbone)
        restore(self.model)
        self.forget()
        return self.model

    def forget(self) -> None:
        """Train nothing from now on: the deltas have become part of the model."""
        self.owners, self._settings, self._shared, self.train = {}, {}, {}, []
        self.freeze()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what trains, for an optimizer."""
        return (p for _, p in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what trains, with its name in the model."""
        return ((n, p) for n, p in self.model.named_parameters() if n in self.owners)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what trains, the deltas' and the head's buffers, and running statistics, by name."""
        statistics = {*self._statistics()}
        return {n: v for n, v in self.model.state_dict().items() if self._is_own(n) or n in statistics}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`state_dict` returned, all of it or nothing.

        Raises:
            UserError: when a name is missing or unknown, or a shape is another.
        """
        self.check_state(state)
        self.model.load_state_dict(state, strict=False)

    def check_state(self, state: Mapping[str, Tensor], where: str = '') -> None:
        """Check that a state is of :meth:`state_dict`'s names and shapes.

        Args:
            state: the tensors, by name.
            where: begins the sentence of an error. Defaults to ''.

        Raises:
            UserError: when a name is missing or unknown, or a shape is another.
        """
        own = self.state_dict()
        if missing := own.keys() - state.keys():
            raise UserError(f'{where}The state lacks {len(missing)} of {len(own)} tensors, such as {min(missing)}.')
        if others := state.keys() - own.keys():
            what = f'{len(others)} tensors that do not train here, such as {min(others)}'
            raise UserError(f'{where}The state has {what}.')
        for name, value in own.items():
            if value.shape != state[name].shape:
                there, here = tuple(state[name].shape), tuple(value.shape)
                raise UserError(f'{where}{name} has the shape {there} in the state, and {here} in the model.')
            chosen = not value.is_floating_point() and of_delta(name) and not value.is_meta
            if chosen and not torch.equal(state[name].to(value.device), value):
                raise UserError(f'{where}{name} is not that of this model: its frozen or chosen entries are others.')

    def _is_own(self, name: str) -> bool:
        return name in self.owners or of_delta(name) or name.startswith(self._of_heads)

    def _statistics(self) -> Iterator[str]:
        """Yield the buffers that a frozen BatchNorm changes in training."""
        for name, module in self.model.named_modules():
            if isinstance(getattr(module, 'running_mean', None), Tensor):
                yield from (f'{name}.{n}' if name else n for n, _ in module.named_buffers())

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return every delta's type, place and options, with defaults: its weights mean nothing without them."""
        return {name: dict(options) for name, options in self._settings.items()}

    def deltas(self) -> Iterator[Delta]:
        """Yield every delta in the model."""
        return (m for m in self.model.modules() if isinstance(m, Delta))

    def reset_parameters(self) -> None:
        """Draw the initial values of every delta again, and of what several share."""
        for part in (*self._shared.values(), *self.deltas()):
            part.reset_parameters()

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Take the deltas off inside the context, for a host's own init and a plain checkpoint.

        :meth:`reset_parameters` has to follow where a delta starts from the host's weights, as DoRA does.
        """
        hosts = [m for m in self.model.modules() if isinstance(m._modules.get('deltas'), Deltas)]
        taken: list[tuple[nn.Module, Any]] = []
        try:
            taken.extend((host, detach(host)) for host in hosts)
            yield
        finally:
            for host, deltas in taken:
                reattach(host, deltas)

    def count(self) -> dict[str, Any]:
        """Return ``trainable`` and ``total`` parameters, and those ``by`` delta or train name."""
        by = dict.fromkeys([*self.train, *self.owners.values()], 0)
        total = 0
        for name, parameter in self.model.named_parameters():
            total += parameter.numel()
            if parameter.requires_grad:
                by[self.owners[name]] += parameter.numel()
        return dict(trainable=sum(by.values()), total=total, by=by)
