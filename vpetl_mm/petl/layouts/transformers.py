"""Where the vision models of Hugging Face's transformers keep their parts (4.57 and 5, which name some otherwise)."""

from dataclasses import replace

from ..inner import Inner
from .entry import transformer
from .layout import Layout


def apart(q: str, k: str, v: str, **options) -> tuple[Inner, ...]:
    """Return the inside of an attention with three layers."""
    return (Inner((f'{q}.weight', f'{k}.weight', f'{v}.weight'), **options),)


NAMES = ('query', 'key', 'value')
WEIGHTS = tuple(f'{name}.weight' for name in NAMES)
PROJ = ('q_proj', 'k_proj', 'v_proj')
NORM12 = ('layernorm_before', 'layernorm_after')
MLP = ('intermediate', 'output')
DENSE = (r'intermediate\.dense', r'output\.dense')
# what is behind the encoder is no part of it: V-JEPA 2's predictor, SigLIP's attention pooling, a pooler
BIAS = r'(?!(.*\.)?(deltas|predictor|head|pooler)\.).*[._]bias'
EMBED = {'bias': BIAS, 'patch_embed': r'embeddings\.patch_embeddings\..*'}
PATCH = r'(.*\.)?embeddings\.patch_embeddings?(\.proj(ection)?)?'
NEW, OLD = r'layers\.\d+', r'encoder\.layer\.\d+'

# of transformers 5: q_proj, k_proj, v_proj and o_proj, and an MLP that is a module
VIT = dict(
    norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?layernorm(_before|_after)?',
    attn='attention',
    inner=apart(*PROJ),
    proj='attention.o_proj',
    norm12=NORM12,
    groups=EMBED,
    patch=PATCH,
)
# of transformers 4: attention.attention.query and so on, and an MLP in two parts
OLD_VIT = dict(
    norms=VIT['norms'],
    attn='attention.attention',
    inner=apart(*NAMES),
    proj='attention.output.dense',
    mlp=MLP,
    fc=DENSE,
    norm12=NORM12,
    groups=EMBED,
    patch=PATCH,
)
DINO = dict(
    norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?(norm\d?|layernorm)',
    groups={**EMBED, 'layer_scale': r'.*\.layer_scale[12]\.lambda1'},
    patch=PATCH,
)
DINO_MLP = (r'mlp\.(fc1|weights_in|gate_proj|up_proj)', r'mlp\.(fc2|weights_out|down_proj)')
SIGLIP = transformer(
    r'(vision_model\.)?encoder\.layers\.\d+',
    norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?(layer_norm[12]|post_layernorm)',
    attn='self_attn',
    inner=apart(*PROJ),
    proj='self_attn.out_proj',
    norm12=('layer_norm1', 'layer_norm2'),
    patch=PATCH,
    groups={
        'bias': BIAS,
        'patch_embed': r'(.*\.)?patch_embedding\..*',
        'attn_pool': r'(vision_model\.)?head\..*',
    },
    adds_residual=('SiglipEncoderLayer', 'Siglip2EncoderLayer'),
    leading=(0,),
)
# images of any size, with a mask of the padding
SIGLIP2 = replace(SIGLIP, takes_tokens=False, leading=None)

SWIN = dict(
    norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?(layernorm(_before|_after)?|norm)',
    windows=True,
    norm12=NORM12,
    groups={**EMBED, 'downsample': r'encoder\.layers\.\d+\.downsample\..*'},
    patch=PATCH,
    adds_residual=('SwinLayer',),
    leading=(0,),
    sized='input_dimensions',
)
SWIN_BLOCKS = r'encoder\.layers\.\d+\.blocks\.\d+'
TIME = r'encoder\.layer\.\d+\.temporal_(attention|layernorm|dense)\.'

# class -> its layout, or those of several versions, of which the first that finds q, k and v in a model fits
TRANSFORMERS: dict[str, Layout | tuple[Layout, ...]] = {
    'transformers.ViTModel': (
        transformer(NEW, **VIT, adds_residual=('ViTLayer',), leading=(1,)),
        transformer(OLD, **OLD_VIT, adds_residual=('ViTLayer',), leading=(1,)),
    ),
    'transformers.VivitModel': (
        transformer(NEW, **VIT, adds_residual=('VivitLayer',)),
        transformer(OLD, **OLD_VIT, adds_residual=('VivitLayer',)),
    ),
    'transformers.Dinov2Model': (
        transformer(
            OLD,
            **DINO,
            attn='attention',
            inner=apart(*PROJ),
            proj='attention.o_proj',
            mlp=('mlp', 'layer_scale2'),
            fc=DINO_MLP,
            adds_residual=('Dinov2Layer',),
            leading=(1,),
        ),
        transformer(
            OLD,
            **DINO,
            attn='attention.attention',
            inner=apart(*NAMES),
            proj='attention.output.dense',
            mlp=('mlp', 'layer_scale2'),
            fc=DINO_MLP,
            adds_residual=('Dinov2Layer',),
            leading=(1,),
        ),
    ),
    # rotary positions, register tokens
    'transformers.DINOv3ViTModel': (
        transformer(
            r'(model\.)?layer\.\d+',
            **DINO,
            attn='attention',
            inner=apart(*PROJ),
            proj='attention.o_proj',
            mlp=('mlp', 'layer_scale2'),
            fc=DINO_MLP,
            adds_residual=('DINOv3ViTLayer',),
            takes_tokens=False,
            leading=(1, 'config.num_register_tokens'),
            rope='rope_embeddings',
        ),
    ),
    # the last two are inside the others, or without them, in version 4
    'transformers.SiglipVisionModel': SIGLIP,
    'transformers.Siglip2VisionModel': SIGLIP2,
    'transformers.SiglipVisionTransformer': SIGLIP,
    'transformers.Siglip2VisionTransformer': SIGLIP2,
    'transformers.SwinModel': (
        transformer(
            SWIN_BLOCKS,
            **SWIN,
            attn='attention',
            inner=apart(*PROJ, mask='attention_mask'),
            proj='attention.o_proj',
            table=r'relative_position_bias\.relative_position_bias_table',
        ),
        transformer(
            SWIN_BLOCKS,
            **SWIN,
            attn='attention.self',
            inner=apart(*NAMES, mask='attention_mask', joins=False),
            proj='attention.output.dense',
            mlp=MLP,
            fc=DENSE,
        ),
    ),
    # the MLP is no module: ``intermediate``, then ``output``, which adds the stream
    'transformers.VideoMAEModel': transformer(
        OLD,
        **{**OLD_VIT, 'inner': (Inner(WEIGHTS, ('q_bias', '', 'v_bias')), Inner(WEIGHTS))},
        adds_residual=('VideoMAELayer',),
        leading=(0,),
        joint=True,
    ),
    # its attention multiplies its keys itself
    'transformers.TimesformerModel': transformer(
        OLD,
        norms=r'(?!(?:.*\.)?deltas\.)(.*\.)?(layernorm(_before|_after)?|temporal_layernorm)',
        attn='attention.attention',
        inner=(Inner(joins=False),),
        proj='attention.output.dense',
        mlp=MLP,
        fc=DENSE,
        norm12=NORM12,
        groups={**EMBED, 'temporal': rf'{TIME}.*'},
        patch=PATCH,
        adds_residual=('TimesformerLayer',),
        takes_tokens=False,
    ),
    # rotary positions in time and space; its last LayerNorm is the predictor's
    'transformers.VJEPA2Model': transformer(
        OLD,
        norms=r'(?!(?:.*\.)?deltas\.)encoder\.(.*\.)?(norm\d|layernorm)',
        attn='attention',
        inner=apart(*NAMES),
        groups={'bias': BIAS, 'patch_embed': r'encoder\.embeddings\.patch_embeddings\..*'},
        patch=PATCH,
        adds_residual=('VJEPA2Layer',),
        takes_tokens=False,
    ),
}
