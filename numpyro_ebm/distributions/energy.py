"""The base of every energy distribution: parameters, broadcasting, validation and sampling, once.

A family is a subclass that names its parameters and writes its formulas for **one** value and one set of parameters::

    class Quartic(EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

        def __init__(self, strength, **options):  # log_partition, independent, sampler and validate_args
            super().__init__({"strength": strength}, **options)

        def _energy(self, value):
            return jnp.sum(self.strength * value**4)

The base maps these over batch and sample dimensions, derives scores by automatic differentiation where the family has
no closed form, and leaves to its :mod:`normaliser <numpyro_ebm.distributions.normaliser>` what ``log_prob`` may be
differentiated in.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_flag
from _ppl_ebm.shapes import check_broadcast, check_expandable, commas
from numpyro_ebm.distributions.masked import MaskedEnergy
from numpyro_ebm.distributions.normaliser import LogPartition, Normaliser, as_normaliser
from numpyro_ebm.distributions.parametrised import Parametrised
from numpyro_ebm.distributions.validation import check_constraint, check_support
from numpyro_ebm.sampling.protocols import Coordinates, MarkovChain, Sampler
from numpyro_ebm.sampling.samplers import Exact, Hamiltonian, check_sampler
from numpyro_ebm.sampling.types import Key, PyTree


class EnergyDistribution(Parametrised):
    r"""A distribution with density :math:`p(v) = \exp(-F(v)) / Z`, where the free energy :math:`F` is always known.

    :param parameters: the family's parameters by name. Every one has the shape ``batch dimensions +
        parameter_dims[name]``, or is a scalar where all these sizes are known from parameters before it; batch
        dimensions broadcast. ``None`` for one of ``optional_parameters`` stands for a default that no formula uses.
    :param event_shape: shape of one value; default: the size that ``parameter_dims`` calls "visible".
    :param sizes: sizes of dimensions that are known before the parameters are looked at.
    :param dtype: floating-point type of the parameters; default: what they promote to.
    :param log_partition: what is known of the partition function (see :mod:`numpyro_ebm.distributions.normaliser`).
    :param independent: that the models of a batch are never compared, so that one value may meet several of unknown
        partition function; their sum is what is meant.
    :param sampler: configuration of :meth:`sample` (see :mod:`numpyro_ebm.sampling.samplers`); ``None`` takes
        ``default_sampler``.
    :param validate_args: check parameters and values that are not traced; ``None`` follows
        :func:`numpyro.enable_validation`.
    :raises TypeError: for a parameter that is not real floating point, an unknown ``log_partition`` or ``sampler``.
    :raises ValueError: for shapes that do not fit, NaN or infinite entries, a parameter outside its constraint.
    :raises ImproperDensityError: where the parameters fail the family's cheap condition for a proper density.
    """

    pytree_data_fields: tuple[str, ...] = ("normaliser",)
    pytree_aux_fields: tuple[str, ...] = ("sampler", "absent", "independent")
    #: What is known of the partition function.
    normaliser: Normaliser
    #: Whether the models of a batch are never compared.
    independent: bool
    #: The configuration of :meth:`sample` that was given.
    sampler: Sampler | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        event_shape: tuple[int, ...] | None = None,
        sizes: Mapping[str, int] | None = None,
        dtype: Any = None,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        known = dict(sizes or {})
        if event_shape is not None and len(event_shape) == 1:
            known["visible"] = event_shape[0]
        batch_shape = self._store_parameters(parameters, known, dtype)
        shape = (known["visible"],) if event_shape is None else tuple(event_shape)
        self._batch_shape, self._event_shape = batch_shape, shape  # which estimators look at
        self.independent = check_flag("independent", independent)
        self.normaliser = as_normaliser(self, log_partition)
        self.sampler = sampler
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

    def _check_parameter(self, name: str, array: jax.Array) -> None:
        """Refuse (untraced) entries that are not finite or outside the parameter's constraint."""
        check_constraint(type(self).__name__, name, array, self.arg_constraints[name])

    def _check_proper(self) -> None:
        """Raise :class:`ImproperDensityError` where the (untraced) parameters give no proper density."""

    # ------------------------------------------------------------------ what every family offers

    def energy(self, value: ArrayLike) -> jax.Array:
        """Free energy F, including every constant that integrating hidden units produces.

        :param value: shape ``(..., *event_shape)``, broadcasting against ``batch_shape``.
        :return: shape ``broadcast(..., batch_shape)``.
        """
        return self._map(type(self)._energy, self.check_value(value))

    def unnormalized_log_prob(self, value: ArrayLike) -> jax.Array:
        """``-energy(value)``: differentiable in everything, and not a log-density."""
        return -self.energy(value)

    def score(self, value: ArrayLike) -> jax.Array:
        """Gradient of the log-density in its value, shape of ``value`` broadcast against ``batch_shape``."""
        return self._map(type(self)._score, self.check_value(value))

    def laplacian(self, value: ArrayLike) -> jax.Array:
        """Trace of the Hessian of the log-density in its value."""
        return self._map(type(self)._laplacian, self.check_value(value))

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        """Starting points of Markov chains, shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``."""
        return jax.random.normal(rng_key, shape + self.event_shape, self.dtype)

    @property
    def unconstrained(self) -> Coordinates:
        """The density in coordinates that cover all of R^D, where gradient-informed chains move; here the same."""
        return self

    def to_value(self, position: jax.Array) -> jax.Array:
        """The value at a position of :attr:`unconstrained`."""
        return position

    def from_value(self, value: jax.Array) -> jax.Array:
        """The position of a value."""
        return value

    @property
    def default_sampler(self) -> Sampler:
        """Exact draws where the family has them, else its Markov chain."""
        return Exact() if self.has_exact_sampler else self.default_chain

    @property
    def default_chain(self) -> MarkovChain:
        """The Markov chain that ``sample``, contrastive criteria and annealing fall back to."""
        return Hamiltonian()

    @property
    def chain(self) -> MarkovChain:
        """``sampler`` if it is a Markov chain, else ``default_chain``."""
        if self.sampler is not None and isinstance(self.sampler, MarkovChain):
            return self.sampler
        return self.default_chain

    # ------------------------------------------------------------------ the host's contract

    @property
    def is_normalized(self) -> bool:
        """Whether ``log_prob`` includes the partition function: exact, given or estimated."""
        return self.normaliser.is_known and self.normaliser.holds(self)

    @property
    def log_partition(self) -> jax.Array:
        """The log partition function, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known, or quadrature does not resolve it (NaN where traced).
        """
        return self.normaliser.log_partition(self)

    def log_prob(self, value: ArrayLike, intermediates: PyTree = None) -> jax.Array:
        """Log-density; without its normaliser, and guarded, where the partition function is unknown.

        :param value: shape ``(..., *event_shape)``.
        :raises IntractablePartitionError: when a guarded density is differentiated in a parameter, or where one value
            meets several models of unknown partition functions.
        """
        del intermediates
        lead = jnp.shape(value)[: max(0, jnp.ndim(value) - self.event_dim)]
        value = self.check_value(value)
        self.normaliser.check_comparable(self, lead)
        return self.normaliser.log_prob(self, value, self._map(type(self)._energy, value))

    def sample(self, key: Key | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Independent draws, detached from the parameters: exact where possible, else the ends of separate chains.

        :param key: a JAX PRNG key.
        :param sample_shape: leading dimensions of independent draws.
        :return: shape ``sample_shape + batch_shape + event_shape``.
        """
        if key is None:
            raise ValueError(f"key: {type(self).__name__}.sample expected a JAX PRNG key, got None")
        sampler = self.default_sampler if self.sampler is None else self.sampler
        return sampler.sample(key, lax.stop_gradient(self), tuple(sample_shape) + self.batch_shape)

    def mask(self, mask: bool | jax.Array) -> Distribution:
        """The same distribution where ``mask`` is true, and 1 elsewhere.

        :param mask: a truth value for every value; one over the elements of a value is refused by ``log_prob``.
        """
        return MaskedEnergy.of(self, mask)

    def check_proper(self) -> None:
        """Run the family's exact test for a proper density.

        :raises ImproperDensityError: if ``exp(-energy)`` cannot be normalised.
        """
        if all(not_jax_tracer(array) for array in self.parameters().values()):
            self._check_proper()

    @property
    def has_rsample(self) -> bool:
        return False

    def expand(self, batch_shape: Sequence[int]) -> Self:
        """The same density over a larger batch, of the same class and without copying parameters."""
        shape = tuple(batch_shape)
        check_expandable(self.batch_shape, shape)
        expanded = copy.copy(self)
        expanded._batch_shape = shape
        return expanded

    def validate_args(self, strict: bool = True) -> None:
        """Check the parameters that are not traced: finite, inside their constraints, of a proper density."""
        if strict and not all(not_jax_tracer(array) for array in self.parameter_arrays()):
            raise RuntimeError("Cannot validate arguments inside jitted code.")
        owner = type(self).__name__
        with jax.ensure_compile_time_eval():
            for name, array in self.parameters().items():
                if not_jax_tracer(array):
                    self._check_parameter(name, array)
            self.normaliser.check(owner)
            self.check_proper()

    # ------------------------------------------------------------------ parameters

    def arguments(self) -> dict[str, Any]:
        """What the constructor was given, normaliser, sampler and validation apart."""
        given = {name: array for name, array in self.parameters().items() if name not in self.absent}
        return given | {name: getattr(self, name) for name in self.option_names}

    def replace(self, **changes: Any) -> Self:
        """A copy with other arguments of the constructor.

        A constant ``log_partition`` does not carry over to other parameters, and becomes unknown.

        :param changes: parameters, options, ``log_partition``, ``sampler`` or ``validate_args``, by name.
        """
        rest = {
            "log_partition": self.normaliser.policy,
            "validate_args": self._validate_args,
            "sampler": self.sampler,
        }
        rest |= {"independent": True} if self.independent else {}
        changed = type(self)(**{**self.arguments(), **rest, **changes})
        return changed.expand(jnp.broadcast_shapes(changed.batch_shape, self.batch_shape))

    def with_log_partition(self, log_partition: LogPartition, *, independent: bool | None = None) -> Self:
        """The same density with something else known of its partition function, without checking the parameters again.

        :param log_partition: as the constructor takes it.
        :param independent: as the constructor takes it; ``None`` keeps what it was.
        """
        other = copy.copy(self)
        other.independent = self.independent if independent is None else check_flag("independent", independent)
        other.normaliser = as_normaliser(other, log_partition)
        return other

    @property
    def description(self) -> str:
        """The class's name, with what makes its partition function intractable where that is known, for messages."""
        return type(self).__name__

    def dependencies(self, value: jax.Array) -> list[jax.Array]:
        """Everything differentiable that the energy of ``value`` depends on beside it."""
        del value
        return self.parameter_arrays()

    def exact_log_partition(self) -> jax.Array:
        """log Z as a function of the parameters, shape ``batch_shape``, where :attr:`has_exact_partition`.

        It is computed in 32 bits at least, and rounded to the type of the parameters.
        """
        model = self._in_single_precision()
        log_partition = model._map(type(self)._exact_log_partition).astype(self.dtype)
        return jnp.broadcast_to(log_partition, self.batch_shape)

    def exact_log_prob(self, value: jax.Array, energy: jax.Array) -> jax.Array:
        """``-energy - log Z``; for families that override it without terms that cancel.

        :param value: the value whose ``energy`` it is.
        """
        del value
        log_partition = self.log_partition
        return -energy - log_partition.reshape((1,) * (energy.ndim - log_partition.ndim) + log_partition.shape)

    @property
    def resolves_partition(self) -> bool:
        """Whether the exact partition function is one at these parameters: always, for sums and formulas."""
        return True

    def check_partition(self, log_partition: jax.Array) -> None:
        """Refuse an exact ``log_partition`` that turned out not to be: nothing, for sums and formulas.

        :raises IntractablePartitionError: in families that override it.
        """

    def check_value(self, value: ArrayLike, name: str = "value") -> jax.Array:
        """``value`` as an array of the parameters' type, broadcast over the batch.

        :param value: shape ``(..., *event_shape)``.
        :param name: what messages call it.
        :raises TypeError: if it is not real, or not floating point where the support is continuous.
        :raises ValueError: for a shape that does not fit, and for values outside the support unless they are traced.
        """
        array = self._check_batch(value, self.event_shape, name)
        if not self.is_discrete and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name}: expected a floating-point array, got dtype {array.dtype}")
        if self._validate_args and array.size and not_jax_tracer(array):
            check_support(type(self).__name__, name, array, self.support)
        return self._over_batch(array.astype(self.dtype), self.event_dim)

    def _check_batch(self, value: ArrayLike, core: tuple[int, ...], name: str) -> jax.Array:
        """``value`` as a real array of shape ``(..., *core)``, which broadcasts with ``batch_shape``."""
        array = jnp.asarray(value)
        lead = array.shape[: max(0, array.ndim - len(core))]
        if array.shape[len(lead) :] != core:
            raise ValueError(f"{name}: expected shape (..., {commas(core)}), got {array.shape}")
        check_broadcast(name, lead, self.batch_shape)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError(f"{name}: expected a real array, got dtype {array.dtype}")
        return array

    def __repr__(self) -> str:
        given = {name: array for name, array in self.parameters().items() if name not in self.absent}
        shapes = [f"{name}: {array.shape}" for name, array in given.items()]
        options = [f"{name}={getattr(self, name)!r}" for name in self.option_names]
        sampler = self.default_sampler if self.sampler is None else self.sampler
        facts = [f"batch_shape={self.batch_shape}", f"event_shape={self.event_shape}"]
        known = [f"log_partition={self.normaliser!r}", f"sampler={sampler!r}"]
        return f"{type(self).__name__}({commas([*shapes, *options, *facts, *known])})"
