"""Small autoencoders of known behaviour for the tests, in float64."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

from pyro_ebm.variational import CVAE, VAE
from pyro_ebm.variational import normal as normals

DOUBLE = torch.float64
SIZE, LATENT, COUNT = 5, 2, 60


class Joint(torch.nn.Linear):
    """A linear map of two arguments."""

    def forward(self, value, condition):
        return super().forward(torch.cat([value, condition], -1))


def linear(inputs, outputs, kind=torch.nn.Linear):
    return kind(inputs, outputs, dtype=DOUBLE)


def draw(*shape):
    return torch.randn(*shape, dtype=DOUBLE)


def make(outputs=2 * LATENT, decoded=SIZE, **options):
    return VAE(linear(SIZE, outputs), linear(LATENT, decoded), LATENT, **{"likelihood": 0.7, **options})


def make_conditional(**options):
    encoder, decoder = linear(SIZE + 3, 2 * LATENT, Joint), linear(LATENT + 3, SIZE, Joint)
    return CVAE(encoder, decoder, LATENT, **{"likelihood": 0.7, **options})


def parts(vae, x, z):
    """log p(x | z), log p(z) and log q(z | x)."""
    return vae.decode(z).log_prob(x), vae.log_prior(z), vae.encode(x).log_prob(z)


def single_loss(vae, *args, elbo=Trace_ELBO, **kwargs):
    """One loss of SVI, and the z that it drew."""
    pyro.set_rng_seed(1)
    loss = elbo().loss(vae.model, vae.guide, *args, **kwargs)
    pyro.set_rng_seed(1)
    return loss, poutine.trace(vae.guide).get_trace(*args, **kwargs)


def train(vae, *args, num_steps, lr=0.05, num_particles=1, **kwargs):
    options = {"lr": lr, "lrd": 0.01 ** (1 / num_steps)}
    elbo = Trace_ELBO(num_particles=num_particles, vectorize_particles=num_particles > 1)
    svi = SVI(vae.model, vae.guide, pyro.optim.ClippedAdam(options), elbo)
    return [svi.step(*args, **kwargs) for _ in range(num_steps)]


def marginal(decoder, scale):
    """p(x) of a linear decoder with normal noise."""
    weights, offset = decoder.weight.detach(), decoder.bias.detach()
    covariance = weights @ weights.T + scale**2 * torch.eye(len(weights), dtype=DOUBLE)
    return dist.MultivariateNormal(offset, covariance)


@torch.no_grad()
def set_exact_encoder(vae, scale):
    """Make q(z | x) the posterior of the linear decoder: needs full covariance."""
    weights, offset = vae.decoder.weight, vae.decoder.bias
    covariance = torch.linalg.inv(torch.eye(LATENT, dtype=DOUBLE) + weights.T @ weights / scale**2)
    factor = torch.linalg.cholesky(covariance)
    gain = covariance @ weights.T / scale**2
    rows, columns = np.tril_indices(LATENT)
    entries = [factor[i, j].log() if i == j else factor[i, j] for i, j in zip(rows, columns, strict=True)]
    vae.encoder.weight.zero_()[:LATENT] = gain
    vae.encoder.bias.copy_(torch.cat([-gain @ offset, torch.stack(entries)]))


def exact_linear(scale=0.7):
    vae = make(normals.output_size(LATENT, "full"), covariance="full", likelihood=scale)
    set_exact_encoder(vae, scale)
    return vae
