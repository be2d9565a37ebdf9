"""What a command that a job calls finds in its environment."""

from __future__ import annotations

import multiprocessing
import shlex
import sys
import time
from pathlib import Path

import pytest

from vpetl_mm.campaign.tool import call


def test_runs_that_share_a_machine_meet_at_ports_of_their_own(tmp_path, monkeypatch):
    """dist_train.sh reads PORT, and torchrun PET_MASTER_PORT; python is the one that runs."""
    for name in ('PORT', 'PET_MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    for run in ('one', 'two'):
        printed = f'echo $PORT $PET_MASTER_PORT $(command -v python) > {shlex.quote(str(tmp_path / run))}; exit 3'
        assert call(['bash', '-c', printed]) == 3
    one, two = ((tmp_path / run).read_text().split() for run in ('one', 'two'))
    assert one[0] == one[1] and two[0] == two[1] and one[0] != two[0]
    assert Path(one[2]).resolve() == Path(sys.executable).resolve()


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends a process with its parent')
def test_what_a_job_calls_ends_with_it(tmp_path):
    """A job that is killed alone leaves nothing behind that would still write into its folder."""
    file = tmp_path / 'process'
    command = ['bash', '-c', f'echo $$ > {shlex.quote(str(file))}; exec sleep 60']
    job = multiprocessing.get_context('fork').Process(target=call, args=(command,))
    job.start()
    while not (file.is_file() and file.read_text().endswith('\n')):
        time.sleep(0.01)
    called = Path('/proc', file.read_text().strip())
    assert (called / 'cmdline').read_bytes().startswith(b'sleep')
    job.kill()
    job.join()
    for _ in range(500):
        if not called.is_dir() or 'Z' in (called / 'stat').read_text().split()[2]:
            return
        time.sleep(0.01)
    raise AssertionError('it still runs')
