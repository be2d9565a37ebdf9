"""What a command that a job calls finds in its environment."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

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
