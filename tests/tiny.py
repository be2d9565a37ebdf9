"""Small models and inputs for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vpetl_mm import UserError, build_model
from vpetl_mm.petl import Delta, Site
from vpetl_mm.petl.addition import add

HOST = None  # the attention of the host library
FAST = dict(type='FastWindowAttention3D')


def config(
    deltas: Mapping[str, Any] | None = None,
    train: Sequence[str] = ('head',),
    *,
    depths: Sequence[int] = (2,),
    embed: int = 16,
    attention: Mapping[str, Any] | None = FAST,
    base: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    seed: int | None = None,
    **backbone: Any,
) -> dict[str, Any]:
    """The config of a small Video Swin with deltas; ``backbone`` are further options of the backbone."""
    last = len(depths) - 1
    arch = dict(embed_dims=embed, depths=list(depths), num_heads=[2 * 2**i for i in range(len(depths))])
    head = dict(in_channels=embed * 2**last, **(head or {}))
    backbone = dict(arch=arch, out_indices=(last,), **backbone)
    return HOSTS['swin3d'].config(
        deltas, train, seed=seed, base=base, petl=dict(attention=attention), head=head, **backbone
    )


def swin_b(deltas: Mapping[str, Any], train: Sequence[str], num_classes: int = 174) -> dict[str, Any]:
    """The config of the papers' Video Swin-B."""
    return dict(
        default_scope='mmaction',
        model=dict(
            type='PETLRecognizer3D',
            backbone=dict(type='SwinTransformer3D', arch='base', window_size=(8, 7, 7), drop_path_rate=0.4),
            cls_head=dict(type='PETLVideoHead', num_classes=num_classes, in_channels=1024),
            petl=dict(deltas=dict(deltas), train=list(train)),
            base=None,
        ),
    )


Shapes = dict[str, tuple[int, ...]]


def linear(name: str, d_out: int, d_in: int, bias: bool = True) -> Shapes:
    """The shapes of a linear layer's parameters."""
    return {f'{name}.weight': (d_out, d_in), **({f'{name}.bias': (d_out,)} if bias else {})}


def randomised(module: nn.Module, seed: int = 0, std: float = 0.3) -> nn.Module:
    """``module`` with every parameter drawn from a normal distribution, biases and zeros included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return module


def tiny(*args: Any, seed_weights: int = 0, **kwargs: Any) -> nn.Module:
    """:func:`config` built, all its parameters random and away from zero, in eval mode."""
    return randomised(build_model(config(*args, **kwargs)), seed_weights).eval()


def clip(batch: int = 2, size: tuple[int, int, int] = (8, 24, 24), seed: int = 0) -> Tensor:
    """Random clips of shape (batch, 3, T, H, W)."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Backbone and head, without mmaction2's sample handling."""
    return model.cls_head(model.backbone(x))


def trainable(model: nn.Module) -> set[str]:
    """The names of the parameters that require gradients."""
    return {n for n, p in model.named_parameters() if p.requires_grad}


def added(delta: Delta, x: Tensor, y: Tensor) -> Tensor:
    """``y``, the output of a host for ``x``, with what ``delta`` adds to it."""
    if delta.reads == 'weights':
        return add(y, delta.update(torch.zeros(y.shape[-1], x.shape[-1]), None).additions(x))
    return add(y, delta(y if delta.reads == 'output' else x))


def site(place: str, d_in: int, d_out: int) -> Site:
    """A linear layer at ``place``; on qkv it has three slots of ``d_out``."""
    host = nn.Linear(d_in, 3 * d_out if place == 'qkv' else d_out)
    return Site('block.x', host, place, d_in, host.out_features, 'qkv' if place == 'qkv' else '')


@contextmanager
def refused(*words: str) -> Iterator[pytest.ExceptionInfo]:
    """Inside, a UserError is raised, of one line, that contains all of ``words``."""
    with pytest.raises(UserError) as error:
        yield error
    message = str(error.value)
    assert all(word in message for word in words) and '\n' not in message, message


# The other hosts


@dataclass(frozen=True)
class Host:
    """A small model of one backbone class, of width 16, and the names of its parts, written down by hand.

    Args:
        scope: the library, as ``default_scope``.
        model: the model's config without ``backbone``, ``petl`` and ``base``; the head is a BatchNorm in some.
        backbone: number of blocks -> the backbone's config.
        size: of one input, (3, ...).
        tokens: how many tokens one attention sees.
        block: the blocks' paths, with a place for the number.
        below: place -> path below a block.
        final: path of the norm behind the last block.
        norms: the norms in front of attention and MLP, below a block.
        patch: path of the layer that embeds patches.
    """

    scope: str
    model: Mapping[str, Any]
    backbone: Callable[[int], dict[str, Any]]
    size: tuple[int, ...]
    tokens: int
    block: str
    below: Mapping[str, str] = field(default_factory=dict)
    final: str = ''
    norms: tuple[str, str] = ('norm1', 'norm2')
    patch: str = 'backbone.patch_embed.projection'

    @property
    def head(self) -> str:
        """The name of the model's head."""
        return 'cls_head' if 'cls_head' in self.model else 'head'

    @property
    def fc(self) -> set[str]:
        """The names of the linear layer's parameters."""
        name = 'cls_head.fc_cls' if self.head == 'cls_head' else 'head.fc'
        return {f'{name}.weight', f'{name}.bias'}

    @property
    def windows(self) -> bool:
        """Whether the attention is in windows, with relative-position-bias tables."""
        return 'block' not in self.below

    def config(
        self,
        deltas: Mapping[str, Any] | None = None,
        train: Sequence[str] = ('head',),
        *,
        depth: int = 2,
        seed: int | None = None,
        base: Mapping[str, Any] | None = None,
        petl: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        **backbone: Any,
    ) -> dict[str, Any]:
        """A config; ``petl``, ``head`` and ``backbone`` are further options of these."""
        model = dict(
            self.model,
            backbone={**self.backbone(depth), **backbone},
            petl=dict(deltas=dict(deltas or {}), train=list(train), **(petl or {})),
            base=base,
        )
        model[self.head] = {**self.model[self.head], **(head or {})}
        cfg = dict(default_scope=self.scope, model=model)
        return cfg if seed is None else dict(cfg, randomness=dict(seed=seed))

    def build(self, *args: Any, seed_weights: int = 0, **kwargs: Any) -> nn.Module:
        """:meth:`config` built, all its parameters random and away from zero, in eval mode."""
        return randomised(build_model(self.config(*args, **kwargs)), seed_weights).eval()

    def sample(self, batch: int = 2, seed: int = 0) -> Tensor:
        """Random inputs of shape (batch, 3, ...)."""
        return torch.randn(batch, *self.size, generator=torch.Generator().manual_seed(seed))

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The model's blocks, in order."""
        names = (self.block.format(i) for i in range(99))
        there = dict(model.named_modules())
        return [there[n] for n in names if n in there]

    def part(self, block: nn.Module, place: str) -> nn.Module:
        """What lies at ``place`` in ``block``."""
        return block.get_submodule(self.below[place])


def features(model: nn.Module, x: Tensor) -> Tensor:
    """What the backbone gives, without gradients."""
    with torch.no_grad():
        y = model.backbone(x)
    return y[-1] if isinstance(y, tuple) else y


def classify(model: nn.Module, x: Tensor) -> Tensor:
    """The logits of any of the hosts' models."""
    return model(x, mode='tensor') if hasattr(model, 'head') else logits(model, x)


def _names(attn: str = 'attn', mlp: str = 'mlp', fc1: str = 'fc1', fc2: str = 'fc2', **more: str) -> dict[str, str]:
    linear = dict(qkv=f'{attn}.qkv', proj=f'{attn}.proj', fc1=f'{mlp}.{fc1}', fc2=f'{mlp}.{fc2}')
    return dict(attn=attn, mlp=mlp, **linear, **more)


MMCV = dict(fc1='layers.0.0', fc2='layers.1')  # how mmcv's FFN calls its linear layers
IMAGE_HEAD = dict(type='PETLImageHead', num_classes=3, in_channels=16)


def _swin3d(depth: int) -> dict[str, Any]:
    arch = dict(embed_dims=16, depths=[depth], num_heads=[2])
    return dict(type='SwinTransformer3D', arch=arch, window_size=(2, 4, 4), drop_path_rate=0.0, out_indices=(0,))


def _vit(depth: int, **options: Any) -> dict[str, Any]:
    arch = dict(embed_dims=16, num_layers=depth, num_heads=2, feedforward_channels=64)
    return dict(type='VisionTransformer', arch=arch, img_size=16, patch_size=8, **options)


def _videomae(depth: int) -> dict[str, Any]:
    sizes = dict(img_size=16, patch_size=8, num_frames=4, tubelet_size=2)
    return dict(type='VisionTransformer', embed_dims=16, depth=depth, num_heads=2, **sizes)


def _swin2d(depth: int) -> dict[str, Any]:
    arch = dict(embed_dims=16, depths=[depth], num_heads=[2])
    sizes = dict(img_size=32, patch_size=4, window_size=3)
    return dict(type='SwinTransformer', arch=arch, drop_path_rate=0.0, out_indices=(0,), **sizes)


VIT = Host(
    scope='mmpretrain',
    model=dict(type='PETLImageClassifier', head=IMAGE_HEAD),
    backbone=_vit,
    size=(3, 16, 16),
    tokens=5,
    block='backbone.layers.{}',
    below=_names(mlp='ffn', **MMCV, block=''),
    final='backbone.ln1',
    norms=('ln1', 'ln2'),
)
HOSTS = {
    'swin3d': Host(
        scope='mmaction',
        model=dict(type='PETLRecognizer3D', cls_head=dict(type='PETLVideoHead', num_classes=3, in_channels=16)),
        backbone=_swin3d,
        size=(3, 4, 24, 24),
        tokens=32,
        block='backbone.layers.0.blocks.{}',
        below=_names(),
        final='backbone.norm0',
        patch='backbone.patch_embed.proj',
    ),
    'videomae': Host(
        scope='mmaction',
        model=dict(type='PETLRecognizer3D', cls_head=dict(type='PETLTokenHead', num_classes=3, in_channels=16)),
        backbone=_videomae,
        size=(3, 4, 16, 16),
        tokens=8,
        block='backbone.blocks.{}',
        below=_names(**MMCV, block=''),
        final='backbone.fc_norm',
    ),
    'vit': VIT,
    'vit_layerscale': replace(VIT, backbone=lambda depth: _vit(depth, layer_scale_init_value=0.1)),
    'swin2d': Host(
        scope='mmpretrain',
        model=dict(type='PETLImageClassifier', head=IMAGE_HEAD, neck=dict(type='GlobalAveragePooling')),
        backbone=_swin2d,
        size=(3, 32, 32),
        tokens=9,
        block='backbone.stages.0.blocks.{}',
        below=_names(attn='attn.w_msa', mlp='ffn', **MMCV),
        final='backbone.norm0',
    ),
}

# each host's attention, and whether a shift mask is given
ATTENTIONS = [
    (name, masked) for name, host in HOSTS.items() for masked in (False, True) if host.windows or not masked
]


# By hand


def heads_by_hand(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v of one set of tokens, one head at a time.

    Args:
        q: queries, (N, C).
        k: keys, (M, C).
        v: values, (M, C).
        heads: how many.
        bias: (heads, N, M) or None.

    Returns:
        (N, C).
    """
    width, out = q.shape[-1] // heads, []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        scores = q[:, part] @ k[:, part].T / width**0.5
        out.append((scores if bias is None else scores + bias[h]).softmax(-1) @ v[:, part])
    return torch.cat(out, -1)


def shift_mask(windows: int, n: int, seed: int = 1) -> Tensor:
    """A mask of two groups of tokens in each window, (windows, n, n), 0 or -100."""
    groups = torch.randint(0, 2, (windows, n), generator=torch.Generator().manual_seed(seed))
    return torch.where(groups[:, :, None] == groups[:, None, :], 0.0, -100.0)


Tuned = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def attention_by_hand(attention: nn.Module, x: Tensor, tuned: Tuned, mask: Tensor | None = None) -> Tensor:
    """The attention of any host from its weights, one set of tokens and one head at a time.

    Args:
        attention: its deltas are passed by.
        x: tokens, (B, N, C).
        tuned: of one set of tokens, (N, C), its q, k and v and the position bias and mask of its scores to what takes
            the place of the last four.
        mask: (nW, N, N) or None.

    Returns:
        (B, N, C).
    """
    w, n, out = dict(attention.named_parameters()), x.shape[1], []
    bias = torch.cat([w['q_bias'], 0 * w['q_bias'], w['v_bias']]) if 'q_bias' in w else w['qkv.bias']
    position = torch.zeros(attention.num_heads, n, n)
    if 'relative_position_bias_table' in w:  # the host libraries' own tests hold the index
        position = w['relative_position_bias_table'][attention.relative_position_index[:n, :n]].permute(2, 0, 1)
    for number, tokens in enumerate(x):
        q, k, v = (tokens @ w['qkv.weight'].T + bias).chunk(3, dim=-1)
        scores = position if mask is None else position + mask[number % len(mask)]
        q, k, v, scores = tuned(tokens, q, k, v, scores)
        y = heads_by_hand(q, k, v, attention.num_heads, scores)
        out.append((y @ w['proj.weight'].T + w['proj.bias']) * w.get('gamma1.weight', 1))
    return torch.stack(out)
