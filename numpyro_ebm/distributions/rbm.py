"""The restricted Boltzmann machine family: bipartite models of a visible vector ``v`` and a hidden vector ``h``.

Throughout, ``weights`` has shape ``(visible, hidden)``, ``scale`` is a standard deviation, and the density of ``v`` is
the marginal ``exp(-F(v)) / Z`` with ``F(v) = -log sum_h exp(-E(v, h))`` (an integral over Gaussian hidden units).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.nn import sigmoid, softplus
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from numpyro_ebm.distributions.bipartite import RestrictedBoltzmannMachine, sample_index
from numpyro_ebm.distributions.partition import (
    MAX_ENUMERATED_TERMS,
    ImproperDensityError,
    binary_states,
    enumerate_terms,
)
from numpyro_ebm.infer.bernoulli import bernoulli_from_logits

_LOG_2PI = math.log(2 * math.pi)


def bernoulli_units(logits: jax.Array) -> dist.Distribution:
    """Independent binary units over the last axis."""
    return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)


def _normal_units(loc: jax.Array) -> dist.Distribution:
    return dist.Normal(loc, jnp.ones((), loc.dtype), validate_args=False).to_event(1)


def _sample_unit_normal(rng_key: jax.Array, loc: jax.Array) -> jax.Array:
    return loc + jax.random.normal(rng_key, loc.shape, loc.dtype)


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

    @classmethod
    def from_spins(
        cls, weights: Any, visible_bias: Any = None, hidden_bias: Any = None, **options: Any
    ) -> "BernoulliRBM":
        """The binary machine that is equivalent to one with spins in {-1, +1}.

        With ``s = 2v - 1`` and ``t = 2h - 1`` the energies ``-s'Jt - a's - c't`` and this machine's differ by a
        constant, so the probabilities are equal.

        :param weights: spin couplings J, shape ``(..., visible, hidden)``.
        :param visible_bias: spin fields a.
        :param hidden_bias: spin fields c.
        """
        spins = cls(weights, visible_bias, hidden_bias, **options)
        return spins._with(
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

    def conditional_logits(self, value: Any) -> jax.Array:
        """Log odds of each visible unit given all others, ``F(v_i = 0) - F(v_i = 1)``, shape of ``value``."""
        return self._map(type(self)._conditional_logits, self._check_value(value))

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

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return value @ self.weights + self.hidden_bias

    def _visible_input(self, hidden: jax.Array) -> jax.Array:
        return self.weights @ hidden + self.visible_bias

    def _conditional_logits(self, value: jax.Array) -> jax.Array:
        without = self._hidden_input(value)[None, :] - value[:, None] * self.weights
        return self.visible_bias + (softplus(without + self.weights) - softplus(without)).sum(-1)

    _hidden_distribution = _visible_units = staticmethod(bernoulli_units)
    _sample_hidden = _sample_visible = staticmethod(bernoulli_from_logits)

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
        return enumerate_terms(log_term, len(bias), self.dtype)

    def _exact_log_partition(self) -> jax.Array:
        return logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        return softplus(self.visible_bias).sum() + self.num_hidden * math.log(2)

    def _exact_mean(self) -> jax.Array:
        def log_partition(bias: jax.Array) -> jax.Array:
            return self._with(visible_bias=bias, validate_args=False)._exact_log_partition()

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

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        if not self._enumerates_hidden:
            return binary_states(self.event_shape[0], self.dtype)[index]
        hidden = binary_states(self.num_hidden, self.dtype)[index]
        return self._sample_visible(key_visible, self._map(type(self)._visible_input, hidden))


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

    def _visible_input(self, hidden: jax.Array) -> jax.Array:
        return self.weights @ hidden + self.visible_bias

    _hidden_distribution = staticmethod(bernoulli_units)
    _sample_hidden = staticmethod(bernoulli_from_logits)

    def _visible_units(self, loc: jax.Array) -> dist.Distribution:
        return dist.Normal(loc, self._scale_like(loc), validate_args=False).to_event(1)

    def _sample_visible(self, rng_key: jax.Array, loc: jax.Array) -> jax.Array:
        return loc + self._scale_like(loc) * jax.random.normal(rng_key, loc.shape, loc.dtype)

    def _scale_like(self, loc: jax.Array) -> jax.Array:
        return self.scale.reshape((1,) * (loc.ndim - self.scale.ndim) + self.scale.shape)

    def _log_terms(self) -> jax.Array:
        """Unnormalised log-weight of every Gaussian of the mixture."""
        scaled = self.weights / self.scale[:, None] ** 2
        linear = self.hidden_bias + self.visible_bias @ scaled
        gram = self.weights.T @ scaled
        log_term = lambda states: states @ linear + 0.5 * ((states @ gram) * states).sum(-1)
        return enumerate_terms(log_term, self.num_hidden, self.dtype)

    def _exact_log_partition(self) -> jax.Array:
        return self._gaussian_log_partition() + logsumexp(self._log_terms())

    def _base_log_partition(self) -> jax.Array:
        return self._gaussian_log_partition() + self.num_hidden * math.log(2)

    def _gaussian_log_partition(self) -> jax.Array:
        return 0.5 * self.event_shape[0] * _LOG_2PI + jnp.log(self.scale).sum()

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

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        key_state, key_visible = jax.random.split(rng_key)
        index = sample_index(key_state, self._map(type(self)._log_terms), shape)
        hidden = binary_states(self.num_hidden, self.dtype)[index]
        return self._sample_visible(key_visible, self._map(type(self)._visible_input, hidden))


class GaussianBernoulliRBM(GaussianBinaryMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and binary hidden units, in the mean-shift convention.

    .. math::

        E(v, h) = \tfrac12 (v - \mu)^\top \Lambda (v - \mu) - v^\top \Lambda W h - b^\top h, \qquad
        \Lambda = \mathrm{diag}(1 / \sigma^2)

    so that ``v | h ~ Normal(mu + W h, sigma)`` and ``h | v ~ Bernoulli(logits = b + W' Lambda v)`` (Krizhevsky 2009;
    Cho, Ilin & Raiko 2011; Liao et al. 2022). The marginal is a mixture of ``2^hidden`` Gaussians: proper for all
    weights, with exact density, moments and draws while ``hidden <= 16``.

    :param weights: W, shape ``(..., visible, hidden)``, in the units of ``v``.
    :param visible_bias: mu, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param scale: sigma, the standard deviation (never a variance) of each visible unit given the hidden ones, shape
        ``(..., visible)`` or a scalar; default 1.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> rbm = GaussianBernoulliRBM(jnp.array([[2.0], [-1.0]]), hidden_bias=-10.0, scale=0.5)
    >>> rbm.sample(jax.random.key(0), (4,)).shape
    (4, 2)
    >>> print(rbm.mean.round(3), rbm.variance.round(3))
    [ 1.  -0.5] [1.25 0.5 ]
    """

    parameter_dims = {**RestrictedBoltzmannMachine.parameter_dims, "scale": ("visible",)}
    parameter_defaults = {**RestrictedBoltzmannMachine.parameter_defaults, "scale": 1.0}
    arg_constraints = {
        **RestrictedBoltzmannMachine.arg_constraints,
        "scale": constraints.independent(constraints.positive, 1),
    }

    @classmethod
    def from_krizhevsky(
        cls, weights: Any, visible_bias: Any = None, hidden_bias: Any = None, scale: Any = None, **options: Any
    ) -> "GaussianBernoulliRBM":
        r"""The machine in the convention of Hinton (2010) and Krizhevsky (2009), whose coupling is
        :math:`-\sum_{ij} (v_i / \sigma_i) W_{ij} h_j`; equal to this class with weights ``scale[:, None] * weights``.
        """
        given = cls(weights, visible_bias, hidden_bias, scale, **options)
        scaled = given._map(lambda rbm: rbm.scale[:, None] * rbm.weights, using=("weights", "scale"))
        return given._with(weights=scaled, **options)

    def condition_on_noisy(self, observation: Any, noise_scale: Any) -> "GaussianBernoulliRBM":
        """The exact posterior p(v | y) for ``v`` from this distribution and ``y ~ Normal(v, noise_scale)``.

        The product with a Gaussian likelihood stays in the family: precisions add, and the weights shrink.

        :param observation: y, shape ``(..., visible)``; leading dimensions become batch dimensions.
        :param noise_scale: standard deviation of the noise, a scalar or shape ``(..., visible)``.
        """
        observation = self._check_value(observation, "observation")
        noise = jnp.asarray(noise_scale, self.dtype)
        if self._validate_args and not_jax_tracer(noise) and not np.all(noise > 0):
            raise ValueError(f"noise_scale: expected a positive standard deviation, got {noise_scale!r}")
        noise = jnp.broadcast_to(noise, jnp.broadcast_shapes(noise.shape, self.event_shape))
        shrunk = self._map(_shrunk_parameters, noise, using=("weights", "scale"))
        shifted = self._map(_shifted_bias, observation, noise, using=("visible_bias", "scale"))
        return self._with(**shrunk, visible_bias=shifted)


class GaussianRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and Gaussian hidden units of unit conditional variance.

    .. math::

        E(v, h) = \tfrac12 v^\top v + \tfrac12 h^\top h - v^\top W h - a^\top v - b^\top h

    The marginal is ``Normal((I - W W')^-1 (a + W b), (I - W W')^-1)``, probabilistic PCA with unit noise in other
    parameters (Williams & Agakov 2002). **Proper only while the spectral norm of W is below one**; anything else is
    refused at construction where the weights are not traced, and gives NaN densities where they are.

    :param weights: W, shape ``(..., visible, hidden)``, spectral norm below 1.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param sampler: sampler configuration; default ``Exact()``.
    :raises ImproperDensityError: if the spectral norm of ``weights`` is not below one.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianRBM
    >>> print(GaussianRBM(jnp.array([[0.6], [0.0]])).variance)
    [1.5625 1.    ]
    """

    @property
    def has_exact_partition(self) -> bool:
        return True

    def _check_proper(self) -> None:
        norm = np.max(np.linalg.norm(np.asarray(self.weights, float), ord=2, axis=(-2, -1)))
        if not norm < 1:
            raise ImproperDensityError(
                f"weights: GaussianRBM expected a spectral norm below 1, got {norm:.6g}: exp(-energy) has no integral"
            )

    def _joint_energy(self, value: jax.Array, hidden: jax.Array) -> jax.Array:
        quadratic = 0.5 * (value @ value + hidden @ hidden)
        return quadratic - value @ self.weights @ hidden - self.visible_bias @ value - self.hidden_bias @ hidden

    def _energy(self, value: jax.Array) -> jax.Array:
        hidden = self._hidden_input(value)
        return 0.5 * (value @ value - hidden @ hidden - self.num_hidden * _LOG_2PI) - self.visible_bias @ value

    def _score(self, value: jax.Array) -> jax.Array:
        return self._visible_input(self._hidden_input(value)) - value

    def _laplacian(self, value: jax.Array) -> jax.Array:
        return (self.weights**2).sum() - self.event_shape[0]

    _hidden_input = BernoulliRBM._hidden_input
    _visible_input = BernoulliRBM._visible_input

    _hidden_distribution = _visible_units = staticmethod(_normal_units)
    _sample_hidden = _sample_visible = staticmethod(_sample_unit_normal)

    def _cholesky(self) -> jax.Array:
        """Lower Cholesky factor of ``I - W'W``; by Woodbury, ``(I - WW')^-1 = I + W (I - W'W)^-1 W'``."""
        return jnp.linalg.cholesky(jnp.eye(self.num_hidden, dtype=self.dtype) - self.weights.T @ self.weights)

    def _exact_mean(self) -> jax.Array:
        linear = self._visible_input(self.hidden_bias)
        return linear + self.weights @ cho_solve((self._cholesky(), True), self.weights.T @ linear)

    def _exact_log_partition(self) -> jax.Array:
        units = self.event_shape[0] + self.num_hidden
        log_det = 2 * jnp.log(jnp.diagonal(self._cholesky())).sum()
        linear = self._visible_input(self.hidden_bias)
        return 0.5 * (units * _LOG_2PI - log_det + linear @ self._exact_mean() + self.hidden_bias @ self.hidden_bias)

    def _base_log_partition(self) -> jax.Array:
        units = self.event_shape[0] + self.num_hidden
        return 0.5 * (units * _LOG_2PI + self.visible_bias @ self.visible_bias)

    def _exact_covariance(self) -> jax.Array:
        root = solve_triangular(self._cholesky(), self.weights.T, lower=True)
        return jnp.eye(self.event_shape[0], dtype=self.dtype) + root.T @ root

    def _exact_sample(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        key_hidden, key_visible = jax.random.split(rng_key)
        noise = jax.random.normal(key_hidden, (*shape, self.num_hidden), self.dtype)
        return self._sample_visible(key_visible, self._map(type(self)._correlate, noise))

    def _correlate(self, noise: jax.Array) -> jax.Array:
        shifted = solve_triangular(self._cholesky(), noise, lower=True, trans=1)
        return self._exact_mean() + self.weights @ shifted


def _shrunk_parameters(rbm: GaussianBernoulliRBM, noise_scale: jax.Array) -> dict[str, jax.Array]:
    """Weights and scale after a Gaussian likelihood added its precision."""
    total = rbm.scale**-2 + noise_scale**-2
    return {"weights": (rbm.scale**-2 / total)[:, None] * rbm.weights, "scale": total**-0.5}


def _shifted_bias(rbm: GaussianBernoulliRBM, observation: jax.Array, noise_scale: jax.Array) -> jax.Array:
    """Precision-weighted mean of the visible bias and an observation."""
    precision, noise_precision = rbm.scale**-2, noise_scale**-2
    return (precision * rbm.visible_bias + noise_precision * observation) / (precision + noise_precision)
