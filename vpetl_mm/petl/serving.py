"""Which deltas a host's forward pass serves: what it would skip, or serve wrongly, is refused."""

from __future__ import annotations

from torch import nn

from ..errors import UserError
from .delta import Delta, Site
from .exchange import plain_class
from .inner import Inner
from .layouts import Layout
from .placing import adds_residual, reads_stream


class Serving:
    """What one backbone can serve.

    Args:
        layout: of the backbone.
        backbone: with or without deltas.
    """

    def __init__(self, layout: Layout, backbone: nn.Module) -> None:
        self.layout, self.host = layout, type(backbone).__name__
        attentions = list(layout.sites(backbone, 'attn'))
        leaf = layout.leaf
        others = [s.host for s in attentions if leaf and isinstance(s.host, leaf.__base__)]
        others = [plain_class(host).__name__ for host in others if not isinstance(host, leaf)]
        self.other_attention = next(iter(others), None)
        drop = getattr(backbone, 'patch_drop', None)
        self.drops_patches = drop is not None and not isinstance(drop, nn.Identity)
        self.is_served = all(s.inner is not None or getattr(s.host, 'serves_deltas', False) for s in attentions)
        last = len(list(layout.blocks(backbone))) - 1
        self.returns_early = bool({*(getattr(backbone, 'out_indices', None) or ())} - {last})

    def check(self, name: str, site: Site, delta: Delta) -> None:
        """Refuse a delta that the forward pass would skip, or whose tokens it would return.

        Args:
            name: of the delta.
            site: where it would sit.
            delta: built for the site.
        """
        self._check_place(name, site.place, delta)
        if self.other_attention is not None and site.place in ('qkv', 'proj', 'attn'):
            raise UserError(
                f'petl.deltas.{name}: {self.other_attention} inherits from an attention that multiplies by its '
                'weights itself, and would pass deltas by.'
            )
        if delta.needs_grid and self.drops_patches:
            raise UserError(
                f'petl.deltas.{name}: {self.host} drops patches in training, others in each frame; '
                f'{type(delta).__name__} needs those of one place.'
            )
        if site.place == 'between' and self.layout.windows and getattr(site.block, 'with_cp', False):
            raise UserError(
                f'petl.deltas.{name}: with_cp=True computes the inside of {type(site.block).__name__} apart from the '
                f'rest, and {type(delta).__name__} sits between its two branches.'
            )
        if delta.adds_tokens:
            self._check_tokens(name)
        if delta.joins_attention and site.inner is not None:
            self._check_joins(name, delta, site.inner)
        if (delta.joins_attention or site.place in self.layout.passed_by) and not self.is_served:
            raise UserError(
                f"petl.deltas.{name}: the host's own attention (petl.attention=None) would bypass it; leave "
                'petl.attention at its default.'
            )
        if delta.reads == 'stream' and not reads_stream(self.layout, site):
            raise UserError(
                f'petl.deltas.{name}: {type(site.block).__name__} does not add the residual stream in front of its '
                "second norm; source='norm' fits."
            )
        inside = site.place in ('block', 'between') and not delta.adds_tokens and self.layout.adds_residual
        if inside and not adds_residual(self.layout, site):
            raise UserError(
                f'petl.deltas.{name}: {type(site.block).__name__} does not add its MLP to the residual stream in '
                f'front of its second norm; {type(delta).__name__} does not fit.'
            )

    @staticmethod
    def _check_place(name: str, place: str, delta: Delta) -> None:
        weights = ('patch_embed', 'norm1', 'qkv', 'proj', 'norm2', 'fc1', 'fc2', 'last_norm')
        asked = {'stream': ('mlp',), 'norm': ('between',), 'weights': weights}.get(delta.reads)
        asked = ('attn', 'qkv') if delta.joins_attention else asked
        if asked and place not in asked:
            what = 'joins_attention' if delta.joins_attention else f'reads={delta.reads!r}'
            raise UserError(
                f'petl.deltas.{name}: a delta with {what} belongs at {" or ".join(asked)}, not at {place!r}.'
            )

    def _check_tokens(self, name: str) -> None:
        if not self.layout.takes_tokens:
            raise UserError(
                f'petl.deltas.{name}: its tokens would pass through all blocks, and those of {self.host} take no '
                'further tokens (windows, or positions or a mask inside the attention); Prompt with deep=True fits.'
            )
        if self.returns_early:
            raise UserError(
                f"petl.deltas.{name}: its tokens pass through all blocks, and the backbone's out_indices would "
                'return them from blocks in between; keep only the last block.'
            )

    def _check_joins(self, name: str, delta: Delta, inner: Inner) -> None:
        if not inner.joins:
            raise UserError(
                f'petl.deltas.{name}: the attention of {self.host} does not multiply its keys in one call of '
                "torch's scaled_dot_product_attention; no further ones can join."
            )
        own = delta.at_sites.__func__ is Delta.at_sites.__func__ and 'qkv' in delta.places  # PATT's, one per token
        if own and not inner.keeps_order:
            raise UserError(
                f'petl.deltas.{name}: the keys of {self.host} are not in the order of its tokens; '
                "mode='concat' would join those of others."
            )
