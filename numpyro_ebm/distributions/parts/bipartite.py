"""What models with hidden units share: conditionals, block Gibbs sampling, moments; conditioning and annealing."""

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from _ppl_ebm.shapes import check_units
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling.protocols import MarkovChain
from numpyro_ebm.sampling.samplers import Gibbs
from numpyro_ebm.sampling.types import Key


class HiddenUnitEnergy(EnergyDistribution):
    """A model of a visible vector ``v`` and a vector ``h`` of hidden units, each side tractable given the other.

    A member defines ``_energy`` and the methods below (for one value; distributions and draws for batches).
    """

    support = constraints.real_vector

    # ------------------------------------------------------------------ what a member defines

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        """Energy of visible and hidden units together."""
        raise NotImplementedError(f"{type(self).__name__} must define _joint_energy(value, hidden)")

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        """What the distribution of the hidden units given ``value`` depends on: logits, rates or means."""
        raise NotImplementedError(f"{type(self).__name__} must define _hidden_input(value)")

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        """Distribution of the hidden units with these inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define _hidden_distribution(inputs)")

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_hidden(...)")

    def _visible_distribution(self, hidden: jax.Array) -> dist.Distribution:
        """Distribution of the visible units given hidden ones."""
        raise NotImplementedError(f"{type(self).__name__} must define _visible_distribution(hidden)")

    def _sample_given_hidden(self, rng_key: Key, hidden: jax.Array) -> jax.Array:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_given_hidden(...)")

    def _base_log_partition(self) -> jax.Array:
        """log Z of ``at_inverse_temperature(0)``, where there is such a path."""
        raise NotImplementedError(f"{type(self).__name__} has no path from independent units")

    def _exact_mean(self) -> jax.Array:
        """Mean of the visible units, where ``has_exact_partition``."""
        raise NotImplementedError(f"{type(self).__name__} has no exact moments")

    def _exact_covariance(self) -> jax.Array:
        """Covariance of the visible units, where ``has_exact_partition``."""
        raise NotImplementedError(f"{type(self).__name__} has no exact moments")

    # ------------------------------------------------------------------ what every member offers

    @property
    def num_hidden(self) -> int:
        """Number of hidden units."""
        raise NotImplementedError

    @property
    def has_exact_sampler(self) -> bool:
        return self.has_exact_partition

    @property
    def has_gibbs_step(self) -> bool:
        return True

    @property
    def default_chain(self) -> MarkovChain:
        return Gibbs()

    @property
    def mean(self) -> jax.Array:
        """Exact mean of the visible units, shape ``batch_shape + event_shape``.

        :raises NotImplementedError: where it is not known, or would need more than 2^16 terms.
        """
        return self._exact_moment(type(self)._exact_mean, self.event_shape)

    @property
    def variance(self) -> jax.Array:
        """Exact variance of each visible unit, shape ``batch_shape + event_shape``; limited as :attr:`mean`."""
        return self._exact_moment(type(self)._exact_variance, self.event_shape)

    @property
    def covariance_matrix(self) -> jax.Array:
        """Exact covariance of the visible units, shape ``batch_shape + (visible, visible)``; limited as ``mean``."""
        return self._exact_moment(type(self)._exact_covariance, self.event_shape * 2)

    def joint_energy(self, value: ArrayLike, hidden: ArrayLike) -> jax.Array:
        """Energy E(v, h) of visible and hidden units together, shape ``broadcast(..., batch_shape)``.

        :param value: shape ``(..., visible)``.
        :param hidden: shape ``(..., hidden)``.
        """
        return self._map(type(self)._joint_energy, self.check_value(value), self._check_hidden(hidden))

    def hidden_given_visible(self, value: ArrayLike) -> dist.Distribution:
        """Distribution of the hidden units given visible ones, event shape ``(hidden,)``.

        :param value: shape ``(..., visible)``.
        """
        return self._hidden_distribution(self._map(type(self)._hidden_input, self.check_value(value)))

    def visible_given_hidden(self, hidden: ArrayLike) -> dist.Distribution:
        """Distribution of the visible units given hidden ones, event shape ``(visible,)``.

        :param hidden: shape ``(..., hidden)``.
        """
        return self._visible_distribution(self._check_hidden(hidden))

    def gibbs_step(self, rng_key: Key, value: jax.Array) -> jax.Array:
        """One block Gibbs sweep: hidden units given ``value``, then new visible units given those."""
        key_hidden, key_visible = jax.random.split(rng_key)
        hidden = self._sample_hidden(key_hidden, self._map(type(self)._hidden_input, value))
        return self._sample_given_hidden(key_visible, hidden)

    @property
    def base_log_partition(self) -> jax.Array:
        """Exact log partition function of ``at_inverse_temperature(0)``, where annealing starts."""
        return jnp.broadcast_to(self._map(type(self)._base_log_partition), self.batch_shape)

    def _exact_variance(self) -> jax.Array:
        return jnp.diagonal(self._exact_covariance())

    def _exact_moment(self, moment: Callable[..., jax.Array], shape: tuple[int, ...]) -> jax.Array:
        if not self.has_exact_partition:
            raise NotImplementedError(
                f"{type(self).__name__}: exact moments need a closed form or at most 2^16 enumerated terms; estimate "
                "them from samples"
            )
        return jnp.broadcast_to(self._map(moment), self.batch_shape + shape)

    def _check_hidden(self, hidden: ArrayLike) -> jax.Array:
        return self._over_batch(self._check_batch(hidden, (self.num_hidden,), "hidden").astype(self.dtype), 1)


class RestrictedBoltzmannMachine(HiddenUnitEnergy):
    """The bipartite family's base: hidden units couple to visible ones through ``weights`` alone.

    Beside what :class:`HiddenUnitEnergy` asks for, a member defines the distribution ``_visible_units`` and draw
    ``_sample_visible`` of its visible units given their input; ``_visible_input`` and ``_hidden_input`` are linear.
    """

    parameter_dims = {"weights": ("visible", "hidden"), "visible_bias": ("visible",), "hidden_bias": ("hidden",)}
    arg_constraints = {
        "weights": constraints.independent(constraints.real, 2),
        "visible_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
    }
    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array

    @property
    def num_hidden(self) -> int:
        return int(self.hidden_bias.shape[-1])

    @property
    def has_annealing(self) -> bool:
        return True

    def _visible_units(self, inputs: jax.Array) -> dist.Distribution:
        """Distribution of the visible units with these inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define _visible_units(inputs)")

    def _sample_visible(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_visible(...)")

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return value @ self.weights + self.hidden_bias

    def _visible_input(self, hidden: jax.Array) -> jax.Array:
        return self.weights @ hidden + self.visible_bias

    def condition(self, indices: ArrayLike, values: ArrayLike) -> Self:
        """The exact conditional distribution of the other visible units, which is of the same family.

        :param indices: one-dimensional integer sequence (not traced): the visible units that are known.
        :param values: their values, shape ``(..., len(indices))``; leading dimensions become batch dimensions.
        :return: a distribution over the remaining units in their original order. It keeps ``sampler`` and the
            normaliser policy, except that a constant ``log_partition`` does not carry over and becomes unknown.
        """
        num_visible = self.event_shape[0]
        known = check_units("indices", indices, num_visible)
        part = self.replace(**self._visible_parameters(known))
        hidden_bias = part._map(type(self)._hidden_input, part.check_value(values, "values"))
        rest = np.setdiff1d(np.arange(num_visible), known)
        return self.replace(**self._visible_parameters(rest), hidden_bias=hidden_bias)

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1).

        Weights and hidden biases are multiplied by ``inverse_temperature``; the visible part stays.
        """
        beta = jnp.asarray(inverse_temperature, self.dtype)
        return self.replace(weights=beta * self.weights, hidden_bias=beta * self.hidden_bias, log_partition=None)

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        """Visible units given hidden ones, of which another share is on in every chain: starts on all sides."""
        key_hidden, key_visible = jax.random.split(rng_key)
        hidden = self._dispersed_hidden(key_hidden, shape)
        return self._sample_visible(key_visible, self._map(type(self)._visible_input, hidden))

    def _dispersed_hidden(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        return dispersed_states(rng_key, shape, self.num_hidden, self.dtype)

    def _visible_distribution(self, hidden: jax.Array) -> dist.Distribution:
        return self._visible_units(self._map(type(self)._visible_input, hidden))

    def _sample_given_hidden(self, rng_key: Key, hidden: jax.Array) -> jax.Array:
        return self._sample_visible(rng_key, self._map(type(self)._visible_input, hidden))

    def _visible_parameters(self, units: np.ndarray) -> dict[str, jax.Array]:
        return {
            name: jnp.take(getattr(self, name), units, axis=-len(dims))
            for name, dims in self.parameter_dims.items()
            if dims[0] == "visible"
        }


def dispersed_states(rng_key: Key, shape: tuple[int, ...], size: int, dtype: jnp.dtype) -> jax.Array:
    """Binary states, shape ``(*shape, size)``, each row with a share of ones of its own, uniform over (0, 1)."""
    uniform = jax.random.uniform(rng_key, (*shape, size + 1), dtype)
    return (uniform[..., 1:] < uniform[..., :1]).astype(dtype)


def bernoulli_units(logits: jax.Array) -> dist.Distribution:
    """Independent binary units over the last axis."""
    return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)


def normal_units(loc: jax.Array) -> dist.Distribution:
    return dist.Normal(loc, jnp.ones((), loc.dtype), validate_args=False).to_event(1)


def sample_unit_normal(rng_key: jax.Array, loc: jax.Array) -> jax.Array:
    return loc + jax.random.normal(rng_key, loc.shape, loc.dtype)
