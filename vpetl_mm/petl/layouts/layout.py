"""Layout: where the parts of one backbone class are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ...errors import UserError
from ..delta import Delta, Site
from ..grid import Grid, chain_to, grid_of
from ..inner import Inner, Projection, inside

LAYERS = ('patch_embed', 'norm1', 'norm2', 'last_norm')  # places of one layer with a weight, or of none


@dataclass(frozen=True)
class Layout:
    """Places of one backbone class. Patterns are regular expressions that match whole names.

    Args:
        places: place name -> pattern of module paths, for deltas.
        groups: train name -> pattern of parameter paths, for ``train``.
        block: pattern of the blocks.
        norm12: the norms in front of attention and MLP, as attributes of the block.
        block_norms: pattern of the norms inside the blocks.
        mlp: the MLP below a block, or its first and its last part, to whose output the deltas of the first add.
        inner: the inside of the attention, in each of its forms; none where the attention is exchanged for our own.
        leaf: the class that the attention is exchanged for, with the same weights. Defaults to None, none.
        branch: the block's method that computes the MLP branch, for deltas that read the residual stream;
            None if the MLP adds the residual itself, or the block does.
        adds_residual: classes of blocks that return the stream in front of the second norm plus the MLP's branch.
        passed_by: places whose ``forward`` the host's own attention does not call.
        slot_biases: the attention's biases of q, k and v ('' for none), where they are not their projection's and
            ``inner`` does not say so.
        post_norm: classes of blocks whose first norm is behind the attention, not in front.
        takes_tokens: whether further tokens can pass through the blocks, behind the others.
        leading: the class and register tokens in front of the patches: numbers, or attributes of the backbone that
            hold them. Defaults to None: the tokens lie in no known grid.
        joint: whether the patches of all frames of a clip are in one row; see :class:`~..grid.Grid`.
        rope: the attribute of the backbone that holds its rotary embedding, if it has one. Defaults to '', none.
        attention: the attention below a block, its output projection included. Defaults to ``'attn'``.
        windows: whether the attention is in windows. Defaults to False.
        sized: the argument of a block in windows that holds (H, W) of its tokens. Defaults to '': their shape.
        gamma: the LayerScale inside the attention, behind its output projection. Defaults to '', none.
        prefix: the path of the backbone inside what was given, with a dot behind it.
    """

    places: Mapping[str, str]
    groups: Mapping[str, str]
    block: str
    norm12: tuple[str, str]
    block_norms: str
    mlp: str | tuple[str, str] = 'mlp'
    inner: tuple[Inner, ...] = ()
    leaf: type[nn.Module] | None = None
    branch: str | None = None
    adds_residual: tuple[str, ...] = ()
    passed_by: tuple[str, ...] = ()
    slot_biases: tuple[str, ...] = ()
    post_norm: tuple[str, ...] = ()
    takes_tokens: bool = True
    leading: tuple[int | str, ...] | None = None
    joint: bool = False
    rope: str = ''
    attention: str = 'attn'
    windows: bool = False
    sized: str = ''
    gamma: str = ''
    prefix: str = ''

    def inside(self, prefix: str) -> Layout:
        """Return the layout of a backbone that is at ``prefix`` of the module that is asked about."""
        return replace(self, prefix=prefix) if prefix else self

    def matches(self, pattern: str, name: str) -> bool:
        """Tell whether a path, from the module that is asked about, matches a pattern of this table."""
        return name.startswith(self.prefix) and re.fullmatch(pattern, name.removeprefix(self.prefix)) is not None

    def members(self, group: str, names: Iterator[str]) -> list[str]:
        """Return those of ``names``, paths of parameters, that a train name stands for."""
        return [n for n in names if self.matches(self.groups[group], n)]

    def block_of(self, name: str) -> str:
        """Return the path of the block that ``name`` is in."""
        return self.prefix + re.match(self.block, name.removeprefix(self.prefix)).group()

    def inner_of(self, attention: nn.Module) -> Inner | None:
        """Return the form of an attention's inside; None where the table has none."""
        return next((form for form in self.inner if _fits(attention, form)), None)

    def sites(self, backbone: nn.Module, place: str, around: Sequence[nn.Module] = ()) -> Iterator[Site]:
        """Yield the hosts at ``place``, in the backbone's order; none where the table has no such place.

        Args:
            backbone: holds them.
            place: its name in the table.
            around: modules that hold the backbone, from the outside inwards: one may fold frames for it.
        """
        pattern, grid = self.places.get(place), None
        if pattern and self.leading is not None:
            chain = [*around, *chain_to(backbone, self.prefix.rstrip('.'))]
            grid = grid_of(chain, self.leading, self.joint, self.turns_keys(backbone))
        depths = {id(block): i for i, block in enumerate(self.blocks(backbone))}
        for name, module in list(backbone.named_modules()) if pattern else ():
            for site in self._site(backbone, name, module, place) if self.matches(pattern, name) else ():
                yield replace(site, grid=self._grid(grid, site), depth=depths.get(id(site.block), 0))

    def _grid(self, grid: Grid | None, site: Site) -> Grid | None:
        """Return the grid of the tokens at a site: in windows one that its block notes, and none in its attention."""
        if not self.windows or grid is None:
            return grid
        if site.block is None or site.place in ('qkv', 'proj', 'attn'):
            return None
        return replace(grid, size=None, backbone=grid)

    def misfit(self, backbone: nn.Module, place: str) -> nn.Module | None:
        """Return the first module at ``place`` that :meth:`sites` passes over: its inside is another; else None."""
        pattern = None if place in LAYERS else self.places.get(place)
        named = backbone.named_modules() if pattern else ()
        at = ((n, m) for n, m in named if self.matches(pattern, n))
        return next((m for n, m in at if not any(self._site(backbone, n, m, place))), None)

    def _site(self, backbone: nn.Module, name: str, module: nn.Module, place: str) -> Iterator[Site]:
        if place in LAYERS:
            yield from self._layer(backbone, name, module, place)
            return
        block = backbone.get_submodule(self.block_of(name))
        behind = any(c.__name__ in self.post_norm for c in type(block).__mro__)
        norm, slots = None if behind else getattr(block, self.norm12[0], None), ''
        inner = self.inner_of(module) if place in ('qkv', 'attn') else None
        if self.inner and inner is None and place in ('qkv', 'attn'):
            return
        whole = inside(block, self.attention)
        if place == 'qkv' and self.inner:
            layer = _layer_of(module, inner)
            name = f'{name}.{layer}' if layer else name
            first = last = Projection(module, inner)
            module, slots = (inside(module, layer), 'qkv') if layer else (module, 'qkv')
        elif place == 'mlp' and isinstance(self.mlp, tuple):
            if (other := getattr(block, self.mlp[1], None)) is None:
                return
            first, last = _ends(module)[0], _ends(module, other)[1]
        else:
            first, last = _ends(module)
            slots = 'qkv' if place == 'qkv' else ''
        out = last.out_features
        if place == 'attn' and inner is not None:  # as wide as its keys, wherever its output projection is
            out = Projection(module, inner).out_features // 3
        site = Site(name, module, place, first.in_features, out, slots, norm, inner, block, whole)
        yield self._attention(backbone, site) if place == 'attn' else site

    def _attention(self, backbone: nn.Module, site: Site) -> Site:
        """Return the site of an attention with what is in it."""
        (_, proj), (path, qkv) = self._part(backbone, site.block, 'proj'), self._part(backbone, site.block, 'qkv')
        inner, host = site.inner, site.host
        if inner is None and qkv is not None:
            weight = f'{path.removeprefix(site.name)}.weight'.removeprefix('.')
            inner = Inner((weight,), () if getattr(qkv, 'bias', None) is not None else self.slot_biases)
        within = {id(m) for m in host.modules()}
        parts = (proj, getattr(host, self.gamma, None) if self.gamma else None)
        behind = tuple(m for m in parts if id(m) in within and not isinstance(m, nn.Identity))
        return replace(site, proj=proj, projection=inner and Projection(host, inner), behind_heads=behind)

    def _part(self, backbone: nn.Module, block: nn.Module, place: str) -> tuple[str, nn.Module | None]:
        """Return what is at a place of a block, with its path; '' and None where there is nothing."""
        inside = {id(m) for m in block.modules()}
        named = ((n, m) for n, m in backbone.named_modules() if id(m) in inside)
        return next(((n, m) for n, m in named if self.matches(self.places[place], n)), ('', None))

    def _layer(self, backbone: nn.Module, name: str, module: nn.Module, place: str) -> Iterator[Site]:
        """Yield a norm, or the layer that embeds patches: one with a weight, whose rows are its outputs."""
        if (weight := module._parameters.get('weight')) is not None:
            in_block = place in ('norm1', 'norm2')
            block = backbone.get_submodule(self.block_of(name)) if in_block else None
            yield Site(
                name, module, place, weight[0].numel() if weight.dim() > 1 else len(weight), len(weight), block=block
            )

    def biases(self, backbone: nn.Module, host: str) -> list[tuple[str, int]]:
        """Return the parameters that make up the bias of a layer's output, each with the position where it starts.

        Args:
            backbone: holds the layer.
            host: the layer's path, or that of the attention that owns three.
        """
        return [(name, start) for _, name, start, _ in self.parameters(backbone, host) if name]

    def parameters(self, backbone: nn.Module, host: str) -> list[tuple[str, str, int, int]]:
        """Return the parts of a layer: its weight and bias ('' for none), their first row, and how many rows.

        Where one weight has several biases it stands first, without one, and the biases follow without it.
        """
        layer, owner = backbone.get_submodule(host), host.rpartition('.')[0]
        if (inner := self.inner_of(layer)) is not None:
            return _named(host, Projection(layer, inner))
        attention = backbone.get_submodule(owner)
        is_qkv = any(s.name == host for s in self.sites(backbone, 'qkv'))
        if is_qkv and (inner := self.inner_of(attention)) is not None:
            return _named(owner, Projection(attention, inner))
        rows = layer.weight.shape[0]
        own = f'{host}.bias' if getattr(layer, 'bias', None) is not None else ''
        parts = [(f'{host}.weight', own, 0, rows)]
        if is_qkv and not own:
            named = ((n, i * (rows // 3)) for i, n in enumerate(self.slot_biases))
            parts += [('', f'{owner}.{n}', at, rows // 3) for n, at in named if n and hasattr(attention, n)]
        return parts

    def turns_keys(self, backbone: nn.Module) -> bool:
        """Tell whether a backbone has a rotary embedding, which turns queries and keys by their place."""
        return bool(self.rope) and inside(backbone, f'{self.prefix}{self.rope}') is not None

    def norms(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """Yield the norms inside the blocks, in order."""
        yield from (m for n, m in backbone.named_modules() if self.matches(self.block_norms, n))

    def blocks(self, backbone: nn.Module) -> Iterator[nn.Module]:
        """Yield the backbone's blocks, in order."""
        yield from (m for n, m in backbone.named_modules() if self.matches(self.block, n))

    def width(self, backbone: nn.Module) -> int | None:
        """Return the width of the last block's output; None where there are no blocks."""
        return next((site.out_dim for site in reversed([*self.sites(backbone, 'block')])), None)


def _fits(attention: nn.Module, form: Inner) -> bool:
    """Tell whether an attention is of a form: its class and biases, where it names them, and weights of one size."""
    named = [b for b in form.biases if b]
    has_bias = not named or any(inside(attention, b) is not None for b in named)
    weights = [inside(attention, name) for name in form.weights]
    if any(w is None for w in weights) or not has_bias:
        return False
    kinds = [c.__name__ for c in type(attention).__mro__]
    is_named = not form.kinds or any(kind in form.kinds for kind in kinds)
    return is_named and len({len(w) for w in weights}) == 1  # with fewer heads of keys q, k and v are no equal slots


def _layer_of(attention: nn.Module, inner: Inner) -> str:
    """Return the name of the one layer that projects to q, k and v, '' where they are three, or none."""
    layer, _, _ = inner.weights[0].rpartition('.')
    return layer if layer and len(inner.weights) == 1 else ''


def _named(owner: str, projection: Projection) -> list[tuple[str, str, int, int]]:
    at = f'{owner}.' if owner else ''
    parts = [(at + w, at + b if b else '', start, rows) for w, b, start, rows in projection.parameters()]
    biases = projection.bias_names
    if len(parts) == 1 and len(biases) == 3:
        (weight, _, start, rows), third = parts[0], parts[0][3] // 3
        own = [('', at + b, i * third, third) for i, b in enumerate(biases) if b and projection.is_trained(b)]
        return [(weight, '', start, rows), *own]
    return parts


def _ends(module: nn.Module, last: nn.Module | None = None) -> tuple[nn.Linear, nn.Linear]:
    """Return the first and the last linear layer of a host, not counting deltas; the last one of ``last``, if any."""
    parts = [module] if last is None else [module, last]
    of_deltas = {id(m) for part in parts for d in part.modules() if isinstance(d, Delta) for m in d.modules()}
    linears = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear) and id(m) not in of_deltas]
    if not linears:
        raise UserError(f'{type(module).__name__} has no linear layer; a quantised model takes no deltas.')
    return linears[0], linears[-1]
