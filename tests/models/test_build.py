"""build_model: what it takes, what it leaves alone, and that a seed decides what it draws."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import tiny
import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope

from vpetl_mm import UserError, build_model

DELTAS = dict(patt=dict(type='PATT', d_bottle=2), lora=dict(type='LoRA', at='proj', rank=1))
FILE = 'default_scope = {default_scope!r}\nmodel = {model!r}\n'


def write(path, **options) -> str:
    path.write_text(FILE.format(**tiny.config(DELTAS, **options)))
    return str(path)


def names(model: torch.nn.Module) -> list[str]:
    return list(model.state_dict())


def test_takes_a_path_a_config_and_a_dict(tmp_path):
    path = write(tmp_path / 'c.py')
    given = [path, tmp_path / 'c.py', Config.fromfile(path), tiny.config(DELTAS)]
    built = [build_model(config) for config in given]
    assert all(type(m).__name__ == 'PETLRecognizer3D' and names(m) == names(built[0]) for m in built)


@pytest.mark.parametrize('make', [dict, Config], ids=['dict', 'config'])
def test_leaves_the_config_alone(make):
    config = make(tiny.config(DELTAS, seed=0))
    before = copy.deepcopy(config)
    build_model(config, {'model.petl.deltas.patt.d_bottle': 5}, init_weights=True)
    assert config == before if make is dict else config.to_dict() == before.to_dict()


def test_cfg_options():
    options = {
        'model.petl.deltas.patt.d_bottle': 5,
        'model.petl.deltas.lora': None,
        'model.petl.train': ['norm1'],
        'model.cls_head.num_classes': 7,
    }
    model = build_model(tiny.config(DELTAS), options)
    assert model.backbone.layers[0].blocks[0].attn.qkv.deltas['patt'].down.weight.shape == (5, 16)
    assert set(model.plan.count()['by']) == {'patt', 'norm1'}
    assert model.cls_head.fc_cls.out_features == 7


def test_is_in_train_mode_and_plain_torch():
    model = build_model(tiny.config(DELTAS))
    assert model.training
    assert isinstance(model, torch.nn.Module)


def test_the_scope_is_entered_for_the_build_alone():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        build_model(tiny.config(DELTAS))
        assert DefaultScope.get_current_instance().scope_name == 'mmpretrain'


def test_everything_is_in_the_root_registry():
    wanted = {'PETLRecognizer3D', 'PETLVideoHead', 'FastWindowAttention3D', 'PATT', 'AdaptMLP', 'LoRA'}
    assert wanted <= set(MODELS.module_dict)


def test_import_alone_registers_and_makes_mmaction2_importable():
    code = (
        'from mmengine import Config; import vpetl_mm; import mmaction.models; '
        'from mmengine.registry import MODELS; assert "PETLRecognizer3D" in MODELS'
    )
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, timeout=600)


def test_meta_needs_no_memory():
    model = build_model(tiny.config(DELTAS), meta=True)
    assert all(p.device.type == 'meta' for p in model.parameters())
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in build_model(tiny.config(DELTAS)).named_parameters()
    }


def test_meta_ends_with_the_build():
    build_model(tiny.config(), meta=True)
    assert torch.linspace(0, 1, 2).device.type == torch.zeros(1).device.type == 'cpu'


def test_no_weights_are_read_without_init_weights(tmp_path):
    build_model(write(tmp_path / 'c.py', base=dict(file='/nowhere.pth')))


# Seeds


def state_after(noise: int, seed: int | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(noise)
    return build_model(tiny.config(DELTAS, seed=seed), init_weights=True).state_dict()


def test_everything_comes_from_the_configs_seed():
    one, again, other = state_after(1, 5), state_after(2, 5), state_after(1, 6)
    drawn = [k for k in one if k.startswith('cls_head') or ('.deltas.' in k and '.B.' not in k)]
    assert len(drawn) > 4
    assert not [k for k in one if not torch.equal(one[k], again[k])]
    assert not [k for k in drawn if torch.equal(one[k], other[k])]


def test_the_seed_of_a_config_leaves_the_callers_random_state():
    model = tiny.config(DELTAS, seed=5)
    build_model(model, init_weights=True)
    torch.manual_seed(0)
    build_model(model)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    build_model(model, init_weights=True)
    assert torch.equal(torch.rand(1), drawn)


def test_without_a_seed_models_differ():
    torch.manual_seed(0)
    one, other = (build_model(tiny.config(DELTAS), init_weights=True).state_dict() for _ in range(2))
    assert not torch.equal(one['cls_head.fc_cls.weight'], other['cls_head.fc_cls.weight'])


# Wrong configs


def test_a_config_that_does_not_exist_names_the_nearest(tmp_path):
    write(tmp_path / 'swin_bapat_ssv2_b128.py')
    write(tmp_path / 'unlike.py')
    with pytest.raises(UserError, match=r'swin_bapat_ssv2_b128\.py') as error:
        build_model(tmp_path / 'swin_bapat_ssv2_b12.py')
    assert 'unlike' not in str(error.value)


@pytest.mark.parametrize('text', ['model = (', 'model = unknown_name\n', 'import no_such_module\n'])
def test_a_config_that_cannot_be_read(tmp_path, text):
    (tmp_path / 'broken.py').write_text(text)
    with tiny.refused('broken.py'):
        build_model(tmp_path / 'broken.py')


def test_a_config_without_a_model(tmp_path):
    (tmp_path / 'part.py').write_text('petl = dict(train=["head"])\n')
    with tiny.refused('part.py', 'model'):
        build_model(tmp_path / 'part.py')


@pytest.mark.parametrize('kind', ['model', 'backbone', 'head'])
def test_an_unknown_type_in_the_config_is_said(kind):
    config = tiny.config()
    part = {'model': config['model'], 'backbone': config['model']['backbone'], 'head': config['model']['cls_head']}[
        kind
    ]
    part['type'] = 'NoSuchThing'
    with pytest.raises((UserError, KeyError), match='NoSuchThing'):
        build_model(config)
