"""The base of every energy distribution: parameters, broadcasting, validation and the normaliser policy, once.

A family is a subclass that names its parameters and writes its formulas for **one** value and one set of parameters::

    class Quartic(EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

        def __init__(self, strength, *, log_partition="auto", sampler=None, validate_args=None):
            super().__init__({"strength": strength}, log_partition=log_partition, sampler=sampler,
                             validate_args=validate_args)

        def _energy(self, value):
            return jnp.sum(self.strength * value**4)

The base maps these over batch and sample dimensions, derives scores by automatic differentiation where the family has
no closed form, and decides what ``log_prob`` may be differentiated in.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import Distribution, constraints
from numpyro.util import not_jax_tracer

from numpyro_ebm.distributions.partition import (
    IntractablePartitionError,
    guarded_zero,
    intractable_message,
    resolve_policy,
    with_model_gradient,
)
from numpyro_ebm.infer.samplers import Exact, Hamiltonian, Sampler, check_sampler


class EnergyDistribution(Distribution):
    r"""A distribution with density :math:`p(v) = \exp(-F(v)) / Z`, where the free energy :math:`F` is always known.

    :param parameters: the family's parameters by name; ``None`` stands for ``parameter_defaults``. Every parameter has
        the shape ``batch dimensions + parameter_dims[name]``; batch dimensions broadcast.
    :param log_partition: the normaliser policy (see :mod:`numpyro_ebm.distributions.partition`).
    :param sampler: configuration of :meth:`sample` (see :mod:`numpyro_ebm.infer.samplers`); ``None`` takes
        ``default_sampler``.
    :param validate_args: check parameters and values that are not traced; ``None`` follows
        :func:`numpyro.enable_validation`.
    :raises TypeError: for a parameter that is not real floating point, an unknown ``log_partition`` or ``sampler``.
    :raises ValueError: for shapes that do not fit, NaN or infinite entries, a parameter outside its constraint.
    :raises ImproperDensityError: where the parameters fail the family's cheap condition for a proper density.
    """

    #: Core dimensions of each parameter by name, for example ``{"weights": ("visible", "hidden")}``.
    parameter_dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Scalar defaults of the optional parameters.
    parameter_defaults: ClassVar[Mapping[str, float]] = {}
    pytree_data_fields: tuple[str, ...] = ("_given_partition",)
    pytree_aux_fields: tuple[str, ...] = ("sampler", "_partition_policy")

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        event_shape: tuple[int, ...] | None = None,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        batch_shape, sizes = self._store_parameters(parameters)
        self._partition_policy, self._given_partition = resolve_policy(self, log_partition)
        if self._partition_policy == "constant":
            check_broadcast("log_partition", jnp.shape(self._given_partition), batch_shape)
        self.sampler = sampler
        shape = (sizes["visible"],) if event_shape is None else tuple(event_shape)
        super().__init__(batch_shape, shape, validate_args=validate_args)
        check_sampler(self, sampler)

    # ------------------------------------------------------------------ the family's formulas, for one value

    def _energy(self, value: jax.Array) -> jax.Array:
        """Free energy of one value of shape ``event_shape``; the parameters carry no batch dimensions here."""
        raise NotImplementedError(f"{type(self).__name__} must define _energy(value)")

    def _score(self, value: jax.Array) -> jax.Array:
        return -jax.grad(self._energy)(value)

    def _laplacian(self, value: jax.Array) -> jax.Array:
        size = math.prod(self.event_shape)
        score = lambda flat: self._score(flat.reshape(self.event_shape)).reshape(-1)
        diagonal = lambda tangent: jax.jvp(score, (value.reshape(-1),), (tangent,))[1] @ tangent
        return jnp.sum(jax.vmap(diagonal)(jnp.eye(size, dtype=value.dtype)))

    def _exact_log_partition(self) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} has no exact partition function")

    def _check_proper(self) -> None:
        """Raise :class:`ImproperDensityError` where the (untraced) parameters give no proper density."""

    def _initial(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Starting points of Markov chains, shape ``shape + event_shape``."""
        return jax.random.normal(rng_key, shape + self.event_shape, self.dtype)

    # ------------------------------------------------------------------ what every family offers

    @property
    def dtype(self) -> Any:
        """Floating-point type of the parameters, and so of energies and samples."""
        return jnp.result_type(*(getattr(self, name) for name in self.parameter_dims))

    def energy(self, value: Any) -> jax.Array:
        """Free energy F, including every constant that integrating hidden units produces.

        :param value: shape ``(..., *event_shape)``, broadcasting against ``batch_shape``.
        :return: shape ``broadcast(..., batch_shape)``.
        """
        return self._map(type(self)._energy, self._check_value(value))

    def unnormalized_log_prob(self, value: Any) -> jax.Array:
        """``-energy(value)``: differentiable in everything, and not a log-density."""
        return -self.energy(value)

    def score(self, value: Any) -> jax.Array:
        """Gradient of the log-density in its value, shape of ``value`` broadcast against ``batch_shape``."""
        return self._map(type(self)._score, self._check_value(value))

    def laplacian(self, value: Any) -> jax.Array:
        """Trace of the Hessian of the log-density in its value."""
        return self._map(type(self)._laplacian, self._check_value(value))

    @property
    def has_exact_partition(self) -> bool:
        """Whether the family computes its partition function in closed form or by at most 2^16 terms."""
        return False

    @property
    def has_exact_sampler(self) -> bool:
        """Whether independent exact draws are available, whatever is declared about the partition function."""
        return False

    @property
    def is_normalized(self) -> bool:
        """Whether ``log_prob`` includes the partition function: exact, given or estimated."""
        exact = self._partition_policy == "auto" and self.has_exact_partition
        return exact or self._partition_policy in ("constant", "estimator")

    @property
    def log_partition(self) -> jax.Array:
        """The log partition function under the policy, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known.
        """
        if self._partition_policy == "auto" and self.has_exact_partition:
            return jnp.broadcast_to(self._map(type(self)._exact_log_partition), self.batch_shape)
        if self._partition_policy == "constant":
            return jnp.broadcast_to(self._given_partition, self.batch_shape).astype(self.dtype)
        if self._partition_policy == "estimator":
            estimate, samples, weights = self._given_partition.weighted_samples(lax.stop_gradient(self))
            return with_model_gradient(estimate, self.energy, samples, weights)
        raise IntractablePartitionError(intractable_message(type(self).__name__))

    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> jax.Array:
        """Log-density; without its normaliser, and guarded, where the partition function is unknown.

        :param value: shape ``(..., *event_shape)``.
        :raises IntractablePartitionError: when a guarded density is differentiated in a parameter.
        """
        del intermediates
        log_prob = -self.energy(value)
        if self.is_normalized:
            log_prob = log_prob - _lift(self.log_partition, log_prob)
        if not self.is_normalized or self._partition_policy == "constant":
            log_prob = log_prob + guarded_zero(type(self).__name__, log_prob.dtype, self._guarded(value))
        return log_prob

    @property
    def default_sampler(self) -> Sampler:
        """Exact draws where the family has them, else its Markov chain."""
        return Exact() if self.has_exact_sampler else self.default_chain

    @property
    def default_chain(self) -> Sampler:
        """The Markov chain that ``sample``, contrastive criteria and annealing fall back to."""
        return Hamiltonian()

    @property
    def chain(self) -> Sampler:
        """``sampler`` if it is a Markov chain, else ``default_chain``."""
        return self.default_chain if self.sampler is None or isinstance(self.sampler, Exact) else self.sampler

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent draws, detached from the parameters: exact where possible, else the ends of separate chains.

        :param key: a JAX PRNG key.
        :param sample_shape: leading dimensions of independent draws.
        :return: shape ``sample_shape + batch_shape + event_shape``.
        """
        if key is None:
            raise ValueError(f"key: {type(self).__name__}.sample expected a JAX PRNG key, got None")
        sampler = self.default_sampler if self.sampler is None else self.sampler
        return sampler.sample(lax.stop_gradient(self), key, tuple(sample_shape) + self.batch_shape)

    def check_proper(self) -> None:
        """Run the family's exact test for a proper density.

        :raises ImproperDensityError: if ``exp(-energy)`` cannot be normalised.
        """
        if all(not_jax_tracer(getattr(self, name)) for name in self.parameter_dims):
            self._check_proper()

    @property
    def has_rsample(self) -> bool:
        return False

    def expand(self, batch_shape: Any) -> "EnergyDistribution":
        """The same density over a larger batch, of the same class and without copying parameters."""
        shape = tuple(batch_shape)
        _check_expandable(self.batch_shape, shape)
        expanded = copy.copy(self)
        expanded._batch_shape = shape
        return expanded

    def validate_args(self, strict: bool = True) -> None:
        """Check the parameters that are not traced: finite, inside their constraints, of a proper density."""
        to_check = {name: (getattr(self, name), self.arg_constraints[name]) for name in self.parameter_dims}
        if self._partition_policy == "constant":
            to_check["log_partition"] = (self._given_partition, constraints.real)
        if strict and not all(not_jax_tracer(value) for value, _ in to_check.values()):
            raise RuntimeError("Cannot validate arguments inside jitted code.")
        with jax.ensure_compile_time_eval():
            for name, (value, constraint) in to_check.items():
                if not_jax_tracer(value):
                    _check_constraint(type(self).__name__, name, value, constraint)
            self.check_proper()

    # ------------------------------------------------------------------ how it works

    def __copy__(self) -> "EnergyDistribution":
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    @classmethod
    def gather_pytree_data_fields(cls) -> tuple[str, ...]:
        # NumPyro orders the fields by their hashes, which differ from process to process and so would defeat JAX's
        # persistent compilation cache.
        return tuple(sorted(super().gather_pytree_data_fields()))

    @classmethod
    def gather_pytree_aux_fields(cls) -> tuple[str, ...]:
        return tuple(sorted(super().gather_pytree_aux_fields()))

    def _guarded(self, value: Any) -> Any:
        """Everything differentiable that the density depends on beside its value."""
        del value
        return [getattr(self, name) for name in self.parameter_dims] + [self._given_partition]

    def _store_parameters(self, parameters: Mapping[str, Any]) -> tuple[tuple[int, ...], dict[str, int]]:
        arrays = {}
        for name in self.parameter_dims:
            given = self.parameter_defaults.get(name) if parameters[name] is None else parameters[name]
            arrays[name] = _as_real(name, given)
        dtype = jnp.result_type(*arrays.values()) if arrays else jnp.result_type(float)
        sizes: dict[str, int] = {}
        batch_shape: tuple[int, ...] = ()
        for name, dims in self.parameter_dims.items():
            array = arrays[name].astype(dtype)
            if array.ndim == 0 and name in self.parameter_defaults:
                array = jnp.broadcast_to(array, tuple(sizes[dim] for dim in dims))
            batch_shape = _check_shape(name, array.shape, dims, sizes, batch_shape)
            setattr(self, name, array)
        return batch_shape, sizes

    def _map(self, method: Callable[..., Any], *values: jax.Array, using: tuple[str, ...] | None = None) -> Any:
        """Apply a single-value method over all batch dimensions of the parameters and of ``values``.

        :param using: the parameters that ``method`` uses, if not all: the others' batch dimensions then play no part.
        """
        names = tuple(self.parameter_dims) if using is None else using

        def single(*arrays: jax.Array) -> Any:
            model = copy.copy(self)
            model._batch_shape = ()
            for name, array in zip(names, arrays, strict=False):
                setattr(model, name, array)
            return method(model, *arrays[len(names) :])

        parameters = [getattr(self, name) for name in names]
        core = [len(self.parameter_dims[name]) for name in names] + [self.event_dim] * len(values)
        return broadcasting_vmap(single, core, *parameters, *values)

    def _check_value(self, value: Any, name: str = "value") -> jax.Array:
        array = jnp.asarray(value)
        expected = self.event_shape
        if array.ndim < len(expected) or array.shape[array.ndim - len(expected) :] != expected:
            raise ValueError(f"{name}: expected shape (..., {_commas(expected)}), got {array.shape}")
        check_broadcast(name, array.shape[: array.ndim - len(expected)], self.batch_shape)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"{name}: expected a real array, got dtype {array.dtype}")
        if not self.is_discrete and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating-point array, got dtype {array.dtype}")
        if self._validate_args and array.size and not_jax_tracer(array):
            _check_support(type(self).__name__, name, array, self.support)
        return self._over_batch(array.astype(self.dtype), len(expected))

    def _over_batch(self, array: jax.Array, core_ndim: int) -> jax.Array:
        """Broadcast the leading dimensions of ``array`` over ``batch_shape``, which ``expand`` may have enlarged."""
        lead, core = array.shape[: array.ndim - core_ndim], array.shape[array.ndim - core_ndim :]
        return jnp.broadcast_to(array, jnp.broadcast_shapes(lead, self.batch_shape) + core)


def broadcasting_vmap(function: Callable[..., Any], core_ndims: list[int], *arrays: jax.Array) -> Any:
    """Call ``function`` on arrays of ``core_ndims`` dimensions, mapped over their broadcast leading dimensions."""
    leads = [array.shape[: array.ndim - core] for array, core in zip(arrays, core_ndims, strict=True)]
    batch = jnp.broadcast_shapes(*leads)
    # A dimension of length one is shared along a longer one: drop it, and map the array there with in_axes=None.
    mapped = [[size == full for size, full in zip(lead[::-1], batch[::-1], strict=False)] for lead in leads]
    squeezed = []
    for array, lead, flags in zip(arrays, leads, mapped, strict=True):
        kept = tuple(size for size, keep in zip(lead, flags[::-1], strict=True) if keep)
        squeezed.append(array.reshape(kept + array.shape[len(lead) :]))
    for position in range(len(batch)):
        axes = tuple(0 if position < len(flags) and flags[position] else None for flags in mapped)
        function = jax.vmap(function, in_axes=axes)
    return function(*squeezed)


def _as_real(name: str, value: Any) -> jax.Array:
    try:
        array = jnp.asarray(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array or real numbers, got {type(value).__name__}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a real floating-point array, got dtype {array.dtype}")
    return array


def _check_shape(
    name: str, shape: tuple[int, ...], dims: tuple[str, ...], sizes: dict[str, int], batch_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Bind the sizes of ``dims`` and return the joint batch shape; one message for every way a shape can be wrong."""
    core = shape[len(shape) - len(dims) :] if len(shape) >= len(dims) else ()
    if len(core) != len(dims) or any(sizes.setdefault(dim, size) != size for dim, size in zip(dims, core, strict=True)):
        expected = _commas(f"{dim}={sizes[dim]}" if dim in sizes else dim for dim in dims)
        raise ValueError(f"{name}: expected shape (..., {expected}), got {shape}")
    check_broadcast(name, shape[: len(shape) - len(dims)], batch_shape)
    return jnp.broadcast_shapes(shape[: len(shape) - len(dims)], batch_shape)


def check_broadcast(name: str, shape: tuple[int, ...], batch_shape: tuple[int, ...]) -> None:
    try:
        jnp.broadcast_shapes(shape, batch_shape)
    except ValueError:
        raise ValueError(f"{name}: expected batch dimensions that broadcast with {batch_shape}, got {shape}") from None


def _check_expandable(batch_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    fits = len(shape) >= len(batch_shape) and all(
        old in (1, new) for old, new in zip(batch_shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"batch_shape: expected a shape that {batch_shape} expands to, got {shape}")


def _check_constraint(owner: str, name: str, value: Any, constraint: Any) -> None:
    array = np.asarray(value)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: {owner} expected finite entries, got {np.sum(~np.isfinite(array))} NaN or infinite")
    if not np.all(np.asarray(constraint(value))):
        raise ValueError(f"{name}: {owner} expected {constraint}, got entries from {array.min()} to {array.max()}")


def _check_support(owner: str, name: str, value: Any, support: Any) -> None:
    with jax.ensure_compile_time_eval():
        inside = bool(np.all(support(value)))
    if not inside:
        array = np.asarray(value)
        raise ValueError(
            f"{name}: {owner} expected values in its support {support}, got entries from {array.min()} to {array.max()}"
        )


def _lift(array: jax.Array, like: jax.Array) -> jax.Array:
    """Add leading dimensions of length one up to the rank of ``like``."""
    return array.reshape((1,) * (like.ndim - array.ndim) + array.shape)


def _commas(items: Any) -> str:
    return ", ".join(str(item) for item in items)
