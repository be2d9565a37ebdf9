"""Chooses what is tuned under a budget: SPT's rule, and the published search for its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError, unknown
from ..petl.checks import at_least_one
from .units import Unit

STRUCTURED = ('LoRA', 'AdaptMLP')
RULES = ('within', 'closest')
# the published search: the top 0.02, 0.04, ..., 1.58 million
PUBLISHED_STEPS = tuple(math.ceil(step * 0.02 * 1e6) for step in range(1, 80))


@dataclass(frozen=True)
class Settings:
    """The rule's settings.

    Args:
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck. Defaults to 8.
        alpha: a matrix is tuned structurally if it holds at least 1 / alpha of the update's parameters in sensitive
            entries. Defaults to 10.
        beta: a vector is tuned whole if at least 1 / beta of its entries are sensitive. Defaults to 5.
        rule: ``'within'`` (default), the largest choice not above the budget, or ``'closest'``, the published search.
        class_token: parameters of the class token, which ``'closest'`` also trains and counts; 0 if there is none.

    Raises:
        UserError: for an invalid value.
    """

    structured: str = 'LoRA'
    rank: int = 8
    alpha: float = 10.0
    beta: float = 5.0
    rule: str = 'within'
    class_token: int = 0

    def __post_init__(self) -> None:
        for what, value, valid in (('structured', self.structured, STRUCTURED), ('rule', self.rule, RULES)):
            if value not in valid:
                raise unknown(what, value, valid)
        at_least_one('rank', self.rank)
        for name, value in (('alpha', self.alpha), ('beta', self.beta)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 1:
                raise UserError(f'{name} must be a number of at least 1, got {value!r}.')

    def cost(self, unit: Unit) -> int:
        """Return the parameters of tuning all of ``unit``: of a low-rank update, an adapter, or the vector itself."""
        if not unit.is_matrix:
            return unit.numel
        d_out, d_in = unit.shape
        if self.structured == 'LoRA':
            return (d_in + d_out) * self.rank
        return 2 * d_out * self.rank + self.rank + d_out

    def most(self, unit: Unit) -> int:
        """Return the parameters of tuning as much of ``unit`` as possible; of a small one, all entries singly."""
        return self.cost(unit) if self.threshold(unit) <= unit.numel else unit.numel

    def threshold(self, unit: Unit) -> int:
        """Return the number of sensitive entries from which all of ``unit`` is tuned."""
        return max(1, math.ceil(self.cost(unit) / (self.alpha if unit.is_matrix else self.beta)))


@dataclass(frozen=True)
class Choice:
    """The weights to tune.

    Args:
        tau: number of most sensitive entries it is based on.
        structured: the names of the matrices that get a low-rank update or an adapter.
        whole: the names of the vectors that are trained directly.
        sparse: the name of a unit -> the flat positions of its entries that are tuned, ascending, int32.
        class_token: whether the class token is trained.
        params: number of trained parameters, without the head.
    """

    tau: int
    structured: tuple[str, ...]
    whole: tuple[str, ...]
    sparse: dict[str, np.ndarray] = field(repr=False)
    class_token: bool
    params: int


class Ranking:
    """The most sensitive entries of a backbone, and the parameters of tuning the first tau of them.

    Ties are in the order of the parameters, so that the same sensitivities always lead to the same choice.

    Args:
        units: of the backbone.
        sensitivity: of all their entries, one unit after another, (N,).
        settings: of the rule.
        entries: how many entries to rank, from 1 to N.
    """

    def __init__(self, units: Sequence[Unit], sensitivity: np.ndarray, settings: Settings, entries: int) -> None:
        self.units, self.settings = list(units), settings
        self.starts = np.cumsum([0, *(u.numel for u in units)])
        self.order = _most_sensitive(sensitivity, entries)
        self.owner = np.searchsorted(self.starts, self.order, side='right') - 1
        self.params = np.cumsum(self._growth())

    def _growth(self) -> np.ndarray:
        """Return the parameters that each entry adds: 1, the rest of its unit, or 0 once that is tuned whole."""
        costs = np.array([self.settings.cost(u) for u in self.units])[self.owner]
        thresholds = np.array([self.settings.threshold(u) for u in self.units])[self.owner]
        nth = _nth_of_its_kind(self.owner)
        return np.where(nth < thresholds, 1, np.where(nth == thresholds, costs - (thresholds - 1), 0))

    def choice(self, tau: int) -> Choice:
        """Return what is tuned if the first ``tau`` entries are taken."""
        owner, order = self.owner[:tau], self.order[:tau]
        counts = np.bincount(owner, minlength=len(self.units))
        structured, whole, sparse = [], [], {}
        for i, unit in enumerate(self.units):
            if counts[i] >= self.settings.threshold(unit):
                (structured if unit.is_matrix else whole).append(unit.name)
            elif counts[i]:
                sparse[unit.name] = np.sort(order[owner == i] - self.starts[i]).astype(np.int32)
        token = self.settings.class_token if self.settings.rule == 'closest' else 0
        params = int(self.params[tau - 1]) + token
        return Choice(int(tau), tuple(structured), tuple(whole), sparse, bool(token), params)


def _most_sensitive(sensitivity: np.ndarray, entries: int) -> np.ndarray:
    """Return the positions of the ``entries`` largest values, largest first, ties in ascending order."""
    rank = len(sensitivity) - entries
    least = np.partition(sensitivity, rank)[rank]
    above = np.flatnonzero(sensitivity > least)
    chosen = np.concatenate([above, np.flatnonzero(sensitivity == least)[: entries - len(above)]])
    return chosen[np.argsort(-sensitivity[chosen], kind='stable')]


def _nth_of_its_kind(labels: np.ndarray) -> np.ndarray:
    """Return, for each element, the number of equal ones up to and including it."""
    by_label = np.argsort(labels, kind='stable')
    counts = np.bincount(labels)
    nth = np.empty(len(labels), dtype=np.int64)
    nth[by_label] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return nth


def choose(units: Sequence[Unit], sensitivity: np.ndarray, budget: int, settings: Settings) -> Choice:
    """Choose what to tune under a budget in parameters, without the head; the rest is as of :class:`Ranking`.

    Raises:
        UserError: for a budget that is too small for anything, or larger than the backbone.
    """
    check_budget(budget, len(sensitivity))
    return (_closest if settings.rule == 'closest' else _within)(units, sensitivity, budget, settings)


def check_budget(budget: int, entries: int) -> None:
    """Check that a budget is not above the number of entries that can be tuned."""
    if budget > entries:
        raise UserError(f'The budget of {budget:,} is larger than the {entries:,} parameters that can be tuned.')


def _within(units: Sequence[Unit], sensitivity: np.ndarray, budget: int, settings: Settings) -> Choice:
    """Return the largest choice not above the budget."""
    if sum(map(settings.most, units)) <= budget:
        return _everything(units, settings)
    ranked = min(len(sensitivity), 4 * budget)
    ranking = Ranking(units, sensitivity, settings, ranked)
    while ranking.params[-1] <= budget and ranked < len(sensitivity):
        ranked = min(len(sensitivity), 4 * ranked)
        ranking = Ranking(units, sensitivity, settings, ranked)
    tau = int(np.searchsorted(ranking.params, budget, side='right'))
    if not tau:
        raise UserError(f'The budget of {budget:,} is too small for anything; the smallest is {ranking.params[0]:,}.')
    return ranking.choice(tau)


def _everything(units: Sequence[Unit], settings: Settings) -> Choice:
    """Return the choice based on all entries, which then need no ranking."""
    whole = [u for u in units if settings.threshold(u) <= u.numel]
    return Choice(
        tau=sum(u.numel for u in units),
        structured=tuple(u.name for u in whole if u.is_matrix),
        whole=tuple(u.name for u in whole if not u.is_matrix),
        sparse={u.name: np.arange(u.numel, dtype=np.int32) for u in units if u not in whole},
        class_token=False,
        params=sum(map(settings.most, units)),
    )


def _closest(units: Sequence[Unit], sensitivity: np.ndarray, budget: int, settings: Settings) -> Choice:
    """Return the choice of the published step that comes closest, the last of ties; it may exceed the budget."""
    steps = [tau for tau in PUBLISHED_STEPS if tau <= len(sensitivity)]
    if not steps:
        raise UserError(
            f'The smallest of the published steps, {PUBLISHED_STEPS[0]:,} entries, is more than the '
            f'{len(sensitivity):,} of this backbone; use --rule within instead of --rule closest.'
        )
    ranking = Ranking(units, sensitivity, settings, steps[-1])
    best, best_params = None, 0
    for tau in steps:
        params = int(ranking.params[tau - 1]) + settings.class_token
        if abs(params - budget) <= abs(best_params - budget):
            best, best_params = tau, params
    if best is None:
        smallest = int(ranking.params[steps[0] - 1]) + settings.class_token
        raise UserError(
            f'The budget of {budget:,} is too small for the published steps: the smallest trains {smallest:,} and '
            f'needs a budget of {-(-smallest // 2):,}. --rule within takes any budget.'
        )
    return ranking.choice(best)
