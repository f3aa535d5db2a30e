"""How far an encoder is from the posterior of z, and draws that are nearer to it.

The posterior itself is the host's business: ``NUTS(vae.model)`` or ``HMC(vae.model)``, started from the encoder::

    mcmc = MCMC(NUTS(vae.model), num_warmup=200, num_samples=500)
    mcmc.run(key, x, init_params={"z": vae.encode(x).sample(other_key)})

Its draws are what :func:`inference_gap` measures the encoder by.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from numpyro import handlers

from _ppl_ebm.checks import check_count, check_positive, check_positive_int
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.latent import LatentModel
from numpyro_ebm.variational.normal import draw, loc_and_scale, log_density, normal_of
from numpyro_ebm.variational.priors import NormalPrior, normalized_log_prob


def importance_weighted_log_likelihood(
    vae: Any, data: Any, num_samples: int = 1000, batch_size: int = 100, *, rng_key: Any = None
) -> jax.Array:
    r"""Estimates of the log-likelihood of each datum (Burda, Grosse & Salakhutdinov 2016), in nats.

    .. math::

        \log \frac1S \sum_s \frac{p(x \mid z_s) p(z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(z \mid x)

    A lower bound on log p(x) in expectation, tighter with more draws. (Not with an estimated normaliser of an energy
    prior: that error goes the other way.)

    :param vae: a :class:`VAE`, or a :class:`CVAE`, for which this is log p(x | c), with learned parameters
        (``with_parameters``).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param num_samples: S.
    :param batch_size: data at a time: memory grows as ``batch_size * num_samples`` decoded data.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :return: shape ``(N,)``.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for numbers that are not positive integers, or a missing key.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, importance_weighted_log_likelihood
    >>> encoder = lambda x: jnp.stack([0.8 * x[0], 0.5 * jnp.log(0.2)])  # the exact posterior
    >>> vae = VAE(encoder, lambda z: z, 1, likelihood=0.5)
    >>> estimates = importance_weighted_log_likelihood(vae, jnp.array([[1.0]]), 10, rng_key=jax.random.key(0))
    >>> print(f"{estimates[0]:.3f}")
    -1.431
    """
    check_model("importance_weighted_log_likelihood", vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    x, condition = data_of(vae, data)
    keys = jax.random.split(require_key("importance_weighted_log_likelihood", rng_key))

    @jax.jit
    def estimated(x: jax.Array, condition: Any, key_prior: jax.Array, key_draws: jax.Array) -> jax.Array:
        joint = LogJoint(vae, key_prior)

        def estimate(one: Any) -> jax.Array:
            x, condition, key = one
            posterior = tuple(array[0] for array in loc_and_scale(vae._encode(*_single(x, condition))))
            return _log_mean_weight(joint, x, condition, posterior, key, num_samples)

        return lax.map(estimate, (x, condition, jax.random.split(key_draws, len(x))), batch_size=batch_size)

    return estimated(x, condition, *keys)


class InferenceGap(NamedTuple):
    """Where a bound loses what it loses, in nats for each datum, shape ``(N,)``.

    :param elbo: of the encoder's q(z | x).
    :param fitted_elbo: of the member of the same family that is fitted to draws from the posterior.
    :param log_likelihood: importance-weighted, with a normal distribution of full covariance fitted to those draws.
    """

    elbo: jax.Array
    fitted_elbo: jax.Array
    log_likelihood: jax.Array

    @property
    def amortization(self) -> jax.Array:
        """``fitted_elbo - elbo``: what an encoder loses that is shared by all data."""
        return self.fitted_elbo - self.elbo

    @property
    def approximation(self) -> jax.Array:
        """``log_likelihood - fitted_elbo``: what the family of q loses."""
        return self.log_likelihood - self.fitted_elbo


def inference_gap(
    vae: Any, data: Any, draws: Any, num_samples: int = 1000, batch_size: int = 100, *, rng_key: Any = None
) -> InferenceGap:
    """Amortisation gap and approximation gap of an encoder (Cremer, Li & Duvenaud 2018), by draws from the posterior.

    The fitted member of the encoder's family has the draws' mean, and their covariance if it is full, else the inverse
    of the diagonal of their precision matrix: what minimises its KL divergence from the posterior where that is normal.
    Elsewhere it is near the minimum only, and the amortisation gap may come out negative by as much.

    :param vae: a :class:`VAE` or :class:`CVAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param draws: of ``p(z | x)``, shape ``(num_draws, N, latent_size)``: those of HMC, NUTS or
        :func:`refine_posterior`, many more than ``latent_size``.
    :param num_samples: draws for each of the three estimates.
    :param batch_size: data at a time.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for numbers that are not positive integers, draws of another shape or too few, or a missing key.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, inference_gap
    >>> encoder = lambda x: jnp.stack([0.7 * x[0], 0.5 * jnp.log(0.2)])  # 0.8 would be exact
    >>> vae = VAE(encoder, lambda z: z, 1, likelihood=0.5)
    >>> draws = 0.8 + 0.2**0.5 * jax.random.normal(jax.random.key(0), (10000, 1, 1))
    >>> gap = inference_gap(vae, jnp.ones((1, 1)), draws, rng_key=jax.random.key(1))
    >>> print(f"{gap.amortization[0]:.2f}")  # 0.1**2 / (2 * 0.2) = 0.025
    0.02
    """
    check_model("inference_gap", vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    x, condition = data_of(vae, data)
    draws = jnp.asarray(draws)
    size = vae.latent_size
    if draws.ndim != 3 or draws.shape[1:] != (len(x), size) or len(draws) <= size:
        raise ValueError(f"draws: expected shape (more than {size}, {len(x)}, {size}), got {draws.shape}")
    keys = jax.random.split(require_key("inference_gap", rng_key))

    @jax.jit
    def gaps(x: jax.Array, condition: Any, draws: jax.Array, key_prior: Any, key_draws: Any) -> InferenceGap:
        joint = LogJoint(vae, key_prior)

        def gap(one: Any) -> InferenceGap:
            x, condition, z, key = one
            loc, covariance = z.mean(0), jnp.cov(z, rowvar=False).reshape(size, size)
            factor = jnp.linalg.cholesky(covariance)
            fitted = factor if vae.covariance == "full" else 1 / jnp.sqrt(jnp.diagonal(jnp.linalg.inv(covariance)))
            encoded = tuple(array[0] for array in loc_and_scale(vae._encode(*_single(x, condition))))
            return InferenceGap(
                _elbo(joint, x, condition, encoded, key, num_samples),
                _elbo(joint, x, condition, (loc, fitted), key, num_samples),
                _log_mean_weight(joint, x, condition, (loc, factor), key, num_samples),
            )

        each = (x, condition, jnp.moveaxis(draws, 1, 0), jax.random.split(key_draws, len(x)))
        return lax.map(gap, each, batch_size=batch_size)

    return gaps(x, condition, draws, *keys)


class RefinedPosterior(NamedTuple):
    """Draws of z, shape ``(num_samples, N, latent_size)``, and each chain's mean acceptance, ``(num_samples, N)``."""

    latent: jax.Array
    accept_prob: jax.Array


def refine_posterior(
    vae: Any, data: Any, num_steps: int = 20, step_size: float = 0.5, num_samples: int = 1, *, rng_key: Any = None
) -> RefinedPosterior:
    """Draws of z that start from the encoder's proposal and go ``num_steps`` Langevin transitions to the posterior.

    Metropolis-adjusted (MALA), so p(z | x) is what they converge to, and the prior's normaliser is not needed. Step
    sizes are in units of the encoder's standard deviations. Without gradients in any parameter.

    :param vae: a :class:`VAE` or :class:`CVAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param num_steps: transitions, not negative; 0 gives the encoder's draws.
    :param step_size: a length, positive.
    :param num_samples: independent chains for each datum.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises TypeError: for a ``vae`` that is neither, data that do not suit it, or a ``step_size`` that is no number.
    :raises ValueError: for numbers out of range, or a missing key.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, refine_posterior
    >>> vae = VAE(lambda x: jnp.zeros(2), lambda z: z, 1, likelihood=0.5)  # an encoder that says N(0, 1)
    >>> refined = refine_posterior(vae, jnp.ones((1, 1)), 50, num_samples=4000, rng_key=jax.random.key(0))
    >>> print(f"{refined.latent.mean():.1f}, {refined.latent.var():.1f}")  # the posterior is Normal(0.8, variance 0.2)
    0.8, 0.2
    """
    check_model("refine_posterior", vae)
    check_count("num_steps", num_steps)
    check_positive("step_size", step_size)
    check_positive_int("num_samples", num_samples)
    x, condition = data_of(vae, data)

    @jax.jit
    def refined(x: jax.Array, condition: Any, key_prior: Any, key_start: Any, key_run: Any) -> RefinedPosterior:
        posterior: Any = vae._encode(x, condition)
        with handlers.seed(rng_seed=key_prior):
            prior = vae._prior(condition)
        log_prior = prior.unnormalized_log_prob if isinstance(prior, EnergyDistribution) else prior.log_prob
        target = steps.Target(jax.vmap(lambda z: vae._decode(z, condition).log_prob(x) + log_prior(z)))
        position = draw(key_start, num_samples, *loc_and_scale(posterior))
        scale = jnp.broadcast_to(jnp.sqrt(posterior.variance), position.shape)

        def move(state: steps.State, key: jax.Array) -> tuple[steps.State, jax.Array]:
            state, info = steps.adjusted_langevin_step(key, state, target, step_size, scale)
            return state, info.accept_prob

        start = steps.init(target, position)
        state, accept_prob = lax.scan(move, start, jax.random.split(key_run, num_steps))
        mean = accept_prob.mean(0) if num_steps else jnp.ones_like(start.log_density)
        return RefinedPosterior(state.position, mean)

    keys = jax.random.split(require_key("refine_posterior", rng_key), 3)
    return lax.stop_gradient(refined(x, condition, *keys))


class LogJoint:
    """``log p(x, z)`` of one datum at many z, in its two parts; the prior's normaliser is computed once.

    :raises IntractablePartitionError: if the prior is not normalised.
    """

    def __init__(self, vae: LatentModel, rng_key: jax.Array) -> None:
        self.vae = vae
        self.conditional = isinstance(vae.prior, NormalPrior) and vae.prior.network is not None
        if not self.conditional:
            with handlers.seed(rng_seed=rng_key):
                self.log_prior = normalized_log_prob(vae._prior())

    def prior(self, z: jax.Array, condition: Any) -> jax.Array:
        """Log-densities of z of shape ``(S, latent_size)``."""
        if self.conditional:
            return self.vae._prior(condition[None]).log_prob(z)
        return self.log_prior(z)

    def likelihood(self, x: jax.Array, z: jax.Array, condition: Any) -> jax.Array:
        """Log-likelihoods of one datum given z of shape ``(S, latent_size)``."""
        if condition is None:
            return self.vae._decode(z).log_prob(jnp.broadcast_to(x, (len(z), *x.shape)))
        return self.vae._decode(z[:, None], condition[None]).log_prob(jnp.broadcast_to(x, (len(z), 1, *x.shape)))[:, 0]

    def __call__(self, x: jax.Array, z: jax.Array, condition: Any) -> jax.Array:
        return self.likelihood(x, z, condition) + self.prior(z, condition)


def _log_mean_weight(
    joint: LogJoint, x: jax.Array, condition: Any, proposal: Any, rng_key: jax.Array, num_samples: int
) -> jax.Array:
    """log of the mean importance weight of one datum, with draws from a normal distribution: its location and scale."""
    z = draw(rng_key, num_samples, *proposal)
    return logsumexp(joint(x, z, condition) - log_density(z, *proposal)) - math.log(num_samples)


def _elbo(joint: LogJoint, x: jax.Array, condition: Any, q: Any, rng_key: jax.Array, num_samples: int) -> jax.Array:
    """The bound of one datum under a normal distribution, whose entropy is the closed form."""
    z = draw(rng_key, num_samples, *q)
    return joint(x, z, condition).mean() + normal_of(*q).entropy()


def _single(x: jax.Array, condition: Any) -> tuple[jax.Array, Any]:
    return x[None], None if condition is None else condition[None]


def check_model(owner: str, vae: Any) -> None:
    """Refuse whatever is no :class:`VAE` or :class:`CVAE`."""
    if not isinstance(vae, LatentModel):
        raise TypeError(f"vae: {owner} expected a VAE or CVAE, got {type(vae).__name__}")


def data_of(vae: Any, data: Any) -> tuple[jax.Array, Any]:
    """Data and, for a :class:`CVAE`, conditions."""
    if not isinstance(vae, CVAE):
        return vae._check_data(data), None
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data: expected a pair (x, condition) for a CVAE, got {type(data).__name__}")
    x, condition = vae._check_data(data[0]), jnp.asarray(data[1])
    if condition.ndim == 0 or len(condition) != len(x):
        raise ValueError(f"data: expected one condition for each of the {len(x)} data, got shape {condition.shape}")
    return x, condition
