"""Fixed points of a reconstruction, on NumPy arrays: which are different, of what kind, and where to search again."""

import itertools
import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

KINDS = ("sink", "saddle", "source", "degenerate")

Array = TypeVar("Array")
#: From starts to the ends of searches, whether each is a fixed point, and the field's Jacobian there.
Search: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class FixedPoints(NamedTuple, Generic[Array]):
    """Fixed points by kind, sinks first; what ``fixed_points`` returns.

    ``points``
        shape ``(M, D)``.
    ``kinds``
        ``"sink"``, ``"saddle"``, ``"source"`` or ``"degenerate"`` for each.
    ``eigenvalues``
        of the field's Jacobian at each, complex, shape ``(M, D)``, in order of their real parts.
    ``num_dropped``
        how many of the starts led to no fixed point.

    >>> found = FixedPoints(np.zeros((1, 2)), ("saddle",), np.array([[-1 + 0j, 0.5 + 0j]]), num_dropped=3)
    >>> found.kinds.count("sink")
    0
    """

    points: Array
    kinds: tuple[str, ...]
    eigenvalues: Array
    num_dropped: int


def locate(search: Search, ends: np.ndarray, starts: np.ndarray, tolerance: float) -> FixedPoints[np.ndarray]:
    """The fixed points that searches from all points, and then from half-way between the sinks found, lead to.

    :param search: called at most twice, with arrays of one shape, so that it compiles only once.
    :param ends: where the iteration from each start ended, shape ``(N, D)``.
    :param starts: the starts themselves, of the same shape.
    :param tolerance: see :func:`classify`.

    >>> identity = lambda points: (points, np.ones(len(points), bool), np.broadcast_to(-np.eye(1), (len(points), 1, 1)))
    >>> found = locate(identity, np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]), 1e-5)
    >>> found.points.ravel().tolist(), set(found.kinds)
    ([0.0, 1.0, 0.5], {'sink'})
    """
    points, is_fixed, matrices = search(np.concatenate([ends, starts]))
    num_dropped = int(np.sum(~is_fixed.reshape(2, -1).any(0)))
    found, kinds, eigenvalues = classify(points[is_fixed], matrices[is_fixed], tolerance)
    between = midpoints(found, kinds, len(points))
    if len(between):
        more, is_more, others = search(between)
        points = np.concatenate([points[is_fixed], more[is_more]])
        matrices = np.concatenate([matrices[is_fixed], others[is_more]])
        found, kinds, eigenvalues = classify(points, matrices, tolerance)
    return FixedPoints(found, tuple(KINDS[kind] for kind in kinds), eigenvalues, num_dropped)


def classify(points: np.ndarray, matrices: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that differ, their kinds (as positions in ``KINDS``, in order) and eigenvalues.

    :param points: fixed points, shape ``(N, D)``.
    :param matrices: the field's Jacobian at each, shape ``(N, D, D)``.
    :param tolerance: points nearer than that, times one plus their length, are one, and degenerate ones nearer than its
        square root; a real part of at most that is zero.
    """
    kept = _distinct(points, np.full(len(points), tolerance))
    points, eigenvalues = points[kept], np.linalg.eigvals(matrices[kept])
    eigenvalues = np.sort(eigenvalues.astype(np.result_type(points.dtype, np.complex64)), -1)
    kinds = np.array([_kind(row.real, tolerance) for row in eigenvalues], int)
    kept = _distinct(points, np.where(kinds == KINDS.index("degenerate"), math.sqrt(tolerance), tolerance))
    order = kept[np.argsort(kinds[kept], kind="stable")]
    return points[order], kinds[order], eigenvalues[order]


def _distinct(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Indices of points that lie farther than their radius, times one plus their length, from all before them."""
    kept: list[int] = []
    for index, (point, radius) in enumerate(zip(points, radii, strict=True)):
        distances = np.linalg.norm(points[kept] - point, axis=-1)
        if np.all(distances > radius * (1 + np.linalg.norm(point))):
            kept.append(index)
    return np.array(kept, int)


def _kind(rates: np.ndarray, tolerance: float) -> int:
    """Position in ``KINDS`` of a fixed point with these real parts."""
    if np.any(np.abs(rates) <= tolerance):
        return KINDS.index("degenerate")
    return KINDS.index("sink" if np.all(rates < 0) else "source" if np.all(rates > 0) else "saddle")


def midpoints(points: np.ndarray, kinds: np.ndarray, count: int) -> np.ndarray:
    """Half-way points of the nearest pairs of sinks: ``count`` of them, with repeats, or none.

    :param points: shape ``(N, D)``.
    :param kinds: of each, as positions in ``KINDS``.
    """
    sinks = points[kinds == KINDS.index("sink")]
    pairs = sorted(itertools.combinations(sinks, 2), key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))
    middles = [(first + second) / 2 for first, second in pairs[:count]]
    return np.resize(middles, (count if pairs else 0, sinks.shape[-1])).astype(sinks.dtype)
