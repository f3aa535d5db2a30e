"""What an ELBO is made of, how far it is from the log-likelihood, and which latent dimensions are in use."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.partition import IntractablePartitionError, intractable_message
from pyro_ebm.infer.samplers import check_positive_int
from pyro_ebm.variational import normal
from pyro_ebm.variational.vae import CVAE, VAE

#: Data that are encoded at a time where nothing else takes memory.
_PASS = 1000


class ELBODecomposition(NamedTuple):
    """The ELBO and its terms in nats, means over the data; each is a float64 scalar.

    :param elbo: ``reconstruction - mutual_information - marginal_kl``, whatever ``kl_weight`` and ``free_bits`` are.
    :param reconstruction: E log p(x | z).
    :param mutual_information: between x and z under q, where x is one of the N data: at least 0, at most log N.
    :param marginal_kl: KL(q(z) | p(z)) of the aggregated posterior.
    """

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    mutual_information: torch.Tensor
    marginal_kl: torch.Tensor


@torch.no_grad()
def elbo_decomposition(vae: VAE, data: torch.Tensor, num_samples: int = 1, batch_size: int = 100) -> ELBODecomposition:
    r"""Reconstruction, mutual information and divergence of the aggregated posterior (Hoffman & Johnson 2016).

    .. math::

        \frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p(z)) = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)), \qquad
        q(z) = \frac1N \sum_n q(z \mid x_n)

    where q(z) is the mixture over **all** data given, not over a minibatch, at a cost of N^2 densities for each sample.
    Estimators: E log q(z) and the reconstruction are Monte Carlo means over ``num_samples`` draws for each datum; the
    entropy of q(z | x) is in closed form, and so is KL(q(z | x) | p(z)) where the prior is normal, else log p(z) is
    averaged over the draws. So the mutual information keeps its bounds up to Monte Carlo error, and the terms sum to
    the ELBO exactly, in which the error of E log q(z) cancels.

    :param vae: a :class:`VAE`.
    :param data: shape ``(N, *event_shape)``.
    :param num_samples: draws of z for each datum, from torch's generator.
    :param batch_size: data at a time.
    :return: elbo, reconstruction, mutual_information, marginal_kl.
    :raises TypeError: for a ``vae`` that is no :class:`VAE`.
    :raises IntractablePartitionError: where the prior's partition function is not known.

    >>> import math, torch
    >>> from pyro_ebm.variational import VAE, elbo_decomposition
    >>> vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, likelihood=1.0)
    >>> terms = elbo_decomposition(vae, torch.randn(50, 6))
    >>> bool(abs(terms.elbo - (terms.reconstruction - terms.mutual_information - terms.marginal_kl)) < 1e-6)
    True
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: elbo_decomposition expected a VAE, got {type(vae).__name__}")
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    components = _posteriors(vae, data, batch_size)
    sums = torch.zeros(4, dtype=torch.float64)
    for (x, _), posterior in zip(_batches(vae, data, batch_size), _split(components, batch_size), strict=True):
        latent = posterior.sample((num_samples,))
        reconstruction = _data_likelihood(vae, latent, x, None)
        kl = _divergence(vae, posterior, latent, None)
        aggregated = _mixture_log_prob(components, latent)
        parts = reconstruction.mean(0), kl, posterior.entropy(), aggregated.mean(0)
        sums += torch.stack([part.double().sum().cpu() for part in parts])
    reconstruction, kl, entropy, aggregated = sums / len(data)
    cross_entropy = kl + entropy  # -E log p(z)
    return ELBODecomposition(reconstruction - kl, reconstruction, -aggregated - entropy, aggregated + cross_entropy)


@torch.no_grad()
def importance_weighted_log_likelihood(
    vae: VAE | CVAE, data: Any, num_samples: int = 1000, batch_size: int = 100
) -> torch.Tensor:
    r"""Estimates of log p(x) by importance sampling from the encoder (Burda, Grosse & Salakhutdinov 2016).

    .. math::

        \log \frac1S \sum_s \frac{p(x \mid z_s) \, p(z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(z \mid x)

    A lower bound on log p(x) in expectation, which S makes tight.

    :param vae: a :class:`VAE`, or a :class:`CVAE`, for which this is log p(x | c).
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param num_samples: S, draws for each datum, from torch's generator.
    :param batch_size: data at a time: memory holds ``batch_size * num_samples`` decodings.
    :return: one estimate for each datum in nats, shape ``(N,)``.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises IntractablePartitionError: where the prior's partition function is not known.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, importance_weighted_log_likelihood
    >>> vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, likelihood=1.0)
    >>> importance_weighted_log_likelihood(vae, torch.randn(50, 6)).shape
    torch.Size([50])
    """
    _check_model("importance_weighted_log_likelihood", vae)
    check_positive_int("num_samples", num_samples)
    check_positive_int("batch_size", batch_size)
    estimates = []
    for x, condition in _batches(vae, data, batch_size):
        posterior = vae._posterior(x, condition)
        latent = posterior.sample((num_samples,))
        log_weights = _data_likelihood(vae, latent, x, condition) - posterior.log_prob(latent)
        log_weights = log_weights + _normalised_prior(vae, condition).log_prob(latent)
        estimates.append(torch.logsumexp(log_weights, 0) - math.log(num_samples))
    return torch.cat(estimates)


@torch.no_grad()
def active_units(vae: VAE | CVAE, data: Any, threshold: float = 0.01) -> torch.Tensor:
    """Which latent dimensions depend on the data: the variance of E[z | x] over them exceeds a threshold.

    The criterion of Burda, Grosse & Salakhutdinov (2016), with the variance of the N data (divisor N).

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param threshold: on the variance, in units of z squared.
    :return: booleans of shape ``(latent_size,)``; their sum is the number of active units.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, active_units
    >>> encoder = torch.nn.Linear(1, 4)
    >>> with torch.no_grad():
    ...     _ = encoder.weight.copy_(torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    >>> active_units(VAE(encoder, torch.nn.Linear(2, 1), 2), torch.tensor([[0.0], [1.0]]))
    tensor([ True, False])
    """
    _check_model("active_units", vae)
    if not threshold >= 0:
        raise ValueError(f"threshold: active_units expected a number of at least 0, got {threshold!r}")
    means = torch.cat([vae._posterior(x, condition).mean for x, condition in _batches(vae, data, _PASS)])
    return means.var(0, correction=0) > threshold


def _check_model(function: str, vae: Any) -> None:
    if not isinstance(vae, (VAE, CVAE)):
        raise TypeError(f"vae: {function} expected a VAE or CVAE, got {type(vae).__name__}")


def _batches(vae: Any, data: Any, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Rows of data and, for a CVAE, of conditions."""
    if isinstance(vae, CVAE):
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise TypeError(f"data: expected a pair (x, condition) for a CVAE, got {type(data).__name__}")
        vae._count(data[0], data[1], None)
        return zip(data[0].split(batch_size), data[1].split(batch_size), strict=True)
    if not isinstance(data, torch.Tensor) or data.dim() == 0 or len(data) == 0:
        raise TypeError(f"data: expected a tensor of shape (N, *event_shape), got {type(data).__name__}")
    vae._count(data, None, None)
    return ((x, None) for x in data.split(batch_size))


def _posteriors(vae: Any, data: torch.Tensor, batch_size: int) -> Any:
    """q(z | x) of all data, as one distribution."""
    outputs = torch.cat([vae.encoder(x) for x, _ in _batches(vae, data, batch_size)])
    return normal.normal_from("encoder", outputs, vae.latent_size, vae.covariance)


def _split(posteriors: Any, batch_size: int) -> list[Any]:
    """A batch of normal distributions in pieces."""
    if normal.is_factorised(posteriors):
        parts = zip(posteriors.mean.split(batch_size), posteriors.stddev.split(batch_size), strict=True)
        return [normal.dist.Normal(loc, scale).to_event(1) for loc, scale in parts]
    parts = zip(posteriors.loc.split(batch_size), posteriors.scale_tril.split(batch_size), strict=True)
    return [normal.dist.MultivariateNormal(loc, scale_tril=factor) for loc, factor in parts]


def _mixture_log_prob(components: Any, latent: torch.Tensor) -> torch.Tensor:
    """Log-density of the mixture of all components with equal weights, one sample after the other."""
    rows = [torch.logsumexp(components.log_prob(points[:, None]), -1) for points in latent]
    return torch.stack(rows) - math.log(components.batch_shape[0])


def _data_likelihood(vae: Any, latent: torch.Tensor, x: torch.Tensor, condition: Any) -> torch.Tensor:
    likelihood = vae._likelihood(latent, condition)
    vae._check_data(x, likelihood)
    return likelihood.log_prob(x)


def _divergence(vae: Any, posterior: Any, latent: torch.Tensor, condition: Any) -> torch.Tensor:
    """KL of posterior and prior: closed where both are normal, else with log p(z) averaged over the draws."""
    prior = _normalised_prior(vae, condition)
    if normal.has_closed_divergence(posterior, prior):
        return normal.divergence(posterior, prior)
    return -posterior.entropy() - prior.log_prob(latent).mean(0)


def _normalised_prior(vae: Any, condition: Any) -> Any:
    prior = vae._prior(condition)
    if isinstance(prior, EnergyDistribution) and not prior.is_normalized:
        raise IntractablePartitionError(intractable_message(prior._title))
    return prior
