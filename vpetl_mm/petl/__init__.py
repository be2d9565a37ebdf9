"""Deltas and their hosts; needs only torch."""

from .adapt import adapt, heads_of
from .adapt_mlp import AdaptMLP
from .addition import Addition
from .aim import AIMTime
from .delta import Delta, Site
from .extra_tokens import ExtraTokens, extra_tokens
from .frame_embedding import FrameEmbedding
from .grid import Grid
from .inner import Inner
from .layouts import LAYOUTS, Layout, find, found, host_of, layout_of, register_layout, transformer
from .linear_adapter import LinearAdapter
from .lora import LoRA
from .merging import merge
from .patt import PATT
from .plan import Plan, check_petl
from .prefix import Prefix
from .prompt import Prompt
from .self_attention import SelfAttention
from .sparse import Sparse
from .st_adapter import STAdapter

DELTAS = (PATT, AdaptMLP, LoRA, LinearAdapter, Prefix, Prompt, Sparse, STAdapter, AIMTime, FrameEmbedding)

__all__ = [
    'DELTAS',
    'LAYOUTS',
    'PATT',
    'AIMTime',
    'AdaptMLP',
    'Addition',
    'Delta',
    'ExtraTokens',
    'FrameEmbedding',
    'Grid',
    'Inner',
    'Layout',
    'LinearAdapter',
    'LoRA',
    'Plan',
    'Prefix',
    'Prompt',
    'STAdapter',
    'SelfAttention',
    'Site',
    'Sparse',
    'adapt',
    'check_petl',
    'extra_tokens',
    'find',
    'found',
    'heads_of',
    'host_of',
    'layout_of',
    'merge',
    'register_layout',
    'transformer',
]
