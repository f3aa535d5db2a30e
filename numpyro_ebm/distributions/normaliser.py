r"""What is known of a partition function, and the guard that keeps an unknown one from being ignored.

The constructor keyword ``log_partition`` of every energy distribution becomes one :class:`Normaliser`, and nothing
outside this module interprets it:

===================  =================  =========================================  =====================
value given          object             meaning                                    ``log_prob``
===================  =================  =========================================  =====================
``"auto"``           :class:`Exact`     closed form, or at most 2^16 terms         normalised
\                    :class:`Unknown`   otherwise                                  guarded
``None``             :class:`Unknown`   declared unknown                           guarded
a number or array    :class:`Constant`  computed elsewhere                         normalised, guarded
a partition          :class:`Estimated` with the gradient ``-E_model[grad F]``     normalised
estimator
===================  =================  =========================================  =====================

A *guarded* ``log_prob`` raises :class:`IntractablePartitionError` where one value meets several models, for their
constants differ; ``independent=True`` says that nothing but sums over them is meant. It may be differentiated in its
value; differentiating it in any parameter raises :class:`IntractablePartitionError` while JAX traces the derivative,
because the missing term would make the result silently wrong. A derivative of its gradient in the value, as score
matching takes it, has no such term, and passes in reverse mode. Inference over parameters that takes no gradients
(importance sampling, random-walk Metropolis) cannot be caught this way: give it a normalised density.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.errors import IntractablePartitionError, incomparable_message, intractable_message
from _ppl_ebm.shapes import check_broadcast, shared_axis
from numpyro_ebm.distributions.validation import check_constraint
from numpyro_ebm.sampling.protocols import Energy, PartitionEstimator
from numpyro_ebm.sampling.types import PyTree

#: What ``log_partition=`` accepts.
LogPartition: TypeAlias = Literal["auto"] | ArrayLike | PartitionEstimator | None


class Density(Energy, Protocol):
    """What a normaliser asks of the distribution it belongs to."""

    @property
    def description(self) -> str:
        """The distribution in messages."""

    @property
    def has_exact_partition(self) -> bool: ...

    @property
    def independent(self) -> bool:
        """Whether nothing but sums over the models of its batch are meant."""

    def exact_log_partition(self) -> jax.Array:
        """log Z as a function of the parameters, shape ``batch_shape``."""

    def exact_log_prob(self, value: jax.Array, energy: jax.Array) -> jax.Array:
        """``-energy - log Z`` of a value and its energy."""

    @property
    def resolves_partition(self) -> bool:
        """Whether that is one at these parameters."""

    def check_partition(self, log_partition: jax.Array) -> None:
        """Refuse an exact ``log_partition`` that turned out not to be."""

    def parameter_arrays(self) -> list[jax.Array]:
        """All arrays that log Z depends on."""

    def dependencies(self, value: jax.Array) -> list[jax.Array]:
        """Everything differentiable that the density depends on beside its value."""

    def unexpanded(self) -> "Density":
        """The same density over no larger a batch than its parameters have."""


class Normaliser:
    """What is known of log Z; a pytree."""

    #: Whether ``log_prob`` includes it.
    is_known: ClassVar[bool]
    #: Whether a derivative of ``log_prob`` in a parameter would be wrong, and so is refused.
    is_guarded: ClassVar[bool]

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(cls, cls.flatten, cls.unflatten)

    def flatten(self) -> tuple[tuple[PyTree, ...], Hashable]:
        """What is traced, and what is static."""
        return (), None

    @classmethod
    def unflatten(cls, static: Hashable, traced: Iterable[PyTree]) -> "Normaliser":
        """The inverse of :meth:`flatten`."""
        del static
        return cls(*traced)

    @property
    def policy(self) -> LogPartition:
        """What to give as ``log_partition`` to a distribution of other parameters."""
        raise NotImplementedError

    def log_partition(self, density: Density) -> jax.Array:
        """log Z, shape ``batch_shape``.

        :raises IntractablePartitionError: where it is not known.
        """
        raise NotImplementedError

    def holds(self, density: Density) -> bool:
        """Whether what is known holds at the parameters of ``density``."""
        return True

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        """Refuse to compare models whose constants are unknown.

        :param lead: the leading dimensions of the values, before they are broadcast over the batch.
        :raises IntractablePartitionError: where one value meets several of them.
        """

    def log_prob(self, density: Density, value: jax.Array, energy: jax.Array) -> jax.Array:
        """``-energy - log Z``, with the guard or without the constant as the case may be.

        :param value: the value whose ``energy`` it is.
        """
        log_prob = -energy
        if self.is_known:
            log_partition = self.log_partition(density)
            lead = (1,) * (log_prob.ndim - log_partition.ndim)
            log_prob = log_prob - log_partition.reshape(lead + log_partition.shape)
        if self.is_guarded:
            parameters = [*density.dependencies(value), *self.flatten()[0]]
            log_prob = log_prob + _guarded_zero(density.description, log_prob.dtype, parameters)
        return log_prob

    def check(self, owner: str) -> None:
        """Refuse entries that are not finite, unless they are traced."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Exact(Normaliser):
    """In closed form or by a sum. Computed once while the parameters are the same arrays, and not traced."""

    is_known, is_guarded = True, False

    def __init__(self) -> None:
        self._computed: tuple[Sequence[jax.Array], jax.Array] | None = None

    @property
    def policy(self) -> LogPartition:
        return "auto"

    def log_prob(self, density: Density, value: jax.Array, energy: jax.Array) -> jax.Array:
        return density.exact_log_prob(value, energy)

    def holds(self, density: Density) -> bool:
        return density.resolves_partition

    def log_partition(self, density: Density) -> jax.Array:
        arrays = density.parameter_arrays()
        if not all(not_jax_tracer(array) for array in arrays):
            return density.exact_log_partition()
        if self._computed is None or not _are_same(self._computed[0], arrays):
            with jax.ensure_compile_time_eval():
                self._computed = arrays, _exact_log_partition(density.unexpanded())
        density.check_partition(self._computed[1])
        return jnp.broadcast_to(self._computed[1], density.batch_shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"_computed": None}


class Unknown(Normaliser):
    """Not known; ``declared`` if ``None`` was given, else because the sum is too large."""

    is_known, is_guarded = False, True

    def __init__(self, declared: bool = True) -> None:
        self.declared = declared

    def flatten(self) -> tuple[tuple[PyTree, ...], Hashable]:
        return (), self.declared

    @classmethod
    def unflatten(cls, static: Hashable, traced: Iterable[PyTree]) -> "Unknown":
        return cls(bool(static))

    @property
    def policy(self) -> LogPartition:
        return None if self.declared else "auto"

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        _check_comparable(density, lead, ())

    def log_partition(self, density: Density) -> jax.Array:
        raise IntractablePartitionError(_message(density.description))


class Constant(Normaliser):
    """A number computed elsewhere, which does not follow the parameters."""

    is_known, is_guarded = True, True
    policy = None

    def __init__(self, value: jax.Array) -> None:
        self.value = value

    def flatten(self) -> tuple[tuple[PyTree, ...], Hashable]:
        return (self.value,), None

    def log_partition(self, density: Density) -> jax.Array:
        return jnp.broadcast_to(self.value, density.batch_shape).astype(density.dtype)

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        _check_comparable(density, lead, self.value.shape)

    def check(self, owner: str) -> None:
        if not_jax_tracer(self.value):
            check_constraint(owner, "log_partition", self.value, constraints.real)


class Estimated(Normaliser):
    """An estimate, with the gradient of the true value from the same samples."""

    is_known, is_guarded = True, False

    def __init__(self, estimator: PartitionEstimator) -> None:
        self.estimator = estimator

    def flatten(self) -> tuple[tuple[PyTree, ...], Hashable]:
        return (self.estimator,), None

    @property
    def policy(self) -> LogPartition:
        return self.estimator

    def log_partition(self, density: Density) -> jax.Array:
        model = density.unexpanded()
        estimate, samples, weights = self.estimator.weighted_samples(lax.stop_gradient(model))
        return jnp.broadcast_to(with_model_gradient(estimate, model.energy, samples, weights), density.batch_shape)


def _check_comparable(density: Density, lead: Sequence[int], known: Sequence[int]) -> None:
    """Refuse one value under several models, except along dimensions in which their constants are ``known``."""
    models = [*density.unexpanded().batch_shape]
    for place in range(1, min(len(models), len(known)) + 1):
        if known[-place] > 1:
            models[-place] = 1
    axis = shared_axis(lead, models)
    if axis is not None and not density.independent:
        raise IntractablePartitionError(incomparable_message(density.description, "numpyro_ebm", axis, models[axis]))


def as_normaliser(density: Density, log_partition: LogPartition) -> Normaliser:
    """What the keyword ``log_partition`` of ``density`` means.

    :raises TypeError: for anything that it does not accept.
    :raises ValueError: for a constant that does not broadcast over the batch.
    """
    if isinstance(log_partition, str) and log_partition == "auto":
        return Exact() if density.has_exact_partition else Unknown(declared=False)
    if log_partition is None:
        return Unknown()
    if isinstance(log_partition, PartitionEstimator) and not isinstance(log_partition, type):
        return Estimated(log_partition.prepare(density))
    constant = _as_constant(log_partition)
    if constant is None:
        raise TypeError(
            'log_partition: expected "auto", None, a real number or floating-point array, or a partition estimator '
            f"such as numpyro_ebm.infer.AnnealedImportanceSampling, got {log_partition!r}"
        )
    check_broadcast("log_partition", constant.shape, density.batch_shape)
    return Constant(constant)


def with_model_gradient(
    log_partition: jax.Array, energy: Callable[[jax.Array], jax.Array], samples: jax.Array, weights: jax.Array
) -> jax.Array:
    """Give an estimated ``log_partition`` the gradient ``-E_model[grad energy]`` of the true one.

    :param log_partition: the estimate, of shape ``batch_shape``.
    :param energy: the free energy as a function of values, carrying the parameters' gradients.
    :param samples: ``(M, *batch_shape, *event_shape)`` draws that stand for the model.
    :param weights: their normalised weights, ``(M, *batch_shape)``.
    """
    weights = lax.stop_gradient(weights)
    terms = weights * energy(lax.stop_gradient(samples))
    expected_energy = jnp.sum(jnp.where(weights == 0, 0, terms), axis=0)  # at an infinite energy the weight is 0
    return lax.stop_gradient(log_partition + expected_energy) - expected_energy


def _as_constant(number: Any) -> jax.Array | None:
    """A real number or floating-point array as an array; ``None`` for anything else."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.generic, np.ndarray, jax.Array)):
        return None
    array = jnp.asarray(float(number) if isinstance(number, int) else number)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else None


def _are_same(arrays: Sequence[jax.Array], others: Sequence[jax.Array]) -> bool:
    return len(arrays) == len(others) and all(one is other for one, other in zip(arrays, others, strict=True))


@jax.jit
def _exact_log_partition(density: Density) -> jax.Array:
    return density.exact_log_partition()


def _message(name: str) -> str:
    return intractable_message(name, "numpyro_ebm", "with jax.lax.stop_gradient")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _guarded_zero(name: str, dtype: Any, parameters: PyTree) -> jax.Array:
    """Zero, whose derivative in any of ``parameters`` raises :class:`IntractablePartitionError` at trace time."""
    del name, parameters
    return jnp.zeros((), dtype)


@functools.partial(_guarded_zero.defjvp, symbolic_zeros=True)
def _guarded_zero_jvp(name: str, dtype: Any, primals: PyTree, tangents: PyTree) -> tuple[jax.Array, jax.Array]:
    leaves = jax.tree.leaves(tangents, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    moving = [leaf for leaf in leaves if not isinstance(leaf, SymbolicZero)]
    tangent = _UNKNOWN.bind(*moving, name=name, dtype=dtype) if moving else jnp.zeros((), dtype)
    return _guarded_zero(name, dtype, *primals), tangent


# The derivative of an unknown log Z along a direction in the parameters, linear in the direction. Reverse mode comes to
# its transpose only where somebody asks for the derivative of the log-density itself: a derivative of its *score* in a
# parameter needs no log Z, and passes. Forward mode cannot know who will ask.
_UNKNOWN = jax.extend.core.Primitive("unknown_log_partition")


def _refuse(*arguments: Any, name: str, **options: Any) -> Any:
    raise IntractablePartitionError(_message(name))


@_UNKNOWN.def_abstract_eval
def _shape_of_unknown(*directions: Any, name: str, dtype: Any) -> ShapedArray:
    del directions, name
    return ShapedArray((), dtype)


def _batch_of_unknown(directions: Sequence[jax.Array], axes: Sequence[Any], **options: Any) -> tuple[jax.Array, None]:
    del axes
    return _UNKNOWN.bind(*directions, **options), None


_UNKNOWN.def_impl(_refuse)
ad.deflinear2(_UNKNOWN, _refuse)
batching.primitive_batchers[_UNKNOWN] = _batch_of_unknown
mlir.register_lowering(_UNKNOWN, _refuse)
