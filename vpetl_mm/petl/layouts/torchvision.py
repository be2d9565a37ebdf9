"""Where torchvision's ViT keeps its parts: torch's own nn.MultiheadAttention, with q, k and v in one parameter."""

from ..inner import Inner
from ..self_attention import SelfAttention
from .entry import transformer
from .layout import Layout

IN_PROJ = Inner(('in_proj_weight',))

TORCHVISION: dict[str, Layout] = {
    'torchvision.VisionTransformer': transformer(
        r'encoder\.layers\.encoder_layer_\d+',
        norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?(ln(_\d)?)',
        attn='self_attention',
        inner=(IN_PROJ,),
        leaf=SelfAttention,
        proj='self_attention.out_proj',
        fc=(r'mlp\.0', r'mlp\.3'),
        norm12=('ln_1', 'ln_2'),
        patch='conv_proj',
        groups={'patch_embed': r'conv_proj\..*'},
        adds_residual=('EncoderBlock',),
        leading=(1,),
    ),
}
