"""SPT on clips from end to end: measured, chosen, trained, tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_experiment import content, prepared, write_config

from vpetl_mm import UserError, build_model
from vpetl_mm.commands.allocate import Request, find
from vpetl_mm.commands.allocate import prepared as asked
from vpetl_mm.engine import experiment
from vpetl_mm.engine.experiment import train
from vpetl_mm.engine.record import is_as_printed, read_record


def config_of(root: Path, file: Path) -> Path:
    spt = f"model['petl'] = dict(spt=dict(file={str(file.with_suffix('.safetensors'))!r}, rank=2, budget=None))\n"
    spt += "train_dataloader['num_workers'] = test_dataloader['num_workers'] = 0\n"
    return write_config(root, file, 'sptlora', spt)


def test_a_video_swin_is_tuned_where_it_is_sensitive(clips, tmp_path):
    config = config_of(clips, tmp_path / 'spt.py')
    allocation, result = find(*asked(Request(str(config), (700,), batches=2, batch_size=6)))
    assert (allocation.host, allocation.made['samples']) == ('mmaction.SwinTransformer3D', 12)
    assert {r.block for r in allocation.rows if r.kind == 'q'} == {0, 1, 2, 3} and result.peak_bytes > 0
    cfg = prepared(config, tmp_path / 'run', train_cfg__max_epochs=1)
    count = train(cfg).plain_model.plan.count()
    assert count['trainable'] - count['by']['head'] == allocation.params <= 700
    adapter = tmp_path / 'run/adapter_epoch_1.pth'
    scores = experiment.test(prepared(config, tmp_path / 'test'), adapter)
    assert 0 <= scores['acc/top1'] <= 100

    file = tmp_path / 'merged.safetensors'
    merged = experiment.test(prepared(config, tmp_path / 'merged'), adapter, merged=str(file))
    assert merged == pytest.approx(scores)
    plain = build_model(config, {'model.petl': dict(_delete_=True, train=['head'])}, meta=True).state_dict()
    written = load_file(file)
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in plain.items()}
    before = file.read_bytes()
    with pytest.raises(UserError, match='exists'):
        experiment.test(prepared(config, tmp_path / 'twice'), adapter, merged=str(file))
    assert file.read_bytes() == before and not (tmp_path / 'twice').exists()
    base = {'model.petl': dict(_delete_=True, train=['head']), 'model.base.file': str(file)}
    other = build_model(config, base, init_weights=True)
    assert all(torch.equal(v, written[k]) for k, v in other.state_dict().items() if k.startswith('backbone.'))

    find(*asked(Request(str(config), (300,), batches=2, batch_size=6, force=True)))
    with pytest.raises(UserError, match='is for another config') as error:
        experiment.test(prepared(config, tmp_path / 'again'), adapter)
    assert '\n' not in str(error.value) and not (tmp_path / 'again').exists()


def test_another_rule_is_another_experiment_and_indices_are_checked(clips, tmp_path):
    config = config_of(clips, tmp_path / 'spt.py')
    find(*asked(Request(str(config), (700,), batches=2, batch_size=6, alpha=2.0)))
    options = dict(train_cfg__max_epochs=1, optim_wrapper__optimizer__weight_decay=0.1)
    runner = train(prepared(config, tmp_path / 'run', **options))
    groups = runner.optim_wrapper.optimizer.param_groups
    decays = {(p.ndim == 1, g['weight_decay']) for g in groups for p in g['params']}
    assert decays == {(True, 0.0), (False, 0.1)}, 'vectors and single weights do not decay'

    adapter = tmp_path / 'run/adapter_epoch_1.pth'
    experiment.test(prepared(config, tmp_path / 'test'), adapter)
    record = read_record(tmp_path / 'test/result.json')
    assert record.options['spt.alpha'] == 2.0 and not is_as_printed(record)

    changed = content(adapter)
    key = next(k for k in changed['state_dict'] if k.endswith('weight_index'))
    changed['state_dict'][key][0] += 1
    torch.save(changed, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'is corrupt: its .*weight_index'):
        experiment.test(prepared(config, tmp_path / 'again'), tmp_path / 'other.pth')


@pytest.mark.parametrize(
    ('spt', 'said'), [('x', 'petl.spt must be'), (dict(file=5, structured='LoRA'), 'needs file')]
)
def test_a_wrong_setting_is_named(clips, tmp_path, spt, said):
    config = write_config(clips, tmp_path / 'wrong.py', 'fc', f"model['petl'] = dict(spt={spt!r}, train=['head'])\n")
    with pytest.raises(UserError, match=said) as error:
        train(prepared(config, tmp_path / 'run'))
    assert 'the data' not in str(error.value) and not (tmp_path / 'run').exists()
