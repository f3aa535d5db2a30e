"""Batched Markov chain Monte Carlo in Pyro: kernels against exact moments, the host's contract, and the driver.

Chains are independent, so every gate is on the averages of chains (``oracles.statistics``).
"""

import copy
import functools
import io
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer.mcmc.util import initialize_model  # noqa: E402
from pyro.ops.stats import effective_sample_size  # noqa: E402

from backends import get_backend, siblings  # noqa: E402
from families.zoo import MACHINES  # noqa: E402
from oracles import energies as oracle  # noqa: E402
from oracles.rbm import Parameters, moments  # noqa: E402
from oracles.statistics import assert_mean  # noqa: E402
from pyro_ebm import BernoulliRBM, GaussianBernoulliRBM  # noqa: E402
from pyro_ebm.diagnostics import to_arviz  # noqa: E402
from pyro_ebm.infer.hamiltonian import HMC, NUTS, no_u_turn_step  # noqa: E402
from pyro_ebm.infer.langevin import MALA, ULA, UnderdampedLangevin  # noqa: E402
from pyro_ebm.infer.mcmc import BatchedMCMC  # noqa: E402
from pyro_ebm.infer.potential import FunctionPotential, ModelPotential  # noqa: E402
from pyro_ebm.sampling import steps  # noqa: E402

pytestmark = pytest.mark.pyro

DOUBLE = torch.float64
P = Parameters.random(3, 2, seed=0, strength=0.8)
RBM = GaussianBernoulliRBM(
    **{name: torch.as_tensor(value) for name, value in P.arguments("GaussianBernoulliRBM").items()}
)
CHAINS = 500
ADJUSTED = {"MALA": MALA, "UnderdampedLangevin": UnderdampedLangevin, "HMC": HMC, "NUTS": NUTS}
KERNELS = {**ADJUSTED, "ULA": functools.partial(ULA, step_size=0.2)}
DRAWS = {"MALA": 300, "UnderdampedLangevin": 300, "HMC": 80, "NUTS": 60}
adjusted = pytest.mark.parametrize("name", ADJUSTED)
every = pytest.mark.parametrize("name", KERNELS)


def rbm_model(rbm=RBM):
    pyro.sample("v", rbm)


def rbm_score(params):
    return {"v": RBM.score(params["v"])}


def energy(distribution):
    """Arguments of a kernel that samples the site ``v`` of a distribution, much faster than from a model."""
    return {
        "potential_fn": lambda params: -distribution.unnormalized_log_prob(params["v"]),
        "score": lambda params: {"v": distribution.score(params["v"])},
    }


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


def run(kernel, num_samples, warmup_steps=150, *args, num_chains=CHAINS, **options):
    mcmc = BatchedMCMC(kernel, num_samples, warmup_steps, num_chains, disable_progbar=True, **options)
    mcmc.run(*args)
    return mcmc


def draws_of(kernel, num_samples, *args, **options):
    return run(kernel, num_samples, *args, **options).get_samples(group_by_chain=True)


def assert_chain_means(draws, expected):
    """``draws`` of shape ``(chain, draw, ...)`` have the mean ``expected``."""
    assert_mean(draws.mean(1).numpy(), np.asarray(expected))


def assert_rbm_moments(draws, mean, covariance):
    centred = draws - torch.as_tensor(mean)
    products = centred[..., :, None] * centred[..., None, :]
    assert effective_sample_size(draws).min() > 20_000
    assert_chain_means(draws, mean)
    assert_chain_means(products, covariance)


# ---------------------------------------------------------------------------------------------------- exactness


@adjusted
@pytest.mark.parametrize("preconditioner", ["gradients", "variances", pytest.param(None, marks=pytest.mark.slow)])
def test_moments_of_an_asymmetric_machine(name, preconditioner):
    """From a model, and from its energy and score."""
    if preconditioner == "gradients":
        kernel, initial_params = ADJUSTED[name](rbm_model, preconditioner=preconditioner), None
    else:
        kernel = ADJUSTED[name](**energy(RBM), preconditioner=preconditioner)
        initial_params = {"v": torch.zeros(CHAINS, 3, dtype=DOUBLE)}
    num_samples = DRAWS[name] * (1 if preconditioner else 2)
    draws = draws_of(kernel, num_samples, 100, initial_params=initial_params)["v"]
    assert_rbm_moments(draws, *moments("GaussianBernoulliRBM", P))


@pytest.mark.slow
@adjusted
@pytest.mark.parametrize("machine", ["mPoT", "mcRBM"])
def test_moments_of_machines_with_covariance_units(name, machine):
    distribution = MACHINES[machine].make(get_backend("pyro"), log_partition=None)
    grid, areas = oracle.plane_grid()
    log_density = distribution.unnormalized_log_prob(torch.as_tensor(grid)).numpy()
    initial_params = {"v": torch.zeros(CHAINS, 2, dtype=DOUBLE)}
    draws = draws_of(ADJUSTED[name](**energy(distribution)), 2 * DRAWS[name], initial_params=initial_params)["v"]
    assert_rbm_moments(draws, *oracle.grid_moments(log_density, grid, areas)[1:])


@adjusted
@pytest.mark.parametrize("step_size", [0.5, 1.4])
def test_unit_variance_without_weights(name, step_size):
    """W = 0 and scale 1 leave a standard normal at any step size, also one with many rejections."""
    normal = GaussianBernoulliRBM(torch.zeros(2, 1, dtype=DOUBLE), visible_bias=tensor(0.5, -2.0))
    kernel = ADJUSTED[name](**energy(normal), step_size=step_size, adapt_step_size=False, preconditioner=None)
    initial_params = {"v": torch.zeros(CHAINS, 2, dtype=DOUBLE)}
    draws = draws_of(kernel, 200, 20, initial_params=initial_params)["v"]
    assert_chain_means(draws, [0.5, -2.0])
    assert_chain_means((draws - tensor(0.5, -2.0)) ** 2, [1.0, 1.0])


def test_unadjusted_bias_is_the_formula():
    """The variance is ``s^2 / (1 - (step_size / (2 s))^2)``: above the target's, and less so for a smaller step."""
    scale, bias = tensor(0.5, 1.0), []
    for step_size in (0.3, 0.6):
        kernel = ULA(potential_fn=lambda z: 0.5 * ((z["x"] / scale) ** 2).sum(-1), step_size=step_size)
        draws = draws_of(kernel, 600, 100, initial_params={"x": torch.zeros(CHAINS, 2, dtype=DOUBLE)})["x"]
        expected = scale**2 / (1 - (step_size / (2 * scale)) ** 2)
        assert_chain_means(draws**2, expected)
        bias.append((draws**2).mean((0, 1)) - scale**2)
    assert (bias[0] > 0).all()
    assert (bias[0] < bias[1]).all()


OBSERVED, NOISE = tensor(-0.5, 0.4, 1.6), 0.4


def hierarchical_model(observed):
    mean = pyro.sample("mean", dist.Normal(tensor(0.0)[0], 1.0))
    scale = pyro.sample("scale", dist.LogNormal(tensor(0.0)[0], 0.5))
    with pyro.plate("groups", len(observed)):
        effect = pyro.sample("effect", dist.Normal(mean, scale))
        pyro.sample("y", dist.Normal(effect, NOISE), obs=observed)
    pyro.deterministic("spread", scale**2)


def hierarchical_moments():
    """Quadrature over mean and log scale; the effects are Gaussian given these."""
    mean, log_scale = np.meshgrid(np.linspace(-5, 5, 801), np.linspace(-3, 3, 601), indexing="ij")
    variance, y = np.exp(2 * log_scale), OBSERVED.numpy()[:, None, None]
    total = variance + NOISE**2
    log_density = -0.5 * mean**2 - 2 * log_scale**2 - 0.5 * ((y - mean) ** 2 / total + np.log(total)).sum(0)
    weights = np.exp(log_density - log_density.max())
    average = lambda values: (weights * values).sum((-2, -1)) / weights.sum()
    return {
        "mean": average(mean),
        "scale": average(np.exp(log_scale)),
        "effect": average(mean + variance / total * (y - mean)),
    }, {"mean": average(mean**2), "scale": average(variance)}


@pytest.mark.parametrize("name", siblings(ADJUSTED, ["MALA"]))
def test_hierarchical_model_with_plates_and_a_positive_scale(name):
    num_samples, num_warmup = {"HMC": (40, 60), "NUTS": (30, 60)}.get(name, (300, 200))
    options = {"max_tree_depth": 5} if name == "NUTS" else {}
    mcmc = run(ADJUSTED[name](hierarchical_model, **options), num_samples, num_warmup, OBSERVED)
    draws = mcmc.get_samples(group_by_chain=True)
    assert list(draws) == ["mean", "scale", "effect"]
    assert (draws["scale"] > 0).all()
    first, second = hierarchical_moments()
    for site, expected in first.items():
        assert_chain_means(draws[site], expected)
    for site, expected in second.items():
        assert_chain_means(draws[site] ** 2, expected)
    assert max(mcmc.diagnostics()[site]["r_hat"].max() for site in first) < 1.05


def test_jitter_stays_in_its_interval(monkeypatch):
    sizes, leapfrog = [], steps.leapfrog

    def recorded(target, state, momentum, step_size, *rest):
        sizes.append(step_size)
        return leapfrog(target, state, momentum, step_size, *rest)

    monkeypatch.setattr(steps, "leapfrog", recorded)
    run(HMC(rbm_model, step_size=2.0, adapt_step_size=False, jitter=0.3), 20, 1)
    sizes = torch.stack(sizes)
    assert 1.4 <= sizes.min() < 1.41
    assert 2.59 < sizes.max() <= 2.6


# ---------------------------------------------------------------------------------------------------- no U-turns


def counted_normal():
    """A standard normal target and the number of times its score was taken."""
    calls = []

    def score(position):
        calls.append(1)
        return -position

    return steps.Target(lambda x: -0.5 * (x**2).sum(-1), score), calls


@pytest.mark.parametrize(("step_size", "least", "most"), [(0.1, 31, 63), (0.4, 7, 15), (1.0, 3, 3)])
def test_trajectories_are_about_half_a_period(step_size, least, most):
    """A normal target's orbits turn after a time of pi: trees of ``2^k - 1`` leapfrog steps that just hold it."""
    target, calls = counted_normal()
    counts = []
    for _ in range(50):
        state = steps.init(target, torch.randn(1, 2, dtype=DOUBLE))
        calls.clear()
        no_u_turn_step(state, target, torch.full((1,), step_size, dtype=DOUBLE))
        counts.append(len(calls))
    assert least / 4 < np.mean(counts) <= most
    assert most in counts or least in counts


def test_tree_depth_is_bounded():
    target, calls = counted_normal()
    state = steps.init(target, torch.zeros(5, 2, dtype=DOUBLE))
    calls.clear()
    no_u_turn_step(state, target, torch.full((5,), 1e-3, dtype=DOUBLE), max_tree_depth=3)
    assert len(calls) == 7


def test_chains_of_a_batch_grow_trees_of_their_own():
    """Chains with step sizes from tiny to useless in one batch: each keeps its normal distribution."""
    target, _ = counted_normal()
    step_size = tensor(0.3, 1.0, 1.9, 2.5).repeat(2_000)
    state = steps.init(target, torch.randn(8_000, 2, dtype=DOUBLE))
    for _ in range(10):
        state, info = no_u_turn_step(state, target, step_size)
    by_size = state.position.reshape(2_000, 4, 2)
    assert_mean(by_size.numpy(), 0.0)
    assert_mean(by_size.numpy() ** 2, 1.0)
    assert_mean(by_size.numpy() ** 4, 3.0)
    accept_prob = info.accept_prob.reshape(2_000, 4).mean(0)
    assert (accept_prob.diff() < 0).all()
    assert accept_prob[0] > 0.95


# ---------------------------------------------------------------------------------------------------- warm-up


@adjusted
@pytest.mark.parametrize("num_chains", [1, 100])
@pytest.mark.parametrize("preconditioner", ["gradients", pytest.param("variances", marks=pytest.mark.slow)])
def test_warm_up_finds_scales_and_step_size(name, num_chains, preconditioner):
    """Of a normal distribution with scales from 0.1 to 10, both preconditioners are its standard deviations."""
    scale = tensor(0.1, 1.0, 10.0)
    normal = GaussianBernoulliRBM(torch.zeros(3, 1, dtype=DOUBLE), visible_bias=1.0, scale=scale)
    options = {"max_tree_depth": 4} if name == "NUTS" else {}
    kernel = ADJUSTED[name](**energy(normal), preconditioner=preconditioner, **options)
    initial_params = {"v": 2 * torch.randn(num_chains, 3, dtype=DOUBLE)}
    hamiltonian = name in ("HMC", "NUTS")
    num_warmup = (300 if hamiltonian else 1000) if num_chains == 1 else (200 if hamiltonian else 500)
    mcmc = run(kernel, 1, num_warmup, num_chains=num_chains, initial_params=initial_params)
    state = mcmc.kernel.state.adaptation
    ratio = state.scale / scale
    assert (ratio > (0.5 if num_chains == 1 else 0.75)).all()
    assert (ratio < (2.0 if num_chains == 1 else 1.3)).all()
    assert 0.3 < state.step_size < 3


@adjusted
def test_step_size_reaches_the_target_and_then_stays(name):
    kernel = ADJUSTED[name](**energy(RBM), target_accept_prob=0.7)
    initial_params = {"v": torch.zeros(100, 3, dtype=DOUBLE)}
    kernel.prepare(100, 250, initial_params, (), {})
    kernel.start(100, initial_params)
    for _ in range(250):
        kernel.advance()
    frozen, accept_prob = kernel.state.adaptation, []
    for _ in range(100):
        accept_prob.append(kernel.advance().accept_prob)
        assert kernel.state.adaptation is frozen
    assert abs(torch.stack(accept_prob).mean() - 0.7) < 0.07
    torch.testing.assert_close(kernel.state.accept_prob, torch.stack(accept_prob).mean(0))


@adjusted
def test_few_stuck_chains_are_freed_in_the_warm_up(name):
    """Two chains of a hundred start where the others' step size is far too long, and a mean does not see them."""
    kernel = ADJUSTED[name](potential_fn=lambda z: (0.5 * z["x"] ** 2 + 0.1 * z["x"] ** 4).sum(-1))
    start = torch.randn(100, 2, dtype=DOUBLE)
    start[:2] = 40.0
    mcmc = run(kernel, 50, 150, num_chains=100, initial_params={"x": start})
    assert (mcmc.get_extra_fields()["accept_prob"].mean(1) > 0.3).all()
    assert mcmc.get_samples()["x"].abs().max() < 10
    assert len(set(kernel.state.adaptation.step_sizes.tolist())) == 1


def test_end_warmup_freezes():
    kernel = MALA(rbm_model)
    kernel.setup(1000)
    params = kernel.initial_params
    for _ in range(10):
        params = kernel.sample(params)
    kernel.end_warmup()
    frozen = kernel.state.adaptation
    kernel.sample(params)
    assert kernel.state.adaptation is frozen
    assert kernel.diagnostics()["divergences"] == []


# ---------------------------------------------------------------------------------------------------- targets


def nested_plates():
    rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1)
    scale = pyro.sample("scale", dist.HalfNormal(tensor(1.0)[0]))
    with rows:
        row = pyro.sample("row", dist.Normal(tensor(0.0)[0], scale))
    with columns:
        column = pyro.sample("column", dist.Normal(torch.zeros(2, 4, dtype=DOUBLE), 1.0).to_event(1))
    with rows, columns:
        pyro.sample("y", dist.Normal(row + column[..., 0], 1.0), obs=torch.ones(3, 2, dtype=DOUBLE))


def constrained_sites():
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3, dtype=DOUBLE)))
    pyro.sample("correlation", dist.LKJCholesky(3, tensor(2.0)[0]))
    pyro.sample("interval", dist.Uniform(tensor(-1.0, 0.0), tensor(1.0, 5.0)).to_event(1))
    pyro.sample("y", dist.Categorical(weights), obs=torch.tensor(1))


def scaled_masked_and_factored():
    with poutine.scale(scale=3.0), poutine.mask(mask=torch.tensor([True, False])):
        x = pyro.sample("x", dist.Normal(tensor(0.0, 1.0), 2.0))
    pyro.deterministic("shifted", x + 1)
    pyro.factor("f", -(x**4).sum(-1, keepdim=True))


def sequential_plate():
    scale = pyro.sample("scale", dist.Exponential(tensor(1.0)[0]))
    for index in pyro.plate("sequence", 3):
        pyro.sample(f"x{index}", dist.Normal(tensor(0.0)[0], scale))


def observed_energy():
    bias = pyro.sample("bias", dist.Normal(torch.zeros(3, dtype=DOUBLE), 1.0).to_event(1))
    with pyro.plate("data", 5):
        pyro.sample("v", GaussianBernoulliRBM(RBM.weights, visible_bias=bias), obs=torch.ones(5, 3, dtype=DOUBLE))


MODELS = [nested_plates, constrained_sites, scaled_masked_and_factored, sequential_plate, observed_energy, rbm_model]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("num_chains", [1, 2, 7])
def test_log_density_is_the_hosts(model, num_chains):
    _, potential_fn, transforms, _ = initialize_model(model)
    potential = ModelPotential(model)
    potential.verify(num_chains)
    state = potential.start(num_chains)
    params = potential.unflatten(state.position)
    values = potential.constrain(state.position)
    assert set(params) == set(transforms)
    for chain in range(num_chains):
        alone = {name: value[chain] for name, value in params.items()}
        torch.testing.assert_close(state.log_density[chain], -potential_fn(alone))
        for name, transform in transforms.items():
            torch.testing.assert_close(values[name][chain], transform.inv(alone[name]))
    torch.testing.assert_close(potential.flatten(params), state.position)


def data_on_the_left():
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2, dtype=DOUBLE), 1.0).to_event(1))
    with pyro.plate("data", 5):
        pyro.sample("y", dist.Normal(torch.ones(5, 2, dtype=DOUBLE) @ weights, 1.0), obs=torch.ones(5, dtype=DOUBLE))


def indexed_from_the_left():
    x = pyro.sample("x", dist.Normal(torch.zeros(4, dtype=DOUBLE), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(x[0], 1.0), obs=tensor(1.0)[0])


def summed_over_chains():
    x = pyro.sample("x", dist.Normal(torch.zeros(4, dtype=DOUBLE), 1.0).to_event(1))
    pyro.factor("f", -(x**2).sum())


def shaped_by_hand():
    x = pyro.sample("x", dist.Normal(torch.zeros(4, dtype=DOUBLE), 1.0).to_event(1))
    pyro.factor("f", -(x.reshape(2, 2) ** 2).sum())


@pytest.mark.parametrize(
    "model",
    [data_on_the_left, indexed_from_the_left, summed_over_chains, shaped_by_hand],
    ids=lambda model: model.__name__,
)
def test_models_that_do_not_vectorise(model):
    """They are refused for any number of chains, also one that fits by accident, and run as a single chain."""
    for num_chains in (2, 4, 5, 10):
        with pytest.raises(ValueError, match=r"model: (?s:.)*num_chains=1 any model runs"):
            run(MALA(model), 5, 5, num_chains=num_chains)
    assert all(draws.shape[:2] == (1, 5) for draws in draws_of(MALA(model), 5, 5, num_chains=1).values())


def test_functions_that_mix_chains_are_refused():
    initial_params = {"x": torch.zeros(4, 2)}
    with pytest.raises(ValueError, match="potential_fn: as one batch of 4"):
        run(MALA(potential_fn=lambda z: (z["x"] - z["x"].mean(0)).square().sum(-1)), 5, 5, num_chains=4,
            initial_params=initial_params)  # fmt: skip


def discrete():
    pyro.sample("x", dist.Bernoulli(0.5))


def discrete_energy():
    pyro.sample("x", BernoulliRBM(torch.ones(2, 2)))


def subsampled():
    with pyro.plate("data", 10, subsample_size=5):
        pyro.sample("x", dist.Normal(0.0, 1.0))


def moving_support():
    top = pyro.sample("top", dist.HalfNormal(1.0))
    pyro.sample("x", dist.Uniform(0.0, top))


def varying_sites():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    for index in range(2 + 2 * int(torch.rand(()) < 0.5) + 0 * int(x)):
        pyro.sample(f"x{index}", dist.Normal(0.0, 1.0))


def impossible():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("f", torch.full_like(x, -torch.inf), has_rsample=False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: None, "at least one latent site"),
        (discrete, "the discrete site 'x'"),
        (discrete_energy, "the discrete site 'x'"),
        (subsampled, "plate 'data' with subsample_size=5"),
        (moving_support, "support of site 'x' depends on other sites"),
        (varying_sites, "the same latent sites in every run"),
        (impossible, "no finite log-density"),
    ],
)
@pytest.mark.parametrize("num_chains", [1, 3])
def test_models_that_are_refused(model, message, num_chains):
    with pytest.raises(ValueError, match=message):
        run(MALA(model), 10, 10, num_chains=num_chains)  # among them is a lottery


@every
def test_given_score_is_used_and_autograd_is_not(name, monkeypatch):
    calls = []

    def score(params):
        calls.append(params["v"].shape)
        return rbm_score(params)

    pyro.set_rng_seed(1)
    expected = draws_of(KERNELS[name](rbm_model), 10, 10, num_chains=20)["v"]

    def refuse(*args, **kwargs):
        raise AssertionError("autograd was used")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    pyro.set_rng_seed(1)
    draws = draws_of(KERNELS[name](rbm_model, score=score), 10, 10, num_chains=20)["v"]
    torch.testing.assert_close(draws, expected)
    assert set(calls) == {(20, 3)}


def test_single_precision_and_random_state():
    model = lambda: pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    first = draws_of(NUTS(model), 10, 10, num_chains=4)["x"]
    pyro.set_rng_seed(0)
    second = draws_of(NUTS(model), 10, 10, num_chains=4)["x"]
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert not first.requires_grad


@pytest.mark.gpu
@every
def test_chains_stay_on_the_accelerator(name):
    mean = torch.zeros(2, device="cuda")
    mcmc = run(KERNELS[name](lambda: pyro.sample("x", dist.Normal(mean, 1.0).to_event(1))), 20, 20, num_chains=10)
    assert mcmc.get_samples()["x"].is_cuda
    assert mcmc.get_extra_fields()["accept_prob"].is_cuda
    assert "cuda:0" in mcmc.state_dict()["generators"]


# ---------------------------------------------------------------------------------------------------- Pyro's own MCMC


@every
def test_pyro_mcmc_runs_every_kernel(name):
    """One chain, against the exact posterior under a Gaussian likelihood; ULA's step is small enough for its bias."""
    observed, noise = tensor(1.0, 0.0, -1.0), 0.6

    def model():
        pyro.sample("y", dist.Normal(pyro.sample("v", RBM), noise).to_event(1), obs=observed)

    num_samples = {"HMC": 80, "NUTS": 80}.get(name, 400)
    mcmc = pyro.infer.MCMC(KERNELS[name](model), num_samples, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples(group_by_chain=True)["v"]
    exact = RBM.condition_on_noisy(observed, noise)
    assert draws.shape == (1, num_samples, 3)
    assert_mean(draws[0].numpy(), exact.mean.numpy(), effective_sample_size(draws).numpy())
    diagnostics = mcmc.diagnostics()
    assert diagnostics["divergences"] == {"chain 0": []}
    assert 0.4 < diagnostics["acceptance rate"]["chain 0"] <= 1
    assert to_arviz(mcmc)["posterior"]["v"].shape == (1, num_samples, 3)


@every
def test_pyro_mcmc_with_a_function_and_several_chains(name, monkeypatch):
    """One chain after the other, as there are too few processors."""
    monkeypatch.setattr(pyro.infer.mcmc.api.mp, "cpu_count", lambda: 1)
    kernel = KERNELS[name](potential_fn=lambda z: 0.5 * z["x"].square().sum(-1) + 0.5 * z["y"].square())
    initial_params = {"x": torch.zeros(3, 2, dtype=DOUBLE), "y": torch.zeros(3, dtype=DOUBLE)}
    stages = []
    hook = lambda kernel, params, stage, index: stages.append(stage)
    with pytest.warns(UserWarning, match="drawn sequentially"):
        mcmc = pyro.infer.MCMC(
            kernel, 20, 10, initial_params, num_chains=3, hook_fn=hook, disable_progbar=True, transforms={}
        )
    mcmc.run()
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["x"].shape == (3, 20, 2)
    assert draws["y"].shape == (3, 20)
    assert not torch.equal(draws["y"][0], draws["y"][1])
    assert len(stages) == 3 * 30


def test_contract_of_a_kernel():
    kernel = NUTS(hierarchical_model)
    with pytest.raises(ValueError, match="no chains yet"):
        kernel.logging()
    kernel.setup(5, OBSERVED)
    params = kernel.initial_params
    assert {name: value.shape for name, value in params.items()} == {"mean": (), "scale": (), "effect": (3,)}
    assert set(kernel.transforms) == set(params)
    for _ in range(10):
        params = kernel(params)
    assert json.loads(json.dumps(kernel.logging())).keys() == {"step size", "acc. prob"}
    moved = {name: value + 0.01 for name, value in params.items()}
    assert kernel.sample(moved).keys() == params.keys()
    assert kernel.diagnostics().keys() == {"divergences", "acceptance rate"}
    kernel.cleanup()
    assert kernel.initial_params is None
    kernel.initial_params = params
    kernel.setup(5, OBSERVED)
    torch.testing.assert_close(kernel.initial_params, params)
    copy.deepcopy(kernel)


def test_sample_starts_where_it_is_told():
    """Parameters that are not those of the last transition are where the next one starts."""
    kernel = MALA(rbm_model, step_size=1e-6, adapt_step_size=False, preconditioner=None)
    kernel.setup(0)
    at = {"v": tensor(0.1, 0.2, 0.3)}
    torch.testing.assert_close(kernel.sample(at)["v"], at["v"], atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------------------------- the driver


@every
def test_shapes_and_fields(name):
    mcmc = run(KERNELS[name](hierarchical_model), 6, 3, OBSERVED, num_chains=4)
    grouped, flat = mcmc.get_samples(group_by_chain=True), mcmc.get_samples()
    assert {site: draws.shape for site, draws in grouped.items()} == {
        "mean": (4, 6), "scale": (4, 6), "effect": (4, 6, 3)
    }  # fmt: skip
    assert flat["effect"].shape == (24, 3)
    assert torch.equal(flat["effect"][6:12], grouped["effect"][1])
    fields = mcmc.get_extra_fields()
    assert {field: draws.shape for field, draws in fields.items()} == dict.fromkeys(
        ["accept_prob", "diverging", "potential_energy"], (4, 6)
    )
    diagnostics = mcmc.diagnostics()
    assert diagnostics["effect"]["n_eff"].shape == (3,)
    assert list(diagnostics["divergences"]) == [f"chain {index}" for index in range(4)]
    assert diagnostics["acceptance rate"]["chain 2"] == pytest.approx(fields["accept_prob"][2].mean().item())
    idata = to_arviz(mcmc, sample_stats={"energy": fields["potential_energy"]})
    assert idata["posterior"]["effect"].shape == (4, 6, 3)
    assert idata["sample_stats"]["energy"].shape == (4, 6)


def test_potential_energy_and_draws_belong_together():
    mcmc = run(HMC(rbm_model), 5, 5, num_chains=3)
    log_prob = RBM.log_prob(mcmc.get_samples(group_by_chain=True)["v"])
    torch.testing.assert_close(mcmc.get_extra_fields()["potential_energy"], -log_prob)


@every
def test_divergences_are_reported(name):
    """A step far too long for a quartic: chains that start far out diverge, or leave all bounds (ULA)."""
    options = {} if name == "ULA" else {"adapt_step_size": False}
    make = {**ADJUSTED, "ULA": ULA}[name]
    kernel = make(potential_fn=lambda z: (z["x"] ** 4).sum(-1), step_size=30.0, **options)
    initial_params = {"x": torch.full((3, 2), 3.0, dtype=DOUBLE)}
    mcmc = run(kernel, 5, 0, num_chains=3, initial_params=initial_params)
    assert mcmc.get_extra_fields()["diverging"][:, -1].all()
    assert mcmc._diagnostics[0]["divergences"][-1] == 4
    kernel.initial_params = {"x": initial_params["x"][0]}
    kernel.setup(0)
    params = kernel.initial_params
    for _ in range(5):
        params = kernel.sample(params)
    assert kernel.diagnostics()["divergences"][-1] == 4


class Interrupting:
    """A normal density that is interrupted once, in the evaluation number ``at``."""

    def __init__(self, at):
        self.left = at

    def __call__(self, params):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return 0.5 * (params["x"] - 1).square().sum(-1)


INITIAL = {"x": torch.zeros(3, 2, dtype=DOUBLE)}


def chains(kernel, num_samples=30, **options):
    return BatchedMCMC(kernel, num_samples, 25, 3, INITIAL, disable_progbar=True, **options)


def complete(name):
    """Draws and fields of a run without a break."""
    pyro.set_rng_seed(3)
    mcmc = chains(KERNELS[name](potential_fn=Interrupting(-1)))
    mcmc.run()
    return mcmc.get_samples(True), mcmc.get_extra_fields()


@every
def test_interrupted_draws_are_kept_and_resume_is_bit_for_bit(name):
    expected, fields = complete(name)
    counter = Interrupting(-1)
    pyro.set_rng_seed(3)
    chains(KERNELS[name](potential_fn=counter)).run()
    pyro.set_rng_seed(3)
    mcmc = chains(KERNELS[name](potential_fn=Interrupting((-1 - counter.left) * 4 // 5)))
    with pytest.warns(UserWarning, match="interrupted after .* of 30 draws"):
        mcmc.run()
    kept = mcmc.get_samples(True)["x"]
    assert 0 < kept.shape[1] < 30
    assert torch.equal(kept, expected["x"][:, : kept.shape[1]])
    torch.rand(5)
    mcmc.resume()
    assert torch.equal(mcmc.get_samples(True)["x"], expected["x"])
    for field, values in mcmc.get_extra_fields().items():
        assert torch.equal(values, fields[field])


@every
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_saved_state_resumes_bit_for_bit(name, share):
    """Interrupted in the warm-up or while drawing, written to a file, and resumed by other objects."""
    expected, fields = complete(name)
    counter = Interrupting(-1)
    pyro.set_rng_seed(3)
    chains(KERNELS[name](potential_fn=counter)).run()
    pyro.set_rng_seed(3)
    mcmc = chains(KERNELS[name](potential_fn=Interrupting(int((-1 - counter.left) * share))))
    if share < 0.5:
        with pytest.raises(KeyboardInterrupt):
            mcmc.run()
    else:
        with pytest.warns(UserWarning, match="interrupted"):
            mcmc.run()
    file = io.BytesIO()
    torch.save(mcmc.state_dict(), file)
    file.seek(0)
    pyro.set_rng_seed(99)
    other = chains(KERNELS[name](potential_fn=Interrupting(-1)))
    other.load_state_dict(torch.load(file, weights_only=True))
    other.resume()
    assert torch.equal(other.get_samples(True)["x"], expected["x"])
    for field, values in other.get_extra_fields().items():
        assert torch.equal(values, fields[field])


def test_a_longer_run_goes_on_from_a_finished_one():
    expected, _ = complete("NUTS")
    pyro.set_rng_seed(3)
    mcmc = chains(NUTS(potential_fn=Interrupting(-1)), num_samples=10)
    mcmc.run()
    longer = chains(NUTS(potential_fn=Interrupting(-1)))
    longer.load_state_dict(mcmc.state_dict())
    longer.resume()
    assert torch.equal(longer.get_samples(True)["x"], expected["x"])


def test_resume_with_a_model_and_its_arguments():
    pyro.set_rng_seed(5)
    expected = draws_of(MALA(hierarchical_model), 20, 10, OBSERVED, num_chains=4)["effect"]
    pyro.set_rng_seed(5)
    first = run(MALA(hierarchical_model), 5, 10, OBSERVED, num_chains=4)
    second = BatchedMCMC(MALA(hierarchical_model), 20, 10, 4, disable_progbar=True)
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="got another log-density"):
        second.resume(OBSERVED + 1)
    second.resume(OBSERVED)
    assert torch.equal(second.get_samples(True)["effect"], expected)


def test_a_second_run_starts_anew():
    mcmc = run(MALA(hierarchical_model), 5, 10, OBSERVED, num_chains=4)
    first = mcmc.get_samples()
    pyro.set_rng_seed(0)
    mcmc.run(OBSERVED)
    torch.testing.assert_close(mcmc.get_samples(), first, rtol=0, atol=0)


def test_progress_bar(capsys):
    BatchedMCMC(MALA(rbm_model), 3, 2, 2).run()
    shown = capsys.readouterr().err
    assert "Sample" in shown
    assert "step size" in shown


def test_nothing_leaks_into_an_outer_trace():
    with poutine.trace() as outer:
        run(MALA(rbm_model), 2, 2, num_chains=2)
    assert not outer.trace.nodes


# ---------------------------------------------------------------------------------------------------- bad arguments


def normal_function(params):
    return 0.5 * params["x"].square().sum(-1)


BAD_KERNELS = [
    (MALA, {}, "model, potential_fn: MALA expected exactly one"),
    (MALA, {"model": rbm_model, "potential_fn": normal_function}, "model, potential_fn: MALA expected exactly one"),
    (MALA, {"model": rbm_model, "step_size": 0}, "step_size: expected a positive number, got 0"),
    (HMC, {"model": rbm_model, "step_size": "1"}, "step_size: expected a positive number, got '1'"),
    (NUTS, {"model": rbm_model, "step_size": np.inf}, "step_size: expected a positive number, got inf"),
    (ULA, {"model": rbm_model, "step_size": True}, "step_size: expected a positive number, got True"),
    (MALA, {"model": rbm_model, "preconditioner": "rms"}, "preconditioner: expected one of"),
    (MALA, {"model": rbm_model, "target_accept_prob": 1.0}, "target_accept_prob: expected a number between"),
    (UnderdampedLangevin, {"model": rbm_model, "friction": 0.0}, "friction: expected a positive"),
    (UnderdampedLangevin, {"model": rbm_model, "num_leapfrog": 0}, "num_leapfrog: expected a positive integer, got 0"),
    (HMC, {"model": rbm_model, "num_leapfrog": 1.5}, "num_leapfrog: expected a positive integer, got 1.5"),
    (HMC, {"model": rbm_model, "jitter": 1.1}, "jitter: expected a number from 0 to 1, got 1.1"),
    (NUTS, {"model": rbm_model, "max_tree_depth": 0}, "max_tree_depth: expected a positive integer, got 0"),
]


@pytest.mark.parametrize(("kernel", "options", "message"), BAD_KERNELS)
def test_bad_kernel_arguments(kernel, options, message):
    if kernel is ULA:
        options = {"step_size": 0.1, **options}
    not_a_number = isinstance(options.get("step_size"), (str, bool))
    with pytest.raises(TypeError if not_a_number else ValueError, match=f"^{message}"):
        kernel(**options)


BAD_RUNS = [
    ({"num_samples": 0}, ValueError, "num_samples: expected a positive integer, got 0"),
    ({"num_chains": 2.0}, ValueError, "num_chains: expected a positive integer, got 2.0"),
    ({"warmup_steps": -1}, ValueError, "warmup_steps: expected a non-negative integer, got -1"),
    ({"kernel": pyro.infer.NUTS(rbm_model)}, TypeError, "kernel: BatchedMCMC expected a kernel of .* pyro.infer.MCMC"),
    ({"initial_params": {"w": torch.zeros(2, 3)}}, ValueError, "initial_params: expected tensors for the sites"),
    (
        {"initial_params": {"v": torch.zeros(2, 4)}},
        ValueError,
        r"initial_params: expected 'v' of shape \('chains', 3\)",
    ),
    ({"initial_params": {"v": torch.zeros(3, 3)}}, ValueError, "initial_params: expected 2 chains .*, got 3"),
    ({"initial_params": {"v": torch.tensor([[0.0] * 3, [np.inf] * 3])}}, ValueError, r"which chains \[1\] do not have"),
    ({"kernel": MALA(potential_fn=normal_function)}, ValueError, "initial_params: potential_fn expected a dict"),
    ({"kernel": MALA(rbm_model, score=lambda z: {})}, ValueError, "score: expected tensors for the sites"),
    ({"kernel": MALA(rbm_model, score=lambda z: {"v": z["v"].sum(-1)})}, ValueError, "score: expected 'v' of shape"),
    (
        {"kernel": MALA(potential_fn=lambda z: z["x"].sum()), "initial_params": {"x": torch.zeros(2, 1)}},
        ValueError,
        r"potential_fn: expected a tensor of shape \(1,\)",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_RUNS)
def test_bad_runs(options, error, message):
    options = {"kernel": MALA(rbm_model), "num_samples": 2, "num_chains": 2, "disable_progbar": True, **options}
    with pytest.raises(error, match=message):
        BatchedMCMC(**options).run()


def test_results_before_a_run():
    mcmc = BatchedMCMC(MALA(rbm_model), 5, num_chains=2, disable_progbar=True)
    for method in (mcmc.get_samples, mcmc.get_extra_fields):
        with pytest.raises(ValueError, match=r"no draws yet; expected run\(\) first"):
            method()
    with pytest.raises(ValueError, match="diagnostics: expected at least 4 draws per chain, got 0"):
        mcmc.diagnostics()
    for method in (mcmc.resume, mcmc.state_dict):
        with pytest.raises(ValueError, match=f"{method.__name__}: expected a BatchedMCMC that has run"):
            method()
    mcmc.run()
    other = BatchedMCMC(MALA(rbm_model), 5, num_chains=3)
    with pytest.raises(ValueError, match="state_dict: expected one with num_chains=3, got 2"):
        other.load_state_dict(mcmc.state_dict())
    loaded = BatchedMCMC(MALA(rbm_model), 5, num_chains=2)
    loaded.load_state_dict(mcmc.state_dict())
    with pytest.raises(ValueError, match=r"expected resume\(\) first"):
        loaded.get_samples()


def test_function_potential_needs_a_chain_dimension():
    with pytest.raises(ValueError, match="leading chain dimension"):
        FunctionPotential(normal_function, {"x": torch.tensor(1.0)})
