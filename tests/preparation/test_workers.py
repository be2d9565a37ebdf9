"""Jobs that raise, crash or hang are their own problem; nothing outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from vpetl_mm.preparation.workers import Failed, each


def behave(job: str) -> str:
    if job.startswith('raise'):
        raise ValueError('no \udcff stream\nStack trace')
    if job.startswith('crash'):
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.startswith('kill'):
        os.kill(os.getpid(), signal.SIGKILL)
    if job.startswith('exit'):
        os._exit(3)
    if job.startswith('hang'):
        time.sleep(30)
    os.write(2, b'a remark of the decoder\n')
    return job.upper()


@pytest.mark.parametrize('workers', [1, 3])
def test_every_job_has_its_own_result(workers, capfd):
    jobs = ['a', 'crash', 'b', 'hang', 'raise', 'c', 'exit', 'kill', 'd', 'crash2']
    results = dict(each(behave, jobs, workers, seconds=0.5))
    assert {k: v for k, v in results.items() if not isinstance(v, Failed)} == {j: j.upper() for j in 'abcd'}
    assert results['crash'] == results['crash2'] == Failed('crashed the decoder (SIGSEGV)')
    assert results['raise'] == Failed('ValueError: no \\udcff stream Stack trace')
    assert results['exit'] == Failed('crashed the decoder (exit status 3)')
    assert results['hang'] == Failed('took more than 0.5 seconds', lasting=False)
    assert not results['kill'].lasting
    assert capfd.readouterr().err == ''


def test_no_jobs_and_many_jobs():
    assert list(each(behave, [], 4)) == []
    jobs = [f'j{i}' for i in range(500)]
    assert sorted(each(behave, jobs, 3)) == sorted((j, j.upper()) for j in jobs)


def test_jobs_are_taken_as_they_are_needed():
    taken = []

    def jobs():
        for i in range(100):
            taken.append(i)
            yield f'j{i}'

    results = each(behave, jobs(), 2)
    next(results)
    assert len(taken) <= 4
    results.close()
    assert not multiprocessing.active_children()


def _pid(job: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def _alive(pid: int) -> bool:
    try:
        with open(f'/proc/{pid}/stat') as stream:
            return stream.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_the_processes_end_with_a_killed_parent():
    ours, theirs = multiprocessing.Pipe()

    def parent() -> None:
        for _, pid in each(_pid, range(10_000), 2):
            theirs.send(pid)

    process = multiprocessing.get_context('fork').Process(target=parent)
    process.start()
    pids = {ours.recv() for _ in range(6)}
    assert len(pids) == 2
    process.kill()
    process.join()
    for _ in range(100):
        if not any(map(_alive, pids)):
            return
        time.sleep(0.1)
    pytest.fail('a process outlived its parent')
