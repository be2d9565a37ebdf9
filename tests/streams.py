"""Models whose blocks can be run by hand: what lies on the stream between attention and MLP, and behind the block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hf_hosts
import timm_hosts
import tiny
import torch
import video_hosts
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import adapt, find


@dataclass(frozen=True)
class Grid:
    """How the tokens of one input lie: clips or images, frames, rows, columns, and leading tokens."""

    batch: int
    frames: int
    rows: int
    columns: int
    leading: int = 0


@dataclass(frozen=True)
class StreamHost:
    """``make(deltas)`` builds a model with them; ``run(model)`` calls it; ``grid`` is that of the first block."""

    make: Callable[[Mapping[str, Any]], nn.Module]
    run: Callable[[nn.Module], Any]
    grid: Grid
    norms: tuple[str, str] = ('norm1', 'norm2')


def _mm(name: str, size: tuple[int, ...], grid: Grid, **backbone: Any) -> StreamHost:
    host = tiny.HOSTS[name]
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0))
    return StreamHost(
        lambda deltas: build_model(host.config(deltas, **backbone)), lambda model: model.backbone(x), grid, host.norms
    )


def _adapted(make: Callable[[], nn.Module], deltas: Mapping[str, Any]) -> nn.Module:
    model = make()
    adapt(model, deltas, train=[])
    return model


def _other(hosts: Any, name: str, grid: Grid, run: Callable[[Any, nn.Module], Any], *norms: str) -> StreamHost:
    host = hosts[name]
    make = getattr(host, 'make', None) or host.build
    return StreamHost(
        lambda deltas: _adapted(make, deltas), lambda model: run(host, model), grid, norms or ('norm1', 'norm2')
    )


def _hf(name: str, grid: Grid) -> StreamHost:
    return _other(hf_hosts.HOSTS, name, grid, lambda h, m: m(**h.inputs(2)), 'layernorm_before', 'layernorm_after')


# windows are padded and shifted; images and clips are not square
STREAMS = {
    'swin3d': _mm('swin3d', (3, 6, 24, 40), Grid(2, 3, 6, 10)),
    'swin2d': _mm('swin2d', (3, 32, 20), Grid(2, 1, 8, 5)),
    'videomae': _mm('videomae', (3, 4, 16, 16), Grid(2, 2, 2, 2)),
    'vit': _mm('vit', (3, 16, 64), Grid(2, 1, 2, 8, 1)),  # as many patches as 4 x 4 of a square image
    'timm': _other(timm_hosts.HOSTS, 'dinov2', Grid(2, 1, 4, 4, 5), lambda h, m: h.out(m)),
    'timm_swin': _other(timm_hosts.HOSTS, 'swin', Grid(2, 1, 9, 9), lambda h, m: h.out(m)),
    'torchvision': _other(
        video_hosts.HOSTS, 'torchvision', Grid(8, 1, 4, 4, 1), lambda h, m: m(video_hosts.images()), 'ln_1', 'ln_2'
    ),
    'hf_vit': _hf('vit', Grid(2, 1, 4, 4, 1)),
    'hf_swin': _hf('swin', Grid(2, 1, 8, 8)),
    'hf_videomae': _hf('videomae', Grid(2, 2, 4, 4)),
}


def built(name: str, deltas: Mapping[str, Any]) -> nn.Module:
    """Build a host with deltas, all its parameters random and away from zero, in eval mode."""
    return tiny.randomised(STREAMS[name].make(deltas), std=0.2).eval()


def plain_of(name: str, model: nn.Module) -> nn.Module:
    """Build a model without deltas and with the same weights."""
    plain = STREAMS[name].make({}).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if '.deltas.' not in f'.{k}'})
    return plain


def last_block(model: nn.Module) -> nn.Module:
    """The last block of the first stage, whose windows are shifted."""
    blocks = list(find(model).layout.blocks(model))
    return blocks[1]


@torch.no_grad()
def seen(name: str, model: nn.Module) -> tuple[tuple, dict, Tensor]:
    """Run a model; return what :func:`last_block` is given, and what it returns."""
    calls: list[tuple] = []

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls.append((args, kwargs, output[0] if isinstance(output, tuple) else output))

    hook = last_block(model).register_forward_hook(note, with_kwargs=True)
    STREAMS[name].run(model)
    hook.remove()
    return calls[0]


Change = Callable[[Tensor], Tensor]


@torch.no_grad()
def by_hand(
    name: str, plain: nn.Module, args: tuple, kwargs: dict, between: Change, behind_norm: Change, beside_mlp: Change
) -> Tensor:
    """A plain block with the stream changed between its attention and its MLP.

    Args:
        name: of the host.
        plain: the model.
        args: of the block.
        kwargs: of the block.
        between: of the stream to what is added to it there.
        behind_norm: of the first norm's output to what is added there too, before ``between``.
        beside_mlp: of the second norm's output to what is added to the block's.
    """
    block, noted = last_block(plain), {}
    first, second = (getattr(block, n) for n in STREAMS[name].norms)

    def change(module: nn.Module, inputs: tuple) -> tuple[Tensor]:
        stream = inputs[0] + behind_norm(noted['first']).view_as(inputs[0])
        changed = stream + between(stream)
        noted['change'] = changed - inputs[0]
        return (changed,)

    hooks = [
        first.register_forward_hook(lambda module, inputs, y: noted.update(first=y)),
        second.register_forward_pre_hook(change),
        second.register_forward_hook(lambda module, inputs, y: noted.update(second=y)),
    ]
    y = block(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    y = y[0] if isinstance(y, tuple) else y
    return y + noted['change'].view_as(y) + beside_mlp(noted['second']).view_as(y)


def over_frames(x: Tensor, grid: Grid, change: Change) -> Tensor:
    """Return tokens as a function of one image changes each frame; a leading token is an image of one patch.

    Args:
        x: (B, leading + T H W, d) or (B, T, H, W, d), or with images for clips of one frame.
        grid: how they lie.
        change: of (1, d, H, W) to the same.
    """
    rows = x.reshape(grid.batch, -1, x.shape[-1])
    out = [[change(t.reshape(1, -1, 1, 1)).flatten() for t in row[: grid.leading]] for row in rows]
    for row, done in zip(rows, out, strict=True):
        for frame in row[grid.leading :].split(grid.rows * grid.columns):
            image = change(frame.view(1, grid.rows, grid.columns, -1).permute(0, 3, 1, 2))
            done.extend(image[0].flatten(1).t())
    return torch.stack([torch.stack(done) for done in out]).view_as(x)
