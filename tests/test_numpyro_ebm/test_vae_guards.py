"""What NumPyro autoencoders refuse, warn of, and keep apart from what they learn."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import SVI, Trace_ELBO  # noqa: E402

from numpyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)
from numpyro_ebm.variational.networks import describe  # noqa: E402
from test_numpyro_ebm.vae_models import KEY, RNG  # noqa: E402

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
