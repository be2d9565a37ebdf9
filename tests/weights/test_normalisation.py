"""Mean and std of the inputs belong to the weights: recorded, printed, and compared with a config's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from convert_command import call, timm, write
from references import REFERENCES, model_config, of_timm
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.conversion import Options, convert
from vpetl_mm.config import load_config
from vpetl_mm.preparation.next_steps import own_config
from vpetl_mm.weights.converted import recorded_inputs
from vpetl_mm.weights.kinds import KINDS

# as published, on the scale of 0 to 1
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5] * 3, [0.5] * 3
NONE = [0.0] * 3, [1.0] * 3
PUBLISHED = {
    'dinov2': IMAGENET,
    'mae': IMAGENET,
    'mocov3': IMAGENET,
    'video_swin': IMAGENET,
    'mmaction_swin': IMAGENET,
    'swin2d': IMAGENET,
    'videomae': IMAGENET,
    'mmaction_videomae': IMAGENET,
    'google_vit': HALF,
    'miil': NONE,
    'timm_vit': None,
    'mmpretrain_vit': None,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is logged about base weights."""
    lines: list[str] = []
    monkeypatch.setattr('vpetl_mm.weights.base.print_log', lambda text, *_: lines.append(text))
    return lines


def record() -> dict:
    with safe_open('dst.safetensors', 'pt') as file:
        return json.loads(file.metadata()['vpetl_mm'])


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_recorded_and_printed(kind, capsys):
    name = next(n for n in REFERENCES if n.partition(',')[0] == kind)
    write(REFERENCES[name]().state)
    assert call('src.pth', 'dst.safetensors', '--kind', kind) == 0
    recorded, out = record()['inputs'], capsys.readouterr().out
    if PUBLISHED[kind] is None:
        assert recorded is None and 'ARE IN NO TENSOR' in out and 'data_preprocessor=' not in out
        return
    printed = eval(out.partition('data_preprocessor=')[2].partition(',\n')[0], dict(dict=dict))
    for values, published in zip((recorded['mean'], recorded['std']), PUBLISHED[kind], strict=True):
        assert values == pytest.approx([255 * v for v in published])
    assert recorded['channels'] == 'RGB' and {k: printed[k] for k in ('mean', 'std')} == {
        k: recorded[k] for k in ('mean', 'std')
    }


def test_own_images_on_another_base(capsys, said):
    """What prepare_data prints, and what the converter prints for DINOv2 in it: DINOv2's mean and std, no warning."""
    write(of_timm('dinov2').state)
    assert call('src.pth', 'dst.safetensors') == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('    ') and line.endswith('),')]
    assert [line.strip().partition('=')[0] for line in lines] == ['base', 'backbone', 'data_preprocessor']
    text = own_config(dict(kind='image', classes=3), 'data/mine').replace("'../", f"'{CONFIGS}/")
    text = text.replace('model = dict(', 'model = dict(\n' + '\n'.join(lines)).replace('num_classes=3)', f'{WIDTH})')
    with open('own.py', 'w') as file:
        file.write(text)
    model = build_model('own.py', init_weights=True)
    mean, std = (t.flatten().tolist() for t in (model.data_preprocessor.mean, model.data_preprocessor.std))
    assert (mean, std) == tuple(pytest.approx([255 * v for v in published], rel=1e-5) for published in IMAGENET)
    assert not said
    build_model(load_config('own.py', {'model.data_preprocessor': OLD}), init_weights=True)
    assert len(said) == 1 and said[0].count('\n') == 0
    assert all(
        str(v) in said[0] for v in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], [0.0] * 3, [255.0] * 3)
    )


CONFIGS = Path(__file__).parents[2] / 'configs'
WIDTH = 'num_classes=3, in_channels=16'
OLD = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])


def test_no_normalisation_at_all_is_another_one(said):
    write(of_timm('dinov2').state)
    told = convert('src.pth', 'dst.safetensors', Options()).backbone
    config = model_config(told, of_timm('dinov2'), dict(file='dst.safetensors'))
    build_model(config, init_weights=True)
    assert len(said) == 1 and 'mean [0.0, 0.0, 0.0] and std [1.0, 1.0, 1.0]' in said[0]


def test_files_that_record_none_load_as_before(said):
    """As the files were before there was such a record, and files of a kind that does not imply it."""
    reference = of_timm('dinov2')
    write(reference.state)
    told = convert('src.pth', 'dst.safetensors', Options()).backbone
    old = record()
    del old['inputs']
    save_file(load_file('dst.safetensors'), 'old.safetensors', {'vpetl_mm': json.dumps(old)})
    for file in ('old.safetensors', 'src.pth'):
        base = dict(file=file, **(dict(convert='dinov2') if file == 'src.pth' else {}))
        build_model(model_config(told, reference, base), init_weights=True)
        assert recorded_inputs(file) is None
    write(timm())
    convert('src.pth', 'dst.safetensors', Options(force=True))
    assert recorded_inputs('dst.safetensors') is None and not said


@pytest.mark.parametrize('inputs', ['mean', {'mean': [1.0]}, dict(mean=['a\nb'] * 3, std=[1.0] * 3), [1, 2]])
def test_a_record_of_something_else_is_refused(inputs):
    write(timm())
    convert('src.pth', 'dst.safetensors', Options())
    wrong = dict(record(), inputs=inputs)
    save_file({'backbone.a': torch.ones(1)}, 'wrong.safetensors', {'vpetl_mm': json.dumps(wrong)})
    with pytest.raises(UserError, match='record'):
        recorded_inputs('wrong.safetensors')
