"""Jobs that are carried out side by side, killed, claimed twice, and gone on with."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from vpetl_mm.campaign.attempt import attempt, last_line, read_attempt
from vpetl_mm.campaign.claim import claimed, in_use
from vpetl_mm.campaign.driver import AGAIN, DONE, ELSEWHERE, FAILED, STARTED, drive
from vpetl_mm.campaign.job import Job
from vpetl_mm.campaign.local import LocalEngine
from vpetl_mm.errors import UserError

STEPS = 3


def work(folder: Path, pause: float, kill: int, fail: str) -> None:
    """Three steps, a line of a file each; dies for the first ``kill`` attempts in the second, or fails."""
    attempts = folder / 'attempts'
    attempts.write_text(f'{attempts.read_text() if attempts.is_file() else ""}.')
    steps = folder / 'steps'
    for step in range(len(steps.read_text()) if steps.is_file() else 0, STEPS):
        if step == 1 and len(attempts.read_text()) <= kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if fail:
            print('a line before')
            raise UserError(fail)
        time.sleep(pause)
        with open(steps, 'a') as stream:
            stream.write(str(step))


def done(folder: Path) -> bool:
    return (folder / 'steps').is_file() and len((folder / 'steps').read_text()) == STEPS


def job(root: Path, name: str, pause: float = 0.0, kill: int = 0, fail: str = '') -> Job:
    folder = root / name
    return Job(name, folder, partial(work, folder, pause, kill, fail), partial(done, folder))


def happened(events) -> dict[str, list[str]]:
    """Job -> what happened to it."""
    seen: dict[str, list[str]] = {}
    for event in events:
        seen.setdefault(event.job.name, []).append(event.what + f': {event.reason}' * bool(event.reason))
    return seen


def test_each_job_is_done_once_whatever_befalls_the_others(tmp_path):
    jobs = [
        job(tmp_path, 'plain'),
        job(tmp_path, 'killed twice', kill=2),
        job(tmp_path, 'killed always', kill=9),
        job(tmp_path, 'fails', fail='the loss is nan'),
        job(tmp_path, 'last'),
    ]
    seen = happened(drive(jobs, LocalEngine(2), 0.02))
    assert seen['plain'] == seen['last'] == [STARTED, DONE]
    assert seen['killed twice'] == [STARTED, AGAIN, STARTED, AGAIN, STARTED, DONE]
    assert seen['killed always'][-1] == f'{FAILED}: its process was killed 3 times'
    assert seen['fails'] == [STARTED, f'{FAILED}: the loss is nan']
    assert (tmp_path / 'killed twice/steps').read_text() == '012', 'no step was done twice'
    assert (tmp_path / 'fails/run.log').read_text() == 'a line before\nerror: the loss is nan\n'
    assert [read_attempt(j.folder).state for j in jobs] == ['done', 'done', 'running', 'failed', 'done']


def test_what_another_driver_does_is_waited_for_and_what_it_left_is_gone_on_with(tmp_path):
    """The processes of a driver that is gone are still at its jobs; one of them is killed as well."""
    jobs = [job(tmp_path, f'job{k}', 1.0) for k in range(2)]
    for one in jobs:  # what is left of a driver that was killed
        multiprocessing.get_context('fork').Process(target=attempt, args=(one,)).start()
    while not all(in_use(j.folder) for j in jobs):
        time.sleep(0.02)
    events = drive(jobs, LocalEngine(2), 0.02)
    seen = {}
    for event in events:
        seen.setdefault(event.job.name, []).append(event.what)
        if event.what == ELSEWHERE and event.job.name == 'job1':
            holder = int((tmp_path / 'job1/.claim').read_text().split()[1])
            os.kill(holder, signal.SIGKILL)
    assert seen['job0'] == seen['job1'] == [STARTED, ELSEWHERE, STARTED, DONE]
    assert [(tmp_path / f'job{k}/steps').read_text() for k in range(2)] == ['012', '012']
    assert [(tmp_path / f'job{k}/attempts').read_text() for k in range(2)] == ['.', '..']


def test_stopping_ends_what_runs_and_leaves_it_to_be_gone_on_with(tmp_path, capsys):
    slow = job(tmp_path, 'slow', pause=60)
    events = drive([slow], LocalEngine(1), 0.02)
    assert next(events).what == STARTED
    while not (slow.folder / 'attempts').is_file():
        time.sleep(0.02)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert time.monotonic() - started < 10 and not in_use(slow.folder)
    assert capsys.readouterr().err == 'What was running has been stopped.\n'


def hold(folder: Path) -> None:
    """Claim a folder until killed."""
    with claimed(folder):
        time.sleep(60)


def test_an_attempt_leaves_a_record_and_keeps_out_of_a_claimed_folder(tmp_path):
    one = job(tmp_path, 'one', fail='no\x1b[2J luck')
    (_, event) = drive([one], LocalEngine(1), 0.02)
    assert event.reason == last_line(one.folder) == read_attempt(one.folder).reason == r'no\x1b[2J luck'
    (one.folder / 'attempt.json').write_text('{"state": "done", "reason": 3}')
    assert read_attempt(one.folder) is None
    holder = multiprocessing.get_context('fork').Process(target=hold, args=(one.folder,))
    holder.start()
    while not in_use(one.folder):
        time.sleep(0.01)
    assert attempt(one) == 'busy'
    holder.kill()
    holder.join()
    with claimed(one.folder) as ours:
        assert ours
    assert attempt(job(tmp_path, 'one')) == 'done' == attempt(job(tmp_path, 'one', fail='not asked again'))
