"""Weights on the Hub, through huggingface_hub itself: a server on this machine, its cache, and no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from hub_server import Hub, pointed_at, serving
from safetensors.torch import save

from vpetl_mm.weights.base import check_base
from vpetl_mm.weights.hub import located, url_of
from vpetl_mm.weights.shards import weights_sha256

REPO = 'timm/vit_x.tag'
CARD = b'---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n'


def weights(value: float) -> bytes:
    return save({'a': torch.full((3,), value)})


@pytest.fixture
def hub(monkeypatch):
    """A running server, and an empty cache."""
    server = Hub()
    with serving(server) as address:
        pointed_at(monkeypatch, address, Path('cache').absolute())
        yield server


def test_what_is_fetched_and_noted(hub):
    commit = hub.put(REPO, {'model.safetensors': weights(1), 'README.md': CARD, 'evil.py': b'1/0'})
    found = located(check_base(dict(hub=REPO)))
    assert Path(found['file']).read_bytes() == weights(1)
    assert (found['commit'], found['name'], found['license']) == (commit, 'model.safetensors', 'apache-2.0')
    assert url_of(found) == f'https://huggingface.co/{REPO}/resolve/{commit}/model.safetensors'
    (pin,) = Path('data/weights/hub').iterdir()
    noted = json.loads(pin.read_text())
    assert noted['commit'] == commit and noted['sha256'] == weights_sha256(found['file'])
    assert not any('evil' in path for path in hub.asked)
    assert located(found) == found, 'nothing is fetched twice'


def test_another_file_under_the_same_name_is_refused(hub):
    before = hub.put(REPO, {'model.safetensors': weights(1)})
    located(dict(hub=REPO))
    hub.put(REPO, {'model.safetensors': weights(2)})
    with tiny.refused(REPO, 'is not what it was', before, 'data/weights/hub'):
        located(dict(hub=REPO))
    assert Path(located(dict(hub=REPO, revision=before))['file']).read_bytes() == weights(1)
    hub.put(REPO, {'model.safetensors': weights(1), 'README.md': b'another card'})
    located(dict(hub=REPO))


def test_without_a_network_the_cache_serves_and_else_a_sentence_says_what_to_do(hub, monkeypatch):
    hub.put(REPO, {'model.safetensors': weights(1), 'README.md': CARD})
    there = located(dict(hub=REPO))
    for offline, address in ((True, 'http://127.0.0.1:9'), (False, 'http://127.0.0.1:9')):  # nobody listens there
        pointed_at(monkeypatch, address, Path('cache').absolute(), offline)
        assert located(dict(hub=REPO)) == there
        with tiny.refused('a/b is not in the cache', 'hf download a/b', 'model.base=dict(file='):
            located(dict(hub='a/b'))


def test_what_the_hub_refuses(hub):
    hub.put(REPO, {'other.txt': b''})
    hub.gated.add('a/gated')
    for base, said in (
        (dict(hub='a/none'), 'no repository a/none'),
        (dict(hub='a/gated'), 'a/gated is gated'),
        (dict(hub=REPO, revision='v9'), f'{REPO} has no v9'),
        (dict(hub=REPO), f'{REPO} has no model.safetensors or'),
        (dict(hub=REPO, name='x.safetensors'), f'{REPO} has no x.safetensors'),
    ):
        with tiny.refused(said):
            located(check_base(base))


def test_a_file_that_is_broken_in_the_cache(hub):
    hub.put(REPO, {'model.safetensors': weights(1)})
    file = Path(located(dict(hub=REPO))['file'])
    file.resolve().write_bytes(weights(2))
    with tiny.refused('is not whole: delete'):
        located(dict(hub=REPO))


def index(files: dict[str, str]) -> bytes:
    return json.dumps(dict(metadata={}, weight_map=files)).encode()


def test_shards(hub):
    names = {'a': 'model-00001-of-00002.safetensors', 'b': 'model-00002-of-00002.safetensors'}
    parts = {file: save({name: torch.ones(2)}) for name, file in names.items()}
    hub.put(REPO, {'model.safetensors.index.json': index(names), **parts})
    found = located(dict(hub=REPO))
    assert found['name'] == 'model.safetensors.index.json'
    assert all(Path(found['file']).with_name(name).read_bytes() == content for name, content in parts.items())


@pytest.mark.parametrize('name', ['../../secret.safetensors', '/etc/passwd', 'a/b.safetensors', 'x.py', 'x.bin', ''])
def test_an_index_that_names_other_files_is_refused_and_they_are_not_asked_for(hub, name):
    hub.put(REPO, {'model.safetensors.index.json': index({'a': name})})
    with tiny.refused(REPO, 'not one of its own folder'):
        located(dict(hub=REPO))
    assert all(
        'resolve' not in path or 'index.json' in path or path.endswith('model.safetensors') for path in hub.asked
    )


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        *(('hub', v) for v in ('..', '../x', 'a/../b', '/etc/x', 'a/b/c', 'a\\b', 'a b', '.a/b', 'http://x/y', 3)),
        *(('revision', v) for v in ('../x', '/x', 'a..b', 'a b', '-x', 'a\n', 3)),
        *(('name', v) for v in ('../a.safetensors', '/a.safetensors', 'a/../b.bin', 'x.py', 'x.json', 'x', 3)),
    ],
)  # fmt: skip
def test_names_that_leave_a_repository_are_refused(key, value):
    with tiny.refused(f'model.base.{key}'):
        check_base({'hub': REPO, key: value})


def test_what_does_not_go_together():
    for base in (
        dict(hub=REPO, file='a.pth'),
        dict(file='a.pth', revision='main'),
        dict(file='a.pth', license='a\nb'),
    ):
        with tiny.refused('model.base'):
            check_base(base)
