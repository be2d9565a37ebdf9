"""Prints the parity numbers of docs/hosts.md: the same weights, seen as one layer or three, and by two libraries.

``python docs/host_parity.py [vit_small_patch14_dinov2.safetensors]`` in the checkout; the file is timm's.
"""

from __future__ import annotations

import copy
import sys
import warnings

import timm
import torch
from torch import Tensor, nn

from vpetl_mm.petl import Plan, adapt

DELTAS = dict(
    patt=dict(type='PATT', d_bottle=64),
    adapter=dict(type='AdaptMLP', d_bottle=64),
    lora=dict(type='LoRA', slots='qkv', rank=8),
    prefix=dict(type='Prefix', num_tokens=8),
)


def drawn(plan: Plan) -> None:
    """Draw what the plan trains, in the order of its names without the layer of q, k and v."""
    torch.manual_seed(1)
    for _, parameter in sorted(plan.named_parameters(), key=lambda item: item[0].replace('.qkv.', '.')):
        nn.init.normal_(parameter, std=0.05)


def apart(model: nn.Module) -> nn.Module:
    """Return timm's EVA of the same weights, with a layer each for q, k and v."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        other = timm.layers.AttentionRope(768, 12, qkv_fused=False, qkv_bias=True, num_prefix_tokens=5)
        for name, weight, bias in zip('qkv', *(p.chunk(3) for p in block.attn.qkv.parameters()), strict=True):
            layer = getattr(other, f'{name}_proj')
            layer.weight.data, layer.bias.data = weight.data, bias.data
        other.proj.load_state_dict(block.attn.proj.state_dict())
        block.attn = other.eval()
    return model


@torch.no_grad()
def difference(a: nn.Module, b: nn.Module, x: Tensor) -> str:
    """Return the largest difference of two models' outputs, and how large they are."""
    y, z = a(x), b(x)
    return f'{(y - z).abs().max():.1e} of outputs up to {y.abs().max():.1f}'


def fused_or_apart() -> None:
    """Compare a ViT-B of timm, with random weights, and rotary positions, in both forms."""
    torch.manual_seed(0)
    sizes = dict(embed_dim=768, depth=12, num_heads=12, num_classes=10, num_reg_tokens=4, use_rot_pos_emb=True)
    one = timm.models.Eva(**sizes, attn_type='rope', qkv_bias=True).eval()
    nn.init.normal_(one.head.weight, std=0.05)
    three, x = apart(one), torch.randn(4, 3, 224, 224)
    print(f'one layer or three, plain:           {difference(one, three, x)}')
    plans = [adapt(one, DELTAS), adapt(three, DELTAS)]
    for plan in plans:
        drawn(plan)
    print(f'the same with deltas:                {difference(one, three, x)}')
    print(f'parameters that train: {plans[0].count()["trainable"]:,} and {plans[1].count()["trainable"]:,}')
    lora = apart(timm.models.Eva(**sizes, attn_type='rope', qkv_bias=True).eval())
    plan = adapt(lora, dict(lora=DELTAS['lora']))
    drawn(plan)
    tuned = copy.deepcopy(lora)
    plan.merge()
    print(f'LoRA on three layers, merged:        {difference(tuned, lora, x)}')


def two_libraries(file: str) -> None:
    """Compare the real ViT-S/14 of timm and of mmpretrain, at its own size, plain and with the same deltas."""
    from vpetl_mm import build_model

    vit = dict(
        type='VisionTransformer', arch='dinov2-small', img_size=518, patch_size=14, layer_scale_init_value=1e-5
    )
    backbones = {
        'dinov2': vit,
        None: dict(type='TimmBackbone', model='vit_small_patch14_dinov2', img_size=518),
    }
    x = torch.randn(2, 3, 518, 518)
    for what, names in {'plain': (), 'with deltas': ('patt', 'adapter', 'lora')}.items():
        logits = []
        for convert, backbone in backbones.items():
            head = dict(type='PETLImageHead', in_channels=384, num_classes=10, bn=False)
            petl = dict(deltas={n: DELTAS[n] for n in names}, train=['head'])
            base = dict(file=file) if convert is None else dict(file=file, convert=convert)
            model = dict(type='PETLImageClassifier', backbone=backbone, head=head, petl=petl, base=base)
            inputs = dict(data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0] * 3, std=[1] * 3))
            config = dict(default_scope='mmpretrain', model=dict(model, **inputs))
            built = build_model(config, init_weights=True).eval()
            torch.manual_seed(1)
            for _, parameter in sorted(built.plan.named_parameters(), key=lambda item: _place(item[0])):
                nn.init.normal_(parameter, std=0.05)
            with torch.no_grad():
                logits.append(built.head(built.extract_feat(x)))
        apart = (logits[0] - logits[1]).abs().max()
        print(f'timm or mmpretrain, {what + ":":16} {apart:.1e} of logits up to {logits[0].abs().max():.1f}')


def _place(name: str) -> tuple[int, str]:
    """Return the block and the delta's parameter, by which both libraries' names sort alike."""
    return next((int(part) for part in name.split('.') if part.isdigit()), -1), name.rpartition('.deltas.')[2]


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    fused_or_apart()
    if sys.argv[1:]:
        two_libraries(sys.argv[1])
