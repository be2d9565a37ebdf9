"""The journal of a study: workers killed as they hold it, a full disk, and lines that somebody else has written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import optuna
import pytest
from searching import LR, leave_result

from vpetl_mm import UserError
from vpetl_mm.search.finalists import best
from vpetl_mm.search.journal import Journal
from vpetl_mm.search.settings import Search, check_same, read_search, write_search
from vpetl_mm.search.study import counted, open_study, values_of
from vpetl_mm.search.worker import work

LINE = dict(op_code=0, worker_id='a' * 50)


def test_a_lock_left_by_a_killed_worker_is_broken_in_a_relative_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'monotonic', lambda now=time.monotonic: 30 * now())  # its patience is 30 seconds
    Path('study').mkdir()
    journal = Journal(Path('study/journal.log'))

    def run() -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        journal.append_logs([LINE])

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    process.join()
    assert Path('study/journal.log.lock').is_symlink()
    second = multiprocessing.get_context('fork').Process(target=journal.append_logs, args=([LINE],))
    second.start()
    second.join(20)
    ended = second.exitcode
    second.kill()
    assert ended == 0 and [*journal.read_logs(0)] == [LINE] * 2


def test_half_a_line_of_a_full_disk_is_not_joined_by_the_next(tmp_path):
    """A limit on the file's size stands for the disk's end: the system writes what fits, as it does there."""
    file = tmp_path / 'journal.log'
    journal = Journal(file)
    journal.append_logs([LINE])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(OSError, match='too large') as error:
            journal.append_logs([LINE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(file) and not file.read_bytes().endswith(b'\n')
    assert [*Journal(file).read_logs(0)] == [LINE]
    for text in ('{"half', '{"long' + 'g' * 10_000):
        with open(file, 'a') as stream:
            stream.write(text)
        Journal(file).append_logs([LINE])
    assert [*Journal(file).read_logs(0)] == [LINE] * 3


def test_a_full_disk_ends_a_worker_in_a_sentence(experiment, tmp_path):
    search = Search(str(experiment), str(tmp_path), {LR: '[0.1,0.2]'})
    write_search(search)
    open_study(search).set_user_attr('size', 'a' * 200_000)  # the largest file of all, which alone meets the limit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / 'journal.log').stat().st_size + 20, before[1]))
    try:
        with pytest.raises(UserError, match=r'journal\.log cannot be written \(File too large\); free some space\.'):
            work((search.folder,), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('line', ['{"op_code": \n{}', '{"op_code":99,"worker_id":"x"}', '[]', '[' * 200_000])
def test_a_journal_that_is_damaged_is_named(experiment, tmp_path, line):
    search = Search(str(experiment), str(tmp_path), {LR: '[0.1,0.2]'})
    study = open_study(search)
    with open(tmp_path / 'journal.log', 'a') as stream:
        stream.write(f'{line}\n')
    for read in (lambda: open_study(search), lambda: counted(study)):
        with pytest.raises(UserError, match=r'journal\.log.* cannot be read'):
            read()
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize('name', ['journal.log', 'search.json'])
@pytest.mark.parametrize('kind', ['link', 'dead link', 'device', 'pipe', 'folder'])
def test_a_file_of_a_search_that_is_none_is_refused_and_not_written(experiment, tmp_path, name, kind):
    there, file = tmp_path / 'precious', tmp_path / 'small' / name
    there.write_text('{}\n')
    file.parent.mkdir()
    leads = {'link': there, 'dead link': tmp_path / 'nowhere', 'device': '/dev/zero'}
    if kind in leads:
        file.symlink_to(leads[kind])
    else:
        os.mkfifo(file) if kind == 'pipe' else file.mkdir()
    for begin in (check_same, write_search if name == 'search.json' else open_study):
        with pytest.raises(UserError, match=f'{name} is not an ordinary file'):
            begin(Search(str(experiment), str(file.parent), {LR: '[0.1,0.2]'}))
    assert there.read_text() == '{}\n' and [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize('content', ['[1]', '{}', '{"format": "vpetl_mm search 1"}', '[' * 200_000, '\0'])
def test_a_search_file_that_is_damaged_is_named(tmp_path, content):
    (tmp_path / 'search.json').write_text(content)
    with pytest.raises(UserError, match=r'search\.json is damaged \((its|it|Expecting)') as error:
        read_search(tmp_path)
    assert 'object' not in str(error.value)


def test_what_a_journal_says_beside_the_search_never_reaches_a_config(experiment, tmp_path):
    """It is a file that others may write: a name or a value from it would be code in the winner's config."""
    code = '__import__("os").system("touch ran")'
    search = Search(str(experiment), str(tmp_path), {LR: '[0.1,0.2]'})
    study = open_study(search)
    trial = study.ask()
    trial.suggest_categorical(LR, [0.1, 0.2])
    trial.suggest_categorical(f'x = {code} #', [1])
    study.tell(trial, 50.0)
    leave_result(search.trial_folder(0), 50.0)
    (chosen,) = best(search, 1)
    assert values_of(search, chosen) == {LR: chosen.params[LR]}
    other = Search(search.config, search.folder, {LR: '[0.3,0.4]'})
    with pytest.raises(UserError, match=r'journal\.log is damaged: .*lr of trial 0 is 0\.[12], not of \[0\.3,0\.4\]'):
        best(other, 1)
    text = (tmp_path / 'journal.log').read_text()
    (tmp_path / 'journal.log').write_text(text.replace('0.1', json.dumps(f'a\n{code}')).replace('0.2', '"b"'))
    with pytest.raises(UserError) as error:
        best(search, 1)
    assert '\n' not in str(error.value)
