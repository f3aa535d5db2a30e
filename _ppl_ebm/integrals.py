"""Sums over states and numerical integrals up to three dimensions: what a normaliser and moments should be."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

#: Dimensions up to which a density is integrated, and the nodes of each coordinate.
NODES = {1: 2001, 2: 401, 3: 101}
MAX_STATES = 2**16
MAX_CARDINALITY = 64
_FARTHEST = 8.5  # nodes reach sinh of this, 2457 standard deviations
_NEGLIGIBLE = 40.0  # below the largest term, in nats
_NUM_FITS = 6  # of the grid to the density


class Moments(NamedTuple):
    """What a sum or an integral says of a density.

    :param log_partition: log of the total.
    :param error: what a grid of twice the spacing has otherwise; 0 for sums.
    :param mean: of the coordinates, shape ``(D,)``.
    :param covariance: ``None`` where the density has none, or too much of it far out.
    """

    log_partition: float
    error: float
    mean: Array
    covariance: Array | None


def states(inside: Callable[[Array], NDArray[np.bool_]], size: int) -> Array | None:
    """All states of ``size`` whole numbers from 0, shape ``(states, size)``; ``None`` if there are too many.

    :param inside: which rows are in the support.

    >>> states(lambda rows: (rows <= [1, 2]).all(-1), 2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]
    """
    levels = np.arange(MAX_CARDINALITY)
    rows = levels[:, None, None] * np.eye(size)  # (level, unit, size): one unit at the level, the others at 0
    counts = inside(rows.reshape(-1, size)).reshape(len(levels), size).sum(0)
    if (counts == MAX_CARDINALITY).any() or math.prod(map(int, counts)) > MAX_STATES:
        return None
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, size).astype(float)


def summed(log_density: Array, points: Array) -> Moments:
    """Moments of a density over ``points``, shape ``(states, D)``."""
    total, probability = _normalised(log_density)
    mean = probability @ points
    return Moments(total, 0.0, mean, _covariance(probability, points, mean))


def integrated(log_density: Callable[[Array], Array], size: int) -> Moments:
    """Moments of a density over R^size, by the trapezoidal rule in coordinates that follow it.

    Nodes are dense where the density is and reach far out: ``centre + root sinh(t)`` with equally spaced ``t``.

    :param log_density: maps points ``(n, size)`` to ``(n,)``.
    :param size: at most 3.

    >>> found = integrated(lambda x: -0.5 * (((x - 3) / [1, 2]) ** 2).sum(-1), 2)
    >>> print(f"{found.log_partition:.8f} {found.error < 1e-8} {found.mean} {np.diagonal(found.covariance)}")
    2.53102425 True [3. 3.] [1. 4.]
    """
    count = NODES[size]
    centre, root, reach = np.zeros(size), np.eye(size), _FARTHEST
    for _ in range(_NUM_FITS):
        coarse = _Grid(centre, root, reach, count // 2 + 1)
        centre, root, reach = coarse.fitted(log_density(coarse.points))
    grid = _Grid(centre, root, reach, count)
    log_terms = log_density(grid.points) + grid.log_weights
    total, probability = _normalised(log_terms)
    on_every_second = _normalised(log_terms[grid.every_second])[0] + size * math.log(2)
    mean = probability @ grid.points
    covariance = _covariance(probability, grid.points, mean)
    far = ((grid.points - mean) ** 2) * grid.is_far[:, None]
    settled = (probability @ far < 1e-4 * np.diagonal(covariance)).all()
    return Moments(total, abs(total - on_every_second), mean, covariance if settled else None)


class _Grid:
    """Nodes ``centre + root sinh(t)``, with the logarithms of their weights."""

    def __init__(self, centre: Array, root: Array, reach: float, count: int) -> None:
        size = len(centre)
        axis = np.linspace(-reach, reach, count)
        self.spacing, self.root = axis[1] - axis[0], root
        self.unit = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), -1).reshape(-1, size)
        self.points = centre + np.sinh(self.unit) @ root.T
        volume = size * math.log(self.spacing) + np.linalg.slogdet(root)[1]
        self.log_weights = np.log(np.cosh(self.unit)).sum(-1) + volume
        self.is_far = np.abs(self.unit).max(-1) > 0.85 * reach
        index = np.stack(np.meshgrid(*[np.arange(count)] * size, indexing="ij"), -1).reshape(-1, size)
        self.every_second = (index % 2 == 0).all(-1)

    def fitted(self, log_density: Array) -> tuple[Array, Array, float]:
        """Centre, root and reach of a grid that fits the *squared* density, whose moments are always finite."""
        _, probability = _normalised(2 * log_density + self.log_weights)
        centre = probability @ self.points
        unseen = self.root * (self.spacing * np.sqrt(probability @ np.cosh(self.unit) ** 2))  # between the nodes
        root = np.linalg.cholesky(2 * _covariance(probability, self.points, centre) + unseen @ unseen.T)
        log_terms = log_density + self.log_weights
        near = self.points[log_terms > log_terms.max() - _NEGLIGIBLE]
        distance = np.abs(np.linalg.solve(root, (near - centre).T)).max()
        return centre, root, min(_FARTHEST, 1.1 * math.asinh(distance))


def _normalised(log_terms: Array) -> tuple[float, Array]:
    """log of the sum of ``exp(log_terms)``, and the shares in it."""
    top = log_terms.max()
    terms = np.exp(log_terms - top)
    total = terms.sum()
    return float(top + np.log(total)), terms / total


def _covariance(probability: Array, points: Array, mean: Array) -> Array:
    centred = points - mean
    return centred.T @ (probability[:, None] * centred)
