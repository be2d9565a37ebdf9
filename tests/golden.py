"""The reference tensors: reading them and translating their authors' names to ours."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DATA = Path(__file__).parent / 'data'

# the authors' name -> ours; PATT is their qkv_adapter, a Sequential of Linear, Tanh, Linear
SWIN = (
    ('.attn.qkv_adapter.0.', '.attn.qkv.deltas.patt.down.'),
    ('.attn.qkv_adapter.2.', '.attn.qkv.deltas.patt.up.'),
    ('.mlp.adaptmlp.down_proj.', '.mlp.deltas.adapter.down.'),
    ('.mlp.adaptmlp.up_proj.', '.mlp.deltas.adapter.up.'),
)
VIT_IMAGE = (
    ('backbone.blocks.', 'backbone.layers.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('backbone.norm.', 'backbone.ln1.'),
    ('backbone.fc_norm.', 'backbone.ln2.'),
    ('.fc1.', '.ffn.layers.0.0.'),
    ('.fc2.', '.ffn.layers.1.'),
    ('.adaptmlp.down_proj.', '.ffn.deltas.adapter.down.'),
    ('.adaptmlp.up_proj.', '.ffn.deltas.adapter.up.'),
    ('.patch_embed.proj.', '.patch_embed.projection.'),
    ('backbone.head.', 'head.fc.'),
)
VIT_VIDEO = (
    ('.fc1.', '.mlp.layers.0.0.'),
    ('.fc2.', '.mlp.layers.1.'),
    ('.adaptmlp.down_proj.', '.mlp.deltas.adapter.down.'),
    ('.adaptmlp.up_proj.', '.mlp.deltas.adapter.up.'),
    ('.patch_embed.proj.', '.patch_embed.projection.'),
    ('backbone.head.', 'cls_head.fc_cls.'),
)


def renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """``backbone.<name>`` with each of ``pairs`` applied."""
    name = f'backbone.{name}'
    for theirs, ours in pairs:
        name = name.replace(theirs, ours)
    return name


def fused(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their separate q, k and v projections on top of each other, as ``qkv``; gradients likewise."""
    out = {k: v for k, v in part.items() if '_proj.' not in k or '.adaptmlp.' in k}
    for name in part:
        if '.q_proj.' in name:
            qkv = [part[name.replace('.q_proj.', f'.{slot}_proj.')] for slot in 'qkv']
            out[name.replace('.q_proj.', '.qkv.')] = torch.cat(qkv)
    return out


class Golden(ABC):
    """One reference file: ``config``, ``input``, ``weights``, ``grads`` and the outputs, under our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            arrays = {k: file[k] for k in file.files}
        self.config = json.loads(str(arrays['config']))
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if k != 'config'}
        self.input, self.features, self.logits, self.loss = (
            tensors[k] for k in ('input', 'features', 'logits', 'loss')
        )
        self.theirs = {k[2:]: v for k, v in tensors.items() if k.startswith('w/')}
        self.weights = self._ours(self.theirs)
        self.grads = self._ours({k[2:]: v for k, v in tensors.items() if k.startswith('g/')})

    @abstractmethod
    def _ours(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        """Their names as ours."""

    def _adapter(self) -> dict[str, Any]:
        c = self.config
        if not c['ffn_adapt']:
            return {}
        scale, mode = float(c['ffn_adapter_scalar']), c['ffn_option']
        return dict(adapter=dict(type='AdaptMLP', d_bottle=c['ffn_num'], scale=scale, mode=mode))


class GoldenSwin(Golden):
    """The Video Swin of the V-PETL authors."""

    def _ours(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        final = f'backbone.norm{len(self.config["depths"]) - 1}.'
        pairs = (*SWIN, ('backbone.norm.', final), ('backbone.fc.0.', 'cls_head.fc_cls.'))
        ours = {renamed(k, pairs): v for k, v in part.items()}
        # their classifier is a 1x1x1 convolution
        return {k: v.flatten(1) if k == 'cls_head.fc_cls.weight' else v for k, v in ours.items()}

    def model_config(self) -> dict:
        """The config of the same model in this framework."""
        c, deltas = self.config, {}
        if c['att_prefix']:
            slots = c['att_prefix_mode'].removeprefix('patt_')
            deltas['patt'] = dict(type='PATT', slots=slots, d_bottle=c['att_mid_dim'], scale=c['att_prefix_scale'])
        deltas |= self._adapter()
        petl = dict(deltas=deltas, train=['head'] if deltas else ['all'])
        backbone = dict(
            type='SwinTransformer3D',
            arch=dict(embed_dims=c['embed_dim'], depths=c['depths'], num_heads=c['num_heads']),
            patch_size=tuple(c['patch_size']),
            window_size=tuple(c['window']),
            drop_path_rate=c['drop_path_rate'],
            patch_norm=c['patch_norm'],
            out_indices=(len(c['depths']) - 1,),
        )
        head = dict(
            type='PETLVideoHead',
            num_classes=self.logits.shape[1],
            in_channels=self.features.shape[1],
            temporal_pool='overlap',
        )
        model = dict(type='PETLRecognizer3D', backbone=backbone, cls_head=head, petl=petl, base=None)
        return dict(default_scope='mmaction', model=model)


class GoldenViT(Golden):
    """AdaptFormer's ViTs, for images and for videos: the adapter reads the residual stream, no BatchNorm."""

    HEADS = 4  # the video files do not say

    @property
    def video(self) -> bool:
        """Whether it is the one for videos."""
        return 'tubelet' in self.config

    def _ours(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        pairs = VIT_VIDEO if self.video else VIT_IMAGE
        return {renamed(k, pairs): v for k, v in fused(part).items()}

    def model_config(self, mode: str | None = None, pooled: bool = False) -> dict:
        """The config of the same model in this framework.

        Args:
            mode: of the adapter; None for the file's own, if it has one.
            pooled: the image model pools the mean of the patches instead of the class token.
        """
        deltas = {n: dict(d, source='residual') for n, d in self._adapter().items()}
        if mode:
            deltas = dict(adapter=dict(type='AdaptMLP', d_bottle=4, scale=0.1, mode=mode, source='residual'))
        petl = dict(deltas=deltas, train=['head'] if deltas else ['all'])
        width, depth = self.features.shape[1], len([k for k in self.theirs if k.endswith('.fc1.bias')])
        head = dict(num_classes=self.logits.shape[1], in_channels=width, bn=False)
        c, sizes = self.config, dict(img_size=self.config['img'], patch_size=self.config['patch'])
        if self.video:
            sizes |= dict(embed_dims=width, depth=depth, num_heads=self.HEADS)
            sizes |= dict(num_frames=c['frames'], tubelet_size=c['tubelet'])
            heads, scope, name = dict(cls_head=dict(head, type='PETLTokenHead')), 'mmaction', 'PETLRecognizer3D'
        else:
            arch = dict(embed_dims=width, num_layers=depth, num_heads=c['heads'], feedforward_channels=4 * width)
            sizes |= dict(arch=arch, norm_cfg=dict(type='LN', eps=c['eps']))
            sizes |= dict(out_type='avg_featmap', final_norm=False) if pooled else {}
            heads, scope, name = dict(head=dict(head, type='PETLImageHead')), 'mmpretrain', 'PETLImageClassifier'
        backbone = dict(type='VisionTransformer', **sizes)
        return dict(default_scope=scope, model=dict(type=name, backbone=backbone, petl=petl, base=None, **heads))


def golden(path: Path) -> GoldenSwin | GoldenViT:
    """The reference file at ``path``, named for its kind of model."""
    return (GoldenSwin if path.stem.startswith('swin') else GoldenViT)(path)


def vit_by_hand(w: dict[str, Tensor], x: Tensor, mode: str, pooled: bool, heads: int = 4) -> Tensor:
    """The logits of AdaptFormer's ViT, image or video, in plain torch.

    Args:
        w: weights under the authors' names, the adapters' among them; ``pos_embed`` also for videos.
        x: (B, 3, H, W) or (B, 3, T, H, W).
        mode: ``'parallel'``, which reads the residual stream, ``'sequential'``, or ``''`` for no adapter.
        pooled: the mean of the patches behind ``fc_norm``; else the class token behind ``norm``.
        heads: of the attention.
    """

    def linear(name: str, t: Tensor) -> Tensor:
        return F.linear(t, w[f'{name}.weight'], w.get(f'{name}.bias'))

    def norm(name: str, t: Tensor) -> Tensor:
        return F.layer_norm(t, t.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], 1e-6)

    kernel = w['patch_embed.proj.weight']
    conv = F.conv3d if x.ndim == 5 else F.conv2d
    x = conv(x, kernel, w['patch_embed.proj.bias'], stride=kernel.shape[2:]).flatten(2).transpose(1, 2)
    if 'cls_token' in w:
        x = torch.cat([w['cls_token'].expand(len(x), -1, -1), x], 1)
    x = x + w['pos_embed']
    for n in range(len([k for k in w if k.endswith('.fc1.bias')])):
        b = f'blocks.{n}'
        z = norm(f'{b}.norm1', x)
        q, k, v = (linear(f'{b}.attn.{s}_proj', z) + w.get(f'{b}.attn.{s}_bias', 0) for s in 'qkv')
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        z = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(f'{b}.attn.proj', z.transpose(1, 2).flatten(2))
        y = linear(f'{b}.fc2', F.gelu(linear(f'{b}.fc1', norm(f'{b}.norm2', x))))
        seen = {'parallel': x, 'sequential': y}.get(mode)
        if seen is not None:
            y = y + 0.1 * linear(f'{b}.adaptmlp.up_proj', linear(f'{b}.adaptmlp.down_proj', seen).relu())
        x = x + y
    if pooled:
        return linear('head', norm('fc_norm', x[:, 1 if 'cls_token' in w else 0 :].mean(1)))
    return linear('head', norm('norm', x)[:, 0])
