"""Fixed points of a reconstruction and what the field does around them: an autoencoder remembers its sinks."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from _ppl_ebm.checks import check_positive, check_positive_int
from _ppl_ebm.equilibria import FixedPoints, locate
from _ppl_ebm.fields import Reconstructs, check_starts, check_unbatched
from numpyro_ebm.diagnostics.fields import Function, as_function, as_points, jacobian, output_type

Reconstruction: TypeAlias = Function | Reconstructs[jax.Array]


def fixed_points(
    reconstruct: Reconstruction, starts: ArrayLike, *, num_steps: int = 500, tolerance: float = 1e-5
) -> FixedPoints[jax.Array]:
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
    found = locate(lambda points: jax.device_get(search(points)), np.asarray(ends), np.asarray(starts), tolerance)
    return FixedPoints(jnp.asarray(found.points), found.kinds, jnp.asarray(found.eigenvalues), found.num_dropped)


def _resolve(reconstruct: Reconstruction, starts: ArrayLike) -> tuple[Function, jax.Array]:
    function = as_function(reconstruct, "reconstruct", ("reconstruct",))
    if isinstance(reconstruct, Distribution):
        check_unbatched("reconstruct", reconstruct.batch_shape)
    starts = as_points("starts", starts)
    check_starts(starts.shape, bool(jnp.all(jnp.isfinite(starts))))
    starts = starts.reshape(-1, starts.shape[-1])
    return function, starts.astype(output_type("reconstruct", function, starts))


def _iterate(function: Function, points: jax.Array, num_steps: int, tolerance: float) -> jax.Array:
    """Ends of ``x <- r(x)``, which starts again where it leaves the finite numbers."""

    def step(old: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = function(old)
        new = jnp.where(jnp.all(jnp.isfinite(new), -1, keepdims=True), new, points)
        return new, jnp.any(_norm(new - old) > tolerance)

    return _repeat(step, points, num_steps)


def _repeat(step: Callable[[jax.Array], tuple[jax.Array, jax.Array]], points: jax.Array, num_steps: int) -> jax.Array:
    """The end of at most ``num_steps`` steps, each of which says whether to go on."""

    def body(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        count, points, _ = carry
        return count + 1, *step(points)

    start = jnp.asarray(0), points, jnp.asarray(True)
    return lax.while_loop(lambda carry: (carry[0] < num_steps) & carry[2], body, start)[1]


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
    return _repeat(lambda point: _newton_step(field, point), point, num_steps)


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
