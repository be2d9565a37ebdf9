"""The authors' tensors of a method, the models of libraries that it is put on, and how far the method here is off."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from golden import DATA, VIT_IMAGE
from golden import renamed as openmmlab_name
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.petl import Plan, adapt

SHARED = Path(__file__).parents[2] / 'shared/methods/golden'
FILES = {path.stem: path for folder in (SHARED, DATA) for path in sorted(folder.glob('*.npz'))}
Tensors = dict[str, Tensor]


class Published:
    """One reference file: what its authors' module makes of ``input``, in eval mode.

    Args:
        path: of the file; see the definitions beside it for its keys.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.told: dict[str, Any] = json.loads(str(file['config']))
            self.tensors: Tensors = {k: torch.from_numpy(file[k]) for k in file.files if k != 'config'}
        self.input, self.output, self.gx = (self.tensors[k] for k in ('input', 'output', 'gx'))
        trained, weights = {*self.told['trained']}, self.part('w/')
        self.frozen = {k: v for k, v in weights.items() if k not in trained}
        self.trained = {k: v for k, v in weights.items() if k in trained}
        self.grads, self.merged = self.part('g/'), self.part('merged/')

    def part(self, prefix: str) -> Tensors:
        """The tensors whose names start with ``prefix``, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Hosted:
    """A published method on a library's model, in eval mode.

    Args:
        plan: of the model.
        run: what gives the published output from the published input.
        ours: translates the authors' tensors, weights or gradients, to our names.
        idle: how the names of deltas start that ``run`` does not reach. Defaults to (), none.
    """

    plan: Plan
    run: Callable[[Tensor], Tensor]
    ours: Callable[[Tensors], Tensors]
    idle: tuple[str, ...] = ()


def named(names: Mapping[str, str]) -> Callable[[Tensors], Tensors]:
    """Return what renames tensors; those that are not in ``names`` keep theirs."""
    return lambda part: {names.get(name, name): value for name, value in part.items()}


# Hosts


def timm_vit(of: Published, deltas: Mapping[str, Any], ours: Callable[[Tensors], Tensors], **options: Any) -> Hosted:
    """timm's ViT, whose parts are called as in the authors' copies of it."""
    told, frozen = of.told, of.frozen
    model = timm.models.VisionTransformer(
        img_size=of.input.shape[-1],
        patch_size=told['patch'],
        embed_dim=told['embed'],
        depth=told['depth'],
        num_heads=told['heads'],
        num_classes=of.output.shape[-1],
        norm_layer=partial(nn.LayerNorm, eps=told['ln_eps']),
        **options,
    )
    lacking, unknown = model.load_state_dict(frozen, strict=False)
    assert not unknown and {*lacking} == {'head.weight', 'head.bias'}, (lacking, unknown)
    return Hosted(adapt(model.eval(), deltas), model, ours)


def built_vit(of: Published, deltas: Mapping[str, Any], ours: Callable[[Tensors], Tensors]) -> Hosted:
    """mmpretrain's ViT, from a config."""
    model = mmpretrain_vit(of, deltas, of.told['embed'], of.told['depth'], ['head'])
    lacking, unknown = model.load_state_dict(openmmlab(of.frozen), strict=False)
    assert not unknown and {*lacking} == {*model.plan.state_dict()}, (lacking, unknown)
    return Hosted(model.plan, lambda x: model(x, mode='tensor'), lambda part: openmmlab(ours(part)))


def mmpretrain_vit(of: Published, deltas: Mapping[str, Any], width: int, depth: int, train: list[str]) -> nn.Module:
    """mmpretrain's ViT of a config: images of 2 x 2 patches, five classes."""
    arch = dict(embed_dims=width, num_layers=depth, num_heads=of.told['heads'], feedforward_channels=4 * width)
    norm = dict(type='LN', eps=of.told['ln_eps'])
    backbone = dict(type='VisionTransformer', arch=arch, img_size=16, patch_size=8, norm_cfg=norm)
    head = dict(type='PETLImageHead', num_classes=5, in_channels=width, bn=False)
    return build(backbone, deltas, train, head=head)


def build(backbone: dict[str, Any], deltas: Mapping[str, Any], train: list[str], **others: Any) -> nn.Module:
    """Build the image model of a config."""
    petl = dict(deltas=dict(deltas), train=train)
    model = dict(type='PETLImageClassifier', backbone=backbone, petl=petl, base=None, **others)
    return build_model(dict(default_scope='mmpretrain', model=model), init_weights=True).eval()


def openmmlab(part: Tensors) -> Tensors:
    """timm's names of a ViT's tensors as those of mmpretrain's model."""
    return {openmmlab_name(name.replace('.mlp.', '.'), VIT_IMAGE): value for name, value in part.items()}


def one_block(width: int, deltas: Mapping[str, Any], **options: Any) -> Plan:
    """timm's ViT of one block whose weights are all zero, so that the block passes its input on."""
    sizes = dict(img_size=16, patch_size=8, embed_dim=width, depth=1, num_heads=1, num_classes=2)
    model = timm.models.VisionTransformer(**{**sizes, **options}).eval()
    for parameter in model.blocks.parameters():
        nn.init.zeros_(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of a delta that the class token alone does not reach
        return adapt(model, deltas, train=[])


def one_layer(weight: Tensor, bias: Tensor, delta: Mapping[str, Any], names: Mapping[str, str]) -> Hosted:
    """A linear layer, as the first of a block's MLP; in ``names`` it is ``fc1``."""
    d_out, d_in = weight.shape
    plan = one_block(d_in, dict(delta=dict(delta, at='fc1')), mlp_ratio=(d_out + 0.5) / d_in)
    layer = plan.model.blocks[0].mlp.fc1
    layer.load_state_dict(dict(weight=weight, bias=bias), strict=False)
    below = {theirs: own if own.startswith('deltas.') else f'blocks.0.mlp.{own}' for theirs, own in names.items()}
    return Hosted(plan, layer, named(below))


# Errors


@dataclass(frozen=True)
class Case:
    """A method as published.

    Args:
        files: pattern of the files' names.
        host: what it is put on.
        make: puts it there.
        merges: whether it can become part of the weights.
    """

    files: str
    host: str
    make: Callable[[Published], Hosted]
    merges: bool = False


@dataclass(frozen=True)
class Errors:
    """The largest errors, relative to the largest entry of what is published; None for nothing merged."""

    output: float
    gradient: float
    input: float
    merged_output: float | None = None
    merged_weight: float | None = None


def error_of(value: Tensor | None, wanted: Tensor) -> float:
    """The largest error relative to the largest entry; where all are zero, the largest entry of ``value``."""
    value = torch.zeros_like(wanted) if value is None else value.detach().reshape(wanted.shape)
    return ((value - wanted).abs().max() / (wanted.abs().max() if wanted.any() else 1)).item()


def errors(name: str, case: Case) -> Errors:
    """Load what the authors trained, run forwards, backwards and merged, and compare."""
    of = Published(FILES[name])
    hosted = case.make(of)
    plan, ours = hosted.plan, hosted.ours(of.trained)
    empty = plan.state_dict()
    # a module alone has no head
    idle = {k: v for k, v in empty.items() if '.deltas.' not in f'.{k}' or k.startswith(hosted.idle)}
    plan.load_state_dict(idle | {k: v.reshape(empty[k].shape) for k, v in ours.items()})
    x = of.input.clone().requires_grad_()
    y = hosted.run(x)
    y.square().sum().backward()
    wanted, own = hosted.ours(of.grads), dict(plan.named_parameters())
    assert wanted.keys() <= own.keys(), wanted.keys() - own.keys()
    # what has no gradient in the file has none here
    grads = [error_of(p.grad, wanted.get(n, torch.zeros_like(p)).reshape(p.shape)) for n, p in own.items()]
    told = error_of(y, of.output), max(grads), error_of(x.grad, of.gx)
    if not case.merges:
        return Errors(*told)
    plan.merge()
    with torch.no_grad():
        merged = error_of(hosted.run(of.input), of.output)
    now, weights = plan.model.state_dict(), hosted.ours(of.merged)
    return Errors(*told, merged, max((error_of(now[n], v) for n, v in weights.items()), default=None))
