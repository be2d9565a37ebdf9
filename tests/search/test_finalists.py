"""The best trials with several seeds: what their runs leave, whole, damaged or failed."""

from __future__ import annotations

import resource

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from searching import LR, WIDTH, leave_result

from vpetl_mm import UserError
from vpetl_mm.search.checks import planned
from vpetl_mm.search.finalists import best, is_scored, read_score, seed_jobs
from vpetl_mm.search.settings import Search, write_search
from vpetl_mm.search.study import open_study, rounded


@pytest.mark.parametrize(
    ('text', 'score'),
    [
        ('61.5\n', 61.5),
        ('"The loss is nan"', 'The loss is nan'),
        ('NaN', None),
        ('1e999', None),
        ('true', None),
        ('9' * 400, None),
        ('[1]', None),
        ('61.', None),
        ('', None),
        ('\x00', None),
        ('"' + 'a' * 20_000 + '"', None),
    ],
)
def test_a_score_is_a_finite_number_or_why_there_is_none(tmp_path, text, score):
    (tmp_path / 'score.json').write_text(text)
    assert read_score(tmp_path) == score and is_scored(tmp_path) == isinstance(score, float)


def test_a_finalist_that_fails_itself_says_so_and_a_full_disk_is_no_failure(experiment, tmp_path):
    search = planned(experiment, {LR: '[1e20,1e10]'}, work_dir=tmp_path)[0]
    write_search(search)
    study = open_study(search)
    study.enqueue_trial({LR: 1e20})
    trial = study.ask()
    trial.suggest_categorical(LR, [1e20, 1e10])
    study.tell(trial, 50.0)
    leave_result(search.trial_folder(0), 50.0)
    (job,) = seed_jobs(search, 1, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a full disk, for all but small files
    try:
        with pytest.raises(UserError, match='cannot be written'):
            job.work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_score(job.folder) is None
    with pytest.raises(UserError, match='loss is'):
        job.work()
    assert 'loss is' in read_score(job.folder) and not job.done()


@pytest.mark.parametrize(
    ('forged', 'value', 'left'),
    [
        ({LR: 0.2, WIDTH: 8}, 1e9, None),
        ({LR: 0.2, WIDTH: 8}, float('inf'), 60.0),
        ({LR: 0.2}, 60.0, 60.0),
        ({LR: 0.2, WIDTH: 8}, 60.0, None),
        ({LR: 0.2, WIDTH: 8}, 60.0, 40.0),
    ],
    ids=['over 100', 'infinite', 'a key is missing', 'no run', 'another score'],
)
def test_a_trial_that_only_the_journal_knows_is_not_chosen(experiment, tmp_path, forged, value, left):
    search = Search(str(experiment), str(tmp_path), {LR: '[0.1,0.2]', WIDTH: '[4,8]'})
    study = open_study(search)
    for number, (params, score, there) in enumerate([({LR: 0.1, WIDTH: 4}, 50.0, 50.0), (forged, value, left)]):
        spaces = {key: CategoricalDistribution(search.parsed()[key].values) for key in params}
        study.add_trial(create_trial(params=params, distributions=spaces, value=score))
        if there is not None:
            leave_result(search.trial_folder(number), there)
    assert [t.number for t in best(search, 2)] == [0]


def test_numbers_as_a_trial_takes_them():
    assert [rounded(v) for v in (0.0123456789, 12345.678, 3, 'kv', True)] == [0.01235, 12350.0, 3, 'kv', True]
