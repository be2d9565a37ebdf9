"""Lets the tests of every folder import the helpers that lie here (``golden``, ``tiny``)."""

import os
from pathlib import Path

os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')  # what is expected is what the CPU computes

import pytest
import submitit  # noqa: F401, when it is first imported it closes every log file of the process
import torch

torch.set_num_threads(1)  # what the tests run is too small to share
# autograd starts before a library adds a device to it, after which it would not run in forked ranks
torch.ones(1, requires_grad=True).backward()


# files of few and long tests, which would leave one core idle if they came last
LONG = ('test_using', 'test_own_data', 'test_configs', 'test_docs', 'test_kills', 'test_launch', 'test_demo')
LONG += ('test_transformers_4', 'test_transformers_hosts', 'test_slurm')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long files first."""
    items.sort(key=lambda item: Path(item.path).stem not in LONG)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with configs/ at hand, which becomes the current one."""
    (tmp_path / 'configs').symlink_to(Path(__file__).parents[1] / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path
