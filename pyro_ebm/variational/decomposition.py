"""What an ELBO is made of, and which latent dimensions are used; the plain ELBO, whatever weights the model has."""

import math
from typing import Any, NamedTuple

import torch

from _ppl_ebm.checks import check_between, check_positive_int
from pyro_ebm.variational import normal
from pyro_ebm.variational.posterior import LogJoint, batches, check_model, data_of
from pyro_ebm.variational.priors import NormalPrior
from pyro_ebm.variational.vae import VAE


class ELBODecomposition(NamedTuple):
    """Means over data, in nats, float64 scalars; ``elbo = reconstruction - mutual_information - marginal_kl``.

    :param elbo: evidence lower bound.
    :param reconstruction: expected log-likelihood given latent variables from the encoder.
    :param mutual_information: of the data's index and z under the encoder, between 0 and log N.
    :param marginal_kl: KL divergence of the aggregated posterior from the prior.
    """

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    mutual_information: torch.Tensor
    marginal_kl: torch.Tensor


@torch.no_grad()
def elbo_decomposition(vae: VAE, data: torch.Tensor, num_samples: int = 1, batch_size: int = 100) -> ELBODecomposition:
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

    :param vae: a :class:`VAE`.
    :param data: shape ``(N, *event_shape)``.
    :param num_samples: draws of z for each datum, from torch's generator.
    :param batch_size: data at a time; the cost is that of ``N * N * num_samples`` normal densities.
    :raises TypeError: if ``vae`` is no :class:`VAE`.
    :raises ValueError: for numbers that are not positive integers.
    :raises IntractablePartitionError: if the prior is not normalised.

    >>> import torch
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
    x, _ = data_of(vae, data)
    joint = LogJoint(vae)
    everything = torch.cat([normal.parameters_of(vae._encode(rows)) for (rows,) in batches(batch_size, x)])
    aggregated = normal.from_parameters(everything, vae.latent_size)
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, parameters in batches(batch_size, x, everything):
        posterior = normal.from_parameters(parameters, vae.latent_size)
        z = posterior.sample((num_samples,))
        log_posterior = posterior.log_prob(z)
        information = log_posterior - _log_mixture(aggregated, z)
        if isinstance(vae.prior, NormalPrior):
            kl = normal.divergence(posterior, vae._prior())
        else:
            kl = (log_posterior - joint.prior(z, None)).mean(0)
        parts = joint.likelihood(rows, z, None).mean(0), kl, information.mean(0)
        sums += torch.stack([part.double().sum().cpu() for part in parts])
    reconstruction, kl, mutual_information = sums / len(x)
    return ELBODecomposition(reconstruction - kl, reconstruction, mutual_information, kl - mutual_information)


@torch.no_grad()
def active_units(vae: Any, data: Any, threshold: float = 0.01) -> torch.Tensor:
    """Which latent dimensions depend on the data (Burda, Grosse & Salakhutdinov 2016).

    A dimension is active if the variance over data (divisor N) of its posterior mean is above ``threshold``.

    :param vae: a :class:`VAE` or :class:`CVAE`.
    :param data: shape ``(N, *event_shape)``; for a :class:`CVAE` a pair ``(x, condition)``.
    :param threshold: a variance, not negative.
    :return: booleans of shape ``(latent_size,)``; their sum is the number of active units.
    :raises TypeError: for a ``vae`` that is neither, or data that do not suit it.
    :raises ValueError: for a negative ``threshold``.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, active_units
    >>> encoder = torch.nn.Linear(1, 4)
    >>> with torch.no_grad():
    ...     _ = encoder.weight.copy_(torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    >>> active_units(VAE(encoder, torch.nn.Linear(2, 1), 2), torch.tensor([[0.0], [1.0]]))
    tensor([ True, False])
    """
    check_model("active_units", vae)
    check_between("threshold", threshold, 0, float("inf"))
    return vae._encode(*data_of(vae, data)).mean.var(0, correction=0) > threshold


def _log_mixture(components: Any, z: torch.Tensor) -> torch.Tensor:
    """Log-density of the mixture of all components with equal weights, one draw after the other."""
    rows = [torch.logsumexp(components.log_prob(points[:, None]), -1) for points in z]
    return torch.stack(rows) - math.log(components.batch_shape[0])
