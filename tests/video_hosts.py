"""Small image models of several libraries, which see the frames of clips as images, with deltas on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import tiny
import torch
import torchvision
import transformers
from torch import Tensor, nn

from vpetl_mm.petl import adapt, find

FRAMES, C = 4, 16
SIZES = dict(img_size=32, patch_size=8, embed_dim=C, depth=2, num_heads=2, num_classes=3)
HF = dict(
    image_size=32, patch_size=8, hidden_size=C, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)


@dataclass(frozen=True)
class ImageHost:
    """``make()`` builds it; ``pooled`` is one vector for each image; it has ``leading`` tokens in front of 4 x 4."""

    make: Callable[[], nn.Module]
    leading: int = 1
    rotary: bool = False
    pooled: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x)


def _hf(name: str, **options: Any) -> Callable[[], nn.Module]:
    config = getattr(transformers, f'{name}Config')(**HF, **options)
    return lambda: getattr(transformers, f'{name}Model')(config)


def _mean(model: nn.Module, x: Tensor) -> Tensor:
    return model(pixel_values=x).last_hidden_state.mean(1)


def _eva() -> nn.Module:
    return timm.models.Eva(**SIZES, use_rot_pos_emb=True, num_reg_tokens=2)


def _torchvision() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, C, 4 * C, num_classes=3)


HOSTS = {
    'timm': ImageHost(lambda: timm.models.VisionTransformer(**SIZES, reg_tokens=1, global_pool='avg'), 2),
    'timm_scaled': ImageHost(lambda: timm.models.VisionTransformer(**SIZES, init_values=0.5, qk_norm=True)),
    'eva': ImageHost(_eva, 3, rotary=True),
    'torchvision': ImageHost(_torchvision),
    'hf_vit': ImageHost(_hf('ViT'), pooled=_mean),
    'hf_dinov2': ImageHost(_hf('Dinov2'), pooled=_mean),
    'hf_dinov3': ImageHost(_hf('DINOv3ViT', num_register_tokens=2), 3, rotary=True, pooled=_mean),
    'hf_siglip': ImageHost(_hf('SiglipVision'), 0, pooled=_mean),
}


def built(host: str, deltas: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a host with deltas on it, all its parameters random and away from zero, in eval mode."""
    model = HOSTS[host].make()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the last block
        adapt(model, deltas, train=[])
    return tiny.randomised(model).eval()


def images(clips: int = 2) -> Tensor:
    """The frames of random clips, (clips FRAMES, 3, 32, 32)."""
    return torch.randn(clips * FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def first_block(host: str, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Run a model; return the first block's input, what its first norm sees last, and its output."""
    layout = find(model).layout
    block = next(layout.blocks(model))
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append([*args, *kwargs.values()][0])

    def note_output(module: nn.Module, args: tuple, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [
        block.register_forward_pre_hook(note, with_kwargs=True),
        getattr(block, layout.norm12[0]).register_forward_pre_hook(note, with_kwargs=True),
        block.register_forward_hook(note_output),
    ]
    HOSTS[host].pooled(model, images())
    for hook in hooks:
        hook.remove()
    first, *_, norm, last = seen
    return first, norm, last


def silence(model: nn.Module, place: str) -> None:
    """Set a layer of every block to zero."""
    for site in find(model).layout.sites(model, place):
        for parameter in site.host.parameters():
            nn.init.zeros_(parameter)
