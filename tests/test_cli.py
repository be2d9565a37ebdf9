"""Wrong input gets a sentence and exit status 2, and leaves nothing behind."""

from __future__ import annotations

import json
import pkgutil
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import call, refused

REPO = Path(__file__).parents[1]
SSV2 = 'configs/swin_bapat_ssv2_b128.py'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In an empty folder with the configs at hand."""
    (tmp_path / 'configs').symlink_to(REPO / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_missing_inputs_come_in_one_message(capsys):
    error = refused(capsys, 'train', SSV2)
    for part in (
        SSV2,
        'kinetics400_22k.pth',
        'https://',
        'data/ssv2/trainval.txt',
        'data/ssv2/videos',
        'data/README.md',
    ):
        assert part in error


@pytest.mark.parametrize(
    ('given', 'said'), [('a.pth', 'a checkpoint, and a config comes first'), ('configs', 'configs is a folder')]
)
def test_what_is_no_config_is_called_what_it_is(capsys, given, said):
    Path('a.pth').touch()
    assert said in refused(capsys, 'test', given, SSV2)


def test_a_config_that_does_not_exist_names_the_nearest(capsys):
    assert SSV2 in refused(capsys, 'train', 'configs/swin_bapat_ssv2_b12.py')
    assert SSV2 in refused(capsys, 'count_params', 'configs/swin_bapat_ssv2_b12.py')
    refused(capsys, 'train', 'nowhere/at_all.py')


def test_a_part_of_a_config_is_no_experiment(capsys):
    assert 'not an experiment' in refused(capsys, 'count_params', 'configs/_base_/runtime.py')


def test_a_config_with_a_mistake_in_it(capsys, tmp_path):
    (tmp_path / 'bad.py').write_text('model = dict(\n')
    assert 'bad.py' in refused(capsys, 'count_params', 'bad.py')


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('petl=dict(deltas=dict(patt=dict(type="PAT")))', ['PAT', 'PATT', 'AdaptMLP', 'LoRA']),
        ('petl=dict(deltas=dict(patt=dict(at="mlp")))', ['mlp', 'qkv']),
        ('petl=dict(deltas=dict(patt=dict(slots="vk")))', ['vk', 'q, k, v']),
        ('petl=dict(deltas=dict(patt=dict(d_bottle=0)))', ['d_bottle', 'at least 1']),
        ('petl=dict(deltas=dict(patt=dict(bottle=8)))', ['bottle', 'd_bottle']),
        ('petl=dict(train=["heads"])', ['heads', 'head', 'attn.qkv']),
        ('petl=dict(trains=["head"])', ['trains', 'train']),
        ('petl=None', ['petl must be']),
        ('base=dict(fil="x")', ['model.base']),
    ],
)
def test_a_wrong_setting_is_named_with_the_valid_ones(capsys, tmp_path, text, said):
    (tmp_path / 'child.py').write_text(f"_base_ = '{REPO}/{SSV2}'\nmodel = dict({text})\n")
    error = refused(capsys, 'count_params', 'child.py')
    assert all(s in error for s in said), error


def test_json_counts(capsys):
    assert call('count_params', SSV2, 'configs/demo_fc.py', '--json') == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r['config'] for r in rows] == [SSV2, 'configs/demo_fc.py']
    assert rows[0]['trainable'] == 6_379_438 and rows[0]['total'] == 87_638_984 + 6_379_438
    assert rows[0]['by'] == {'head': 178_350, 'patt': 4_647_424, 'adapter': 1_553_664}


@pytest.mark.parametrize(
    'tool', ['train', 'test', 'count_params', 'demo', 'prepare_data', 'convert_checkpoint', 'sensitivity']
)
def test_help_teaches(tool):
    shown = subprocess.run(
        [sys.executable, REPO / 'tools' / f'{tool}.py', '--help'], capture_output=True, text=True, check=True
    ).stdout
    assert 'examples:' in shown and '--debug' in shown


def test_debug_shows_the_traceback(capsys):
    assert call('count_params', 'configs/none.py', '--debug') == 2
    assert 'Traceback' in capsys.readouterr().err


def test_what_a_file_holds_says_nothing_to_the_terminal(capsys, tmp_path):
    names = ('config', 'seed', 'top5', 'mean_class', 'params', 'total', 'checkpoint', 'epoch', 'samples')
    content = dict.fromkeys((*names, 'options', 'finished', 'machine'), 0)
    (tmp_path / 'result.json').write_text(json.dumps(dict(content, format='vpetl_mm result 1', top1='\x1b[2J\a')))
    assert call('tables', 'table3', '--work-dirs', tmp_path) == 2
    said = capsys.readouterr().err
    assert r'not \x1b[2J\x07, 0, 0.' in said and said.rstrip('\n').isprintable()


@pytest.mark.parametrize('tool', ['train', 'benchmark'])
@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('nonsense', 'KEY=VALUE'),
        ("a.b=dict(type='Mixup', alpha=0.8)", 'key by key, such as a.b.type=NAME'),
        ("a.b={'type': 'Mixup', 'alpha': 0.8}", 'key by key, such as a.b.type=NAME'),
        ('a.b=f(1, 2)', 'KEY.NAME=VALUE'),
        ('custom_hooks=[dict(type="EMAHook",priority=1)]', 'KEY.NAME=VALUE'),
    ],
)
def test_an_option_that_is_no_key_and_value(capsys, tool, option, said):
    with pytest.raises(SystemExit) as stopped:
        call(tool, SSV2, '--cfg-options', option)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    'argv',
    [
        ('train', '--help'),
        ('train', 'configs/swin_bapat_ssv2_b12.py'),
        ('test', SSV2, 'x.pth', '--cfg-options', 'nonsense'),
        ('tables', 'tabel3'),
        ('sensitivity', SSV2, '--control', 'none'),
    ],
    ids=' '.join,
)
def test_help_and_errors_come_before_the_heavy_imports(argv, tmp_path):
    """With a package in the place of ours that does not come to an end."""
    done = subprocess.run(importing_for_ever(tmp_path, *argv), capture_output=True, timeout=600, check=False)
    assert done.returncode == (0 if '--help' in argv else 2)


def test_interrupted_while_libraries_are_imported(tmp_path):
    """One line, although a library turns being interrupted into an error of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child would inherit that it is ignored
    tool = subprocess.Popen(importing_for_ever(tmp_path, 'train', SSV2), stdout=-1, stderr=-1, text=True)
    signal.signal(signal.SIGINT, before)
    assert tool.stdout.readline() == 'importing\n'
    tool.send_signal(signal.SIGINT)
    assert tool.communicate(timeout=600)[1] == 'interrupted\n' and tool.returncode == 130


def importing_for_ever(folder: Path, tool: str, *argv: str) -> list[str]:
    """The command line of a tool whose ``import vpetl_mm`` does not come to an end."""
    slow = "print('importing', flush=1)\ntry: __import__('time').sleep(9999)\nexcept BaseException: raise ImportError"
    (folder / 'vpetl_mm').mkdir()
    (folder / 'vpetl_mm/__init__.py').write_text(slow)
    return ['env', f'PYTHONPATH={folder}:{REPO}', sys.executable, str(REPO / f'tools/{tool}.py'), *argv]


@pytest.mark.parametrize(
    ('tool', 'name', 'module'),
    [
        ('demo', 'METHODS', 'commands.demo.ALL'),
        ('tables', 'PRINTED', 'paper.table_layouts.LAYOUTS'),
        ('tables', 'FIGURES', 'paper.figures.FIGURES'),
        ('tables', 'FORMATS', 'paper.table_format.FORMATS'),
        ('sensitivity', 'STRUCTURED', 'commands.allocate.SHORT'),
        ('sensitivity', 'CONTROLS', 'spt.sensitivity.CONTROLS'),
        ('convert_checkpoint', 'KINDS', 'weights.kinds.KINDS'),
    ],
)
def test_what_an_option_may_be_is_what_the_package_takes(tool, name, module):
    """Listed twice, as the options are read before the package is imported."""
    assert {*runpy.run_path(str(REPO / f'tools/{tool}.py'))[name]} == {*pkgutil.resolve_name(f'vpetl_mm.{module}')}
