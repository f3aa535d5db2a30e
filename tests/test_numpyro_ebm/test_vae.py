"""Objectives of NumPyro autoencoders against closed forms and values computed by hand."""

import contextlib

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import Predictive, Trace_ELBO  # noqa: E402
from scipy import integrate, stats  # noqa: E402

from numpyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
)
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
from numpyro_ebm.variational.networks import learned_arrays  # noqa: E402
from numpyro_ebm.variational.normal import kl_divergence, kl_divergence_by_dimension  # noqa: E402
from numpyro_ebm.variational.priors import Prior  # noqa: E402
from test_numpyro_ebm.vae_models import (  # noqa: E402
    CONSTANT,
    EXACT,
    KEY,
    KL,
    LOG_LIKELIHOOD,
    MEAN,
    RBM,
    RNG,
    X,
    fit,
    linear,
    loss,
    reconstruction,
    site_value,
)

pytestmark = pytest.mark.numpyro


@pytest.mark.slow
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
def test_kl_against_quadrature_or_the_formula(covariance):
    """Of dimension 0 against an integral; of a full covariance against traces and determinants."""
    loc, scale = np.array([[0.3, -1.0]]), np.array([[0.5, 2.0]])
    prior = dist.Normal(jnp.asarray(loc + 1), jnp.asarray(3 * scale)).to_event(1)
    if covariance == "diagonal":
        got = kl_divergence_by_dimension(dist.Normal(jnp.asarray(loc), jnp.asarray(scale)).to_event(1), prior)[0, 0]
        q, p = stats.norm(0.3, 0.5), stats.norm(1.3, 1.5)
        expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -6, 6)[0]
    else:
        factor = np.array([[0.5, 0.0], [0.7, 2.0]])
        got = kl_divergence(dist.MultivariateNormal(jnp.asarray(loc), scale_tril=jnp.asarray(factor[None])), prior)[0]
        precision = np.diag(1 / (3 * scale[0]) ** 2)
        trace, log_ratio = (
            np.trace(precision @ factor @ factor.T),
            2 * np.log(np.prod(3 * scale) / np.diag(factor).prod()),
        )
        expected = 0.5 * (trace + np.ones(2) @ precision @ np.ones(2) - 2 + log_ratio)
    np.testing.assert_allclose(got, expected, rtol=1e-7)


def test_weights_and_free_bits_with_a_learned_prior():
    """KL from p(z | c), written out, for all data and for a minibatch of twice as many."""
    prior = lambda c: jnp.concatenate([0.5 * c, -c, 0.3 * c, 0.1 + 0 * c])
    cvae = CVAE(linear(3, 4), linear(3, 2), 2, prior=prior, likelihood=0.5, kl_weight=0.3, free_bits=0.2)
    x, c = jnp.asarray(RNG.normal(size=(6, 2))), jnp.asarray(RNG.normal(size=(6, 1)))
    q, p = cvae.encode(x, c), cvae.prior.distribution(c)
    kl = 0.5 * ((q.variance + (q.mean - p.mean) ** 2) / p.variance - 1 + np.log(p.variance / q.variance))
    penalty = 6 * 0.3 * np.maximum(0.2, kl.mean(0)).sum()
    for size in (6, 12):  # whose plate draws indices before z
        z = site_value(cvae, x, c, size=size)
        expected = size / 6 * (penalty - cvae.decode(z, c).log_prob(x).sum())
        np.testing.assert_allclose(loss(cvae, x, c, size=size), expected, rtol=1e-10)


def test_factor_of_a_full_covariance_is_filled_row_by_row():
    vae = VAE(lambda x: jnp.array([1.0, 2.0, 0.0, 5.0, np.log(3.0)]), lambda z: z, 2, covariance="full", likelihood=1.0)
    posterior = vae.encode(jnp.zeros((1, 2)))
    np.testing.assert_allclose(posterior.loc[0], [1, 2])
    np.testing.assert_allclose(posterior.scale_tril[0], [[1, 0], [5, 3]])


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
    untrained = pytest.warns(UserWarning, match="kl_weight=0 leaves the learned prior")
    with untrained if kl_weight == 0 else contextlib.nullcontext():
        got = loss(vae, x)
    z = site_value(vae, x)
    kl = (vae.encode(x).log_prob(z) - vae.log_prior(z)).sum()
    np.testing.assert_allclose(got, kl_weight * kl - vae.decode(z).log_prob(x).sum(), rtol=1e-9)


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


@pytest.mark.slow
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


class Doubled(likelihoods.Likelihood):
    """A likelihood of a user's own: normal around twice the decoder's output."""

    def distribution(self, raw, name):
        return dist.Normal(2 * raw, numpyro.param(f"{name}.width", 1.0))

    def check(self, value):
        if (value < 0).any():
            raise ValueError("x: expected no negative values")


def test_a_likelihood_of_a_users_own():
    vae = VAE(linear(3, 2), linear(1, 3), 1, likelihood=Doubled())
    z, x = jnp.ones((2, 1)), jnp.full((2, 3), 0.3)
    expected = stats.norm(2 * vae.decoder(z[0]), 1).logpdf(0.3).sum()
    np.testing.assert_allclose(vae.decode(z).log_prob(x), expected, rtol=1e-10)
    networks = {f"vae.{part}": learned_arrays(getattr(vae, part)) for part in ("encoder", "decoder")}
    learned = vae.with_parameters({**networks, "vae.width": 3.0})
    np.testing.assert_allclose(learned.decode(z).variance, np.full((2, 3), 9.0))
    with pytest.raises(ValueError, match=r"^x: expected no negative values"):
        loss(vae, -x)


def test_what_models_and_priors_are_made_of():
    vae = VAE(linear(3, 4), lambda z: jnp.zeros(3), 2, likelihood=0.5, prior=MixturePrior(3, 2, rng_key=KEY))
    assert repr(vae) == (
        "VAE(encoder: Partial of 16 numbers, decoder: function, latent_size=2, "
        "prior=MixturePrior(num_components=3, latent_size=2), likelihood=Normal(0.5), covariance='diagonal', "
        "kl_weight=1.0, free_bits=0.0, name='vae')"
    )
    cvae = CVAE(linear(4, 4), linear(3, 3), 2, prior=linear(1, 4), kl_weight=0.5)
    assert repr(cvae).startswith("CVAE(encoder: Partial of 20 numbers, decoder: Partial of 12 numbers, latent_size=2, ")
    assert "prior=NormalPrior(latent_size=2, network: Partial of 8 numbers), likelihood=Bernoulli()" in repr(cvae)
    assert repr(EnergyPrior(RBM)) == f"EnergyPrior({RBM!r})"
    assert repr(VampPrior(jnp.ones((5, 3)))).startswith("VampPrior(pseudo_inputs: (5, 3), constraint=")
    guide = AmortizedGuide(linear(3, 4), {"z": 2})
    expected = "AmortizedGuide(encoder: Partial of 16 numbers, sites={'z': (2,)}, supports={}, plate='data', "
    assert repr(guide) == expected + "name='amortized')"


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


class Shifted(Prior):
    """A prior of a user's own, around the condition."""

    latent_size = 2
    is_conditional = True

    def distribution(self, condition=None):
        loc = jnp.concatenate([condition, -condition], -1)
        return dist.Normal(loc, 0.7).to_event(1)


def test_a_conditional_prior_of_a_users_own():
    """The same estimates as with a network that returns the same."""
    network = lambda c: jnp.concatenate([c, -c, jnp.full(2, np.log(0.7))])
    x, c = jnp.ones((5, 2)), jnp.asarray(RNG.normal(size=(5, 1)))
    models = [CVAE(linear(3, 4), linear(3, 2), 2, likelihood=0.5, prior=prior) for prior in (Shifted(), network)]
    measured = [importance_weighted_log_likelihood(cvae, (x, c), 20, rng_key=KEY) for cvae in models]
    np.testing.assert_allclose(*measured, rtol=1e-10)
    np.testing.assert_allclose(*(cvae.log_prior(jnp.zeros((5, 2)), c) for cvae in models), rtol=1e-10)
    assert np.isfinite(loss(models[0], x, c, kl_weight=0.5))


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
    "covariance": (lambda: VAE(NET, NET, 2, covariance="low"), ValueError, '^covariance: VAE expected "diagonal"'),
    "likelihood": (lambda: VAE(NET, NET, 2, likelihood="beta"), ValueError, "^likelihood: .*got 'beta'"),
    "scale": (lambda: VAE(NET, NET, 2, likelihood=-1.0), ValueError, r"^likelihood: .*got -1\.0"),
    "no likelihood": (lambda: VAE(NET, NET, 2, likelihood=None), TypeError, "^likelihood: expected a name"),
    "name": (lambda: VAE(NET, NET, 2, name=""), ValueError, "^name: expected a string"),
    "prior": (lambda: VAE(NET, NET, 2, prior="normal"), TypeError, '^prior: VAE expected "standard"'),
    "prior size": (lambda: VAE(NET, NET, 2, prior=NormalPrior(3)), ValueError, "^prior: expected one over 2"),
    "kl_weight": (lambda: VAE(NET, NET, 2, kl_weight=-1), ValueError, "^kl_weight: .*got -1"),
    "free_bits": (lambda: VAE(NET, NET, 2, free_bits=-1), ValueError, "^free_bits: .*got -1"),
    "free_bits full": (lambda: VAE(NET, NET, 2, free_bits=1, covariance="full"), ValueError, "^free_bits: expected 0"),
    "encoder output": (
        lambda: VAE(NET, NET, 3).encode(jnp.zeros((2, 1))),
        ValueError,
        r"^encoder: expected an output of shape \(\.\.\., 6\)",
    ),
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
    "criterion": (
        lambda: EnergyPrior(RBM, criterion=3),
        TypeError,
        "^criterion: EnergyPrior expected a function or None",
    ),
    "criterion's type": (
        lambda: EnergyPrior(RBM, criterion=lambda base: base).site(),
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
    "data's shape": (
        lambda: refine_posterior(
            VAE(lambda x: jnp.zeros(2), lambda z: jnp.repeat(z, 5), 1, likelihood=0.5), jnp.ones((3, 1)), 2, rng_key=KEY
        ),
        ValueError,
        "^x: the decoder's output is a distribution over shape",
    ),
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
        lambda: AmortizedGuide(NET, {"z": 1}, supports={"y": dist.constraints.real}),
        ValueError,
        "^supports: expected some",
    ),
    "parameters": (
        lambda: VAE(linear(4, 4), linear(2, 4), 2).with_parameters({"other.encoder": {}}),
        ValueError,
        r"^parameters: expected at least \['vae.encoder', 'vae.decoder'\], got \['other.encoder'\]",
    ),
    "parameters of another network": (
        lambda: EXACT.with_parameters({"vae.encoder": {"[0]": jnp.zeros(3)}, "vae.decoder": {}}).encode(X),
        ValueError,
        "^vae.encoder: expected arrays of the network's shapes",
    ),
    "data of another shape": (
        lambda: loss(CONSTANT, jnp.ones((2, 4))),
        ValueError,
        r"^x: the decoder's output is a distribution over shape \(3,\) for each datum, got data of shape \(2, 4\)",
    ),
    "no rows": (lambda: loss(CONSTANT, jnp.ones((0, 3))), ValueError, r"^x: expected shape \(N, ...\), got \(0, 3\)"),
    "one condition": (
        lambda: CVAE(NET, NET, 2).sample(1.0, rng_key=KEY),
        ValueError,
        r"^condition: expected shape \(N, ...\), got \(\)",
    ),
    "a user's function": (
        lambda: VAE(NET, NET, 2, likelihood=lambda raw: raw).decode(jnp.zeros((1, 2))),
        TypeError,
        "^likelihood: expected a function to a NumPyro distribution",
    ),
    "positional prior": (
        lambda: VAE(NET, NET, 2, "standard"),
        TypeError,
        r"^VAE: expected 3 positional arguments, got 4; write VAE\(encoder, decoder, latent_size, \*, prior='standard'",
    ),
    "positional options of a CVAE": (lambda: CVAE(NET, NET, 2, None, 1.0), TypeError, "^CVAE: expected 3 .*got 5"),
    "positional criterion": (
        lambda: EnergyPrior(RBM, None),
        TypeError,
        r"^EnergyPrior: .*write EnergyPrior\(energy, \*, criterion=None\)",
    ),
    "positional spread": (lambda: MixturePrior(3, 2, 1.0, rng_key=KEY), TypeError, "^MixturePrior: expected 2"),
    "positional supports": (lambda: AmortizedGuide(NET, {"z": 1}, {}), TypeError, "^AmortizedGuide: expected 2"),
    "positional size": (lambda: CONSTANT.model(jnp.ones((2, 3)), 4), TypeError, "^VAE.model: expected 1 .*size=None"),
    "vae": (lambda: active_units(3, X), TypeError, "^vae: active_units expected a VAE"),
    "samples": (lambda: elbo_decomposition(EXACT, X, 0, rng_key=KEY), ValueError, "^num_samples: "),
    "threshold": (lambda: active_units(EXACT, X, -1), ValueError, "^threshold: "),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_argument(name):
    call, error, match = ERRORS[name]
    with pytest.raises(error, match=match):
        call()
