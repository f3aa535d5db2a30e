"""What NumPyro demands of a distribution: SVI, MCMC, plates, masks, initialisation, pytrees."""

import copy
import pickle
import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.diagnostics import effective_sample_size  # noqa: E402
from numpyro.infer import HMC, MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide, initialization  # noqa: E402

from backends import siblings  # noqa: E402
from numpyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
    GaussianRBM,
    IntractablePartitionError,
    NeuralEnergy,
    infer,
    objectives,
)
from oracles.rbm import Parameters, moments  # noqa: E402
from oracles.statistics import MAX_Z, assert_mean  # noqa: E402

pytestmark = pytest.mark.numpyro

P = Parameters.random(3, 2, seed=0, strength=0.8)
ARGUMENTS = {name: jnp.asarray(value) for name, value in P.arguments("GaussianBernoulliRBM").items()}
RBM = GaussianBernoulliRBM(**ARGUMENTS)
DATA = RBM.sample(jax.random.key(0), (400,))
OBSERVED, NOISE = jnp.array([1.0, 0.0, -1.0]), 0.6


def latent_model(rbm=RBM, observed=OBSERVED):
    value = numpyro.sample("v", rbm)
    numpyro.sample("y", dist.Normal(value, NOISE).to_event(1), obs=observed)


def learning_model(data, log_partition="auto", criterion=None):
    """All parameters learned, data in a subsampling plate."""
    rbm = GaussianBernoulliRBM(
        numpyro.param("weights", 0.1 * jnp.ones((3, 2))),
        visible_bias=numpyro.param("visible_bias", jnp.zeros(3)),
        hidden_bias=numpyro.param("hidden_bias", jnp.zeros(2)),
        scale=numpyro.param("scale", jnp.ones(3), constraint=dist.constraints.positive),
        log_partition=log_partition() if callable(log_partition) else log_partition,
    )
    observed = rbm if criterion is None else criterion(rbm)
    with numpyro.plate("data", len(data), subsample_size=100):
        numpyro.sample("v", observed, obs=numpyro.subsample(data, 1))


def bayesian_model(data, log_partition):
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([3, 2]).to_event(2))
    with numpyro.plate("data", len(data)):
        numpyro.sample("v", GaussianBernoulliRBM(weights, log_partition=log_partition), obs=data)


def no_guide(*args, **kwargs):
    pass


def run_svi(model, *args, num_steps=300, guide=no_guide, **kwargs):
    schedule = lambda step: 0.05 * 0.01 ** (step / num_steps)
    svi = SVI(model, guide, numpyro.optim.Adam(schedule), Trace_ELBO())
    return svi.run(jax.random.key(0), num_steps, *args, progress_bar=False, **kwargs)


def run_mcmc(kernel, *args, **options):
    options = {"num_warmup": 300, "num_samples": 2000, "progress_bar": False, **options}
    mcmc = MCMC(kernel, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run(jax.random.key(1), *args)
    return mcmc


@pytest.mark.parametrize(("kernel", "num_chains"), [(NUTS, 1), pytest.param(NUTS, 2, marks=pytest.mark.slow), (HMC, 1)])
def test_hmc_and_nuts_over_the_value(kernel, num_chains):
    """The posterior under a Gaussian likelihood is known exactly."""
    mcmc = run_mcmc(kernel(latent_model), num_chains=num_chains, chain_method="vectorized")
    exact = RBM.condition_on_noisy(OBSERVED, NOISE)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    flat = draws.reshape(-1, 3)
    assert_mean(flat, np.asarray(exact.mean), effective_sample_size(draws))
    squares = (draws - np.asarray(exact.mean)) ** 2
    assert_mean(squares.reshape(-1, 3), np.asarray(exact.variance), effective_sample_size(squares))


def test_nuts_over_the_value_of_an_unnormalised_model_agrees_with_the_normalised_one():
    unknown = GaussianBernoulliRBM(**ARGUMENTS, log_partition=None)
    known, guarded = (run_mcmc(NUTS(latent_model), rbm, num_samples=20, num_warmup=20) for rbm in (RBM, unknown))
    np.testing.assert_allclose(known.get_samples()["v"], guarded.get_samples()["v"], rtol=1e-6)


@pytest.mark.parametrize("family", [pytest.param(GaussianRBM, marks=pytest.mark.slow), NeuralEnergy])
def test_nuts_runs_on_other_continuous_families(family):
    rbm = (
        GaussianRBM(jnp.array([[0.5], [-0.3]])) if family is GaussianRBM else NeuralEnergy(lambda v: (v**4).sum(), (2,))
    )
    mcmc = run_mcmc(NUTS(latent_model), rbm, jnp.array([0.5, -0.5]), num_samples=500)
    assert np.isfinite(mcmc.get_samples()["v"]).all()
    if family is GaussianRBM:  # conjugate: precision (I - WW') + I / noise^2
        precision = np.eye(2) - np.asarray(rbm.weights @ rbm.weights.T) + np.eye(2) / NOISE**2
        mean = np.linalg.solve(precision, np.array([0.5, -0.5]) / NOISE**2)
        draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
        assert_mean(draws.reshape(-1, 2), mean, effective_sample_size(draws))


@pytest.mark.parametrize("log_partition", [None, 4.0])
def test_svi_over_parameters_of_an_unnormalised_model_raises(log_partition):
    with pytest.raises(IntractablePartitionError, match="PersistentContrastiveDivergence"):
        run_svi(learning_model, DATA, log_partition)
    svi = SVI(learning_model, no_guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    state = svi.init(jax.random.key(0), DATA, log_partition)
    with pytest.raises(IntractablePartitionError):
        jax.jit(svi.update, static_argnums=2)(state, DATA, log_partition)


@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_mcmc_over_parameters_of_an_unnormalised_model_raises(kernel):
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        run_mcmc(kernel(bayesian_model), DATA, None, num_warmup=2, num_samples=2)


def test_mcmc_over_parameters_of_a_small_model_runs():
    mcmc = run_mcmc(NUTS(bayesian_model), DATA[:50], "auto", num_warmup=10, num_samples=10)
    assert np.isfinite(mcmc.get_samples()["weights"]).all()


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda function: jax.vmap(function, in_axes=0)])
def test_guard_survives_transformations(wrap):
    def log_prob(weights):
        return GaussianBernoulliRBM(weights, log_partition=None).log_prob(jnp.zeros(3)).sum()

    weights = jnp.zeros((2, 3, 2)) if wrap not in (jax.jit, jax.checkpoint) else jnp.zeros((3, 2))
    wrapped = wrap(log_prob)
    wrapped(weights)
    with pytest.raises(IntractablePartitionError):
        jax.grad(lambda w: wrapped(w).sum())(weights)
    with pytest.raises(IntractablePartitionError):
        jax.jvp(wrapped, (weights,), (jnp.ones_like(weights),))
    scanned = lambda w: jax.lax.scan(lambda total, _: (total + wrapped(w).sum(), None), 0.0, length=2)[0]
    with pytest.raises(IntractablePartitionError):
        jax.grad(scanned)(weights)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda function: jax.vmap(function)])
def test_derivatives_of_the_score_survive_transformations(wrap):
    """In reverse mode, and in forward mode where it is compiled; else forward mode raises, and names the score."""
    weights, value = 0.3 * jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[0.3, -1.0, 2.0]])
    score = jax.grad(lambda v, w: GaussianBernoulliRBM(w, log_partition=None).log_prob(v).sum())

    def loss(w):
        return (score(value, w) ** 2).sum()

    def exact(w):
        return (GaussianBernoulliRBM(w).score(value) ** 2).sum()

    wrapped = wrap(loss) if wrap in (jax.jit, jax.checkpoint) else lambda w: wrap(loss)(w[None]).sum()
    expected = jax.grad(exact)(weights)
    np.testing.assert_allclose(jax.grad(wrapped)(weights), expected, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(weights), expected, rtol=1e-9)
    with pytest.raises(IntractablePartitionError, match=r"score\(value\), or reverse mode"):
        jax.jacfwd(loss)(weights)


def test_detached_parameters_pass_the_guard():
    def log_prob(weights, value):
        return GaussianBernoulliRBM(jax.lax.stop_gradient(weights), log_partition=None).log_prob(value)

    gradients = jax.grad(log_prob, argnums=(0, 1))(jnp.ones((3, 2)), jnp.ones(3))
    np.testing.assert_array_equal(gradients[0], 0)
    assert np.abs(gradients[1]).min() > 0


def test_svi_is_exact_maximum_likelihood_for_a_small_model():
    """Trained from 0.1 everywhere, the likelihood comes near the true parameters' own and the moments match."""
    result = run_svi(learning_model, DATA, num_steps=2000)
    fitted = GaussianBernoulliRBM(**result.params)
    assert float(fitted.log_prob(DATA).mean()) > float(RBM.log_prob(DATA).mean()) - 0.02
    np.testing.assert_allclose(fitted.mean, DATA.mean(0), atol=0.03)


def test_svi_gradient_is_the_enumerated_one():
    """One evaluation of the ELBO's gradient inside a model, against the gradient of the plain log-likelihood."""
    params = {name: jnp.asarray(value) for name, value in ARGUMENTS.items()}

    def model(data):
        rbm = GaussianBernoulliRBM(**{name: numpyro.param(name, value) for name, value in params.items()})
        with numpyro.plate("data", len(data)):
            numpyro.sample("v", rbm, obs=data)

    loss = lambda p: Trace_ELBO().loss(jax.random.key(0), p, model, no_guide, DATA)
    got = jax.grad(loss)(params)
    expected = jax.grad(lambda p: -GaussianBernoulliRBM(**p).log_prob(DATA).sum())(params)
    for name in params:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-10)


def test_svi_with_an_estimated_partition_function_follows_exact_likelihood():
    estimator = lambda: infer.AnnealedImportanceSampling(num_chains=20, num_temperatures=30)
    exact = run_svi(learning_model, DATA)
    estimated = run_svi(learning_model, DATA, estimator)
    np.testing.assert_allclose(estimated.losses[-20:].mean(), exact.losses[-20:].mean(), rtol=0.02)


def _persistent(rbm):
    chains = numpyro.primitives.mutable("chains", {"value": jnp.zeros((100, 3))})
    return objectives.PersistentContrastiveDivergence(rbm, chains, num_steps=5)


@pytest.mark.parametrize(
    "criterion",
    [
        _persistent,
        pytest.param(lambda rbm: objectives.ContrastiveDivergence(rbm, num_steps=10), marks=pytest.mark.slow),
        objectives.ScoreMatching,
        pytest.param(lambda rbm: objectives.ScoreMatching(rbm, estimator="hutchinson"), marks=pytest.mark.slow),
    ],
    ids=["pcd", "cd", "score-matching", "hutchinson"],
)
def test_learning_criteria_train_in_svi(criterion):
    """Each criterion reaches the scales of the data's own model within 15 %, from scales of one."""
    result = run_svi(learning_model, DATA, None, criterion, num_steps=1500)
    np.testing.assert_allclose(result.params["scale"], P.scale, rtol=0.15)
    fitted = GaussianBernoulliRBM(**result.params)
    assert float(fitted.log_prob(DATA).mean()) > float(RBM.log_prob(DATA).mean()) - 0.1


def test_persistent_chains_live_on_between_updates():
    svi = SVI(learning_model, no_guide, numpyro.optim.Adam(0.0), Trace_ELBO())
    state = svi.init(jax.random.key(0), DATA, None, _persistent)
    first = state.mutable_state["chains"]["value"]
    state, _ = svi.update(state, DATA, None, _persistent)
    second = state.mutable_state["chains"]["value"]
    assert first.shape == (100, 3)
    assert not np.allclose(first, second)


def test_criteria_demand_a_key_outside_a_model():
    for make in (
        objectives.ContrastiveDivergence,
        lambda rbm: objectives.PersistentContrastiveDivergence(rbm, jnp.zeros((5, 3))),
        lambda rbm: objectives.ScoreMatching(rbm, estimator="hutchinson"),
        lambda rbm: GaussianBernoulliRBM(**ARGUMENTS, log_partition=infer.AnnealedImportanceSampling()),
    ):
        with pytest.raises(ValueError, match=r"^rng_key: .*expected a JAX PRNG key, got None"):
            make(RBM)
        with handlers.trace(), pytest.raises(ValueError, match="rng_key"):
            make(RBM)
        with handlers.seed(rng_seed=0):
            make(RBM)
    with pytest.raises(TypeError, match="rng_key"):
        objectives.ContrastiveDivergence(RBM, rng_key=0)
    with pytest.raises(ValueError, match=r"^key: "):
        RBM.sample(None)


@pytest.mark.parametrize("guide", [autoguide.AutoNormal, autoguide.AutoDelta])
@pytest.mark.parametrize(
    "strategy",
    [
        initialization.init_to_uniform,
        initialization.init_to_feasible,
        initialization.init_to_median,
        initialization.init_to_mean,
        initialization.init_to_sample,
        initialization.init_to_value(values={"v": jnp.zeros(3)}),
    ],
    ids=["uniform", "feasible", "median", "mean", "sample", "value"],
)
def test_autoguides_and_initialisation(guide, strategy):
    unknown = GaussianBernoulliRBM(**ARGUMENTS, log_partition=None)
    result = run_svi(latent_model, unknown, guide=guide(latent_model, init_loc_fn=strategy), num_steps=3)
    assert np.isfinite(result.losses).all()


def test_auto_delta_finds_the_mode():
    guide = autoguide.AutoDelta(latent_model)
    result = run_svi(latent_model, guide=guide, num_steps=1500)
    score = RBM.condition_on_noisy(OBSERVED, NOISE).score(result.params["v_auto_loc"])
    np.testing.assert_allclose(score, 0, atol=0.05)


def test_plates_masks_events_and_predictive():
    def model():
        with numpyro.plate("outer", 4):
            numpyro.sample("binary", BernoulliRBM(jnp.ones((3, 2))))
            numpyro.sample("masked", RBM.mask(jnp.array([True, False, True, True])))
        numpyro.sample("event", RBM.expand((4,)).to_event(1))

    trace = handlers.trace(handlers.seed(model, 0)).get_trace()
    assert trace["binary"]["value"].shape == (4, 3)
    masked = trace["masked"]["fn"].log_prob(trace["masked"]["value"])
    np.testing.assert_allclose(masked, RBM.log_prob(trace["masked"]["value"]) * np.array([1, 0, 1, 1]))
    event = trace["event"]["fn"].log_prob(trace["event"]["value"])
    np.testing.assert_allclose(event, RBM.log_prob(trace["event"]["value"]).sum())
    draws = Predictive(model, num_samples=5)(jax.random.key(0))
    assert draws["binary"].shape == (5, 4, 3)
    assert len(np.unique(np.asarray(draws["event"]).reshape(-1, 3), axis=0)) == 20


def test_conditioning_and_substitution_handlers():
    conditioned = handlers.condition(latent_model, data={"v": jnp.ones(3)})
    trace = handlers.trace(handlers.seed(conditioned, 0)).get_trace()
    assert trace["v"]["is_observed"]
    np.testing.assert_allclose(trace["v"]["fn"].log_prob(trace["v"]["value"]), RBM.log_prob(jnp.ones(3)))


def test_discrete_machine_is_refused_by_hmc():
    """NumPyro's own refusal of discrete latent sites must apply to the Bernoulli machine."""
    with pytest.raises(RuntimeError, match="discrete"):
        run_mcmc(NUTS(lambda: numpyro.sample("v", BernoulliRBM(jnp.ones((3, 2))))), num_warmup=1, num_samples=1)


DISTRIBUTIONS = {
    "bernoulli": BernoulliRBM(jnp.ones((3, 2))),
    "gaussian-bernoulli": RBM,
    "gaussian": GaussianRBM(0.2 * jnp.ones((3, 2))),
    "batched": GaussianBernoulliRBM(jnp.ones((4, 1, 3, 2)), visible_bias=jnp.ones((5, 3)), sampler=infer.Gibbs(3)),
    "unknown": GaussianBernoulliRBM(**ARGUMENTS, log_partition=None),
    "constant": GaussianBernoulliRBM(**ARGUMENTS, log_partition=1.5),
    "neural": NeuralEnergy(jnp.sum, (3,), log_partition=jnp.array(0.5)),
    "estimated": GaussianBernoulliRBM(
        **ARGUMENTS,
        log_partition=infer.AnnealedImportanceSampling(num_chains=5, num_temperatures=5, rng_key=jax.random.key(0)),
    ),
}


@pytest.mark.parametrize("name", siblings(DISTRIBUTIONS, [name for name in DISTRIBUTIONS if name != "estimated"]))
def test_distributions_are_pytrees(name):
    """They cross jit, scan, vmap, pickle and deepcopy with nothing lost."""
    distribution = DISTRIBUTIONS[name]
    value = jnp.ones((7,) + (1,) * len(distribution.batch_shape) + (3,))
    expected = distribution.log_prob(value)
    crossed = jax.jit(lambda d: jax.tree.map(lambda leaf: leaf, d))(distribution)
    picklable = [pickle.loads(pickle.dumps(distribution))] if name != "estimated" else []
    for other in [crossed, copy.deepcopy(distribution), *picklable]:
        assert type(other) is type(distribution)
        assert (other.batch_shape, other.event_shape) == (distribution.batch_shape, distribution.event_shape)
        assert other.sampler == distribution.sampler
        np.testing.assert_allclose(other.log_prob(value), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda d, v: d.log_prob(v))(distribution, value), expected, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(distribution.log_prob)(value), expected, rtol=1e-10)
    _, scanned = jax.lax.scan(lambda carry, v: (carry, carry.log_prob(v)), distribution, value)
    np.testing.assert_allclose(scanned, expected, rtol=1e-10)


def test_vmap_over_parameters_makes_a_batch():
    weights = jnp.stack([ARGUMENTS["weights"], 0 * ARGUMENTS["weights"]])
    got = jax.vmap(lambda w: GaussianBernoulliRBM(w).log_prob(jnp.ones(3)))(weights)
    np.testing.assert_allclose(got, GaussianBernoulliRBM(weights).log_prob(jnp.ones(3)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_follows_the_parameters(dtype):
    for cls in (BernoulliRBM, GaussianBernoulliRBM, GaussianRBM):
        rbm = cls(jnp.full((3, 2), 0.1, dtype), visible_bias=0.5)
        assert rbm.sample(jax.random.key(0), (2,)).dtype == dtype
        value = jnp.ones(3, dtype)
        results = (
            rbm.log_prob(value),
            rbm.score(value),
            rbm.laplacian(value),
            rbm.mean,
            rbm.variance,
            rbm.log_partition,
        )
        assert {result.dtype for result in results} == {jnp.dtype(dtype)}
        assert cls(jnp.full((3, 2), 0.1, dtype), log_partition=None).log_prob(value).dtype == dtype


def test_samples_are_detached():
    for sampler in (infer.Exact(), infer.Gibbs(5), infer.Hamiltonian(num_steps=4)):
        draw = lambda w, s=sampler: GaussianBernoulliRBM(w, sampler=s).sample(jax.random.key(0)).sum()
        np.testing.assert_array_equal(jax.grad(draw)(ARGUMENTS["weights"]), 0)
    assert not RBM.has_rsample
    assert not NeuralEnergy(jnp.sum, (2,)).has_rsample


def test_sampling_compiles_once_per_shape():
    """New parameters of the same shape reuse the compiled program; the count is of traces of the energy family."""
    traces = []

    class Counted(GaussianBernoulliRBM):
        def gibbs_step(self, rng_key, value):
            traces.append(1)
            return super().gibbs_step(rng_key, value)

    for seed in range(3):
        rbm = Counted(jnp.full((3, 2), 0.1 * seed), sampler=infer.Gibbs(5))
        rbm.sample(jax.random.key(seed), (10,))
        infer.run_chain(jax.random.key(seed), rbm, 4, num_chains=2)
        objectives.ContrastiveDivergence(rbm, rng_key=jax.random.key(seed)).log_prob(DATA)
    first = len(traces)
    assert first <= 6  # sample traces tuning and running, the chain and the criterion one scan each
    rbm.sample(jax.random.key(9), (10,))
    assert len(traces) == first
    rbm.sample(jax.random.key(9), (11,))
    assert len(traces) > first


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_normal_numbers(dtype):
    """Kolmogorov-Smirnov at a million draws, tails, and no correlation between neighbours or keys."""
    from scipy import stats

    from numpyro_ebm.sampling.random import normal

    draws = np.asarray(normal(jax.random.key(1), (1000, 1000), dtype), np.float64)
    assert np.isfinite(draws).all()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-5
    assert_mean(draws.ravel() ** 4, 3.0)
    assert_mean((np.abs(draws) > 4).ravel().astype(float), 2 * stats.norm.sf(4))
    others = np.asarray(normal(jax.random.key(2), (1000, 1000), dtype), np.float64)
    for first, second in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1]), (draws, others)):
        assert_mean((first * second).ravel(), 0.0)


def test_normal_numbers_at_the_ends(monkeypatch):
    """All bits zero and all bits one give the extreme finite numbers, of opposite signs."""
    from numpyro_ebm.sampling import random

    for word, sign in ((0, -1), (2**32 - 1, 1)):
        monkeypatch.setattr(random, "threefry2x32", lambda *words, word=word: (jnp.full(3, word, jnp.uint32),) * 2)
        for dtype, largest in ((jnp.float32, 5.42), (jnp.float64, 8.29)):
            draws = random.normal(jax.random.key(0), (3,), dtype)
            np.testing.assert_allclose(draws, sign * largest, atol=0.02)


def test_threefry_agrees_with_jax():
    from jax.extend.random import threefry_2x32

    from numpyro_ebm.sampling.random import threefry2x32

    key, words = jnp.array([123, 456], jnp.uint32), jnp.arange(10, dtype=jnp.uint32)
    got = jnp.concatenate(threefry2x32(key[0], key[1], words[:5], words[5:]))
    np.testing.assert_array_equal(got, threefry_2x32(key, words))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_bernoulli_draws(dtype, impl):
    """Marginals at ordinary and extreme logits, independence of neighbours, edges, and agreement under vmap."""
    from numpyro_ebm.sampling.random import bernoulli_from_logits

    key = jax.random.key(0, impl=impl)
    logits = jnp.array([-9.0, -3.0, -0.1, 0.0, 0.7, 3.0, 9.0], dtype)
    draws = np.asarray(bernoulli_from_logits(key, jnp.tile(logits, (300_000, 1))), float)
    prob = 1 / (1 + np.exp(-np.asarray(logits, float)))
    z = (draws.mean(0) - prob) / np.sqrt(prob * (1 - prob) / len(draws))
    assert np.all(np.abs(z) < MAX_Z)
    centred = (draws - prob) / np.sqrt(prob * (1 - prob))
    for shifted in (centred[:, 1:-2] * centred[:, 2:-1], centred[1:, 1:-1] * centred[:-1, 1:-1]):
        assert_mean(shifted, 0.0)
    edges = bernoulli_from_logits(key, jnp.array([jnp.inf, -jnp.inf, jnp.nan, 800.0, -800.0], dtype))
    np.testing.assert_array_equal(edges, [1, 0, np.nan, 1, 0])
    keys = jax.random.split(key, 4)
    mapped = jax.vmap(bernoulli_from_logits, in_axes=(0, None))(keys, logits)
    np.testing.assert_array_equal(mapped, jnp.stack([bernoulli_from_logits(k, logits) for k in keys]))


@pytest.mark.gpu
def test_sampling_stays_on_the_accelerator():
    device = jax.devices("gpu")[0]
    rbm = GaussianBernoulliRBM(jax.device_put(ARGUMENTS["weights"], device), sampler=infer.Gibbs(20))
    draws = rbm.sample(jax.random.key(0), (60_000,))
    assert draws.devices() == {device}
    p = Parameters(P.weights, 0 * P.visible_bias, 0 * P.hidden_bias, np.ones(3))
    assert_mean(np.asarray(draws), moments("GaussianBernoulliRBM", p)[0])


def _equinox_network():
    equinox = pytest.importorskip("equinox")
    return equinox.nn.MLP(3, "scalar", 8, 2, activation=jnp.tanh, key=jax.random.key(0))


def _flax_network():
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 8, rngs=rngs)
            self.second = nnx.Linear(8, 1, rngs=rngs)
            self.activation = jnp.tanh

        def __call__(self, value):
            return self.second(self.activation(self.first(value)))[..., 0]

    return Network(nnx.Rngs(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [pytest.param(_equinox_network, id="equinox"), pytest.param(_flax_network, id="flax", marks=pytest.mark.slow)],
)
def test_networks_as_energies(make):
    """Their arrays are data leaves: they cross jit, vmap, scan and pickle, and the guard sees them."""
    import cloudpickle

    network = make()
    distribution = NeuralEnergy(network, (3,))
    value = jax.random.normal(jax.random.key(1), (5, 3), distribution.dtype)
    expected = jnp.stack([-network(v) for v in value])
    assert len(jax.tree.leaves(distribution)) == len(jax.tree.leaves(eval_arrays(network)))
    np.testing.assert_allclose(distribution.log_prob(value), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda d, v: d.log_prob(v))(distribution, value), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(distribution.log_prob)(value), expected, rtol=1e-5)
    _, scanned = jax.lax.scan(lambda carry, v: (carry, carry.log_prob(v)), distribution, value)
    np.testing.assert_allclose(scanned, expected, rtol=1e-5)
    copied = cloudpickle.loads(cloudpickle.dumps(distribution))
    np.testing.assert_allclose(copied.log_prob(value), expected, rtol=1e-6)
    gradient = jax.grad(lambda v: distribution.log_prob(v).sum())(value)
    np.testing.assert_allclose(distribution.score(value), gradient, rtol=1e-5)
    with pytest.raises(IntractablePartitionError):
        jax.grad(lambda d: d.log_prob(value).sum(), allow_int=True)(distribution)
    matched = jax.grad(lambda d: objectives.ScoreMatching(d).log_prob(value).sum())(distribution)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(matched)) > 0
    assert distribution.sample(jax.random.key(0), (2,)).shape == (2, 3)


def eval_arrays(network):
    """The leaves of a network that are arrays."""
    return [leaf for leaf in jax.tree.leaves(network) if isinstance(leaf, jax.Array)]
