"""Machines of binary covariance and mean units over filters: mixtures of Gaussians with different precisions."""

import math
from typing import Self

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.normals import LOG_2PI
from _ppl_ebm.properness import check_conditional_precisions
from numpyro_ebm.distributions.parts.activations import ACTIVATIONS
from numpyro_ebm.distributions.parts.bipartite import bernoulli_units
from numpyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from numpyro_ebm.distributions.parts.filters import FilterMachine, PooledUnits, Units
from numpyro_ebm.sampling.protocols import MarkovChain
from numpyro_ebm.sampling.random import bernoulli_from_logits
from numpyro_ebm.sampling.samplers import Hamiltonian
from numpyro_ebm.sampling.types import Key, PyTree

_SIGMOID = ACTIVATIONS["sigmoid"]


class BinaryFilterMachine(FilterMachine):
    """Binary covariance units and, where there are any, binary mean units."""

    optional_parameters = {"pooling": 0.0}
    default_pooling = -1.0
    option_names = ("normalize_visible",)
    covariance_bias: jax.Array
    visible_bias: jax.Array

    @property
    def has_exact_partition(self) -> bool:
        return not self.normalize_visible and 2**self.num_hidden <= MAX_ENUMERATED_TERMS

    @property
    def has_annealing(self) -> bool:
        return True

    @property
    def default_chain(self) -> MarkovChain:
        return Hamiltonian() if self.normalize_visible else super().default_chain

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1).

        Pooling, weights and hidden biases are multiplied by ``inverse_temperature``; the visible part stays.
        """
        names = {"pooling", "covariance_bias", "weights", "hidden_bias"} & set(self.parameter_dims)
        beta = jnp.asarray(inverse_temperature, self.dtype)
        return self.replace(**{name: beta * getattr(self, name) for name in names}, log_partition=None)

    def _check_proper(self) -> None:
        if self.normalize_visible:  # the covariance units are bounded, and any quadratic form outweighs them
            return
        names = [name for name in ("filters", "pooling", "precision") if name in self.parameter_dims]
        for filters, pooling, *diagonal in self._single_models(names):
            check_conditional_precisions(type(self).__name__, filters, pooling, diagonal[0] if diagonal else 1.0)

    def _linear(self) -> jax.Array:
        return self.visible_bias

    @property
    def _covariance_units(self) -> Units:
        return PooledUnits(_SIGMOID, self.covariance_bias)

    @property
    def _mean_units(self) -> Units:
        return _SIGMOID

    def _filter_precisions(self, covariance_hidden: jax.Array) -> jax.Array:
        if self.normalize_visible:
            raise TypeError(
                f"normalize_visible: {type(self).__name__} expected False for visible units given hidden ones, got "
                "True: visible units that are normalised inside the covariance units are not Gaussian given these"
            )
        return -self._unpool(covariance_hidden)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        covariance_input = self.covariance_bias + self._pooled(value)
        return (
            jnp.concatenate([covariance_input, self._mean_inputs(value)]) if self.has_mean_units else covariance_input
        )

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        return self._quadratic(value) - hidden @ self._hidden_input(value)

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return bernoulli_from_logits(rng_key, inputs)

    @property
    def has_gibbs_step(self) -> bool:
        return not self.normalize_visible

    def _mean_matrix(self) -> jax.Array:
        """The linear coefficients that the mean units' states multiply, shape ``(D, mean units)``."""
        return self.weights if self.has_mean_units else jnp.zeros((*self.event_shape, 0), self.dtype)

    def _mean_states(self) -> jax.Array:
        return binary_states(self.num_hidden - self.num_covariance, self.dtype)

    def _log_terms(self) -> jax.Array:
        """Unnormalised log-weight of every Gaussian of the mixture, covariance units slowest."""
        states = self._mean_states()
        inputs = states @ self.hidden_bias if self.has_mean_units else jnp.zeros(1, self.dtype)
        columns = jnp.concatenate([self._linear()[:, None], self._mean_matrix()], axis=1)
        coefficients = jnp.concatenate([jnp.ones((len(states), 1), self.dtype), states], axis=1)

        def log_term(state: jax.Array) -> jax.Array:
            lower = jnp.linalg.cholesky(self._precision(state))
            solved = solve_triangular(lower, columns, lower=True)
            exponents = 0.5 * ((coefficients @ (solved.T @ solved)) * coefficients).sum(-1)
            return self.covariance_bias @ state - jnp.log(jnp.diagonal(lower)).sum() + inputs + exponents

        cost = self._num_models * (self.event_shape[0] ** 2 + coefficients.size)
        return enumerate_terms(jax.vmap(log_term), self.num_covariance, self.dtype, cost=cost).reshape(-1)

    def _exact_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * LOG_2PI + logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        diagonal = self._diagonal()
        gaussian = self._linear() ** 2 / diagonal - jnp.log(diagonal) + LOG_2PI
        return 0.5 * gaussian.sum() + self.num_hidden * math.log(2)

    def _exact_moments(self) -> tuple[jax.Array, jax.Array]:
        """Mean and second moment of the mixture, one state of the covariance units at a time."""
        states = self._mean_states()
        linear = self._linear()[None] + states @ self._mean_matrix().T
        probability = jax.nn.softmax(self._log_terms()).reshape(-1, len(states))

        def add(total: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]) -> tuple[PyTree, None]:
            state, weight = inputs
            lower = jnp.linalg.cholesky(self._precision(state))
            identity = jnp.eye(len(lower), dtype=self.dtype)
            covariance = cho_solve((lower, True), identity)
            means = linear @ covariance
            second = weight.sum() * covariance + means.T @ (weight[:, None] * means)
            return (total[0] + weight @ means, total[1] + second), None

        zero = jnp.zeros(self.event_shape, self.dtype)
        moments, _ = lax.scan(
            add, (zero, zero[:, None] * zero[None]), (binary_states(self.num_covariance, self.dtype), probability)
        )
        return moments

    def _exact_mean(self) -> jax.Array:
        return self._exact_moments()[0]

    def _exact_covariance(self) -> jax.Array:
        mean, second = self._exact_moments()
        return second - jnp.outer(mean, mean)

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        return self._sample_given_hidden(key_visible, binary_states(self.num_hidden, self.dtype)[index])
