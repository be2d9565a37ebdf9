"""One of several budgets, by training with each on a part of the training data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_vtab import COUNTS, call
from test_allocate import spied

from vpetl_mm.commands import choose_budget as module
from vpetl_mm.spt.allocation import read_allocation

BUDGETS = ('300', '100', '1k')


def scored(monkeypatch, scores: dict[int, float]) -> list[int]:
    """Replace training by top-1 per budget; return the budgets in the order in which they are trained."""
    asked = []

    def score(request, given, file):
        asked.append(read_allocation(file).budget)
        return scores[asked[-1]]

    monkeypatch.setattr(module, '_score', score)
    return asked


@pytest.mark.parametrize(
    ('scores', 'best'),
    [
        ({100: 10.0, 300: 30.0, 1000: 20.0}, 300),
        ({100: 10.0, 300: 30.0, 1000: 30.0}, 300),
        ({100: 30.0, 300: 30.0, 1000: 30.0}, 100),
        ({100: 10.0, 300: 20.0, 1000: 30.0}, 1000),
    ],
)
def test_the_best_is_kept_and_the_smallest_of_equals(config, monkeypatch, capsys, scores, best):
    asked = scored(monkeypatch, scores)
    assert call(config, '--budget', *BUDGETS) == 0
    assert asked == sorted(scores) and read_allocation('spt.safetensors').budget == best
    shown = capsys.readouterr().out
    assert all(f'top-1 {score:.2f} on held-out' in shown for score in scores.values())


def test_each_is_trained_without_the_held_out_part_and_without_the_test_list(config, task, capsys):
    """Really; the sensitivity of each is of the training part alone, that of the result of all of it."""
    with spied() as opened:
        assert call(config, '--budget', '100', '400', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    inside = {Path(p).relative_to(task).parts for p in opened if Path(p).is_relative_to(task)}
    assert not any('test' in part for parts in inside for part in parts)
    scores = {}
    for budget in (100, 400):
        folder = Path('budgets', str(budget))
        held = read_allocation(folder / 'spt.safetensors')
        assert held.made['samples'] == COUNTS['train800'] and held.budget == budget
        assert (folder / 'adapter_epoch_1.pth').is_file()
        scores[budget] = json.loads((folder / 'held_out.json').read_text())['top1']
    final = read_allocation('spt.safetensors')
    assert final.made['samples'] == COUNTS['train800'] + COUNTS['val200']
    assert final.budget == max(scores, key=lambda b: (scores[b], -b))
    assert not Path('budgets/none.safetensors').exists()


def test_what_was_trained_is_not_trained_again(config, monkeypatch, capsys):
    asked = scored(monkeypatch, {100: 1.0, 300: 3.0, 1000: 2.0})
    assert call(config, '--budget', '100', '300') == 0
    assert call(config, '--budget', *BUDGETS, '--force') == 0
    assert asked == [100, 300, 1000] and read_allocation('spt.safetensors').budget == 300


def other_weights(own: Path) -> None:
    torch.save({k: 1.5 * v for k, v in torch.load(own, weights_only=True).items()}, own)


def damaged(own: Path) -> None:
    Path('budgets/300/held_out.json').write_text('{"top1": ')


OTHER = {
    'alpha': (['--alpha', '2'], None, [100, 300]),
    'batches': (['--batches', '1', '--batch-size', '8'], None, [100, 300]),
    'control': (['--cfg-options', 'model.petl.spt.control=random'], None, [100, 300]),
    'lr': (['--cfg-options', 'optim_wrapper.optimizer.lr=1'], None, [100, 300]),
    'weights': ([], other_weights, [100, 300]),
    'a damaged record': ([], damaged, [300]),
}


@pytest.mark.parametrize(('argv', 'change', 'again'), OTHER.values(), ids=OTHER)
def test_what_changed_is_trained_again(config, base, monkeypatch, argv, change, again):
    own = Path('base.pth')
    own.write_bytes(base.read_bytes())
    config.write_text(config.read_text().replace(str(base), str(own)))
    asked = scored(monkeypatch, {100: 1.0, 300: 3.0})
    assert call(config, '--budget', '100', '300') == 0
    if change:
        change(own)
    assert call(config, '--budget', '100', '300', '--force', *argv) == 0
    assert asked == [100, 300, *again]


def test_one_that_is_too_small_is_told_before_anything_is_trained(config, monkeypatch, capsys):
    asked = scored(monkeypatch, {300: 3.0})
    assert call(config, '--budget', '1', '300', '--alpha', '1000', '--beta', '1000') == 2
    assert asked == [] and 'too small' in capsys.readouterr().err


def test_held_out_data_that_cannot_be_read_is_told_before_anything_is_measured(config, monkeypatch, capsys):
    monkeypatch.setattr(module, 'measure_experiment', pytest.fail)
    assert call(config, '--budget', '100', '300', '--cfg-options', 'val_dataloader.dataset.type=NoSuchData') == 2
    assert 'NoSuchData' in capsys.readouterr().err and not Path('budgets').exists()


def test_one_that_is_killed_leaves_no_record_and_is_trained_again(config, monkeypatch):
    def killed(request, given, file):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, '_score', killed)
    assert call(config, '--budget', '100', '300') == 130
    assert not Path('budgets/100/held_out.json').exists() and not Path('spt.safetensors').exists()
    asked = scored(monkeypatch, {100: 1.0, 300: 3.0})
    assert call(config, '--budget', '100', '300') == 0 and asked == [100, 300]


def test_budgets_may_stand_in_the_config(config, monkeypatch, capsys):
    scored(monkeypatch, {100: 1.0, 300: 3.0, 1000: 2.0})
    config.write_text(config.read_text().replace('budget=None', "budget=['0.1k', 300, '1k']"))
    assert call(config) == 0
    assert read_allocation('spt.safetensors').budget == 300
