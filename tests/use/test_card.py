"""What a bundle says about itself: worked out from the config by hand, and harmless to whoever shows it."""

from __future__ import annotations

import hashlib
import html
import re
import shutil
from pathlib import Path

import packed
import pytest
from cases import adapter, both, patt
from markdown_it import MarkdownIt
from packed import content_of, write
from tiny import HOSTS

from tools import call
from vpetl_mm.use.bundle.card import card_of, info_of

DELTAS = both(patt(), adapter()).deltas
SHOWN = """\
experiment  small
file        b.safetensors, {size} MB, 18 tensors
classifies  videos, 3 classes: lifting up, pushing, opening
views       6 of each video, averaged
backbone    mmaction.SwinTransformer3D
tuned       patt (PATT, at qkv, d_bottle 4), adapter (AdaptMLP, at mlp, d_bottle 4), head
parameters  {trained} trained of {total} ({share} %)
base        base_11.pth, https://example.org/base.pth; SHA-256 {sha256}
scores      top-1 61.25, top-5 90.00, mean class 59.50 % on the 1,234 samples of test.txt
trained     3 epochs, seed 1
options     train_cfg.max_epochs=3
license     CC-BY-4.0
"""


@pytest.fixture(scope='module')
def packed_once(tmp_path_factory) -> Path:
    """A folder with a bundle and its base."""
    folder = tmp_path_factory.mktemp('card')
    base = dict(file=str(packed.base_of(HOSTS['swin3d'], folder)), url=packed.URL)
    packed.bundle_of(folder, HOSTS['swin3d'].config(DELTAS, base=base, seed=1))
    return folder


@pytest.fixture
def bundle(packed_once, tmp_path, monkeypatch) -> Path:
    """A bundle and its base in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(packed_once / 'base_11.pth', tmp_path)
    return Path(shutil.copy(packed_once / 'b.safetensors', tmp_path)).relative_to(tmp_path)


def test_info_says_what_is_in_it(bundle, capsys):
    header, tensors = content_of(bundle)
    scores = dict(top1=61.25, top5=90, mean_class=59.5, samples=1234, list='test.txt', checkpoint='a.pth')
    header |= dict(scores=scores, options={'train_cfg.max_epochs': 3}, license='CC-BY-4.0')
    write(bundle, header, tensors)
    # PATT: 16 x 4 + 4 and 4 x 32 + 32; AdaptMLP: 16 x 4 + 4 and 4 x 16 + 16; two blocks; the head 16 x 3 + 3
    trained = 2 * (68 + 160 + 68 + 80) + 51
    # patches 2 x 4 x 4 x 3 x 16 + 16 and their norm, two blocks of norms, qkv, bias table (3 x 7 x 7, 2), proj and
    # MLP, the last norm
    block = 2 * 32 + 3 * (256 + 16) + 3 * 49 * 2 + 272 + 64 * 16 + 64 + 64 * 16 + 16
    frozen = 96 * 16 + 16 + 32 + 2 * block + 32
    sizes = dict(size=f'{bundle.stat().st_size / 1e6:.1f}', trained=trained, total=f'{trained + frozen:,}')
    share = f'{100 * trained / (trained + frozen):.2f}'
    expected = SHOWN.format(**sizes, share=share, sha256=hashlib.sha256(Path('base_11.pth').read_bytes()).hexdigest())
    assert call('adapter', 'info', bundle) == 0
    *lines, made = capsys.readouterr().out.splitlines(keepends=True)
    assert ''.join(lines) == expected and re.match(r'made        2\d{3}-.*vpetl_mm ', made)


def test_info_of_several_and_of_one_without_anything(bundle, capsys):
    header, tensors = content_of(bundle)
    bare = dict(header, classes=None, scores=None, seed=None, epoch=1, base=dict(header['base'], url=None))
    write(Path('bare.safetensors'), bare, tensors)
    assert call('adapter', 'info', bundle, 'bare.safetensors') == 0
    one, other = capsys.readouterr().out.split('\n\n')
    for line in (
        'classifies  videos, 3 classes without names\n',
        'scores      not tested\n',
        'trained     1 epoch, seed unknown\n',
        f'base        base_11.pth; SHA-256 {header["base"]["sha256"]}\n',
        'license     unknown\n',
    ):
        assert line in other and (line not in one or 'license' in line or 'not tested' in line)
    card = card_of('bare.safetensors')
    assert 'It was not tested.' in card and 'Their names are not recorded.' in card and 'None' not in card


def test_a_whole_model_needs_no_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = packed.bundle_of(Path(), HOSTS['vit'].config(train=['all'], seed=1))
    assert 'tools/predict.py b.safetensors images/\n' in card_of(file) and 'needs no other file' in card_of(file)
    assert 'base        none (random backbone)' in info_of(file)


# Strangers' text

HOSTILE = [
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '[click](https://example.org)',
    '![](https://example.org/a.png)',
    '<https://example.org>',
    'https://example.org/?a=b&c',
    'www.example.org',
    '[a]: https://example.org',
    '**b** _c_ ~~d~~ `e` $f$',
    'a|b|c',
    '&lt;b&gt;',
    '# title',
    '> quoted',
    '- item',
    '+ item',
    '12. item',
    '1) item',
    '***',
    '---',
    '- [ ] x',
    '<!--',
    'x\\',
    '@user',
]


def test_class_names_and_addresses_are_shown_as_they_are(bundle):
    header, tensors = content_of(bundle)
    header['classes'] = HOSTILE
    header['model']['cls_head']['num_classes'] = len(HOSTILE)
    header |= dict(name='<b>x', license='[MIT](x)|<i>')
    header['base']['url'] = 'javascript:alert(1)|<script>'
    file = write(Path('a`b <i>.safetensors'), header, tensors)
    page = MarkdownIt('commonmark').enable('table').render(card_of(file))
    tags = {tag.rstrip('>').split()[0] for tag in re.findall(r'</?\w[^>]*>', page)}
    plain = {'h1', 'h2', 'p', 'pre', 'code', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'ul', 'li'}
    assert {tag.strip('</') for tag in tags} == plain and '<!--' not in page
    items = page[page.index('<h2>Classes') :]
    assert [html.unescape(name) for name in re.findall(r'<li>(.*)</li>', items)] == HOSTILE
    rows = dict(re.findall(r'<tr>\n<td>(.*)</td>\n<td>(.*)</td>', page))
    assert html.unescape(rows['license']) == '[MIT](x)|<i>' and 'javascript:alert(1)|<script>' in html.unescape(page)
    assert not re.search(r'(?<!\\)(https?:|www\.)', card_of(file)), 'a bare address becomes a link'


def test_a_terminal_gets_no_control_characters(bundle, capsys):
    header, tensors = content_of(bundle)
    escape = '\x1b]0;owned\x07\x9b31m\u202e\r\n'
    header |= dict(options={'a': escape, 'b': {'c': [escape]}})
    header['deltas']['patt']['type'] = escape
    file = write(Path(f'{escape[:-2]}.safetensors'), header, tensors)
    for command in ('info', 'card', 'verify'):
        call('adapter', command, file)
        printed = capsys.readouterr()
        assert all(c.isprintable() or c == '\n' for c in printed.out + printed.err), command
        assert command == 'verify' or 'owned' in printed.out


@pytest.mark.parametrize('part', ['name', 'license', 'classes', 'versions', 'url', 'list', 'created'])
def test_text_of_the_header_is_one_line(bundle, capsys, part):
    header, tensors = content_of(bundle)
    text = 'a\x1b[2Jb'
    header['scores'] = dict(top1=1, top5=2, mean_class=1, samples=1, list='a', checkpoint='b')
    where = {'url': header['base'], 'list': header['scores']}.get(part, header)
    where[part] = {'classes': [text, 'b', 'c'], 'versions': {text: '1'}}.get(part, text)
    file = write(Path('b.safetensors'), header, tensors)
    assert call('adapter', 'info', file) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: b.safetensors cannot be used: its ') and error[:-1].isprintable()
