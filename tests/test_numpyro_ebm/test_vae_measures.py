"""What a bound is made of, draws of the posterior and pictures, in NumPyro."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import HMC, MCMC, NUTS  # noqa: E402
from scipy import integrate, stats  # noqa: E402

from numpyro_ebm import (  # noqa: E402
    GaussianBernoulliRBM,
)
from numpyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    EnergyPrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)
from test_numpyro_ebm.vae_models import (  # noqa: E402
    CONSTANT,
    EXACT,
    KEY,
    KL,
    LOG_LIKELIHOOD,
    NOISE,
    X,
    affine,
    linear,
)

pytestmark = pytest.mark.numpyro


@pytest.mark.slow
def test_decomposition_sums_and_keeps_its_bounds():
    terms = elbo_decomposition(EXACT, X, 50, batch_size=16, rng_key=KEY)
    total = terms.reconstruction - terms.mutual_information - terms.marginal_kl
    np.testing.assert_allclose(terms.elbo, total, atol=1e-6)
    np.testing.assert_allclose(terms.elbo, LOG_LIKELIHOOD.mean(), atol=0.05)
    assert 0 < terms.mutual_information <= np.log(40)
    assert terms.marginal_kl > 0
    apart = elbo_decomposition(EXACT, 1000 * X[:5], rng_key=KEY)
    np.testing.assert_allclose(apart.mutual_information, np.log(5), rtol=1e-10)
    constant = elbo_decomposition(CONSTANT, jnp.ones((5, 3)), rng_key=KEY)
    np.testing.assert_allclose(constant.mutual_information, 0, atol=1e-10)
    np.testing.assert_allclose(constant.marginal_kl, KL.sum(), rtol=1e-10)


def test_decomposition_against_quadrature():
    """Two data in one dimension: the mutual information as an integral."""
    vae = VAE(lambda x: jnp.stack([x[0], jnp.log(0.8)]), lambda z: z, 1, likelihood=0.5)
    parts = [stats.norm(-0.7, 0.8), stats.norm(0.9, 0.8)]
    mixture = lambda z: 0.5 * (parts[0].pdf(z) + parts[1].pdf(z))
    integrand = lambda z: sum(0.5 * part.pdf(z) * np.log(part.pdf(z) / mixture(z)) for part in parts)
    expected = integrate.quad(integrand, -8, 8)[0]
    marginal = integrate.quad(lambda z: mixture(z) * np.log(mixture(z) / stats.norm.pdf(z)), -8, 8)[0]
    terms = elbo_decomposition(vae, jnp.array([[-0.7], [0.9]]), 20_000, rng_key=KEY)
    np.testing.assert_allclose(terms.mutual_information, expected, atol=0.01)
    np.testing.assert_allclose(terms.marginal_kl, marginal, atol=0.01)


def test_importance_weighted_log_likelihood():
    """Exact without variance at the exact posterior; close to it from a wrong encoder, and above the ELBO."""
    got = importance_weighted_log_likelihood(EXACT, X, 3, batch_size=16, rng_key=KEY)
    np.testing.assert_allclose(got, LOG_LIKELIHOOD, rtol=1e-9)
    wrong = jax.tree_util.Partial(
        affine, EXACT.encoder.args[0], EXACT.encoder.args[1] + jnp.array([0, 0.1, 0.3, 0, 0.3])
    )
    vae = VAE(wrong, EXACT.decoder, 2, likelihood=NOISE, covariance="full")
    got = importance_weighted_log_likelihood(vae, X, 2000, rng_key=KEY)
    np.testing.assert_allclose(got, LOG_LIKELIHOOD, atol=0.15)
    np.testing.assert_allclose(got.mean(), LOG_LIKELIHOOD.mean(), atol=0.01)
    assert elbo_decomposition(vae, X, 100, rng_key=KEY).elbo < got.mean() - 0.05


def test_active_units():
    encoder = lambda x: jnp.stack([x[0], 0.09 * x[0], 0.0, 0.0, 0.0, 0.0])
    vae = VAE(encoder, lambda z: z[:1], 3, likelihood=0.5)
    data = jnp.array([[1.0], [-1.0]])
    np.testing.assert_array_equal(active_units(vae, data), [True, False, False])
    np.testing.assert_array_equal(active_units(vae, data, threshold=0.008), [True, True, False])


# ------------------------------------------------------------------ the posterior
def wrong_encoder(covariance):
    """A model with the decoder of the exact one, and an encoder that misses mean and covariance."""
    gain, offset = (array[..., :2] for array in EXACT.encoder.args)
    scales = jnp.zeros(2 if covariance == "diagonal" else 3)
    weights = jnp.concatenate([gain, jnp.zeros((4, len(scales)))], 1)
    encoder = jax.tree_util.Partial(affine, weights, jnp.concatenate([offset + 0.4, scales]))
    return VAE(encoder, EXACT.decoder, 2, likelihood=NOISE, covariance=covariance)


def kl_divergence(q, p):
    """Of two multivariate normal distributions, by the host."""
    full = [
        part
        if isinstance(part, dist.MultivariateNormal)
        else dist.MultivariateNormal(part.mean, jax.vmap(jnp.diag)(part.variance))
        for part in (q, p)
    ]
    return np.asarray(dist.kl_divergence(*full))


@pytest.mark.slow
@pytest.mark.parametrize("covariance", [pytest.param("diagonal", marks=pytest.mark.slow), "full"])
def test_inference_gaps_against_closed_forms(covariance):
    """KL(encoder | posterior) is the sum of both gaps, and that of the best diagonal normal is the second."""
    vae, x = wrong_encoder(covariance), jnp.asarray(X[:10])
    posterior = EXACT.encode(x)
    with jax.numpy_rank_promotion("allow"):  # NumPyro's draws promote
        draws = posterior.sample(KEY, (40_000,))
    gap = inference_gap(vae, x, draws, 20_000, batch_size=3, rng_key=KEY)
    np.testing.assert_allclose(gap.log_likelihood, LOG_LIKELIHOOD[:10], atol=1e-3)
    precision = jnp.diagonal(jnp.linalg.inv(posterior.covariance_matrix), axis1=-2, axis2=-1)
    best = dist.Normal(posterior.loc, 1 / jnp.sqrt(precision)).to_event(1)
    second = kl_divergence(best, posterior) if covariance == "diagonal" else np.zeros(10)
    total = kl_divergence(vae.encode(x), posterior)
    assert total.min() > 0.2
    np.testing.assert_allclose(gap.approximation, second, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(gap.amortization, total - second, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "sampler", ["refine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("HMC", "NUTS"))]
)
def test_draws_of_the_posterior_from_the_encoders_proposal(sampler):
    """Mean and variance of the exact posterior, whose encoder is wrong; then what that encoder loses."""
    vae, x = wrong_encoder("diagonal"), jnp.asarray(X[:3])
    posterior = EXACT.encode(x)
    if sampler == "refine":
        draws, accept_prob = refine_posterior(vae, x, 200, 0.5, 4000, rng_key=KEY)
        assert accept_prob.shape == (4000, 3)
        assert 0.3 < accept_prob.mean() < 0.95
    else:
        kernel = HMC(vae.model, trajectory_length=1.5) if sampler == "HMC" else NUTS(vae.model)
        mcmc = MCMC(kernel, num_warmup=300, num_samples=3000, progress_bar=False)
        mcmc.run(KEY, x, init_params={"z": vae.encode(x).sample(KEY)})
        draws = mcmc.get_samples()["z"]
    count = len(draws) / (1 if sampler == "refine" else 4)
    error = 4.5 * np.sqrt(posterior.variance / count)
    assert (np.abs(draws.mean(0) - posterior.mean) < error).all()
    np.testing.assert_allclose(draws.var(0), posterior.variance, rtol=4.5 * np.sqrt(2 / count))
    gap = inference_gap(vae, x, draws, 100_000, rng_key=KEY)
    np.testing.assert_allclose(gap.log_likelihood - gap.elbo, kl_divergence(vae.encode(x), posterior), rtol=0.05)


def test_refinement_of_a_conditional_model_under_an_energy_prior():
    """No normaliser is needed; the posterior is that on a grid."""
    rbm = GaussianBernoulliRBM(jnp.array([[1.5, -1.0], [0.5, 2.0]]), log_partition=None)
    cvae = CVAE(linear(3, 4), linear(3, 2), 2, likelihood=0.7, prior=EnergyPrior(lambda: rbm))
    x, condition = jnp.array([[0.3, -1.0], [1.0, 2.0]]), jnp.array([[0.5], [-1.0]])
    refined = refine_posterior(cvae, (x, condition), 300, 0.5, 4000, rng_key=KEY)
    grid = np.linspace(-8, 8, 161)
    z = jnp.asarray(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2))
    for index in range(2):
        given = jnp.broadcast_to(condition[index], (len(z), 1))
        data = jnp.broadcast_to(x[index], (len(z), 2))
        weights = jax.nn.softmax(cvae.decode(z, given).log_prob(data) - rbm.energy(z))
        mean = weights @ z
        error = 4.5 * np.sqrt((weights @ z**2 - mean**2) / 1000)
        assert (np.abs(refined.latent[:, index].mean(0) - mean) < error).all()


@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_show_the_decodings(conditional):
    """The pixels are those of the data and of the decoder's means."""
    if conditional:
        vae, condition = CVAE(linear(5, 4), linear(3, 4), 2, likelihood=0.5), jnp.array([[0.3], [1.0], [2.0]])
    else:
        vae, condition = VAE(linear(4, 4), linear(2, 4), 2, likelihood=0.5), None
    x = jnp.asarray(X[:3])
    data, given = ((x, condition), (condition,)) if conditional else (x, ())
    picture = plot_reconstructions(vae, data, (1, 4), num_draws=2, rng_key=KEY).get_images()[0].get_array()
    assert picture.shape == (4 * 2, 3 * 5)
    np.testing.assert_allclose(picture[0].reshape(3, 5)[:, :4], x)
    np.testing.assert_allclose(picture[2].reshape(3, 5)[:, :4], vae.reconstruct(x, *given), rtol=1e-6)
    options = {"start": [0.5, -0.5], "condition": condition[0] if conditional else None, "span": 2.0, "num_points": 3}
    axes = plot_traversal(vae, (1, 4), **options)
    picture = axes.get_images()[0].get_array()
    z = jnp.array([[[-1.5, -0.5], [0.5, -0.5], [2.5, -0.5]], [[0.5, -2.5], [0.5, -0.5], [0.5, 1.5]]])
    given = (jnp.broadcast_to(condition[:1], (3, 1)),) if conditional else ()
    np.testing.assert_allclose(picture[::2].reshape(2, 3, 5)[..., :4], vae.decode(z, *given).mean, rtol=1e-6)
    if not conditional:
        shown = plot_latent(vae, x, labels=[0, 1, 2], num_draws=7, rng_key=KEY).collections
        assert [len(dots.get_offsets()) for dots in shown] == [7, 3]
