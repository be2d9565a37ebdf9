"""Groups classes that a model confuses with each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage, optimal_leaf_ordering
from scipy.sparse import coo_array
from scipy.spatial.distance import squareform

from .predictions import Predictions

SINGLE = 20  # so many classes or fewer are shown one by one
MOST = 16  # groups
LEAST = 1e-6  # of a share, whose logarithm is taken


@dataclass(frozen=True)
class Groups:
    """The classes in an order in which similar ones are neighbours, cut into groups.

    Args:
        order: every class once, those of the first group first.
        members: the classes of each group.
    """

    order: list[int]
    members: list[list[int]]

    def of(self, counts: np.ndarray) -> np.ndarray:
        """Sum a matrix of the classes [C, C] over the groups, [G, G]."""
        return np.array([[counts[np.ix_(a, b)].sum() for b in self.members] for a in self.members])


def groups_of(predictions: Predictions) -> Groups:
    """Group the classes by what the model takes them for.

    Of the probability that the samples of a class give to the other classes, each gets a share. Two classes are as
    near as the mean of their shares of each other: their distance is its negative logarithm. Average linkage joins
    them; the tree is cut into about the square root of C groups, at most 16, and its leaves are turned so that
    neighbours are similar.
    """
    classes = predictions.classes
    if classes <= SINGLE:
        return Groups([*range(classes)], [[c] for c in range(classes)])
    seen = np.flatnonzero(predictions.readable)
    of_class = coo_array((np.ones(len(seen)), (predictions.labels[seen], seen)), (classes, len(predictions.labels)))
    given = of_class @ predictions.probabilities.astype(np.float64)
    np.fill_diagonal(given, 0)
    shares = given / np.maximum(given.sum(1, keepdims=True), LEAST)
    distances = -np.log(np.maximum((shares + shares.T) / 2, LEAST))
    np.fill_diagonal(distances, 0)
    condensed = squareform(distances, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, 'average'), condensed)
    order, numbers = leaves_list(tree), fcluster(tree, min(MOST, round(math.sqrt(classes))), 'maxclust')
    members: dict[int, list[int]] = {}
    for c in order.tolist():
        members.setdefault(int(numbers[c]), []).append(c)
    return Groups(order.tolist(), [*members.values()])
