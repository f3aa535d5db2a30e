"""How far an encoder is from the posterior of z, and draws that are nearer to it.

The posterior itself is the host's business: ``NUTS(vae.model)`` or ``HMC(vae.model)``, started from the encoder::

    start = {"z": vae.encode(x).sample()}
    mcmc = MCMC(NUTS(vae.model), num_samples=500, warmup_steps=200, initial_params=start)
    mcmc.run(x)

and, much faster, those of :mod:`pyro_ebm.infer` in its ``BatchedMCMC``. Their draws are what :func:`inference_gap`
measures the encoder by.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch

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
from pyro_ebm.sampling import steps
from pyro_ebm.variational.cvae import CVAE
from pyro_ebm.variational.energy_prior import normalized_log_prob, unnormalized_log_prob
from pyro_ebm.variational.latent import LatentModel, check_tensor
from pyro_ebm.variational.networks import evaluates
from pyro_ebm.variational.normal import at, loc_and_scale, normal_of
from pyro_ebm.variational.vae import VAE

#: Data, or data and conditions.
Data: TypeAlias = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
#: Locations and scales of normal distributions over the latent variables of N data.
Proposal: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@evaluates
@torch.no_grad()
def importance_weighted_log_likelihood(
    vae: VAE | CVAE, data: Data, num_samples: int = 1000, batch_size: int = 100
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
    check_samples(num_samples, batch_size)
    x, condition = data_of(vae, data)
    joint = LogJoint(vae)
    estimates = []
    for rows, given in batches(batch_size, x, condition):
        proposal = joint.proposal(rows, given)
        estimates.append(joint.log_mean_weight(rows, given, proposal, _noise(proposal, num_samples)))
    return torch.cat(estimates)


@evaluates
@torch.no_grad()
def inference_gap(
    vae: VAE | CVAE, data: Data, draws: torch.Tensor, num_samples: int = 1000, batch_size: int = 100
) -> InferenceGap[torch.Tensor]:
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
    check_samples(num_samples, batch_size)
    x, condition = data_of(vae, data)
    check_draws(check_tensor("draws", draws).shape, len(x), vae.latent_size)
    joint = LogJoint(vae)
    each = batches(batch_size, x, condition, draws.transpose(0, 1))
    gaps = [_gap(joint, num_samples, rows, given, z) for rows, given, z in each]
    return InferenceGap(*torch.cat(gaps, 1))


def _gap(
    joint: "LogJoint", num_samples: int, x: torch.Tensor, condition: torch.Tensor | None, draws: torch.Tensor
) -> torch.Tensor:
    """The three estimates of N data, with the same noise, for their differences count; shape ``(3, N)``."""
    fitted, proposal = _fit(draws, joint.vae.covariance)
    noise = _noise(proposal, num_samples)
    bounds = [joint.elbo(x, condition, q, noise) for q in (joint.proposal(x, condition), fitted)]
    return torch.stack([*bounds, joint.log_mean_weight(x, condition, proposal, noise)])


def _fit(draws: torch.Tensor, covariance: str) -> tuple[Proposal, Proposal]:
    """Normal distributions fitted to draws of shape ``(N, num_draws, size)``: of the family, and of full covariance."""
    loc = draws.mean(1)
    residual = draws - loc[:, None]
    matrix = residual.mT @ residual / (draws.shape[1] - 1)
    full = loc, torch.linalg.cholesky(matrix)
    if covariance == "full":
        return full, full
    return (loc, torch.linalg.inv(matrix).diagonal(dim1=-2, dim2=-1).rsqrt()), full


def _noise(proposal: Proposal, num_samples: int) -> torch.Tensor:
    """Standard normal draws, of which :func:`normal.at` makes those of normal distributions."""
    loc, _ = proposal
    return torch.randn_like(loc.expand(num_samples, *loc.shape))


@evaluates
def refine_posterior(
    vae: VAE | CVAE, data: Data, num_steps: int = 20, step_size: float = 0.5, num_samples: int = 1
) -> RefinedPosterior[torch.Tensor]:
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
        posterior = vae.latent_given_data(x, condition)
        target = _posterior(vae, x, condition)
        position, scale = posterior.sample((num_samples,)), posterior.variance.sqrt()
    state = steps.init(target, position)
    accept_prob = torch.zeros_like(state.log_density)
    for _ in range(num_steps):
        state, info = steps.adjusted_langevin_step(state, target, step_size, scale)
        accept_prob += info.accept_prob / num_steps
    return RefinedPosterior(state.position, accept_prob if num_steps else torch.ones_like(accept_prob))


def _posterior(vae: LatentModel, x: torch.Tensor, condition: torch.Tensor | None) -> steps.Target:
    """p(z | x) up to its constant, of z of shape ``(num_samples, N, latent_size)``."""
    log_prior = unnormalized_log_prob(vae.latent_prior(condition))

    def log_density(z: torch.Tensor) -> torch.Tensor:
        likelihood = vae.data_given_latent(z, condition)
        check_data_shape(x.shape, likelihood.event_shape)
        return likelihood.log_prob(x) + log_prior(z)

    return steps.Target(log_density)


class LogJoint:
    """``log p(x, z)`` of data at many z each, in its two parts; the prior's normaliser is computed once.

    :raises IntractablePartitionError: if the prior is not normalised.
    """

    def __init__(self, vae: LatentModel) -> None:
        self.vae = vae
        if not vae.prior.is_conditional:
            self.log_prior = normalized_log_prob(vae.latent_prior())

    def prior(self, z: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Log-densities of z of shape ``(S, N, latent_size)``."""
        if self.vae.prior.is_conditional:
            return self.vae.latent_prior(condition).log_prob(z)
        return self.log_prior(z)

    def likelihood(self, x: torch.Tensor, z: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Log-likelihoods of N data given z of shape ``(S, N, latent_size)``."""
        made = self.vae.data_given_latent(z, condition)
        check_data_shape(x.shape, made.event_shape)
        return made.log_prob(x)

    def __call__(self, x: torch.Tensor, z: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return self.likelihood(x, z, condition) + self.prior(z, condition)

    def proposal(self, x: torch.Tensor, condition: torch.Tensor | None) -> Proposal:
        """The encoder's q(z | x) of N data."""
        return loc_and_scale(self.vae.latent_given_data(x, condition))

    def log_mean_weight(
        self, x: torch.Tensor, condition: torch.Tensor | None, proposal: Proposal, noise: torch.Tensor
    ) -> torch.Tensor:
        """log of the mean importance weight of each datum, with draws from ``proposal``."""
        z = at(noise, *proposal)
        return torch.logsumexp(self(x, z, condition) - normal_of(*proposal).log_prob(z), 0) - math.log(len(z))

    def elbo(
        self, x: torch.Tensor, condition: torch.Tensor | None, proposal: Proposal, noise: torch.Tensor
    ) -> torch.Tensor:
        """The bound of each datum under a normal distribution, whose entropy is the closed form."""
        return self(x, at(noise, *proposal), condition).mean(0) + normal_of(*proposal).entropy()


def check_model(owner: str, vae: LatentModel) -> None:
    """Refuse whatever is no :class:`VAE` or :class:`CVAE`."""
    if not isinstance(vae, LatentModel):
        raise TypeError(f"vae: {owner} expected a VAE or CVAE, got {type(vae).__name__}")


def data_of(vae: LatentModel, data: Data) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Data and, for a :class:`CVAE`, conditions."""
    x, condition = split_data(data, isinstance(vae, CVAE))
    x, condition = vae.check_data(x), None if condition is None else check_tensor("condition", condition)
    count_rows(x, condition)
    vae.check_prior_learned()
    return x, condition


def batches(batch_size: int, x: torch.Tensor, *others: torch.Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Rows of all tensors together; ``None`` stays what it is."""
    for start in range(0, len(x), batch_size):
        yield tuple(None if tensor is None else tensor[start : start + batch_size] for tensor in (x, *others))
