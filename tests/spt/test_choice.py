"""The rule against loops written from the paper's facts, and against choices worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from chosen import cost

from vpetl_mm import UserError
from vpetl_mm.spt import choice as choice_module
from vpetl_mm.spt.choice import PUBLISHED_STEPS, Settings, choose
from vpetl_mm.spt.units import Unit


def units(*shapes: tuple[int, ...]) -> list[Unit]:
    """Matrices ``m0``, ... and vectors ``v0``, ..., numbered together."""
    named = ((f'{"mv"[len(s) == 1]}{i}', s) for i, s in enumerate(shapes))
    return [Unit(name, s, 'fc1' if len(s) == 2 else 'bias', 'host') for name, s in named]


# the rule, in loops


class Loops:
    """What the first tau entries tune, and its parameters; one entry after the other."""

    def __init__(self, shapes, values, structured='LoRA', rank=8, alpha=10, beta=5, token=0):
        self.shapes, self.structured, self.rank, self.alpha, self.beta = shapes, structured, rank, alpha, beta
        self.token = token
        entries = [(u, i) for u, shape in enumerate(shapes) for i in range(math.prod(shape))]
        ranked = sorted(range(len(entries)), key=lambda n: (-values[n], n))
        self.ranked = [entries[n] for n in ranked]

    def take(self, tau: int) -> dict:
        found: dict[int, list[int]] = {u: [] for u in range(len(self.shapes))}
        for u, i in self.ranked[:tau]:
            found[u].append(i)
        said = dict(structured=[], whole=[], sparse={}, params=self.token)
        for u, shape in enumerate(self.shapes):
            whole, count, matrix = cost(shape, self.structured, self.rank), len(found[u]), len(shape) == 2
            if count and count >= (whole / self.alpha if matrix else shape[0] / self.beta):
                said['structured' if matrix else 'whole'].append(f'{"mv"[not matrix]}{u}')
                said['params'] += whole
            elif count:
                said['sparse'][f'{"mv"[not matrix]}{u}'] = sorted(found[u])
                said['params'] += count
        return said

    def closest(self, budget: int, steps) -> dict | None:
        best, params = None, 0
        for tau in steps:
            if tau <= len(self.ranked):
                said = self.take(tau)
                if abs(said['params'] - budget) <= abs(params - budget):
                    best, params = said, said['params']
        return best


def plainly(choice) -> dict:
    return dict(
        structured=list(choice.structured),
        whole=list(choice.whole),
        sparse={k: v.tolist() for k, v in choice.sparse.items()},
        params=choice.params,
    )


SHAPES = [(6, 4), (6,), (3, 9), (2, 2), (7,), (1,), (12, 5), (5, 12), (3,)]
DRAWS = {
    'distinct': lambda rng, n: rng.permutation(n).astype(np.float32),
    'skewed': lambda rng, n: rng.lognormal(0, 3, n).astype(np.float32),
    'ties': lambda rng, n: rng.integers(0, 4, n).astype(np.float32),
    'mostly_zero': lambda rng, n: (rng.random(n) < 0.1).astype(np.float32),
    'all_equal': lambda rng, n: np.ones(n, np.float32),
}
SETTINGS = [
    dict(structured='LoRA', rank=1, alpha=2.0, beta=2.0),
    dict(structured='LoRA', rank=2, alpha=10.0, beta=5.0),
    dict(structured='LoRA', rank=3, alpha=3.3, beta=1.0),
    dict(structured='LoRA', rank=1, alpha=1000.0, beta=1000.0),
    dict(structured='AdaptMLP', rank=1, alpha=2.5, beta=3.0),
    dict(structured='AdaptMLP', rank=2, alpha=10.0, beta=5.0),
    dict(structured='AdaptMLP', rank=8, alpha=1.0, beta=1.0),
]


@pytest.mark.parametrize('draw', DRAWS)
@pytest.mark.parametrize('settings', SETTINGS, ids=lambda s: f'{s["structured"]}-r{s["rank"]}-a{s["alpha"]}')
def test_within_equals_the_loops(settings, draw):
    total = sum(map(math.prod, SHAPES))
    for seed in range(2):
        values = DRAWS[draw](np.random.default_rng(seed), total)
        loops = Loops(SHAPES, values, **settings)
        taken = [loops.take(tau) for tau in range(1, total + 1)]
        for budget in [*range(1, 24), *range(24, total, 7), total]:
            fitting = [said for said in taken if said['params'] <= budget]
            if fitting:
                assert plainly(choose(units(*SHAPES), values, budget, Settings(**settings))) == fitting[-1]
            else:
                with pytest.raises(UserError, match=f'the smallest is {taken[0]["params"]}'):
                    choose(units(*SHAPES), values, budget, Settings(**settings))


@pytest.mark.parametrize('draw', DRAWS)
@pytest.mark.parametrize('settings', SETTINGS, ids=lambda s: f'{s["structured"]}-r{s["rank"]}-a{s["alpha"]}')
def test_closest_equals_the_loops(settings, draw, monkeypatch):
    steps = tuple(range(3, 400, 3))  # the published ones are for millions of parameters
    monkeypatch.setattr(choice_module, 'PUBLISHED_STEPS', steps)
    total = sum(map(math.prod, SHAPES))
    for token in (0, 5):
        values = DRAWS[draw](np.random.default_rng(token), total)
        loops = Loops(SHAPES, values, token=token, **settings)
        for budget in range(1, total, 5):
            expected = loops.closest(budget, steps)
            asked = Settings(**settings, rule='closest', class_token=token)
            if expected is None:
                with pytest.raises(UserError, match='too small for the published steps'):
                    choose(units(*SHAPES), values, budget, asked)
            else:
                chosen = choose(units(*SHAPES), values, budget, asked)
                assert plainly(chosen) == expected and chosen.class_token == bool(token)


def test_the_published_steps():
    assert list(PUBLISHED_STEPS) == [math.ceil(i * 0.02 * 1e6) for i in range(1, 80)]
    assert PUBLISHED_STEPS[:2] == (20_000, 40_000) and PUBLISHED_STEPS[-1] == 1_580_000 and len(PUBLISHED_STEPS) == 79


# by hand


def test_a_matrix_and_a_vector_by_hand():
    """A 4 x 6 matrix whose LoRA of rank 1 costs 10, so that alpha 5 asks for 2; a vector of 5, beta 2.5: 2."""
    values = np.zeros(29, np.float32)
    values[[13, 2]] = 9, 7  # in the matrix
    values[[24 + 4, 24 + 1, 24 + 0]] = 8, 6, 5  # in the vector
    asked = Settings(rank=1, alpha=5.0, beta=2.5)
    # the order: 13 (m), 4 (v), 2 (m), 1 (v), 0 (v), then the zeros, the matrix's first
    # params:     1       2      11     15     15
    for budget, tau, structured, whole, sparse, params in (
        (1, 1, (), (), {'m0': [13]}, 1),
        (2, 2, (), (), {'m0': [13], 'v1': [4]}, 2),
        (10, 2, (), (), {'m0': [13], 'v1': [4]}, 2),
        (11, 3, ('m0',), (), {'v1': [4]}, 11),
        (14, 3, ('m0',), (), {'v1': [4]}, 11),
        (15, 29, ('m0',), ('v1',), {}, 15),
        (29, 29, ('m0',), ('v1',), {}, 15),
    ):
        chosen = choose(units((4, 6), (5,)), values, budget, asked)
        assert (chosen.tau, chosen.structured, chosen.whole, chosen.params) == (tau, structured, whole, params)
        assert {k: v.tolist() for k, v in chosen.sparse.items()} == sparse and not chosen.class_token


def test_the_adapter_costs_what_its_modules_hold():
    """Behind a layer of 768 outputs, bottleneck 8: 768 x 8 + 8 + 8 x 768 + 768 = 13,064; LoRA 12,288."""
    square, wide, thin = units((768, 768), (3072, 768), (768, 3072))
    assert Settings('AdaptMLP').cost(square) == 13_064 and Settings('LoRA').cost(square) == 12_288
    assert Settings('AdaptMLP').cost(wide) == 3072 * 8 * 2 + 8 + 3072 and Settings('AdaptMLP').cost(thin) == 13_064
    assert Settings('LoRA').cost(wide) == Settings('LoRA').cost(thin) == 30_720
    assert Settings('LoRA').threshold(square) == 1229 and Settings('LoRA').threshold(wide) == 3072
    assert Settings('LoRA').threshold(units((768,))[0]) == 154  # 153.6 are a fifth


def test_exactly_a_tenth_is_enough():
    """(6 + 4) x 1 / 10 = 1 entry; (16 + 4) x 1 / 10 = 2 entries; a vector of 10 with beta 5: 2."""
    asked = Settings(rank=1)
    for shape, needed in (((6, 4), 1), ((16, 4), 2), ((10,), 2)):
        size = math.prod(shape)
        for count in range(1, 4):
            values = np.zeros(size + 50, np.float32)
            values[:count] = 1
            ranking = choice_module.Ranking(units(shape, (50,)), values, asked, count)
            chosen = ranking.choice(count)
            assert bool(chosen.structured or chosen.whole) == (count >= needed), (shape, count)


def test_what_comes_behind_a_large_matrix_that_is_tuned_already():
    """40,000 entries whose LoRA of rank 1 costs 400 are all more sensitive than a vector, which gets the 5 left."""
    values = np.ones(40_100, np.float32)
    values[40_000:] = np.linspace(0.5, 0.1, 100)
    chosen = choose(units((200, 200), (100,)), values, 405, Settings(rank=1, beta=1.0))
    assert (chosen.structured, chosen.params, chosen.tau) == (('m0',), 405, 40_005)
    assert {k: v.tolist() for k, v in chosen.sparse.items()} == {'v1': [0, 1, 2, 3, 4]}


def test_equal_entries_go_by_their_place():
    values = np.ones(40, np.float32)
    chosen = choose(units((4, 5), (4, 5)), values, 12, Settings(rank=5, alpha=1.0))
    assert {k: v.tolist() for k, v in chosen.sparse.items()} == {'m0': list(range(12))}
    values[30] = 2
    chosen = choose(units((4, 5), (4, 5)), values, 12, Settings(rank=5, alpha=1.0))
    assert {k: v.tolist() for k, v in chosen.sparse.items()} == {'m0': list(range(11)), 'm1': [10]}


def test_closest_by_hand(monkeypatch):
    """Steps of 2, 4, 6 and a class token of 3: totals 5, 7 and 13 (a vector of 10 is whole from its sixth on)."""
    monkeypatch.setattr(choice_module, 'PUBLISHED_STEPS', (2, 4, 6))
    values = np.zeros(30, np.float32)
    values[:6] = 6, 5, 4, 3, 2, 1
    shapes, asked = units((10,), (20,)), Settings(beta=10 / 6, rule='closest', class_token=3)
    for budget, tau, params in ((3, 2, 5), (5, 2, 5), (6, 4, 7), (9, 4, 7), (10, 6, 13), (30, 6, 13)):
        chosen = choose(shapes, values, budget, asked)
        assert (chosen.tau, chosen.params, chosen.class_token) == (tau, params, True), budget
    with pytest.raises(UserError, match=r'the smallest trains 5 and needs a budget of 3'):
        choose(shapes, values, 2, asked)  # |5 - 2| is more than |0 - 2|


def test_closest_may_exceed_and_within_may_not():
    """60,000 equal entries of one matrix: the published steps are 20,000, 40,000 and 60,000."""
    values = np.ones(60_000, np.float32)
    shapes = units((300, 200))  # rank 8: 4,000; 400 entries are enough
    assert choose(shapes, values, 3_000, Settings(rule='closest')).params == 4_000
    assert choose(shapes, values, 3_000, Settings()).params == 399
    with pytest.raises(UserError, match=r'2,000\. --rule within'):
        choose(shapes, values, 1_999, Settings(rule='closest'))
    assert choose(shapes, values, 2_000, Settings(rule='closest')).params == 4_000


def test_a_backbone_smaller_than_the_published_steps():
    with pytest.raises(UserError, match=r'20,000 entries.*10,000.*--rule within'):
        choose(units((100, 100)), np.ones(10_000, np.float32), 500, Settings(rule='closest'))


# properties


def test_the_scale_of_sensitivity_does_not_matter():
    shapes = units(*SHAPES)
    values = np.random.default_rng(6).lognormal(0, 3, sum(u.numel for u in shapes)).astype(np.float32)
    expected = plainly(choose(shapes, values, 60, Settings(rank=1)))
    for factor in (2.0**-60, 2.0**60):
        assert plainly(choose(shapes, values * np.float32(factor), 60, Settings(rank=1))) == expected


def test_a_choice_of_many_thousands_out_of_a_million():
    """Of 1,000 x 1,000 entries those above a quantile, none structured."""
    values = np.random.default_rng(7).random(1_000_000, dtype=np.float32)
    values[::2] = 0  # half of them tie
    chosen = choose(units((1000, 1000)), values, 150_000, Settings(rank=100, alpha=1.0))
    assert chosen.params == chosen.tau == 150_000
    index = chosen.sparse['m0']
    rest = np.delete(values, index)
    assert index.dtype == np.int32 and (np.diff(index) > 0).all() and values[index].min() >= rest.max()


# wrong input


def test_a_budget_larger_than_the_backbone():
    values = np.ones(29, np.float32)
    for rule in ('within', 'closest'):
        with pytest.raises(UserError, match='The budget of 30 is larger than the 29 parameters'):
            choose(units((4, 6), (5,)), values, 30, Settings(rule=rule))


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(structured='lora'), 'LoRA'),
        (dict(rule='nearest'), 'within'),
        (dict(rank=0), 'rank'),
        (dict(rank=True), 'rank'),
        (dict(rank=8.0), 'rank'),
        (dict(alpha=0.5), 'alpha'),
        (dict(alpha=float('nan')), 'alpha'),
        (dict(beta=float('inf')), 'beta'),
        (dict(beta='5'), 'beta'),
    ],
    ids=str,
)
def test_wrong_settings_are_named(options, said):
    with pytest.raises(UserError, match=said):
        Settings(**options)
