"""A merged file is a model of the host library: loaded there, without this package, it gives the same logits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from chosen import options, written
from safetensors.torch import save_file
from tiny import HOSTS

from vpetl_mm import UserError, build_model
from vpetl_mm.config import load_config
from vpetl_mm.engine.merged import KEY, check_plain, describe_merged, make_plain, plain_config, write_merged

REPO = Path(__file__).parents[2]
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
LORA = dict(lora=dict(type='LoRA', at='qkv', slots='qkv', rank=2), mlp=dict(type='LoRA', at='fc2', rank=2))
CLASSES = {
    'vit': ['ImageClassifier', 'LinearClsHead'],
    'vit_layerscale': ['ImageClassifier', 'LinearClsHead'],
    'swin2d': ['ImageClassifier', 'LinearClsHead'],
    'swin3d': ['Recognizer3D', 'I3DHead'],
    'videomae': ['Recognizer3D', 'TimeSformerHead'],
}


def tuned_config(name: str, folder: Path, spt: bool, bn: bool):
    host = HOSTS[name]
    petl = options(written(host, folder)) if spt else None
    head = {} if name == 'swin3d' else dict(bn=bn)
    cfg = host.config({} if spt else LORA, petl=petl, head=head)
    image = host.scope == 'mmpretrain'
    shape = {} if image else dict(format_shape='NCTHW')
    kind = 'ClsDataPreprocessor' if image else 'ActionDataPreprocessor'
    cfg['model']['data_preprocessor'] = dict(type=kind, mean=MEAN, std=STD, **shape)
    return load_config(cfg)


def tuned(cfg) -> torch.nn.Module:
    """With every weight away from zero, and a head whose statistics are far from zero and one."""
    model = tiny.randomised(build_model(cfg), 3).eval()
    norm = getattr(getattr(model, model.head_name), 'bn', None)
    if norm is not None:
        norm.running_mean.normal_(1, 1)
        norm.running_var.uniform_(0.01, 4)
    return model


def test_in_a_process_without_this_package(tmp_path):
    """Every host and head, with LoRA and with SPT-LoRA, VideoMAE's q_bias and v_bias included."""
    torch.manual_seed(0)
    for name in HOSTS:
        for spt, bn in ((False, True), (True, True), (True, False)):
            cfg = tuned_config(name, tmp_path, spt, bn)
            model = tuned(cfg)
            x = torch.randint(256, (2, *HOSTS[name].size)).float()
            shape = (-1, *[1] * (x.ndim - 2))
            with torch.no_grad():
                logits = tiny.classify(model, (x - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape))
            make_plain(model)
            folder = tmp_path / 'merged'
            write_merged(model, folder / f'{name}-{spt}-{bn}.safetensors', cfg, 'adapter.pth')
            torch.save((x, logits), folder / f'{name}-{spt}-{bn}.pt')
    (tmp_path / 'snippet.py').write_text(snippet())
    script = Path(__file__).with_name('plain_process.py')
    done = subprocess.run(
        [sys.executable, script, tmp_path / 'snippet.py', folder],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: classes for name, (_, *classes) in found.items()} == {n: CLASSES[n.split('-')[0]] for n in found}
    assert len(found) == 3 * len(HOSTS) and all(error < 1e-5 for error, *_ in found.values()), found


def snippet() -> str:
    section = (REPO / 'docs/weights.md').read_text().partition('## The merged file')[2]
    return re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]


def test_the_loading_code_builds_nothing_of_a_strangers_choice(tmp_path, monkeypatch):
    """mmengine imports os.mkdir, and calls it, wherever a type names it; a scope is imported too."""
    monkeypatch.chdir(tmp_path)
    cfg = tuned_config('swin2d', tmp_path, spt=False, bn=True)
    cfg.model.backbone.update(norm_cfg=dict(type='LN'), init_cfg=[dict(type='LN')])
    model = tuned(cfg)
    make_plain(model)
    plain = plain_config(model, cfg)
    dicts = [path for path in paths_of(plain['model']) if path[-1:] != ('arch',)]
    assert len(dicts) == 7
    for path in dicts:
        for change in (dict(type='os.mkdir', name='owned', path='owned'), dict(_scope_='owned'), dict(type=['LN'])):
            hostile = json.loads(json.dumps(plain))
            part = hostile['model']
            for key in path:
                part = part[key]
            part.update(change)
            save_file({'w': torch.zeros(1)}, 'merged.safetensors', {KEY: json.dumps(hostile)})
            with pytest.raises(ValueError, match='not built'):
                exec(snippet(), {})
            assert not Path('owned').exists()


def paths_of(part, path=()):
    """Every dict inside, as the keys that lead there."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return ([path] if isinstance(part, dict) else []) + [p for k, v in inner for p in paths_of(v, (*path, k))]


def test_what_is_said_of_it(tmp_path):
    cfg = tuned_config('vit', tmp_path, spt=False, bn=True)
    cfg.model.data_preprocessor.update(batch_augments=dict(augments=dict(type='Mixup', alpha=0.8)), num_classes=3)
    model = tuned(cfg)
    make_plain(model)
    write_merged(model, tmp_path / 'merged.safetensors', cfg, 'adapter.pth')
    said = describe_merged(tmp_path / 'merged.safetensors')
    assert "mmpretrain's ImageClassifier with LinearClsHead" in said and str(MEAN) in said and str(STD) in said
    assert 'Mixup' not in str(plain_config(model, cfg)), 'which is for training'


def test_a_head_that_no_host_library_has_is_refused():
    model = HOSTS['swin3d'].build(LORA, head=dict(temporal_pool='overlap'))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for refuse in (check_plain, make_plain):
        with pytest.raises(UserError, match='overlap'):
            refuse(model)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
