"""What is known about a partition function, and the guard that keeps an unknown one from being ignored.

The normaliser policy is the constructor keyword ``log_partition`` of every energy distribution:

===================  ==========================================================  =====================
value                meaning                                                     ``log_prob``
===================  ==========================================================  =====================
``"auto"``           exact if closed form or at most 2^16 enumerated terms       normalised, or guarded
``None``             declared unknown                                            guarded
a number or array    a constant computed elsewhere                               normalised, guarded
a partition          an estimate with the gradient ``-E_model[grad F]``          normalised
estimator
===================  ==========================================================  =====================

A *guarded* ``log_prob`` may be differentiated in its value; differentiating it in any parameter raises
:class:`IntractablePartitionError` while JAX traces the derivative, because the missing term would make the result
silently wrong. Inference over parameters that takes no gradients (importance sampling, random-walk Metropolis) cannot
be caught this way: give it a normalised density.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

#: Largest number of terms that ``log_partition="auto"`` enumerates.
MAX_ENUMERATED_TERMS = 2**16
_CHUNK_UNITS = 10


class IntractablePartitionError(RuntimeError):
    """A partition function, or its gradient, is needed and is not known."""


class ImproperDensityError(ValueError):
    """The parameters give an energy whose ``exp(-energy)`` cannot be normalised."""


@runtime_checkable
class PartitionEstimator(Protocol):
    """What ``log_partition=`` accepts beside ``"auto"``, ``None`` and constants."""

    def seeded(self, distribution: Any) -> "PartitionEstimator":
        """This estimator, a pytree, with its random key drawn, or an error if it does not suit ``distribution``."""

    def weighted_samples(self, distribution: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Estimate a partition function and draw from the model.

        :param distribution: the energy distribution; its parameters carry no gradient.
        :return: ``log_partition`` of shape ``batch_shape``, samples of shape ``(M, *batch_shape, *event_shape)`` and
            their normalised weights of shape ``(M, *batch_shape)``.
        """


def resolve_policy(distribution: Any, log_partition: Any) -> tuple[str, Any]:
    """Split the keyword ``log_partition`` into a static policy name and its data."""
    if log_partition is None:
        return "unknown", None
    if isinstance(log_partition, str):
        if log_partition == "auto":
            return "auto", None
    elif isinstance(log_partition, PartitionEstimator):
        return "estimator", log_partition.seeded(distribution)
    elif (isinstance(log_partition, (int, float)) and not isinstance(log_partition, bool)) or hasattr(
        log_partition, "dtype"
    ):
        array = jnp.asarray(float(log_partition) if isinstance(log_partition, int) else log_partition)
        if jnp.issubdtype(array.dtype, jnp.floating):
            return "constant", array
    raise TypeError(
        f'log_partition: expected "auto", None, a real number or floating-point array, or a partition estimator such '
        f"as numpyro_ebm.infer.AnnealedImportanceSampling, got {log_partition!r}"
    )


def intractable_message(name: str) -> str:
    """The error text of a guarded density, with its remedies."""
    return (
        f"{name}: the partition function is not known as a function of the parameters, so the gradient of log_prob in "
        "a parameter would silently miss the term -grad log Z. Remedies: (1) an estimator, "
        "log_partition=numpyro_ebm.infer.AnnealedImportanceSampling(...); (2) observe the data under a learning "
        "criterion of numpyro_ebm.objectives (ContrastiveDivergence, PersistentContrastiveDivergence, ScoreMatching, "
        "PseudoLikelihood); (3) detach the parameters with jax.lax.stop_gradient if they are meant to stay fixed. "
        'Small models (at most 2^16 enumerated terms) are exact under log_partition="auto".'
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def guarded_zero(name: str, dtype: Any, parameters: Any) -> jax.Array:
    """Zero, whose derivative in any of ``parameters`` raises :class:`IntractablePartitionError` at trace time."""
    del name, parameters
    return jnp.zeros((), dtype)


@functools.partial(guarded_zero.defjvp, symbolic_zeros=True)
def _guarded_zero_jvp(name: str, dtype: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    leaves = jax.tree.leaves(tangents, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    if not all(isinstance(leaf, SymbolicZero) for leaf in leaves):
        raise IntractablePartitionError(intractable_message(name))
    return guarded_zero(name, dtype, *primals), jnp.zeros((), dtype)


def with_model_gradient(
    log_partition: jax.Array, energy: Callable[[jax.Array], jax.Array], samples: jax.Array, weights: jax.Array
) -> jax.Array:
    """Give an estimated ``log_partition`` the gradient ``-E_model[grad energy]`` of the true one.

    :param log_partition: the estimate, of shape ``batch_shape``.
    :param energy: the free energy as a function of values, carrying the parameters' gradients.
    :param samples: ``(M, *batch_shape, *event_shape)`` draws that stand for the model.
    :param weights: their normalised weights, ``(M, *batch_shape)``.
    """
    expected_energy = jnp.sum(lax.stop_gradient(weights) * energy(lax.stop_gradient(samples)), axis=0)
    return lax.stop_gradient(log_partition + expected_energy) - expected_energy


def binary_states(num_units: int, dtype: Any) -> jax.Array:
    """All states of ``num_units`` binary units, shape ``(2**num_units, num_units)``, first unit slowest."""
    codes = jnp.arange(2**num_units, dtype=jnp.uint32)
    shifts = jnp.arange(num_units - 1, -1, -1, dtype=jnp.uint32)
    return ((codes[:, None] >> shifts[None, :]) & 1).astype(dtype)


def enumerate_terms(log_term: Callable[[jax.Array], jax.Array], num_units: int, dtype: Any) -> jax.Array:
    """``log_term`` of every binary state, shape ``(2**num_units,)``, computed and differentiated chunk by chunk.

    :param log_term: maps states of shape ``(n, num_units)`` to log terms of shape ``(n,)``.
    """
    states = binary_states(num_units, dtype)
    if num_units <= _CHUNK_UNITS:
        return log_term(states)
    chunks = states.reshape(-1, 2**_CHUNK_UNITS, num_units)
    return lax.map(jax.checkpoint(log_term), chunks).reshape(-1)
