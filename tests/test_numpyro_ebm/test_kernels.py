"""Kernels inside ``numpyro.infer.MCMC``: exact moments, every way to run chains, composition, errors.

400 vectorised chains are the independent units of the gates; they hold at least 20,000 effective draws.
"""

import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, Gibbs

from backends import get_backend, siblings
from families.cases import make, parameters
from families.test_energies import plane_moments
from families.zoo import MACHINES
from numpyro_ebm import (
    BernoulliRBM,
    GaussianBernoulliRBM,
    IntractablePartitionError,
    MarkovNetwork,
    NeuralEnergy,
)
from numpyro_ebm.infer import (
    MALA,
    ULA,
    AnnealedImportanceSampling,
    BlockGibbs,
    Exchange,
    ParallelTempering,
    UnderdampedLangevin,
    run_chain,
)
from numpyro_ebm.infer import (
    Gibbs as GibbsSampler,
)
from oracles.statistics import assert_mean

pytestmark = pytest.mark.numpyro

NUM_CHAINS = 400
KERNELS = {
    "MALA": MALA,
    "MALA, variances": lambda model: MALA(model, preconditioner="variances"),
    "MALA, plain": lambda model: MALA(model, preconditioner=None),
    "underdamped": lambda model: UnderdampedLangevin(model, num_leapfrog=2),
    "tempering": lambda model: ParallelTempering(model, inverse_temperatures=[1.0, 0.5, 0.2], num_leapfrog=4),
    "block Gibbs": BlockGibbs,
}


BACKEND = get_backend("numpyro")


def rbm():
    return make(BACKEND, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM", visible=2, hidden=3, seed=5))


def energy(name):
    """An energy of the plane, its mean and its covariance."""
    if name == "GaussianBernoulliRBM":
        distribution = rbm()
        return distribution, np.asarray(distribution.mean), np.asarray(distribution.covariance_matrix)
    return MACHINES[name].make(BACKEND, log_partition=None), *plane_moments("numpyro", name)[1:]


def run(kernel, num_warmup, num_samples, *args, num_chains=1, chain_method="vectorized", seed=0, **options):
    run_options = {name: options.pop(name) for name in ("extra_fields", "init_params") if name in options}
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method=chain_method,
        progress_bar=False,
        **options,
    )
    mcmc.run(jax.random.key(seed), *args, **run_options)
    return mcmc


@pytest.mark.parametrize("kind", siblings(KERNELS, ["MALA", "tempering", "block Gibbs"]))
@pytest.mark.parametrize(
    "name", ["GaussianBernoulliRBM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mPoT", "mcRBM"))]
)
def test_moments(name, kind):
    distribution, mean, covariance = energy(name)
    kernel = KERNELS[kind](lambda: numpyro.sample("v", distribution))
    mcmc = run(kernel, 300, 400, num_chains=NUM_CHAINS)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    products = (draws - mean)[..., :, None] * (draws - mean)[..., None, :]
    assert_mean(draws.mean(1), mean)
    assert_mean(products.mean(1), covariance)
    assert min(effective_sample_size(draws[..., i]) for i in range(2)) > 20_000
    assert min(effective_sample_size(products[..., i, i]) for i in range(2)) > 20_000


@pytest.mark.parametrize("kind", siblings([name for name in KERNELS if name != "block Gibbs"], ["underdamped"]))
def test_unit_variance_without_couplings(kind):
    distribution = GaussianBernoulliRBM(jnp.zeros((2, 1)))
    mcmc = run(KERNELS[kind](lambda: numpyro.sample("v", distribution)), 300, 200, num_chains=NUM_CHAINS)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    assert_mean((draws**2).mean(1), 1.0)


def test_unadjusted_langevin_has_its_documented_bias():
    distribution = GaussianBernoulliRBM(jnp.zeros((2, 1)), scale=0.85)
    mcmc = run(ULA(lambda: numpyro.sample("v", distribution), step_size=0.8), 50, 200, num_chains=NUM_CHAINS)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    assert_mean((draws**2).mean(1), 0.85**2 / (1 - (0.8 / 1.7) ** 2))


def constrained_model(data):
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", len(data)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=data)


@pytest.mark.parametrize("kind", siblings(["MALA", "underdamped", "tempering"], ["MALA"]))
def test_a_constrained_posterior_against_quadrature(kind):
    data = jnp.array([1.0, 2.5, 0.3, 1.9])
    mcmc = run(KERNELS[kind](constrained_model), 500, 400, data, num_chains=NUM_CHAINS)
    loc, scale = np.meshgrid(np.linspace(-6, 8, 401), np.linspace(1e-3, 12, 600), indexing="ij")
    log_density = -0.5 * (loc / 3) ** 2 - 0.5 * (scale / 2) ** 2 - len(data) * np.log(scale)
    log_density -= 0.5 * (((np.asarray(data)[:, None, None] - loc) / scale) ** 2).sum(0)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    draws = mcmc.get_samples(group_by_chain=True)
    for name, grid in (("loc", loc), ("scale", scale)):
        values = np.asarray(draws[name])
        mean = (weights * grid).sum()
        assert_mean(values.mean(1), mean)
        assert_mean(((values - mean) ** 2).mean(1), (weights * (grid - mean) ** 2).sum())


@pytest.mark.filterwarnings("ignore:Some donated buffers")  # the host's loop, under jax.vmap also with its own HMC
@pytest.mark.parametrize("method", ["sequential", "vectorized", jax.vmap])
@pytest.mark.parametrize("kind", siblings(["MALA", "underdamped", "tempering", "block Gibbs"], ["MALA"]))
def test_every_chain_method(kind, method):
    distribution = rbm()
    kernel = KERNELS[kind](lambda: numpyro.sample("v", distribution))
    mcmc = MCMC(kernel, num_warmup=20, num_samples=30, num_chains=2, chain_method=method, progress_bar=False)
    mcmc.run(jax.random.split(jax.random.key(0)) if method is jax.vmap else jax.random.key(0))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    assert draws.shape == (2, 30, 2)
    assert np.isfinite(draws).all()
    assert np.abs(draws[0] - draws[1]).max() > 0.1
    assert (draws.std(1) > 0.1).all()


@pytest.mark.parametrize("kind", siblings(["MALA", "underdamped", "tempering", "block Gibbs"], ["MALA", "block Gibbs"]))
def test_continuing_is_one_long_run(kind):
    """The state after a run carries everything: a second run goes on bit for bit as one long run would."""
    distribution = rbm()
    kernel = lambda: KERNELS[kind](lambda: numpyro.sample("v", distribution))
    long = run(kernel(), 20, 30).get_samples()["v"]
    mcmc = run(kernel(), 20, 10)
    first = mcmc.get_samples()["v"]
    mcmc.post_warmup_state = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, _without_key(mcmc.last_state))))
    mcmc.post_warmup_state = mcmc.post_warmup_state._replace(rng_key=mcmc.last_state.rng_key)
    mcmc.num_samples = 20
    mcmc._set_collection_params()
    mcmc.run(mcmc.post_warmup_state.rng_key)
    np.testing.assert_array_equal(np.concatenate([first, mcmc.get_samples()["v"]]), long)


def _without_key(state):
    return state._replace(rng_key=jax.random.key_data(state.rng_key))


@pytest.mark.parametrize("kind", ["MALA", "tempering", "block Gibbs"])
def test_kernels_pickle_after_a_run(kind):
    distribution = rbm()
    kernel = KERNELS[kind](lambda: numpyro.sample("v", distribution))
    first = run(kernel, 10, 10).get_samples()["v"]
    again = run(cloudpickle.loads(cloudpickle.dumps(kernel)), 10, 10).get_samples()["v"]
    np.testing.assert_array_equal(first, again)


@pytest.mark.slow
def test_blocks_of_the_hosts_gibbs_recover_a_joint():
    """v from a machine whose bias is another latent site, by BlockGibbs and MALA in turn, against exact moments."""
    base = rbm()

    def model(observed):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        v = numpyro.sample("v", base)
        numpyro.sample("y", dist.Normal(v.sum() + loc, 1.0), obs=observed)

    kernel = Gibbs([(BlockGibbs(model), ["v"]), (MALA(model, step_size=0.5), ["loc"])])
    mcmc = MCMC(kernel, num_warmup=500, num_samples=3000, num_chains=8, chain_method="sequential", progress_bar=False)
    mcmc.run(jax.random.key(0), 2.0)
    draws = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    # v given y has the machine as its prior and y ~ Normal(v.sum(), sqrt(2)): importance weights over exact draws
    exact = np.asarray(base.sample(jax.random.key(1), (400_000,)))
    weights = np.exp(-0.25 * (2.0 - exact.sum(1)) ** 2)
    weights /= weights.sum()
    expected = {"v": weights @ exact, "loc": weights @ ((2.0 - exact.sum(1)) / 2)}
    for name, value in draws.items():
        flat = value.reshape(8, 3000, -1)
        size = min(effective_sample_size(flat[..., i]) for i in range(flat.shape[-1]))
        error = flat.std((0, 1)) * np.sqrt(1 / size + 1 / (0.1 * len(exact)))
        assert (np.abs(flat.mean((0, 1)) - expected[name]) < 4.5 * error).all(), name
        assert size > 1000


def test_blocks_of_the_hosts_gibbs_start_at_its_constrained_values():
    def model():
        rate = numpyro.sample("rate", dist.Gamma(300.0, 2.0))
        numpyro.sample("x", dist.Exponential(rate))

    kernel = Gibbs([(MALA(model), ["rate"]), (UnderdampedLangevin(model), ["x"])])
    state = kernel.init(jax.random.key(0), 5, {"x": jnp.array(0.25)}, (), {})
    np.testing.assert_allclose(state.block_states[1].z["x"], np.log(0.25))
    assert abs(jnp.exp(state.block_states[0].z["rate"]) - 150) < 50


def test_blocks_of_the_hosts_gibbs_refuse_supports_that_move():
    def model():
        top = numpyro.sample("top", dist.HalfNormal(1.0))
        numpyro.sample("x", dist.Uniform(0.0, top))

    with pytest.raises(ValueError, match=r"model: MALA as a block of Gibbs .* \['x'\]"):
        Gibbs([(MALA(model), ["x"]), (MALA(model), ["top"])]).init(jax.random.key(0), 5, None, (), {})
    assert run(MALA(model), 5, 5).get_samples()["x"].shape == (5,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Some donated buffers")
def test_exchange_as_a_block_beside_latent_machines():
    """The weight of machines whose values are latent too, by Exchange and BlockGibbs in turn, against a grid."""
    observed, noise = jnp.array([2.5, 1.9, -0.4]), 0.5

    def model():
        weight = numpyro.sample("weight", dist.Normal(0.0, 2.0))
        with numpyro.plate("data", 3):
            v = numpyro.sample("v", GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0))
            numpyro.sample("y", dist.Normal(v[..., 0], noise), obs=observed)

    kernel = Gibbs([(Exchange(model), ["weight"]), (BlockGibbs(model), ["v"])])
    mcmc = MCMC(kernel, num_warmup=200, num_samples=400, num_chains=100, chain_method=jax.vmap, progress_bar=False)
    mcmc.run(jax.random.split(jax.random.key(0), 100))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["weight"])
    grid, values = jnp.linspace(-6, 7, 1001), jnp.linspace(-9, 11, 800)

    def log_likelihood(weight):
        machine = GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0, validate_args=False)
        likelihood = dist.Normal(values[:, None], noise).log_prob(observed[None])
        return jax.scipy.special.logsumexp(machine.log_prob(values[:, None])[:, None] + likelihood, axis=0).sum()

    probability = np.asarray(jax.nn.softmax(jax.vmap(log_likelihood)(grid) - grid**2 / 8))
    assert_mean(draws.mean(1), probability @ np.asarray(grid))
    assert_mean((draws**2).mean(1), probability @ np.asarray(grid) ** 2)


def test_block_gibbs_corrects_for_everything_else_in_the_model():
    """With an observation of v the sweep is a proposal; without the correction the posterior would be the prior."""
    base = rbm()
    observation = jnp.array([1.0, -1.0])

    def model():
        v = numpyro.sample("v", base)
        numpyro.sample("y", dist.Normal(v, 1.5).to_event(1), obs=observation)

    mcmc = run(BlockGibbs(model), 100, 500, num_chains=NUM_CHAINS, extra_fields=("accept_prob",))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])
    exact = base.condition_on_noisy(observation, 1.5)
    assert_mean(draws.mean(1), np.asarray(exact.mean))
    centred = draws - np.asarray(exact.mean)
    products = centred[..., :, None] * centred[..., None, :]
    assert_mean(products.mean(1), np.asarray(exact.covariance_matrix))
    assert 0.1 < np.mean(mcmc.get_extra_fields()["accept_prob"]) < 0.95


@pytest.mark.slow
def test_block_gibbs_of_discrete_and_several_sites():
    weights = jnp.array([[1.5, -0.5], [0.3, 2.0], [-1.0, 0.4]])
    first, second = BernoulliRBM(weights, hidden_bias=0.3), BernoulliRBM(-weights, visible_bias=0.5)

    def model():
        a = numpyro.sample("a", first)
        with numpyro.plate("copies", 2):
            numpyro.sample("b", second)
        numpyro.deterministic("total", a.sum())

    mcmc = run(BlockGibbs(model), 50, 200, num_chains=NUM_CHAINS)
    draws = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    assert_mean(draws["a"].mean(1), np.asarray(first.mean))
    assert_mean(draws["b"].mean(1), np.broadcast_to(second.mean, (2, 3)))
    np.testing.assert_allclose(draws["total"], draws["a"].sum(-1))


def test_block_gibbs_moves_networks_by_reversible_sweeps():
    """A Markov network under a likelihood, against enumeration: a sweep in one direction would fail this."""
    tables = {(0, 1): jnp.array([[0.0, 1.5], [0.7, -0.5]]), (1, 2): jnp.array([[1.0, -1.0], [0.2, 0.4]])}
    network = MarkovNetwork([2, 2, 2], tables)
    effect = jnp.array([1.0, -2.0, 0.5])

    def model():
        v = numpyro.sample("v", network)
        numpyro.sample("y", dist.Normal((effect * v).sum(), 0.8), obs=1.0)

    mcmc = run(BlockGibbs(model), 50, 300, num_chains=NUM_CHAINS)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["v"], float)
    states = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    log_density = -np.asarray(network.energy(jnp.asarray(states)))
    log_density -= 0.5 * ((1.0 - states @ np.asarray(effect)) / 0.8) ** 2
    probability = np.exp(log_density - log_density.max())
    probability /= probability.sum()
    assert_mean(draws.mean(1), probability @ states)
    assert_mean((draws[..., 0] * draws[..., 2]).mean(1), probability @ (states[:, 0] * states[:, 2]))


def bimodal():
    """Two modes at distance 12 with the probabilities 0.3 and 0.7, and standard deviations 0.8."""
    distance = 12.0
    bias = np.log(0.7 / 0.3) - 0.5 * (distance / 0.8) ** 2
    return GaussianBernoulliRBM(
        jnp.array([[distance], [0.0]]), visible_bias=jnp.zeros(2), hidden_bias=jnp.array([bias]), scale=jnp.full(2, 0.8)
    )


@pytest.mark.slow
def test_tempering_crosses_where_gibbs_and_hamiltonian_chains_do_not():
    distribution = bimodal()
    model = lambda: numpyro.sample("v", distribution)
    np.testing.assert_allclose(float(distribution.mean[0]), 12 * 0.7, rtol=1e-6)
    for sampler in (None, GibbsSampler()):
        chain = run_chain(
            jax.random.key(0), distribution, 500, num_chains=8, sampler=sampler, initial=jnp.zeros((8, 2))
        )
        assert (chain[..., 0] < 6).all()
    nuts = run(NUTS(model), 200, 200, init_params={"v": jnp.zeros((4, 2))}, num_chains=4)
    assert (nuts.get_samples()["v"][:, 0] < 6).all()
    kernel = ParallelTempering(model, inverse_temperatures=np.geomspace(1, 0.01, 10), num_leapfrog=5)
    start = {"v": jnp.zeros((64, 2))}
    fields = ("swap_prob", "round_trips")
    mcmc = run(kernel, 500, 4000, init_params=start, num_chains=64, extra_fields=fields)
    right = np.asarray(mcmc.get_samples(group_by_chain=True)["v"])[..., 0] > 6
    error = right.mean(1).std() / np.sqrt(64)
    assert abs(right.mean() - 0.7) < 4.5 * error
    assert 4.5 * error < 0.03 * 0.7 * 1.5
    assert abs(right.mean() - 0.7) < 0.03 * 0.7
    extra = mcmc.get_extra_fields(group_by_chain=True)
    assert extra["swap_prob"].shape == (64, 4000, 9)
    assert (extra["swap_prob"][:, -1] > 0.2).all()
    assert (extra["round_trips"][:, -1] > 5).all()


def exchange_model(data, fraction=1.0):
    weight = numpyro.sample("weight", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(data)):
        machine = GaussianBernoulliRBM(fraction * weight[None, None], hidden_bias=-1.0, log_partition=None)
        numpyro.sample("v", machine, obs=data)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [None, pytest.param(GibbsSampler(num_steps=30), marks=pytest.mark.slow)])
def test_exchange_against_a_grid(sampler):
    """One unit, prior Normal(0, 2), 30 observations at 1.8."""
    truth = GaussianBernoulliRBM(jnp.array([[1.8]]), hidden_bias=-1.0)
    data = truth.sample(jax.random.key(3), (30,))

    def model(data):
        weight = numpyro.sample("weight", dist.Normal(0.0, 2.0))
        with numpyro.plate("data", len(data)):
            machine = GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0, log_partition=None, sampler=sampler)
            numpyro.sample("v", machine, obs=data)

    grid = jnp.linspace(-3, 5, 2001)
    exact = jax.vmap(
        lambda w: GaussianBernoulliRBM(w[None, None], hidden_bias=-1.0, validate_args=False).log_prob(data).sum()
    )
    log_density = np.asarray(exact(grid)) - np.asarray(grid) ** 2 / 8
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = weights @ np.asarray(grid)
    variance = weights @ (np.asarray(grid) - mean) ** 2
    mcmc = run(Exchange(model), 300, 400, data, num_chains=200, extra_fields=("accept_prob",))
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["weight"])
    assert_mean(draws.mean(1), mean)
    assert_mean(((draws - mean) ** 2).mean(1), variance)
    assert ((draws - mean) ** 2).mean(1).std() / np.sqrt(200) < 0.02 * variance  # or a chain that explodes would pass
    assert 0.15 < np.mean(mcmc.get_extra_fields()["accept_prob"]) < 0.5


def test_exchange_needs_a_normaliser_nowhere_and_others_refuse():
    """The same model under MALA raises."""
    data = jnp.ones((5, 1))
    with pytest.raises(IntractablePartitionError):
        run(MALA(exchange_model), 2, 2, data)
    assert run(Exchange(exchange_model), 2, 2, data).get_samples()["weight"].shape == (2,)


@pytest.mark.slow
def test_nuts_over_parameters_with_an_estimated_normaliser():
    """The key is that of the model, so the target is a function: near the exact posterior, and hundreds without Z."""
    data = GaussianBernoulliRBM(jnp.array([[1.8]]), hidden_bias=-1.0).sample(jax.random.key(3), (30,))
    estimator = AnnealedImportanceSampling(num_chains=500, num_temperatures=40)

    def model(log_partition):
        weight = numpyro.sample("weight", dist.Normal(0.0, 2.0))
        machine = GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0, log_partition=log_partition)
        with numpyro.plate("data", len(data)):
            numpyro.sample("v", machine, obs=data)

    found = [
        run(NUTS(model), 100, 600, policy, init_params={"weight": jnp.array(1.0)}).get_samples()["weight"]
        for policy in (estimator, "auto")
    ]
    assert abs(found[0].mean() - found[1].mean()) < 0.1
    assert abs(found[0].std() / found[1].std() - 1) < 0.3


def test_a_score_of_the_users_takes_the_place_of_differentiation():
    """A potential that cannot be differentiated, with its score, for one and for several chains."""
    potential = lambda z: 0.5 * jax.lax.stop_gradient(jnp.sum(z["x"] ** 2) + z["y"] ** 2 / 4)
    score = lambda z: {"x": -z["x"], "y": -z["y"] / 4}
    kernel = MALA(potential_fn=potential, score=score)
    start = {"x": jnp.ones((NUM_CHAINS, 3)), "y": jnp.zeros(NUM_CHAINS)}
    mcmc = run(kernel, 300, 200, num_chains=NUM_CHAINS, init_params=start)
    draws = mcmc.get_samples(group_by_chain=True)
    assert_mean((np.asarray(draws["x"]) ** 2).mean(1), 1.0)
    assert_mean((np.asarray(draws["y"]) ** 2).mean(1), 4.0)


def test_the_gradient_preconditioner_finds_the_scales_and_is_frozen():
    scales = np.array([0.01, 1.0, 50.0])
    potential = lambda z: 0.5 * jnp.sum((z / scales) ** 2)
    kernel = MALA(potential_fn=potential)
    fields = ("adapt_state.scale", "adapt_state.step_size", "accept_prob")
    mcmc = run(kernel, 3000, 500, init_params=jnp.asarray(scales), extra_fields=fields)
    extra = mcmc.get_extra_fields()
    np.testing.assert_allclose(extra["adapt_state.scale"][0] / scales, 1.0, rtol=0.35)
    assert np.ptp(np.asarray(extra["adapt_state.scale"]), axis=0).max() == 0
    assert np.ptp(np.asarray(extra["adapt_state.step_size"])) == 0
    assert 0.4 < extra["accept_prob"].mean() < 0.75


def test_arviz_reads_the_sample_statistics():
    from numpyro_ebm.diagnostics import to_arviz

    distribution = rbm()
    fields = ("accept_prob", "diverging", "potential_energy")
    mcmc = run(MALA(lambda: numpyro.sample("v", distribution)), 10, 20, num_chains=2, extra_fields=fields)
    data = to_arviz(mcmc)
    assert data["posterior"]["v"].shape == (2, 20, 2)
    assert {"diverging"} <= set(data["sample_stats"].data_vars)


def test_repeated_runs_do_not_recompile():
    """Functional samplers compile once for all keys and parameters of the same shapes."""
    counts = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: counts.append(event) if event.endswith("backend_compile_duration") else None
    )
    p = parameters("GaussianBernoulliRBM", visible=2, hidden=3, seed=5)
    for seed in range(4):
        distribution = make(BACKEND, "GaussianBernoulliRBM", p).replace(hidden_bias=jnp.full(3, 0.1 * seed))
        run_chain(jax.random.key(seed), distribution, 20, num_warmup=10, num_chains=3).block_until_ready()
        distribution.sample(jax.random.key(seed), (5,)).block_until_ready()
        if seed == 1:
            compiled = len(counts)
    assert compiled > 0
    assert len(counts) == compiled


def machine():
    return numpyro.sample("v", BernoulliRBM(jnp.ones((2, 1))))


BAD = [
    (lambda: MALA(), ValueError, "^model, potential_fn: MALA expected exactly one of them"),
    (lambda: MALA(lambda: None, lambda z: z, 0.1), TypeError, r"^MALA: expected 2 .*, got 3; write MALA\(model=None"),
    (lambda: Exchange(lambda: None, 0.1), TypeError, r"^Exchange: expected 1 .* write Exchange\(model, \*, step_size"),
    (lambda: BlockGibbs(lambda: None, 1), TypeError, r"^BlockGibbs: expected 1 .* write BlockGibbs\(model\)"),
    (lambda: run(MALA(potential_fn=lambda z: z), 1, 1), ValueError, "^init_params: MALA expected them"),
    (
        lambda: run(MALA(potential_fn=lambda z: z / 0), 1, 1, init_params=jnp.ones(())),
        ValueError,
        r"^init_params: expected a finite log-density, which chains \[0\] do not have",
    ),
    (lambda: run(BlockGibbs(lambda: None), 1, 1), ValueError, "^model: BlockGibbs expected at least one latent site"),
    (
        lambda: run(BlockGibbs(machine), 1, 1, init_params={"v": jnp.zeros((7, 2))}),
        ValueError,
        r"^init_params: expected values of site 'v' of shape \(2,\), got \(7, 2\)",
    ),
    (
        lambda: run(BlockGibbs(machine), 1, 1, init_params={"v": jnp.array([0.0, 3.0])}),
        ValueError,
        "^init_params: expected values of site 'v' inside",
    ),
    (
        lambda: MALA(potential_fn=lambda z: z).wrap_model(lambda m: m),
        ValueError,
        "^potential_fn: MALA .* block of Gibbs",
    ),
    (
        lambda: MALA(lambda: None, score=lambda z: z).wrap_model(lambda m: m),
        ValueError,
        "^score: MALA .* block of Gibbs",
    ),
    (lambda: MALA(lambda: None).get_constrain_fn(), RuntimeError, "^get_constrain_fn: MALA expected a call of init"),
    (lambda: MALA(lambda: None).sample(None, (), {}), RuntimeError, "^MALA: expected a call of init before sample"),
    (lambda: MALA(lambda: None, step_size=0.0), ValueError, "step_size"),
    (lambda: MALA(lambda: None, step_size="1"), TypeError, "^step_size: expected a positive number"),
    (lambda: MALA(lambda: None, preconditioner="adam"), ValueError, "preconditioner"),
    (lambda: MALA(lambda: None, target_accept_prob=1.0), ValueError, "target_accept_prob"),
    (lambda: ULA(lambda: None), TypeError, "step_size"),
    (lambda: UnderdampedLangevin(lambda: None, friction=0.0), ValueError, "friction"),
    (lambda: UnderdampedLangevin(lambda: None, num_leapfrog=0), ValueError, "num_leapfrog"),
    (lambda: ParallelTempering(lambda: None, inverse_temperatures=[1.0]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(lambda: None, inverse_temperatures=[0.5, 0.1]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(lambda: None, inverse_temperatures=[1.0, 1.2]), ValueError, "inverse_temperatures"),
    (lambda: BlockGibbs(None), TypeError, "model"),
    (lambda: Exchange(lambda: None, preconditioner="gradients"), ValueError, "preconditioner"),
    (lambda: run(BlockGibbs(lambda: numpyro.sample("x", dist.Normal(0, 1))), 1, 1), TypeError, "Normal at site 'x'"),
    (lambda: run(BlockGibbs(neural), 1, 1), TypeError, "conditionals"),
    (lambda: run(BlockGibbs(scaled), 1, 1), TypeError, "scale"),
    (lambda: run(BlockGibbs(nested), 1, 1), IntractablePartitionError, "partition"),
    (lambda: run(BlockGibbs(indexed), 1, 1), IntractablePartitionError, "depends on site 'v'"),
    (lambda: run(Exchange(lambda: numpyro.sample("x", dist.Normal(0, 1))), 1, 1), TypeError, "observed energy"),
    (lambda: run(Exchange(without_a_plate), 1, 1), ValueError, "put a plate around that site"),
    (lambda: run(Exchange(without_a_plate), 1, 1, True), ValueError, "put a plate around that site"),
]


def neural():
    numpyro.sample("x", NeuralEnergy(lambda x: (x**4).sum(), (2,)))


def scaled(scale=0.5):
    with numpyro.handlers.scale(scale=scale):
        numpyro.sample("v", rbm())


def without_a_plate(in_event=False):
    """One machine and one log Z for five data."""
    machine = GaussianBernoulliRBM(numpyro.sample("weight", dist.Normal(0.0, 2.0))[None, None])
    numpyro.sample("v", machine.expand([1]).to_event(1) if in_event else machine, obs=jnp.ones((5, 1)))


def nested():
    """A second machine of unknown normaliser whose bias depends on the value of the first."""
    v = numpyro.sample("v", rbm())
    numpyro.sample("u", GaussianBernoulliRBM(jnp.ones((2, 3)), hidden_bias=v.sum() * jnp.ones(3), log_partition=None))


def indexed():
    """The same, by the integers of a Markov network."""
    network = MarkovNetwork([3, 3], {(0, 1): jnp.ones((3, 3))})
    v = numpyro.sample("v", network)
    biases = jnp.array([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
    numpyro.sample("u", GaussianBernoulliRBM(jnp.ones((2, 3)), hidden_bias=biases[v[0]], log_partition=None))


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_scale_of_one_is_no_scale():
    np.testing.assert_array_equal(
        *(run(BlockGibbs(lambda scale=scale: scaled(scale)), 1, 3).get_samples()["v"] for scale in (1.0, np.ones(())))
    )
