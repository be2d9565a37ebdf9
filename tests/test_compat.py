"""What is mended in the host libraries, and that it changes nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mmengine import Config
from yapf.yapflib.yapf_api import FormatCode

from vpetl_mm import compat

REPO = Path(__file__).parents[1]


def test_a_config_is_formatted_as_before_and_once(monkeypatch):
    from mmengine.config import config

    calls = []

    def counted(text, **options):
        calls.append(text)
        return FormatCode(text, **options)

    monkeypatch.setattr(config, 'FormatCode', FormatCode)
    one, other = Config(dict(a=1, b=dict(c=[1, 2, 3]))), Config(dict(a=2))
    expected = [one.pretty_text, other.pretty_text]
    monkeypatch.setattr(config, 'FormatCode', counted)
    compat.format_configs_once()
    assert [one.pretty_text, one.pretty_text, one.dump(), other.pretty_text] == [expected[0]] * 3 + expected[1:]
    assert len(calls) == 2


def test_packages_beside_it_do_not_break_the_import(tmp_path):
    """transformers and pycocotools by their names alone, where the hosts' multimodal models find nothing in them."""
    for name in ('transformers', 'pycocotools'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').touch()
        info = tmp_path / f'{name}-99.0.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n')
    code = (
        'import vpetl_mm, transformers\nfrom mmengine.registry import MODELS\n'
        "for scope in ('mmaction', 'mmpretrain'):\n    assert MODELS.get(f'{scope}.VisionTransformer'), scope\n"
    )
    path = os.pathsep.join([str(tmp_path), str(REPO), os.environ.get('PYTHONPATH', '')])
    environ = {**os.environ, 'PYTHONPATH': path}
    done = subprocess.run([sys.executable, '-c', code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
