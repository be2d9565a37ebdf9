"""What runs would take: hours by arithmetic, from measured steps, and of what is left."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools import call, refused
from vpetl_mm.commands.forecast import forecast
from vpetl_mm.commands.grid import batch_options, plan
from vpetl_mm.config import load_config
from vpetl_mm.measure.cost import cost_of
from vpetl_mm.measure.samples import samples_of
from vpetl_mm.measure.work import work_of

CONFIGS = Path(__file__).parents[2] / 'configs'
FC, FULL = 'vit_fc_svhn_mae', 'vit_full_cifar100_mae'
SPT = 'vit_sptlora_vtabkitti_mae'
# ViT-B/16 on 224 x 224: 12 blocks of 4 d^2 (attention) and 8 d^2 (MLP) for 197 tokens, q k^T and its product with v,
# and the patches' projection; the head is left out
VIT = 2 * (12 * (197 * 12 * 768**2 + 2 * 197**2 * 768) + 196 * 768 * 768)


def hours(lines: list[str], run: int = 0) -> float:
    """The GPU hours of a run, by its line's number among those that are not commands."""
    line = [text for text in lines if not text.startswith('  ')][run]
    return float(re.search(r'([\d.,e-]+) GPU hours', line)[1].replace(',', ''))


def test_the_hours_are_steps_and_tests_over_the_gpus_rate(tmp_path):
    lines = list(forecast(plan([FC], CONFIGS, tmp_path)))
    samples = 100 * (73_257 // 64) * 64 + 26_032  # the backbone is frozen: a step is a forward pass
    assert hours(lines) == pytest.approx(samples * VIT / (71e12 * 0.3) / 3600, rel=0.02)
    assert lines[0].endswith('GPU hours (computed)') and lines[-1].startswith('Memory is an estimate: ')
    assert lines[-3].startswith(f'In all {hours(lines)} GPU hours on RTX 3090, ') and 'GA102' in lines[-3]
    other = list(forecast(plan([FC], CONFIGS, tmp_path), gpu='nvidia rtx-2080ti'))
    assert hours(other) == pytest.approx(hours(lines) * 71 / 13.4, rel=0.02)
    sums = re.search(r'float32 ([\d.]+); .* takes ([\d.]+), or ([\d.]+) ', lines[-2])
    in_float32, heads, cached = map(float, sums.groups())
    assert in_float32 == pytest.approx(heads * 71 / 35.6, rel=0.02) and heads == hours(lines)
    assert cached == pytest.approx(heads * (73_257 + 26_032) / samples, rel=0.05)


def test_full_tuning_takes_three_forward_passes_a_step():
    cfg = load_config(FULL)
    work = work_of(cfg, cost_of(cfg), gpus=4)
    assert (work.steps, work.passes) == (100 * (50_000 // 256) * 4, 10_000)
    assert work.step == pytest.approx(64 * 3 * VIT, rel=0.03)
    cfg.holdout.fraction = 0.1
    held = work_of(cfg, cost_of(cfg), gpus=4)
    assert (held.steps, held.passes) == (100 * (45_000 // 256) * 4, 10_000 + 100 * 5_000)
    assert work_of(load_config('swin_fc_ssv2'), cost_of(cfg)).passes == 24_777 * 4 * 3, 'clips and crops of a test'


def log(work_dir: Path, seconds: float, gpus: int) -> None:
    """What a run on some GPUs logs: its settings and steps, of which the first takes longer."""
    folder = work_dir / '20260101_000000/vis_data'
    folder.mkdir(parents=True)
    cfg = load_config(FULL)
    options = dict(option.split('=') for option in batch_options(cfg, gpus))
    settings = load_config(cfg, {key: int(value) for key, value in options.items()})
    (folder / 'config.py').write_text(settings.pretty_text)
    times = [9.0, seconds, seconds, 10**400, '1', -1.0]
    lines = [dict(loss=1.0, time=t, epoch=1, iter=10 * i) for i, t in enumerate(times)]
    text = '\n'.join(map(json.dumps, [*lines, {'acc/top1': 1.0, 'time': 5.0, 'step': 1}]))
    (folder / 'scalars.json').write_text(text)


def test_a_measured_step_of_any_seed_on_as_many_gpus_comes_first(tmp_path):
    computed = hours(list(forecast(plan([FULL], CONFIGS, tmp_path, 4), 4)))
    log(tmp_path / FULL / 'seed_7', 2.0, 4)
    lines = list(forecast(plan([FULL], CONFIGS, tmp_path, 4), 4))
    tests = 10_000 / 3 / 64  # in steps
    assert hours(lines) == pytest.approx((100 * (50_000 // 256) * 4 + tests) * 2.0 / 3600, rel=0.01)
    assert lines[0].endswith('GPU hours (measured step)') and not any('RTX' in line for line in lines)
    assert lines[-2] == f'{hours(lines):,.1f} GPU hours from measured steps, on whichever GPUs the logs are of.'
    assert hours(list(forecast(plan([FULL], CONFIGS, tmp_path, 8), 8))) == pytest.approx(computed, rel=0.01)


def test_only_what_is_left_counts(tmp_path):
    whole = hours(list(forecast(plan([FULL], CONFIGS, tmp_path))))
    run = tmp_path / FULL / 'seed_0'
    run.mkdir(parents=True)
    for epoch in (9, 75):
        (run / f'epoch_{epoch}.pth').touch()
    assert hours(list(forecast(plan([FULL], CONFIGS, tmp_path)))) == pytest.approx(whole / 4, rel=0.02)
    (run / 'adapter_epoch_100.pth').touch()
    assert hours(list(forecast(plan([FULL], CONFIGS, tmp_path)))) == pytest.approx(
        10_000 * VIT / (71e12 * 0.3) / 3600, rel=0.05
    )


def test_sensitivity_comes_first_and_a_seed_costs_what_another_does(tmp_path):
    lines = list(forecast(plan([SPT, 'vit_fc_vtabkitti_mae'], CONFIGS, tmp_path, seeds=2)))
    needs = 'its parameters and memory are known once the sensitivity is measured'
    assert lines[0].startswith(f'{SPT}, seed 0: train and test; {needs}; at most ')
    assert lines[1].startswith('  python tools/sensitivity.py ') and lines[2].startswith('  python tools/train.py ')
    assert lines[8].startswith('vit_fc_vtabkitti_mae, seed 0: train and test; trains 3,076; estimate ')
    total = sum(hours(lines, run) for run in range(4))
    assert hours(lines, 5) == pytest.approx(total, rel=0.05) and '4 of 4 runs to do, 0 done.' in lines
    assert hours(lines) == hours(lines, 1) > hours(lines, 2)


def test_samples_are_those_of_the_list_or_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ssv2, kitti = (load_config(n).train_dataloader.dataset for n in ('swin_fc_ssv2', 'vit_fc_vtabkitti_mae'))
    assert [samples_of(ssv2), samples_of(ssv2, testing=True)] == [168_913, 24_777]
    assert [samples_of(kitti), samples_of(kitti, testing=True)] == [1_000, 711]
    for file, count in {'ssv2/trainval': 3, 'vtab1k/kitti/train800': 2, 'vtab1k/kitti/val200': 5}.items():
        (list_ := Path('data', f'{file}.txt')).parent.mkdir(parents=True, exist_ok=True)
        list_.write_text('a 0\n' * count + '\n')
    assert [samples_of(ssv2), samples_of(dict(dataset=kitti))] == [3, 7]
    assert samples_of(load_config('vits14_fc_cifar100n50_dinov2').train_dataloader.dataset) == 5_000
    assert samples_of(dict(ann_file='data/mine/train.txt')) is None


def test_the_command_prints_and_does_nothing(elsewhere, capsys, monkeypatch):
    monkeypatch.setattr('vpetl_mm.paper.tables.Tables.names', lambda *_: [FC, 'vit_fc_svhn_in21k'])
    assert call('tables', '--run', 'table1', '--dry-run', '--seeds', '2', '--gpu', 'a100') == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'trains 7,690; estimate ' in lines[0] and 'GiB a GPU' in lines[0]
    assert lines[1].startswith(
        '  python tools/train.py configs/vit_fc_svhn_mae.py --work-dir work_dirs/vit_fc_svhn_mae/seed_0'
    )
    assert lines[2].startswith('  python tools/test.py configs/vit_fc_svhn_mae.py work_dirs/')
    assert 'seed_1' in lines[4] and '4 of 4 runs to do, 0 done.' in lines and 'GPU hours on A100' in lines[-3]
    assert not (elsewhere / 'work_dirs').exists()
    assert "'RTX 3090'" in refused(capsys, 'tables', '--run', 'table1', '--dry-run', '--gpu', 'RTX 3091')
    assert 'add --dry-run' in refused(capsys, 'tables', '--run', 'table1', '--gpu', 'A100')
