"""The entry point: exchange classes of a built model for faster ones."""

from __future__ import annotations

import torch.nn.functional as F
from mmaction.models.backbones.swin import BasicLayer, SwinTransformerBlock3D
from torch import nn

from ..errors import UserError
from ..models.window_attention import FastWindowAttention3D, FastWindowMSA
from ..petl import Delta, Sparse, layout_of
from ..petl.deltas import Deltas, deltas_of
from ..petl.exchange import exchange_plain, plain_class
from ..petl.host import hosted_class
from ..petl.opened import is_opened
from .addition import add_in_place
from .dot_product import dot_product
from .gelu import GELU8Bit
from .recompute import recomputing_class
from .sparse import GatheredSparse
from .swin_stage import WindowedBlock, WindowedStage
from .window_attention import CachedWindowAttention3D, CachedWindowMSA

FASTER = {
    BasicLayer: WindowedStage,
    SwinTransformerBlock3D: WindowedBlock,
    FastWindowAttention3D: CachedWindowAttention3D,
    FastWindowMSA: CachedWindowMSA,
}


def speed_up(model: nn.Module, fast: bool = True, gelu: str = 'exact') -> None:
    """Exchange classes of a PETL model for faster ones with the same weights, keys and numbers, in place.

    A class that a host library or a user derives from one of those in ``FASTER`` stays as it is.

    Args:
        model: its deltas attached.
        fast: False exchanges nothing but GELU. Defaults to True.
        gelu: ``'exact'`` (default), or ``'8bit'``, which keeps GELU's derivative in 8 bits.

    Raises:
        UserError: when the model's MLPs have no GELU.
    """
    if gelu == '8bit':
        _store_gelu_in_8_bits(model)
    if not fast:
        return
    for module in list(model.backbone.modules()):
        if (cls := FASTER.get(plain_class(module))) is not None and not (
            cls is WindowedStage and _needs_order(module)
        ):
            exchange_plain(module, cls)
        if getattr(module, 'dot_product', None) is F.scaled_dot_product_attention:
            module.dot_product = dot_product
        if is_whole(module):
            module.adder = add_in_place
        for delta in deltas_of(module):
            if type(delta) is Sparse and (isinstance(module, (nn.Linear, nn.LayerNorm)) or is_opened(module)):
                GatheredSparse.take_over(delta, module)
    model.backbone.__class__ = recomputing_class(type(model.backbone))


def _needs_order(stage: nn.Module) -> bool:
    """Tell whether deltas in a stage need its tokens in the order of their rows."""
    deltas = (m for m in stage.modules() if isinstance(m, Delta))
    return any(delta.needs_grid or delta.at in ('block', 'between') for delta in deltas)


def is_whole(host: nn.Module) -> bool:
    """Tell whether a host's output is its own: of an MLP in two parts, or of three layers, others may see it too."""
    deltas = host._modules.get('deltas')
    return isinstance(deltas, Deltas) and (deltas.how is None or deltas.how == (hosted_class,))


def _store_gelu_in_8_bits(model: nn.Module) -> None:
    backbone, of_deltas = model.backbone, {id(m) for delta in model.plan.deltas() for m in delta.modules()}
    mlps = [site.host for site in layout_of(backbone).sites(backbone, 'mlp')]
    found = [m for mlp in mlps for m in mlp.modules() if type(m) is nn.GELU and id(m) not in of_deltas]
    if not found:
        raise UserError(f"petl.gelu='8bit': the MLPs of {type(backbone).__name__} have no GELU.")
    for gelu in found:
        gelu.__class__ = GELU8Bit
