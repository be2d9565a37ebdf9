"""The reference tensors: reading them and translating their authors' names to ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parent / 'data'

# the authors' name -> ours; PATT is their qkv_adapter, a Sequential of Linear, Tanh, Linear
RENAMED = (
    ('.attn.qkv_adapter.0.', '.attn.qkv.deltas.patt.down.'),
    ('.attn.qkv_adapter.2.', '.attn.qkv.deltas.patt.up.'),
    ('.mlp.adaptmlp.down_proj.', '.mlp.deltas.adapter.down.'),
    ('.mlp.adaptmlp.up_proj.', '.mlp.deltas.adapter.up.'),
)


def our_name(name: str, last_stage: int) -> str:
    """Translate one key of the reference implementation."""
    if name.startswith('fc.0.'):
        return name.replace('fc.0.', 'cls_head.fc_cls.')
    if name.startswith('norm.'):
        name = name.replace('norm.', f'norm{last_stage}.', 1)
    for theirs, ours in RENAMED:
        name = name.replace(theirs, ours)
    return f'backbone.{name}'


class Golden:
    """One reference file: ``config``, ``input``, ``weights``, ``grads`` and the outputs, under our names."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            arrays = {k: file[k] for k in file.files}
        self.config = json.loads(str(arrays['config']))
        last = len(self.config['depths']) - 1
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if k != 'config'}
        self.input, self.features, self.logits, self.loss = (
            tensors[k] for k in ('input', 'features', 'logits', 'loss')
        )
        self.weights = self._part(tensors, 'w/', last)
        self.grads = self._part(tensors, 'g/', last)

    @staticmethod
    def _part(tensors: dict[str, Tensor], prefix: str, last: int) -> dict[str, Tensor]:
        part = {our_name(k[2:], last): v for k, v in tensors.items() if k.startswith(prefix)}
        # their classifier is a 1x1x1 convolution
        return {k: v.flatten(1) if k == 'cls_head.fc_cls.weight' else v for k, v in part.items()}

    def model_config(self, attention: dict | None) -> dict:
        """The config of the same model in this framework."""
        c, deltas = self.config, {}
        if c['att_prefix']:
            slots = c['att_prefix_mode'].removeprefix('patt_')
            deltas['patt'] = dict(type='PATT', slots=slots, d_bottle=c['att_mid_dim'], scale=c['att_prefix_scale'])
        if c['ffn_adapt']:
            deltas['adapter'] = dict(
                type='AdaptMLP',
                d_bottle=c['ffn_num'],
                scale=float(c['ffn_adapter_scalar']),
                mode=c['ffn_option'],
            )
        petl = dict(deltas=deltas, train=['head'] if deltas else ['all'], attention=attention)
        arch = dict(embed_dims=c['embed_dim'], depths=c['depths'], num_heads=c['num_heads'])
        backbone = dict(
            type='SwinTransformer3D',
            arch=arch,
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
