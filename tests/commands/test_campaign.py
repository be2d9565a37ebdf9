"""What a campaign would run, does run, resumes, skips, and says of failures."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from records import record

import tools
from tools import call
from vpetl_mm.commands.campaign import DONE, NEW, RESUME, TEST, batch_options, carry_out, plan
from vpetl_mm.config import load_config
from vpetl_mm.engine.record import write_record
from vpetl_mm.errors import UserError

REPO = Path(__file__).parents[2]
CONFIGS = REPO / 'configs'
FC, FULL = 'swin_fc_ssv2', 'swin_full_ssv2'
WRITE = """\
pathlib.Path(d).mkdir(parents=True)
pathlib.Path(d, 'result.json').write_text(pathlib.Path('record.json').read_text())
"""


def value_of(options: list[str], key: str, default: int) -> int:
    return next((int(o.split('=')[1]) for o in options if o.startswith(f'{key}=')), default)


@pytest.mark.parametrize('config', ['swin_fc_ssv2', 'vit_fc_cifar100_mae'])
@pytest.mark.parametrize('gpus', [1, 2, 4, 8, 16])
def test_the_total_batch_is_the_recipes(config, gpus):
    cfg = load_config(CONFIGS / f'{config}.py')
    options = batch_options(cfg, gpus)
    batch = value_of(options, 'train_dataloader.batch_size', cfg.train_dataloader.batch_size)
    total = batch * gpus * value_of(options, 'optim_wrapper.accumulative_counts', 1)
    assert total == {'swin_fc_ssv2': 64, 'vit_fc_cifar100_mae': 256}[config], 'Table 2'


@pytest.mark.parametrize('gpus', [0, -1, 3, 5, 6, 128])
def test_a_number_of_gpus_that_cannot_keep_it_is_refused(gpus):
    with pytest.raises(UserError, match=f'--gpus {gpus} '):
        batch_options(load_config(CONFIGS / f'{FC}.py'), gpus)


def folder_of(work_dirs: Path, *files: str) -> None:
    run = work_dirs / FC / 'seed_0'
    run.mkdir(parents=True)
    for file in files:
        (run / file).write_text('')


def tools_of(run) -> list[str]:
    return [next(Path(p).name for p in c if re.search(r'tools/\w+\.(py|sh)$', p)) for c in run.commands]


def test_what_was_never_run_is_trained_and_tested(tmp_path):
    (run,) = plan([FC], CONFIGS, tmp_path)
    assert run.state == NEW and run.seed == 0 and run.work_dir == tmp_path / FC / 'seed_0'
    assert tools_of(run) == ['train.py', 'test.py']
    train, test = run.commands
    assert '--resume' not in train and 'randomness.seed=0' in train and 'optim_wrapper.accumulative_counts=4' in train
    assert test[2:4] == (str(CONFIGS / f'{FC}.py'), str(run.work_dir / 'adapter_epoch_70.pth'))
    assert all(c[c.index('--work-dir') + 1] == str(run.work_dir) for c in run.commands)


def test_what_was_cut_off_is_resumed(tmp_path):
    folder_of(tmp_path, 'epoch_12.pth')
    (run,) = plan([FC], CONFIGS, tmp_path)
    assert run.state == RESUME and '--resume' in run.commands[0] and len(run.commands) == 2


def test_what_was_trained_is_tested(tmp_path):
    folder_of(tmp_path, 'epoch_70.pth', 'adapter_epoch_70.pth')
    (run,) = plan([FC], CONFIGS, tmp_path)
    assert run.state == TEST and tools_of(run) == ['test.py']


def test_what_has_a_record_is_skipped_wherever_it_lies(tmp_path):
    write_record(tmp_path / 'elsewhere', record(FC, 1))
    write_record(tmp_path / 'other', record(FC, 2, options={'train_cfg.max_epochs': 1}))
    runs = plan([FC], CONFIGS, tmp_path, seeds=3)
    assert [(r.seed, r.state) for r in runs] == [(0, NEW), (1, DONE), (2, NEW)] and not runs[1].commands


def test_several_gpus_go_through_torchrun(tmp_path):
    (run,) = plan([FC], CONFIGS, tmp_path, gpus=4)
    assert tools_of(run) == ['dist_train.sh', 'test.py'] and run.commands[0][1:3] == (str(CONFIGS / f'{FC}.py'), '4')
    assert '--nproc_per_node=4' in run.commands[1] and 'pytorch' in run.commands[1]
    assert not any('accumulative' in p or 'batch_size' in p for c in run.commands for p in c)


def test_commands_are_what_the_tools_parse(tmp_path):
    folder_of(tmp_path, 'epoch_12.pth')
    (run,) = plan([FC], CONFIGS, tmp_path)
    for command, tool in zip(run.commands, ('train', 'test'), strict=True):
        args = tools.tool(tool).parser.parse_args(list(command[2:]))
        assert args.config == str(CONFIGS / f'{FC}.py') and args.work_dir == str(run.work_dir)
        assert args.cfg_options == ['randomness.seed=0', 'optim_wrapper.accumulative_counts=4']
    assert args.checkpoint.endswith('adapter_epoch_70.pth')


def test_a_failing_run_does_not_stop_the_others(tmp_path):
    calls, said = [], []

    def fake(command) -> int:
        calls.append(command)
        if FULL in ' '.join(command):
            return 2
        if any(p.endswith('test.py') for p in command):
            write_record(command[command.index('--work-dir') + 1], record(FC, top1=24.0))
        return 0

    write_record(tmp_path / 'done', record('swin_norm1_ssv2'))
    runs = plan(['swin_norm1_ssv2', FULL, FC], CONFIGS, tmp_path)
    with pytest.raises(
        UserError, match=r'1 of 2 runs failed: swin_full_ssv2, seed 0 \(train.py ended with status 2\)'
    ):
        carry_out(runs, said.append, fake)
    assert len(calls) == 3, 'a run that failed to train is not tested'
    text = '\n'.join(said)
    assert (
        '[1/2]' in text and '[2/2]' in text and 'top-1 24.00' in text and '1 runs were done before, 1 are new' in text
    )
    assert [r.state for r in plan([FC], CONFIGS, tmp_path)] == [DONE]


def test_time_left_is_told_from_the_second_run_on(tmp_path):
    said = []

    def fake(command) -> int:
        folder = Path(command[command.index('--work-dir') + 1])
        write_record(folder, record(FC, int(folder.name[-1])))
        return 0

    records = carry_out(plan([FC], CONFIGS, tmp_path, seeds=2), said.append, fake)
    assert [r.seed for r in records] == [0, 1]
    assert ' left' not in said[0] and ' left' in said[2]


def test_a_test_that_leaves_no_record_is_a_failure(tmp_path):
    with pytest.raises(UserError, match=r'no result\.json was left'):
        carry_out(plan([FC], CONFIGS, tmp_path), lambda _: None, lambda _: 0)


def test_an_interruption_is_no_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan([FC], CONFIGS, tmp_path), lambda _: None, lambda _: 130)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder with the configs at hand."""
    (tmp_path / 'configs').symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dry_run_says_commands_parameters_and_memory_and_does_nothing(elsewhere, capsys, monkeypatch):
    monkeypatch.setattr('vpetl_mm.paper.tables.Tables.names', lambda *_: ['vit_fc_svhn_mae', 'vit_fc_svhn_in21k'])
    assert call('tables', '--run', 'table1', '--dry-run', '--seeds', '2') == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'trains 7,690; estimate ' in lines[0] and 'GiB a GPU' in lines[0]
    assert lines[1].startswith(
        '  python tools/train.py configs/vit_fc_svhn_mae.py --work-dir work_dirs/vit_fc_svhn_mae/seed_0'
    )
    assert lines[2].startswith('  python tools/test.py configs/vit_fc_svhn_mae.py work_dirs/')
    assert 'seed_1' in lines[4] and '4 of 4 runs to do, 0 done.' in lines and 'is an estimate' in lines[-1]
    assert not (elsewhere / 'work_dirs').exists()


def test_the_tools_run_as_subprocesses(elsewhere, capfd, monkeypatch):
    tools = elsewhere / 'tools'
    tools.mkdir()
    written = json.dumps({'format': 'vpetl_mm result 1', **asdict(record(FC, top1=24.0))})
    (tools / 'test.py').write_text(f'import pathlib, sys\nd = sys.argv[sys.argv.index("--work-dir") + 1]\n{WRITE}')
    (tools / 'train.py').write_text('print("training")')
    (elsewhere / 'record.json').write_text(written)
    monkeypatch.setattr('vpetl_mm.commands.campaign.TOOLS', tools)
    monkeypatch.setattr('vpetl_mm.paper.tables.Tables.names', lambda *_: [FC])
    assert call('tables', '--run', 'table1') == 0
    shown = capfd.readouterr().out
    assert 'training' in shown and 'top-1 24.00' in shown
    assert call('tables', '--run', 'table1') == 0 and 'training' not in capfd.readouterr().out, 'it is done'
    (tools / 'train.py').write_text('import sys; sys.exit("error: no data")')
    assert call('tables', '--run', 'table1', '--seeds', '2') == 2
    error = capfd.readouterr().err
    assert 'error: 1 of 1 runs failed: swin_fc_ssv2, seed 1 (train.py ended with status 1).' in error


def test_what_the_metafile_holds_is_done(tmp_path):
    assert [r.state for r in plan([FC], CONFIGS, tmp_path, seeds=3, held={FC: 2})] == [DONE, DONE, NEW]
