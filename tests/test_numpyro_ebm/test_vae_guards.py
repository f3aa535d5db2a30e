"""What NumPyro autoencoders refuse, warn of, and keep apart from what they learn."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import SVI, Trace_ELBO  # noqa: E402

from numpyro_ebm import GaussianBernoulliRBM  # noqa: E402
from numpyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    AmortizedGuide,
    EnergyPrior,
    MixturePrior,
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
from numpyro_ebm.variational.networks import describe  # noqa: E402
from numpyro_ebm.variational.normal import normal_from  # noqa: E402
from test_numpyro_ebm.vae_models import KEY, RNG, linear, loss  # noqa: E402

pytestmark = pytest.mark.numpyro

DATA = jnp.asarray(2 + 3 * RNG.normal(size=(8, 6)), jnp.float32)  # as flax keeps running statistics


def _normed(num_in, num_out, dropout=None, **options):
    """Linear after batch normalisation, in training mode unless told otherwise."""
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    drop = [] if dropout is None else [nnx.Dropout(dropout, rngs=rngs)]
    linear = nnx.Linear(num_in, num_out, rngs=rngs)
    norm = nnx.BatchNorm(num_in, momentum=0.5, rngs=rngs, **options)
    return nnx.Sequential(norm, *drop, linear)


def _affine(num_in, num_out):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(num_in, num_out)), jnp.float32)
    return jax.tree_util.Partial(lambda w, *inputs: jnp.concatenate(inputs) @ w, weights)


def _normed_vae(**options):
    return VAE(_normed(6, 4), _normed(2, 6), 2, likelihood=1.0, **options)


def _svi(vae):
    return SVI(vae.model, vae.guide, numpyro.optim.Adam(0.01), Trace_ELBO())


def test_running_statistics_are_a_state_and_follow_the_data():
    """After n steps at rate 1/2 from mean 0 and variance 1, by hand; what SVI learns has no statistics."""
    vae = _normed_vae()
    svi = _svi(vae)
    state = svi.init(KEY, DATA)
    assert sorted(svi.get_params(state)["vae.encoder"]) == [
        ".layers[0].bias.value",
        ".layers[0].scale.value",
        ".layers[1].bias.value",
        ".layers[1].kernel.value",
    ]
    for _ in range(2):
        state, _ = jax.jit(svi.update)(state, DATA)
    statistics = state.mutable_state["vae.encoder.state"]["state"]
    left = 0.5**3  # of one step in svi.init, and two
    np.testing.assert_allclose(statistics[".layers[0].mean.value"], (1 - left) * DATA.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics[".layers[0].var.value"], left + (1 - left) * DATA.var(0), rtol=1e-6)
    np.testing.assert_array_equal(vae.encoder.layers[0].mean.get_value(), np.zeros(6))


@pytest.fixture(scope="module")
def trained():
    """What SVI returns, and the model that has learned it."""
    vae = _normed_vae()
    result = _svi(vae).run(KEY, 3, DATA, progress_bar=False)
    return result, vae.with_parameters({**result.params, **result.state.mutable_state})


def test_training_normalises_over_the_batch_and_evaluation_by_the_statistics(trained):
    """Against flax itself, called on all rows together."""
    result, learned = trained
    norm, _ = learned.encoder.layers
    values = jax.tree.map(np.asarray, result.params["vae.encoder"])
    statistics = jax.tree.map(np.asarray, result.state.mutable_state["vae.encoder.state"]["state"])
    affine = lambda h: (
        (h * values[".layers[0].scale.value"] + values[".layers[0].bias.value"]) @ values[".layers[1].kernel.value"]
        + values[".layers[1].bias.value"]
    )
    data = np.asarray(DATA)
    by_batch = affine((data - data.mean(0)) / np.sqrt(data.var(0) + norm.epsilon))
    mean, var = statistics[".layers[0].mean.value"], statistics[".layers[0].var.value"]
    by_statistics = affine((data - mean) / np.sqrt(var + norm.epsilon))
    np.testing.assert_allclose(learned.encode(DATA).mean, by_batch[:, :2], rtol=1e-5)
    evaluated = learned.in_evaluation()
    np.testing.assert_allclose(evaluated.encode(DATA).mean, by_statistics[:, :2], rtol=1e-5)
    np.testing.assert_allclose(active_units(learned, DATA, 0.1), by_statistics[:, :2].var(0) > 0.1)
    modes = [vae.encoder.layers[0].use_running_average for vae in (learned, evaluated)]
    assert modes == [False, True]


DRAWS = RNG.normal(size=(9, 8, 2))
MEASURES = {
    "decomposition": lambda vae: elbo_decomposition(vae, DATA, rng_key=KEY).elbo,
    "likelihood": lambda vae: importance_weighted_log_likelihood(vae, DATA, 5, 3, rng_key=KEY),
    "gap": lambda vae: inference_gap(vae, DATA, DRAWS, 5, rng_key=KEY).elbo,
    "refined": lambda vae: refine_posterior(vae, DATA, 3, rng_key=KEY).latent,
    "units": lambda vae: active_units(vae, DATA),
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_measures_use_the_statistics_and_leave_them(name, trained):
    """Whichever mode the networks are in."""
    _, learned = trained
    before = jax.tree.map(np.asarray, dict(learned.learned))
    np.testing.assert_array_equal(MEASURES[name](learned), MEASURES[name](learned.in_evaluation()))
    jax.tree.map(np.testing.assert_array_equal, before, dict(learned.learned))


def test_pictures_of_a_model_with_running_statistics(trained):
    pytest.importorskip("matplotlib")
    _, learned = trained
    pictures = [plot_reconstructions(vae, DATA, (2, 3), num_draws=0) for vae in (learned, learned.in_evaluation())]
    images = [np.asarray(axes.images[0].get_array()) for axes in pictures]
    np.testing.assert_array_equal(*images)
    plot_traversal(learned, (2, 3), num_points=2)
    plot_latent(learned, DATA, num_draws=3, rng_key=KEY)


def test_statistics_of_a_conditional_prior_and_dropout():
    """A network of the prior has a state of its own; masks differ between data and between steps."""
    prior = _normed(3, 4)
    vae = CVAE(_affine(9, 4), _affine(5, 6), 2, prior=prior, likelihood=1.0)
    condition = DATA[:, :3]
    svi = _svi(vae)
    state, _ = jax.jit(svi.update)(svi.init(KEY, DATA, condition), DATA, condition)
    statistics = state.mutable_state["cvae.prior.network.state"]["state"]
    np.testing.assert_allclose(statistics[".layers[0].mean.value"], 0.75 * condition.mean(0), rtol=1e-6)

    vae = VAE(_normed(6, 4, dropout=0.5), _affine(2, 6), 2, likelihood=1.0)
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        first = vae.encode(DATA).mean
    svi = _svi(vae)
    once = svi.init(KEY, DATA)
    twice, _ = jax.jit(svi.update)(once, DATA)
    counts = [s.mutable_state["vae.encoder.state"]["state"][".layers[1].rngs.count.value"] for s in (once, twice)]
    assert counts[0] < counts[1]
    with handlers.substitute(data=twice.mutable_state):
        assert (np.asarray(first) != np.asarray(vae.encode(DATA).mean)).any()
    same = vae.encode(jnp.tile(DATA[:4], (2, 1))).mean  # equal rows, equal but for their masks
    assert (np.asarray(same[:4]) != np.asarray(same[4:])).any()
    assert trace["vae.encoder.state"]["type"] == "mutable"


def test_what_is_refused_of_running_statistics(trained):
    result, vae = trained
    with pytest.raises(ValueError, match=r"parameters: expected .*vae.encoder.state.*result.state.mutable_state"):
        _normed_vae().with_parameters(result.params)
    with pytest.raises(ValueError, match=r"vae.encoder: expected more than one row for a BatchNorm"):
        vae.encode(DATA[:1])
    assert vae.in_evaluation().encode(DATA[:1]).batch_shape == (1,)
    assert describe(vae.encoder) == "Sequential of 40 numbers"


# ------------------------------------------------------------------ shapes


X = jnp.asarray(RNG.normal(size=(5, 6)))
BINARY = (X > 0).astype(float)
NARROW = r"the decoder's output is a distribution over shape \({},?\) for each datum, got data of shape \(5, 6\)"


def _of(network, function):
    """A network's output through a function."""
    return jax.tree_util.Partial(lambda inner, *inputs: function(inner(*inputs)), network)


def _options(**options):
    return VAE(linear(6, 4), linear(2, 6), 2, **options)


@pytest.mark.parametrize(
    ("likelihood", "width"), [("bernoulli", 1), ("continuous_bernoulli", 5), ("normal", 1), (0.5, 7)]
)
def test_a_decoder_of_another_width_is_refused(likelihood, width):
    """Traced or not."""
    vae = VAE(linear(6, 4), linear(2, width), 2, likelihood=likelihood)
    objective = lambda x: Trace_ELBO().loss(KEY, {}, vae.model, vae.guide, x)
    uses = [
        objective,
        jax.jit(objective),
        lambda x: vae.decode(jnp.zeros((5, 2))).log_prob(x),
        jax.jit(vae.reconstruct),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=NARROW.format(width)):
            use(BINARY)
    assert vae.decode(jnp.zeros((5, 2))).log_prob(jnp.ones((5, width))).shape == (5,)
    with pytest.raises(ValueError, match="the decoder's output is a distribution over shape"):
        elbo_decomposition(vae, BINARY, rng_key=KEY)


def test_a_conditional_decoder_of_another_width_is_refused():
    cvae = CVAE(linear(9, 4), linear(5, 1), 2, likelihood=0.5)
    for use in (lambda: loss(cvae, X, X[:, :3]), lambda: cvae.reconstruct(X, X[:, :3])):
        with pytest.raises(ValueError, match=NARROW.format(1)):
            use()


WRONG_ROWS = {"a number": lambda y: y[0], "more dimensions": lambda y: y[None], "twice": lambda y: jnp.stack([y, y])}


@pytest.mark.parametrize("wrong", list(WRONG_ROWS))
def test_networks_give_one_vector_for_each_datum(wrong):
    wrong_rows = lambda size: _of(linear(size, 4), WRONG_ROWS[wrong])
    with pytest.raises(ValueError, match=r"^encoder: expected"):
        VAE(wrong_rows(6), linear(2, 6), 2, likelihood=0.5).encode(X)
    with pytest.raises(ValueError, match=r"^encoder: expected"), handlers.seed(rng_seed=0):
        AmortizedGuide(wrong_rows(6), {"z": 2})(X)
    with pytest.raises(ValueError, match=r"^prior: expected"):
        jax.jit(lambda c: CVAE(linear(9, 4), linear(5, 6), 2, prior=wrong_rows(3)).latent_prior(c).mean)(X[:, :3])


# ------------------------------------------------------------------ what networks' outputs are


def test_outputs_that_look_like_probabilities_warn_once():
    """SVI starts untraced, so it tells; not again in copies with what was learned."""
    data = jnp.tile(BINARY, (4, 1))
    for likelihood in ("bernoulli", "continuous_bernoulli"):
        decoder = _of(linear(2, 6), jax.nn.sigmoid)
        vae = VAE(linear(6, 4), decoder, 2, likelihood=likelihood)
        message = r"decoder: expected logits, got 20 x 6 outputs all from 0\..* decoder_output"
        with pytest.warns(UserWarning, match=message):
            result = _svi(vae).run(KEY, 1, data, progress_bar=False)
        vae.with_parameters(result.params).reconstruct(data)
        loss(VAE(linear(6, 4), decoder, 2, likelihood=likelihood, decoder_output="probabilities"), data)


def test_what_does_not_look_like_probabilities():
    """Zeros, logits of both signs, a few entries by chance, and likelihoods of no logits."""
    data = jnp.tile(BINARY, (20, 1))
    for seed in range(4):
        weights = jnp.asarray(0.5 * np.random.default_rng(seed).normal(size=(2, 6)))
        loss(VAE(linear(6, 4), jax.tree_util.Partial(lambda w, z: z @ w, weights), 2), data)
    loss(VAE(linear(6, 4), lambda z: jnp.zeros(6), 2), data)
    loss(VAE(linear(3, 4), _of(linear(2, 3), jax.nn.sigmoid), 2), data[:, :3])
    loss(VAE(linear(6, 4), _of(linear(2, 6), jax.nn.sigmoid), 2, likelihood=0.5), data)


@pytest.mark.parametrize("kind", [likelihoods.Bernoulli, likelihoods.ContinuousBernoulli])
def test_probabilities_and_logits_are_one_model(kind):
    """Gradients too; grey values under the density of the unit interval."""
    logits = jnp.linspace(-4, 4, 12).reshape(2, 6)
    x = BINARY[:2] if kind is likelihoods.Bernoulli else jax.nn.sigmoid(X[:2])
    of_logits = lambda raw: kind().distribution(raw, "vae").log_prob(x).sum()
    of_probabilities = lambda raw: kind("probabilities").distribution(jax.nn.sigmoid(raw), "vae").log_prob(x).sum()
    expected, got = (jax.value_and_grad(function)(logits) for function in (of_logits, of_probabilities))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), got, expected)
    traced = jax.jit(lambda p: kind("probabilities").distribution(p, "vae").log_prob(jnp.ones(3)))
    assert np.isnan(traced(jnp.array([0.5, 1.5, -0.1]))).tolist() == [False, True, True]
    vae = _options(decoder_output="probabilities")
    with pytest.raises(ValueError, match=r'decoder: decoder_output="probabilities" expected outputs from 0 to 1, got'):
        vae.decode(10 * jnp.ones((5, 2)))


@pytest.mark.parametrize(("kind", "function"), [("scale", jnp.exp), ("variance", lambda raw: jnp.exp(2 * raw))])
def test_an_encoder_may_give_scales_or_variances(kind, function):
    positive = _of(linear(6, 4), lambda y: jnp.concatenate([y[:2], function(y[2:])]))
    given = VAE(positive, linear(2, 6), 2, likelihood=0.5, encoder_output=kind)
    expected = _options(likelihood=0.5).encode(X)
    np.testing.assert_allclose(given.encode(X).variance, expected.variance, rtol=1e-12)
    guides = AmortizedGuide(linear(6, 4), {"z": 2}), AmortizedGuide(positive, {"z": 2}, encoder_output=kind)
    drawn = [handlers.seed(guide, 0)(X)["z"] for guide in guides]
    np.testing.assert_allclose(*drawn, rtol=1e-12)
    wrong = _options(likelihood=0.5, encoder_output=kind)
    noun = {"scale": "standard deviations", "variance": "variances"}[kind]
    with pytest.raises(ValueError, match=rf"encoder: expected finite locations and positive, finite {noun}, got"):
        wrong.encode(X)
    traced = jax.jit(lambda raw: normal_from("encoder", raw, 1, encoder_output=kind).variance)
    got = traced(jnp.array([[0.0, 4.0], [0.0, -1.0], [0.0, 0.0]]))
    assert np.isnan(got).ravel().tolist() == [False, True, True]


def test_a_full_covariance_with_a_positive_diagonal():
    raw = jnp.array([[1.0, 2.0, 3.0, 5.0, 4.0]])
    posterior = normal_from("encoder", raw, 2, "full", encoder_output="scale")
    np.testing.assert_allclose(posterior.scale_tril[0], [[3.0, 0.0], [5.0, 4.0]])


REFUSED = {
    'decoder_output: VAE expected "logits" unless': lambda: _options(likelihood=0.5, decoder_output="probabilities"),
    'decoder_output: VAE expected "logits" or': lambda: _options(decoder_output="odds"),
    'encoder_output: VAE expected "log_scale", "scale" or': lambda: _options(encoder_output="precision"),
    'encoder_output: VAE expected "log_scale" or "scale", of': lambda: _options(
        encoder_output="variance", covariance="full"
    ),
    "encoder_output: AmortizedGuide expected": lambda: AmortizedGuide(linear(6, 4), {"z": 2}, encoder_output="std"),
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_outputs_of_no_such_name(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        REFUSED[message]()


# ------------------------------------------------------------------ what is not finite


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", 0.5, lambda raw: dist.Poisson(jnp.exp(raw))])
def test_a_pixel_that_is_nan_is_said_to_be_x(likelihood):
    vae = _options(likelihood=likelihood)
    broken = BINARY.at[1, 2].set(jnp.nan)
    for use in (lambda: loss(vae, broken), lambda: vae.encode(broken), lambda: active_units(vae, broken)):
        with pytest.raises(ValueError, match=r"^x: .*NaN"):
            use()


@pytest.mark.parametrize("part", ["locations", "scales", "both"])
def test_networks_that_explode_are_named(part):
    factors = {"locations": [jnp.inf, 1.0], "scales": [1.0, 1e6], "both": [jnp.nan, jnp.nan]}[part]
    explode = lambda size: _of(linear(size, 4, scale=1.0), lambda y: y * jnp.repeat(jnp.array(factors), 2))
    vae = VAE(explode(6), linear(2, 6), 2, likelihood=0.5)
    for use in (lambda: loss(vae, X), lambda: active_units(vae, X)):
        with pytest.raises(ValueError, match=r"^encoder: expected finite locations .* got others for 5 of 5 rows"):
            use()
    with pytest.raises(ValueError, match=r"^encoder: expected finite locations"), handlers.seed(rng_seed=0):
        AmortizedGuide(explode(6), {"z": 2})(X)
    with pytest.raises(ValueError, match=r"^prior: expected finite locations"):
        CVAE(linear(9, 4), linear(5, 6), 2, prior=explode(3)).latent_prior(X[:, :3])
    decoder = VAE(linear(6, 4), _of(linear(2, 6), lambda y: y * jnp.nan), 2, likelihood=0.5)
    with pytest.raises(ValueError, match=r"^decoder: expected finite outputs for finite z, got NaN"):
        loss(decoder, X)
    assert np.isnan(jax.jit(lambda x: loss_of(vae, x))(X))


def loss_of(vae, x):
    return Trace_ELBO().loss(KEY, {}, vae.model, vae.guide, x)


# ------------------------------------------------------------------ a prior that nothing trains


@pytest.fixture
def promoting():
    with jax.numpy_rank_promotion("allow"):  # NumPyro's mixtures promote
        yield


PRIORS = {
    "mixture": lambda: MixturePrior(3, 2, rng_key=KEY),
    "vamp": lambda: VampPrior(X[:2]),
    "energy": lambda: EnergyPrior(GaussianBernoulliRBM(jnp.ones((2, 1)))),
    "function": lambda: EnergyPrior(lambda: GaussianBernoulliRBM(numpyro.param("machine", jnp.ones((2, 1))))),
}


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_weight_of_zero_leaves_a_learned_prior_untrained(name, promoting):
    vae = _options(likelihood=0.5, prior=PRIORS[name](), kl_weight=0.0)
    with pytest.warns(UserWarning, match=r"kl_weight: kl_weight=0 leaves the learned prior where it was"):
        handlers.seed(vae.guide, 0)(X)
    handlers.seed(vae.guide, 0)(X)
    scheduled = _options(likelihood=0.5, prior=PRIORS[name]())
    handlers.seed(scheduled.guide, 0)(X, kl_weight=0.0)
    with pytest.warns(UserWarning, match=r"kl_weight: kl_weight was 0 in every step so far"):
        scheduled.sample((2,), rng_key=KEY)
    annealed = _options(likelihood=0.5, prior=PRIORS[name]())
    for weight in (0.0, 0.5):
        handlers.seed(annealed.guide, 0)(X, kl_weight=weight)
    annealed.sample((2,), rng_key=KEY)


def test_a_weight_of_zero_is_no_matter_of_a_fixed_prior():
    """Nor is a traced one of a learned prior."""
    loss(_options(likelihood=0.5, kl_weight=0.0), X)
    cvae = CVAE(linear(9, 4), linear(5, 6), 2, likelihood=0.5)
    loss(cvae, X, X[:, :3], kl_weight=0.0)
    cvae.sample(X[:, :3], rng_key=KEY)
    learned = CVAE(linear(9, 4), linear(5, 6), 2, prior=linear(3, 4), likelihood=0.5)
    objective = lambda weight: Trace_ELBO().loss(KEY, {}, learned.model, learned.guide, X, X[:, :3], kl_weight=weight)
    jax.eval_shape(objective, 0.0)
    learned.sample(X[:, :3], rng_key=KEY)
    with pytest.warns(UserWarning, match="kl_weight=0 leaves the learned prior"):
        loss(CVAE(linear(9, 4), linear(5, 6), 2, prior=linear(3, 4), likelihood=0.5, kl_weight=0.0), X, X[:, :3])
