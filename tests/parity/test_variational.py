"""Autoencoders of the two packages with the same weights: the same densities, divergences and gradients to 1e-10."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as numpyro_dist  # noqa: E402
import pyro.distributions as pyro_dist  # noqa: E402

import numpyro_ebm  # noqa: E402
import pyro_ebm  # noqa: E402
from numpyro_ebm import variational as numpyro_variational  # noqa: E402
from numpyro_ebm.variational.normal import kl_divergence as numpyro_kl_divergence  # noqa: E402
from pyro_ebm import variational as pyro_variational  # noqa: E402
from pyro_ebm.variational.normal import kl_divergence as pyro_kl_divergence  # noqa: E402

pytestmark = [pytest.mark.numpyro, pytest.mark.pyro]

RNG = np.random.default_rng(0)
SIZE, LATENT, COUNT, NUM_CONDITIONS = 5, 2, 6, 3
NUM_OUTPUTS = {"diagonal": 4, "full": 5}
X, Z = RNG.uniform(size=(COUNT, SIZE)), RNG.normal(size=(4, COUNT, LATENT))
CONDITION = RNG.normal(size=(COUNT, NUM_CONDITIONS))
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def weights(num_in, num_out):
    rng = np.random.default_rng(num_in + 10 * num_out)
    return rng.normal(size=(num_in, num_out)), rng.normal(size=num_out)


def jax_network(num_in, num_out):
    function = lambda matrix, bias, *inputs: jnp.concatenate(inputs) @ matrix + bias
    return jax.tree_util.Partial(function, *map(jnp.asarray, weights(num_in, num_out)))


class TorchNetwork(torch.nn.Module):
    def __init__(self, num_in, num_out):
        super().__init__()
        self.matrix, self.bias = (torch.nn.Parameter(torch.tensor(array)) for array in weights(num_in, num_out))

    def forward(self, *inputs):
        return torch.cat(inputs, -1) @ self.matrix + self.bias


def priors(kind):
    """The same prior of both packages."""
    if kind == "mixture":
        pair = (
            numpyro_variational.MixturePrior(3, LATENT, rng_key=jax.random.key(0)),
            pyro_variational.MixturePrior(3, LATENT).double(),
        )
        with torch.no_grad():
            pair[1].loc.copy_(torch.tensor(np.asarray(pair[0].initial_loc)))
        return pair
    if kind == "vamp":
        return (
            numpyro_variational.VampPrior(jnp.asarray(X[:3]), constraint=numpyro_dist.constraints.unit_interval),
            pyro_variational.VampPrior(torch.tensor(X[:3]), constraint=pyro_dist.constraints.unit_interval),
        )
    if kind == "rbm":
        shapes = {"weights": (LATENT, 3), "visible_bias": LATENT, "hidden_bias": 3}
        parameters = {name: RNG.normal(size=shape) for name, shape in shapes.items()}
        machines = (
            numpyro_ebm.GaussianBernoulliRBM(**{name: jnp.asarray(array) for name, array in parameters.items()}),
            pyro_ebm.GaussianBernoulliRBM(**{name: torch.tensor(array) for name, array in parameters.items()}),
        )
        return numpyro_variational.EnergyPrior(machines[0]), pyro_variational.EnergyPrior(machines[1])
    return "standard", "standard"


def pair(prior="standard", likelihood=0.7, covariance="diagonal"):
    """The same VAE of both packages."""
    options = {"likelihood": likelihood, "covariance": covariance}
    first, second = priors(prior)
    outputs = NUM_OUTPUTS[covariance]
    return (
        numpyro_variational.VAE(jax_network(SIZE, outputs), jax_network(LATENT, SIZE), LATENT, prior=first, **options),
        pyro_variational.VAE(TorchNetwork(SIZE, outputs), TorchNetwork(LATENT, SIZE), LATENT, prior=second, **options),
    )


def agree(first, second):
    np.testing.assert_allclose(np.asarray(first), second.detach().numpy(), **EXACT)


@pytest.mark.parametrize("covariance", NUM_OUTPUTS)
def test_encoders(covariance):
    first, second = pair(covariance=covariance)
    posteriors = first.encode(jnp.asarray(X)), second.encode(torch.tensor(X))
    with jax.numpy_rank_promotion("allow"):  # NumPyro's densities promote
        agree(posteriors[0].log_prob(jnp.asarray(Z)), posteriors[1].log_prob(torch.tensor(Z)))
    pairs = [(q, vae.prior.distribution()) for q, vae in zip(posteriors, (first, second), strict=True)]
    agree(numpyro_kl_divergence(*pairs[0]), pyro_kl_divergence(*pairs[1]))


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "normal", 0.3])
def test_decoders(likelihood):
    first, second = pair(likelihood=likelihood)
    x = (X > 0.5).astype(float) if likelihood == "bernoulli" else X
    with jax.numpy_rank_promotion("allow"):
        density = first.decode(jnp.asarray(Z)).log_prob(jnp.asarray(x))
    other = second.decode(torch.tensor(Z)).log_prob(torch.tensor(x))
    # torch's continuous Bernoulli is a Taylor series around a probability of 1/2
    tolerance = {"rtol": 1e-6} if likelihood == "continuous_bernoulli" else EXACT
    np.testing.assert_allclose(np.asarray(density), other.detach().numpy(), **tolerance)
    if likelihood != "continuous_bernoulli":
        agree(first.reconstruct(jnp.asarray(X)), second.reconstruct(torch.tensor(X)))


@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp", "rbm"])
def test_priors(prior):
    first, second = pair(prior)
    with jax.numpy_rank_promotion("allow"):
        agree(first.log_prior(jnp.asarray(Z)), second.log_prior(torch.tensor(Z)))


def test_conditional_models():
    first = numpyro_variational.CVAE(
        jax_network(SIZE + 3, 4), jax_network(LATENT + 3, SIZE), LATENT, prior=jax_network(3, 4), likelihood=0.7
    )
    second = pyro_variational.CVAE(
        TorchNetwork(SIZE + 3, 4), TorchNetwork(LATENT + 3, SIZE), LATENT, prior=TorchNetwork(3, 4), likelihood=0.7
    )
    arrays, tensors = ([make(value) for value in (X, CONDITION, Z)] for make in (jnp.asarray, torch.tensor))
    with jax.numpy_rank_promotion("allow"):
        agree(first.encode(*arrays[:2]).log_prob(arrays[2]), second.encode(*tensors[:2]).log_prob(tensors[2]))
        decoded = first.decode(arrays[2], arrays[1]), second.decode(tensors[2], tensors[1])
        agree(decoded[0].log_prob(arrays[0]), decoded[1].log_prob(tensors[0]))
        agree(first.log_prior(arrays[2], arrays[1]), second.log_prior(tensors[2], tensors[1]))
