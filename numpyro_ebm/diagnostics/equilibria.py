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

from numpyro_ebm.diagnostics.fields import Function, as_function, as_points, check_output, jacobian
from numpyro_ebm.infer.checks import check_positive, check_positive_int

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
    ends = jax.jit(lambda points: _iterate(function, points, num_steps, tolerance))(starts)
    search = jax.jit(lambda points: _search(function, points, num_steps, tolerance))
    points, is_fixed, matrices = map(np.asarray, search(jnp.concatenate([ends, starts])))
    num_dropped = int(np.sum(~is_fixed.reshape(2, -1).any(0)))
    between = _midpoints(*_classify(points[is_fixed], matrices[is_fixed], tolerance)[:2], len(points))
    if len(between):  # as many as before, so that the search compiles only once
        more = search(jnp.asarray(between))
        points, is_fixed, matrices = map(np.concatenate, zip((points, is_fixed, matrices), more, strict=True))
    points, kinds, eigenvalues = _classify(points[is_fixed], matrices[is_fixed], tolerance)
    names = tuple(KINDS[kind] for kind in kinds)
    return FixedPoints(jnp.asarray(points), names, jnp.asarray(eigenvalues), num_dropped)


def _resolve(reconstruct: Any, starts: Any) -> tuple[Function, jax.Array]:
    function = _unchecked(reconstruct)
    if isinstance(reconstruct, Distribution) and reconstruct.batch_shape:
        raise ValueError(
            f"reconstruct: expected a distribution without batch dimensions, got batch shape {reconstruct.batch_shape}"
        )
    starts = as_points("starts", starts)
    if starts.size == 0 or not np.all(np.isfinite(starts)):
        raise ValueError(f"starts: expected at least one point, and finite ones, got shape {starts.shape}")
    starts = starts.reshape(-1, starts.shape[-1])
    return function, starts.astype(check_output("reconstruct", function, starts))


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


def _search(function: Function, points: jax.Array, num_steps: int, tolerance: float) -> tuple[jax.Array, ...]:
    """Ends of Newton's method on the field, whether each is a fixed point, and the field's Jacobian there."""
    field = lambda point: function(point) - point

    def single(point: jax.Array) -> tuple[jax.Array, ...]:
        point = _newton(field, point, num_steps)
        return point, _norm(field(point)) <= tolerance * (1 + _norm(point)), jacobian(field, point)

    # Searches that go together all take the time of the longest: fewer of them where a step is expensive.
    return lax.map(single, points, batch_size=max(1, 2**14 // points.shape[-1] ** 2))


def _newton(field: Function, point: jax.Array, num_steps: int) -> jax.Array:
    """Safeguarded Newton steps until one improves by less than a hundredth: to rounding, at a fixed point."""

    def body(carry: Any) -> Any:
        step, point, _ = carry
        return step + 1, *_newton_step(field, point)

    return lax.while_loop(lambda carry: (carry[0] < num_steps) & carry[2], body, (0, point, True))[1]


def _newton_step(field: Function, point: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best of a damped Newton step and its halves, and whether it is better than staying."""
    residual = field(point)
    fractions = 0.5 ** jnp.arange(12, dtype=point.dtype)
    trials = point[None] + fractions[:, None] * _newton_direction(field, point, residual)[None]
    norms = jnp.nan_to_num(_norm(field(trials)), nan=jnp.inf)
    improved = jnp.min(norms) < 0.99 * _norm(residual)
    return jnp.where(improved, trials[jnp.argmin(norms)], point), improved


def _newton_direction(field: Function, point: jax.Array, residual: jax.Array) -> jax.Array:
    matrix = jacobian(field, point)
    damping = jnp.minimum(jnp.sum(residual**2), 1e-3 * jnp.mean(jnp.sum(matrix**2, 0)))
    normal = matrix.T @ matrix + damping * jnp.eye(len(point), dtype=point.dtype)
    direction = -jnp.linalg.solve(normal, matrix.T @ residual)
    return jnp.where(jnp.isfinite(direction), direction, 0.0)


def _norm(vectors: jax.Array) -> jax.Array:
    return jnp.linalg.norm(vectors, axis=-1)


def _classify(points: np.ndarray, matrices: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points that differ, their kinds (as positions in ``KINDS``, in order) and eigenvalues."""
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


def _midpoints(points: np.ndarray, kinds: np.ndarray, count: int) -> np.ndarray:
    """Half-way points of the nearest pairs of sinks: ``count`` of them, with repeats, or none."""
    sinks = points[kinds == KINDS.index("sink")]
    pairs = sorted(itertools.combinations(sinks, 2), key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))
    middles = [(first + second) / 2 for first, second in pairs[:count]]
    return np.resize(middles, (count if pairs else 0, sinks.shape[-1])).astype(sinks.dtype)
