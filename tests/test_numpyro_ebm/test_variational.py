"""Variational autoencoders of NumPyro against closed forms: PPCA, KLs, enumeration, exact conditionals."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide  # noqa: E402
from scipy import integrate, stats  # noqa: E402

from numpyro_ebm import (  # noqa: E402
    BernoulliRBM,
    EnergyDistribution,
    GaussianBernoulliRBM,
    IntractablePartitionError,
    NeuralEnergy,
    infer,
)
from numpyro_ebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence  # noqa: E402
from numpyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    AmortizedGuide,
    EnergyPrior,
    MixturePrior,
    NormalPrior,
    VampPrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    likelihoods,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)

pytestmark = pytest.mark.numpyro

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def affine(weights, bias, *inputs):
    return jnp.concatenate(inputs) @ weights + bias


def linear(num_in, num_out, scale=0.3, bias=None):
    bias = np.zeros(num_out) if bias is None else bias
    weights = scale * np.random.default_rng(num_in + 10 * num_out).normal(size=(num_in, num_out))
    return jax.tree_util.Partial(affine, jnp.asarray(weights), jnp.asarray(bias, float))


def exact_vae(weights, mean, noise, **options):
    """The linear Gaussian model with its exact posterior as a full encoder."""
    posterior_cov = np.linalg.inv(np.eye(weights.shape[1]) + weights.T @ weights / noise**2)
    factor = np.linalg.cholesky(posterior_cov)
    np.fill_diagonal(factor, np.log(np.diag(factor)))
    size = weights.shape[1]
    gain = posterior_cov @ weights.T / noise**2
    entries = np.tile(factor[np.tril_indices(size)], 1)
    encoder_weights = np.concatenate([gain.T, np.zeros((len(mean), len(entries)))], 1)
    encoder_bias = np.concatenate([-gain @ mean, entries])
    encoder = jax.tree_util.Partial(affine, jnp.asarray(encoder_weights), jnp.asarray(encoder_bias))
    decoder = jax.tree_util.Partial(affine, jnp.asarray(weights.T), jnp.asarray(mean))
    return VAE(encoder, decoder, size, likelihood=noise, covariance="full", **options)


WEIGHTS = RNG.normal(size=(4, 2)) * [1.5, 0.7]
MEAN = np.array([0.5, -1.0, 0.0, 2.0])
NOISE = 0.6
X = RNG.multivariate_normal(MEAN, WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(4), 40)
LOG_LIKELIHOOD = stats.multivariate_normal(MEAN, WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(4)).logpdf(X)
EXACT = exact_vae(WEIGHTS, MEAN, NOISE)


def fit(model, guide, num_steps, *args, rate=0.05, **kwargs):
    schedule = lambda step: rate * 0.005 ** (step / num_steps)
    svi = SVI(model, guide, numpyro.optim.Adam(schedule), Trace_ELBO())
    return svi.run(KEY, num_steps, *args, progress_bar=False, **kwargs)


def loss(vae, *args, params=None, num_particles=1, **kwargs):
    objective = Trace_ELBO(num_particles=num_particles)
    return float(objective.loss(KEY, params or {}, vae.model, vae.guide, *args, **kwargs))


def site_value(vae, *args, key=KEY):
    """The draw that Trace_ELBO makes with its key."""
    seeded = handlers.seed(vae.guide, jax.random.split(key)[1])
    return handlers.trace(seeded).get_trace(*args)["z"]["value"]


# ------------------------------------------------------------------ the plain model


def test_linear_gaussian_vae_recovers_ppca():
    """Tipping & Bishop (1999): W W' + sigma^2 I from the eigenvectors; the ELBO is the exact log-likelihood."""
    vae = VAE(linear(4, 4), linear(2, 4, bias=X.mean(0)), 2, likelihood="normal")
    result = fit(vae.model, vae.guide, 4000, jnp.asarray(X))
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    variance = values[:2].mean()
    expected = vectors[:, 2:] @ np.diag(values[2:] - variance) @ vectors[:, 2:].T
    decoder = vae.with_parameters(result.params)
    loc = np.asarray(decoder.decode(jnp.eye(2)).mean - decoder.decode(jnp.zeros((1, 2))).mean)
    np.testing.assert_allclose(loc.T @ loc, expected, atol=5e-3 * values[-1])
    np.testing.assert_allclose(result.params["vae.scale"] ** 2, variance, rtol=5e-3)
    covariance = expected + variance * np.eye(4)
    best = stats.multivariate_normal(X.mean(0), covariance).logpdf(X).mean()
    elbo = -loss(vae, jnp.asarray(X), params=result.params, num_particles=50) / len(X)
    np.testing.assert_allclose(elbo, best, atol=1e-3)


def test_elbo_at_the_exact_posterior_is_the_log_likelihood_without_variance():
    np.testing.assert_allclose(-loss(EXACT, X), LOG_LIKELIHOOD.sum(), rtol=1e-10)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_kl_against_quadrature_or_host(covariance):
    """The closed forms against NumPyro's own and, in one dimension, an integral."""
    from numpyro_ebm.variational.normal import kl_of_full, kl_per_dimension

    loc, scale = jnp.array([[0.3, -1.0]]), jnp.array([[0.5, 2.0]])
    if covariance == "diagonal":
        got = kl_per_dimension(dist.Normal(loc, scale).to_event(1), loc + 1, 3 * scale)[0, 0]
        q, p = stats.norm(0.3, 0.5), stats.norm(1.3, 1.5)
        expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -6, 6)[0]
    else:
        posterior = dist.MultivariateNormal(loc, scale_tril=jnp.array([[0.5, 0.0], [0.7, 2.0]]))
        prior = dist.MultivariateNormal(loc + 1, scale_tril=jnp.diag(scale[0]))
        got, expected = kl_of_full(posterior, loc + 1, scale)[0], dist.kl_divergence(posterior, prior)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_factor_of_a_full_covariance_is_filled_row_by_row():
    vae = VAE(lambda x: jnp.array([1.0, 2.0, 0.0, 5.0, np.log(3.0)]), lambda z: z, 2, covariance="full", likelihood=1.0)
    posterior = vae.encode(jnp.zeros((1, 2)))
    np.testing.assert_allclose(posterior.loc[0], [1, 2])
    np.testing.assert_allclose(posterior.scale_tril[0], [[1, 0], [5, 3]])


CONSTANT = VAE(lambda x: jnp.array([0.5, -1.0, np.log(0.5), 0.0]), linear(2, 3), 2, likelihood=0.7)
KL = np.array([0.5 * (0.25 + 0.25 - 1) + np.log(2), 0.5])  # of N(0.5, 0.5) and N(-1, 1) from N(0, 1), by hand


def reconstruction(vae, x):
    z = site_value(vae, x)
    return float(vae.decode(z).log_prob(x).sum())


@pytest.mark.parametrize(
    ("kl_weight", "free_bits", "expected"),
    [
        (0.0, 0.0, 0.0),
        (0.3, 0.0, 0.3 * KL.sum()),
        (2.0, 0.0, 2 * KL.sum()),
        (1.0, 0.4, KL.sum()),
        (1.0, 0.47, 0.47 + 0.5),
        (0.5, 2.0, 0.5 * 4),
    ],
)
def test_kl_weight_and_free_bits_by_hand(kl_weight, free_bits, expected):
    """In closed form, whatever z is drawn: 5 data, each with the same KL of 0.4431 + 0.5 nats."""
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, kl_weight=kl_weight, free_bits=free_bits)
    x = jnp.ones((5, 3))
    np.testing.assert_allclose(loss(vae, x), 5 * expected - reconstruction(vae, x), rtol=1e-9)


def test_annealing_by_an_argument_may_be_traced():
    x = jnp.ones((5, 3))
    annealed = jax.jit(lambda weight: Trace_ELBO().loss(KEY, {}, CONSTANT.model, CONSTANT.guide, x, kl_weight=weight))
    for weight in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(annealed(weight), 5 * weight * KL.sum() - reconstruction(CONSTANT, x), rtol=1e-9)


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_kl_weight_is_monte_carlo_under_other_priors(kl_weight):
    prior = EnergyPrior(GaussianBernoulliRBM(jnp.ones((2, 1))))
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=prior, kl_weight=kl_weight)
    x = jnp.ones((5, 3))
    z = site_value(vae, x)
    kl = (vae.encode(x).log_prob(z) - vae.log_prior(z)).sum()
    np.testing.assert_allclose(loss(vae, x), kl_weight * kl - vae.decode(z).log_prob(x).sum(), rtol=1e-9)


def test_free_bits_charge_the_minibatch():
    """Kingma et al. (2016): each dimension's KL is averaged over the data before it is compared."""
    encoder = lambda x: jnp.concatenate([x[:2], jnp.zeros(2)])  # KL of dimension d: x_d^2 / 2
    vae = VAE(encoder, CONSTANT.decoder, 2, likelihood=0.7, free_bits=0.6, kl_weight=0.5)
    x = jnp.array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    penalty = max(0.6, (0 + 0.5 + 2) / 3) + max(0.6, 2 / 3)
    np.testing.assert_allclose(loss(vae, x), 3 * 0.5 * penalty - reconstruction(vae, x), rtol=1e-9)


def test_model_alone_is_the_generative_model_under_a_kl_weight():
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, kl_weight=0.1)
    x, z = jnp.ones((5, 3)), jnp.ones((5, 2))
    got = numpyro.infer.util.log_density(vae.model, (x,), {}, {"z": z})[0]
    expected = stats.norm.logpdf(1) * 10 + vae.decode(z).log_prob(x).sum()
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_minibatches_scale_to_all_data():
    """The mean over all minibatches of one datum, drawn by the plate or given, is the loss of all data."""
    x = jnp.asarray(X[:6])
    given = np.array([loss(EXACT, row[None], size=6) for row in x])  # the guide is exact: no variance
    np.testing.assert_allclose(given, -6 * LOG_LIKELIHOOD[:6], rtol=1e-10)
    objective = jax.jit(lambda key: Trace_ELBO().loss(key, {}, EXACT.model, EXACT.guide, x, subsample_size=1))
    drawn = np.array([float(objective(jax.random.key(i))) for i in range(8)])
    assert all(np.isclose(value, given, rtol=1e-10).any() for value in drawn)
    assert len(np.unique(drawn.round(8))) > 2


def test_the_kl_penalty_scales_with_minibatches():
    x = jnp.ones((2, 3))
    low, high = (loss(CONSTANT, x, size=10, kl_weight=weight) for weight in (0.1, 0.5))
    np.testing.assert_allclose(high - low, 10 * 0.4 * KL.sum(), rtol=1e-9)


def test_subsampling_trains_and_predictive_draws():
    vae = VAE(linear(4, 4), linear(2, 4), 2)
    binary = jnp.asarray((X > MEAN).astype(float))
    result = fit(vae.model, vae.guide, 200, binary, subsample_size=10)
    assert np.isfinite(result.losses).all()
    learned = vae.with_parameters(result.params)
    assert loss(vae, binary, params=result.params, num_particles=20) < loss(vae, binary, num_particles=20)
    assert learned.reconstruct(binary).shape == (40, 4)
    assert learned.sample((7,), rng_key=KEY).shape == (7, 4)
    prior = Predictive(vae.model, params=result.params, num_samples=3)(KEY, None, size=5)
    assert prior["x"].shape == (3, 5, 4)
    posterior = Predictive(vae.guide, params=result.params, num_samples=2000)(KEY, binary)["z"]
    np.testing.assert_allclose(posterior.mean(0), learned.encode(binary).mean, atol=0.15)
    with handlers.substitute(data=result.params):
        np.testing.assert_allclose(vae.reconstruct(binary), learned.reconstruct(binary))


def wrong_encoder(covariance):
    """A model with the decoder of the exact one, and an encoder that misses mean and covariance."""
    gain, offset = (array[..., :2] for array in EXACT.encoder.args)
    scales = jnp.zeros(2 if covariance == "diagonal" else 3)
    weights = jnp.concatenate([gain, jnp.zeros((4, len(scales)))], 1)
    encoder = jax.tree_util.Partial(affine, weights, jnp.concatenate([offset + 0.4, scales]))
    return VAE(encoder, EXACT.decoder, 2, likelihood=NOISE, covariance=covariance)


def divergence(q, p):
    """Of two multivariate normal distributions, by the host."""
    full = [
        part
        if isinstance(part, dist.MultivariateNormal)
        else dist.MultivariateNormal(part.mean, jax.vmap(jnp.diag)(part.variance))
        for part in (q, p)
    ]
    return np.asarray(dist.kl_divergence(*full))


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
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
    second = divergence(best, posterior) if covariance == "diagonal" else np.zeros(10)
    total = divergence(vae.encode(x), posterior)
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
    np.testing.assert_allclose(gap.log_likelihood - gap.elbo, divergence(vae.encode(x), posterior), rtol=0.05)


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
    picture = plot_reconstructions(vae, data, (1, 4), 2, rng_key=KEY).get_images()[0].get_array()
    assert picture.shape == (4 * 2, 3 * 5)
    np.testing.assert_allclose(picture[0].reshape(3, 5)[:, :4], x)
    np.testing.assert_allclose(picture[2].reshape(3, 5)[:, :4], vae.reconstruct(x, *given), rtol=1e-6)
    axes = plot_traversal(vae, (1, 4), [0.5, -0.5], condition[0] if conditional else None, 2.0, 3)
    picture = axes.get_images()[0].get_array()
    z = jnp.array([[[-1.5, -0.5], [0.5, -0.5], [2.5, -0.5]], [[0.5, -2.5], [0.5, -0.5], [0.5, 1.5]]])
    given = (jnp.broadcast_to(condition[:1], (3, 1)),) if conditional else ()
    np.testing.assert_allclose(picture[::2].reshape(2, 3, 5)[..., :4], vae.decode(z, *given).mean, rtol=1e-6)
    if not conditional:
        shown = plot_latent(vae, x, labels=[0, 1, 2], num_draws=7, rng_key=KEY).collections
        assert [len(dots.get_offsets()) for dots in shown] == [7, 3]


# ------------------------------------------------------------------ likelihoods


def test_continuous_bernoulli_integrates_to_one():
    for logit in (-30.0, -2.0, -0.1, 1e-6, 0.3, 5.0, 60.0):
        density = likelihoods.ContinuousBernoulliDistribution(jnp.array(logit))
        nodes, weights = np.polynomial.legendre.leggauss(80)
        x = 0.5 * (nodes + 1)
        mass = 0.5 * weights * np.exp(density.log_prob(jnp.asarray(x)))
        np.testing.assert_allclose(mass.sum(), 1, rtol=1e-9)
        np.testing.assert_allclose(density.mean, mass @ x, rtol=1e-8)
        np.testing.assert_allclose(density.variance, mass @ (x - mass @ x) ** 2, rtol=1e-5)
        draws = density.sample(KEY, (20_000,))
        np.testing.assert_allclose(draws.mean(), density.mean, atol=5 * np.sqrt(density.variance / 20_000))
    gradient = jax.grad(lambda e: likelihoods.ContinuousBernoulliDistribution(e).log_prob(0.25))
    np.testing.assert_allclose(gradient(0.0), -0.25, atol=1e-12)


def test_likelihoods_of_the_decoder():
    z = jnp.zeros((2, 1))
    pair = VAE(linear(3, 2), lambda z: (jnp.zeros(3), jnp.full(3, np.log(2.0))), 1, likelihood="normal").decode(z)
    np.testing.assert_allclose(pair.variance, np.full((2, 3), 4.0))
    custom = VAE(linear(3, 2), lambda z: jnp.zeros((2, 3)), 1, likelihood=lambda raw: dist.Poisson(jnp.exp(raw)))
    assert custom.decode(z).batch_shape == (2,)
    assert custom.decode(z).event_shape == (2, 3)
    assert custom.decode(jnp.zeros((4, 2, 1))).batch_shape == (4, 2)


# ------------------------------------------------------------------ measures


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


# ------------------------------------------------------------------ the conditional model


@pytest.mark.slow
def test_cvae_recovers_an_exact_conditional():
    """x = A c + b z + noise with a learned prior p(z | c): E and variance of x given c are the regression's."""
    rng = np.random.default_rng(1)
    c = rng.normal(size=(60, 1))
    x = c @ np.array([[1.0, -2.0]]) + rng.normal(size=(60, 1)) @ np.array([[1.0, 0.8]]) + 0.3 * rng.normal(size=(60, 2))
    homoscedastic = lambda weights, c: jnp.concatenate([c @ weights, jnp.zeros(1)])
    prior = jax.tree_util.Partial(homoscedastic, jnp.array([[0.3]]))
    cvae = CVAE(linear(3, 2), linear(2, 2), 1, prior=prior, likelihood="normal")
    result = fit(cvae.model, cvae.guide, 3000, jnp.asarray(x), jnp.asarray(c))
    design = np.concatenate([c, np.ones((60, 1))], 1)
    regression, *_ = np.linalg.lstsq(design, x, rcond=None)
    residual = np.cov((x - design @ regression).T, bias=True)
    learned = cvae.with_parameters(result.params)
    with jax.numpy_rank_promotion("allow"):  # NumPyro's draws promote
        draws = np.asarray(learned.sample(jnp.array([[-1.0], [2.0]]), (20_000,), rng_key=KEY))
    np.testing.assert_allclose(draws.mean(0), np.array([[-1.0, 1], [2.0, 1]]) @ regression, atol=0.05)
    np.testing.assert_allclose(np.cov(draws[:, 0].T), residual, atol=0.05)
    best = stats.multivariate_normal(np.zeros(2), residual).logpdf(x - design @ regression).sum()
    assert loss(cvae, x, c, params=result.params, num_particles=200) == pytest.approx(-best, abs=0.3)


def test_cvae_shapes_and_conditions():
    cvae = CVAE(linear(3, 4), linear(3, 2), 2, likelihood=0.5)
    x, c = jnp.ones((5, 2)), jnp.ones((5, 1))
    assert cvae.reconstruct(x, c).shape == (5, 2)
    assert cvae.sample(c, (3,), rng_key=KEY).shape == (3, 5, 2)
    assert cvae.decode(jnp.zeros((4, 5, 2)), c).batch_shape == (4, 5)
    assert np.isfinite(loss(cvae, x, c, subsample_size=2))
    with pytest.raises(ValueError, match=r"^condition: expected one row"):
        loss(cvae, x, c[:3])


# ------------------------------------------------------------------ priors


@pytest.mark.slow
def test_mixture_and_vamp_priors_train():
    x = jnp.asarray(X)
    for prior in (MixturePrior(3, 2, rng_key=KEY), VampPrior(x[:4])):
        vae = VAE(linear(4, 4), linear(2, 4), 2, likelihood=0.5, prior=prior)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's mixtures promote
            result = fit(vae.model, vae.guide, 100, x)
            learned = vae.with_parameters(result.params)
            assert np.isfinite(result.losses).all()
            assert result.losses[-10:].mean() < result.losses[:10].mean()
            z = learned.sample((3,), rng_key=KEY)
            if isinstance(prior, VampPrior):
                with learned_context(result.params):
                    parts = vae.encode(result.params["vae.prior.pseudo_inputs"])
                logs = np.stack([parts.log_prob(jnp.broadcast_to(point, (4, 2))) for point in z[:, :2]])
                expected = np.log(np.exp(logs).mean(1))
                np.testing.assert_allclose(learned.log_prior(z[:, :2]), expected, rtol=1e-8)
            z = z[:, :2]
            np.testing.assert_allclose(learned.prior.distribution().log_prob(z), learned.log_prior(z))
            assert (learned.log_prior(z) != vae.log_prior(z)).all()
            moved = [np.abs(result.params[name]).sum() for name in result.params if name.startswith("vae.prior.")]
            assert len(moved) == (1 if isinstance(prior, VampPrior) else 3)


def learned_context(params):
    return handlers.substitute(data=params)


def rbm_vae(log_partition="auto"):
    rbm = GaussianBernoulliRBM(
        jnp.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]]), hidden_bias=-0.5, log_partition=log_partition
    )
    return VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=EnergyPrior(rbm))


def test_rbm_prior_gradient_is_the_enumerated_one():
    """log p(z) as a mixture of 8 Gaussians, written out."""
    vae, x = rbm_vae(), jnp.ones((5, 3))
    weights = vae.prior.energy.weights
    z = site_value(vae, x)
    hidden = jnp.asarray(np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T)

    def log_prior(weights):
        means = hidden @ weights.T
        log_mass = hidden @ jnp.full(3, -0.5) + 0.5 * (means**2).sum(-1)
        logs = log_mass[None] - 0.5 * ((z[:, None] - means[None]) ** 2).sum(-1) - np.log(2 * np.pi)
        joint = jax.scipy.special.logsumexp(logs, axis=1) - jax.scipy.special.logsumexp(log_mass)
        return joint.sum()

    def objective(weights):
        return Trace_ELBO().loss(KEY, {"vae.prior.weights": weights}, vae.model, vae.guide, x)

    np.testing.assert_allclose(vae.log_prior(z).sum(), log_prior(weights), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(objective)(weights), -jax.grad(log_prior)(weights), rtol=1e-8)


RBM = GaussianBernoulliRBM(
    jnp.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]]), hidden_bias=jnp.array([-0.5, 0.3, 0.1]), log_partition=None
)


def test_a_contrastive_prior_has_the_criterions_gradient():
    """Values are -F(z); gradients in z are the density's, those in the parameters contrastive divergence's."""
    z = jnp.asarray(RNG.normal(size=(40, 2)))

    def log_prob(z, weights):
        prior = EnergyPrior(RBM._with(weights=weights), lambda base: ContrastiveDivergence(base, 3, rng_key=KEY))
        return prior.site().log_prob(z)

    np.testing.assert_allclose(log_prob(z, RBM.weights), -RBM.energy(z))
    by_z, by_weights = jax.grad(lambda *args: log_prob(*args).sum(), (0, 1))(z, RBM.weights)
    np.testing.assert_allclose(by_z, RBM.score(z))
    criterion = lambda weights: ContrastiveDivergence(RBM._with(weights=weights), 3, rng_key=KEY).log_prob(z).sum()
    np.testing.assert_allclose(by_weights, jax.grad(criterion)(RBM.weights))


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["CD", "PCD"])
def test_long_contrastive_chains_give_the_enumerated_gradient(kind, weight):
    """Negative samples from long chains: the ELBO's gradient, within Monte Carlo error."""
    count = 20_000
    exact = RBM._with(log_partition="auto")
    with jax.numpy_rank_promotion("allow"):
        start = exact.sample(jax.random.key(3), (count,))
    if kind == "CD":
        criterion = lambda base: ContrastiveDivergence(base, 30)
    else:
        criterion = lambda base: PersistentContrastiveDivergence(
            base, numpyro.primitives.mutable("chains", {"value": start}), 5
        )
    vae = VAE(
        CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=EnergyPrior(RBM, criterion), kl_weight=weight
    )
    x = jnp.zeros((count, 3))

    def objective(weights):
        params = {"vae.prior.weights": weights} | ({"chains": {"value": start}} if kind == "PCD" else {})
        return Trace_ELBO().loss_with_mutable_state(KEY, params, vae.model, vae.guide, x)["loss"] / count

    got = jax.jit(jax.grad(objective))(RBM.weights)
    z = site_value(vae, x)
    expected = jax.grad(lambda weights: -weight * exact._with(weights=weights).log_prob(z).mean())(RBM.weights)
    hidden = exact.hidden_given_visible(start).mean
    error = weight * (start[:, :, None] * hidden[:, None]).std(0) / np.sqrt(count)
    assert (np.abs(got - expected) < 4.5 * error).all()
    assert (np.abs(expected) > 20 * 4.5 * error).any()
    assert np.isfinite(fit(vae.model, vae.guide, 2, x).losses).all()
    with pytest.raises(IntractablePartitionError):
        elbo_decomposition(vae, x[:10], rng_key=KEY)


def test_unknown_normaliser_of_a_prior_raises():
    vae, x = rbm_vae(None), jnp.ones((5, 3))
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        fit(vae.model, vae.guide, 2, x)
    for measure in (elbo_decomposition, importance_weighted_log_likelihood):
        with pytest.raises(IntractablePartitionError):
            measure(vae, x, rng_key=KEY)
    neural = VAE(linear(3, 4), linear(2, 3), 2, likelihood=0.7, prior=EnergyPrior(NeuralEnergy(Quadratic, (2,))))
    with pytest.raises(IntractablePartitionError):
        fit(neural.model, neural.guide, 2, x)
    fixed = VAE(linear(3, 4), linear(2, 3), 2, likelihood=0.7, prior=EnergyPrior(lambda: vae.prior.energy))
    assert np.isfinite(fit(fixed.model, fixed.guide, 2, x).losses).all()


Quadratic = jax.tree_util.Partial(lambda precision, z: 0.5 * precision * (z**2).sum(), jnp.array(2.0))


class QuadraticEnergy(EnergyDistribution):
    """A normal distribution that does not know it."""

    parameter_dims = {"precision": ("visible",)}
    arg_constraints = {"precision": dist.constraints.independent(dist.constraints.positive, 1)}
    support = dist.constraints.real_vector

    def _energy(self, value):
        return 0.5 * (self.precision * value**2).sum()


def test_energy_prior_with_an_estimator():
    """The estimate's gradient is that of the normal density, N / 2p - sum z^2 / 2, for parameters that it learns."""
    estimator = infer.AnnealedImportanceSampling(400, 30, rng_key=KEY)
    precision = jnp.array([2.0, 0.5])
    prior = EnergyPrior(QuadraticEnergy(precision, log_partition=estimator))
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=prior)
    x = jnp.ones((5, 3))
    z = site_value(vae, x)
    objective = lambda p: Trace_ELBO().loss(KEY, {"vae.prior.precision": p}, vae.model, vae.guide, x)
    got = jax.jit(jax.grad(objective))(precision)
    np.testing.assert_allclose(got, -(5 / (2 * precision) - 0.5 * (z**2).sum(0)), atol=0.6)
    known = 0.5 * np.log(2 * np.pi / np.asarray(precision)).sum()
    exact = VAE(
        vae.encoder,
        vae.decoder,
        2,
        likelihood=0.7,
        prior=EnergyPrior(lambda: QuadraticEnergy(precision, log_partition=known)),
    )
    estimates = [importance_weighted_log_likelihood(model, x[:1], 50, rng_key=KEY) for model in (vae, exact)]
    np.testing.assert_allclose(*estimates, atol=0.1)
    assert np.isfinite(fit(vae.model, vae.guide, 2, x).losses).all()


# ------------------------------------------------------------------ amortized guide


def factor_model(x, size=None, subsample_size=None):
    """A user's model with a global mean and local z: x = mean + z + noise."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(x), subsample_size=subsample_size) as index:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        numpyro.sample("x", dist.Normal(mean + z[:, 0], 0.5), obs=x[index])


@pytest.mark.slow
def test_amortized_guide_beside_an_autoguide():
    """The posterior of the local sites given the fitted mean is normal with gain 1 / 1.25."""
    x = jnp.asarray(3 + np.sqrt(1.25) * np.random.default_rng(2).normal(size=50))
    local = ["z", "data"]
    globals_only = handlers.block(factor_model, hide=local)
    guide = autoguide.AutoGuideList(globals_only)
    guide.append(autoguide.AutoNormal(globals_only))
    encoder = jax.tree_util.Partial(lambda w, b, x: x * w + b, jnp.array([0.1, 0.0]), jnp.zeros(2))
    guide.append(AmortizedGuide(encoder, {"z": 1}))
    result = fit(factor_model, guide, 3000, x, subsample_size=10)
    assert result.params["mean_auto_loc"] == pytest.approx(float(x.mean()), abs=0.1)
    weights, bias = (result.params["amortized.encoder"][key] for key in sorted(result.params["amortized.encoder"]))
    assert weights[0] == pytest.approx(0.8, abs=0.05)
    assert np.exp(bias[1] + 3 * weights[1]) == pytest.approx(np.sqrt(0.2), rel=0.1)


def test_amortized_guide_with_supports():
    guide = AmortizedGuide(lambda x: jnp.zeros(8), {"z": 3, "rate": ()}, {"rate": dist.constraints.positive})
    trace = handlers.trace(handlers.seed(guide, 0)).get_trace(jnp.ones((6, 2)), subsample_size=4)
    assert trace["z"]["value"].shape == (4, 3)
    assert trace["rate"]["value"].shape == (4,)
    assert (trace["rate"]["value"] > 0).all()
    assert trace["z"]["scale"] == 1.5
    np.testing.assert_allclose(
        trace["rate"]["fn"].log_prob(jnp.full(4, 2.0)), np.full(4, stats.lognorm(1).logpdf(2.0)), rtol=1e-10
    )


# ------------------------------------------------------------------ networks and errors


def _equinox_networks():
    equinox = pytest.importorskip("equinox")
    return equinox.nn.MLP(4, 4, 8, 1, key=KEY), equinox.nn.MLP(2, 4, 8, 1, key=KEY)


def _flax_networks():
    nnx = pytest.importorskip("flax.nnx")
    return nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.Linear(2, 4, rngs=nnx.Rngs(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [_equinox_networks, _flax_networks], ids=["equinox", "flax"])
def test_networks(make):
    """Every array of both networks is learned."""
    encoder, decoder = make()
    vae = VAE(encoder, decoder, 2, likelihood=0.5)
    result = fit(vae.model, vae.guide, 20, jnp.asarray(X))
    for network, name in ((encoder, "vae.encoder"), (decoder, "vae.decoder")):
        before = [leaf for leaf in jax.tree.leaves(network) if isinstance(leaf, jax.Array)]
        after = jax.tree.leaves(result.params[name])
        assert len(before) == len(after) > 0
        assert all(
            (np.asarray(a) != np.asarray(b)).any()
            for a, b in zip(sorted_by_shape(before), sorted_by_shape(after), strict=True)
        )
    assert vae.with_parameters(result.params).reconstruct(X).shape == X.shape


def sorted_by_shape(leaves):
    return sorted(leaves, key=lambda leaf: leaf.shape)


NET = lambda x: jnp.zeros(4)
ERRORS = {
    "encoder type": (lambda: VAE(3, NET, 2), TypeError, "^encoder: expected a callable"),
    "latent size": (lambda: VAE(NET, NET, 0), ValueError, "^latent_size: expected a positive integer, got 0"),
    "covariance": (lambda: VAE(NET, NET, 2, covariance="low"), ValueError, '^covariance: expected "diagonal"'),
    "likelihood": (lambda: VAE(NET, NET, 2, likelihood="beta"), ValueError, "^likelihood: .*got 'beta'"),
    "scale": (lambda: VAE(NET, NET, 2, likelihood=-1.0), ValueError, r"^likelihood: .*got -1\.0"),
    "no likelihood": (lambda: VAE(NET, NET, 2, likelihood=None), TypeError, "^likelihood: expected a name"),
    "name": (lambda: VAE(NET, NET, 2, name=""), ValueError, "^name: expected a string"),
    "prior": (lambda: VAE(NET, NET, 2, prior="normal"), TypeError, '^prior: VAE expected "standard"'),
    "prior size": (lambda: VAE(NET, NET, 2, prior=NormalPrior(3)), ValueError, "^prior: expected one over 2"),
    "kl_weight": (lambda: VAE(NET, NET, 2, kl_weight=-1), ValueError, "^kl_weight: .*got -1"),
    "free_bits": (lambda: VAE(NET, NET, 2, free_bits=-1), ValueError, "^free_bits: .*got -1"),
    "free_bits full": (lambda: VAE(NET, NET, 2, free_bits=1, covariance="full"), ValueError, "^free_bits: expected 0"),
    "encoder output": (lambda: VAE(NET, NET, 3).encode(jnp.zeros((2, 1))), ValueError, "^encoder: expected 6 outputs"),
    "z": (lambda: VAE(NET, NET, 2).decode(jnp.zeros(3)), ValueError, r"^z: expected shape \(..., 2\), got \(3,\)"),
    "grey": (lambda: loss(VAE(NET, NET, 2), jnp.full((2, 4), 0.5)), ValueError, r"^x: likelihood.*binarise"),
    "range": (
        lambda: loss(VAE(NET, NET, 2, likelihood="continuous_bernoulli"), jnp.full((2, 4), 2.0)),
        ValueError,
        "^x: .*from 0 to 1, got values from 2 to 2",
    ),
    "subsample": (
        lambda: loss(CONSTANT, jnp.ones((2, 3)), subsample_size=3),
        ValueError,
        "^subsample_size: .*most the 2 data",
    ),
    "size": (lambda: loss(CONSTANT, jnp.ones((2, 3)), size=1), ValueError, "^size: expected at least .* 2, got 1"),
    "no size": (lambda: handlers.seed(CONSTANT.model, 0)(None), ValueError, "^size: "),
    "key": (lambda: CONSTANT.sample(), ValueError, "^rng_key: VAE.sample"),
    "mixture": (lambda: MixturePrior(0, 2, rng_key=KEY), ValueError, "^num_components: "),
    "vamp": (lambda: VampPrior(jnp.ones((2, 3))).distribution(), ValueError, "^prior: VampPrior has no encoder"),
    "energy": (lambda: EnergyPrior(3), TypeError, "^energy: EnergyPrior expected"),
    "criterion": (lambda: EnergyPrior(RBM, 3), TypeError, "^criterion: EnergyPrior expected a function or None"),
    "criterion's type": (
        lambda: EnergyPrior(RBM, lambda base: base).site(),
        TypeError,
        "^criterion: EnergyPrior expected a function to a",
    ),
    "draws": (
        lambda: inference_gap(EXACT, X[:3], jnp.zeros((2, 3, 2)), rng_key=KEY),
        ValueError,
        "^draws: expected shape",
    ),
    "step_size": (lambda: refine_posterior(EXACT, X, 5, -1.0, rng_key=KEY), ValueError, "^step_size: expected"),
    "num_steps": (lambda: refine_posterior(EXACT, X, -1, rng_key=KEY), ValueError, "^num_steps: expected"),
    "image_shape": (lambda: plot_reconstructions(EXACT, X, rng_key=KEY), ValueError, "^image_shape: expected"),
    "image_shape's size": (lambda: plot_traversal(EXACT, (2, 3)), ValueError, "^image_shape: expected"),
    "traversal": (lambda: plot_traversal(EXACT, (2, 2), condition=1.0), TypeError, "^condition: expected one for a"),
    "labels": (lambda: plot_latent(EXACT, X, labels=[1], rng_key=KEY), ValueError, "^labels: expected"),
    "vamp in a CVAE": (
        lambda: CVAE(NET, NET, 2, prior=VampPrior(jnp.ones((2, 3)))),
        TypeError,
        "^prior: CVAE expected",
    ),
    "pairs": (
        lambda: importance_weighted_log_likelihood(CVAE(NET, NET, 2), X, rng_key=KEY),
        TypeError,
        "^data: expected a pair",
    ),
    "discrete": (lambda: EnergyPrior(BernoulliRBM(jnp.ones((2, 2)))), ValueError, "^energy: .*continuous"),
    "conditional": (lambda: NormalPrior(2, NET).distribution(), ValueError, "^condition: "),
    "sites": (lambda: AmortizedGuide(NET, ["z"]), TypeError, "^sites: expected a mapping"),
    "supports": (
        lambda: AmortizedGuide(NET, {"z": 1}, {"y": dist.constraints.real}),
        ValueError,
        "^supports: expected some",
    ),
    "vae": (lambda: active_units(3, X), TypeError, "^vae: active_units expected a VAE"),
    "samples": (lambda: elbo_decomposition(EXACT, X, 0, rng_key=KEY), ValueError, "^num_samples: "),
    "threshold": (lambda: active_units(EXACT, X, -1), ValueError, "^threshold: "),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    call, error, match = ERRORS[name]
    with pytest.raises(error, match=match):
        call()
