"""What an ELBO is made of, importance-weighted log-likelihoods, and which latent dimensions are used.

All of these average over data in batches, and evaluate the plain ELBO, whatever ``kl_weight`` and ``free_bits`` are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import logsumexp
from numpyro import handlers

from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.infer.samplers import check_positive_int
from numpyro_ebm.variational.normal import entropy
from numpyro_ebm.variational.priors import NormalPrior, normalized_log_prob
from numpyro_ebm.variational.vae import VAE, normal_penalty


class Decomposition(NamedTuple):
    """Means over data, in nats; ``elbo = reconstruction - mutual_information - marginal_kl``.

    :param elbo: evidence lower bound.
    :param reconstruction: expected log-likelihood given latent variables from the encoder.
    :param mutual_information: of the data's index and z under the encoder, between 0 and log N.
    :param marginal_kl: KL divergence of the aggregated posterior from the prior.
    """

    elbo: jax.Array
    reconstruction: jax.Array
    mutual_information: jax.Array
    marginal_kl: jax.Array


def elbo_decomposition(
    vae: VAE, data: Any, num_samples: int = 1, batch_size: int = 100, *, rng_key: Any = None
) -> Decomposition:
    r"""Split the ELBO into three terms (Hoffman & Johnson 2016).

    .. math::

        ELBO = E_q \log p(x | z) - I_q(n; z) - KL(q(z) \| p(z)), \qquad q(z) = \tfrac1N \sum_n q(z | x_n)

    The aggregated posterior is the mixture over **all** the data given, never over a minibatch. Estimators: with draws
    z from each ``q(z | x_n)``, the reconstruction is the mean of ``log p(x_n | z)``, and the mutual information that of
    ``log q(z | x_n) - log q(z)``, both at the same z: never above log N, and at least 0 up to Monte Carlo error.
    The KL of each datum is the closed form where the prior is a ``NormalPrior``; elsewhere its entropy is the closed
    form and ``log p(z)`` Monte Carlo. The marginal KL is what is left of the mean KL without the mutual information, so
    the terms sum to the ELBO exactly, and it carries the Monte Carlo error of the mutual information.

    :param vae: a :class:`VAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, ...)``.
    :param num_samples: draws of z for each datum.
    :param batch_size: data at a time; the cost is that of ``N * N * num_samples`` normal densities.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :raises TypeError: if ``vae`` is no :class:`VAE`.
    :raises ValueError: for numbers that are not positive integers, or a missing key.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, elbo_decomposition
    >>> encoder = lambda x: jnp.stack([0.8 * x[0], jnp.log(0.4)])
    >>> vae = VAE(encoder, lambda z: z, 1, likelihood=0.5)
    >>> terms = elbo_decomposition(vae, jnp.array([[-10.0], [10.0]]), rng_key=jax.random.key(0))
    >>> print(terms.mutual_information.round(4))  # log 2: z tells the two data apart
    0.6931
    """
    data, rng_key = _check("elbo_decomposition", vae, data, num_samples, batch_size, rng_key)
    key_prior, key_draws = jax.random.split(rng_key)
    log_prior = _log_prior(vae, key_prior)
    encoded = lax.map(lambda x: _arrays(vae._encode(x[None])), data, batch_size=batch_size)
    everything = (encoded[0][:, 0], encoded[1][:, 0])

    def terms(one: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, (loc, scale), key = one
        posterior = _posterior(loc[None], scale[None])
        z = _draws(loc, scale, key, num_samples)
        log_each = jax.vmap(lambda point: _log_density(loc, scale, point))(z)
        log_all = jax.vmap(lambda point: _log_aggregated(everything, point))(z)
        reconstruction = _log_likelihood(vae, x, z).mean()
        if isinstance(vae.prior, NormalPrior):
            kl = normal_penalty(vae.prior, posterior, None)[0]
        else:
            kl = -entropy(posterior)[0] - jax.vmap(log_prior)(z).mean()
        return reconstruction, kl, (log_each - log_all).mean()

    keys = jax.random.split(key_draws, len(data))
    reconstruction, kl, information = (
        term.mean() for term in lax.map(terms, (data, everything, keys), batch_size=batch_size)
    )
    return Decomposition(reconstruction - kl, reconstruction, information, kl - information)


def importance_weighted_log_likelihood(
    vae: VAE, data: Any, num_samples: int = 1000, batch_size: int = 100, *, rng_key: Any = None
) -> jax.Array:
    r"""Estimates of the log-likelihood of each datum (Burda, Grosse & Salakhutdinov 2016), in nats.

    .. math::

        \log \frac1K \sum_k \frac{p(x | z_k) p(z_k)}{q(z_k | x)}, \qquad z_k \sim q(z | x)

    A lower bound on log p(x) in expectation, tighter with more draws. (Not with an estimated normaliser of an energy
    prior: that error goes the other way.)

    :param vae: a :class:`VAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, ...)``.
    :param num_samples: K.
    :param batch_size: data at a time: memory grows as ``batch_size * num_samples`` decoded data.
    :param rng_key: a JAX PRNG key; ``None`` draws one from the seeded model around it.
    :return: shape ``(N,)``.
    :raises TypeError: if ``vae`` is no :class:`VAE`.
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
    data, rng_key = _check("importance_weighted_log_likelihood", vae, data, num_samples, batch_size, rng_key)
    key_prior, key_draws = jax.random.split(rng_key)
    log_prior = _log_prior(vae, key_prior)

    def estimate(one: Any) -> jax.Array:
        x, key = one
        loc, scale = (array[0] for array in _arrays(vae._encode(x[None])))
        z = _draws(loc, scale, key, num_samples)
        log_posterior = jax.vmap(lambda point: _log_density(loc, scale, point))(z)
        log_weights = _log_likelihood(vae, x, z) + jax.vmap(log_prior)(z) - log_posterior
        return logsumexp(log_weights) - math.log(num_samples)

    return lax.map(estimate, (data, jax.random.split(key_draws, len(data))), batch_size=batch_size)


def active_units(vae: VAE, data: Any, threshold: float = 0.01) -> jax.Array:
    """Which latent dimensions depend on the data (Burda, Grosse & Salakhutdinov 2016).

    A dimension is active if the variance over data (divisor N) of its posterior mean is above ``threshold``.

    :param vae: a :class:`VAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, ...)``.
    :param threshold: a variance, not negative.
    :return: booleans of shape ``(latent_size,)``; their sum is the number of active units.
    :raises TypeError: if ``vae`` is no :class:`VAE`.
    :raises ValueError: for a negative ``threshold``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, active_units
    >>> encoder = lambda x: jnp.stack([x[0], 0.01 * x[0], 0.0 * x[0], 0.0 * x[0]])
    >>> print(active_units(VAE(encoder, lambda z: z[:1], 2, likelihood=0.5), jnp.array([[1.0], [-1.0]])))
    [ True False]
    """
    _check_vae("active_units", vae)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
        raise ValueError(f"threshold: expected a non-negative number, got {threshold!r}")
    posterior: Any = vae.encode(vae._check_data(data))
    return jnp.var(posterior.mean, axis=0) > threshold


def _check(
    owner: str, vae: Any, data: Any, num_samples: Any, batch_size: Any, rng_key: Any
) -> tuple[jax.Array, jax.Array]:
    _check_vae(owner, vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    return vae._check_data(data), require_key(owner, rng_key)


def _check_vae(owner: str, vae: Any) -> None:
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: {owner} expected a VAE, got {type(vae).__name__}")


def _log_prior(vae: VAE, rng_key: jax.Array) -> Callable[[jax.Array], jax.Array]:
    with handlers.seed(rng_seed=rng_key):
        return normalized_log_prob(vae._prior())


def _log_likelihood(vae: VAE, x: jax.Array, z: jax.Array) -> jax.Array:
    """Of one datum given draws of shape ``(S, latent_size)``."""
    return vae._decode(z).log_prob(jnp.broadcast_to(x, (len(z), *x.shape)))


def _arrays(posterior: Any) -> tuple[jax.Array, jax.Array]:
    """Location and either standard deviations or the triangular factor."""
    if isinstance(posterior, dist.MultivariateNormal):
        return posterior.loc, posterior.scale_tril
    return posterior.base_dist.loc, posterior.base_dist.scale


def _posterior(loc: jax.Array, scale: jax.Array) -> Any:
    if scale.ndim > loc.ndim:
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def _draws(loc: jax.Array, scale: jax.Array, rng_key: jax.Array, num_samples: int) -> jax.Array:
    """Draws from one posterior, shape ``(num_samples, latent_size)``."""
    noise = jax.random.normal(rng_key, (num_samples, *loc.shape), loc.dtype)
    return loc[None] + (noise @ scale.T if scale.ndim > loc.ndim else noise * scale[None])


def _log_density(loc: jax.Array, scale: jax.Array, z: jax.Array) -> jax.Array:
    return _posterior(loc, scale).log_prob(z)


def _log_aggregated(everything: tuple[jax.Array, jax.Array], z: jax.Array) -> jax.Array:
    """Log-density of the aggregated posterior at one z."""
    each = jax.vmap(lambda loc, scale: _log_density(loc, scale, z))(*everything)
    return logsumexp(each) - math.log(len(each))
