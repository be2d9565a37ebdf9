"""The license that a card or a config names, in the forms that the Hub has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpetl_mm.weights.license import license_beside

CARDS = {
    '---\nlicense: apache-2.0\n---\n': 'apache-2.0',
    '---\r\nlicense: mit\r\n---\r\ntext': 'mit',
    '---\nlicense: other\nlicense_name: dinov3-license\nlicense_link: https://a.b/c\n---\n': 'dinov3-license, https://a.b/c',
    '---\nlicense: other\n---\n': 'other',
    '---\nlicense:\n- mit\n- cc-by-4.0\n---\n': 'mit, cc-by-4.0',
    'license: mit\n': None,
    '---\nlicense: mit\n': None,
    '---\nlicense: {a: b}\n---\n': None,
    '---\nlicense: "mit"\n---\n': 'mit',
    '---\nlicense: [mit, cc0-1.0]\n---\n': 'mit, cc0-1.0',
    '---\nlicense: a\x1bb\n---\n': None,
    '---\nlicense: !!python/object/apply:os.mkdir [made]\n---\n': None,
    f'---\nlicense: {"a" * 300}\n---\n': None,
    f'---\nlicense: {"[" * 50000}\n---\n': None,
    '---\n- license\n---\n': None,
    '': None,
}


@pytest.mark.parametrize(('text', 'wanted'), CARDS.items(), ids=range(len(CARDS)))
def test_cards(text, wanted):
    Path('README.md').write_text(text, newline='')
    assert license_beside('model.safetensors') == wanted
    assert not Path('made').exists()


@pytest.mark.parametrize(
    ('content', 'wanted'),
    [
        (dict(pretrained_cfg=dict(license='mit')), 'mit'),
        (dict(license='mit'), 'mit'),
        (dict(pretrained_cfg=3), None),
        ([1], None),
    ],
)
def test_configs(content, wanted):
    Path('config.json').write_text(json.dumps(content))
    assert license_beside('model.safetensors') == wanted
