"""Block Gibbs, parallel tempering and the exchange algorithm in Pyro, in ``BatchedMCMC`` and in the host's ``MCMC``.

Chains are independent, so every gate is on the averages of chains (``oracles.statistics``).
"""

import functools
import io
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.ops.stats import effective_sample_size  # noqa: E402

from backends import get_backend  # noqa: E402
from families.cases import make, parameters  # noqa: E402
from families.zoo import MACHINES  # noqa: E402
from oracles import energies as oracle  # noqa: E402
from oracles.statistics import assert_mean  # noqa: E402
from pyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
    IntractablePartitionError,
    MarkovNetwork,
    NeuralEnergy,
)
from pyro_ebm.infer import HMC, MALA, NUTS, AnnealedImportanceSampling, BatchedMCMC, Gibbs, run_chain  # noqa: E402
from pyro_ebm.infer.exchange import Exchange  # noqa: E402
from pyro_ebm.infer.gibbs import BlockGibbs  # noqa: E402
from pyro_ebm.infer.tempering import ParallelTempering, swap_neighbours  # noqa: E402
from pyro_ebm.sampling.adaptation import WarmupAdaptation  # noqa: E402

pytestmark = pytest.mark.pyro

BACKEND = get_backend("pyro")
DOUBLE = torch.float64
CHAINS = 400
LADDER = [1.0, 0.5, 0.2]


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


def scalar(value):
    return torch.tensor(value, dtype=DOUBLE)


def rbm():
    return make(BACKEND, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM", visible=2, hidden=3, seed=5))


def machine(name):
    """An energy of the plane of unknown normaliser, its mean and its covariance."""
    if name == "GaussianBernoulliRBM":
        distribution = rbm()
        return distribution, distribution.mean.numpy(), distribution.covariance_matrix.numpy()
    distribution = MACHINES[name].make(BACKEND, log_partition=None)
    grid, areas = oracle.plane_grid()
    return distribution, *oracle.grid_moments(-distribution.energy(torch.as_tensor(grid)).numpy(), grid, areas)[1:]


def run(kernel, num_samples, warmup_steps, *args, num_chains=CHAINS, **options):
    mcmc = BatchedMCMC(kernel, num_samples, warmup_steps, num_chains, disable_progbar=True, **options)
    mcmc.run(*args)
    return mcmc


def draws_of(kernel, num_samples, *args, **options):
    return run(kernel, num_samples, *args, **options).get_samples(group_by_chain=True)


def assert_chain_means(draws, expected):
    """``draws`` of shape ``(chain, draw, ...)`` have the mean ``expected``."""
    assert_mean(draws.double().mean(1).numpy(), np.asarray(expected))


def assert_moments(draws, mean, covariance):
    centred = draws - torch.as_tensor(mean)
    products = centred[..., :, None] * centred[..., None, :]
    assert_chain_means(draws, mean)
    assert_chain_means(products, covariance)
    return products


# ---------------------------------------------------------------------------------------------------- exact moments


@pytest.mark.parametrize("kind", ["block Gibbs", "tempering"])
@pytest.mark.parametrize("name", ["GaussianBernoulliRBM", "mcRBM", pytest.param("mPoT", marks=pytest.mark.slow)])
def test_moments(name, kind):
    distribution, mean, covariance = machine(name)
    if kind == "block Gibbs":
        kernel, options = BlockGibbs(lambda: pyro.sample("v", distribution)), {}
    else:
        kernel = ParallelTempering(
            potential_fn=lambda z: -distribution.unnormalized_log_prob(z["v"]),
            score=lambda z: {"v": distribution.score(z["v"])},
            inverse_temperatures=LADDER,
            num_leapfrog=4,
        )
        options = {"initial_params": {"v": torch.randn(CHAINS, 2, dtype=DOUBLE)}}
    draws = draws_of(kernel, 400, 150, **options)["v"]
    products = assert_moments(draws, mean, covariance)
    assert effective_sample_size(draws).min() > 20_000
    assert effective_sample_size(products.diagonal(dim1=-2, dim2=-1)).min() > 20_000


def test_tempering_without_couplings_is_a_normal_at_any_step():
    distribution = GaussianBernoulliRBM(torch.zeros(2, 1, dtype=DOUBLE), visible_bias=tensor(0.5, -2.0))
    kernel = ParallelTempering(
        lambda: pyro.sample("v", distribution), inverse_temperatures=[1.0, 0.3], num_leapfrog=1, step_size=1.7
    )
    draws = draws_of(kernel, 400, 0)["v"][:, 50:]
    assert_chain_means(draws, [0.5, -2.0])
    assert_chain_means((draws - tensor(0.5, -2.0)) ** 2, [1.0, 1.0])


def constrained_model(data):
    scale = pyro.sample("scale", dist.HalfNormal(scalar(2.0)))
    loc = pyro.sample("loc", dist.Normal(scalar(0.0), 3.0))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(loc, scale), obs=data)


def test_tempering_of_a_constrained_posterior_against_quadrature():
    data = tensor(1.0, 2.5, 0.3, 1.9)
    kernel = ParallelTempering(constrained_model, inverse_temperatures=LADDER, num_leapfrog=4)
    draws = draws_of(kernel, 250, 100, data)
    loc, scale = np.meshgrid(np.linspace(-6, 8, 401), np.linspace(1e-3, 12, 600), indexing="ij")
    log_density = -0.5 * (loc / 3) ** 2 - 0.5 * (scale / 2) ** 2 - len(data) * np.log(scale)
    log_density -= 0.5 * (((data.numpy()[:, None, None] - loc) / scale) ** 2).sum(0)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    for name, grid in (("loc", loc), ("scale", scale)):
        mean = (weights * grid).sum()
        assert_chain_means(draws[name], mean)
        assert_chain_means((draws[name] - mean) ** 2, (weights * (grid - mean) ** 2).sum())


# ---------------------------------------------------------------------------------------------------- block Gibbs


OBSERVATION = tensor(1.0, -1.0)


def noisy_model(observation=OBSERVATION):
    v = pyro.sample("v", rbm())
    pyro.sample("y", dist.Normal(v, 1.5).to_event(1), obs=observation)


def test_block_gibbs_corrects_for_everything_else_in_the_model():
    """With an observation of v the sweep is a proposal; without the correction the posterior would be the prior."""
    mcmc = run(BlockGibbs(noisy_model), 400, 100)
    exact = rbm().condition_on_noisy(OBSERVATION, 1.5)
    draws = mcmc.get_samples(group_by_chain=True)["v"]
    assert_moments(draws, exact.mean, exact.covariance_matrix)
    fields = mcmc.get_extra_fields()
    assert 0.1 < fields["accept_prob"].mean() < 0.95
    energy = rbm().energy(draws) + 0.5 * ((draws - OBSERVATION) / 1.5).square().sum(-1)
    torch.testing.assert_close(fields["potential_energy"].diff(dim=1), energy.diff(dim=1))


def test_block_gibbs_of_an_only_site_is_always_accepted():
    mcmc = run(BlockGibbs(lambda: pyro.sample("v", rbm())), 5, 5, num_chains=3)
    assert (mcmc.get_extra_fields()["accept_prob"] == 1).all()


def two_machines():
    weights = torch.tensor([[1.5, -0.5], [0.3, 2.0], [-1.0, 0.4]], dtype=DOUBLE)
    return BernoulliRBM(weights, hidden_bias=0.3), BernoulliRBM(-weights, visible_bias=0.5)


def several_sites():
    first, second = two_machines()
    pyro.sample("a", first)
    with pyro.plate("copies", 2):
        pyro.sample("b", second)


def test_block_gibbs_of_discrete_and_several_sites():
    draws = draws_of(BlockGibbs(several_sites), 200, 50)
    first, second = two_machines()
    assert_chain_means(draws["a"], first.mean)
    assert_chain_means(draws["b"], second.mean.expand(2, 3))
    assert set(draws["b"].unique().tolist()) == {0.0, 1.0}


def test_block_gibbs_of_machines_that_depend_on_each_other():
    """The bias of one is the other's value, and both are observed: against enumeration."""

    def model():
        a = pyro.sample("a", two_machines()[0])
        b = pyro.sample("b", BernoulliRBM(tensor(1.0, -2.0)[:, None], visible_bias=2 * a[..., :2] - a[..., 2:]))
        pyro.sample("y", dist.Normal(b.sum(-1) - a[..., 0], 0.9), obs=scalar(1.5))

    draws = draws_of(BlockGibbs(model), 300, 50)
    states = [(a, b) for a in itertools.product([0.0, 1.0], repeat=3) for b in itertools.product([0.0, 1.0], repeat=2)]
    log_density = []
    for a, b in states:
        trace = poutine.trace(poutine.condition(model, data={"a": tensor(*a), "b": tensor(*b)})).get_trace()
        log_density.append(trace.log_prob_sum())
    probability = torch.stack(log_density).softmax(0)
    a, b = (torch.tensor(values, dtype=DOUBLE) for values in zip(*states, strict=True))
    assert_chain_means(draws["a"], probability @ a)
    assert_chain_means(draws["b"], probability @ b)
    assert_chain_means(draws["a"][..., 0] * draws["b"][..., 1], probability @ (a[:, 0] * b[:, 1]))


EFFECT = tensor(1.0, -2.0, 0.5)


def network(**options):
    tables = {(0, 1): [[0.0, 1.5], [0.7, -0.5]], (1, 2): [[1.0, -1.0], [0.2, 0.4]]}
    return MarkovNetwork([2, 2, 2], {scope: tensor(*table) for scope, table in tables.items()}, **options)


def network_model():
    v = pyro.sample("v", network())
    pyro.sample("y", dist.Normal((EFFECT * v).sum(-1), 0.8), obs=scalar(1.0))


def test_block_gibbs_moves_networks_by_reversible_sweeps():
    """A Markov network under a likelihood, against enumeration: a sweep in one direction would fail this."""
    draws = draws_of(BlockGibbs(network_model), 300, 50)["v"]
    states = torch.tensor(list(itertools.product([0, 1], repeat=3)))
    log_density = -network().energy(states) - 0.5 * ((1.0 - states.double() @ EFFECT) / 0.8) ** 2
    probability = log_density.softmax(0)
    assert draws.dtype == torch.int64
    assert_chain_means(draws, probability @ states.double())
    assert_chain_means(draws[..., 0] * draws[..., 2], probability @ (states[:, 0] * states[:, 2]).double())


def test_block_gibbs_starts_at_draws_of_the_model_or_where_it_is_told():
    kernel = BlockGibbs(lambda: pyro.sample("v", rbm()))
    kernel.prepare(20_000, 0, None, (), {})
    kernel.start(20_000, None)
    assert_mean(kernel.state.chain.position.numpy(), rbm().mean.numpy())
    initial_params = {"v": torch.tensor([[0, 1, 1], [1, 0, 1]])}
    kernel = BlockGibbs(network_model)
    kernel.prepare(2, 0, initial_params, (), {})
    kernel.start(2, initial_params)
    assert torch.equal(kernel.state.chain.position, initial_params["v"].double())


def hopeless():
    pyro.sample("v", rbm())
    pyro.factor("f", scalar(-np.inf), has_rsample=False)


def summed_over_chains():
    v = pyro.sample("v", rbm())
    pyro.factor("f", -(v**2).sum(), has_rsample=False)


# ---------------------------------------------------------------------------------------------------- tempering


def bimodal():
    """Two modes at distance 12 with the probabilities 0.3 and 0.7, and standard deviations 0.8."""
    distance = 12.0
    bias = np.log(0.7 / 0.3) - 0.5 * (distance / 0.8) ** 2
    return GaussianBernoulliRBM(
        tensor([distance], [0.0]),
        visible_bias=torch.zeros(2, dtype=DOUBLE),
        hidden_bias=tensor(bias),
        scale=tensor(0.8, 0.8),
    )


def function_of(distribution):
    return {
        "potential_fn": lambda z: -distribution.unnormalized_log_prob(z["v"]),
        "score": lambda z: {"v": distribution.score(z["v"])},
    }


@pytest.mark.slow
def test_tempering_crosses_where_gibbs_and_hamiltonian_chains_do_not():
    distribution = bimodal()
    model = lambda: pyro.sample("v", distribution)
    np.testing.assert_allclose(float(distribution.mean[0]), 12 * 0.7, rtol=1e-6)
    start = {"v": torch.zeros(64, 2, dtype=DOUBLE)}
    for sampler in (None, Gibbs()):
        chain = run_chain(distribution, 500, num_chains=8, sampler=sampler, initial=torch.zeros(8, 2, dtype=DOUBLE))
        assert (chain[..., 0] < 6).all()
    for kernel in (BlockGibbs(model), HMC(**function_of(distribution)), NUTS(**function_of(distribution))):
        assert (draws_of(kernel, 200, 100, num_chains=64, initial_params=start)["v"][..., 0] < 6).all()
    kernel = ParallelTempering(
        **function_of(distribution), inverse_temperatures=np.geomspace(1, 0.01, 10), num_leapfrog=5
    )
    right = draws_of(kernel, 4000, 500, num_chains=64, initial_params=start)["v"][..., 0] > 6
    error = right.double().mean(1).std() / np.sqrt(64)
    assert abs(right.double().mean() - 0.7) < 4.5 * error
    assert 4.5 * error < 0.03 * 0.7 * 1.5
    assert abs(right.double().mean() - 0.7) < 0.03 * 0.7
    assert kernel.swap_prob.shape == (64, 9)
    assert (kernel.swap_prob > 0.2).all()
    assert kernel.round_trips.shape == (64,)
    assert (kernel.round_trips > 5).all()


def test_tempering_crosses_between_near_modes_and_counts_its_trips():
    """A fast relative of the bimodal machine: weights of two modes at distance 8 in units of their width."""
    log_weight = np.log(0.7 / 0.3)
    potential = lambda z: -torch.logaddexp(-0.5 * z["x"] ** 2, log_weight - 0.5 * (z["x"] - 8) ** 2)
    kernel = ParallelTempering(potential_fn=potential, inverse_temperatures=[1.0, 0.4, 0.15, 0.05], num_leapfrog=5)
    start = {"x": torch.zeros(200, dtype=DOUBLE)}
    draws = draws_of(kernel, 600, 100, num_chains=200, initial_params=start)["x"][:, 50:]
    assert_chain_means(draws > 4, 0.7)
    assert_chain_means(draws, 8 * 0.7)
    assert (kernel.round_trips > 5).all()
    assert (kernel.swap_prob.mean(0) > 0.3).all()


def test_swaps_are_metropolis_and_come_in_turn():
    log_density, betas = tensor([-1.0, -3.0, -2.0, -9.0]).repeat(100_000, 1), tensor(1.0, 0.5, 0.4, 0.1)
    exact = [np.exp(-1.0), 1.0, np.exp(-0.3 * 7)]
    for parity in (0, 1):
        places, swap_prob = swap_neighbours(log_density, betas, parity)
        np.testing.assert_allclose(swap_prob[0], exact)
        for pair in range(3):
            swapped = (places[:, pair] == pair + 1) & (places[:, pair + 1] == pair)
            assert_mean(swapped.double().numpy(), exact[pair] if pair % 2 == parity else 0.0)
        assert torch.equal(places.sort(-1).values, torch.arange(4).expand(100_000, 4))


def test_tempering_counts_only_after_warm_up_and_reports_the_cold_replica():
    distribution = rbm()
    kernel = ParallelTempering(**function_of(distribution), inverse_temperatures=LADDER, num_leapfrog=4)
    start = {"v": torch.zeros(5, 2, dtype=DOUBLE)}
    mcmc = run(kernel, 3, 60, num_chains=5, initial_params=start)
    assert (kernel.round_trips <= 2).all()  # of three transitions
    state = kernel.state.chain
    draws, fields = mcmc.get_samples(True)["v"], mcmc.get_extra_fields()
    assert torch.equal(draws[:, -1], state.positions[:, 0])
    torch.testing.assert_close(fields["potential_energy"], distribution.energy(draws))
    torch.testing.assert_close(state.log_densities, -distribution.energy(state.positions))
    torch.testing.assert_close(state.scores, distribution.score(state.positions))


def test_every_temperature_finds_its_step_size():
    """The step in ``exp(-beta x^4)`` grows as ``beta^-0.25``; after warm-up all chains have the same, for good."""
    betas = [1.0, 0.1, 0.01]
    kernel = ParallelTempering(potential_fn=lambda z: (z["x"] ** 4).sum(-1), inverse_temperatures=betas, num_leapfrog=3)
    start = {"x": torch.full((50, 2), 0.1, dtype=DOUBLE)}
    kernel.prepare(50, 300, start, (), {})
    kernel.start(50, start)
    accept_prob = []
    for index in range(400):
        kernel.advance()
        if index >= 300:
            accept_prob.append(kernel.state.chain.accept_probs)
    state = kernel.state.adaptation
    np.testing.assert_allclose(state.step_size * tensor(*betas) ** 0.25 / state.step_size[0], 1.0, rtol=0.15)
    assert (state.halvings == 0).all()
    np.testing.assert_allclose(torch.stack(accept_prob).mean((0, 1)), 0.8, atol=0.07)


def test_tempering_frees_chains_that_are_stuck():
    adaptation = WarmupAdaptation(10, 1.0, True, 0.8, None)
    position = torch.zeros(3, 2, dtype=DOUBLE)
    state = adaptation.init(position, tensor(1.0, 0.5))
    accept_probs = tensor([0.9, 0.9], [0.0, 0.9], [0.9, 0.0])
    after = adaptation.update(state, 0, accept_probs, position, position)
    assert after.halvings.tolist() == [[0, 0], [1, 0], [0, 1]]
    ratio = after.step_sizes / after.step_size
    assert ratio.tolist() == [[1, 1], [0.5, 1], [1, 0.5]]


# ---------------------------------------------------------------------------------------------------- exchange


def exchange_model(data, sampler=None, policy=None):
    weight = pyro.sample("weight", dist.Normal(scalar(0.0), 2.0))
    with pyro.plate("data", len(data)):
        pyro.sample(
            "v",
            GaussianBernoulliRBM(weight[..., None, None], hidden_bias=-1.0, log_partition=policy, sampler=sampler),
            obs=data,
        )


@functools.cache
def exchange_data():
    pyro.set_rng_seed(3)
    return GaussianBernoulliRBM(tensor([1.8]), hidden_bias=-1.0).sample((30,))


def exchange_moments(data):
    grid = torch.linspace(-3, 5, 2001, dtype=DOUBLE)
    machines = GaussianBernoulliRBM(grid[:, None, None, None], hidden_bias=-1.0)
    weights = (machines.log_prob(data).sum(-1) - grid**2 / 8).softmax(0)
    mean = weights @ grid
    return mean, weights @ (grid - mean) ** 2


@pytest.mark.parametrize(
    ("sampler", "num_samples", "policy"),
    [
        (None, 400, None),
        pytest.param(Gibbs(num_steps=30), 100, None, marks=pytest.mark.slow),
        pytest.param(None, 400, "auto", marks=pytest.mark.slow),
    ],
)
def test_exchange_against_a_grid(sampler, num_samples, policy):
    """One unit, prior Normal(0, 2), 30 observations at 1.8; the normaliser is not used where it is known either."""
    mcmc = run(Exchange(exchange_model), num_samples, 150, exchange_data(), sampler, policy, num_chains=200)
    draws = mcmc.get_samples(group_by_chain=True)["weight"]
    mean, variance = exchange_moments(exchange_data())
    assert_chain_means(draws, mean)
    assert_chain_means((draws - mean) ** 2, variance)
    spread = ((draws - mean) ** 2).mean(1).std() / len(draws) ** 0.5
    assert spread < 0.04 * variance  # or a chain that explodes would pass
    assert abs(mcmc.get_extra_fields()["accept_prob"].mean() - 0.3) < 0.05


def nested_data_and_two_sites(first, second):
    """A positive parameter that two observed machines share, one of them in nested plates and one in ``to_event``."""
    size = pyro.sample("size", dist.HalfNormal(scalar(1.0)))
    weights = size[..., None, None] * tensor([1.0], [-0.5])
    with pyro.plate("columns", 3, dim=-1), pyro.plate("rows", 4, dim=-2):
        pyro.sample("v", BernoulliRBM(weights, hidden_bias=-0.5, log_partition=None), obs=first)
    five = BernoulliRBM(-3 * weights[..., None, :, :], log_partition=None).expand((*size.shape, 5))
    pyro.sample("u", five.to_event(1), obs=second)


def test_exchange_with_several_sites_plates_and_a_transform():
    torch.manual_seed(4)
    first, second = (torch.rand(4, 3, 2) < 0.6).double(), (torch.rand(5, 2) < 0.3).double()
    draws = draws_of(Exchange(nested_data_and_two_sites), 300, 150, first, second, num_chains=200)["size"]
    grid = torch.linspace(1e-3, 6, 2000, dtype=DOUBLE)
    weights = grid[:, None, None] * tensor([1.0], [-0.5])
    log_prob = BernoulliRBM(weights[:, None], hidden_bias=-0.5).log_prob(first.reshape(-1, 2)).sum(-1)
    log_prob += BernoulliRBM(-3 * weights[:, None]).log_prob(second).sum(-1) - 0.5 * grid**2
    probability = log_prob.softmax(0)
    assert_chain_means(draws, probability @ grid)
    assert_chain_means(draws**2, probability @ grid**2)


def test_exchange_needs_a_normaliser_nowhere_and_others_refuse(monkeypatch):
    """The same model under MALA raises, and under Exchange no normaliser is ever computed."""
    data = torch.ones(5, 1, dtype=DOUBLE)
    with pytest.raises(IntractablePartitionError):
        run(MALA(exchange_model), 2, 2, data, num_chains=2)

    def refuse(self):
        raise AssertionError("a normaliser was computed")

    monkeypatch.setattr(GaussianBernoulliRBM, "_exact_log_partition", refuse)
    for policy in (None, "auto", 3.0):
        assert draws_of(Exchange(exchange_model), 2, 2, data, None, policy, num_chains=3)["weight"].shape == (3, 2)


# ---------------------------------------------------------------------------------------------------- hosts and drivers


KERNELS = {
    "block Gibbs": (lambda: BlockGibbs(noisy_model), ()),
    "block Gibbs of a network": (lambda: BlockGibbs(network_model), ()),
    "tempering": (lambda: ParallelTempering(noisy_model, inverse_temperatures=LADDER, num_leapfrog=4), ()),
    "exchange": (lambda: Exchange(exchange_model), (exchange_data(),)),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_pyro_mcmc_runs_every_kernel(kind):
    make_kernel, args = KERNELS[kind]
    num_samples = 400
    mcmc = pyro.infer.MCMC(make_kernel(), num_samples, warmup_steps=100, disable_progbar=True)
    mcmc.run(*args)
    (draws,) = mcmc.get_samples(group_by_chain=True).values()
    states = torch.tensor(list(itertools.product([0, 1], repeat=3)))
    if kind == "exchange":
        expected = exchange_moments(exchange_data())[0]
    elif "network" in kind:
        log_density = -network().energy(states) - 0.5 * ((1.0 - states.double() @ EFFECT) / 0.8) ** 2
        expected = log_density.softmax(0) @ states.double()
    else:
        expected = rbm().condition_on_noisy(OBSERVATION, 1.5).mean
    size = effective_sample_size(draws).clamp(max=num_samples).numpy()
    assert_mean(draws[0].numpy(), expected.numpy(), size)
    diagnostics = mcmc.diagnostics()
    assert diagnostics["divergences"] == {"chain 0": []}
    assert 0.1 < diagnostics["acceptance rate"]["chain 0"] <= 1
    if kind == "tempering":
        assert len(diagnostics["swap probability"]["chain 0"]) == 2
        assert diagnostics["round trips"]["chain 0"] > 5


@pytest.mark.parametrize("kind", KERNELS)
def test_progress_shows_plain_numbers(kind):
    make_kernel, args = KERNELS[kind]
    kernel = make_kernel()
    kernel.setup(2, *args)
    kernel.sample(kernel.initial_params)
    assert "acc. prob" in kernel.logging()
    assert all(isinstance(value, str) for value in kernel.logging().values())


@pytest.mark.parametrize("kind", KERNELS)
def test_batched_mcmc_has_its_fields_and_diagnostics(kind):
    make_kernel, args = KERNELS[kind]
    mcmc = run(make_kernel(), 6, 3, *args, num_chains=4)
    for name, values in mcmc.get_extra_fields().items():
        assert values.shape[:2] == (4, 6)
        assert values.dim() == (3 if name == "swap_prob" else 2)  # one for each pair of temperatures
    (draws,) = mcmc.get_samples(group_by_chain=True).values()
    assert draws.shape[:2] == (4, 6)
    assert list(mcmc.diagnostics()["acceptance rate"]) == [f"chain {index}" for index in range(4)]


@pytest.mark.parametrize("done", [10, 35])
@pytest.mark.parametrize("kind", KERNELS)
def test_saved_state_resumes_bit_for_bit(kind, done):
    """Stopped in the warm-up or while drawing, written to a file, and resumed by other objects."""
    make_kernel, args = KERNELS[kind]
    pyro.set_rng_seed(3)
    whole = run(make_kernel(), 30, 25, *args, num_chains=3)
    pyro.set_rng_seed(3)
    mcmc = BatchedMCMC(make_kernel(), 30, 25, 3, disable_progbar=True)
    advance = mcmc._advance

    def interrupted(index):
        if index == done:
            raise KeyboardInterrupt
        advance(index)

    mcmc._advance = interrupted
    with pytest.raises(KeyboardInterrupt) if done < 25 else pytest.warns(UserWarning, match="interrupted"):
        mcmc.run(*args)
    file = io.BytesIO()
    torch.save(mcmc.state_dict(), file)
    file.seek(0)
    pyro.set_rng_seed(99)
    other = BatchedMCMC(make_kernel(), 30, 25, 3, disable_progbar=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    other.resume(*args)
    for name, values in whole.get_samples(True).items():
        assert torch.equal(other.get_samples(True)[name], values)
    for name, values in whole.get_extra_fields().items():
        assert torch.equal(other.get_extra_fields()[name], values)
    if kind == "tempering":
        assert torch.equal(other.kernel.swap_prob, whole.kernel.swap_prob)
        assert torch.equal(other.kernel.round_trips, whole.kernel.round_trips)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["block Gibbs", "tempering", "exchange"])
def test_chains_stay_on_the_accelerator(kind):
    weights = torch.tensor([[1.0, -0.5], [0.3, 2.0]], device="cuda")
    model = lambda: pyro.sample("v", GaussianBernoulliRBM(weights))

    def observed():
        weight = pyro.sample("v", dist.Normal(torch.zeros((), device="cuda"), 1.0))
        pyro.sample("u", GaussianBernoulliRBM(weight[..., None, None]), obs=torch.ones(1, device="cuda"))

    kernel = {"block Gibbs": BlockGibbs(model), "tempering": ParallelTempering(model), "exchange": Exchange(observed)}
    mcmc = run(kernel[kind], 20, 20, num_chains=10)
    assert mcmc.get_samples()["v"].is_cuda
    assert mcmc.get_extra_fields()["accept_prob"].is_cuda


# ---------------------------------------------------------------------------------------------------- bad arguments


def empty():
    pass


def neural():
    pyro.sample("x", NeuralEnergy(lambda x: (x**4).sum(-1), (2,)))


def scaled():
    with poutine.scale(scale=0.5):
        pyro.sample("v", rbm())


def masked():
    with poutine.mask(mask=torch.tensor(True)):
        pyro.sample("v", rbm())


def masked_distribution():
    pyro.sample("v", rbm().mask(True))


def nested(**options):
    """A second machine of unknown normaliser whose bias depends on the value of the first."""
    v = pyro.sample("v", rbm())
    bias = v.sum(-1, keepdim=True) * torch.ones(3, dtype=DOUBLE)
    pyro.sample("u", GaussianBernoulliRBM(torch.ones(2, 3, dtype=DOUBLE), hidden_bias=bias, **options))


def nested_by_an_index():
    """Likewise, on a discrete value, which has no gradient."""
    v = pyro.sample("v", network())
    bias = tensor(0.0, 1.0)[v]
    pyro.sample("u", GaussianBernoulliRBM(torch.ones(2, 3, dtype=DOUBLE), hidden_bias=bias, log_partition=None))


def scaled_data(data):
    with poutine.scale(scale=0.5):
        exchange_model(data)


def latent_machine(data):
    """Beside the observed machine a latent one, whose unknown normaliser depends on the parameter too."""
    weight = pyro.sample("weight", dist.Normal(scalar(0.0), 2.0))
    machine = GaussianBernoulliRBM(weight[..., None, None], log_partition=None)
    pyro.sample("u", machine)
    pyro.sample("v", machine, obs=data[0])


def left_indexed(data):
    weight = pyro.sample("weight", dist.Normal(torch.zeros(2, dtype=DOUBLE), 2.0).to_event(1))
    pyro.sample("v", GaussianBernoulliRBM(weight[0] * torch.ones(1, 1, dtype=DOUBLE)), obs=data[0])


def without_a_plate(data, in_event=False):
    """One machine and one log Z for five data."""
    weight = pyro.sample("weight", dist.Normal(scalar(0.0), 2.0))
    machine = GaussianBernoulliRBM(weight[..., None, None])
    pyro.sample("v", machine.expand((*machine.batch_shape, 1)).to_event(1) if in_event else machine, obs=data)


DATA = torch.ones(5, 1, dtype=DOUBLE)
BAD = [
    (lambda: ParallelTempering(empty, inverse_temperatures=[1.0]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(empty, inverse_temperatures=[0.5, 0.1]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(empty, inverse_temperatures=[1.0, 1.2]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(empty, inverse_temperatures=[1.0, 0.0]), ValueError, "inverse_temperatures"),
    (lambda: ParallelTempering(empty, num_leapfrog=0), ValueError, "num_leapfrog: expected a positive integer"),
    (lambda: ParallelTempering(), ValueError, "model, potential_fn: ParallelTempering expected exactly one"),
    (lambda: ParallelTempering(empty, step_size=0.0), ValueError, "step_size: expected a positive number"),
    (
        lambda: ParallelTempering(empty, target_accept_prob=1),
        ValueError,
        "target_accept_prob: expected a number between",
    ),
    (lambda: run(ParallelTempering(summed_over_chains), 1, 1, num_chains=1), ValueError, "counts 8 replicas per chain"),
    (lambda: BlockGibbs(None), TypeError, "model: BlockGibbs expected a Pyro model, got None"),
    (lambda: run(BlockGibbs(empty), 1, 1), ValueError, "BlockGibbs expected at least one latent site"),
    (lambda: run(BlockGibbs(constrained_model), 1, 1, DATA), TypeError, "got HalfNormal at site 'scale'"),
    (lambda: run(BlockGibbs(neural), 1, 1), TypeError, "conditionals, got NeuralEnergy at site 'x'"),
    (lambda: run(BlockGibbs(scaled), 1, 1), TypeError, "scale=0.5 at site 'v'"),
    (lambda: run(BlockGibbs(masked), 1, 1), TypeError, "without mask and scale"),
    (lambda: run(BlockGibbs(masked_distribution), 1, 1), TypeError, "got MaskedEnergy at site 'v'"),
    (lambda: run(BlockGibbs(lambda: nested(log_partition=None)), 1, 1), IntractablePartitionError, "partition"),
    (lambda: run(BlockGibbs(lambda: nested(log_partition=1.0)), 1, 1), IntractablePartitionError, "partition"),
    (
        lambda: run(BlockGibbs(nested_by_an_index), 9, 9),
        IntractablePartitionError,
        "parameters that depend on site 'v'",
    ),
    (lambda: run(BlockGibbs(hopeless), 1, 1), ValueError, "no starting point .* in 100 draws of the model"),
    (lambda: run(BlockGibbs(summed_over_chains), 1, 1, num_chains=4), ValueError, "num_chains=1 any model runs"),
    (
        lambda: run(BlockGibbs(network_model), 1, 1, num_chains=1, initial_params={"v": torch.tensor([[0, 1, 2]])}),
        ValueError,
        "initial_params: expected values of site 'v' inside",
    ),
    (lambda: Exchange(empty, preconditioner="gradients"), ValueError, "preconditioner: Exchange expected 'variances'"),
    (lambda: Exchange(empty, step_size=-1.0), ValueError, "step_size: expected a positive number"),
    (lambda: run(Exchange(constrained_model), 1, 1, DATA[:, 0]), TypeError, "observed energy distribution, got none"),
    (lambda: run(Exchange(scaled_data), 1, 1, DATA), TypeError, "scale=0.5 at site 'v'"),
    (lambda: run(Exchange(without_a_plate), 1, 1, DATA), ValueError, "put a plate around that site"),
    (lambda: run(Exchange(without_a_plate), 1, 1, DATA, num_chains=1), ValueError, "put a plate around that site"),
    (lambda: run(Exchange(without_a_plate), 1, 1, DATA, True), ValueError, "put a plate around that site"),
    (lambda: run(Exchange(latent_machine), 1, 1, DATA), IntractablePartitionError, "partition"),
    (lambda: run(Exchange(left_indexed), 1, 1, DATA), ValueError, "num_chains=1 any model runs"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_unknown_normalisers_are_found_before_the_first_transition():
    with pytest.raises(IntractablePartitionError):
        BlockGibbs(lambda: nested(log_partition=None)).prepare(1, 0, None, (), {})
    with pytest.raises(IntractablePartitionError):
        Exchange(latent_machine).prepare(1, 0, None, (DATA,), {})


@pytest.mark.parametrize("num_chains", [1, 3])
def test_normalised_machines_may_depend_on_a_value(num_chains):
    """With exact normalisers the model is fine: u's normaliser counts in the acceptance of v."""
    mcmc = run(BlockGibbs(nested), 5, 5, num_chains=num_chains)
    assert mcmc.get_samples(group_by_chain=True)["u"].shape == (num_chains, 5, 2)
    assert mcmc.get_extra_fields()["accept_prob"].min() < 1


@pytest.mark.slow
def test_nuts_over_parameters_with_an_estimated_normaliser():
    """With a seed the target is a function of the weight: near the exact posterior, and hundreds without Z."""
    pyro.set_rng_seed(3)
    data = GaussianBernoulliRBM(tensor([1.8]), hidden_bias=-1.0).sample((30,))
    estimator = AnnealedImportanceSampling(num_chains=500, num_temperatures=30, seed=0)

    def model(log_partition):
        weight = pyro.sample("weight", dist.Normal(scalar(0.0), 2.0))
        machine = GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0, log_partition=log_partition)
        with pyro.plate("data", len(data)):
            pyro.sample("v", machine, obs=data)

    start = {"num_chains": 1, "initial_params": {"weight": tensor(1.0)}}
    found = [
        run(NUTS(model), count, 60, policy, **start).get_samples()["weight"]
        for policy, count in ((estimator, 150), ("auto", 600))
    ]
    assert abs(found[0].mean() - found[1].mean()) < 0.12
    assert abs(found[0].std() / found[1].std() - 1) < 0.4


def test_a_seeded_estimator_is_a_function_and_leaves_the_generator_alone():
    weights = tensor([1.0, -0.5], [0.3, 2.0])
    state = torch.get_rng_state()
    make_machine = lambda: BernoulliRBM(
        weights, log_partition=AnnealedImportanceSampling(num_chains=10, num_temperatures=10, seed=5)
    )
    assert make_machine().log_partition == make_machine().log_partition
    assert torch.equal(torch.get_rng_state(), state)
    unseeded = lambda: (
        BernoulliRBM(
            weights, log_partition=AnnealedImportanceSampling(num_chains=10, num_temperatures=10)
        ).log_partition
    )
    assert unseeded() != unseeded()
