"""Vector fields of energies and autoencoders: how much they spread, and whether they are gradients.

A *field* is a function of values ``(..., D)`` to vectors ``(..., D)``, with the Jacobian ``J[i, j] = dF_i / dx_j``. It
may be given as a function of one point ``(D,)`` or of a batch, as a flax.nnx or equinox module, or as any object with a
method ``field`` (autoencoders) or, without one, ``score`` (energies). The diagnostics are differentiable in everything.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from _ppl_ebm.fields import (
    HasField,
    HasScore,
    check_continuous_vectors,
    check_output_like,
    check_points,
    circle,
    function_of,
    is_exact,
)
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key

Function: TypeAlias = Callable[[jax.Array], jax.Array]
Field: TypeAlias = Function | HasField[jax.Array] | HasScore[jax.Array]


def divergence(
    field: Field, value: ArrayLike, *, estimator: str = "exact", num_probes: int = 1, rng_key: Key | None = None
) -> jax.Array:
    r"""Divergence of a field, :math:`\mathrm{tr}\, J(v)`.

    ``"exact"`` takes D Jacobian-vector products; ``"hutchinson"`` averages the unbiased ``e' J e`` over Rademacher
    vectors ``e`` (Hutchinson 1990), one product each.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: shape ``(..., D)``.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :param num_probes: vectors per value for ``"hutchinson"``.
    :param rng_key: a JAX PRNG key for ``"hutchinson"``; ``None`` draws one from the seeded model around it.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for an unknown ``estimator``, ``num_probes`` below one, a missing key, or a field that does not
        return the shape of its values.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.diagnostics.fields import divergence
    >>> print(divergence(lambda v: v**2, jnp.array([1.0, 3.0])))
    8.0
    """
    exact = is_exact("divergence", estimator, num_probes)
    function, value = resolve(field, value)
    if exact:
        return jnp.trace(jacobian(function, value), axis1=-2, axis2=-1)

    def quadratic(probe: jax.Array) -> jax.Array:
        return jnp.sum(probe * jax.jvp(function, (value,), (probe,))[1], -1)

    probes = _probes(require_key("divergence", rng_key), num_probes, value)
    return jnp.mean(jax.vmap(quadratic)(probes), 0)


def asymmetry(
    field: Field, value: ArrayLike, *, estimator: str = "exact", num_probes: int = 1, rng_key: Key | None = None
) -> jax.Array:
    r"""Asymmetry of a field's Jacobian, :math:`\|J - J'\|_F^2 / (4 \|J\|_F^2)`: 0 if symmetric, 1 if antisymmetric.

    A field on all of R^D is the gradient of a potential iff this is 0 everywhere (Kamyshanska & Memisevic 2013 for
    autoencoders). A zero Jacobian counts as symmetric.

    ``"hutchinson"`` needs no Jacobian: :math:`E|Je - J'e|^2 / (4 E|Je|^2)` over Rademacher vectors ``e``, from one jvp
    and one vjp each (Chao et al. 2023), where :math:`E|Je|^2 = E|J'e|^2` is estimated by the mean of both. The
    estimate lies in [0, 1]; its numerator and denominator are unbiased, and so their ratio is for many probes. It is
    differentiable in the field's parameters, and a penalty for non-conservative fields.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: shape ``(..., D)``.
    :param estimator: ``"exact"`` or ``"hutchinson"``.
    :param num_probes: vectors per value for ``"hutchinson"``.
    :param rng_key: a JAX PRNG key for ``"hutchinson"``; ``None`` draws one from the seeded model around it.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for an unknown ``estimator``, ``num_probes`` below one, a missing key, or a field that does not
        return the shape of its values.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.diagnostics.fields import asymmetry
    >>> shear = lambda v: jnp.stack([v[1], 0 * v[0]])
    >>> print(asymmetry(shear, jnp.array([1.0, 3.0])))
    0.5
    """
    exact = is_exact("asymmetry", estimator, num_probes)
    function, value = resolve(field, value)
    if exact:
        matrix = jacobian(function, value)
        return _ratio(_squares(matrix - matrix.mT, 2), 4 * _squares(matrix, 2))
    _, pull = jax.vjp(function, value)

    def terms(probe: jax.Array) -> tuple[jax.Array, jax.Array]:
        forward, backward = jax.jvp(function, (value,), (probe,))[1], pull(probe)[0]
        return _squares(forward - backward, 1), 2 * (_squares(forward, 1) + _squares(backward, 1))

    differences, totals = jax.vmap(terms)(_probes(require_key("asymmetry", rng_key), num_probes, value))
    return _ratio(jnp.sum(differences, 0), jnp.sum(totals, 0))


def circulation(
    field: Field, value: ArrayLike, *, radius: float = 0.1, plane: npt.ArrayLike = (0, 1), num_nodes: int = 64
) -> jax.Array:
    r"""Circulation of a field, :math:`\oint F \cdot dl` around a circle about each value.

    The circle runs from the first direction of ``plane`` to the second, so that for a small radius this is
    :math:`\pi r^2 (\partial_1 F_2 - \partial_2 F_1)`, exactly so for a linear field. A gradient has none. The
    trapezoid rule converges geometrically in ``num_nodes`` for smooth fields; derivatives are not needed.

    :param field: see the module: a function, a module, or an object with ``field`` or ``score``.
    :param value: centres, shape ``(..., D)``.
    :param radius: radius of the circle.
    :param plane: two coordinate axes, or two orthonormal directions of shape ``(D,)``.
    :param num_nodes: points on the circle, at least 3.
    :return: shape ``(...)``.
    :raises TypeError: for a ``field`` that is none, or a ``value`` that is not floating point.
    :raises ValueError: for a ``radius`` that is not positive, axes that are equal or out of range, directions that are
        not orthonormal, fewer than 3 nodes, or a field that does not return the shape of its values.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.diagnostics.fields import circulation
    >>> rotation = lambda v: jnp.stack([-v[1], v[0]])
    >>> print(f"{circulation(rotation, jnp.array([1.0, 3.0]), radius=0.5):.4f}")  # area 0.7854 times curl 2
    1.5708
    """
    function, value = resolve(field, value)
    vectors = jnp.asarray(np.stack(circle(plane, value.shape[-1], radius, num_nodes)), value.dtype)
    outward, along = vectors.reshape(2, num_nodes, *(1,) * (value.ndim - 1), value.shape[-1])
    flow = function(value[None] + radius * outward)
    return 2 * math.pi * radius / num_nodes * jnp.sum(flow * along, (0, -1))


def resolve(field: Field, value: ArrayLike) -> tuple[Function, jax.Array]:
    """``field`` as a function of batches, and ``value`` as an array of its type over its batch dimensions."""
    function = as_function(field, "field", ("field", "score"))
    value = as_points("value", value)
    value = jnp.broadcast_to(value, (*jnp.broadcast_shapes(value.shape[:-1], _batch_shape(field)), value.shape[-1]))
    return function, value.astype(output_type("field", function, value))


def as_function(field: object, name: str, methods: tuple[str, ...]) -> Function:
    """A function of batches: the first of ``methods`` that the class of ``field`` has, else ``field`` itself."""
    function = function_of(name, field, methods, is_distribution=isinstance(field, Distribution))
    if isinstance(field, Distribution):
        check_continuous_vectors(name, type(field).__name__, field.event_shape, field.is_discrete)
        return function
    return lambda value: _map_points(function, value, name)


def as_points(name: str, value: ArrayLike) -> jax.Array:
    """``value`` as a floating-point array of shape ``(..., D)``."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected values of shape (..., D), got {type(value).__name__}") from error
    check_points(name, array.shape, array.dtype, jnp.issubdtype(array.dtype, jnp.floating))
    return array


def output_type(name: str, function: Function, value: jax.Array) -> np.dtype:
    """The floating-point type of what ``function`` returns for ``value``, refusing any other shape than its own."""
    output = jax.eval_shape(function, value)
    check_output_like(name, value.shape, output.shape, output.dtype, jnp.issubdtype(output.dtype, jnp.floating))
    return output.dtype


def jacobian(function: Function, value: jax.Array) -> jax.Array:
    """``J[..., i, j] = dF_i / dx_j`` at each value, shape ``(..., D, D)``."""
    push = lambda unit: jax.jvp(function, (value,), (jnp.broadcast_to(unit, value.shape),))[1]
    return jax.vmap(push, out_axes=-1)(jnp.eye(value.shape[-1], dtype=value.dtype))


def _batch_shape(field: Field) -> tuple[int, ...]:
    return field.batch_shape if isinstance(field, Distribution) else ()


def _map_points(function: Callable[..., Any], value: jax.Array, name: str) -> jax.Array:
    output = jax.vmap(function)(value.reshape(-1, value.shape[-1]))
    if not isinstance(output, jax.Array):
        raise TypeError(f"{name}: expected a function that returns an array, got {type(output).__name__}")
    return output.reshape(*value.shape[:-1], *output.shape[1:])


def _probes(rng_key: Key, num_probes: int, value: jax.Array) -> jax.Array:
    return jax.random.rademacher(rng_key, (num_probes, *value.shape), value.dtype)


def _squares(array: jax.Array, core: int) -> jax.Array:
    return jnp.sum(array**2, tuple(range(-core, 0)))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)
