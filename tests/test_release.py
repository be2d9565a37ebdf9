"""A release: the source archive, the wheel built from it, and the command that it installs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import vpetl_mm
from vpetl_cli import shipped

REPO = Path(__file__).parents[1]
NOT_SOURCE = ('.*', '__pycache__', 'build', 'dist', 'work_dirs', 'data', '*.egg-info')


def build(folder: Path, what: str) -> Path:
    """The archive that setuptools makes of ``folder``, as pip and build ask for it."""
    code = f'import sys; from setuptools import build_meta as b; b.{what}("out")'
    subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, check=True)
    (archive,) = (folder / 'out').iterdir()
    return archive


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """A folder with the content of the wheel, built from the source archive."""
    folder = tmp_path_factory.mktemp('release')
    shutil.copytree(REPO, folder / 'tree', ignore=shutil.ignore_patterns(*NOT_SOURCE))
    (folder / 'tree/configs/mine').mkdir(exist_ok=True)
    (folder / 'tree/configs/mine/secret.py').write_text('')
    with tarfile.open(build(folder / 'tree', 'build_sdist')) as source:
        source.extractall(folder, filter='data')
    with zipfile.ZipFile(build(folder / f'vpetl_mm-{vpetl_mm.__version__}', 'build_wheel')) as wheel:
        wheel.extractall(folder / 'site')
    return folder / 'site'


def vpetl(installed: Path, folder: Path, *argv: str) -> tuple[int, str]:
    """Status and output of the command in an empty folder, out of reach of this repository."""
    env = dict(os.environ, PYTHONPATH=str(installed))
    done = subprocess.run(
        [sys.executable, '-m', 'vpetl_cli', *argv], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_wheel_carries_packages_configs_and_tools_and_nothing_of_its_makers(installed):
    folders = {installed: ('vpetl_mm', 'vpetl_cli'), installed / 'vpetl_mm/.mim': ('configs', 'tools')}
    for root, names in folders.items():
        theirs, ours = (
            {str(p.relative_to(r)) for n in names for p in (r / n).rglob('*.*') if '__pycache__' not in p.parts}
            for r in (root, REPO)
        )
        assert {p for p in theirs if '/.mim' not in p} == {p for p in ours if '/mine' not in p}
    assert not (REPO / 'vpetl_mm/.mim').exists()
    (info,) = installed.glob('*.dist-info')
    assert 'Apache License' in (info / 'licenses/LICENSE').read_text()
    assert 'vpetl = vpetl_cli.main:main' in (info / 'entry_points.txt').read_text()


def test_the_command_finds_configs_by_name_and_prints_its_own_name(installed, tmp_path):
    status, shown = vpetl(installed, tmp_path, '--help')
    assert status == 0 and all(p.stem in shown for p in (REPO / 'tools').iterdir() if p.suffix in ('.py', '.sh'))
    for argv, expected, part in (
        (['trian'], 2, "Did you mean 'train'?\n"),
        (['train', 'swin_bapat_ssv2_b12'], 2, 'swin_bapat_ssv2_b128'),
        (['tables', '--docs'], 2, 'in a clone'),
        (['test', '--help'], 0, 'usage: vpetl test '),
        (['dist_train', '--help'], 0, ' vpetl dist_train '),
        (['slurm_train', '--help'], 0, ' vpetl slurm_train '),
        (['slurm_test', '--help'], 0, ' vpetl slurm_test '),
    ):
        status, shown = vpetl(installed, tmp_path, *argv)
        assert status == expected and part in shown and 'tools/' not in shown, argv
    status, shown = vpetl(
        installed, tmp_path, 'count_params', 'demo_fc', 'configs/swin_fc_ssv2.py', 'vit_fc_vtabdtd_mae', '--json'
    )
    assert status == 0 and [row['trainable'] for row in json.loads(shown[shown.index('[') :])] == [
        520,
        178_350,
        47 * 769,
    ]
    assert not [*tmp_path.iterdir()]


def test_messages_name_the_commands_of_a_wheel(monkeypatch):
    assert shipped.spoken('run "make demo"; tools/test.py') == 'run "make demo"; tools/test.py'
    monkeypatch.setattr(shipped, 'INSTALLED', True)
    assert shipped.spoken('run "make demo"; tools/test.py') == 'run "vpetl demo"; vpetl test'


def test_what_is_cited_is_what_readme_links():
    cited = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert cited['version'] == vpetl_mm.__version__ and cited['license'] == 'Apache-2.0'
    linked = {*re.findall(r'https://arxiv\.org/abs/[\d.]+', (REPO / 'README.md').read_text())}
    assert {p['url'] for p in cited['references']} == linked and len(linked) == 3


@pytest.mark.parametrize('version', ['3.11', '3.12', '3.13'])
def test_every_place_names_the_supported_versions(version):
    lock = (REPO / 'requirements/lock.txt').read_text().splitlines()[0]
    for text in (lock, (REPO / 'README.md').read_text(), (REPO / 'Makefile').read_text()):
        assert version in text


def test_the_documents_name_nothing_outside_of_the_repository():
    """Links lead to files here, and no page has a path of the machine it was written on."""
    for page in (*REPO.glob('*.md'), *REPO.glob('docs/*.md'), *REPO.glob('*/README.md')):
        text = page.read_text(encoding='utf-8')
        assert not re.search(r'\.\./shared|(?<![\w.~])/(?:work|root|home|tmp)/', text), page
        for target in re.findall(r'\]\(([^)#:\s]+)(?:#[^)]*)?\)', text):
            assert (page.parent / target).resolve().exists(), f'{page}: {target}'
            assert (page.parent / target).resolve().is_relative_to(REPO), f'{page}: {target}'
