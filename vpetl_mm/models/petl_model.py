"""The parts that both PETL models share: pre-trained base, attention, deltas, freezing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS, MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..config import arguments_of
from ..errors import UserError, unknown
from ..petl import Delta, Plan, check_petl, layout_of
from ..petl.checks import one_of
from ..petl.deltas import of_delta
from ..spt.tuning import SPT
from ..weights.base import check_base, load_base, warn_of_inputs
from ..weights.hub import located
from .attention import exchange_attention
from .features import Features
from .inputs import normalising
from .mixing import mixing_preprocessor

REFUSAL = (
    'This file holds no backbone: it is an adapter of vpetl_mm, or a part of a model. Test it with tools/test.py, or '
    'load it with load_trained(build_model(config, init_weights=True), file) of vpetl_mm.'
)
ELSEWHERE = 'Name pre-trained weights in model.base, not in the backbone (pretrained, init_cfg).'


def delta_type(name: str | type) -> type[Delta]:
    """Return the registered delta class called ``name``; raise :class:`UserError` listing all where there is none."""
    found = MODELS.get(name) if isinstance(name, str) else name
    if not (isinstance(found, type) and issubclass(found, Delta)):
        there = [n for n, m in MODELS.module_dict.items() if isinstance(m, type) and issubclass(m, Delta)]
        raise unknown('delta type', name, there)
    return found


def known_options(backbone: Mapping[str, Any]) -> set[str]:
    """Return the options that a backbone's class takes.

    Raises:
        UserError: when the config has another, which VideoMAE's ViT would silently drop. ``with_cp`` is always
            allowed: :class:`PETLModel` handles it where the class does not.
    """
    with MODELS.switch_scope_and_registry(None) as registry:
        kind = backbone.get('type')
        cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:  # building it will say so
        return {*backbone}
    known = {*arguments_of(cls)}
    for name in backbone:
        if name not in {*known, 'type', 'with_cp'}:
            raise unknown('option in model.backbone', name, {*known, 'with_cp'})
    return known


def _checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run the block's forward, to be computed again in the backward pass."""
    return checkpoint(type(block).forward, block, *args, use_reentrant=False, **kwargs)


class PETLModel:
    """Mixed into a host library's model class, in front of it.

    Args:
        petl: ``dict(deltas=..., train=[...], attention=..., spt=..., fast=..., gelu=...)``; see docs/configs.md.
        base: the pre-trained backbone, ``dict(file=..., url=..., sha256=..., convert=..., license=...)`` or
            ``dict(hub=..., revision=..., name=...)``; None, which must be written out, is a random backbone.

    Raises:
        UserError: for anything in ``petl`` or ``base`` that does not fit.
    """

    head_name = 'cls_head'

    def __init__(self, *args: Any, petl: dict[str, Any], base: dict[str, Any] | None, **kwargs: Any) -> None:
        petl = check_petl(petl)
        self._base = check_base(base)
        # VideoMAE's ViT silently drops its argument, so look at the config itself
        given = [kwargs, kwargs.get('backbone')]
        named = [g.get('pretrained') for g in given if isinstance(g, Mapping)]
        if any(named):
            raise UserError(ELSEWHERE)
        with_cp = False
        if isinstance(kwargs.get('backbone'), Mapping) and 'with_cp' not in known_options(kwargs['backbone']):
            kwargs['backbone'] = dict(kwargs['backbone'])
            with_cp = one_of('model.backbone.with_cp', kwargs['backbone'].pop('with_cp', False), (True, False))
        classes = (kwargs.get(self.head_name) or {}).get('num_classes')
        train_cfg = kwargs.get('train_cfg') if self.head_name == 'head' else None
        preprocessor = normalising(kwargs.get('data_preprocessor'), kwargs.get('backbone'), self.head_name)
        kwargs['data_preprocessor'] = mixing_preprocessor(preprocessor, train_cfg, classes)
        super().__init__(*args, **kwargs)
        layout_of(self.backbone)  # an unknown backbone is refused first
        self._refuse_other_weights()
        self._check_width()
        exchange_attention(self.backbone, petl)
        spt = SPT.of(petl['spt']) if petl.get('spt') is not None else None
        self.plan = Plan(self, 'backbone', self.head_name, petl['deltas'], petl['train'], delta_type, spt)
        self.spt = spt
        self._speed_up(petl['fast'], petl['gelu'])
        if with_cp:  # which the two ViTs do not have
            for block in layout_of(self.backbone).blocks(self.backbone):
                block.forward = partial(_checkpointed, block)

    @property
    def base(self) -> dict[str, Any] | None:
        """``file`` of the pre-trained backbone and what else ``base`` says, or None; fetched if it is on the Hub."""
        if self._base is not None:
            self._base = located(self._base)
        return self._base

    def _refuse_other_weights(self) -> None:
        """Refuse a second source of the backbone's weights."""
        inits = [getattr(m, 'init_cfg', None) or [] for m in (self, self.backbone)]
        flat = [c for init in inits for c in ([init] if isinstance(init, dict) else init)]
        if any(c.get('type') == 'Pretrained' for c in flat):
            raise UserError(ELSEWHERE)
        if getattr(self.backbone, 'frozen_stages', -1) >= 0:
            raise UserError('backbone.frozen_stages would also freeze deltas; name what trains in petl alone.')
        if hasattr(self.backbone, 'pretrained2d'):
            self.backbone.pretrained2d = False

    def _check_width(self) -> None:
        """Check that the head takes the width of the backbone's last block."""
        given = layout_of(self.backbone).width(self.backbone)
        wanted = getattr(getattr(self, self.head_name), 'in_channels', None)
        if None not in (wanted, given) and wanted != given:
            raise UserError(f'model.{self.head_name}.in_channels is {wanted}, and the backbone has {given}.')

    def _speed_up(self, fast: bool, gelu: str) -> None:
        """Exchange classes for faster ones with the same numbers; without vpetl_mm.fast everything stays plain."""
        speed_up = FUNCTIONS.get('speed_up')
        if speed_up is not None:
            speed_up(self, fast, gelu)
        elif gelu != 'exact':
            raise UserError(f'petl.gelu={gelu!r} needs vpetl_mm.fast, which is not installed.')

    def has_backbone(self, state: Mapping[str, Any], prefix: str = '') -> bool:
        """Tell whether ``state`` holds every parameter of the plain backbone, its names after ``prefix``."""
        names = (n for n, _ in self.backbone.named_parameters() if not of_delta(n))
        return all(f'{prefix}backbone.{name}' in state for name in names)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        """Refuse a file without a backbone, which torch and mmengine would silently load.

        Raises:
            UserError: where the base is not loaded and the file has no backbone.
        """
        if not hasattr(self, 'initial_buffers') and not self.has_backbone(state_dict, prefix):
            raise UserError(REFUSAL)
        metadata = {} if local_metadata == REFUSAL else local_metadata
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    def extract_feat(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the host's features of images or clips; cached ones pass through."""
        if isinstance(inputs, Features):
            return self.as_extracted(inputs.values)
        return super().extract_feat(inputs, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialise the plain model by the hosts' own rules, load the base, then draw each delta again."""
        with self.plan.detached():
            super().init_weights()
            state = None
            if self._base is None:
                print_log('base=None: the backbone is RANDOM, nothing pre-trained is loaded.', 'current', 30)
            else:
                state = load_base(self.backbone, self.base)
                warn_of_inputs(self.base['file'], self.data_preprocessor)
            if self.spt is not None:
                self.spt.check_base(state)
        self.plan.reset_parameters()
        buffers = (('backbone.' + n, b) for n, b in self.backbone.named_buffers() if b.is_floating_point())
        self.initial_buffers = {n: b.detach().cpu().clone() for n, b in buffers}
