"""Where timm's transformers keep their parts (timm >= 1.0.20).

Deltas on the MLP add behind ``drop_path2``, outside LayerScale and drop-path, as on mmpretrain's ViT.
"""

from ..inner import Inner
from .entry import transformer
from .layout import Layout

FUSED = Inner(key_norm='k_norm')
BIASED = Inner(biases=('q_bias', '', 'v_bias'), key_norm='k_norm')
DIFFERENTIAL = Inner(kinds=('DiffAttention',), joins=False)  # the difference of two attentions
APART = Inner(('q_proj.weight', 'k_proj.weight', 'v_proj.weight'), key_norm='k_norm')
MLP = ('mlp', 'drop_path2')
# a gated MLP has two first layers, or one of double width; ViTamin's has other names
FC = (r'mlp\.(fc1|fc1_g|fc1_x|w0|w1)', r'mlp\.(fc2|w2)')
# the pooling behind the blocks is a group of its own
NORMS = r'(?!(?:.*\.)?deltas\.|attn_pool\.)(.*\.)?\w*norm\w*'
GROUPS = {
    'bias': r'(?!(?:.*\.)?deltas\.|attn_pool\.)(.*[._])?bias',
    'last_norm': r'(norm|fc_norm|head\.norm)\.(weight|bias)',
    'layer_scale': r'blocks\.\d+\.(ls[12]\.gamma|gamma_[12])',
    'attn_pool': r'attn_pool\..*',
    'mlp.norm': r'blocks\.\d+\.mlp\.norm\.(weight|bias)',
}
STAGES = r'layers\.\d+\.blocks\.\d+'

TIMM: dict[str, Layout] = {
    # DINOv2, SigLIP, DeiT, MAE and CLIP's image towers
    'timm.VisionTransformer': transformer(
        r'blocks\.\d+',
        norms=NORMS,
        inner=(DIFFERENTIAL, FUSED),
        mlp=MLP,
        fc=FC,
        groups=GROUPS,
        adds_residual=('Block',),
        post_norm=('ResPostBlock',),
        leading=('num_prefix_tokens',),
    ),
    # any size and shape of images, with a mask of the padding; of ViT's blocks or of Eva's
    'timm.NaFlexVit': transformer(
        r'blocks\.\d+',
        norms=NORMS,
        inner=(DIFFERENTIAL, BIASED, FUSED, APART),
        mlp=MLP,
        fc=FC,
        groups={**GROUPS, 'patch_embed': r'embeds\.(proj|norm\w*)\..*'},
        patch=r'embeds\.proj',
        passed_by=('qkv',),
        adds_residual=('Block', 'EvaBlock'),
        post_norm=('ResPostBlock',),
        takes_tokens=False,
        rope='rope',
    ),
    # EVA-02 and DINOv3: rotary positions; multiplies by qkv.weight itself where q and v have biases
    'timm.Eva': transformer(
        r'blocks\.\d+',
        norms=NORMS,
        inner=(BIASED, FUSED, APART),
        mlp=MLP,
        fc=FC,
        groups=GROUPS,
        passed_by=('qkv',),
        adds_residual=('EvaBlock',),
        post_norm=('EvaBlockPostNorm',),
        takes_tokens=False,
        leading=('num_prefix_tokens',),
        rope='rope',
    ),
    'timm.SwinTransformer': transformer(
        STAGES,
        norms=NORMS,
        inner=(Inner(mask='mask'),),
        mlp=MLP,
        fc=FC,
        windows=True,
        groups={'downsample': r'layers\.\d+\.downsample\..*'},
        adds_residual=('SwinTransformerBlock',),
        leading=(0,),
    ),
    # the width doubles inside a stage's first block, and tokens lie in the order of their windows
    'timm.Hiera': transformer(
        r'blocks\.\d+',
        norms=NORMS,
        inner=(Inner(keeps_order=False),),
        mlp=MLP,
        fc=FC,
        groups={**GROUPS, 'downsample': r'blocks\.\d+\.proj\.(weight|bias)'},
        adds_residual=('HieraBlock',),
        takes_tokens=False,
    ),
}
