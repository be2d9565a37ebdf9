"""Adapting, training, counting, saving and merging in an environment that has torch and what torch needs alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PROGRAM = """\
import sys

import torch
import fused

from vpetl_mm import UserError
from vpetl_mm.petl import LAYOUTS, adapt
from vpetl_mm.petl.merging import merge_hosts

LAYOUTS['fused.Fused'] = fused.LAYOUT  # by <package>.<class>, for all that inherit from it


def ready(**deltas):
    torch.manual_seed(0)
    model = fused.Fused(d=8, hidden=16, depth=2, classes=3)
    return model, adapt(model, deltas)


bapat = dict(patt=dict(type='PATT', d_bottle=4), adapter=dict(type='AdaptMLP', d_bottle=4))
model, plan = ready(**bapat, lora=dict(type='LoRA', at='proj', rank=2), prefix=dict(type='Prefix', num_tokens=2))
x, classes = torch.randn(6, 5, 8), torch.arange(6) % 3
patt, adapter = 3 * 8 * 4 + 4 + 2 * 8, 2 * 8 * 4 + 4 + 8
by = dict(head=8 * 3 + 3, patt=2 * patt, adapter=2 * adapter, lora=2 * 2 * (8 + 8))
by['prefix'] = 2 * (2 * 8 + 3 * 8 * 128 + 128 + 2 * 8)
assert plan.count()['by'] == by and plan.count()['trainable'] == sum(by.values()), plan.count()

frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
optimizer = torch.optim.AdamW(plan.parameters(), lr=0.01)
losses = []
for _ in range(30):
    loss = torch.nn.functional.cross_entropy(model(x), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.5 * losses[0], losses
assert frozen and all(torch.equal(model.state_dict()[n], p) for n, p in frozen.items())

torch.save(plan.state_dict(), sys.argv[1])
twin, other = ready(**bapat, lora=dict(type='LoRA', at='proj', rank=2), prefix=dict(type='Prefix', num_tokens=2))
other.load_state_dict(torch.load(sys.argv[1], weights_only=True))
assert torch.equal(twin(x), model(x))
try:
    ready(**bapat)[1].load_state_dict(plan.state_dict())
except UserError as error:
    assert 'that do not train here' in str(error)
else:
    raise AssertionError

model, plan = ready(lora=dict(type='LoRA', slots='qkv'))
for parameter in plan.parameters():
    torch.nn.init.normal_(parameter, std=0.1)
expected = model(x)
merge_hosts(model)
torch.testing.assert_close(model(x), expected)
print('done')
"""


def needed(name: str, seen: dict[str, Distribution] | None = None) -> dict[str, Distribution]:
    """A distribution and all that it needs, as its own metadata says."""
    seen = {} if seen is None else seen
    if name not in seen:
        try:
            seen[name] = distribution(name)
        except PackageNotFoundError:  # for another platform
            return seen
        for line in seen[name].requires or ():
            if 'extra ==' not in line:
                needed(re.match(r'[\w.-]+', line).group(), seen)
    return seen


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder of packages that has torch's and this one's alone."""
    folder = tmp_path / 'packages'
    folder.mkdir()
    for found in needed('torch').values():
        for top in {file.parts[0] for file in found.files} - {'..', '__pycache__'}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    for own in (REPO / 'vpetl_mm', REPO / 'vpetl_cli', REPO / 'tests/fused.py'):
        (folder / own.name).symlink_to(own)
    return folder


def test_needs_torch_alone(environment, tmp_path):
    environ = {**os.environ, 'PYTHONPATH': str(environment)}
    command = [sys.executable, '-S', '-c', PROGRAM, str(tmp_path / 'state.pth')]  # -S: without site-packages
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == 'done\n', done.stderr[-2000:]
    absent = ('mmengine', 'mmcv', 'mmaction', 'mmpretrain', 'timm', 'transformers', 'torchvision', 'numpy')
    assert not [name for name in absent if (environment / name).exists()]
