"""Tests for proper densities, on NumPy arrays: does ``exp(-energy)`` have an integral?"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from _ppl_ebm.activations import Growth
from _ppl_ebm.errors import ImproperDensityError

_MAX_UNITS = 16
_MARGIN = 1e-9


def single_models(arrays: Sequence[np.ndarray], core_ndims: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """The parameters of each model of a batch.

    :param arrays: the parameters, whose leading dimensions broadcast.
    :param core_ndims: how many dimensions of each are its own.
    """
    leads = [array.shape[: array.ndim - core] for array, core in zip(arrays, core_ndims, strict=True)]
    batch = np.broadcast_shapes(*leads)
    cores = [array.shape[len(lead) :] for array, lead in zip(arrays, leads, strict=True)]
    flat = [np.broadcast_to(a, batch + core).reshape(-1, *core) for a, core in zip(arrays, cores, strict=True)]
    return (list(model) for model in zip(*flat, strict=True))


def check_spectral_norm(owner: str, name: str, weights: np.ndarray, gains: np.ndarray) -> None:
    """Refuse unless ``I - W diag(gains) W'`` is positive definite, gains below zero left out.

    :param weights: shape ``(D, K)``.
    :param gains: shape ``(K,)``.
    """
    scaled = weights * np.sqrt(np.maximum(gains, 0))
    short = scaled if scaled.shape[0] < scaled.shape[1] else scaled.T
    if _is_clearly_positive(np.eye(len(short)) - short @ short.T, 1.0):
        return
    norm = np.linalg.norm(scaled, ord=2)
    if not norm < 1:
        raise ImproperDensityError(
            f"{name}: {owner} expected a spectral norm below 1 (times the square root of the activation's slope and of "
            f"the gain), got {norm:.6g}: exp(-energy) has no integral, or cannot be shown to have one"
        )


def _is_clearly_positive(matrix: np.ndarray, scale: float) -> bool:
    """Whether a symmetric matrix is positive definite by a margin; several times faster than its eigenvalues."""
    try:
        np.linalg.cholesky(matrix - _MARGIN * scale * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def check_conditional_precisions(
    owner: str,
    filters: np.ndarray,
    pooling: np.ndarray,
    diagonal: np.ndarray | float = 1.0,
    low: float = 0.0,
    high: float = 1.0,
    fixed: np.ndarray | None = None,
) -> None:
    """Refuse unless ``diag(diagonal) - C diag(P h) C' - B B'`` is positive definite for every h in {low, high}^K.

    Exact: a column of P with one sign has one worst state, so only columns of mixed signs are enumerated.

    :param filters: C, shape ``(D, F)``.
    :param pooling: P, shape ``(F, K)``.
    :param diagonal: positive, shape ``(D,)`` or a scalar.
    :param fixed: B, shape ``(D, J)``; default none.
    """
    bound = np.maximum(pooling * high, pooling * low).sum(1)
    if fixed is None and (bound <= 0).all():
        return
    columns = filters if fixed is None else np.concatenate([filters, fixed], axis=1)
    scaled = columns / np.broadcast_to(np.sqrt(diagonal), len(filters))[:, None]
    root: np.ndarray = np.asarray(np.linalg.qr(scaled, mode="r")) if columns.shape[1] < columns.shape[0] else scaled
    if _largest_eigenvalue(root, bound) < 1:
        return
    mixed = (pooling > 0).any(0) & (pooling < 0).any(0)
    if mixed.sum() > _MAX_UNITS:
        raise _not_below(owner, f"more than {_MAX_UNITS} units of mixed signs")
    settled = pooling[:, ~mixed] @ np.where((pooling > 0).any(0), high, low)[~mixed]
    for state in itertools.product((low, high), repeat=int(mixed.sum())):
        worst = _largest_eigenvalue(root, settled + pooling[:, mixed] @ np.array(state))
        if not worst < 1:
            raise _not_below(owner, f"an eigenvalue of {worst:.6g}")


def _largest_eigenvalue(root: np.ndarray, pooled: np.ndarray) -> float:
    """That of ``root diag(pooled) root'``, where the columns beyond ``pooled`` weigh 1."""
    weights = np.concatenate([pooled, np.ones(root.shape[1] - len(pooled))])
    return float(np.linalg.eigvalsh((root * weights) @ root.T)[-1]) if root.size else 0.0


def _not_below(owner: str, found: str) -> ImproperDensityError:
    return ImproperDensityError(
        f"pooling: {owner} expected filters diag(pooling h) filters' below the precision (its eigenvalues relative to "
        f"that below 1) for every state h of the covariance units, got {found}: exp(-energy) has no integral, or "
        "cannot be shown to have one"
    )


def check_pooled_growth(
    owner: str, filters: np.ndarray, pooling: np.ndarray, activation: Growth, fixed: np.ndarray | None = None
) -> None:
    """Refuse covariance units ``-1/2 G(b + sum_f P_fk (C_f'y)^2)`` that a unit quadratic form does not outweigh.

    Where the activation grows on one side, G is quartic in the value there, so pooling weights of that sign are refused
    unless it falls; where it is bounded, its limits are the states of :func:`check_conditional_precisions`. Where its
    slopes are not known, nothing is refused.
    """
    if activation.slopes is None:
        return
    used = pooling[(filters != 0).any(0)]
    for slope, grows in zip(activation.slopes, ((used < 0).any(), (used > 0).any()), strict=True):
        if slope > 0 and grows:
            raise ImproperDensityError(
                f"pooling: {owner} with {activation.name} units expected weights of the sign on which the activation "
                f"is bounded, got entries from {used.min():.6g} to {used.max():.6g}: exp(-energy) has no integral"
            )
    low, high = activation.limits
    low, high = (low, low) if activation.slopes[1] > 0 else (low, high)
    parts = [pooling[:, [k]] for k in range(pooling.shape[1])] if activation.is_joint else [pooling]
    for part in parts:
        check_conditional_precisions(owner, filters, part, 1.0, 1.0 if activation.is_joint else low, high, fixed)


def _spans(filters: np.ndarray) -> bool:
    """Whether the columns span all dimensions."""
    if filters.shape[1] < len(filters):
        return False
    gram = filters @ filters.T
    return _is_clearly_positive(gram, np.trace(gram)) or int(np.linalg.matrix_rank(filters)) == len(filters)


def check_student_tails(owner: str, filters: np.ndarray, pooling: np.ndarray, concentration: np.ndarray) -> None:
    """Refuse unless ``2 sum of concentrations of the units that see U > dim U`` for every subspace ``U != 0``.

    The worst subspaces are those orthogonal to all filters of some set of units, so sets of units are enumerated, after
    a sufficient condition: twice every concentration exceeds the rank of its unit's filters, which together span.

    :param filters: C, shape ``(D, F)``.
    :param pooling: P, shape ``(F, K)``, non-negative.
    :param concentration: gamma, shape ``(K,)``.
    """
    sees = pooling > 0
    dimensions, num_units, spans = filters.shape[0], len(concentration), _spans(filters[:, sees.any(1)])
    # The number of a unit's filters is at least their rank, which takes longer to find.
    light = (
        2 * concentration[k] > sees[:, k].sum() or 2 * concentration[k] > _rank(filters, sees[:, [k]])
        for k in range(num_units)
    )
    if spans and all(light):
        return
    message = f"concentration: {owner} expected, for every subspace, twice the sum over the units that see it above "
    if num_units > _MAX_UNITS and spans:
        raise ImproperDensityError(
            f"{message}its dimension, which is tested for at most {_MAX_UNITS} units unless twice every concentration "
            f"exceeds the rank of its unit's filters; got {num_units} units, the smallest at {concentration.min():.6g}"
        )
    for blind in itertools.product((False, True), repeat=num_units) if spans else [(True,) * num_units]:
        units = np.array(blind)
        subspace, weight = dimensions - _rank(filters, sees[:, units]), 2 * concentration[~units].sum()
        if subspace and not weight > subspace:
            raise ImproperDensityError(
                f"{message}its dimension, got {weight:.6g} for one of dimension {subspace}: exp(-energy) has no "
                "integral"
            )


def _rank(filters: np.ndarray, sees: np.ndarray) -> int:
    """That of the filters which any of the units sees, shape ``(F, K)``."""
    seen = filters[:, sees.any(1)]
    return int(np.linalg.matrix_rank(seen)) if seen.size else 0
