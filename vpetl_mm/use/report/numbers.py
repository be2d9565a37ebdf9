"""The statistics of a report: intervals, confusions, calibration, McNemar's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, chi2

LEVEL = 0.95
DRAWS = 4000  # of the bootstrap
BINS = 15  # of the calibration, as Guo et al. 2017
FEW = 25  # discordant pairs below which McNemar's test is exact


@dataclass(frozen=True)
class Share:
    """A share in percent, with its interval; ``hits`` of ``of`` samples, None where it is a mean of shares."""

    percent: float
    low: float
    high: float
    hits: int | None = None
    of: int = 0


def share(hits: int, of: int) -> Share:
    """Return ``hits`` of ``of`` in percent, with Wilson's score interval at 95 percent (JASA 22, 1927)."""
    interval = binomtest(int(hits), int(of)).proportion_ci(LEVEL, 'wilson')
    return Share(100 * hits / of, 100 * interval.low, 100 * interval.high, int(hits), int(of))


def mean_share(shares: Sequence[Share]) -> Share:
    """Return the mean of the classes' accuracies, with the percentile bootstrap's interval at 95 percent.

    The samples of each class are drawn again from that class, so that a class's hits are binomial. A class that is
    all right or all wrong adds no spread: with few samples each, the interval is too narrow.
    """
    hits, of = (np.array([getattr(s, name) for s in shares]) for name in ('hits', 'of'))
    means = (np.random.default_rng(0).binomial(of, hits / of, (DRAWS, len(of))) / of).mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Share(100 * float((hits / of).mean()), 100 * float(low), 100 * float(high), None, int(of.sum()))


def confusions(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the samples of each class (rows) that were taken for each class (columns), [C, C]."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Pair:
    """Two classes: how many samples of the first were taken for the second, and the other way round."""

    one: int
    two: int
    there: int
    back: int


def confused_pairs(counts: np.ndarray, most: int) -> list[Pair]:
    """Return the pairs of classes that are confused most often, in both directions together, at most ``most``."""
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind='stable')[:most]
    pairs = []
    for one, two in zip(*np.unravel_index(order, both.shape), strict=True):
        if both[one, two]:
            a, b = (one, two) if counts[one, two] >= counts[two, one] else (two, one)
            pairs.append(Pair(int(a), int(b), int(counts[a, b]), int(counts[b, a])))
    return pairs


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy, in bins of equal width.

    Args:
        counts: samples in each bin.
        confidence: their mean confidence, nan in an empty bin.
        accuracy: the share of them that is right.
        ece: the expected calibration error: the mean distance of the two, weighted by the counts.
        gap: mean confidence less accuracy over all samples; above 0 the model is too sure.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float
    gap: float


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare the confidence of N predictions with whether they are right, as Guo et al. 2017, Eq. 2 and 3.

    Bin m of M holds the confidences in ((m - 1) / M, m / M].
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights, minlength=bins) for weights in (confidence, right)]
    with np.errstate(invalid='ignore'):
        means, accuracy = (s / counts for s in sums)
    ece = float(np.abs(sums[0] - sums[1]).sum() / len(right))
    return Calibration(counts, means, accuracy, ece, float(confidence.mean() - right.mean()))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two models on the same samples: those that only the first, or only the second, has right."""

    first: int
    second: int
    p: float
    how: str


def mcnemar(first: int, second: int) -> McNemar:
    """Test whether two models are right equally often, two-sided.

    With fewer than 25 samples on which one alone is right, by the exact binomial distribution; else by chi-square
    with one degree of freedom and Edwards's continuity correction (Psychometrika 13, 1948).
    """
    several = first + second
    if several < FEW:
        p = binomtest(first, several).pvalue if several else 1.0
        return McNemar(first, second, float(p), 'exact binomial')
    statistic = max(abs(first - second) - 1, 0) ** 2 / several
    return McNemar(first, second, float(chi2.sf(statistic, 1)), f'chi-square {statistic:.2f}, continuity-corrected')
