"""Writes tests/data/timm_vits.npz: small ViTs of timm, drawn at random, with an input and timm's own features.

timm is no dependency of this project; it was installed beside it (timm 1.0.31, torch 2.15.0):

    pip install --no-deps --target /tmp/timm timm huggingface_hub tqdm
    PYTHONPATH=/tmp/timm python tests/weights/make_timm_references.py

``<name>/w/<key>`` are a model's weights as timm saves them, ``<name>/features`` what its head would see.
``google/w/<key>`` are those of the original JAX archive, which timm's own reader put into its model.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

D, HEADS, HIDDEN, DEPTH = 16, 2, 64, 2
OPTIONS = {
    'timm_vit': {},
    'dinov2': dict(init_values=0.1),
    'miil': dict(qkv_bias=False),
    'pooled': dict(global_pool='avg', fc_norm=True),
}


def model(**options) -> VisionTransformer:
    """A ViT of timm, every parameter random and away from its initial value."""
    sizes = dict(img_size=16, patch_size=8, embed_dim=D, depth=DEPTH, num_heads=HEADS, num_classes=7)
    vit = VisionTransformer(**sizes, **options).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return vit


def google_arrays() -> dict[str, np.ndarray]:
    """Random weights with the names and axes of ViT-B_16.npz."""
    shapes: dict[str, tuple[int, ...]] = {'cls': (1, 1, D), 'embedding/kernel': (8, 8, 3, D), 'embedding/bias': (D,)}
    shapes |= {'Transformer/posembed_input/pos_embedding': (1, 5, D), 'head/kernel': (D, 7), 'head/bias': (7,)}
    shapes |= {'pre_logits/kernel': (D, D), 'pre_logits/bias': (D,)}
    norms = ['Transformer/encoder_norm']
    for n in range(DEPTH):
        block = f'Transformer/encoderblock_{n}'
        attention = f'{block}/MultiHeadDotProductAttention_1'
        norms += [f'{block}/LayerNorm_0', f'{block}/LayerNorm_2']
        for part in ('query', 'key', 'value'):
            shapes |= {
                f'{attention}/{part}/kernel': (D, HEADS, D // HEADS),
                f'{attention}/{part}/bias': (HEADS, D // HEADS),
            }
        shapes |= {f'{attention}/out/kernel': (HEADS, D // HEADS, D), f'{attention}/out/bias': (D,)}
        shapes |= {f'{block}/MlpBlock_3/Dense_0/kernel': (D, HIDDEN), f'{block}/MlpBlock_3/Dense_0/bias': (HIDDEN,)}
        shapes |= {f'{block}/MlpBlock_3/Dense_1/kernel': (HIDDEN, D), f'{block}/MlpBlock_3/Dense_1/bias': (D,)}
    shapes |= {f'{norm}/{part}': (D,) for norm in norms for part in ('scale', 'bias')}
    return {k: (torch.randn(s) * 0.3).numpy() for k, s in shapes.items()}


def main() -> None:
    """Draw, run and write."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    out: dict[str, np.ndarray] = {'input': x.numpy()}
    vits = {name: model(**options) for name, options in OPTIONS.items()}
    weights = {name: {k: v.numpy() for k, v in vit.state_dict().items()} for name, vit in vits.items()}
    vits['google'], weights['google'] = model(), google_arrays()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'vit.npz')
        np.savez(path, **weights['google'])
        vits['google'].load_pretrained(str(path))
    for name, vit in vits.items():
        with torch.no_grad():
            out[f'{name}/features'] = vit.forward_head(vit.forward_features(x), pre_logits=True).numpy()
        out |= {f'{name}/w/{k}': v for k, v in weights[name].items()}
    np.savez_compressed(Path(__file__).parents[1] / 'data/timm_vits.npz', **out)


if __name__ == '__main__':
    main()
