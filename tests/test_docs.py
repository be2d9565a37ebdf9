"""The code in the guides is what there is, and runs; the commands in the pages exist."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import hosts_table
import methods_page
import own_models
import pytest
import torch
from methods_figures import RED

from tools import REPO, shell, tool
from vpetl_mm import build_model
from vpetl_mm.commands.host_models import named_model
from vpetl_mm.petl import DELTAS, LAYOUTS, adapt

PAGES = (REPO / 'README.md', REPO / 'data/README.md', *sorted((REPO / 'docs').glob('*.md')))


def blocks(guide: str) -> list[tuple[str, str]]:
    """The kind and the text of a guide's code blocks."""
    text = (REPO / 'docs' / guide).read_text()
    found = re.findall(r'^( *)```(\w*)\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE)
    return [(kind, re.sub(f'^{indent}', '', block, flags=re.MULTILINE)) for indent, kind, block in found]


def follow(guide: str, folder: Path) -> list[str]:
    """Write the files, make the changes and run the commands of a guide in ``folder``; what the commands print."""
    printed = []
    for kind, block in blocks(guide):
        head, _, body = block.partition('\n')
        path = folder / head.removeprefix('# ')
        if kind == 'python':
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
        elif kind == 'diff':
            path.write_text(changed(path.read_text(), body))
        else:
            printed += [shell(command, folder, PYTHONPATH=str(folder)) for command in block.splitlines()]
    return printed


def changed(text: str, diff: str) -> str:
    """``text`` with a diff applied."""
    for place in diff.split('@@\n'):
        old, new = (''.join(ln[1:] for ln in place.splitlines(True) if ln[0] in f' {sign}') for sign in '-+')
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_the_guide_to_a_method_followed_to_its_end(tmp_path):
    ignored = shutil.ignore_patterns('.*', '__pycache__', 'build', 'dist', 'work_dirs', 'data', '*.egg-info', 'mine')
    copied = shutil.copytree(REPO, tmp_path / 'copy', ignore=ignored)
    counted, tested, linted = follow('adding_a_method.md', copied)
    widths = 2 * 128 + 2 * 256 + 18 * 512 + 2 * 1024
    assert f'head {174 * 1025:,}, inputs {widths:,}' in counted
    assert re.search(r'^\.{40,}', tested) and 'All checks passed' in linted


def test_the_guide_to_a_host_shows_the_tree_and_its_model_builds():
    *shown, model = [block.partition('\n') for kind, block in blocks('adding_a_host.md') if kind == 'python']
    for path, _, code in shown:
        assert code.strip() in (REPO / path.removeprefix('# ')).read_text(), path
    scope: dict = {}
    exec(''.join(model), scope)
    counts = build_model({k: scope[k] for k in ('default_scope', 'model')}, meta=True).plan.count()
    assert counts['by'] == {'head': 102_500, 'patt': 24 * (32 + 0) + 3 * 32 * 12_032 + 2 * 12_032}


def test_the_table_of_hosts_is_what_trying_gives():
    page = hosts_table.PAGE.read_text(encoding='utf-8')
    assert hosts_table.BEGIN in page and hosts_table.written(page) == page, 'run python tests/hosts_table.py'


def test_the_page_of_methods_is_what_the_classes_say():
    assert {cls.__name__ for cls in DELTAS} == {*methods_page.methods(), *methods_page.PARTS}
    assert methods_page.PAGE.read_text(encoding='utf-8') == methods_page.page(), 'run python tests/methods_page.py'
    drawn = {file.name: file.read_text(encoding='utf-8') for file in methods_page.FIGURES.iterdir()}
    assert drawn == methods_page.figures() and all(len(svg) < 15_000 for svg in drawn.values())


def test_a_figure_shows_where_a_method_sits():
    """Against what the papers draw: ST-Adapter in front of the block, Mona behind both branches, SSF everywhere."""
    assert methods_page.marks('STAdapter') == [('block', 'before')]
    assert {*methods_page.marks('Mona')} == {('between', 'output'), ('block', 'output')}
    assert {*methods_page.marks('RepAdapter')} == {('qkv', 'weights'), ('fc1', 'weights')}
    assert methods_page.marks('Prompt') == [('attn', 'keys')] and methods_page.marks('AdaptMLP') == [('mlp', 'input')]
    red = re.findall(rf'<rect[^>]*fill="{RED}"[^>]*/><text[^>]*>([^<]*)</text>', methods_page.figures()['ssf.svg'])
    host = ['norm1', 'qkv', 'proj', 'norm2', 'fc1', 'fc2', 'patch embedding', 'last norm']
    assert sorted(red) == sorted(host)


SMALL = 'depth=2, embed_dim=24, num_heads=2, img_size=32, patch_size=8'


def test_the_python_of_the_guide_to_hosts_runs(tmp_path, monkeypatch):
    """With random weights, small, and a model of the tests as the reader's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('vpetl_mm.petl.layouts.LAYOUTS', LAYOUTS.copy())
    monkeypatch.setitem(sys.modules, 'mymodels', SimpleNamespace(MyViT=own_models.OwnViT))
    scope: dict = {}
    for block in [block for kind, block in blocks('hosts.md') if kind == 'python']:
        torch.manual_seed(0)
        exec(block.replace('pretrained=True', SMALL).replace('224', '32').replace("'0.4M'", "'2k'"), scope)
        scope |= dict(torch=torch)
    assert Path('mine.safetensors').is_file() and scope['plan'].count()['by'].keys() == {'patt', 'prompt', 'head'}
    shown = re.search(r'```python\nimport timm.*?parameters', (REPO / 'README.md').read_text(), re.DOTALL)[0]
    assert shown.replace('  # freezes the rest', '') in (REPO / 'docs/hosts.md').read_text(), 'README shows the same'


BAPAT = dict(patt=dict(type='PATT', d_bottle=64), adapter=dict(type='AdaptMLP'))


def test_the_counts_of_the_guide_to_hosts():
    told = re.findall(r'\(`(\w+)`.*?\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) %', (REPO / 'docs/hosts.md').read_text())
    assert len(told) == 3
    for name, trains, of, share in told:
        count = adapt(named_model(name).model, BAPAT, train=[]).count()
        assert (f'{count["trainable"]:,}', f'{count["total"] - count["trainable"]:,}') == (trains, of)
        assert f'{100 * count["trainable"] / (count["total"] - count["trainable"]):.1f}' == share


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page):
    text = page.read_text().replace('\\\n', '')
    for name, given in re.findall(r'tools/(\w+)\.py([^`#|\n]*)', text):
        known = re.findall(r'--[\w-]+', tool(name).parser.format_help())
        assert {*re.findall(r'(?<!\S)--[\w-]+', given)} <= {*known}, f'tools/{name}.py{given}'
    for config in re.findall(r'configs/(?!mine|_base_)[\w/]+\.py', text):
        assert (REPO / config).is_file(), config
