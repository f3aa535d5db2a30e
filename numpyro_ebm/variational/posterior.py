"""How far an encoder is from the posterior of z, and draws that are nearer to it.

The posterior itself is the host's business: ``NUTS(vae.model)`` or ``HMC(vae.model)``, started from the encoder::

    mcmc = MCMC(NUTS(vae.model), num_warmup=200, num_samples=500)
    mcmc.run(key, x, init_params={"z": vae.encode(x).sample(other_key)})

Its draws are what :func:`inference_gap` measures the encoder by.
"""

import functools
import math
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from numpyro import handlers

from _ppl_ebm.autoencoders import (
    InferenceGap,
    RefinedPosterior,
    check_data_shape,
    check_draws,
    check_samples,
    split_data,
)
from _ppl_ebm.checks import check_count, check_positive, check_positive_int
from _ppl_ebm.plates import count_rows
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key
from numpyro_ebm.variational.cvae import CVAE
from numpyro_ebm.variational.energy_prior import normalized_log_prob, unnormalized_log_prob
from numpyro_ebm.variational.latent import LatentModel
from numpyro_ebm.variational.normal import draw, loc_and_scale, log_density, normal_of
from numpyro_ebm.variational.vae import VAE

#: Data, or data and conditions.
Data: TypeAlias = ArrayLike | tuple[ArrayLike, ArrayLike]
#: Location and scale of a normal distribution over the latent variables of one datum.
Proposal: TypeAlias = tuple[jax.Array, jax.Array]
Model = TypeVar("Model", bound=LatentModel)


def importance_weighted_log_likelihood(
    vae: VAE | CVAE, data: Data, num_samples: int = 1000, batch_size: int = 100, *, rng_key: Key | None = None
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
    vae = evaluated("importance_weighted_log_likelihood", vae)
    check_samples(num_samples, batch_size)
    x, condition = data_of(vae, data)
    keys = jax.random.split(require_key("importance_weighted_log_likelihood", rng_key))

    @jax.jit
    def estimated(x: jax.Array, condition: jax.Array | None, key_prior: Key, key_draws: Key) -> jax.Array:
        estimate = functools.partial(_estimate, LogJoint(vae, key_prior), num_samples)
        each = (x, condition, jax.random.split(key_draws, len(x)))
        return lax.map(lambda one: estimate(*one), each, batch_size=batch_size)

    return estimated(x, condition, *keys)


def _estimate(
    joint: "LogJoint", num_samples: int, x: jax.Array, condition: jax.Array | None, rng_key: Key
) -> jax.Array:
    """Of one datum, with draws from the encoder."""
    return joint.log_mean_weight(x, condition, joint.proposal(x, condition), rng_key, num_samples)


def inference_gap(
    vae: VAE | CVAE,
    data: Data,
    draws: ArrayLike,
    num_samples: int = 1000,
    batch_size: int = 100,
    *,
    rng_key: Key | None = None,
) -> InferenceGap[jax.Array]:
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
    vae = evaluated("inference_gap", vae)
    check_samples(num_samples, batch_size)
    x, condition = data_of(vae, data)
    draws = jnp.asarray(draws)
    check_draws(draws.shape, len(x), vae.latent_size)
    keys = jax.random.split(require_key("inference_gap", rng_key))

    @jax.jit
    def gaps(
        x: jax.Array, condition: jax.Array | None, draws: jax.Array, key_prior: Key, key_draws: Key
    ) -> InferenceGap[jax.Array]:
        gap = functools.partial(_gap, LogJoint(vae, key_prior), num_samples)
        each = (x, condition, jnp.moveaxis(draws, 1, 0), jax.random.split(key_draws, len(x)))
        return lax.map(lambda one: gap(*one), each, batch_size=batch_size)

    return gaps(x, condition, draws, *keys)


def _gap(
    joint: "LogJoint", num_samples: int, x: jax.Array, condition: jax.Array | None, draws: jax.Array, rng_key: Key
) -> InferenceGap[jax.Array]:
    """The three estimates of one datum, with the same noise, for their differences count."""
    fitted, proposal = _fit(draws, joint.vae.covariance)
    return InferenceGap(
        joint.elbo(x, condition, joint.proposal(x, condition), rng_key, num_samples),
        joint.elbo(x, condition, fitted, rng_key, num_samples),
        joint.log_mean_weight(x, condition, proposal, rng_key, num_samples),
    )


def _fit(draws: jax.Array, covariance: str) -> tuple[Proposal, Proposal]:
    """Normal distributions fitted to draws of shape ``(num_draws, size)``: of the family, and of full covariance."""
    loc, matrix = draws.mean(0), jnp.cov(draws, rowvar=False).reshape(2 * draws.shape[1:])
    full = loc, jnp.linalg.cholesky(matrix)
    if covariance == "full":
        return full, full
    return (loc, 1 / jnp.sqrt(jnp.diagonal(jnp.linalg.inv(matrix)))), full


def refine_posterior(
    vae: VAE | CVAE,
    data: Data,
    num_steps: int = 20,
    step_size: float = 0.5,
    num_samples: int = 1,
    *,
    rng_key: Key | None = None,
) -> RefinedPosterior[jax.Array]:
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
    vae = evaluated("refine_posterior", vae)
    check_count("num_steps", num_steps)
    check_positive("step_size", step_size)
    check_positive_int("num_samples", num_samples)
    x, condition = data_of(vae, data)
    refined = jax.jit(functools.partial(_refined, vae, num_steps, step_size, num_samples))
    keys = jax.random.split(require_key("refine_posterior", rng_key), 3)
    return lax.stop_gradient(refined(x, condition, *keys))


def _refined(
    vae: LatentModel,
    num_steps: int,
    step_size: float,
    num_samples: int,
    x: jax.Array,
    condition: jax.Array | None,
    key_prior: Key,
    key_start: Key,
    key_run: Key,
) -> RefinedPosterior[jax.Array]:
    posterior = vae.latent_given_data(x, condition)
    target = _posterior(vae, x, condition, key_prior)
    position = draw(key_start, num_samples, *loc_and_scale(posterior))
    scale = jnp.broadcast_to(jnp.sqrt(posterior.variance), position.shape)

    def move(state: steps.State, key: Key) -> tuple[steps.State, jax.Array]:
        state, info = steps.adjusted_langevin_step(key, state, target, step_size, scale)
        return state, info.accept_prob

    start = steps.init(target, position)
    state, accept_prob = lax.scan(move, start, jax.random.split(key_run, num_steps))
    return RefinedPosterior(state.position, accept_prob.mean(0) if num_steps else jnp.ones_like(start.log_density))


def _posterior(vae: LatentModel, x: jax.Array, condition: jax.Array | None, rng_key: Key) -> steps.Target:
    """p(z | x) up to its constant, of z of shape ``(num_samples, N, latent_size)``."""
    with handlers.seed(rng_seed=rng_key):
        log_prior = unnormalized_log_prob(vae.latent_prior(condition))

    def log_density(z: jax.Array) -> jax.Array:
        likelihood = vae.data_given_latent(z, condition)
        check_data_shape(x.shape, likelihood.event_shape)
        return likelihood.log_prob(x) + log_prior(z)

    return steps.Target(jax.vmap(log_density))


class LogJoint:
    """``log p(x, z)`` of one datum at many z, in its two parts; the prior's normaliser is computed once.

    :raises IntractablePartitionError: if the prior is not normalised.
    """

    def __init__(self, vae: LatentModel, rng_key: Key) -> None:
        self.vae = vae
        if not vae.prior.is_conditional:
            with handlers.seed(rng_seed=rng_key):
                self.log_prior = normalized_log_prob(vae.latent_prior())

    def prior(self, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Log-densities of z of shape ``(S, latent_size)``."""
        if self.vae.prior.is_conditional:
            return self.vae.latent_prior(_single(condition)).log_prob(z)
        return self.log_prior(z)

    def likelihood(self, x: jax.Array, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        """Log-likelihoods of one datum given z of shape ``(S, latent_size)``."""
        made = self.vae.data_given_latent(z[:, None], _single(condition))
        check_data_shape((1, *x.shape), made.event_shape)
        return made.log_prob(jnp.broadcast_to(x, (len(z), 1, *x.shape)))[:, 0]

    def __call__(self, x: jax.Array, z: jax.Array, condition: jax.Array | None) -> jax.Array:
        return self.likelihood(x, z, condition) + self.prior(z, condition)

    def proposal(self, x: jax.Array, condition: jax.Array | None) -> Proposal:
        """The encoder's q(z | x) of one datum."""
        loc, scale = loc_and_scale(self.vae.latent_given_data(x[None], _single(condition)))
        return loc[0], scale[0]

    def log_mean_weight(
        self, x: jax.Array, condition: jax.Array | None, proposal: Proposal, rng_key: Key, num_samples: int
    ) -> jax.Array:
        """log of the mean importance weight of one datum, with draws from ``proposal``."""
        z = draw(rng_key, num_samples, *proposal)
        return logsumexp(self(x, z, condition) - log_density(z, *proposal)) - math.log(num_samples)

    def elbo(
        self, x: jax.Array, condition: jax.Array | None, proposal: Proposal, rng_key: Key, num_samples: int
    ) -> jax.Array:
        """The bound of one datum under a normal distribution, whose entropy is the closed form."""
        z = draw(rng_key, num_samples, *proposal)
        return self(x, z, condition).mean() + normal_of(*proposal).entropy()


def _single(condition: jax.Array | None) -> jax.Array | None:
    return None if condition is None else condition[None]


def evaluated(owner: str, vae: Model) -> Model:
    """The model with networks in evaluation mode; refused unless it is a :class:`VAE` or :class:`CVAE`."""
    if not isinstance(vae, LatentModel):
        raise TypeError(f"vae: {owner} expected a VAE or CVAE, got {type(vae).__name__}")
    return vae.in_evaluation()


def data_of(vae: LatentModel, data: Data) -> tuple[jax.Array, jax.Array | None]:
    """Data and, for a :class:`CVAE`, conditions."""
    x, condition = split_data(data, isinstance(vae, CVAE))
    x, condition = vae.check_data(x), None if condition is None else jnp.asarray(condition)
    count_rows(x, condition)
    vae.check_prior_learned(condition)
    return x, condition
