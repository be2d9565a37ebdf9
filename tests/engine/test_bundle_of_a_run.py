"""tools/train.py ends with a bundle, or with a warning where the config has a part that no bundle holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_experiment import PIPELINE, adapter, write_config

from tools import call
from vpetl_mm.use.bundle.bundle import read_bundle
from vpetl_mm.use.bundle.model import bundled_model

FLIPPED = f"""\
{PIPELINE}_pipeline.insert(3, dict(type='Flip', flip_ratio=0.0))
test_dataloader['dataset']['pipeline'] = _pipeline
"""
OPTIONS = ['train_cfg.max_epochs=1', *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'test'))]


@pytest.mark.parametrize('extra', ['', FLIPPED], ids=['fits', 'has another step'])
def test_training_ends_well(clips, elsewhere, capfd, extra):
    write_config(clips, Path('small.py'), extra=extra)
    assert call('train', 'small.py', '--work-dir', 'run', '--cfg-options', *OPTIONS) == 0
    printed = capfd.readouterr()
    told, last = printed.out.splitlines()[-2:] if not extra else (printed.out.splitlines()[-1], '')
    assert told == 'Test it with: tools/test.py small.py run/adapter_epoch_1.pth'
    warnings = [line for line in printed.err.splitlines() if line.startswith('warning: ')]
    if extra:
        (line,) = warnings
        assert line.startswith("warning: no bundle was written: small cannot be a bundle: pipeline[3].type is 'Flip'")
        assert not [*Path('run').glob('*.safetensors*')]
        return
    assert last.startswith('Bundle of 0.') and last.endswith(
        'predicts with: tools/predict.py run/small.safetensors INPUT...'
    )
    assert not warnings
    bundle = read_bundle('run/small.safetensors')
    state = bundled_model(bundle, clips / 'base.pth').state_dict()
    assert all(state[k].equal(v) for k, v in adapter(Path('run'), 1).items())
    assert bundle.about.base['name'] == 'base.pth' and bundle.about.options['train_cfg.max_epochs'] == 1
