"""The deltas and how they are hosted: torch only, no OpenMMLab import."""

from .adapt_mlp import AdaptMLP
from .delta import Delta, Site
from .extra_tokens import ExtraTokens, extra_tokens
from .layout import LAYOUTS, Layout, host_of, layout_of
from .lora import LoRA
from .patt import PATT
from .plan import Plan, check_petl
from .prefix import Prefix
from .prompt import Prompt

DELTAS = (PATT, AdaptMLP, LoRA, Prefix, Prompt)

__all__ = [
    'DELTAS',
    'LAYOUTS',
    'PATT',
    'AdaptMLP',
    'Delta',
    'ExtraTokens',
    'Layout',
    'LoRA',
    'Plan',
    'Prefix',
    'Prompt',
    'Site',
    'check_petl',
    'extra_tokens',
    'host_of',
    'layout_of',
]
