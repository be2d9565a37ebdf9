"""Classes that a model takes for one another, in groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage, optimal_leaf_ordering

from .predictions import Predictions

SINGLE = 20  # so many classes or fewer are shown one by one
MOST = 16  # groups


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

    A class is described by the mean probabilities that its samples got. Two classes are as far apart as these
    distributions, each mixed with its transpose (Hellinger's distance); Ward's method joins them, and the tree is cut
    into about the square root of C groups, at most 16. The leaves are turned so that neighbours are similar.
    """
    classes = predictions.classes
    if classes <= SINGLE:
        return Groups([*range(classes)], [[c] for c in range(classes)])
    mean = np.zeros((classes, classes))
    seen = predictions.readable
    np.add.at(mean, predictions.labels[seen], predictions.probabilities[seen])
    mean /= np.maximum(mean.sum(1, keepdims=True), 1e-12)
    roots = np.sqrt((mean + mean.T) / 2)
    tree = linkage(roots, 'ward')
    tree = optimal_leaf_ordering(tree, roots)
    order, numbers = leaves_list(tree), fcluster(tree, min(MOST, round(math.sqrt(classes))), 'maxclust')
    members: dict[int, list[int]] = {}
    for c in order.tolist():
        members.setdefault(int(numbers[c]), []).append(c)
    return Groups(order.tolist(), [*members.values()])
