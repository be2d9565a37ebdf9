"""A grid of runs: what it would run, runs, resumes and skips, and how it reports failures."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import time
from pathlib import Path

import pytest
from records import record
from small_vtab import write_config

import tools
from tools import call, refused
from vpetl_mm.campaign.claim import claimed, in_use
from vpetl_mm.campaign.local import LocalEngine
from vpetl_mm.commands.grid import DONE, NEW, RESUME, TEST, batch_options, carry_out, plan
from vpetl_mm.commands.watch_grid import watch
from vpetl_mm.config import load_config
from vpetl_mm.engine.record import read_record, write_record
from vpetl_mm.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs'
FC, FULL = 'swin_fc_ssv2', 'swin_full_ssv2'


@pytest.mark.parametrize(('config', 'total'), [(FC, 64), ('vit_fc_cifar100_mae', 256)])
@pytest.mark.parametrize('gpus', [1, 2, 4, 8, 16])
def test_the_total_batch_is_that_of_table_2(config, total, gpus):
    file = CONFIGS / f'{config}.py'
    options = dict(option.split('=') for option in batch_options(load_config(file), gpus))
    cfg = load_config(file, {key: int(value) for key, value in options.items()})
    assert cfg.train_dataloader.batch_size * gpus * cfg.optim_wrapper.get('accumulative_counts', 1) == total


@pytest.mark.parametrize('gpus', [0, -1, 3, 5, 6, 128])
def test_a_number_of_gpus_that_cannot_keep_it_is_refused(gpus):
    with pytest.raises(UserError, match=f'--gpus {gpus} '):
        batch_options(load_config(CONFIGS / f'{FC}.py'), gpus)


def touch(work_dirs: Path, *files: str) -> None:
    run = work_dirs / FC / 'seed_0'
    run.mkdir(parents=True)
    for file in files:
        (run / file).touch()


def tools_of(run) -> list[str]:
    return [next(Path(p).name for p in c if re.search(r'tools/\w+\.(py|sh)$', p)) for c in run.commands]


def test_commands_are_what_the_tools_parse(tmp_path):
    (run,) = plan([FC], CONFIGS, tmp_path)
    assert run.state == NEW and run.seed == 0 and run.work_dir == tmp_path / FC / 'seed_0'
    assert tools_of(run) == ['train.py', 'test.py'] and '--resume' not in run.commands[0]
    for command, tool in zip(run.commands, ('train', 'test'), strict=True):
        args = tools.tool(tool).parser.parse_args(list(command[2:]))
        config, *checkpoint = [args.config] if tool == 'train' else args.tested
        assert config == str(CONFIGS / f'{FC}.py') and args.work_dir == str(run.work_dir)
        assert args.cfg_options == ['randomness.seed=0', 'optim_wrapper.accumulative_counts=4']
    assert checkpoint == [str(run.work_dir / 'adapter_epoch_70.pth')]


@pytest.mark.parametrize(
    ('files', 'state', 'called'),
    [
        (['epoch_12.pth'], RESUME, ['train.py', 'test.py']),
        (['epoch_70.pth', 'adapter_epoch_70.pth'], TEST, ['test.py']),
    ],
)
def test_a_run_goes_on_where_it_stopped(tmp_path, files, state, called):
    touch(tmp_path, *files)
    (run,) = plan([FC], CONFIGS, tmp_path)
    assert run.state == state and tools_of(run) == called
    assert ('--resume' in run.commands[0]) == (state == RESUME)


def test_what_has_a_record_anywhere_or_in_the_metafile_is_skipped(tmp_path):
    write_record(tmp_path / 'elsewhere', record(FC, 1))
    write_record(tmp_path / 'other', record(FC, 2, options={'train_cfg.max_epochs': 1}))
    runs = plan([FC], CONFIGS, tmp_path, seeds=3)
    assert [(r.seed, r.state) for r in runs] == [(0, NEW), (1, DONE), (2, NEW)] and not runs[1].commands
    assert [r.state for r in plan([FC], CONFIGS, tmp_path / 'none', seeds=3, held={FC: [0, 1]})] == [DONE, DONE, NEW]


def test_several_gpus_go_through_torchrun(tmp_path):
    (run,) = plan([FC], CONFIGS, tmp_path, gpus=4)
    assert tools_of(run) == ['dist_train.sh', 'test.py'] and run.commands[0][1:3] == (str(CONFIGS / f'{FC}.py'), '4')
    assert '--nproc_per_node=4' in run.commands[1] and 'pytorch' in run.commands[1]
    assert not any('accumulative' in p or 'batch_size' in p for c in run.commands for p in c)


def test_a_campaign_of_some_methods_of_a_table(elsewhere, capsys):
    """Seeds that nobody has run yet."""
    assert call('tables', '--run', 'transfer', '--methods', 'dtl', '--seeds', '40', '--dry-run') == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [line.partition(',')[0] for line in lines if ', seed 39: ' in line]
    assert runs == ['vits14_dtl_cifar100n50_r2_dinov2']
    one = 'vits14_sptlora_cifar100shot10_100k_dinov2'  # its method has three budgets in this table
    assert call('tables', '--run', 'fewshot_spt', '--methods', one, '--seeds', '40', '--dry-run') == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(',')[0] for line in lines if ', seed 39: ' in line] == [one]
    assert "'ssf'" in refused(capsys, 'tables', '--run', 'transfer', '--methods', 'sff')
    assert '--run TABLE' in refused(capsys, 'tables', '--methods', 'ssf')


@pytest.fixture(scope='module')
def carried_out(task, base, tmp_path_factory) -> tuple[Path, list[str], str]:
    """A grid of real runs, of which one is interrupted, one fails and one was tested before with a broken result."""
    root = tmp_path_factory.mktemp('grid')
    write_config(task, root / 'small_fc.py', 'fc', base)
    write_config(task, root / 'small_sptlora.py', 'sptlora', base, 'model.update(petl=dict(spt=dict(budget=300)))\n')
    write_config(task, root / 'small_bitfit.py', 'bitfit', root / 'missing.pth')
    runs = plan(['small_fc', 'small_sptlora', 'small_bitfit'], root, root / 'work_dirs')
    assert call('train', *runs[0].commands[0][2:]) == 0
    for file in ('epoch_2.pth', 'adapter_epoch_2.pth', 'last_checkpoint'):  # as after a kill in the second epoch
        (runs[0].work_dir / file).unlink()
    lines: list[str] = []
    with pytest.raises(UserError) as error:
        carry_out(runs, LocalEngine(2), lines.append)
    return root, lines, str(error.value)


def test_a_grid_goes_on_with_what_was_interrupted_and_a_failing_run_stops_no_other(carried_out):
    root, lines, error = carried_out
    text = '\n'.join(lines)
    assert 'small_fc, seed 0: resume and test' in text and 'small_sptlora, seed 0: train and test' in text
    assert error.startswith('1 of 3 runs failed: small_bitfit, seed 0 (train.py ended with status 2: ')
    assert 'missing.pth' in error and 'small_bitfit, seed 0 failed: train.py' in text
    assert lines[-1] == '0 runs were done before, 2 are new, 1 failed.' and ' left' in text
    for name in ('small_fc', 'small_sptlora'):
        result = read_record(root / 'work_dirs' / name / 'seed_0/result.json')
        assert result.epoch == 2 and f'{name}, seed 0: top-1 {result.top1:.2f}, took ' in text
    assert (root / 'work_dirs/small_sptlora/seed_0/spt.safetensors').is_file()
    assert 'Epoch' in (root / 'work_dirs/small_fc/seed_0/run.log').read_text()


def test_what_is_done_is_not_done_again_but_a_broken_result_is(carried_out):
    root, *_ = carried_out
    names, file = ['small_fc', 'small_sptlora'], root / 'work_dirs/small_fc/seed_0/result.json'
    assert [r.state for r in plan(names, root, root / 'work_dirs')] == [DONE, DONE]
    whole = file.read_text()
    file.write_text(whole[:40])
    (run, _) = plan(names, root, root / 'work_dirs')
    assert run.state == TEST and tools_of(run) == ['test.py']
    file.write_text(whole)


def test_watching_shows_what_each_run_is_doing(carried_out, capsys):
    root, *_ = carried_out
    work_dirs, names = root / 'work_dirs', ['small_fc', 'small_sptlora', 'small_bitfit']
    held = work_dirs / 'small_fc/seed_1'
    shutil.copytree(work_dirs / 'small_fc/seed_0', held, ignore=shutil.ignore_patterns('result.json'))
    (work_dirs / 'small_bitfit/seed_1').mkdir()
    holder = multiprocessing.get_context('fork').Process(target=hold, args=(held,))
    holder.start()
    while not in_use(held):
        time.sleep(0.01)
    watch(plan(names, root, work_dirs, seeds=2), root / 'grid.html')
    holder.kill()
    holder.join()
    shown, page = capsys.readouterr().out, (root / 'grid.html').read_text()
    assert '6 runs: 1 running, 1 failed, 2 waiting, 2 done' in shown and '<title>6 runs: 1 running' in page
    (row,) = (line for line in shown.splitlines() if 'small_fc, seed 1' in line)
    assert re.search(r'running +epoch 2, loss \d', row)
    top1 = read_record(work_dirs / 'small_fc/seed_0/result.json').top1
    assert f'<td class="done">done</td><td>top-1 {top1:.2f}</td>' in page
    assert 'missing.pth' in page and 'train.py ended with status 2' in shown


def hold(folder: Path) -> None:
    """Work in a folder until killed."""
    with claimed(folder):
        time.sleep(60)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ('--parallel 2', 'add --run TABLE'),
        ('--watch', 'add --run TABLE'),
        ('--run table1 --parallel 0', '--parallel must be at least 1'),
        ('--run table1 --gpus 0', '--gpus 0 cannot keep the batch'),
        ('--run table1 --max-parallel 2', 'is for --engine slurm'),
        ('--run table1 --engine slurm --parallel 2', 'on a cluster it is --max-parallel'),
        ('--run table1 --dry-run --watch', 'ask for one'),
        ('--run table1 --dry-run --partition x', '--partition is for carrying out runs'),
        ('--run table1 --watch --parallel 2', '--parallel is for carrying out runs'),
        ('--gpus 4', 'add --run TABLE'),
        ('--run table1 --gpu A100', 'add --dry-run'),
        ('--run table1 --format latex', 'leave out --run'),
        ('--run table1 --dry-run --seeds 100000000', '--seeds must be from 1 to 1000'),
        ('--run nosuch', 'transfer'),
        ('--run table1 --work-dirs configs/metafile.yml', 'is a file'),
    ],
)
def test_options_that_do_not_fit_are_refused(elsewhere, capsys, options, said):
    assert said in refused(capsys, 'tables', *options.split())
