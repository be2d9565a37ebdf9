"""The deltas and how they are hosted: torch only, no OpenMMLab import."""

from .adapt_mlp import AdaptMLP
from .delta import Delta, Site
from .layout import LAYOUTS, Layout, layout_of
from .lora import LoRA
from .patt import PATT
from .plan import Plan, check_petl

DELTAS = (PATT, AdaptMLP, LoRA)

__all__ = [
    'DELTAS',
    'LAYOUTS',
    'PATT',
    'AdaptMLP',
    'Delta',
    'Layout',
    'LoRA',
    'Plan',
    'Site',
    'check_petl',
    'layout_of',
]
