"""What a search shows while it runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from searching import LR

from vpetl_mm import UserError
from vpetl_mm.search.search import tune
from vpetl_mm.search.settings import Search
from vpetl_mm.search.show import SearchProgress
from vpetl_mm.search.study import open_study

HOSTILE = 'it \x1b[31mfailed\nall of it'


def progress(
    config: Path, folder: Path, ended: int, minutes: int, before: tuple[SearchProgress, ...] = ()
) -> SearchProgress:
    """A search of three trials on two workers, of which some have ended after so many minutes each."""
    folder.mkdir()
    search = Search(str(config), str(folder), {LR: '[0.1,0.2]'})
    begun = datetime(2026, 1, 1)
    for number in range(ended):
        open_study(search).add_trial(
            FrozenTrial(
                number=number,
                trial_id=number,
                state=TrialState.COMPLETE,
                value=50.0,
                datetime_start=begun,
                datetime_complete=begun + timedelta(minutes=minutes),
                params={LR: 0.1},
                distributions={LR: CategoricalDistribution([0.1, 0.2])},
                user_attrs=dict(reason=HOSTILE),
                system_attrs={},
                intermediate_values={},
            )
        )
    return SearchProgress(search, 3, 2, before)


def test_the_time_left_is_that_of_the_searches_before_as_well(experiment, tmp_path):
    first = progress(experiment, tmp_path / 'a', 1, 10)
    second = progress(experiment, tmp_path / 'b', 2, 30, (first,))
    third = progress(experiment, tmp_path / 'c', 0, 0, (first, second))
    over = progress(experiment, tmp_path / 'd', 3, 10, (first, second))
    assert [one.left() for one in (first, second, third, over)] == ['10 min', '25 min', '-', '']


@pytest.mark.parametrize('name', ['search.csv', 'search.png', 'small_tuned.py'])
def test_a_folder_where_a_file_would_go_is_named_before_anything_is_written(experiment, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f'{name} is a folder'):
        tune([Search(str(experiment), str(tmp_path), {LR: '[0.1,0.2]'})], engine=None)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_reason_from_the_journal_is_safe_for_a_terminal(experiment, tmp_path):
    (line,) = progress(experiment, tmp_path / 'a', 1, 10).news()
    assert line.isprintable() and 'failed' in line
