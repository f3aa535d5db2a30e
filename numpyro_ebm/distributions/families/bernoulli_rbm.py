"""The restricted Boltzmann machine with binary units."""

import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid, softplus
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, bernoulli_units
from numpyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from numpyro_ebm.sampling.protocols import Sampler
from numpyro_ebm.sampling.random import bernoulli_from_logits
from numpyro_ebm.sampling.types import Key


class BernoulliRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with binary visible and hidden units in {0, 1} (Smolensky 1986; Hinton 2002).

    .. math::

        E(v, h) = -v^\top W h - a^\top v - b^\top h, \qquad
        F(v) = -a^\top v - \sum_j \mathrm{softplus}(b_j + W_{:j}^\top v)

    The partition function is exact (a sum over the smaller layer) while that layer has at most 16 units. ``score`` and
    ``laplacian`` are those of the free energy's smooth extension to real ``v``, which gradient-informed samplers use;
    on binary data there is no score in the sense of Hyvarinen, and ``ScoreMatching`` refuses this family.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration, ``Exact()`` or ``Gibbs()``; default: exact where possible.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import BernoulliRBM
    >>> rbm = BernoulliRBM(jnp.array([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.2]]), visible_bias=-0.5)
    >>> rbm.sample(jax.random.key(0), (4,)).shape
    (4, 3)
    >>> print(f"{rbm.log_partition:.4f} {rbm.log_prob(jnp.array([1.0, 0.0, 1.0])):.4f}")
    3.7144 -3.4669
    """

    support = constraints.independent(constraints.boolean, 1)

    def __init__(
        self,
        weights: ArrayLike,
        *,
        visible_bias: ArrayLike = 0.0,
        hidden_bias: ArrayLike = 0.0,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @classmethod
    @shows_its_call
    def from_spins(
        cls, weights: ArrayLike, *, visible_bias: ArrayLike = 0.0, hidden_bias: ArrayLike = 0.0, **options: Any
    ) -> Self:
        """The binary machine that is equivalent to one with spins in {-1, +1}.

        With ``s = 2v - 1`` and ``t = 2h - 1`` the energies ``-s'Jt - a's - c't`` and this machine's differ by a
        constant, so the probabilities are equal.

        :param weights: spin couplings J, shape ``(..., visible, hidden)``.
        :param visible_bias: spin fields a.
        :param hidden_bias: spin fields c.
        :param options: as for the constructor.
        """
        spins = cls(weights, visible_bias=visible_bias, hidden_bias=hidden_bias, **options)
        return spins.replace(
            weights=4 * spins.weights,
            visible_bias=spins._map(
                lambda m: 2 * (m.visible_bias - m.weights.sum(1)), using=("weights", "visible_bias")
            ),
            hidden_bias=spins._map(lambda m: 2 * (m.hidden_bias - m.weights.sum(0)), using=("weights", "hidden_bias")),
            **options,
        )

    def to_spins(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Couplings and fields ``(J, a, c)`` of the equivalent machine with spins in {-1, +1}."""
        return (
            self.weights / 4,
            self._map(lambda m: m.visible_bias / 2 + m.weights.sum(1) / 4, using=("weights", "visible_bias")),
            self._map(lambda m: m.hidden_bias / 2 + m.weights.sum(0) / 4, using=("weights", "hidden_bias")),
        )

    @property
    def has_conditional_logits(self) -> bool:
        return True

    def conditional_logits(self, value: ArrayLike) -> jax.Array:
        """Log odds of each visible unit given all others, ``F(v_i = 0) - F(v_i = 1)``, shape of ``value``."""
        return self._map(type(self)._conditional_logits, self.check_value(value))

    @property
    def has_exact_partition(self) -> bool:
        return 2 ** min(self.event_shape[0], self.num_hidden) <= MAX_ENUMERATED_TERMS

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        return -(value @ self.weights @ hidden) - self.visible_bias @ value - self.hidden_bias @ hidden

    def _energy(self, value: jax.Array) -> jax.Array:
        return -(self.visible_bias @ value) - softplus(self._hidden_input(value)).sum()

    def _score(self, value: jax.Array) -> jax.Array:
        return self._visible_input(sigmoid(self._hidden_input(value)))

    def _laplacian(self, value: jax.Array) -> jax.Array:
        active = sigmoid(self._hidden_input(value))
        return (self.weights**2).sum(0) @ (active * (1 - active))

    def _conditional_logits(self, value: jax.Array) -> jax.Array:
        without = self._hidden_input(value)[None, :] - value[:, None] * self.weights
        return self.visible_bias + (softplus(without + self.weights) - softplus(without)).sum(-1)

    def _hidden_distribution(self, inputs: jax.Array) -> dist.Distribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return bernoulli_from_logits(rng_key, inputs)

    def _visible_units(self, inputs: jax.Array) -> dist.Distribution:
        return bernoulli_units(inputs)

    def _sample_visible(self, rng_key: Key, inputs: jax.Array) -> jax.Array:
        return bernoulli_from_logits(rng_key, inputs)

    @property
    def _enumerates_hidden(self) -> bool:
        return self.num_hidden <= self.event_shape[0]

    def _log_terms(self) -> jax.Array:
        """Unnormalised log-probability of every state of the smaller layer, the other one summed out."""
        if self._enumerates_hidden:
            weights, bias, other = self.weights.T, self.hidden_bias, self.visible_bias
        else:
            weights, bias, other = self.weights, self.visible_bias, self.hidden_bias
        log_term = lambda states: states @ bias + softplus(states @ weights + other[None, :]).sum(-1)
        return enumerate_terms(log_term, len(bias), self.dtype, cost=self._num_models * len(other))

    def _exact_log_partition(self) -> jax.Array:
        return logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        return softplus(self.visible_bias).sum() + self.num_hidden * math.log(2)

    def _exact_mean(self) -> jax.Array:
        def log_partition(bias: jax.Array) -> jax.Array:
            return self.replace(visible_bias=bias, log_partition=None, validate_args=False)._exact_log_partition()

        return jax.grad(log_partition)(self.visible_bias)

    def _exact_variance(self) -> jax.Array:
        mean = self._exact_mean()
        return mean * (1 - mean)

    def _exact_covariance(self) -> jax.Array:
        probability = jax.nn.softmax(self._log_terms())
        if self._enumerates_hidden:
            means = sigmoid(binary_states(self.num_hidden, self.dtype) @ self.weights.T + self.visible_bias[None])
        else:
            means = binary_states(self.event_shape[0], self.dtype)
        mean = probability @ means
        centred = means - mean[None]
        return centred.T @ (probability[:, None] * centred) + jnp.diag(probability @ (means * (1 - means)))

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        if not self._enumerates_hidden:
            return binary_states(self.event_shape[0], self.dtype)[index]
        hidden = binary_states(self.num_hidden, self.dtype)[index]
        return self._sample_visible(key_visible, self._map(type(self)._visible_input, hidden))
