"""The tests of the models of transformers 5 again beside transformers 4, which ``make test`` installs by its side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECOND = Path(sys.prefix, 'transformers-4')
RUN = """\
import sys, vpetl_mm, pytest, transformers
from mmengine.registry import MODELS

assert transformers.__version__.startswith('4.57.'), transformers.__file__
for scope in ('mmaction', 'mmpretrain'):
    assert MODELS.get(f'{scope}.VisionTransformer'), scope
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not SECOND.exists(), reason='make test installs transformers 4')
def test_all_of_it_beside_transformers_4():
    environ = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(SECOND), str(HERE.parents[1])])}
    files = [str(HERE / f'test_transformers_{name}.py') for name in ('hosts', 'references', 'layouts', 'training')]
    command = [sys.executable, '-c', RUN, '-p', 'no:cacheprovider', *files]
    done = subprocess.run(command, env=environ, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
