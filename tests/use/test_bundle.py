"""Files of strangers: what is no bundle is called what it is, and no part of a header is believed unchecked."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import packed
import pytest
import torch
from cases import adapter, both, patt
from packed import KEY, content_of, write
from safetensors.torch import save_file
from tiny import HOSTS

from tools import call, refused

DELTAS = both(patt(), adapter()).deltas


@pytest.fixture(scope='module')
def once(tmp_path_factory) -> Path:
    """A bundle with everything that a header may have."""
    folder = tmp_path_factory.mktemp('bundle')
    base = dict(file=str(packed.base_of(HOSTS['vit'], folder)), url=packed.URL)
    file = packed.bundle_of(folder, HOSTS['vit'].config(DELTAS, base=base, seed=1))
    header, tensors = content_of(file)
    scores = dict(top1=61.25, top5=90, mean_class=59.5, samples=1234, list='test.txt', checkpoint='a.pth')
    return write(file, dict(header, scores=scores, options={'a': 1}), tensors)


@pytest.fixture
def header(once, tmp_path, monkeypatch) -> dict[str, Any]:
    """The header of a bundle, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return content_of(once)[0]


def said_of(capsys, file: str | Path) -> str:
    """What each command says of a file that it refuses: the same, in one line, with nothing written."""
    said = {refused(capsys, 'adapter', command, file) for command in ('info', 'card', 'verify')}
    assert len(said) == 1
    (line,) = said
    assert line.count('\n') == 1 and len(line) < 700 and line[:-1].isprintable()
    return line


# Files


def shebang(folder: Path) -> bytes:
    return b'#!/bin/sh\ntouch made\n'


def pickled(folder: Path) -> bytes:
    class Harm:
        def __reduce__(self):
            return os.mkdir, ('made',)

    return pickle.dumps(Harm())


def archive(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / 'made.zip', 'w') as file:
        file.writestr('a.txt', 'a')
    content = (folder / 'made.zip').read_bytes()
    (folder / 'made.zip').unlink()
    return content


def checkpoint(folder: Path) -> bytes:
    torch.save(dict(state_dict={}), folder / 'a.pth')
    return (folder / 'a.pth').read_bytes()


def other_tensors(folder: Path) -> bytes:
    save_file({'a': torch.ones(1)}, folder / 'a')
    return (folder / 'a').read_bytes()


def long_header(folder: Path) -> bytes:
    return struct.pack('<Q', 50_000_000) + b'{"__metadata__":{"a":"' + b' ' * 50_000_000


def longer_than_the_file(folder: Path) -> bytes:
    text = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    return struct.pack('<Q', len(text)) + text


FILES = {
    shebang: 'it is text, not weights',
    pickled: 'a file of torch; tools/adapter.py pack',
    archive: 'it is a zip archive of other files',
    checkpoint: 'a file of torch; tools/adapter.py pack',
    other_tensors: 'holds tensors but is not a bundle; tools/adapter.py pack',
    long_header: 'its header is longer than 4,194,304 bytes',
    longer_than_the_file: 'is broken or cut short',
}


@pytest.mark.parametrize(('make', 'said'), FILES.items(), ids=lambda v: getattr(v, '__name__', ''))
def test_what_is_no_bundle_is_called_what_it_is(tmp_path, monkeypatch, capsys, make, said):
    monkeypatch.chdir(tmp_path)
    Path('b.safetensors').write_bytes(make(tmp_path))
    assert said in said_of(capsys, 'b.safetensors')


def test_so_are_an_empty_file_a_folder_a_pipe_a_loop_and_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('empty').touch()
    Path('folder').mkdir()
    Path('folder/in.safetensors').touch()
    Path('loop').symlink_to('loop')
    os.mkfifo('pipe')
    for name, said in {
        'empty': 'it is empty',
        'folder': 'is a folder; it holds folder/in.safetensors',
        'pipe': 'does not exist',
        'loop': 'does not exist',
        'none': 'does not exist',
        'x' * 300: 'File name too long',
        'a\x1b[2J': r'a\x1b[2J does not exist',
    }.items():
        assert call('adapter', 'info', name) == 2
        line = capsys.readouterr().err
        assert said in line and line[:-1].isprintable(), line


def test_a_file_that_is_cut_short_anywhere_is_refused(once, header, capsys):
    whole = once.read_bytes()
    for tenth in range(10):
        Path('b.safetensors').write_bytes(whole[: len(whole) * tenth // 10])
        assert 'b.safetensors' in said_of(capsys, 'b.safetensors')
    Path('b.safetensors').write_bytes(whole[:-1])
    assert 'is broken or cut short' in said_of(capsys, 'b.safetensors')


# JSON


def spliced(header: dict[str, Any], name: str, text: str) -> str:
    """A header whose part is JSON text as it is."""
    marked = json.dumps(dict(header, **{name: 'MARK'}))
    return marked.replace('"MARK"', text)


TEXTS = {
    'deep lists': ('options', '[' * 100_000 + ']' * 100_000, 'nested too deeply'),
    'less deep dicts': ('options', '{"a":' * 600 + '1' + '}' * 600, 'nested too deeply'),
    'a deep model': ('model', '{"type":' * 500 + '1' + '}' * 500, 'nested too deeply'),
    'not a number': ('options', '{"a": NaN}', 'NaN is not finite'),
    'infinite': ('options', '{"a": -Infinity}', '-Infinity is not finite'),
    'beyond a float': ('options', '{"a": 1e400}', '1e400 is not finite'),
    'beyond an int': ('epoch', '1' * 5000, 'its header is not JSON'),
    'a name twice': ('options', '{"a": 1, "a": 2}', 'a name appears twice'),
    'a model twice': ('license', '"a", "model": {"type": "os.mkdir"}', 'a name appears twice'),
    'half': ('license', '"', 'its header is not JSON'),
    'a million classes': ('classes', json.dumps(['a'] * 1_000_000), 'its header is longer than 4,194,304'),
    'many classes': ('classes', json.dumps(['a'] * 200_000), 'its classes is'),
    'a long text': ('license', json.dumps('a' * 2_000_000), 'its license is'),
    'long': ('license', json.dumps('a' * 4_300_000), 'its header is longer than 4,194,304'),
}


@pytest.mark.parametrize(('name', 'text', 'said'), TEXTS.values(), ids=TEXTS)
def test_text_that_is_no_header_is_refused(header, capsys, name, text, said):
    file = write(Path('b.safetensors'), spliced(header, name, text))
    assert call('adapter', 'info', file) == 2
    line = capsys.readouterr().err
    assert said in line and line.count('\n') == 1 and len(line) < 700


@pytest.mark.parametrize('text', ['', 'null', '[]', '1', '"a"', '{}', '{"format": 1}', '\0', '\ufeff{}'])
def test_so_is_json_of_another_kind(header, capsys, text):
    said_of(capsys, write(Path('b.safetensors'), text))


# Values

SHA = '0' * 64
WRONG = {
    'name': ['', '..', '../x', 'a/b', 'a\\b', 'a\nb', 'x' * 1000, None, 3, ['a']],
    'default_scope': ['mmengine', 'os', '', None, ['mmaction'], {}, 'mmaction'],
    'model': [None, [], 'os.mkdir', {}, {'type': 'PETLImageClassifier'}],
    'pipeline': [None, {}, [], ['PackInputs'], [[]]],
    'classes': [[], ['a'], ['a', 'b', 3], ['a', 'b', 'c\n'], 'abc', {'a': 1}, 3, [['a'], 'b', 'c']],
    'base': [{}, [], 'a', {'name': 'a'}, None],
    'frozen_sha256': ['', 'x' * 64, SHA.upper() + '0', 3, [], b'a'.hex()],
    'deltas': [[], None, {'patt': 3}, {'patt': {'a\n': 1}}, 'patt'],
    'trainable': [-1, 1.0, True, None, '3', 10**30],
    'total': [-1, 1.5, False, None, []],
    'epoch': [-1, 1.0, True, None, '3'],
    'seed': [-1, 1 << 32, 1.0, True, '1'],
    'scores': [[], {}, {'top1': 1}, 'good'],
    'options': [[], None, {'a\nb': 1}, 'a', {'a': {'\x1b': 1}}],
    'versions': [[], None, {'torch': 2}, {'torch': 'a\nb'}, {'a\nb': '1'}, 'a'],
    'license': [None, 3, 'a\nb', '\x1b[2J', []],
    'created': ['', 'today', None, 3, '2026-01-01\n'],
    'spt': [[], 'LoRA', {}, {'format': 1}],
    'format': [0, -1, 1.0, True, '1', None, []],
}


@pytest.mark.parametrize('name', WRONG)
def test_a_value_that_a_header_cannot_have_is_refused(header, capsys, name):
    for value in WRONG[name]:
        line = said_of(capsys, write(Path('b.safetensors'), dict(header, **{name: value})))
        assert line.startswith('error: b.safetensors cannot be used: '), (value, line)


def test_every_part_is_needed_and_no_other_known(header, capsys):
    assert {*WRONG} == {*header}
    for name in header:
        rest = {k: v for k, v in header.items() if k != name}
        assert 'missing' in (line := said_of(capsys, write(Path('b.safetensors'), rest))) or name == 'format', line
    assert "'more' is unknown" in said_of(capsys, write(Path('b.safetensors'), dict(header, more=1)))


@pytest.mark.parametrize(
    ('part', 'values'),
    [
        (
            'base',
            dict(name=['../x', '/etc/passwd', '', '..', 3], url=[3, 'a\nb'], sha256=['', 3], convert=['x', 3, []]),
        ),
        ('scores', dict(top1=[-1, 101, True, '1'], samples=[-1, 1.5], list=[3, 'a\nb'], checkpoint=[None])),
    ],
)
def test_so_are_the_parts_of_a_part(header, capsys, part, values):
    for name, wrong in values.items():
        for value in [*wrong, 'missing']:
            inside = dict(header[part], **{name: value})
            if value == 'missing':
                del inside[name]
            assert f'its {part} is' in said_of(capsys, write(Path('b.safetensors'), dict(header, **{part: inside})))


def test_a_newer_format_asks_for_an_update(header, capsys):
    newer = dict(header, format=2, what_is_new=1)
    assert 'format is 2, and this version reads format 1: update' in said_of(
        capsys, write(Path('b.safetensors'), newer)
    )


def test_the_key_is_the_one_of_older_files(once):
    start = once.read_bytes()[:200]
    assert f'"{KEY}"'.encode() in start, 'tools/train.py --overwrite looks for it there'
