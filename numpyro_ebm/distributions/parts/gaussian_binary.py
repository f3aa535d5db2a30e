"""Machines of Gaussian visible and binary hidden units: mixtures of Gaussians."""

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid, softplus
from jax.scipy.special import logsumexp

from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.normals import LOG_2PI
from numpyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, bernoulli_units
from numpyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from numpyro_ebm.sampling.random import bernoulli_from_logits
from numpyro_ebm.sampling.types import Key


class GaussianBinaryMachine(RestrictedBoltzmannMachine):
    """What machines with Gaussian visible and binary hidden units share: a mixture of ``2^hidden`` Gaussians.

    A member provides ``weights`` and ``scale``, as parameters or derived from them.
    """

    scale: jax.Array

    @property
    def has_exact_partition(self) -> bool:
        return 2**self.num_hidden <= MAX_ENUMERATED_TERMS

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        quadratic = 0.5 * (((value - self.visible_bias) / self.scale) ** 2).sum()
        return quadratic - (value / self.scale**2) @ self.weights @ hidden - self.hidden_bias @ hidden

    def _energy(self, value: jax.Array) -> jax.Array:
        quadratic = 0.5 * (((value - self.visible_bias) / self.scale) ** 2).sum()
        return quadratic - softplus(self._hidden_input(value)).sum()

    def _score(self, value: jax.Array) -> jax.Array:
        return (self._visible_input(sigmoid(self._hidden_input(value))) - value) / self.scale**2

    def _laplacian(self, value: jax.Array) -> jax.Array:
        active = sigmoid(self._hidden_input(value))
        return (self.scale**-4 @ self.weights**2) @ (active * (1 - active)) - (self.scale**-2).sum()

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return (value / self.scale**2) @ self.weights + self.hidden_bias

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return bernoulli_from_logits(rng_key, inputs)

    def _visible_units(self, inputs: jax.Array) -> dist.Distribution:
        return dist.Normal(inputs, self._scale_like(inputs), validate_args=False).to_event(1)

    def _sample_visible(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return inputs + self._scale_like(inputs) * jax.random.normal(rng_key, inputs.shape, inputs.dtype)

    def _scale_like(self, loc: jax.Array) -> jax.Array:
        return self.scale.reshape((1,) * (loc.ndim - self.scale.ndim) + self.scale.shape)

    def _log_terms(self) -> jax.Array:
        """Unnormalised log-weight of every Gaussian of the mixture."""
        scaled = self.weights / self.scale[:, None] ** 2
        linear = self.hidden_bias + self.visible_bias @ scaled
        gram = self.weights.T @ scaled
        log_term = lambda states: states @ linear + 0.5 * ((states @ gram) * states).sum(-1)
        return enumerate_terms(log_term, self.num_hidden, self.dtype, cost=self._num_models * self.num_hidden)

    def _exact_log_partition(self) -> jax.Array:
        return self._gaussian_log_partition() + logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        return self._gaussian_log_partition() + self.num_hidden * math.log(2)

    def _gaussian_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * LOG_2PI + jnp.log(self.scale).sum()

    def _hidden_moments(self) -> tuple[jax.Array, jax.Array]:
        """Mean and covariance of the hidden units under the model."""
        states = binary_states(self.num_hidden, self.dtype)
        probability = jax.nn.softmax(self._log_terms())
        centred = states - (probability @ states)[None, :]
        return probability @ states, centred.T @ (probability[:, None] * centred)

    def _exact_mean(self) -> jax.Array:
        return self._visible_input(self._hidden_moments()[0])

    def _exact_variance(self) -> jax.Array:
        return self.scale**2 + ((self.weights @ self._hidden_moments()[1]) * self.weights).sum(-1)

    def _exact_covariance(self) -> jax.Array:
        return jnp.diag(self.scale**2) + self.weights @ self._hidden_moments()[1] @ self.weights.T

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        hidden = binary_states(self.num_hidden, self.dtype)[index]
        return self._sample_visible(key_visible, self._map(type(self)._visible_input, hidden))


class UnitScaleMachine(GaussianBinaryMachine):
    """A machine of unit scale; with sigmoid units the tied autoencoder of the same weights and biases is its energy."""

    @property
    def scale(self) -> jax.Array:  # type: ignore[override]
        """Standard deviation of the visible units given the hidden ones: ones."""
        return jnp.ones(self.event_shape, self.dtype)
