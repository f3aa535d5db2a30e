"""The base of every energy distribution: parameters, broadcasting, validation and the normaliser policy, once.

A family is a subclass that names its parameters and writes its formulas for **one** value and one set of parameters::

    class Quartic(EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

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
from jax import lax
from numpyro.distributions import Distribution, constraints
from numpyro.util import not_jax_tracer

from numpyro_ebm.distributions.parameters import (
    as_real,
    bind_arguments,
    check_broadcast,
    check_constraint,
    check_expandable,
    check_shape,
    check_support,
    commas,
    declare_constructor,
)
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

    :param arguments: the family's parameters and options, by position or name, as its signature has them; ``None``
        stands for ``parameter_defaults``. Every parameter has the shape ``batch dimensions + parameter_dims[name]``, or
        is a scalar where all these sizes are known from parameters before it; batch dimensions broadcast.
    :param event_shape: shape of one value; default: the size that ``parameter_dims`` calls "visible".
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
    #: Those among them that play no part in any formula unless they are given.
    optional_parameters: ClassVar[tuple[str, ...]] = ()
    #: Options beside the parameters, which are not arrays, with their defaults.
    option_defaults: ClassVar[Mapping[str, Any]] = {}
    pytree_data_fields: tuple[str, ...] = ("_given_partition",)
    pytree_aux_fields: tuple[str, ...] = ("sampler", "_partition_policy", "_absent")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declare_constructor(cls, EnergyDistribution)

    def __init__(self, *arguments: Any, event_shape: tuple[int, ...] | None = None, **named: Any) -> None:
        given = bind_arguments(self, arguments, named)
        for name in self.option_defaults:
            setattr(self, name, self._resolve_option(name, given[name]))
        sizes = {"visible": event_shape[0]} if event_shape is not None and len(event_shape) == 1 else {}
        batch_shape = self._store_parameters(given, sizes)
        shape = (sizes["visible"],) if event_shape is None else tuple(event_shape)
        self._batch_shape, self._event_shape = batch_shape, shape  # which estimators look at
        self._partition_policy, self._given_partition = resolve_policy(self, given["log_partition"])
        if self._partition_policy == "constant":
            check_broadcast("log_partition", jnp.shape(self._given_partition), batch_shape)
        self.sampler = given["sampler"]
        super().__init__(batch_shape, shape, validate_args=given["validate_args"])
        check_sampler(self, self.sampler)

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

    def _resolve_option(self, name: str, option: Any) -> Any:
        """Check an option, and turn it into what the formulas use."""
        del name
        return option

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
    def has_continuous_score(self) -> bool:
        """Whether the score has no jumps, without which score matching would miss part of its trace."""
        return True

    @property
    def has_gibbs_step(self) -> bool:
        """Whether ``gibbs_step`` is there: a sweep of exact conditional draws."""
        return hasattr(self, "gibbs_step")

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
            model = self._unexpanded()
            estimate, samples, weights = self._given_partition.weighted_samples(lax.stop_gradient(model))
            estimate = with_model_gradient(estimate, model.energy, samples, weights)
            return jnp.broadcast_to(estimate, self.batch_shape)
        raise IntractablePartitionError(intractable_message(self._title))

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
            log_prob = log_prob + guarded_zero(self._title, log_prob.dtype, self._guarded(value))
        return log_prob

    @property
    def unconstrained(self) -> Any:
        """The density in coordinates that cover all of R^D, where gradient-informed chains move; here the same."""
        return self

    def _to_value(self, position: jax.Array) -> jax.Array:
        return position

    def _from_value(self, value: jax.Array) -> jax.Array:
        return value

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
        check_expandable(self.batch_shape, shape)
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
                    check_constraint(type(self).__name__, name, value, constraint)
            self.check_proper()

    # ------------------------------------------------------------------ how it works

    def __copy__(self) -> "EnergyDistribution":
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    @classmethod
    def gather_pytree_data_fields(cls) -> tuple[str, ...]:
        # NumPyro would add the parameters of base classes, and order the fields by their hashes, which differ from
        # process to process and so would defeat JAX's persistent compilation cache.
        declared = (field for base in cls.__mro__ for field in vars(base).get("pytree_data_fields", ()))
        return tuple(sorted({*cls.parameter_dims, *declared}))

    @classmethod
    def gather_pytree_aux_fields(cls) -> tuple[str, ...]:
        return tuple(sorted((*super().gather_pytree_aux_fields(), *cls.option_defaults)))

    def _with(self, **changes: Any) -> Any:
        """A copy with other parameters, options, normaliser policy or sampler."""
        arguments = {name: getattr(self, name) for name in self.parameter_dims if name not in self._absent}
        options = {name: getattr(self, name) for name in self.option_defaults}
        policy = {"auto": "auto", "estimator": self._given_partition}.get(self._partition_policy)
        rest = {"log_partition": policy, "validate_args": self._validate_args, "sampler": self.sampler}
        changed = type(self)(**{**arguments, **options, **rest, **changes})
        return changed.expand(jnp.broadcast_shapes(changed.batch_shape, self.batch_shape))

    def _unexpanded(self) -> "EnergyDistribution":
        """The same density over no larger a batch than the parameters have."""
        shapes = [
            jnp.shape(getattr(self, name))[: jnp.ndim(getattr(self, name)) - len(dims)]
            for name, dims in self.parameter_dims.items()
        ]
        model = copy.copy(self)
        model._batch_shape = jnp.broadcast_shapes(*shapes)
        return model

    @property
    def _title(self) -> str:
        """The class's name, with what makes its partition function intractable where that is known, for messages."""
        return type(self).__name__

    def _guarded(self, value: Any) -> Any:
        """Everything differentiable that the density depends on beside its value."""
        del value
        return [getattr(self, name) for name in self.parameter_dims] + [self._given_partition]

    def _store_parameters(self, parameters: Mapping[str, Any], sizes: dict[str, int]) -> tuple[int, ...]:
        """Store all parameters, bind the ``sizes`` of their dimensions and return their joint batch shape."""
        missing = {n for n in self.parameter_dims if parameters[n] is None and n in self.parameter_defaults}
        self._absent = frozenset(missing.intersection(self.optional_parameters))
        given = {name: as_real(name, parameters[name]) for name in self.parameter_dims if name not in missing}
        dtype = jnp.result_type(*given.values()) if given else jnp.result_type(float)
        batch_shape: tuple[int, ...] = ()
        for name, dims in self.parameter_dims.items():
            array = given[name] if name in given else self._default_parameter(name, sizes)
            if array.ndim == 0 and all(dim in sizes for dim in dims):
                array = jnp.broadcast_to(array, tuple(sizes[dim] for dim in dims))
            batch_shape = check_shape(name, array.shape, dims, sizes, batch_shape)
            setattr(self, name, array.astype(dtype))
        return batch_shape

    def _default_parameter(self, name: str, sizes: Mapping[str, int]) -> jax.Array:
        """The value of a parameter that was not given; ``sizes`` are those of the parameters before it."""
        del sizes
        return jnp.asarray(self.parameter_defaults[name])

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
            raise ValueError(f"{name}: expected shape (..., {commas(expected)}), got {array.shape}")
        check_broadcast(name, array.shape[: array.ndim - len(expected)], self.batch_shape)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"{name}: expected a real array, got dtype {array.dtype}")
        if not self.is_discrete and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating-point array, got dtype {array.dtype}")
        if self._validate_args and array.size and not_jax_tracer(array):
            check_support(type(self).__name__, name, array, self.support)
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


def _lift(array: jax.Array, like: jax.Array) -> jax.Array:
    """Add leading dimensions of length one up to the rank of ``like``."""
    return array.reshape((1,) * (like.ndim - array.ndim) + array.shape)
