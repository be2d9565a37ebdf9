"""Every method on every host becomes a graph that onnxruntime and torch.export run: the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import adapter, both, linear_adapter, lora, patt, prefix, prompt
from chosen import options, written
from tiny import HOSTS, Host, classify, randomised
from torch import Tensor, nn

from vpetl_mm import build_model
from vpetl_mm.use.export.portable import PortableModel
from vpetl_mm.use.export.programs import capture, opened_onnx, opened_pt2, write_onnx, write_pt2

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


def methods(host: Host) -> dict[str, dict]:
    """Every kind of delta, in all its ways, in as few models as they go together in; and SPT-LoRA."""
    everything = both(
        *(patt('add', slots='qv', learn_scale=True), patt('concat', mode='concat'), lora('proj')),
        *(adapter('beside'), adapter('behind_mlp', mode='sequential'), adapter('out', source='residual')),
        *(linear_adapter('qkv'), linear_adapter('fc1', 'fc1', mode='parallel'), prefix(), prompt('deep')),
        *(() if host.windows else (prompt('shallow', deep=False),)),
    )
    return dict(everything=everything.deltas, spt={}, table=patt(source='tokens', num_tokens=host.tokens).deltas)


def small_model(name: str, method: str, fast: bool, folder: Path) -> nn.Module:
    host = HOSTS[name]
    petl = dict(fast=fast, **(options(written(host, folder)) if method == 'spt' else {}))
    config = host.config(methods(host)[method], petl=petl, depth=2 if host.windows or method == 'spt' else 1)
    kind = 'ClsDataPreprocessor' if host.head == 'head' else 'ActionDataPreprocessor'
    shape = {} if host.head == 'head' else dict(format_shape='NCTHW')
    config['model']['data_preprocessor'] = dict(type=kind, mean=MEAN, std=STD, **shape)
    return randomised(build_model(config), 3, std=0.2).eval()


def pixels_of(name: str, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(256, (n, *HOSTS[name].size), dtype=torch.uint8, generator=generator)


def logits_of(model: nn.Module, pixels: Tensor) -> Tensor:
    shape = (-1, *[1] * (pixels.ndim - 2))
    with torch.no_grad():
        return classify(model, (pixels - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape))


HOST_NAMES = [name for name in HOSTS if name != 'vit_layerscale']


@pytest.mark.parametrize('name', HOST_NAMES)
def test_every_method_at_once(name, tmp_path):
    """Against the fast path, which is what is trained and tested; for one, and for more than it was captured with.

    onnxruntime runs the ViT's graph here, and that of Video Swin in test_export.
    """
    model = small_model(name, 'everything', True, tmp_path)
    portable = PortableModel(small_model(name, 'everything', False, tmp_path), pixels_of(name, 1))
    program = capture(portable, pixels_of(name, 1), None)
    runs = [program.module()]
    if name == 'vit':
        write_onnx(program, tmp_path / 'm.onnx', {})
        runs.append(opened_onnx(tmp_path / 'm.onnx'))
    for run in runs:
        for n in (1, 3):
            expected = logits_of(model, pixels_of(name, n))
            found, probabilities = run(pixels_of(name, n))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(probabilities, expected.softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(('name', 'method'), [('swin3d', 'spt'), ('vit', 'spt'), ('swin2d', 'table')])
def test_methods_that_stand_alone(name, method, tmp_path):
    """Single entries of weights, and PATT's table, which takes one number of tokens; read from a file."""
    model = small_model(name, method, True, tmp_path)
    portable = PortableModel(small_model(name, method, False, tmp_path), pixels_of(name, 1))
    write_pt2(capture(portable, pixels_of(name, 1), None), tmp_path / 'm.pt2', {})
    found, _ = opened_pt2(tmp_path / 'm.pt2')(pixels_of(name, 3))
    torch.testing.assert_close(found, logits_of(model, pixels_of(name, 3)), atol=1e-5, rtol=0)
