"""What both PETL models share: pre-trained base, attention, deltas, freezing."""

from __future__ import annotations

import re
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS

from ..errors import UserError, unknown
from ..petl import Delta, Plan, check_petl, layout_of
from .base_weights import check_base, load_base


def delta_type(name: str | type) -> type[Delta]:
    """The registered delta class called ``name``; a :class:`UserError` lists what there is."""
    found = MODELS.get(name) if isinstance(name, str) else name
    if not (isinstance(found, type) and issubclass(found, Delta)):
        there = [n for n, m in MODELS.module_dict.items() if isinstance(m, type) and issubclass(m, Delta)]
        raise unknown('delta type', name, there)
    return found


def attention_type(config: Any) -> type:
    """The registered attention class of ``petl.attention``; a :class:`UserError` lists what there is."""
    there = {n: m for n, m in MODELS.module_dict.items() if hasattr(m, 'like')}
    name = config.get('type') if isinstance(config, dict) else config
    if not isinstance(config, dict) or name not in there:
        raise UserError(
            f'petl.attention must be None or dict(type=...) with one of {", ".join(there)}; got {config!r}.'
        )
    return there[name]


class PETLModel:
    """Mixed into a host library's model class, in front of it.

    Args:
        petl: ``dict(deltas=..., train=[...], attention=...)``; see docs/configs.md.
        base: the pre-trained backbone, ``dict(file=..., url=..., sha256=..., convert=...)``; None, which
            must be written out, is a random backbone.

    Raises:
        UserError: for anything in ``petl`` or ``base`` that does not fit.
    """

    head_name = 'cls_head'

    def __init__(self, *args: Any, petl: dict[str, Any], base: dict[str, Any] | None, **kwargs: Any) -> None:
        petl = check_petl(petl)
        self._base = check_base(base)
        super().__init__(*args, **kwargs)
        layout_of(self.backbone)  # an unknown backbone is refused first
        self._refuse_other_weights()
        self._exchange_attention(petl)
        self.plan = Plan(self, 'backbone', self.head_name, petl['deltas'], petl['train'], delta_type)

    @property
    def base(self) -> dict[str, Any] | None:
        """The pre-trained backbone's ``file``, ``url``, ``sha256`` and ``convert``, or None."""
        return self._base

    def _refuse_other_weights(self) -> None:
        """The backbone's weights have one source, ``base``; two would be one too many to trust."""
        init = getattr(self.backbone, 'init_cfg', None) or []
        pretrained = [c for c in ([init] if isinstance(init, dict) else init) if c.get('type') == 'Pretrained']
        if pretrained or getattr(self.backbone, 'pretrained', None):
            raise UserError('Name pre-trained weights in model.base, not in the backbone (pretrained, init_cfg).')
        if getattr(self.backbone, 'frozen_stages', -1) >= 0:
            raise UserError('backbone.frozen_stages would freeze deltas as well; what trains stands in petl alone.')
        if hasattr(self.backbone, 'pretrained2d'):
            self.backbone.pretrained2d = False

    def _exchange_attention(self, petl: dict[str, Any]) -> None:
        """Put the registered attention in the place of the host's, with the same weights."""
        pattern = layout_of(self.backbone).attention
        config = petl.get('attention', dict(type='FastWindowAttention3D') if pattern else None)
        if config is None:
            return
        if not pattern:
            raise UserError(f'petl.attention is not available on {type(self.backbone).__name__}; set it to None.')
        cls = attention_type(config)
        named = list(self.backbone.named_modules())
        for name, host in [(n, m) for n, m in named if re.fullmatch(pattern, n)]:
            fast = MODELS.build({**cls.like(host), **config})
            for child, module in host.named_children():
                setattr(fast, child, module)
            fast.relative_position_bias_table = host.relative_position_bias_table
            fast.relative_position_index = host.relative_position_index
            parent, _, leaf = name.rpartition('.')
            setattr(self.backbone.get_submodule(parent), leaf, fast)

    def init_weights(self) -> None:
        """Initialise the plain model by its hosts' own rules, load the base, then draw each delta anew."""
        with self.plan.detached():
            super().init_weights()
            if self._base is None:
                print_log('base=None: the backbone is RANDOM, nothing pre-trained is loaded.', 'current', 30)
            else:
                load_base(self.backbone, self._base)
        for delta in self.plan.deltas():
            delta.reset_parameters()
        buffers = (('backbone.' + n, b) for n, b in self.backbone.named_buffers() if b.is_floating_point())
        self.initial_buffers = {n: b.detach().cpu().clone() for n, b in buffers}
