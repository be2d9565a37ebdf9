"""Pre-trained files of every kind, in their authors' naming, with the features that they must have.

No feature comes from this project: they are the published reference's (tests/data), timm's own, those of the host
libraries' models, or AdaptFormer's ViT written out in plain torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from golden import DATA, golden, vit_by_hand
from safetensors.torch import save_file
from torch import Tensor

from vpetl_mm import build_model
from vpetl_mm.commands.conversion import Conversion, convert
from vpetl_mm.weights.kinds import KINDS

StateDict = dict[str, Tensor]
D, HEADS = 16, 2


@dataclass(frozen=True)
class Reference:
    """A file and the features of its backbone.

    Args:
        kind: the kind's name.
        state: the file's tensors.
        x: an input.
        features: of the reference.
        heads: of the attention, where no tensor tells.
        options: of the backbone that no tensor tells.
    """

    kind: str
    state: StateDict
    x: Tensor
    features: Tensor
    heads: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def prefixed(prefix: str, state: StateDict) -> StateDict:
    """``state`` with ``prefix`` in front of every key."""
    return {f'{prefix}{k}': v for k, v in state.items()}


def drawn(**shapes: tuple[int, ...]) -> StateDict:
    """Random tensors; ``__`` in a name is a dot."""
    return {k.replace('__', '.'): torch.randn(s) for k, s in shapes.items()}


def fused(state: StateDict) -> StateDict:
    """AdaptFormer's ViT as timm, MAE and VideoMAE name it: q, k and v as one, the MLP's layers in ``mlp``."""
    out = {k.replace('.fc1.', '.mlp.fc1.').replace('.fc2.', '.mlp.fc2.'): v for k, v in state.items()}
    for name in [k for k in out if '.q_proj.' in k]:
        out[name.replace('.q_proj.', '.qkv.')] = torch.cat(
            [out.pop(name.replace('.q_proj.', f'.{slot}_proj.')) for slot in 'qkv']
        )
    return out


def video_swin(bare: bool = False) -> Reference:
    """The published reference, ``bare`` or in a checkpoint with a Kinetics head."""
    reference = golden(DATA / 'swin_none_w8x7x7.npz')
    state = dict(reference.theirs)
    if not bare:
        state = prefixed('backbone.', {k: v for k, v in state.items() if not k.startswith('fc.')})
        state['backbone.layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(392, 392, dtype=torch.long)
        state |= drawn(cls_head__fc_cls__weight=(400, 32), cls_head__fc_cls__bias=(400,))
    return Reference('video_swin', state, reference.input, reference.features)


def swin(
    depths: tuple[int, ...] = (2, 1), window: tuple[int, int, int] = (2, 4, 4), seed: int = 0, **options: Any
) -> torch.nn.Module:
    """Build mmaction2's own Swin, random."""
    from mmaction.models.backbones import SwinTransformer3D

    arch = dict(embed_dims=D, depths=list(depths), num_heads=[HEADS * 2**i for i in range(len(depths))])
    options = dict(out_indices=(len(depths) - 1,), pretrained2d=False) | options
    backbone = tiny.randomised(SwinTransformer3D(arch, window_size=window, **options), seed)
    backbone.eval()  # returns None
    return backbone


def _of(host: torch.nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = host(x)
    return y[-1] if isinstance(y, tuple) else y


def mmaction_swin() -> Reference:
    """mmaction2's own model and checkpoint."""
    host, x = swin(), tiny.clip()
    state = prefixed('backbone.', host.state_dict()) | drawn(cls_head__fc_cls__weight=(5, 32))
    return Reference('mmaction_swin', state, x, _of(host, x))


def swin2d() -> Reference:
    """A 2D Swin of window 4, inflated by mmaction2's inflate_weights, which needs four stages."""
    from mmengine.logging import MMLogger

    host, x, window = swin((1, 1, 2, 1), (8, 7, 7)), torch.randn(1, 3, 4, 64, 64), 4
    state = {k.replace('norm3.', 'norm.') if k.startswith('norm3.') else k: v for k, v in host.state_dict().items()}
    for key, value in state.items():
        if key.endswith('relative_position_bias_table'):
            state[key] = torch.randn((2 * window - 1) ** 2, value.shape[1])
        elif key.endswith('relative_position_index'):
            state[key] = torch.zeros(window**2, window**2, dtype=torch.long)
    state |= {
        'patch_embed.proj.weight': torch.randn(D, 3, 4, 4),
        'layers.0.blocks.0.attn_mask': torch.zeros(4, 16, 16),
    }
    state |= drawn(head__weight=(1000, 128), head__bias=(1000,))
    with tempfile.NamedTemporaryFile(suffix='.pth') as file:
        torch.save(dict(model=state), file.name)
        host.pretrained = file.name
        host.inflate_weights(MMLogger.get_current_instance())
    return Reference('swin2d', state, x, _of(host, x))


def videomae(pretrained: bool = False, separate: bool = False) -> Reference:
    """The published video ViT, and the same weights as VideoMAE stores them."""
    reference = golden(DATA / 'vit_video_none.npz')
    options = dict(img_size=32, num_frames=4)
    theirs, features = dict(reference.theirs), reference.features
    state = theirs if separate else fused(theirs)
    if pretrained:  # its tokens' norm is not the pooled tokens', which starts at ones and zeros
        theirs |= {'fc_norm.weight': torch.ones(32), 'fc_norm.bias': torch.zeros(32)}
        theirs |= {'head.weight': torch.eye(32), 'head.bias': torch.zeros(32), 'pos_embed': _sines(32)}
        features = vit_by_hand(theirs, reference.input, '', pooled=True)
        state = {k.replace('fc_norm.', 'norm.'): v for k, v in state.items() if not k.startswith('head.')}
        state = prefixed('encoder.', state) | drawn(
            mask_token=(1, 1, 8), encoder_to_decoder__weight=(8, 32), decoder__blocks__0__norm1__weight=(8,)
        )
    return Reference('videomae', state, reference.input, features, 4, options)


def _sines(width: int, tokens: int = 32) -> Tensor:
    """The table of "Attention is all you need", as VideoMAE uses it: (1, tokens, width)."""
    angle = np.arange(tokens)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    return torch.tensor(np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle)), dtype=torch.float32)[None]


def mmaction_videomae() -> Reference:
    """mmaction2's own model and checkpoint, with the table of sines."""
    from mmaction.models.backbones.vit_mae import VisionTransformer

    options = dict(img_size=16, num_frames=4)
    sizes = dict(embed_dims=D, depth=2, num_heads=HEADS, patch_size=8, **options)
    host, x = tiny.randomised(VisionTransformer(**sizes)).eval(), torch.randn(2, 3, 4, 16, 16)
    state = prefixed('backbone.', host.state_dict()) | drawn(cls_head__fc_cls__weight=(5, D))
    return Reference('mmaction_videomae', state, x, _of(host, x), HEADS, options)


def adaptformer() -> Reference:
    """The published image ViT, with q, k and v apart."""
    reference = golden(DATA / 'vit_none_cls.npz')
    return Reference('timm_vit', dict(reference.theirs), reference.input, reference.features, 4)


def mae() -> Reference:
    """The same weights as MAE's full checkpoint names them."""
    plain = adaptformer()
    state = {k: v for k, v in fused(plain.state).items() if not k.startswith('head.')}
    state |= drawn(mask_token=(1, 1, 8), decoder_pos_embed=(1, 17, 8), decoder_embed__weight=(8, 32))
    state |= drawn(decoder_blocks__0__attn__qkv__weight=(24, 8), decoder_norm__weight=(8,), decoder_pred__bias=(192,))
    return Reference('mae', state, plain.x, plain.features, 4)


def mocov3() -> Reference:
    """The same weights as MoCo v3's checkpoint has them, with another momentum encoder and MLP heads."""
    plain = adaptformer()
    state = {k: v for k, v in fused(plain.state).items() if not k.startswith('head.')}
    momentum = prefixed('module.momentum_encoder.', {k: v + 1 for k, v in state.items()})
    heads = drawn(head__0__weight=(64, 32), head__1__running_mean=(64,), head__3__weight=(64, 64))
    heads['head.1.num_batches_tracked'] = torch.tensor(7)
    state = prefixed('module.base_encoder.', state | heads) | momentum
    state |= prefixed('module.momentum_encoder.', heads) | prefixed('module.predictor.', heads)
    return Reference('mocov3', state, plain.x, plain.features, 4)


def of_timm(name: str) -> Reference:
    """timm's own model, or the original archive as timm reads it; see make_timm_references.py."""
    with np.load(DATA / 'timm_vits.npz') as file:
        arrays = {k: torch.from_numpy(file[k]) for k in file.files}
    state = {k.removeprefix(f'{name}/w/'): v for k, v in arrays.items() if k.startswith(f'{name}/w/')}
    kind = {'google': 'google_vit', 'pooled': 'timm_vit'}.get(name, name)
    heads = None if name == 'google' else HEADS
    return Reference(kind, state, arrays['input'], arrays[f'{name}/features'], heads)


def mmpretrain_vit() -> Reference:
    """mmpretrain's own model and checkpoint."""
    from mmpretrain.models import VisionTransformer

    arch = dict(embed_dims=D, num_layers=2, num_heads=HEADS, feedforward_channels=64)
    host, x = tiny.randomised(VisionTransformer(arch, 16, 8)), torch.randn(2, 3, 16, 16)
    host.eval()  # returns None
    state = prefixed('backbone.', host.state_dict()) | drawn(head__layers__head__weight=(5, D))
    return Reference('mmpretrain_vit', state, x, _of(host, x), HEADS)


REFERENCES: dict[str, Callable[[], Reference]] = {
    'video_swin': video_swin,
    'video_swin, bare': lambda: video_swin(bare=True),
    'mmaction_swin': mmaction_swin,
    'swin2d': swin2d,
    'videomae, fine-tuned': videomae,
    'videomae, pre-trained': lambda: videomae(pretrained=True),
    'videomae, q k v apart': lambda: videomae(separate=True),
    'mmaction_videomae': mmaction_videomae,
    'timm_vit': lambda: of_timm('timm_vit'),
    'timm_vit, q k v apart': adaptformer,
    'timm_vit, pooled': lambda: of_timm('pooled'),
    'mae': mae,
    'mocov3': mocov3,
    'dinov2': lambda: of_timm('dinov2'),
    'miil': lambda: of_timm('miil'),
    'mmpretrain_vit': mmpretrain_vit,
    'google_vit': lambda: of_timm('google'),
}


def stored(reference: Reference, path: Path) -> Path:
    """Write the reference's file in the format of ``path``."""
    if path.suffix == '.safetensors':
        save_file({k: v.contiguous().clone() for k, v in reference.state.items()}, path)
    elif path.suffix == '.npz':
        np.savez(path, **{k: v.numpy() for k, v in reference.state.items()})
    else:
        torch.save(dict(model=reference.state, epoch=3) if path.suffix == '.pth' else reference.state, path)
    return path


def model_config(backbone: dict[str, Any], reference: Reference, base: dict[str, Any]) -> dict[str, Any]:
    """Return a config with ``backbone``, as the conversion printed it, and with what no tensor tells."""
    backbone = {**backbone, **reference.options}
    if 'embed_dims' in backbone:
        backbone['num_heads'] = reference.heads
    elif reference.heads:
        backbone['arch'] = dict(backbone['arch'], num_heads=reference.heads)
    head = dict(num_classes=3, in_channels=reference.features.shape[1])
    image = KINDS[reference.kind].host.startswith('mmpretrain')
    head['type'] = 'PETLImageHead' if image else 'PETLVideoHead' if reference.features.ndim > 2 else 'PETLTokenHead'
    model = dict(
        {'head' if image else 'cls_head': head},
        type='PETLImageClassifier' if image else 'PETLRecognizer3D',
        backbone=backbone,
        petl=dict(deltas={}, train=['head']),
        base=base,
    )
    return dict(default_scope='mmpretrain' if image else 'mmaction', model=model)


def features(config: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    """Return the features of a config's backbone."""
    model = build_model(config, init_weights=True).eval()
    with torch.no_grad():
        y = model.backbone(x)
    return y[-1] if isinstance(y, tuple) else y


def converted(reference: Reference, folder: Path, suffix: str = '.pth', **options: Any) -> tuple[Conversion, Path]:
    """Convert the reference's file."""
    src, dst = stored(reference, folder / f'src{suffix}'), folder / 'dst.safetensors'
    return convert(str(src), str(dst), **options), dst
