"""Something-Something v2 in its official layout."""

from __future__ import annotations

import json
import re

import pytest
from trees import REAL, SSV2_LABELS, call, lines, put, ssv2

LABELS = REAL / 'annotations/something-something-v2-labels.json'


@pytest.mark.parametrize('prefix', ['something-something-v2-', '', 'labels/', 'labels/something-something-v2-'])
def test_the_lists_under_each_of_their_names(here, tmp_path, prefix, capsys):
    src = ssv2(tmp_path / 'src', prefix=prefix)
    put(src / '20bn-something-something-v2/999.webm')  # of the test list, which has no labels
    assert call('ssv2', '--src', src) == 0
    out = here / 'data/ssv2'
    assert lines(out / 'classes.txt') == [
        'Closing something',
        'Opening something',
        'Moving something and something away',
    ]
    assert lines(out / 'trainval.txt') == [f'{100 + i}.webm {i % 3}' for i in range(20)]
    assert lines(out / 'test.txt') == [f'{120 + i}.webm {(20 + i) % 3}' for i in range(6)]
    assert (out / 'videos/100.webm').read_bytes() == b'100'
    assert (out / 'videos').readlink() == src / '20bn-something-something-v2'
    assert 'ssv2 has 20 samples in the trainval list; officially it has 168,913' in capsys.readouterr().err
    assert '999' not in (out / 'manifest.csv').read_text() and '100.webm,3,\n' in (out / 'manifest.csv').read_text()


@pytest.mark.skipif(not LABELS.exists(), reason='the real labels are not at hand')
def test_the_real_labels(here, tmp_path):
    src = ssv2(tmp_path / 'src')
    real = json.loads(put(src / 'something-something-v2-labels.json', LABELS.read_text()).read_text())
    # each template in the form of the lists: the placeholders in brackets
    templates = [re.sub(r'\bsomething\b', '[something]', name) for name in real]
    entries = [dict(id=str(100 + i % 20), template=t) for i, t in enumerate(templates)]
    entries = [dict(e, id=str(1000 + i)) for i, e in enumerate(entries)]
    put(src / 'something-something-v2-train.json', json.dumps(entries))
    put(src / 'something-something-v2-validation.json', json.dumps([dict(id='100', template=templates[57])]))
    assert call('ssv2', '--src', src) == 0
    out = here / 'data/ssv2'
    names = lines(out / 'classes.txt')
    assert len(names) == 174 and names[57] == 'Poking something so that it falls over'
    assert [line.split()[1] for line in lines(out / 'trainval.txt')] == list(real.values())
    assert lines(out / 'test.txt') == ['100.webm 57']


@pytest.mark.parametrize(
    ('file', 'content', 'said'),
    [
        ('train', '[{"id": "1", "template": "Opening [some', 'train.json is truncated or not JSON'),
        ('train', '{}', 'train.json should hold a JSON list'),
        ('train', '[{"id": "1"}]', 'entry 1, should have an id and a template'),
        ('train', '[]', 'train.json is empty'),
        (
            'train',
            '[{"id": "1", "template": "Opening [some] thing"}]',
            "'Opening some thing' is not among the 3 classes",
        ),
        ('train', '[{"id": "../1", "template": "Closing [something]"}]', 'is outside the folder'),
        ('train', '[{"id": "a\\nb", "template": "Closing [something]"}]', 'has a line break'),
        ('labels', '{"A": "0", "B": "2"}', 'should number the classes from 0'),
        ('labels', '{"A": "zero"}', 'should give every class its index'),
        ('labels', '{"A": Infinity}', 'should give every class its index'),
        ('labels', json.dumps({**SSV2_LABELS, 'B\nC': 3}), 'has a line break'),
        ('train', '[' * 100_000, 'train.json is truncated or not JSON'),
        ('validation', b'[\xff', 'validation.json is not UTF-8 text'),
    ],
)
def test_a_damaged_list_is_refused(refused, tmp_path, file, content, said):
    src = ssv2(tmp_path / 'src')
    put(src / f'something-something-v2-{file}.json', content)
    assert said in refused('ssv2', '--src', src)


def test_a_wrong_folder_and_a_missing_list(refused, tmp_path):
    src = ssv2(tmp_path / 'src')
    assert 'no something-something-v2-labels.json' in refused('ssv2', '--src', src / '20bn-something-something-v2')
    (src / 'something-something-v2-train.json').rename(tmp_path / 'list')
    assert 'no something-something-v2-train.json' in refused('ssv2', '--src', src)
    (src / '20bn-something-something-v2').rename(tmp_path / 'elsewhere')
    assert 'has no webm files' in refused('ssv2', '--src', src)
    assert 'does not exist' in refused('ssv2', '--src', tmp_path / 'none')
    assert 'is a file' in refused('ssv2', '--src', src / 'something-something-v2-labels.json')
