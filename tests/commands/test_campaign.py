"""A campaign: what it would run, runs, resumes and skips, and how it reports failures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from records import record

import tools
from tools import call, refused
from vpetl_mm.commands.campaign import DONE, NEW, RESUME, TEST, batch_options, carry_out, dry_run, plan
from vpetl_mm.config import load_config
from vpetl_mm.engine.record import write_record
from vpetl_mm.errors import UserError
from vpetl_mm.measure.memory import Memory

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
    assert [r.state for r in plan([FC], CONFIGS, tmp_path / 'none', seeds=3, held={FC: 2})] == [DONE, DONE, NEW]


def test_several_gpus_go_through_torchrun(tmp_path):
    (run,) = plan([FC], CONFIGS, tmp_path, gpus=4)
    assert tools_of(run) == ['dist_train.sh', 'test.py'] and run.commands[0][1:3] == (str(CONFIGS / f'{FC}.py'), '4')
    assert '--nproc_per_node=4' in run.commands[1] and 'pytorch' in run.commands[1]
    assert not any('accumulative' in p or 'batch_size' in p for c in run.commands for p in c)


def carried_out(runs, failing: str = 'none') -> tuple[list, list[str], str]:
    """The commands called, the lines printed and the error, where commands with ``failing`` in them end with 2."""
    calls, lines, error = [], [], ''

    def call(command) -> int:
        calls.append(command)
        folder = Path(command[command.index('--work-dir') + 1])
        if any(p.endswith('test.py') for p in command):
            write_record(folder, record(folder.parent.name, int(folder.name[-1]), 24.0))
        return 2 * (failing in ' '.join(command))

    try:
        carry_out(runs, lines.append, call)
    except UserError as raised:
        error = str(raised)
    return calls, lines, error


def test_a_failing_run_does_not_stop_the_others(tmp_path):
    write_record(tmp_path / 'done', record('swin_norm1_ssv2'))
    calls, lines, error = carried_out(plan(['swin_norm1_ssv2', FULL, FC], CONFIGS, tmp_path), FULL)
    assert '1 of 2 runs failed: swin_full_ssv2, seed 0 (train.py ended with status 2)' in error
    assert len(calls) == 3, 'a run that failed to train is not tested'
    text = '\n'.join(lines)
    for part in ('[1/2]', '[2/2]', 'top-1 24.00', '1 runs were done before, 1 are new'):
        assert part in text
    assert [r.state for r in plan([FC], CONFIGS, tmp_path)] == [DONE]


def test_the_time_left_is_printed_from_the_second_run_on(tmp_path):
    _, lines, error = carried_out(plan([FC], CONFIGS, tmp_path, seeds=2))
    assert not error and ' left' not in lines[0] and ' left' in lines[2]


def test_a_test_that_leaves_no_record_is_a_failure_and_an_interruption_is_not(tmp_path):
    runs = plan([FC], CONFIGS, tmp_path)
    with pytest.raises(UserError, match=r'it left no result\.json'):
        carry_out(runs, lambda _: None, lambda _: 0)
    with pytest.raises(KeyboardInterrupt):
        carry_out(runs, lambda _: None, lambda _: 130)


def test_a_dry_run_prints_commands_parameters_and_memory_and_does_nothing(elsewhere, capsys, monkeypatch):
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


def test_a_campaign_of_some_methods_of_a_table(elsewhere, capsys):
    """Seeds that nobody has run yet."""
    assert call('tables', '--run', 'transfer', '--methods', 'dtl', '--seeds', '40', '--dry-run') == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [line.partition(',')[0] for line in lines if ', seed 39: ' in line]
    assert runs == ['vits14_dtl_cifar100n50_r2_dinov2']
    assert "'ssf'" in refused(capsys, 'tables', '--run', 'transfer', '--methods', 'sff')
    assert '--run TABLE' in refused(capsys, 'tables', '--methods', 'ssf')


def test_a_dry_run_prints_each_run_before_it_looks_at_the_next(tmp_path, monkeypatch):
    runs, estimated = plan([FC, FULL], CONFIGS, tmp_path), []
    memory = Memory(7, 4, 3, 2, 1)
    monkeypatch.setattr('vpetl_mm.commands.campaign.estimate', lambda cfg, batch: estimated.append(batch) or memory)
    assert 'trains 7; estimate 0.0 GiB' in next(dry_run(runs)) and estimated == [16]


def test_the_tools_run_as_subprocesses(elsewhere, capfd, monkeypatch):
    tools = elsewhere / 'tools'
    tools.mkdir()
    write_record(elsewhere / 'tested', record(FC, top1=24.0))
    copy = "import shutil, sys; shutil.copytree('tested', sys.argv[sys.argv.index('--work-dir') + 1])"
    (tools / 'test.py').write_text(copy)
    (tools / 'train.py').write_text('print("training")')
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
