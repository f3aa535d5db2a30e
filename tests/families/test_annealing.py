"""Bounds on log Z against known values: 20 independent estimates at once, as a batch of equal models.

Stochastic bounds hold in expectation; each estimate is gated on its own standard error, which the spread of the 20
estimates checks in turn.
"""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

from backends import except_numpyro, pairs, slow_in
from families.cases import make, parameters
from families.test_energies import plane_moments
from families.test_networks import network
from families.zoo import ALL, binary_autoencoder
from oracles import energies as oracle
from oracles.statistics import MAX_Z

NUM_SEEDS = 20


def bounds(backend, distribution, seed=0, **options):
    estimated = "start" not in options and not distribution.has_exact_sampler
    with pytest.warns(UserWarning, match="upper is an estimate and no bound") if estimated else nullcontext():
        if backend.name == "numpyro":
            import jax

            found = backend.infer.log_partition_bounds(jax.random.key(seed), distribution, **options)
        else:
            import torch

            torch.manual_seed(seed)
            found = backend.infer.log_partition_bounds(distribution, **options)
    fields = {name: backend.numpy(value) for name, value in found._asdict().items() if name != "exact_start"}
    return found._replace(**fields)


def assert_bracketed(found, truth, count=NUM_SEEDS):
    """Each estimate is within its error, the means are on their sides, and the errors are honest."""
    for estimate, error in (
        (found.lower, found.lower_standard_error),
        (found.upper, found.upper_standard_error),
    ):
        assert estimate.shape == (count,)
        assert (np.abs(estimate - truth) < MAX_Z * error + 1e-12).all(), (estimate - truth) / error
        assert 0.4 < estimate.std(ddof=1) / error.mean() < 2.0
    root = np.sqrt(count)
    assert found.lower.mean() - MAX_Z * found.lower_standard_error.mean() / root < truth
    assert truth < found.upper.mean() + MAX_Z * found.upper_standard_error.mean() / root


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
@pytest.mark.parametrize(
    ("family", "visible", "hidden"),
    [("BernoulliRBM", 12, 8), pytest.param("GaussianBernoulliRBM", 64, 10, marks=pytest.mark.slow)],
)
def test_bounds_of_machines_with_known_values(backend, family, visible, hidden):
    """Both within 0.1 nat at 100 chains and 1,000 temperatures."""
    strength = 0.8 if family == "BernoulliRBM" else 0.3
    p = parameters(family, visible, hidden)
    p = type(p)(**{**vars(p), "weights": strength / 0.8 * p.weights})
    distribution = make(backend, family, p)
    truth = float(distribution.log_partition)
    found = bounds(backend, distribution.expand((NUM_SEEDS,)))
    assert found.exact_start
    assert_bracketed(found, truth)
    assert (np.abs(found.lower - truth) < 0.1).all()
    assert (np.abs(found.upper - truth) < 0.1).all()
    assert (found.lower_effective_sample_size > 20).all()


FAST = [("pyro", "mcRBM"), ("pyro", "tied tanh")]
PATHS = ["mcRBM", "tied tanh", "mPoT", "pooled mPoT", "PoT", "cRBM", "gated RBM", "normalised cRBM", "mcAE sigmoid"]
SLOW = [(backend, name) for backend in ("numpyro", "pyro") for name in PATHS if (backend, name) not in FAST]


@pytest.mark.parametrize(
    *pairs(PATHS, SLOW, without=except_numpyro(["pooled mPoT", "normalised cRBM"], [])),
    indirect=["backend"],
)
def test_bounds_of_every_kind_of_path(backend, name):
    """Gibbs along the family's path, Hamiltonian along it, and Hamiltonian along the geometric one, against a grid."""
    log_partition = float(plane_moments(backend.name, name)[0])
    distribution = ALL[name].make(backend, log_partition=None).expand((NUM_SEEDS,))
    found = bounds(backend, distribution, num_temperatures=150)
    assert_bracketed(found, log_partition)
    assert (np.abs(found.lower - log_partition) < 0.3).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["LineIntegralEnergy", "GradientStepEnergy"])
def test_bounds_and_estimates_of_network_energies(backend, family):
    """They have no parameters of their own, and no conditionals; estimators look at their shapes."""
    grid, areas = oracle.plane_grid()
    distribution = network(backend, family)
    truth = oracle.grid_moments(backend.numpy(distribution.unnormalized_log_prob(backend.array(grid))), grid, areas)[0]
    found = bounds(backend, distribution.expand((NUM_SEEDS,)), num_temperatures=60)
    assert_bracketed(found, float(truth))
    estimated = network(backend, family, log_partition=backend.estimator(0, num_chains=500, num_temperatures=60))
    np.testing.assert_allclose(float(estimated.log_partition), float(truth), atol=0.15)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_bounds_on_the_unit_square(backend):
    """Annealing moves in logit x, and the estimate is of the integral over x."""
    distribution = binary_autoencoder(backend)
    grid, areas = oracle.unit_square_grid()
    log_density = backend.numpy(distribution.unnormalized_log_prob(backend.array(grid)))
    truth = float(oracle.grid_moments(log_density, grid, areas)[0])
    assert_bracketed(bounds(backend, distribution.expand((NUM_SEEDS,)), num_temperatures=150), truth)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_bounds_of_a_markov_network(backend):
    """Sweeps are reversible, without which the reverse bound would be wrong."""
    rng = np.random.default_rng(0)
    tables = {(i, i + 1): backend.array(2 * rng.normal(size=(3, 3))) for i in range(4)}
    network = backend.distributions.MarkovNetwork([3] * 5, tables)
    found = bounds(backend, network.expand((NUM_SEEDS,)), num_temperatures=100)
    assert_bracketed(found, float(network.log_partition))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_the_estimator_serves_families_without_conditionals(backend):
    """log Z and its gradient in the weights of a tied autoencoder, against quadrature."""
    case = ALL["tied tanh"]
    arrays = {name: backend.array(value) for name, value in case.parameters.items()}
    family = backend.distributions.TiedAutoencoder

    def log_partition(weights, estimator):
        return family(**{**arrays, "weights": weights}, **case.options, log_partition=estimator).log_partition

    estimator = backend.estimator(0, num_chains=4000, num_temperatures=60)
    exact = float(log_partition(arrays["weights"], "auto"))
    np.testing.assert_allclose(float(log_partition(arrays["weights"], estimator)), exact, atol=0.03)
    (expected,) = backend.grad(lambda weights: log_partition(weights, "auto"), arrays["weights"])
    (found,) = backend.grad(lambda weights: log_partition(weights, estimator), arrays["weights"])
    np.testing.assert_allclose(found, expected, atol=0.06 * np.abs(expected).max())


def test_a_discrete_family_without_conditionals_is_refused(backend):
    """And nothing else is."""

    class Parity(backend.distributions.BernoulliRBM):
        has_gibbs_step = False

    with pytest.raises(TypeError, match="AnnealedImportanceSampling"):
        Parity(backend.array(np.ones((2, 2))), log_partition=backend.estimator(0))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_progress_changes_nothing(backend, capsys):
    distribution = ALL["mcRBM"].make(backend)
    quiet = bounds(backend, distribution, num_temperatures=50)
    assert capsys.readouterr().err == ""
    shown = bounds(backend, distribution, num_temperatures=50, progress=True)
    assert "annealing" in capsys.readouterr().err
    np.testing.assert_allclose(shown.lower, quiet.lower, rtol=1e-12)
    np.testing.assert_allclose(shown.upper, quiet.upper, rtol=1e-12)


@pytest.mark.parametrize("name", ["num_chains", "num_temperatures", "num_leapfrog"])
def test_counts_are_checked(backend, name):
    with pytest.raises(ValueError, match=name):
        bounds(backend, ALL["mcRBM"].make(backend), **{name: 0})


SHAPE = (40, 20)


def two_modes(backend, num_visible, num_hidden):
    """A machine that nearly all of its units agree in, its log Z, and the number of its visible units that are on."""
    strength = 0.5
    machine = backend.distributions.BernoulliRBM(
        backend.array(np.full((num_visible, num_hidden), strength)),
        visible_bias=backend.array(np.full(num_visible, -strength * num_hidden / 2 + 0.1)),
        hidden_bias=backend.array(np.full(num_hidden, -strength * num_visible / 2)),
        log_partition=None,
    )
    on = np.arange(num_visible + 1)
    log_weights = gammaln(num_visible + 1) - gammaln(on + 1) - gammaln(num_visible + 1 - on)
    log_weights += on * (-strength * num_hidden / 2 + 0.1)
    log_weights += num_hidden * np.logaddexp(0, -strength * num_visible / 2 + strength * on)
    return machine, logsumexp(log_weights), np.exp(log_weights - logsumexp(log_weights))


def exact_draws(rng, probabilities, count):
    num_visible = len(probabilities) - 1
    on = rng.choice(num_visible + 1, size=count, p=probabilities)
    return (rng.random((count, num_visible)).argsort(1) < on[:, None]).astype(float)


@pytest.mark.filterwarnings("ignore:sampler. expected chains")  # which they may tell by themselves
@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_chains_that_miss_a_mode_give_an_estimate_and_no_bound(backend):
    """Biases that nearly balance all couplings: log Z is 4.26, and ordinary chains say 0.30 twice."""
    machine, truth, probabilities = two_modes(backend, *SHAPE)
    assert truth == pytest.approx(4.2633, abs=1e-4)
    options = {"num_temperatures": 200}
    missed = bounds(backend, machine, **options)
    assert not missed.exact_start
    assert missed.upper < truth - 3  # of which the warning tells
    draws = exact_draws(np.random.default_rng(0), probabilities, 300)
    found = bounds(backend, machine, start=backend.array(draws), **options)
    assert not found.exact_start
    assert found.lower < truth < found.upper + 1.0
    assert found.upper > truth - 1.0


def test_starts_and_errors_of_bounds(backend):
    machine, _, _ = two_modes(backend, 4, 3)
    with pytest.raises(ValueError, match=r"start: expected shape \(n, 4\), got \(4,\)"):
        bounds(backend, machine, start=backend.array(np.zeros(4)))
    with pytest.raises(ValueError, match=r"start: .* support"):
        bounds(backend, machine.replace(validate_args=True), start=backend.array(np.full((5, 4), 0.5)))
    options = {"num_temperatures": 3, "num_chains": 8}
    found = bounds(backend, machine, start=backend.array(np.zeros((5, 4))), **options)
    assert np.isinf(found.lower_standard_error)
    assert np.isinf(found.upper_standard_error)


def test_bounds_that_contradict_each_other_are_refused(backend):
    """Reverse chains that start where the couplings play no part, and are soon at the base."""
    machine = backend.distributions.BernoulliRBM(backend.array(np.full((12, 2), 2.0)), log_partition=None)
    with pytest.raises(ValueError, match=r"expected a lower bound below the upper one, got .* for BernoulliRBM"):
        bounds(backend, machine, start=backend.array(np.zeros((5, 12))), num_temperatures=3, num_chains=200)
