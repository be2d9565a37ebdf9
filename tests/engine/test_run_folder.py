"""A folder holds one run, and one process writes into it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine import Config

from vpetl_mm import UserError
from vpetl_mm.engine import run_folder
from vpetl_mm.engine.experiment import Options, prepare
from vpetl_mm.engine.record import FORMAT
from vpetl_mm.engine.run_folder import check_folder, check_links, locked, remove_run
from vpetl_mm.engine.runner import PETLRunner


def about(work_dir: Path, load_from: Path | None = None, **options) -> Config:
    return Config(dict(work_dir=str(work_dir), launcher='none', load_from=load_from and str(load_from), **options))


def put(folder: Path, *names: str, text: str = 'x') -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    'name',
    ['epoch_3.pth', 'adapter_epoch_12.pth', 'best_acc_top1_epoch_2.pth', 'result.json', 'result_a_0f3b21.json'],
)
def test_a_new_run_does_not_mix_with_another(tmp_path, name):
    put(tmp_path / 'run', name, text=f'{{"format": "{FORMAT}"}}')
    with pytest.raises(UserError, match=rf'holds another run \({name}\).*--resume .*--overwrite .*--work-dir '):
        check_folder(about(tmp_path / 'run'))
    with pytest.raises(UserError, match='holds another run'):
        check_folder(about(tmp_path / 'run', tmp_path / 'elsewhere/epoch_1.pth'))
    check_folder(about(tmp_path / 'run', tmp_path / 'run/epoch_3.pth'))
    check_folder(about(tmp_path / 'run', overwrite=True))
    with pytest.raises(UserError, match='--overwrite would remove'):
        check_folder(about(tmp_path / 'run', tmp_path / 'run/epoch_3.pth', overwrite=True))


FOREIGN = (
    'notes.txt',
    'result.json',  # of another program
    'predictions.csv',
    'epoch_x.pth',
    'best_model.pth',
    'my_epoch_1.pth',
    'spt.safetensors',
    '20260101_000000/thesis.tex',
    'sub/epoch_1.pth',
)
OWN = (
    'epoch_1.pth',
    'epoch_2.pth.partial',
    'adapter_epoch_2.pth',
    'best_acc_top1_epoch_1.pth',
    'last_checkpoint',
    '20260101_000000/20260101_000000.log',
    '20260101_000000/vis_data/scalars.json',
    '20260102_000000/vis_data/events.out.tfevents.1.host.2.0',
)


def test_what_is_foreign_is_no_run_and_stays(tmp_path):
    put(tmp_path, *FOREIGN)
    check_folder(about(tmp_path))
    put(tmp_path, *OWN)
    put(tmp_path, 'predictions_short_0f3b21.csv', 'predictions.csv.partial', text=f'{run_folder.HEADER}\n')
    put(tmp_path, 'result_short_0f3b21.json', 'result.json.partial', text=f'{{"format": "{FORMAT}"}}')
    (tmp_path / 'epoch_9.pth').symlink_to(tmp_path / 'notes.txt')
    remove_run(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if not p.is_dir()) == sorted(FOREIGN)
    assert not (tmp_path / '20260102_000000').exists()


@pytest.mark.parametrize('name', ['.lock', 'last_checkpoint', 'own.py', 'epoch_1.pth.partial', 'result.partial'])
def test_nothing_is_written_through_a_link(tmp_path, name):
    put(tmp_path, 'own.py', 'run/notes.txt', text='mine = 1')
    cfg = Config(dict(work_dir=str(tmp_path / 'run'), launcher='none', load_from=None), filename=tmp_path / 'own.py')
    (tmp_path / 'run/elsewhere').symlink_to('../own.py')
    check_folder(cfg)
    (tmp_path / 'run' / name).symlink_to('../own.py')
    for check in (check_folder, check_links):
        with pytest.raises(UserError, match=f'{name} is a link'):
            check(cfg)
    assert (tmp_path / 'own.py').read_text() == 'mine = 1'


def test_an_older_runs_logs_are_not_looked_for_behind_a_link(tmp_path):
    put(tmp_path, 'project/config.py', 'run/epoch_1.pth', 'run/20260101_000000/20260101_000000.log')
    (tmp_path / 'run/20260101_000000/vis_data').symlink_to(tmp_path / 'project')
    remove_run(tmp_path / 'run')
    assert (tmp_path / 'project/config.py').exists()
    assert [p.name for p in tmp_path.glob('run/**/*')] == ['20260101_000000', 'vis_data']


def claim_in_a_child(folder: Path) -> int:
    """A process that has a folder, and a child of its own as a loader's worker is; its number."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with locked(about(folder)):
            if os.fork():
                os.write(writer, b'1')
            time.sleep(60)
        os._exit(0)
    assert os.read(reader, 1) == b'1'
    return pid


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path):
    pid = claim_in_a_child(tmp_path / 'run')
    try:
        with pytest.raises(UserError, match=rf'in use by process {pid} on .* since '):
            check_folder(about(tmp_path / 'run'))
        with pytest.raises(UserError, match='in use'), locked(about(tmp_path / 'run')):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)  # its child lives on
        os.waitpid(pid, 0)
    try:
        check_folder(about(tmp_path / 'run'))
        with locked(about(tmp_path / 'run')) as warning:
            assert warning is None
    finally:
        os.killpg(pid, signal.SIGKILL)
    assert (tmp_path / 'run' / run_folder.LOCK).read_text() == ''


def test_what_another_machine_left_is_told(tmp_path):
    put(tmp_path, run_folder.LOCK, text='process 7 on node\n17 since 2026-01-02')
    with locked(about(tmp_path)) as warning:
        assert 'last used by process 7 on node17 since' in warning


def test_a_lock_that_is_a_link_leads_to_no_other_file(tmp_path):
    put(tmp_path, 'mine.txt', text='mine')
    put(tmp_path / 'run', 'notes.txt')
    (tmp_path / 'run' / run_folder.LOCK).symlink_to(tmp_path / 'mine.txt')
    with pytest.raises(UserError, match=r'\.lock is a link'):
        check_folder(about(tmp_path / 'run'))
    with pytest.raises(UserError, match=r'\.lock cannot be opened'), locked(about(tmp_path / 'run')):
        pass
    assert (tmp_path / 'mine.txt').read_text() == 'mine'


def test_a_run_that_came_in_between_is_found_and_an_older_one_goes(tmp_path):
    put(tmp_path, 'epoch_1.pth', 'notes.txt')
    with pytest.raises(UserError, match='holds another run'), locked(about(tmp_path)):
        pass
    with locked(about(tmp_path, overwrite=True)):
        assert {p.name for p in tmp_path.iterdir()} == {'notes.txt', run_folder.LOCK}


def test_a_requeued_job_goes_on(config, tmp_path, monkeypatch):
    def how(restarts: str | None, *names: str) -> tuple:
        monkeypatch.setenv('SLURM_RESTART_COUNT', restarts) if restarts else monkeypatch.delenv(
            'SLURM_RESTART_COUNT', raising=False
        )
        put(tmp_path / 'run', *names)
        cfg = prepare(config, Options(str(tmp_path / 'run'), launcher='slurm', overwrite=True))
        return cfg.resume, cfg.load_from, cfg.get('overwrite', False)

    anew, goes_on = (False, None, True), (True, None, False)
    assert [how('1'), how(None, 'epoch_1.pth'), how('0'), how('1')] == [anew, anew, anew, goes_on]


@pytest.mark.parametrize(
    ('named', 'taken'),
    [
        ('/gone/best_acc_top1_epoch_2.pth', True),
        ('thesis.docx', False),
        ('../best_acc_top1_epoch_2.pth/../../thesis.docx', False),
        ('best_acc_top1_epoch_3.pth', False),  # after the state's epoch
        ('best_acc_top1_epoch_2.pth.docx', False),
        ('..', False),
        ('', False),
        (7, False),
    ],
)
def test_the_best_that_a_state_names_is_a_best_of_this_folder_or_none(tmp_path, named, taken):
    put(tmp_path / 'run', 'thesis.docx', 'best_acc_top1_epoch_3.pth', 'best_acc_top1_epoch_2.pth.docx', '7')
    put(tmp_path, 'state/best_acc_top1_epoch_2.pth', 'thesis.docx')
    info = dict(best_ckpt=named, best_score=50.0, other=1)
    PETLRunner._take_best(SimpleNamespace(work_dir=str(tmp_path / 'run'), rank=0), info, tmp_path / 'state', 2)
    own = dict(best_ckpt=str(tmp_path / 'run/best_acc_top1_epoch_2.pth'), best_score=50.0) if taken else {}
    assert info == dict(own, other=1)
    for score in ('high', None, True and [1]):
        info = dict(best_ckpt='best_acc_top1_epoch_2.pth', best_score=score)
        PETLRunner._take_best(SimpleNamespace(work_dir=str(tmp_path / 'run'), rank=0), info, tmp_path / 'state', 2)
        assert info == {}
