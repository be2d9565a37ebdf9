"""Where mmaction2's and mmpretrain's transformers keep their parts."""

from .entry import transformer
from .layout import Layout

OPENMMLAB: dict[str, Layout] = {
    # Video Swin
    'mmaction.SwinTransformer3D': transformer(
        r'layers\.\d+\.blocks\.\d+',
        norms=r'(.*\.)?norm\d*',
        windows=True,
        groups={'downsample': r'layers\.\d+\.downsample\..*'},
        branch='forward_part2',
        adds_residual=('SwinTransformerBlock3D',),
        leading=(0,),
        joint=True,
    ),
    # VideoMAE's ViT, whose own attention calls F.linear with qkv.weight
    'mmaction.VisionTransformer': transformer(
        r'blocks\.\d+',
        norms=r'(blocks\.\d+\.norm[12]|norm|fc_norm)',
        fc=(r'mlp\.layers\.0\.0', r'mlp\.layers\.1'),
        groups={'fc_norm': r'fc_norm\.(weight|bias)'},
        branch='mlp_branch',
        passed_by=('qkv',),
        slot_biases=('q_bias', '', 'v_bias'),
        adds_residual=('Block',),
        leading=(0,),
        joint=True,
    ),
    # the image ViT
    'mmpretrain.VisionTransformer': transformer(
        r'layers\.\d+',
        norms=r'(.*\.)?(ln\d|pre_norm)',
        mlp='ffn',
        fc=(r'ffn\.layers\.0\.0', r'ffn\.layers\.1'),
        norm12=('ln1', 'ln2'),
        adds_residual=('TransformerEncoderLayer',),
        leading=('num_extra_tokens',),
        gamma='gamma1',
    ),
    # the 2D Swin
    'mmpretrain.SwinTransformer': transformer(
        r'stages\.\d+\.blocks\.\d+',
        norms=r'(.*\.)?norm\d*',
        attn='attn.w_msa',
        mlp='ffn',
        fc=(r'ffn\.layers\.0\.0', r'ffn\.layers\.1'),
        windows=True,
        groups={'downsample': r'stages\.\d+\.downsample\..*'},
        adds_residual=('SwinBlock',),
        leading=(0,),
        sized='hw_shape',
    ),
}
