"""What an ELBO is made of, and which latent dimensions are used; the plain ELBO, whatever weights the model has."""

import math

import torch

from _ppl_ebm.autoencoders import ELBODecomposition, check_samples
from _ppl_ebm.checks import check_between
from pyro_ebm.variational.cvae import CVAE
from pyro_ebm.variational.latent import LatentModel
from pyro_ebm.variational.networks import evaluates
from pyro_ebm.variational.normal import kl_divergence, loc_and_scale, normal_of
from pyro_ebm.variational.posterior import Data, LogJoint, Proposal, batches, check_model, data_of
from pyro_ebm.variational.vae import VAE


@evaluates
@torch.no_grad()
def elbo_decomposition(
    vae: VAE, data: torch.Tensor, num_samples: int = 1, batch_size: int = 100
) -> ELBODecomposition[torch.Tensor]:
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
    check_samples(num_samples, batch_size)
    x, _ = data_of(vae, data)
    joint, everything = LogJoint(vae), encode_all(vae, x, batch_size)
    sums = torch.zeros(3, dtype=torch.float64, device="cpu")
    for rows, loc, scale in batches(batch_size, x, *everything):
        terms = _terms(joint, num_samples, everything, rows, (loc, scale))
        sums += torch.stack([term.double().sum().cpu() for term in terms])
    reconstruction, kl, information = sums / len(x)
    return ELBODecomposition(reconstruction - kl, reconstruction, information, kl - information)


def _terms(
    joint: LogJoint, num_samples: int, everything: Proposal, x: torch.Tensor, posterior: Proposal
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reconstruction, KL and mutual information of data, whose q(z | x) are ``posterior``."""
    q = normal_of(*posterior)
    z = q.sample((num_samples,))
    log_posterior = q.log_prob(z)
    information = log_posterior - _log_aggregated(everything, z)
    if joint.vae.prior.is_normal:
        kl = kl_divergence(q, joint.vae.latent_prior())
    else:
        kl = (log_posterior - joint.prior(z, None)).mean(0)
    return joint.likelihood(x, z, None).mean(0), kl, information.mean(0)


@evaluates
@torch.no_grad()
def active_units(vae: VAE | CVAE, data: Data, threshold: float = 0.01) -> torch.Tensor:
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
    return vae.latent_given_data(*data_of(vae, data)).mean.var(0, correction=0) > threshold


def encode_all(vae: LatentModel, x: torch.Tensor, batch_size: int) -> Proposal:
    """Locations and scales of q(z | x) of all data."""
    each = [loc_and_scale(vae.latent_given_data(rows)) for (rows,) in batches(batch_size, x)]
    loc, scale = (torch.cat(parts) for parts in zip(*each, strict=True))
    return loc, scale


def _log_aggregated(everything: Proposal, z: torch.Tensor) -> torch.Tensor:
    """Log-densities of the aggregated posterior at z of shape ``(S, N, latent_size)``, one draw after the other."""
    components = normal_of(*everything)
    rows = [torch.logsumexp(components.log_prob(points[:, None]), -1) for points in z]
    return torch.stack(rows) - math.log(components.batch_shape[0])
