"""What an ELBO is made of, and which latent dimensions are used; the plain ELBO, whatever weights the model has."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from _ppl_ebm.autoencoders import ELBODecomposition, check_samples
from _ppl_ebm.checks import check_between
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key
from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.latent import LatentModel
from numpyro_ebm.variational.normal import draw, kl_divergence, loc_and_scale, log_density, normal_of
from numpyro_ebm.variational.posterior import Data, LogJoint, Proposal, data_of, evaluated
from numpyro_ebm.variational.vae import VAE


def elbo_decomposition(
    vae: VAE, data: ArrayLike, num_samples: int = 1, batch_size: int = 100, *, rng_key: Key | None = None
) -> ELBODecomposition[jax.Array]:
    r"""Split the ELBO into three terms (Hoffman & Johnson 2016).

    .. math::

        \mathrm{ELBO} = E_q \log p(x \mid z) - I_q(n; z) - \mathrm{KL}(q(z) \,\|\, p(z)), \qquad
        q(z) = \frac1N \sum_n q(z \mid x_n)

    The aggregated posterior is the mixture over **all** the data given, never over a minibatch. Estimators: with draws
    z from each ``q(z | x_n)``, the reconstruction is the mean of ``log p(x_n | z)``, and the mutual information that of
    ``log q(z | x_n) - log q(z)``, both at the same z: never above log N, and at least 0 up to Monte Carlo error.
    The KL of each datum is the closed form where the prior is a ``NormalPrior``; elsewhere the mean of ``log q(z | x_n)
    - log p(z)`` at the same z. The marginal KL is what is left of the mean KL without the mutual information, so the
    terms sum to the ELBO exactly.

    :param vae: a :class:`VAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``.
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
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: elbo_decomposition expected a VAE, got {type(vae).__name__}")
    vae = evaluated("elbo_decomposition", vae)
    check_samples(num_samples, batch_size)
    x, _ = data_of(vae, data)
    keys = jax.random.split(require_key("elbo_decomposition", rng_key))

    @jax.jit
    def decomposed(x: jax.Array, key_prior: Key, key_draws: Key) -> ELBODecomposition[jax.Array]:
        everything = encode_all(vae, x, batch_size)
        terms = functools.partial(_terms, LogJoint(vae, key_prior), num_samples, everything)
        each = (x, everything, jax.random.split(key_draws, len(x)))
        reconstruction, kl, information = (
            term.mean() for term in lax.map(lambda one: terms(*one), each, batch_size=batch_size)
        )
        return ELBODecomposition(reconstruction - kl, reconstruction, information, kl - information)

    return decomposed(x, *keys)


def _terms(
    joint: LogJoint, num_samples: int, everything: Proposal, x: jax.Array, posterior: Proposal, rng_key: Key
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reconstruction, KL and mutual information of one datum, whose q(z | x) is ``posterior``."""
    z = draw(rng_key, num_samples, *posterior)
    log_posterior = log_density(z, *posterior)
    information = log_posterior - jax.vmap(lambda point: _log_aggregated(everything, point))(z)
    if joint.vae.prior.is_normal:
        kl = kl_divergence(normal_of(*posterior), joint.vae.latent_prior())
    else:
        kl = (log_posterior - joint.prior(z, None)).mean()
    return joint.likelihood(x, z, None).mean(), kl, information.mean()


def active_units(vae: VAE | CVAE, data: Data, threshold: float = 0.01) -> jax.Array:
    """Which latent dimensions depend on the data (Burda, Grosse & Salakhutdinov 2016).

    A dimension is active if the variance over data (divisor N) of its posterior mean is above ``threshold``.

    :param vae: a :class:`VAE` or :class:`CVAE`, with learned parameters (``with_parameters``).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param threshold: a variance, not negative.
    :return: booleans of shape ``(latent_size,)``; their sum is the number of active units.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for a negative ``threshold``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, active_units
    >>> encoder = lambda x: jnp.stack([x[0], 0.01 * x[0], 0.0 * x[0], 0.0 * x[0]])
    >>> print(active_units(VAE(encoder, lambda z: z[:1], 2, likelihood=0.5), jnp.array([[1.0], [-1.0]])))
    [ True False]
    """
    vae = evaluated("active_units", vae)
    check_between("threshold", threshold, 0, float("inf"))
    return jnp.var(vae.latent_given_data(*data_of(vae, data)).mean, axis=0) > threshold


def encode_all(vae: LatentModel, x: jax.Array, batch_size: int) -> Proposal:
    """Locations and scales of q(z | x) of all data."""
    loc, scale = lax.map(lambda one: loc_and_scale(vae.latent_given_data(one[None])), x, batch_size=batch_size)
    return loc[:, 0], scale[:, 0]


def _log_aggregated(everything: Proposal, z: jax.Array) -> jax.Array:
    """Log-density of the aggregated posterior at one z."""
    each = jax.vmap(lambda loc, scale: normal_of(loc, scale).log_prob(z))(*everything)
    return logsumexp(each) - math.log(len(each))
