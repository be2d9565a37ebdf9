"""Wrong input ends in a sentence and exit status 2, and writes nothing."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tools
from tools import call, refused

REPO = Path(__file__).parents[1]
SSV2 = 'configs/swin_bapat_ssv2_b128.py'


pytestmark = pytest.mark.usefixtures('elsewhere')


def test_all_missing_inputs_come_in_one_message(capsys):
    error = refused(capsys, 'train', SSV2)
    data = ('data/ssv2/trainval.txt', 'data/ssv2/videos', 'data/README.md')
    assert all(part in error for part in (SSV2, 'kinetics400_22k.pth', 'https://', *data)), error


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['test', 'a.pth', SSV2], 'a checkpoint, and a config comes first'),
        (['test', 'configs', SSV2], 'configs is a folder'),
        (['train', 'configs/swin_bapat_ssv2_b12.py'], SSV2),
        (['count_params', 'configs/swin_bapat_ssv2_b12.py'], SSV2),
        (['train', 'nowhere/at_all.py'], 'does not exist'),
        (['count_params', 'configs/_base_/runtime.py'], 'not an experiment'),
        (['count_params', 'bad.py'], 'bad.py'),
    ],
)
def test_what_is_not_an_experiment_is_refused(capsys, argv, said):
    Path('a.pth').touch()
    Path('bad.py').write_text('model = dict(\n')
    assert said in refused(capsys, *argv)


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
def test_a_wrong_setting_is_named_with_the_valid_ones(capsys, text, said):
    Path('child.py').write_text(f"_base_ = '{REPO}/{SSV2}'\nmodel = dict({text})\n")
    error = refused(capsys, 'count_params', 'child.py')
    assert all(s in error for s in said), error


def test_debug_shows_the_traceback(capsys):
    assert call('count_params', 'configs/none.py', '--debug') == 2
    assert 'Traceback' in capsys.readouterr().err


def test_json_counts(capsys):
    assert call('count_params', SSV2, 'configs/demo_fc.py', '--json') == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r['config'] for r in rows] == [SSV2, 'configs/demo_fc.py']
    assert rows[0]['trainable'] == 6_379_438 and rows[0]['total'] == 87_638_984 + 6_379_438
    assert rows[0]['by'] == {'head': 178_350, 'patt': 4_647_424, 'adapter': 1_553_664}


def test_a_file_cannot_write_control_characters_to_the_terminal(capsys):
    names = ('config', 'seed', 'top5', 'mean_class', 'params', 'total', 'checkpoint', 'epoch', 'samples')
    content = dict.fromkeys((*names, 'options', 'finished', 'machine'), 0)
    Path('result.json').write_text(json.dumps(dict(content, format='vpetl_mm result 1', top1='\x1b[2J\a')))
    said = refused(capsys, 'tables', 'table3', '--work-dirs', '.')
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
def test_an_option_that_is_not_a_key_and_a_value(capsys, tool, option, said):
    with pytest.raises(SystemExit) as stopped:
        call(tool, SSV2, '--cfg-options', option)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('tool', sorted(p.name for p in (REPO / 'tools').glob('*.*')))
def test_help_teaches_before_the_heavy_imports(tool, tmp_path):
    status, shown = without_packages(tmp_path, tool, '--help')
    assert status == 0 and 'usage: ' in shown and 'example' in shown


@pytest.mark.parametrize(
    'argv',
    [
        ('train.py', 'configs/swin_bapat_ssv2_b12.py'),
        ('test.py', SSV2, 'x.pth', '--cfg-options', 'nonsense'),
        ('tables.py', 'tabel3'),
        ('tune.py', SSV2, '--search', 'lr'),
        ('sensitivity.py', SSV2, '--control', 'none'),
    ],
    ids=' '.join,
)
def test_errors_come_before_the_heavy_imports(argv, tmp_path):
    assert without_packages(tmp_path, *argv)[0] == 2


def without_packages(folder: Path, *argv: str) -> tuple[int, str]:
    """Status and output of a tool that would never end if it imported a package."""
    done = subprocess.run(importing_forever(folder, *argv), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


def test_interrupted_while_libraries_are_imported(tmp_path):
    """One line, although a library turns the interruption into an error of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child would inherit that it is ignored
    tool = subprocess.Popen(importing_forever(tmp_path, 'train.py', SSV2), stdout=-1, stderr=-1, text=True)
    signal.signal(signal.SIGINT, before)
    assert tool.stdout.readline() == 'importing\n'
    tool.send_signal(signal.SIGINT)
    assert tool.communicate(timeout=600)[1] == 'interrupted\n' and tool.returncode == 130


def importing_forever(folder: Path, tool: str, *argv: str) -> list[str]:
    """The command line of a tool for which importing this package, torch or mmengine never ends."""
    slow = "print('importing', flush=1)\ntry: __import__('time').sleep(9999)\nexcept BaseException: raise ImportError"
    for name in ('vpetl_mm', 'torch', 'mmengine'):
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(slow)
    start = [sys.executable] if tool.endswith('.py') else ['bash']
    return ['env', f'PYTHONPATH={folder}:{REPO}', *start, str(REPO / 'tools' / tool), *argv]


@pytest.mark.parametrize(
    ('tool', 'name', 'module'),
    [
        ('demo', 'DEMOS', 'commands.demo.KNOWN'),
        ('tables', 'PRINTED', 'paper.table_layouts.LAYOUTS'),
        ('tables', 'FORMATS', 'paper.table_format.FORMATS'),
        ('tune', 'SAMPLERS', 'search.settings.SAMPLERS'),
        ('sensitivity', 'STRUCTURED', 'spt.choice.STRUCTURED'),
        ('sensitivity', 'CONTROLS', 'spt.sensitivity.CONTROLS'),
        ('convert_checkpoint', 'KINDS', 'weights.kinds.KINDS'),
    ],
)
def test_the_choices_of_an_option_are_those_of_the_package(tool, name, module):
    """Both list them, as options are parsed before the package is imported."""
    choices = getattr(tools.tool(tool), name)
    choices = choices.values() if isinstance(choices, dict) else choices
    assert {*choices} == {*pkgutil.resolve_name(f'vpetl_mm.{module}')}


def test_every_tool_is_started_by_its_path():
    """As README and docs do."""
    started = [p for p in (REPO / 'tools').iterdir() if p.is_file() and p.read_bytes().startswith(b'#!')]
    assert len(started) > 10 and [p.name for p in started if not os.access(p, os.X_OK)] == []
