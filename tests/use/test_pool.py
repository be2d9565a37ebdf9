"""Results come in order, a dying process costs one job, and none outlives its use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np

from vpetl_mm.preparation.workers import Failed
from vpetl_mm.use.predict.pool import Pool


def work(job):
    """Take longer the earlier the job, and die of some."""
    if isinstance(job, str):
        os.kill(os.getpid(), getattr(signal, job))
    if job is None:
        raise ValueError('no job')
    time.sleep(0.02 * (5 - job % 5))
    return np.full(100_000, job), os.getpid()


def test_results_come_in_order_and_a_dying_process_costs_its_own_job_alone():
    jobs = [0, 1, 'SIGSEGV', 3, None, 5, 'SIGKILL', 7, 8]
    with Pool(work, 2) as pool:
        futures = [pool.submit(job) for job in jobs]
        results = [future.result(60) for future in futures]
        alive = multiprocessing.active_children()
        assert len(alive) == 2
        alive[0].kill()  # while it has nothing to do
        alive[0].join()
        more = [pool.submit(job) for job in (1, 2, 3)]
        assert [future.result(60)[0][0] for future in more] == [1, 2, 3]
        assert pool.submit(4, here=True).result(60)[1] == os.getpid()
    for job, result in zip(jobs, results, strict=True):
        if isinstance(job, int):
            assert result[0].tolist() == [job] * 100_000 and result[1] != os.getpid()
        else:
            assert isinstance(result, Failed)
    assert ['SIGSEGV' in results[2].reason, 'no job' in results[4].reason, 'killed' in results[6].reason] == [
        True
    ] * 3
    assert not multiprocessing.active_children()


def test_leaving_it_ends_what_is_begun_and_what_waits():
    began = time.monotonic()
    with Pool(time.sleep, 2) as pool:
        for _ in range(8):
            pool.submit(600)
        time.sleep(0.2)
    assert time.monotonic() - began < 30 and not multiprocessing.active_children()
