"""tools/compare.py: what differs between tested runs, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import leave_test, many

from tools import call, refused


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """The current folder, with two tested runs of 40 samples; of the first 10, one is right on 3 and two on 9."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(40) % 4
    for name, right, batch in (('one', {0, 1, 2, *range(10, 40)}, 8), ('two', {*range(1, 10), *range(10, 40)}, 16)):
        said = np.where(np.isin(np.arange(40), [*right]), labels, (labels + 1) % 4)
        leave_test(Path(name), labels, 5.0 * np.eye(4)[said], config=f'demo_{name}', batch=batch)
    return tmp_path


def test_two_runs_are_compared_on_their_samples(runs, capsys):
    assert call('compare', 'one', 'two/result.json', '-o', 'both.png') == 0
    text = capsys.readouterr().out
    rows = {line.split('  ')[0].strip(): ' '.join(line.split()) for line in text.splitlines() if line}
    assert rows['top-1'].startswith('top-1 82.50 (') and ' 97.50 (' in rows['top-1']
    assert rows['train_dataloader.batch_size'] == 'train_dataloader.batch_size 8 16'
    assert '1 setting differs' in text and 'model.type' not in text
    assert '40 shared samples' in text and 'both 32, only demo_one 1, only demo_two 7, neither 0' in text
    assert '-15.00 points; p = 0.0703 (exact binomial)' in text  # 2 (1 + 8) / 2^8
    assert 'curves: both.png' in text
    with Image.open('both.png') as figure:
        assert figure.width > 600 and len({*figure.convert('RGB').resize((80, 60)).get_flattened_data()}) > 5
    assert {p.name for p in Path().iterdir()} == {'one', 'two', 'both.png'}


def test_samples_are_matched_by_path_and_labels_must_agree(runs, capsys):
    labels, scores = np.arange(40) % 4, 5.0 * np.eye(4)[np.arange(40) % 4]
    files = [f'clips/{i}.mp4' for i in reversed(range(20, 60))]
    leave_test(Path('part'), labels[::-1], scores[::-1], files, config='part')
    leave_test(Path('none'), labels, scores, [f'other/{i}.mp4' for i in range(40)], config='none')
    leave_test(Path('other'), (labels + 1) % 4, scores, config='other')
    assert call('compare', 'one', 'part', 'none', 'other') == 0
    text = capsys.readouterr().out
    assert 'demo_one and part: 20 shared samples (of 40 and 40)\n  right: both 20, only demo_one 0' in text
    assert 'demo_one and none: no test, as they share no sample' in text
    assert 'demo_one and other: no test, as 40 of 40 shared samples have other labels' in text
    assert 'not adjusted for 6 tests' in text and Path('compare.png').is_file()


def test_arrays_are_matched_by_place_and_seeds_are_told_apart(runs, capsys):
    labels, logits = many(60, 5)
    for name, seed in (('a', 1), ('b', 2)):
        leave_test(Path(name), labels, np.roll(logits, seed, 0), [''] * 60, config='same')
    assert call('compare', 'a', 'b') == 0
    text = capsys.readouterr().out
    assert 'a and b: 60 shared samples' in text and 'No setting differs.' in text
    config = Path('b/20260101_000000/vis_data/config.py')
    config.write_text("model = dict(type='B')\ntrain_dataloader = None\ntest_dataloader = dict(batch_size=9)\n")
    assert call('compare', 'a', 'b', '-o', 'second.png') == 0
    text = capsys.readouterr().out
    assert 'without a training log of b.' in text and 'model.type' in text and 'batch_size' not in text


def test_a_config_is_read_and_not_run(runs, capsys):
    config = Path('one/20260101_000000/vis_data/config.py')
    config.write_text(
        f"{config.read_text()}__import__('os').mkdir('pwned')\ntrain_cfg = __import__('os').mkdir('pwned')\n"
    )
    name = Path('two/20260101_000000/vis_data/config.py')
    name.write_text(name.read_text().replace("'A'", "'[red]\\x1b[2J$x_{'"))
    assert call('compare', 'one', 'two') == 0
    text = capsys.readouterr().out
    assert not Path('pwned').exists() and "mkdir('pwned')" in text and '\x1b' not in text and 'model.type' in text


def _broken(path: str, content: str):
    return lambda: Path(path).write_text(content)


@pytest.mark.parametrize(
    ('given', 'spoil', 'said'),
    [
        (['one'], None, 'at least two runs'),
        (['one', 'one/result.json'], None, 'given twice'),
        (['one', 'nowhere'], None, 'nowhere does not exist'),
        (['one', 'two/20260101_000000'], None, 'has no result.json'),
        (['one', 'two/predictions.csv'], None, 'is not a run'),
        (['one', 'two'], lambda: Path('two/predictions.csv').unlink(), 'two/predictions.csv do not exist'),
        (['one', 'two'], lambda: Path('two/result.json').rename('two/result_mini_3fa2c1.json'), 'result_mini_3fa2c1'),
        (['one', 'two'], _broken('two/result.json', '{"format": '), 'corrupt'),
        (['one', 'two'], _broken('two/predictions.csv', 'file,label\n'), 'broken'),
        (['one', 'two'], _broken('two/20260101_000000/vis_data/scalars.json', 'x\n{}\n'), 'corrupt in line 1'),
        (['one', 'two'], _broken('compare.png', ''), 'compare.png exists'),
        (['one', 'two'], lambda: os.symlink('gone', 'compare.png'), 'compare.png exists'),
        (['one', 'two', '-o', 'figure.jpg'], None, 'ends in .png'),
        (['one', 'two', '-o', 'no/figure.png'], None, 'does not exist'),
    ],
)
def test_wrong_input_is_a_sentence_and_nothing_is_written(runs, capsys, given, spoil, said):
    if spoil:
        spoil()
    assert said in refused(capsys, 'compare', *given)
