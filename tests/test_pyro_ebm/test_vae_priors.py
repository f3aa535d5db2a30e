"""Priors of Pyro autoencoders against enumeration."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import (  # noqa: E402
    Trace_ELBO,
)

from pyro_ebm import (  # noqa: E402
    GaussianBernoulliRBM,
    IntractablePartitionError,
    NeuralEnergy,
    infer,
)
from pyro_ebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence  # noqa: E402
from pyro_ebm.variational import (  # noqa: E402
    EnergyPrior,
    MixturePrior,
    VampPrior,
    elbo_decomposition,
    importance_weighted_log_likelihood,
)
from test_pyro_ebm.vae_models import (  # noqa: E402
    COUNT,
    DOUBLE,
    LATENT,
    SIZE,
    draw,
    make,
    train,
)

pytestmark = pytest.mark.pyro


def test_a_mixture_prior_by_hand():
    prior = MixturePrior(3, LATENT).double()
    with torch.no_grad():
        prior.logits.copy_(draw(3))
        prior.log_scale.copy_(draw(3, LATENT))
    z = draw(7, LATENT)
    terms = dist.Normal(prior.loc, prior.log_scale.exp()).log_prob(z[:, None]).sum(-1)
    expected = torch.logsumexp(terms + torch.log_softmax(prior.logits, 0), -1)
    torch.testing.assert_close(make(prior=prior).log_prior(z), expected)


def test_a_vamp_prior_is_the_aggregated_posterior_at_its_inputs():
    data = torch.rand(COUNT, SIZE, dtype=DOUBLE)
    prior = VampPrior(data, constraint=dist.constraints.unit_interval)
    vae = make(prior=prior)
    z = draw(7, LATENT)
    expected = torch.logsumexp(vae.encode(data).log_prob(z[:, None]), -1) - math.log(COUNT)
    torch.testing.assert_close(vae.log_prior(z), expected)
    terms = elbo_decomposition(vae, data, 50)
    assert abs(terms.marginal_kl) < 1e-6  # its estimate is log q(z) - log p(z) at each draw
    before = prior.pseudo_inputs.detach().clone()
    train(vae, data, num_steps=2)
    after = prior.pseudo_inputs.detach()
    assert (after != before).all()
    assert ((after > 0) & (after < 1)).all()


def rbm_model(log_partition="auto", **parameters):
    prior = EnergyPrior(GaussianBernoulliRBM(**parameters, log_partition=log_partition))
    return make(prior=prior), prior


def test_the_elbos_gradient_in_an_rbm_prior_is_the_enumerated_one():
    weights, bias = draw(LATENT, 3), draw(3)
    vae, prior = rbm_model(weights=weights, hidden_bias=bias)
    x = draw(COUNT, SIZE)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    got = torch.autograd.grad(loss, [prior.weights, prior.hidden_bias])
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    leaves = [weights.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = torch.autograd.grad(-_mixture_of_states(z, *leaves).sum(), leaves)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def _mixture_of_states(z, weights, bias):
    """log p(z) of a Gaussian-Bernoulli RBM with unit scales: normal variables around every state's mean."""
    states = torch.tensor([[i >> k & 1 for k in range(3)] for i in range(8)], dtype=DOUBLE)
    means = states @ weights.T
    log_weights = torch.log_softmax(states @ bias + 0.5 * (means**2).sum(-1), 0)
    return torch.logsumexp(dist.Normal(means, 1.0).log_prob(z[:, None]).sum(-1) + log_weights, -1)


def test_an_unknown_partition_function_raises():
    vae, _ = rbm_model(weights=draw(LATENT, 3), log_partition=None)
    x = draw(COUNT, SIZE)
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        train(vae, x, num_steps=1)
    for function in (elbo_decomposition, importance_weighted_log_likelihood):
        with pytest.raises(IntractablePartitionError):
            function(vae, x, 2)
    pyro.clear_param_store()
    constant, _ = rbm_model(weights=draw(LATENT, 3), log_partition=3.0)
    with pytest.raises(IntractablePartitionError):
        train(constant, x, num_steps=1)


def test_a_contrastive_prior_has_the_criterions_gradient():
    """Values are -F(z); gradients in z are the density's, those in the parameters contrastive divergence's."""
    rbm = GaussianBernoulliRBM(draw(LATENT, 3), visible_bias=draw(LATENT), hidden_bias=draw(3), log_partition=None)
    prior = EnergyPrior(rbm, criterion=lambda base: ContrastiveDivergence(base, num_steps=3))
    z = draw(COUNT, LATENT).requires_grad_()
    pyro.set_rng_seed(2)
    log_prob = prior.site().log_prob(z)
    torch.testing.assert_close(log_prob, -rbm.energy(z))
    leaves = [z, prior.weights, prior.hidden_bias]
    got = torch.autograd.grad(log_prob.sum(), leaves)
    pyro.set_rng_seed(2)
    criterion = ContrastiveDivergence(prior.distribution(), num_steps=3).log_prob(z.detach())
    expected = [rbm.score(z.detach()), *torch.autograd.grad(criterion.sum(), leaves[1:])]
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("CD", 1.0),
        pytest.param("CD", 0.5, marks=pytest.mark.slow),
        pytest.param("PCD", 1.0, marks=pytest.mark.slow),
        ("PCD", 0.5),
    ],
)
def test_long_contrastive_chains_give_the_enumerated_gradient(kind, weight):
    """Negative samples from long chains: the ELBO's gradient, within Monte Carlo error."""
    count = 20_000
    weights, bias = draw(LATENT, 3), draw(3)
    rbm = GaussianBernoulliRBM(weights, hidden_bias=bias)
    chains = rbm.sample((count,))
    criteria = {
        "CD": lambda base: ContrastiveDivergence(base, num_steps=30),
        "PCD": lambda base: PersistentContrastiveDivergence(base, chains, num_steps=5),
    }
    prior = EnergyPrior(rbm.replace(log_partition=None), criterion=criteria[kind])
    vae, x = make(prior=prior, kl_weight=weight), draw(count, SIZE)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x) / count
    got = torch.autograd.grad(loss, [prior.weights, prior.hidden_bias])
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    leaves = [weights.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = torch.autograd.grad(-weight * _mixture_of_states(z, *leaves).mean(), leaves)
    draws = rbm.sample((count,))
    hidden = torch.sigmoid(bias + draws @ weights)
    spreads = (draws[..., None] * hidden[:, None]).std(0), hidden.std(0)
    for mine, theirs, spread in zip(got, expected, spreads, strict=True):
        error = weight * spread / math.sqrt(count)
        assert ((mine - theirs).abs() < 4.5 * error).all()
        assert (theirs.abs() > 20 * 4.5 * error).any()
    assert np.isfinite(train(vae, x, num_steps=2)).all()
    with pytest.raises(IntractablePartitionError):
        elbo_decomposition(vae, x[:10])


def test_a_fixed_unnormalised_prior_trains_the_networks():
    rbm = GaussianBernoulliRBM(draw(LATENT, 3), log_partition=None)
    vae = make(prior=EnergyPrior(lambda: rbm))
    assert np.isfinite(train(vae, draw(COUNT, SIZE), num_steps=3)).all()
    assert not list(vae.prior.parameters())


class Quadratic(torch.nn.Module):
    """The energy of a normal variable, whose partition function is known."""

    def __init__(self):
        super().__init__()
        self.precision = torch.nn.Parameter(torch.tensor(2.0, dtype=DOUBLE))

    def forward(self, z):
        return 0.5 * self.precision * (z**2).sum(-1)


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_network_prior_with_an_estimator(as_function, weight):
    """The ELBO's gradient in the precision a: N d/da [log Z] + E z^2 / 2, with log Z = -log(a) + const here."""
    network, estimator = Quadratic(), infer.AnnealedImportanceSampling(num_chains=400, num_temperatures=100)
    energy = lambda: NeuralEnergy(network, (LATENT,), log_partition=estimator)
    vae = make(prior=EnergyPrior(energy if as_function else energy()), kl_weight=weight)
    x = draw(COUNT, SIZE)
    assert any(parameter is network.precision for parameter in vae.parameters())
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    (got,) = torch.autograd.grad(loss, [network.precision])
    expected = weight * (0.5 * (z**2).sum() - COUNT * LATENT / 2 / 2.0)
    assert abs(got - expected) < 4 * COUNT * 0.5 / math.sqrt(300)  # where the normaliser contributes 60 or 30
    train(vae, x, num_steps=1, lr=0.01)
    assert network.precision != 2.0
