"""Small autoencoders of known behaviour for the tests, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from scipy import stats

from numpyro_ebm import GaussianBernoulliRBM
from numpyro_ebm.variational import VAE

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def affine(weights, bias, *inputs):
    return jnp.concatenate(inputs) @ weights + bias


def linear(num_in, num_out, scale=0.3, bias=None):
    bias = np.zeros(num_out) if bias is None else bias
    weights = scale * np.random.default_rng(num_in + 10 * num_out).normal(size=(num_in, num_out))
    return jax.tree_util.Partial(affine, jnp.asarray(weights), jnp.asarray(bias, float))


def exact_vae(weights, mean, noise, **options):
    """The linear Gaussian model with its exact posterior as a full encoder."""
    posterior_cov = np.linalg.inv(np.eye(weights.shape[1]) + weights.T @ weights / noise**2)
    factor = np.linalg.cholesky(posterior_cov)
    np.fill_diagonal(factor, np.log(np.diag(factor)))
    size = weights.shape[1]
    gain = posterior_cov @ weights.T / noise**2
    entries = np.tile(factor[np.tril_indices(size)], 1)
    encoder_weights = np.concatenate([gain.T, np.zeros((len(mean), len(entries)))], 1)
    encoder_bias = np.concatenate([-gain @ mean, entries])
    encoder = jax.tree_util.Partial(affine, jnp.asarray(encoder_weights), jnp.asarray(encoder_bias))
    decoder = jax.tree_util.Partial(affine, jnp.asarray(weights.T), jnp.asarray(mean))
    return VAE(encoder, decoder, size, likelihood=noise, covariance="full", **options)


WEIGHTS = RNG.normal(size=(4, 2)) * [1.5, 0.7]
MEAN = np.array([0.5, -1.0, 0.0, 2.0])
NOISE = 0.6
X = RNG.multivariate_normal(MEAN, WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(4), 40)
LOG_LIKELIHOOD = stats.multivariate_normal(MEAN, WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(4)).logpdf(X)
EXACT = exact_vae(WEIGHTS, MEAN, NOISE)


def fit(model, guide, num_steps, *args, rate=0.05, **kwargs):
    schedule = lambda step: rate * 0.005 ** (step / num_steps)
    svi = SVI(model, guide, numpyro.optim.Adam(schedule), Trace_ELBO())
    return svi.run(KEY, num_steps, *args, progress_bar=False, **kwargs)


def loss(vae, *args, params=None, num_particles=1, **kwargs):
    objective = Trace_ELBO(num_particles=num_particles)
    return float(objective.loss(KEY, params or {}, vae.model, vae.guide, *args, **kwargs))


def site_value(vae, *args, key=KEY, **kwargs):
    """The draw that Trace_ELBO makes with its key."""
    seeded = handlers.seed(vae.guide, jax.random.split(key)[1])
    return handlers.trace(seeded).get_trace(*args, **kwargs)["z"]["value"]


CONSTANT = VAE(lambda x: jnp.array([0.5, -1.0, np.log(0.5), 0.0]), linear(2, 3), 2, likelihood=0.7)
KL = np.array([0.5 * (0.25 + 0.25 - 1) + np.log(2), 0.5])  # of N(0.5, 0.5) and N(-1, 1) from N(0, 1), by hand


def reconstruction(vae, x):
    z = site_value(vae, x)
    return float(vae.decode(z).log_prob(x).sum())


RBM = GaussianBernoulliRBM(
    jnp.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]]), hidden_bias=jnp.array([-0.5, 0.3, 0.1]), log_partition=None
)
