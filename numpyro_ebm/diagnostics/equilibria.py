"""Fixed points of a reconstruction and what the field does around them: an autoencoder remembers its sinks."""

import copy
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import Distribution

from numpyro_ebm.diagnostics.fields import Function, as_function, as_points, check_output, check_positive, jacobian
from numpyro_ebm.infer.samplers import check_positive_int

KINDS = ("sink", "saddle", "source", "degenerate")


class FixedPoints(NamedTuple):
    """Fixed points by kind, sinks first; see :func:`fixed_points`.

    ``points``
        shape ``(M, D)``.
    ``kinds``
        ``"sink"``, ``"saddle"``, ``"source"`` or ``"degenerate"`` for each.
    ``eigenvalues``
        of the field's Jacobian at each, complex, shape ``(M, D)``, in order of their real parts.
    ``num_dropped``
        how many of the starts led to no fixed point.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.diagnostics.equilibria import fixed_points
    >>> fixed_points(lambda x: x + 1, jnp.zeros((5, 2))).num_dropped
    5
    """

    points: jax.Array
    kinds: tuple[str, ...]
    eigenvalues: jax.Array
    num_dropped: int


def fixed_points(reconstruct: Any, starts: Any, num_steps: int = 500, tolerance: float = 1e-5) -> FixedPoints:
    r"""Fixed points :math:`r(x) = x` of a reconstruction, told apart by the field :math:`F(x) = r(x) - x`.

    With the eigenvalues of ``J = dF/dx``, a point is a sink if all real parts are negative, a source if all are
    positive, else a saddle, and degenerate if one is 0 (to ``tolerance``).

    Iterating ``x <- r(x)`` finds the sinks (Kamyshanska & Memisevic 2013); Newton's method on ``F`` finds the others.
    It runs from the ends of these iterations, which it polishes, from the starts, and from half-way between sinks. It
    takes ``-(J'J + m I)^-1 J'F`` with ``m <= |F|^2`` (Levenberg 1944; Yamashita & Fukushima 2001), or the halving of it
    that makes ``|F|`` smallest. A point that no search was led to is missed: more starts find more.

    :param reconstruct: a function of ``(..., D)`` or ``(D,)`` to the same shape, a module, or an object with a method
        ``reconstruct`` (autoencoders).
    :param starts: where to start, shape ``(..., D)``: data, or draws over the region of interest. Each costs the memory
        of a few D x D matrices.
    :param num_steps: the most steps of each search.
    :param tolerance: a point is fixed if ``|r(x) - x| <= tolerance (1 + |x|)``; nearer ones than that are one point.
        Degenerate points are only known to its square root. In float32, not below 1e-6.
    :raises TypeError: for a ``reconstruct`` that is none, or ``starts`` that are not floating point.
    :raises ValueError: for no or infinite ``starts``, a ``num_steps`` or ``tolerance`` that is not positive, a
        distribution with batch dimensions, or a reconstruction that does not return the shape of its values.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.diagnostics.equilibria import fixed_points
    >>> found = fixed_points(lambda x: jnp.tanh(2 * x), jnp.array([[-1.0], [0.5]]))
    >>> for point, kind in zip(found.points, found.kinds):
    ...     print(f"{point[0]:.3f} {kind}")
    -0.958 sink
    0.958 sink
    0.000 source
    """
    check_positive_int("num_steps", num_steps)
    check_positive("tolerance", tolerance)
    function, starts = _resolve(reconstruct, starts)
    field = lambda points: function(points) - points
    refine = jax.jit(lambda points: _newton(field, points, num_steps))
    ends = jax.jit(lambda points: _iterate(function, points, num_steps, tolerance))(starts)
    candidates = refine(jnp.concatenate([ends, starts]))
    fixed = _is_fixed(field, candidates, tolerance)
    num_dropped = int(np.sum(~fixed[: len(starts)] & ~fixed[len(starts) :]))
    found = _classify(field, candidates[fixed], tolerance, num_dropped)
    between = _midpoints(found, len(candidates))  # as many as before, so that the search is compiled only once
    if not len(between):
        return found
    middle = refine(between)
    candidates = jnp.concatenate([found.points, middle[_is_fixed(field, middle, tolerance)]])
    return _classify(field, candidates, tolerance, num_dropped)


def _resolve(reconstruct: Any, starts: Any) -> tuple[Function, jax.Array]:
    function = as_function(reconstruct, "reconstruct", ("reconstruct",))
    if isinstance(reconstruct, Distribution) and reconstruct.batch_shape:
        raise ValueError(
            f"reconstruct: expected a distribution without batch dimensions, got batch shape {reconstruct.batch_shape}"
        )
    starts = as_points("starts", starts)
    if starts.size == 0 or not np.all(np.isfinite(starts)):
        raise ValueError(f"starts: expected at least one point, and finite ones, got shape {starts.shape}")
    starts = starts.reshape(-1, starts.shape[-1])
    return _unchecked(reconstruct), starts.astype(check_output("reconstruct", function, starts))


def _unchecked(reconstruct: Any) -> Function:
    """The reconstruction without checks of where a search may go."""
    if isinstance(reconstruct, Distribution):
        reconstruct = copy.copy(reconstruct)
        reconstruct._validate_args = False
    return as_function(reconstruct, "reconstruct", ("reconstruct",))


def _iterate(function: Function, points: jax.Array, num_steps: int, tolerance: float) -> jax.Array:
    """Ends of ``x <- r(x)``, which starts again where it leaves the finite numbers."""

    def body(carry: Any) -> Any:
        step, old, _ = carry
        new = function(old)
        new = jnp.where(jnp.all(jnp.isfinite(new), -1, keepdims=True), new, points)
        return step + 1, new, jnp.any(_norm(new - old) > tolerance)

    return lax.while_loop(lambda carry: (carry[0] < num_steps) & carry[2], body, (0, points, True))[1]


def _newton(field: Function, points: jax.Array, num_steps: int) -> jax.Array:
    """Safeguarded Newton steps until none improves by a thousandth: to rounding, at a fixed point."""

    def body(carry: Any) -> Any:
        step, points, _ = carry
        points, improved = _newton_step(field, points)
        return step + 1, points, jnp.any(improved)

    return lax.while_loop(lambda carry: (carry[0] < num_steps) & carry[2], body, (0, points, True))[1]


def _newton_step(field: Function, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best of a damped Newton step and its halves, and whether it is better than staying."""
    residual = field(points)
    trials = points[None] + _fractions(points)[:, None, None] * _newton_direction(field, points, residual)[None]
    norms = jnp.nan_to_num(_norm(field(trials)), nan=jnp.inf)
    best = jnp.argmin(norms, 0)
    improved = jnp.min(norms, 0) < 0.999 * _norm(residual)
    chosen = jnp.take_along_axis(trials, best[None, :, None], 0)[0]
    return jnp.where(improved[:, None], chosen, points), improved


def _newton_direction(field: Function, points: jax.Array, residual: jax.Array) -> jax.Array:
    matrix = jacobian(field, points)
    curvature = jnp.sum(matrix**2, (-2, -1)) / points.shape[-1]
    damping = jnp.minimum(jnp.sum(residual**2, -1), 1e-3 * curvature)
    normal = matrix.mT @ matrix + damping[:, None, None] * jnp.eye(points.shape[-1], dtype=points.dtype)[None]
    direction = -jnp.linalg.solve(normal, matrix.mT @ residual[..., None])[..., 0]
    return jnp.where(jnp.isfinite(direction), direction, 0.0)


def _fractions(points: jax.Array) -> jax.Array:
    return 0.5 ** jnp.arange(12, dtype=points.dtype)


def _norm(vectors: jax.Array) -> jax.Array:
    return jnp.linalg.norm(vectors, axis=-1)


def _is_fixed(field: Function, points: jax.Array, tolerance: float) -> np.ndarray:
    return np.asarray(_norm(field(points)) <= tolerance * (1 + _norm(points)))


def _classify(field: Function, points: jax.Array, tolerance: float, num_dropped: int) -> FixedPoints:
    """Merge points that are the same, and tell their kinds."""
    points = points[_distinct(points, np.full(len(points), tolerance))]
    eigenvalues = np.linalg.eigvals(np.asarray(jacobian(field, points)))
    eigenvalues = np.sort(eigenvalues.astype(np.result_type(points.dtype, np.complex64)), -1)
    kinds = np.array([_kind(row.real, tolerance) for row in eigenvalues], int)
    kept = _distinct(points, np.where(kinds == KINDS.index("degenerate"), math.sqrt(tolerance), tolerance))
    order = kept[np.argsort(kinds[kept], kind="stable")]
    names = tuple(KINDS[kind] for kind in kinds[order])
    return FixedPoints(points[order], names, jnp.asarray(eigenvalues[order]), num_dropped)


def _distinct(points: jax.Array, radii: np.ndarray) -> np.ndarray:
    """Indices of points that lie farther than their radius, times one plus their length, from all before them."""
    array = np.asarray(points)
    kept: list[int] = []
    for index, (point, radius) in enumerate(zip(array, radii, strict=True)):
        distances = np.linalg.norm(array[kept] - point, axis=-1)
        if np.all(distances > radius * (1 + np.linalg.norm(point))):
            kept.append(index)
    return np.array(kept, int)


def _kind(rates: np.ndarray, tolerance: float) -> int:
    """Position in ``KINDS`` of a fixed point with these real parts."""
    if np.any(np.abs(rates) <= tolerance):
        return KINDS.index("degenerate")
    return KINDS.index("sink" if np.all(rates < 0) else "source" if np.all(rates > 0) else "saddle")


def _midpoints(found: FixedPoints, count: int) -> jax.Array:
    """Half-way points of the nearest pairs of sinks: ``count`` of them, with repeats, or none."""
    sinks = np.asarray(found.points)[: found.kinds.count("sink")]
    pairs = sorted(itertools.combinations(sinks, 2), key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))
    middles = [(first + second) / 2 for first, second in pairs[:count]]
    return jnp.asarray(np.resize(middles, (count if pairs else 0, sinks.shape[-1])), found.points.dtype)
