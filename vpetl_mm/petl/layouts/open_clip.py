"""Where OpenCLIP's image tower keeps its parts: torch's own nn.MultiheadAttention (open_clip_torch >= 3)."""

from ..self_attention import SelfAttention
from .entry import transformer
from .layout import Layout
from .torchvision import IN_PROJ

OPEN_CLIP: dict[str, Layout] = {
    # also inside a CLIP model, at ``visual``
    'open_clip.VisionTransformer': transformer(
        r'transformer\.resblocks\.\d+',
        norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?ln_\w+',
        inner=(IN_PROJ,),
        leaf=SelfAttention,
        proj='attn.out_proj',
        mlp=('mlp', 'ls_2'),
        fc=(r'mlp\.c_fc', r'mlp\.c_proj'),
        norm12=('ln_1', 'ln_2'),
        patch='conv1',
        groups={'patch_embed': r'conv1\..*', 'layer_scale': r'transformer\.resblocks\.\d+\.ls_[12]\.gamma'},
        adds_residual=('ResidualAttentionBlock', 'CustomResidualAttentionBlock'),
        takes_tokens=False,  # its blocks may take (N, B, d)
    ),
}
