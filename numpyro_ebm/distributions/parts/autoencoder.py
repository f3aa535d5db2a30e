r"""Autoencoders whose field ``r(x) - x`` is the gradient of an energy, as distributions.

``energy(value)`` is that potential over ``temperature``, so ``score = field / temperature``. A denoising autoencoder
that was trained at noise ``sigma`` has ``temperature = sigma^2``: a tempered energy of unit variance, which is not a
Gaussian-Bernoulli machine of that variance (Alain & Bengio 2014; Vincent 2011).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.errors import IntractablePartitionError, unresolved_message
from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.properness import check_pooled_growth, check_spectral_norm
from _ppl_ebm.quadrature import MAX_DIRECTIONS, MOST_BETWEEN
from _ppl_ebm.shapes import draws_by_model
from numpyro_ebm.distributions.batching import broadcasting_vmap
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.parts.activations import ACTIVATIONS, Activation
from numpyro_ebm.distributions.parts.filters import FilterEnergy, PooledUnits, Units
from numpyro_ebm.distributions.parts.gaussian_binary import UnitScaleMachine
from numpyro_ebm.distributions.parts.quadrature import low_rank_log_partition
from numpyro_ebm.distributions.parts.reconstruction import Reconstruction
from numpyro_ebm.distributions.parts.rejection import low_rank_excess, low_rank_sample
from numpyro_ebm.sampling.types import Key


class Autoencoder(Reconstruction):
    """The family's base: ``encode`` beside ``reconstruct`` and ``field``.

    A member defines for one value ``_hidden_input``, the input ``u`` of its hidden units, and ``_reconstruct``.
    """

    option_names = ("activation",)
    support = constraints.real_vector
    activation: Activation

    @property
    def has_continuous_score(self) -> bool:
        return self.activation.is_continuous

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        raise NotImplementedError

    def _encode(self, value: jax.Array) -> jax.Array:
        return self.activation.function(self._hidden_input(value))

    def encode(self, value: ArrayLike) -> jax.Array:
        """Hidden activations g(u), shape ``(..., hidden)``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._map(type(self)._encode, self.check_value(value))


class TemperedAutoencoder(Autoencoder):
    """An energy that is the potential of ``field`` over a temperature, which is 1 unless it is given."""

    optional_parameters: ClassVar[Mapping[str, float]] = {"temperature": 1.0}
    temperature: jax.Array

    def _tempered(self, array: jax.Array) -> jax.Array:
        return array if "temperature" in self.absent else array / self.temperature


class LinearAutoencoder(TemperedAutoencoder):
    """Hidden units see linear functions of the value, ``u = W'x + b``, and answer through the same weights.

    A member provides ``weights``, as a parameter or derived from its parameters.
    """

    weights: jax.Array
    hidden_bias: jax.Array
    visible_bias: jax.Array

    def _gains(self) -> jax.Array:
        """Gain of each hidden unit's answer."""
        return jnp.ones(self.hidden_bias.shape, self.dtype)

    def _output(self, hidden: jax.Array) -> jax.Array:
        """What the hidden units add to the reconstruction."""
        return self.weights @ hidden

    def _potential(self, inputs: jax.Array) -> jax.Array:
        potential = self.activation.antiderivative(inputs)
        return potential if self.activation.is_joint else self._gains() @ potential

    def _energy(self, value: jax.Array) -> jax.Array:
        quadratic = 0.5 * ((value - self.visible_bias) ** 2).sum()
        return self._tempered(quadratic - self._potential(self._hidden_input(value)))

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return self._output(self._gains() * self._encode(value)) + self.visible_bias

    def _score(self, value: jax.Array) -> jax.Array:
        return self._tempered(self._reconstruct(value) - value)

    def _laplacian(self, value: jax.Array) -> jax.Array:
        slopes, weights = self.activation.derivative(self._hidden_input(value)), self.weights
        if self.activation.is_joint:
            trace = ((weights @ slopes) * weights).sum()
        else:
            trace = (self._gains() * slopes) @ (weights**2).sum(0)
        return self._tempered(trace - self.event_shape[0])

    @property
    def _is_machine(self) -> bool:
        """Whether this is the free energy of a Gaussian-Bernoulli machine that can be enumerated."""
        plain = self.optional_parameters.keys() <= self.absent
        size = 2 ** self.hidden_bias.shape[-1]
        return self.activation is ACTIVATIONS["sigmoid"] and plain and size <= MAX_ENUMERATED_TERMS

    @property
    def has_exact_partition(self) -> bool:
        directions = min(self.event_shape[0], self.hidden_bias.shape[-1])
        return self._is_machine or (directions <= MAX_DIRECTIONS and self.activation.slopes is not None)

    @property
    def has_exact_sampler(self) -> bool:
        if self._is_machine or not self.has_exact_partition:
            return self._is_machine
        if not all(not_jax_tracer(array) for array in self.parameters().values()):
            return True
        with jax.ensure_compile_time_eval():
            return bool((self._map(lambda model: low_rank_excess(*model._low_rank())) <= MOST_BETWEEN).all())

    def _machine(self) -> UnitScaleMachine:
        parameters = {"weights": self.weights, "visible_bias": self.visible_bias, "hidden_bias": self.hidden_bias}
        return UnitScaleMachine(parameters, log_partition=None, validate_args=False)

    def _exact_log_partition(self) -> jax.Array:
        if self._is_machine:
            return self._machine().exact_log_partition()
        return low_rank_log_partition(*self._low_rank())

    def _low_rank(self) -> tuple[jax.Array, jax.Array, jax.Array, Activation, jax.Array]:
        """The energy around the visible bias: what quadrature and rejection take."""
        inputs = self.hidden_bias + self.visible_bias @ self.weights
        return self.weights, inputs, self._gains(), self.activation, self.temperature

    @property
    def resolves_partition(self) -> bool:
        if self._is_machine:
            return True
        try:
            log_partition = self.log_partition
        except IntractablePartitionError:
            return False
        return not not_jax_tracer(log_partition) or not _has_nan(log_partition)

    def check_partition(self, log_partition: jax.Array) -> None:
        if self._validate_args and not_jax_tracer(log_partition) and _has_nan(log_partition):
            raise IntractablePartitionError(unresolved_message(type(self).__name__))

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        if self._is_machine:
            return self._machine().exact_sample(rng_key, shape)
        own = self.unexpanded().batch_shape
        num_draws, arrange = draws_by_model(shape, own)
        keys = jax.random.split(rng_key, own)
        parts = self._map(lambda model: (*model._low_rank()[:3], model.temperature, model.visible_bias))

        def draw(key: Key, *part: jax.Array) -> jax.Array:
            weights, inputs, gains, temperature, visible_bias = part
            draws = low_rank_sample(key, weights, inputs, gains, self.activation, temperature, num_draws)
            return visible_bias[None] + draws

        cores = [keys.ndim - len(own), 2, 1, 1, 0, 1]
        return arrange(broadcasting_vmap(draw, cores, keys, *parts), jnp)

    def _check_proper(self) -> None:
        slopes = self.activation.slopes
        if slopes is None or self.activation.is_bounded:
            return
        for weights, gains in self._single_weights():
            worst = np.maximum(gains * slopes[0], gains * slopes[1])
            check_spectral_norm(type(self).__name__, self._weights_name, weights, worst)

    _weights_name = "weights"

    def _single_weights(self) -> Iterable[Sequence[np.ndarray]]:
        """Weights and gains of each model of the batch."""
        raise NotImplementedError


def _has_nan(array: jax.Array) -> bool:
    with jax.ensure_compile_time_eval():  # known values stay so in a compiled program
        return bool(jnp.isnan(array).any())


class FilterAutoencoder(TemperedAutoencoder, FilterEnergy):
    """Hidden units that see pooled squares of filter outputs; the filters' products with them reconstruct."""

    optional_parameters = {"temperature": 1.0, "pooling": 0.0}
    default_pooling = -1.0
    covariance_bias: jax.Array
    visible_bias: jax.Array

    def _quadratic(self, value: jax.Array) -> jax.Array:
        return 0.5 * ((value - self.visible_bias) ** 2).sum()

    def _linear(self) -> jax.Array:
        return self.visible_bias

    def _covariance_input(self, value: jax.Array) -> jax.Array:
        return self.covariance_bias + 2 * self._pooled(value)

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return self._covariance_input(value)

    @property
    def _covariance_units(self) -> Units:
        return PooledUnits(self.activation, self.covariance_bias, gain=2.0)

    @property
    def _mean_units(self) -> Units:
        return self.activation

    def _energy(self, value: jax.Array) -> jax.Array:
        return self._tempered(super()._energy(value))

    def _reconstruct(self, value: jax.Array) -> jax.Array:
        return super()._score(value) + value

    def _score(self, value: jax.Array) -> jax.Array:
        return self._tempered(super()._score(value))

    def _laplacian(self, value: jax.Array) -> jax.Array:
        if self.activation.is_joint:
            return EnergyDistribution._laplacian(self, value)
        return self._tempered(super()._laplacian(value))

    def _check_proper(self) -> None:
        if self.activation.slopes is None:
            return
        name, slope = type(self).__name__, max(0.0, *self.activation.slopes)
        names = [name for name in ("filters", "pooling", "weights") if name in self.parameter_dims]
        for filters, pooling, *weights in self._single_models(names):
            fixed = np.sqrt(slope) * weights[0] if weights and slope > 0 else None
            check_pooled_growth(name, filters, pooling, self.activation, fixed)
