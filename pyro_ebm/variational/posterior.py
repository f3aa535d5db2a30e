"""How far an encoder is from the posterior of z, and draws that are nearer to it.

The posterior itself is the host's business: ``NUTS(vae.model)`` or ``HMC(vae.model)``, started from the encoder::

    start = {"z": vae.encode(x).sample()}
    mcmc = MCMC(NUTS(vae.model), num_samples=500, warmup_steps=200, initial_params=start)
    mcmc.run(x)

and, much faster, those of :mod:`pyro_ebm.infer` in its ``BatchedMCMC``. Their draws are what :func:`inference_gap`
measures the encoder by.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from _ppl_ebm.checks import check_count, check_positive, check_positive_int
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling import steps
from pyro_ebm.variational import normal
from pyro_ebm.variational.cvae import CVAE
from pyro_ebm.variational.latent import LatentModel, check_rows
from pyro_ebm.variational.priors import NormalPrior, normalized_log_prob


@torch.no_grad()
def importance_weighted_log_likelihood(
    vae: Any, data: Any, num_samples: int = 1000, batch_size: int = 100
) -> torch.Tensor:
    r"""Estimates of the log-likelihood of each datum (Burda, Grosse & Salakhutdinov 2016), in nats.

    .. math::

        \log \frac1S \sum_s \frac{p(x \mid z_s) p(z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(z \mid x)

    A lower bound on log p(x) in expectation, tighter with more draws. (Not with an estimated normaliser of an energy
    prior: that error goes the other way.)

    :param vae: a :class:`VAE`, or a :class:`CVAE`, for which this is log p(x | c).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param num_samples: S, draws from torch's generator.
    :param batch_size: data at a time: memory grows as ``batch_size * num_samples`` decoded data.
    :return: shape ``(N,)``.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for numbers that are not positive integers.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, importance_weighted_log_likelihood
    >>> vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, likelihood=1.0)
    >>> importance_weighted_log_likelihood(vae, torch.randn(50, 6)).shape
    torch.Size([50])
    """
    check_model("importance_weighted_log_likelihood", vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    x, condition = data_of(vae, data)
    joint = LogJoint(vae)
    estimates = []
    for rows, given in batches(batch_size, x, condition):
        proposal = vae._encode(rows, given)
        estimates.append(_log_mean_weight(joint, rows, given, proposal, _noise(proposal, num_samples)))
    return torch.cat(estimates)


class InferenceGap(NamedTuple):
    """Where a bound loses what it loses, in nats for each datum, shape ``(N,)``.

    :param elbo: of the encoder's q(z | x).
    :param fitted_elbo: of the member of the same family that is fitted to draws from the posterior.
    :param log_likelihood: importance-weighted, with a normal distribution of full covariance fitted to those draws.
    """

    elbo: torch.Tensor
    fitted_elbo: torch.Tensor
    log_likelihood: torch.Tensor

    @property
    def amortization(self) -> torch.Tensor:
        """``fitted_elbo - elbo``: what an encoder loses that is shared by all data."""
        return self.fitted_elbo - self.elbo

    @property
    def approximation(self) -> torch.Tensor:
        """``log_likelihood - fitted_elbo``: what the family of q loses."""
        return self.log_likelihood - self.fitted_elbo


@torch.no_grad()
def inference_gap(
    vae: Any, data: Any, draws: torch.Tensor, num_samples: int = 1000, batch_size: int = 100
) -> InferenceGap:
    """Amortisation gap and approximation gap of an encoder (Cremer, Li & Duvenaud 2018), by draws from the posterior.

    The fitted member of the encoder's family has the draws' mean, and their covariance if it is full, else the inverse
    of the diagonal of their precision matrix: what minimises its KL divergence from the posterior where that is normal.
    Elsewhere it is near the minimum only, and the amortisation gap may come out negative by as much.

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param draws: of ``p(z | x)``, shape ``(num_draws, N, latent_size)``: those of HMC, NUTS or
        :func:`refine_posterior`, many more than ``latent_size``.
    :param num_samples: draws for each of the three estimates, from torch's generator.
    :param batch_size: data at a time.
    :raises TypeError: for a ``vae`` that is neither, or data or draws that do not suit it.
    :raises ValueError: for numbers that are not positive integers, draws of another shape or too few.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import pyro, torch
    >>> from pyro_ebm.variational import VAE, inference_gap
    >>> class Posterior(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.cat([0.7 * x, torch.full_like(x, 0.2).log() / 2], -1)  # 0.8 * x would be exact
    >>> vae = VAE(Posterior(), torch.nn.Identity(), 1, likelihood=0.5)
    >>> _ = pyro.set_rng_seed(0)
    >>> gap = inference_gap(vae, torch.ones(1, 1), 0.8 + 0.2**0.5 * torch.randn(10000, 1, 1), 10000)
    >>> print(f"{gap.amortization[0]:.2f}")  # 0.1**2 / (2 * 0.2) = 0.025
    0.03
    """
    check_model("inference_gap", vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    x, condition = data_of(vae, data)
    size = vae.latent_size
    check_rows("draws", draws)
    if draws.dim() != 3 or draws.shape[1:] != (len(x), size) or len(draws) <= size:
        raise ValueError(f"draws: expected shape (more than {size}, {len(x)}, {size}), got {tuple(draws.shape)}")
    joint = LogJoint(vae)
    gaps = []
    for rows, given, z in batches(batch_size, x, condition, draws.transpose(0, 1)):
        fitted, proposal = _fit(z, vae.covariance)
        noise = _noise(proposal, num_samples)  # the same for all three, whose differences count
        bounds = (_elbo(joint, rows, given, q, noise) for q in (vae._encode(rows, given), fitted))
        gaps.append(torch.stack([*bounds, _log_mean_weight(joint, rows, given, proposal, noise)]))
    return InferenceGap(*torch.cat(gaps, 1))


class RefinedPosterior(NamedTuple):
    """Draws of z, shape ``(num_samples, N, latent_size)``, and each chain's mean acceptance, ``(num_samples, N)``."""

    latent: torch.Tensor
    accept_prob: torch.Tensor


def refine_posterior(
    vae: Any, data: Any, num_steps: int = 20, step_size: float = 0.5, num_samples: int = 1
) -> RefinedPosterior:
    """Draws of z that start from the encoder's proposal and go ``num_steps`` Langevin transitions to the posterior.

    Metropolis-adjusted (MALA), so p(z | x) is what they converge to, and the prior's normaliser is not needed. Step
    sizes are in units of the encoder's standard deviations. Without gradients in any parameter.

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param num_steps: transitions, not negative; 0 gives the encoder's draws.
    :param step_size: a length, positive.
    :param num_samples: independent chains for each datum, from torch's generator.
    :raises TypeError: for a ``vae`` that is neither, data that do not suit it, or a ``step_size`` that is no number.
    :raises ValueError: for numbers out of range.

    >>> import pyro, torch
    >>> from pyro_ebm.variational import VAE, refine_posterior
    >>> class Standard(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.zeros(len(x), 2)  # an encoder that says N(0, 1)
    >>> vae = VAE(Standard(), torch.nn.Identity(), 1, likelihood=0.5)
    >>> _ = pyro.set_rng_seed(0)
    >>> refined = refine_posterior(vae, torch.ones(1, 1), 50, num_samples=4000)
    >>> print(f"{refined.latent.mean():.1f}, {refined.latent.var():.1f}")  # the posterior is Normal(0.8, variance 0.2)
    0.8, 0.2
    """
    check_model("refine_posterior", vae)
    check_count("num_steps", num_steps)
    check_positive("step_size", step_size)
    check_positive_int("num_samples", num_samples)
    x, condition = data_of(vae, data)
    with torch.no_grad():
        posterior = vae._encode(x, condition)
        prior = vae._prior(condition)
        position = posterior.sample((num_samples,))
    log_prior = prior.unnormalized_log_prob if isinstance(prior, EnergyDistribution) else prior.log_prob
    target = steps.Target(lambda z: vae._decode(z, condition).log_prob(x) + log_prior(z))
    scale = posterior.variance.sqrt()
    state = steps.init(target, position)
    accept_prob = torch.zeros_like(state.log_density)
    for _ in range(num_steps):
        state, info = steps.adjusted_langevin_step(state, target, step_size, scale)
        accept_prob += info.accept_prob / num_steps
    return RefinedPosterior(state.position, accept_prob if num_steps else torch.ones_like(accept_prob))


class LogJoint:
    """``log p(x, z)`` of data at many z each, in its two parts; the prior's normaliser is computed once.

    :raises IntractablePartitionError: if the prior is not normalised.
    """

    def __init__(self, vae: LatentModel) -> None:
        self.vae = vae
        conditional = isinstance(vae.prior, NormalPrior) and vae.prior.network is not None
        self.log_prior: Callable[..., torch.Tensor] | None = None
        if not conditional:
            self.log_prior = normalized_log_prob(vae._prior())

    def prior(self, z: torch.Tensor, condition: Any) -> torch.Tensor:
        """Log-densities of z of shape ``(S, N, latent_size)``."""
        return self.vae._prior(condition).log_prob(z) if self.log_prior is None else self.log_prior(z)

    def likelihood(self, x: torch.Tensor, z: torch.Tensor, condition: Any) -> torch.Tensor:
        """Log-likelihoods of N data given z of shape ``(S, N, latent_size)``."""
        likelihood = self.vae._decode(z, condition)
        self.vae._check_data(x, likelihood)
        return likelihood.log_prob(x)

    def __call__(self, x: torch.Tensor, z: torch.Tensor, condition: Any) -> torch.Tensor:
        return self.likelihood(x, z, condition) + self.prior(z, condition)


def _noise(like: Any, num_samples: int) -> torch.Tensor:
    """Standard normal draws, of which :func:`normal.at` makes those of a normal distribution."""
    return torch.randn_like(like.mean.expand(num_samples, *like.mean.shape))


def _log_mean_weight(
    joint: LogJoint, x: torch.Tensor, condition: Any, proposal: Any, noise: torch.Tensor
) -> torch.Tensor:
    """log of the mean importance weight of each datum, with draws from a normal distribution."""
    z = normal.at(proposal, noise)
    return torch.logsumexp(joint(x, z, condition) - proposal.log_prob(z), 0) - math.log(len(z))


def _elbo(joint: LogJoint, x: torch.Tensor, condition: Any, q: Any, noise: torch.Tensor) -> torch.Tensor:
    """The bound of each datum under a normal distribution, whose entropy is the closed form."""
    return joint(x, normal.at(q, noise), condition).mean(0) + q.entropy()


def _fit(draws: torch.Tensor, covariance: str) -> tuple[Any, Any]:
    """Normal distributions fitted to draws of shape ``(N, num_draws, size)``: of the family, and of full covariance."""
    loc = draws.mean(1)
    residual = draws - loc[:, None]
    matrix = residual.mT @ residual / (draws.shape[1] - 1)
    full = normal.dist.MultivariateNormal(loc, matrix)
    if covariance == "full":
        return full, full
    precision = torch.linalg.inv(matrix).diagonal(dim1=-2, dim2=-1)
    return normal.dist.Normal(loc, precision.rsqrt()).to_event(1), full


def check_model(owner: str, vae: Any) -> None:
    """Refuse whatever is no :class:`VAE` or :class:`CVAE`."""
    if not isinstance(vae, LatentModel):
        raise TypeError(f"vae: {owner} expected a VAE or CVAE, got {type(vae).__name__}")


def data_of(vae: Any, data: Any) -> tuple[torch.Tensor, Any]:
    """Data and, for a :class:`CVAE`, conditions."""
    if not isinstance(vae, CVAE):
        vae._count(check_rows("data", data), None, None)
        return data, None
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data: expected a pair (x, condition) for a CVAE, got {type(data).__name__}")
    vae._count(data[0], data[1], None)
    return data[0], data[1]


def batches(batch_size: int, *tensors: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of all tensors together; ``None`` stays what it is."""
    for start in range(0, len(tensors[0]), batch_size):
        yield tuple(None if tensor is None else tensor[start : start + batch_size] for tensor in tensors)
