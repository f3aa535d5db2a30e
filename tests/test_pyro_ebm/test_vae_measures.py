"""What a bound is made of, draws of the posterior and pictures, in Pyro."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro.infer import (  # noqa: E402
    HMC,
    MCMC,
)

from pyro_ebm import (  # noqa: E402
    GaussianBernoulliRBM,
    infer,
)
from pyro_ebm.variational import (  # noqa: E402
    VAE,
    EnergyPrior,
    MixturePrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)
from pyro_ebm.variational import normal as normals  # noqa: E402
from test_pyro_ebm.vae_models import (  # noqa: E402
    COUNT,
    DOUBLE,
    LATENT,
    SIZE,
    draw,
    exact_linear,
    linear,
    make,
    make_conditional,
    marginal,
    parts,
    set_exact_encoder,
    single_loss,
)

pytestmark = pytest.mark.pyro


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("kind", ["standard", "mixture", "rbm"])
def test_the_decomposition_sums_and_keeps_its_bounds(kind, covariance):
    prior = {
        "standard": "standard",
        "mixture": MixturePrior(3, LATENT).double(),
        "rbm": EnergyPrior(GaussianBernoulliRBM(draw(LATENT, 3))),
    }[kind]
    vae, data = make(normals.output_size(LATENT, covariance), covariance=covariance, prior=prior), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight.mul_(3)
    terms = elbo_decomposition(vae, data, num_samples=100, batch_size=17)
    total = terms.reconstruction - terms.mutual_information - terms.marginal_kl
    assert abs(total - terms.elbo) < 1e-6
    assert -0.05 < terms.mutual_information <= math.log(COUNT)
    assert terms.marginal_kl > -0.05
    with torch.no_grad():
        z = vae.encode(data).sample((2000,))
        reference = sum(sign * part for sign, part in zip((1, 1, -1), parts(vae, data, z), strict=True)).mean()
    assert abs(terms.elbo - reference) < 0.05 * abs(reference)


def test_mutual_information_at_both_ends():
    """No information where the encoder ignores its input; log N where posteriors are far apart."""
    vae, data = make(), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight.zero_()
        vae.encoder.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    terms = elbo_decomposition(vae, data, num_samples=2000)
    assert abs(terms.mutual_information) < 0.02
    assert abs(terms.marginal_kl - 0.5) < 0.02
    with torch.no_grad():
        vae.encoder.weight[:LATENT].copy_(1e3 * torch.eye(LATENT, SIZE))
    terms = elbo_decomposition(vae, data, num_samples=2000)
    assert abs(terms.mutual_information - math.log(COUNT)) < 0.02


def test_importance_weighting_against_the_exact_likelihood():
    data = draw(COUNT, SIZE)
    vae = exact_linear()
    exact = marginal(vae.decoder, 0.7).log_prob(data)
    got = importance_weighted_log_likelihood(vae, data, 3, batch_size=17)
    torch.testing.assert_close(got, exact)  # without variance where the encoder is exact
    with torch.no_grad():
        vae.encoder.bias[:LATENT] += 0.3
    loose, tight = (importance_weighted_log_likelihood(vae, data, count) for count in (1, 5000))
    assert loose.mean() < exact.mean() - 0.05
    torch.testing.assert_close(tight, exact, rtol=0, atol=0.05)


def test_the_elbo_of_exact_inference_is_the_likelihood():
    vae, data = exact_linear(), draw(COUNT, SIZE)
    exact = marginal(vae.decoder, 0.7).log_prob(data)
    np.testing.assert_allclose(-single_loss(vae, data)[0], exact.sum().item())


def test_active_units_are_those_that_vary():
    vae, data = make(), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight[1] = 0
    assert active_units(vae, data).tolist() == [True, False]
    variance = vae.encode(data).mean[:, 0].var(correction=0).item()
    assert active_units(vae, data, threshold=1.01 * variance).sum() == 0
    assert active_units(vae, data, threshold=0.99 * variance).sum() == 1


# ---------------------------------------------------------------------- the posterior


def wrong_encoder(covariance):
    """The exact linear model of a correlated posterior, and one with its decoder whose encoder misses both moments."""
    exact = exact_linear()
    with torch.no_grad():
        exact.decoder.weight[:, 1] = 0.8 * exact.decoder.weight[:, 0] + 0.4 * exact.decoder.weight[:, 1]
    set_exact_encoder(exact, 0.7)
    encoder = linear(SIZE, normals.output_size(LATENT, covariance))
    vae = VAE(encoder, exact.decoder, LATENT, likelihood=0.7, covariance=covariance)
    with torch.no_grad():
        encoder.weight.zero_()[:LATENT] = exact.encoder.weight[:LATENT]
        encoder.bias.zero_()[:LATENT] = exact.encoder.bias[:LATENT] + 0.4
    return vae, exact


@pytest.mark.parametrize("covariance", [pytest.param("diagonal", marks=pytest.mark.slow), "full"])
def test_inference_gaps_against_closed_forms(covariance):
    """KL(encoder | posterior) is the sum of both gaps, and that of the best diagonal normal is the second."""
    vae, exact = wrong_encoder(covariance)
    x = draw(10, SIZE)
    posterior = exact.encode(x)
    gap = inference_gap(vae, x, posterior.sample((40_000,)), 20_000, batch_size=3)
    log_likelihood = marginal(vae.decoder, 0.7).log_prob(x)
    torch.testing.assert_close(gap.log_likelihood, log_likelihood, rtol=0, atol=1e-3)
    precision = torch.linalg.inv(posterior.covariance_matrix).diagonal(dim1=-2, dim2=-1)
    best = dist.Normal(posterior.mean, precision.rsqrt()).to_event(1)
    second = normals.kl_divergence(best, posterior) if covariance == "diagonal" else torch.zeros(10, dtype=DOUBLE)
    total = normals.kl_divergence(vae.encode(x), posterior)
    assert total.min() > 0.2
    torch.testing.assert_close(gap.approximation, second.detach(), rtol=0.05, atol=0.02)
    torch.testing.assert_close(gap.amortization, (total - second).detach(), rtol=0.05, atol=0.03)


@pytest.mark.parametrize(
    "sampler",
    ["refine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("HMC", "batched NUTS"))],
)
def test_draws_of_the_posterior_from_the_encoders_proposal(sampler):
    """Mean and variance of the exact posterior, whose encoder is wrong; then what that encoder loses."""
    vae, exact = wrong_encoder("diagonal")
    x = draw(3, SIZE)
    posterior = exact.encode(x)
    if sampler == "refine":
        draws, accept_prob = refine_posterior(vae, x, 200, 0.8, 4000)
        assert accept_prob.shape == (4000, 3)
        assert 0.3 < accept_prob.mean() < 0.95
    elif sampler == "batched NUTS":
        mcmc = infer.BatchedMCMC(infer.NUTS(vae.model), 1000, 200, num_chains=4, disable_progbar=True)
        mcmc.run(x)
        draws = mcmc.get_samples()["z"]
    else:
        kernel = HMC(vae.model, trajectory_length=1.5)
        mcmc = MCMC(kernel, 2000, 200, initial_params={"z": vae.encode(x).sample()}, disable_progbar=True)
        mcmc.run(x)
        draws = mcmc.get_samples()["z"]
    count = len(draws) / (1 if sampler == "refine" else 4)
    spread = posterior.variance.sqrt()
    assert ((draws.mean(0) - posterior.mean).abs() < 4.5 * spread / math.sqrt(count)).all()
    torch.testing.assert_close(draws.var(0), posterior.variance.detach(), rtol=4.5 * math.sqrt(2 / count), atol=0)
    gap = inference_gap(vae, x, draws, 100_000)
    total = normals.kl_divergence(vae.encode(x), posterior).detach()
    torch.testing.assert_close(gap.log_likelihood - gap.elbo, total, rtol=0.05, atol=0.05)


def test_refinement_of_a_conditional_model_under_an_energy_prior():
    """No normaliser is needed; the posterior is that on a grid."""
    rbm = GaussianBernoulliRBM(draw(LATENT, 2), log_partition=None)
    cvae = make_conditional(prior=EnergyPrior(lambda: rbm))
    x, condition = draw(2, SIZE), draw(2, 3)
    refined = refine_posterior(cvae, (x, condition), 300, 0.5, 4000)
    grid = torch.linspace(-8, 8, 161, dtype=DOUBLE)
    z = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        rows = zip(x, condition, strict=True)
        logs = [cvae.decode(z[:, None], c[None]).log_prob(row[None])[:, 0] - rbm.energy(z) for row, c in rows]
    weights = torch.softmax(torch.stack(logs), -1)
    mean, square = weights @ z, weights @ z**2
    assert ((refined.latent.mean(0) - mean).abs() < 4.5 * ((square - mean**2) / 1000).sqrt()).all()


@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_show_the_decodings(conditional):
    """The pixels are those of the data and of the decoder's means."""
    vae = make_conditional() if conditional else make()
    x, condition = draw(4, SIZE), draw(4, 3)
    arguments = (condition,) if conditional else ()
    data = (x, condition) if conditional else x
    picture = plot_reconstructions(vae, data, (1, SIZE), num_draws=2).get_images()[0].get_array()
    assert picture.shape == (4 * 2, 4 * (SIZE + 1))
    np.testing.assert_allclose(picture[0].reshape(4, SIZE + 1)[:, :SIZE], x)
    reconstructed = vae.reconstruct(x, *arguments).detach()
    np.testing.assert_allclose(picture[2].reshape(4, SIZE + 1)[:, :SIZE], reconstructed, rtol=1e-6)
    options = {"start": [0.5, -0.5], "condition": condition[0] if conditional else None, "span": 2.0, "num_points": 3}
    axes = plot_traversal(vae, (1, SIZE), **options)
    picture = axes.get_images()[0].get_array()
    z = torch.tensor([[[-1.5, -0.5], [0.5, -0.5], [2.5, -0.5]], [[0.5, -2.5], [0.5, -0.5], [0.5, 1.5]]], dtype=DOUBLE)
    given = (condition[:1].expand(3, 3),) if conditional else ()
    expected = vae.decode(z, *given).mean.detach()
    np.testing.assert_allclose(picture[::2].reshape(2, 3, SIZE + 1)[..., :SIZE], expected, rtol=1e-6)
    if not conditional:
        shown = plot_latent(vae, x, labels=[0, 1, 2, 3], num_draws=7).collections
        assert [len(dots.get_offsets()) for dots in shown] == [7, 4]
