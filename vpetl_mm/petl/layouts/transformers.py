"""Where the vision models of Hugging Face's transformers keep their parts (4.57 and 5, which name some otherwise)."""

from ..inner import Inner
from .layout import Layout, transformer


def apart(q: str, k: str, v: str, **options) -> tuple[Inner, ...]:
    """Return the inside of an attention with three layers."""
    return (Inner((f'{q}.weight', f'{k}.weight', f'{v}.weight'), **options),)


NAMES = ('query', 'key', 'value')
PROJ = ('q_proj', 'k_proj', 'v_proj')
NORM12 = ('layernorm_before', 'layernorm_after')
MLP = ('intermediate', 'output')
DENSE = (r'intermediate\.dense', r'output\.dense')
EMBED = {'patch_embed': r'embeddings\.patch_embeddings\..*'}
NEW, OLD = r'layers\.\d+', r'encoder\.layer\.\d+'

# of transformers 5: q_proj, k_proj, v_proj and o_proj, and an MLP that is a module
VIT = dict(
    norms=r'(?!.*\.deltas\.)(.*\.)?layernorm(_before|_after)?',
    attn='attention',
    inner=apart(*PROJ),
    proj='attention.o_proj',
    norm12=NORM12,
    groups=EMBED,
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
)
DINO = dict(
    norms=r'(?!.*\.deltas\.)(.*\.)?norm\d?|layernorm',
    groups={**EMBED, 'layer_scale': r'.*\.layer_scale[12]\.lambda1'},
)
DINO_MLP = (r'mlp\.(fc1|weights_in)', r'mlp\.(fc2|weights_out)')
SIGLIP = transformer(
    r'encoder\.layers\.\d+',
    norms=r'(?!.*\.deltas\.)(.*\.)?layer_norm[12]|post_layernorm',
    attn='self_attn',
    inner=apart(*PROJ),
    proj='self_attn.out_proj',
    norm12=('layer_norm1', 'layer_norm2'),
    groups={'patch_embed': r'embeddings\.patch_embedding\..*', 'attn_pool': r'head\..*'},
    adds_residual=('SiglipEncoderLayer', 'Siglip2EncoderLayer'),
)

# class -> its layout, or those of several versions, of which the first that has blocks in a model fits
TRANSFORMERS: dict[str, Layout | tuple[Layout, ...]] = {
    'transformers.ViTModel': (
        transformer(NEW, **VIT, adds_residual=('ViTLayer',)),
        transformer(OLD, **OLD_VIT, adds_residual=('ViTLayer',)),
    ),
    'transformers.VivitModel': (
        transformer(NEW, **VIT, adds_residual=('VivitLayer',)),
        transformer(OLD, **OLD_VIT, adds_residual=('VivitLayer',)),
    ),
}
