"""Deltas and their hosts; needs only torch."""

from .adapt import adapt, heads_of
from .adapt_mlp import AdaptMLP
from .adapter_plus import AdapterPlus
from .addition import Addition
from .aim import AIMTime
from .compacter import Compacter
from .convpass import Convpass
from .delta import Delta, Site
from .dora import DoRA
from .dtl import DTL
from .extra_tokens import ExtraTokens, extra_tokens
from .fact import FacT
from .frame_embedding import FrameEmbedding
from .grid import Grid
from .inner import Inner
from .kadaptation import KAdaptation
from .layouts import LAYOUTS, Layout, find, found, host_of, layout_of, register_layout, transformer
from .linear_adapter import LinearAdapter
from .lora import LoRA
from .merging import merge
from .mhpa import MHPA
from .mona import Mona
from .patt import PATT
from .plan import Plan
from .prefix import Prefix
from .prompt import Prompt
from .rep_adapter import RepAdapter
from .self_attention import SelfAttention
from .settings import check_petl
from .sparse import Sparse
from .ssf import SSF
from .st_adapter import STAdapter
from .vera import VeRA

DELTAS = (
    *(PATT, AdaptMLP, LoRA, LinearAdapter, Prefix, Prompt, Sparse),  # of V-PETL and SPT
    *(SSF, RepAdapter, DoRA, FacT, VeRA, KAdaptation),  # which merge
    *(AdapterPlus, Convpass, Mona, Compacter, MHPA),  # bottlenecks
    *(STAdapter, AIMTime, FrameEmbedding),  # video
    *(DTL,),  # beside the blocks
)

__all__ = [
    'DELTAS',
    'DTL',
    'LAYOUTS',
    'MHPA',
    'PATT',
    'SSF',
    'AIMTime',
    'AdaptMLP',
    'AdapterPlus',
    'Addition',
    'Compacter',
    'Convpass',
    'Delta',
    'DoRA',
    'ExtraTokens',
    'FacT',
    'FrameEmbedding',
    'Grid',
    'Inner',
    'KAdaptation',
    'Layout',
    'LinearAdapter',
    'LoRA',
    'Mona',
    'Plan',
    'Prefix',
    'Prompt',
    'RepAdapter',
    'STAdapter',
    'SelfAttention',
    'Site',
    'Sparse',
    'VeRA',
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
