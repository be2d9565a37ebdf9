"""tools/sensitivity.py as a person calls it; wrong input gets a sentence and leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_vtab import call, write_config

import tools
from vpetl_mm.spt.allocation import read_allocation


def refused(capsys, *argv: object) -> str:
    """Run the tool, which must fail in one sentence without writing anything; return the error."""
    error = tools.refused(capsys, 'sensitivity', *argv)
    assert error.strip().replace('\n  - ', ' ').count('\n') == 0, error
    return error


@pytest.fixture
def one_thread(monkeypatch):
    """Sums are rounded as the threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures('one_thread')
def test_a_process_of_its_own_finds_the_same_file(config):
    argv = [
        sys.executable,
        tools.REPO / 'tools/sensitivity.py',
        config,
        '--budget',
        '0.5k',
        '--batches',
        '3',
        '--batch-size',
        '8',
    ]
    ran = subprocess.run([*argv, '--plot', 'figure.png'], capture_output=True, text=True, check=True)
    assert 'SPT-LoRA of rank 2' in ran.stdout and 'spt.safetensors' in ran.stdout and 'figure.png' in ran.stdout
    assert '3 batches, 24 training samples' in ran.stdout
    assert Path('figure.png').read_bytes()[:4] == b'\x89PNG'
    theirs = Path('spt.safetensors').read_bytes()
    torch.manual_seed(99)  # to which it must be nothing
    assert call(config, '--budget', '500', '--batches', '3', '--batch-size', '8', '--force') == 0
    assert Path('spt.safetensors').read_bytes() == theirs


def test_options_say_what_the_config_leaves_open(config):
    argv = ['--budget', '400', '--structured', 'adapter', '--rank', '3', '--alpha', '2', '--beta', '1.5']
    assert call(config, *argv, '--out', 'new/other.safetensors', '--control', 'random') == 0
    found = read_allocation('new/other.safetensors')
    assert (found.structured, found.rank, found.control, found.budget) == ('AdaptMLP', 3, 'random', 400)
    assert (found.made['alpha'], found.made['beta'], found.made['rule']) == (2.0, 1.5, 'within')
    assert not Path('spt.safetensors').exists()


def test_the_config_says_what_is_not_given(config):
    text = config.read_text().replace('rank=2, budget=None', "rank=3, budget=350, structured='AdaptMLP'")
    config.write_text(text)
    assert call(config) == 0
    found = read_allocation('spt.safetensors')
    assert (found.structured, found.rank, found.budget) == ('AdaptMLP', 3, 350)


def test_progress_is_silent_where_there_is_no_terminal(config, capsys):
    assert call(config, '--budget', '400') == 0
    assert 'measuring' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        ([], ['--budget 0.4M']),
        (['--budget', 'much'], ['0.4M', "'much'"]),
        (['--budget', '0'], ['less than one parameter']),
        (['--budget', '1M'], ['1,000,000', 'larger than the 6,592 parameters']),
        (['--budget', '1', '--alpha', '1000', '--beta', '1000'], ['too small', 'smallest is']),
        (['--budget', '500', '--rule', 'closest'], ['--rule within', '20,000']),
        (['--budget', '500', '--batches', '0'], ['--batches', 'at least 1']),
        (['--budget', '500', '--batch-size', '-3'], ['--batch-size', 'at least 1']),
        (['--budget', '500', '--rank', '0'], ['rank', 'at least 1']),
        (['--budget', '500', '--alpha', '0.5'], ['alpha']),
        (['--budget', '500', '--beta', 'nan'], ['beta']),
        (['--budget', '500', '--out', 'spt.pth'], ['--out', '.safetensors', 'spt.pth']),
        (['--budget', '500', '--out', 'small.py/spt.safetensors'], ['small.py']),
        (['--budget', '500', '--plot', 'figure.txt'], ['--plot', '.png']),
        (['--budget', '500', '--plot', 'small.py/figure.png'], ['--plot', 'cannot be written']),
        (['--budget', '100', '1M'], ['1,000,000', 'larger than the 6,592 parameters']),
        (['--cfg-options', 'model.petl.spt.budget=[]'], ['petl.spt.budget']),
        (['--budget', '500', '--cfg-options', 'modle.x=1'], ['modle']),
        (['--budget', '500', '--cfg-options', 'model.base.file=gone.pth'], ['gone.pth']),
        (['--budget', '500', '--cfg-options', 'train_dataloader.dataset.data_root=/gone'], ['/gone']),
        (['--budget', '500', '--cfg-options', 'model.petl.spt.ranks=8'], ["'ranks'", 'rank']),
        (['--budget', '500', '--cfg-options', 'model.petl.spt=x'], ['petl.spt must be']),
        (['--budget', '500', '--cfg-options', 'model.petl=None'], ['petl must be']),
        (['--budget', '500', '--cfg-options', 'model.backbone.depth=9'], ['depth']),
        (['--budget', '100', '200', '--cfg-options', 'holdout=None'], ['needs holdout']),
        (['--budget', '500', '--batch-size', '1', '--cfg-options', 'model.head.bn=True'], ['BatchNorm']),
        (['--budget', '500', '--batch-size', '31', '--cfg-options', 'model.head.bn=True'], ['BatchNorm']),
    ],
    ids=lambda value: ' '.join(value)[:70],
)
def test_wrong_input(config, capsys, argv, said):
    error = refused(capsys, config, *argv)
    assert all(word in error for word in said), error


def test_the_smallest_budget_in_the_error_fits(config, capsys):
    argv = ['--alpha', '1000', '--beta', '1000']
    error = refused(capsys, config, '--budget', '1', *argv)
    smallest = error.rpartition('the smallest is ')[2].strip().rstrip('.')
    assert call(config, '--budget', smallest, *argv) == 0


def test_a_file_that_exists_is_replaced_only_on_demand(config, capsys):
    assert call(config, '--budget', '500') == 0
    first = Path('spt.safetensors').read_bytes()
    assert '--force' in refused(capsys, config, '--budget', '300')
    assert call(config, '--budget', '300', '--force') == 0
    assert Path('spt.safetensors').read_bytes() != first


def test_a_file_that_the_config_would_refuse_goes_elsewhere(config, capsys):
    argv = ['--budget', '300', '--cfg-options', 'model.petl.spt.budget=500']
    for out in ('spt.safetensors', Path('spt.safetensors').absolute()):
        assert 'petl.spt.budget' in refused(capsys, config, *argv, '--out', out)
    assert call(config, *argv, '--out', 'other.safetensors') == 0


def test_several_budgets_of_a_plain_experiment(task, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = write_config(task, tmp_path / 'fc.py', 'fc', base=base)
    assert 'needs petl.spt' in refused(capsys, config, '--budget', '100', '200')


def test_no_training_data(config, task, tmp_path, capsys):
    for name in ('train800', 'val200', 'test'):
        (tmp_path / f'{name}.txt').touch()
    where = f'train_dataloader.dataset.data_root={tmp_path}'
    assert 'train800.txt is empty' in refused(capsys, config, '--budget', '500', '--cfg-options', where)


def test_an_image_that_cannot_be_read(config, task, tmp_path, capsys):
    shutil.copytree(task, tmp_path / 'copy')
    (tmp_path / 'copy/images/train800/7.png').write_bytes(b'no image')
    where = f'train_dataloader.dataset.data_root={tmp_path / "copy"}'
    assert 'train800/7.png cannot be decoded' in refused(capsys, config, '--budget', '500', '--cfg-options', where)


def test_gradients_that_are_not_finite_name_the_parameter(config, base, tmp_path, capsys):
    """Weights that are finite, and whose product is not."""
    state = torch.load(base, weights_only=True)
    state['layers.1.ffn.layers.1.weight'] *= 1e38
    state['ln1.weight'] *= 1e38
    torch.save(state, tmp_path / 'large.pth')
    error = refused(capsys, config, '--budget', '500', '--cfg-options', f'model.base.file={tmp_path / "large.pth"}')
    assert 'gradient of backbone.' in error and 'not finite' in error and 'batch 1' in error


def test_weights_of_another_backbone(config, tmp_path, capsys):
    torch.save({'x': torch.zeros(3)}, tmp_path / 'other.pth')
    error = refused(capsys, config, '--budget', '500', '--cfg-options', f'model.base.file={tmp_path / "other.pth"}')
    assert 'other.pth' in error


@pytest.mark.parametrize(
    'argv', [['--structured', 'prompt'], ['--rule', 'nearest'], ['--control', 'x'], ['--batches', 'x']]
)
def test_values_that_argparse_knows(config, argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        call(config, '--budget', '500', *argv)
    assert exit_.value.code == 2 and argv[0] in capsys.readouterr().err
