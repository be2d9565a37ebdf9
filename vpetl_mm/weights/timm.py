"""Weights of timm's models: renamed and resized by timm's own functions, as for its own downloads."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stdout

from torch import Tensor, nn

from ..errors import UserError, reason
from ..petl.exchange import plain_class
from .tensors import StateDict, Weights

WRONG = (KeyError, ValueError, RuntimeError, AttributeError, TypeError, IndexError, AssertionError)
# of a task or of pre-training, dropped where the model has no such part
FOREIGN = (
    r'(head\w*|fc|classifier|pre_logits|attn_pool|decoder\w*|encoder_to_decoder|mask_token|projectors|neck)(\.|$)'
)


def fit_timm(weights: Weights, model: nn.Module) -> None:
    """Rename and resize a file's tensors for a model of timm, of whatever naming timm reads.

    What belongs to a task, such as a classifier, is dropped with a remark where the model has no such part.

    Args:
        weights: without a prefix.
        model: timm's own, on any device, also meta.

    Raises:
        UserError: when timm's functions cannot make them fit.
    """
    convert = getattr(sys.modules[plain_class(model).__module__], 'checkpoint_filter_fn', None)
    if convert is not None:
        try:
            with redirect_stdout(io.StringIO()):  # it prints what it tries
                converted = convert(weights.tensors, model)
        except WRONG as error:
            raise UserError(f'timm cannot fit it to {plain_class(model).__name__}: {reason(error, 160)}.') from error
        weights.become(converted, "by timm's rules")
    own = model.state_dict()
    _rename_norm(weights, own)
    weights.drop_foreign(FOREIGN, own)
    _resize_rest(weights, model, own)


def _rename_norm(weights: Weights, own: StateDict) -> None:
    """Take the last norm for that of the pooled token, or the other way round, where the model has but one."""
    for there, here in (('norm', 'fc_norm'), ('fc_norm', 'norm')):
        parts = [f'{there}.{p}' in weights and f'{there}.{p}' not in own for p in ('weight', 'bias')]
        if any(parts) and f'{here}.weight' in own and f'{here}.weight' not in weights:
            where = 'on the tokens' if there == 'norm' else 'after averaging the patches'
            weights.remarks.append(
                f'its last norm ({there}) is applied {where}, unlike that of the backbone ({here})'
            )
            weights.rename(lambda name, a=there, b=here: re.sub(rf'^{a}\.', f'{b}.', name))


def _resize_rest(weights: Weights, model: nn.Module, own: StateDict) -> None:
    """Resize a position embedding that timm's own function for this class leaves as it is."""
    grid = getattr(model, 'tokens_spatial_shape', None)
    if grid is None or len(grid) != 2 or 'pos_embed' not in weights or 'pos_embed' not in own:
        return
    table, there = weights['pos_embed'], own['pos_embed'].shape
    if table.ndim == 3 and table.shape[2] == there[2] and table.shape != there:
        weights.change('pos_embed', _resampled(table, tuple(grid)), 'resized')


def _resampled(table: Tensor, grid: tuple[int, int]) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    try:
        return resample_abs_pos_embed(table, new_size=list(grid), num_prefix_tokens=0)
    except WRONG as error:
        raise UserError(f'pos_embed has {table.shape[1]} tokens, which are not a square image.') from error
