"""From sensitivities and a budget to what is tuned: SPT's rule, and the published search for its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError, unknown
from ..petl.delta import at_least_one
from .units import Unit

STRUCTURED = ('LoRA', 'AdaptMLP')
RULES = ('within', 'closest')
# the published search: the top 0.02, 0.04, ..., 1.58 million
PUBLISHED_STEPS = tuple(math.ceil(step * 0.02 * 1e6) for step in range(1, 80))


@dataclass(frozen=True)
class Settings:
    """What the rule takes beside sensitivities and budget.

    Args:
        structured: ``'LoRA'`` or ``'AdaptMLP'``.
        rank: of LoRA, or the adapter's bottleneck. Defaults to 8.
        alpha: a matrix is tuned structurally from 1 / alpha of that update's parameters on. Defaults to 10.
        beta: a vector is tuned as a whole from 1 / beta of its entries on. Defaults to 5.
        rule: ``'within'``, the largest choice not above the budget, or ``'closest'``, the published search.
        class_token: the parameters of the class token, which ``'closest'`` trains and counts as well; 0 for none.

    Raises:
        UserError: for a value outside these.
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
        """What tuning the whole of ``unit`` takes: a low-rank update, an adapter, or the vector itself."""
        if not unit.is_matrix:
            return unit.numel
        d_out, d_in = unit.shape
        if self.structured == 'LoRA':
            return (d_in + d_out) * self.rank
        return 2 * d_out * self.rank + self.rank + d_out

    def most(self, unit: Unit) -> int:
        """What tuning as much of ``unit`` as can be takes; of a small one, all its entries singly."""
        return self.cost(unit) if self.threshold(unit) <= unit.numel else unit.numel

    def threshold(self, unit: Unit) -> int:
        """From how many sensitive entries on the whole of ``unit`` is tuned."""
        return max(1, math.ceil(self.cost(unit) / (self.alpha if unit.is_matrix else self.beta)))


@dataclass(frozen=True)
class Choice:
    """What is tuned.

    Args:
        tau: how many of the most sensitive entries it was made from.
        structured: the names of the matrices that get a low-rank update or an adapter.
        whole: the names of the vectors that are trained as they are.
        sparse: the name of a unit -> the flat positions of its entries that are tuned, ascending, int32.
        class_token: whether the class token is trained.
        params: what it trains, the head left out.
    """

    tau: int
    structured: tuple[str, ...]
    whole: tuple[str, ...]
    sparse: dict[str, np.ndarray] = field(repr=False)
    class_token: bool
    params: int


class Ranking:
    """The most sensitive entries of a backbone, and what tuning the first tau of them comes to.

    Equally sensitive entries are in the order of the parameters, so that the same sensitivities give the same choice.

    Args:
        units: of the backbone.
        sensitivity: of all their entries, one unit after the other, (N,).
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
        """What each entry adds: itself, what makes its unit whole, or, that being so already, nothing."""
        costs = np.array([self.settings.cost(u) for u in self.units])[self.owner]
        thresholds = np.array([self.settings.threshold(u) for u in self.units])[self.owner]
        nth = _nth_of_its_kind(self.owner)
        return np.where(nth < thresholds, 1, np.where(nth == thresholds, costs - (thresholds - 1), 0))

    def choice(self, tau: int) -> Choice:
        """What is tuned when the first ``tau`` entries are taken."""
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
    """The positions of the ``entries`` largest values, largest first, equal ones in ascending order."""
    rank = len(sensitivity) - entries
    least = np.partition(sensitivity, rank)[rank]
    above = np.flatnonzero(sensitivity > least)
    chosen = np.concatenate([above, np.flatnonzero(sensitivity == least)[: entries - len(above)]])
    return chosen[np.argsort(-sensitivity[chosen], kind='stable')]


def _nth_of_its_kind(labels: np.ndarray) -> np.ndarray:
    """For each element, how many equal ones there are up to and with it."""
    by_label = np.argsort(labels, kind='stable')
    counts = np.bincount(labels)
    nth = np.empty(len(labels), dtype=np.int64)
    nth[by_label] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return nth


def choose(units: Sequence[Unit], sensitivity: np.ndarray, budget: int, settings: Settings) -> Choice:
    """What to tune under a budget.

    Args:
        units: of the backbone.
        sensitivity: of all their entries, one unit after the other, (N,).
        budget: parameters, the head left out.
        settings: of the rule.

    Raises:
        UserError: for a budget that is too small for anything, or larger than the backbone.
    """
    check_budget(budget, len(sensitivity))
    return (_closest if settings.rule == 'closest' else _within)(units, sensitivity, budget, settings)


def check_budget(budget: int, entries: int) -> None:
    """Raise :class:`UserError` for a budget above the number of entries that could be tuned."""
    if budget > entries:
        raise UserError(f'The budget of {budget:,} is larger than the {entries:,} parameters that it could go to.')


def _within(units: Sequence[Unit], sensitivity: np.ndarray, budget: int, settings: Settings) -> Choice:
    """The largest choice not above the budget."""
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
    """The choice from all entries, which need not be ranked for it."""
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
    """The published search: of its steps the one that comes closest, the last of equals; it may exceed."""
    steps = [tau for tau in PUBLISHED_STEPS if tau <= len(sensitivity)]
    if not steps:
        raise UserError(
            f'--rule closest takes the published steps, the smallest of which, {PUBLISHED_STEPS[0]:,} entries, is '
            f'more than the {len(sensitivity):,} of this backbone; take --rule within.'
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
            f'The budget of {budget:,} is too small for the published steps, the smallest of which trains '
            f'{smallest:,}; the smallest budget that gives it is {-(-smallest // 2):,}. --rule within takes any.'
        )
    return ranking.choice(best)
