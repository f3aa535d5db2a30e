"""Energies of autoencoders given by a network: integrated, gradient-step and causal."""

import importlib

import numpy as np
import pytest

from families.zoo import points
from oracles import energies as oracle

RNG = np.random.default_rng(31)
FIRST, SECOND, BIAS = RNG.normal(size=(2, 5)), 0.6 * RNG.normal(size=(5, 2)), RNG.normal(size=5)
SCALE = np.array([0.6, 1.4])
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def ops(backend):
    return importlib.import_module("jax.numpy" if backend.name == "numpyro" else "torch")


def as_network(backend, function):
    """In torch a module, whose buffer says that it works in float64."""
    if backend.name == "numpyro":
        return function
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("unit", backend.array(1.0))

        def forward(self, x):
            return function(x)

    return Network()


def untied(backend):
    """An untied network, whose field is not a gradient."""
    first, second, bias = map(backend.array, (FIRST, SECOND, BIAS))
    return as_network(backend, lambda x: ops(backend).tanh(x @ first + bias) @ second)


def tied(backend):
    first, bias = map(backend.array, (FIRST, BIAS))
    return as_network(backend, lambda x: ops(backend).tanh(x @ first + bias) @ first.T)


def causal(backend):
    """Output 1 depends on input 0 only, output 0 on nothing."""
    mask = backend.array(np.array([[0.0, 1.0], [0.0, 0.0]]))
    heights = backend.array(np.array([0.0, 1.5]))
    return as_network(backend, lambda x: 0.5 + ops(backend).sin(2 * (x @ mask)) * heights)


def network(backend, family, **options):
    build = {
        "LineIntegralEnergy": lambda cls: cls(
            untied(backend), (2,), origin=backend.array([0.3, -0.2]), temperature=0.7, **options
        ),
        "GradientStepEnergy": lambda cls: cls(untied(backend), (2,), scale=0.8, **options),
        "CausalAutoencoder": lambda cls: cls(causal(backend), (2,), scale=backend.array(SCALE), **options),
    }
    return build[family](getattr(backend.distributions, family))


def moments(backend, distribution):
    grid, areas = oracle.plane_grid(reach=3.5, count=701)
    log_density = backend.numpy(distribution.unnormalized_log_prob(backend.array(grid)))
    return oracle.grid_moments(log_density, grid, areas)[1:]


def numpy_field(x):
    return np.tanh(x @ FIRST + BIAS) @ SECOND - x


def test_line_integral_against_adaptive_quadrature(backend):
    distribution, at, origin = network(backend, "LineIntegralEnergy"), points(), np.array([0.3, -0.2])
    expected = [-oracle.potential_difference(numpy_field, origin, x) / 0.7 for x in at]
    np.testing.assert_allclose(backend.numpy(distribution.energy(backend.array(at))), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(backend.numpy(distribution.field(backend.array(at))), numpy_field(at), **TOLERANCE)


def test_line_integral_of_a_conservative_network_is_the_tied_energy(backend):
    """Then the field is T times the score; the energies differ by a constant."""
    at = backend.array(points())
    line = backend.distributions.LineIntegralEnergy(tied(backend), (2,), num_nodes=40, temperature=0.5)
    energy = backend.distributions.TiedAutoencoder(
        backend.array(FIRST), hidden_bias=backend.array(BIAS), activation="tanh", temperature=0.5
    )
    gap = backend.numpy(line.energy(at)) - backend.numpy(energy.energy(at))
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(backend.numpy(line.score(at)), backend.numpy(energy.score(at)), atol=1e-8)
    np.testing.assert_allclose(backend.numpy(line.field(at)), 0.5 * backend.numpy(energy.score(at)), atol=1e-10)


def test_rays_cannot_see_that_a_field_is_no_gradient(backend):
    """x . grad phi = x . V for any V (MATH 13), while the score of an untied network is not its field."""
    line = backend.distributions.LineIntegralEnergy(untied(backend), (2,), num_nodes=40)
    at = points()
    score, field = (backend.numpy(f(backend.array(at))) for f in (line.score, line.field))
    np.testing.assert_allclose((at * score).sum(-1), (at * field).sum(-1), atol=1e-8)
    assert np.abs(score - field).max() > 0.05


@pytest.mark.parametrize("family", ["LineIntegralEnergy", "GradientStepEnergy", "CausalAutoencoder"])
def test_scores_and_laplacians_against_automatic_differentiation(backend, family):
    distribution, at = network(backend, family), points(3)
    found = backend.quantities(distribution, backend.array(at), backend.array(at))
    np.testing.assert_allclose(found["score"], found["gradient"], **TOLERANCE)
    np.testing.assert_allclose(found["laplacian"], found["trace"], **TOLERANCE)
    if family == "GradientStepEnergy":
        residual = -numpy_field(at)
        np.testing.assert_allclose(found["energy"], 0.5 * (residual**2).sum(-1) / 0.64, **TOLERANCE)
        np.testing.assert_allclose(found["field"], 0.64 * found["score"], **TOLERANCE)


def test_causal_log_density_is_the_sum_of_its_conditionals(backend):
    distribution, at = network(backend, "CausalAutoencoder"), points()
    means = np.stack([np.full(len(at), 0.5), 0.5 + 1.5 * np.sin(2 * at[:, 0])], -1)
    conditionals = -0.5 * ((at - means) / SCALE) ** 2 - np.log(SCALE) - 0.5 * np.log(2 * np.pi)
    got = backend.numpy(distribution.log_prob(backend.array(at)))
    np.testing.assert_allclose(got, conditionals.sum(-1), **TOLERANCE)
    assert distribution.is_normalized
    grid, areas = oracle.plane_grid()
    total = np.exp(backend.numpy(distribution.log_prob(backend.array(grid)))) @ areas
    np.testing.assert_allclose(total, 1.0, rtol=1e-9)


def test_jacobi_decoding_is_ancestral_sampling_in_parallel(backend):
    """The same noise gives the same draws, of a chain that takes many sweeps to settle."""
    shift = backend.array(np.eye(6, k=1))
    walk = as_network(backend, lambda x: 0.9 * x @ shift)
    build = backend.distributions.CausalAutoencoder
    first, second = (
        backend.sample(build(walk, (6,), sampler=getattr(backend.infer, name)()), 3, (50,))
        for name in ("Exact", "Ancestral")
    )
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)
    lagged = first[:, 1:] - 0.9 * first[:, :-1]
    assert np.abs(np.corrcoef(lagged.T) - np.eye(5)).max() < 4.5 / np.sqrt(50)


def test_causal_networks_are_found_out(backend):
    for orientation in (np.eye(3, k=1), np.eye(3, k=-1)):
        shift = backend.array(orientation)
        with pytest.raises(ValueError, match=r"reconstruct: .*CausalAutoencoder"):
            backend.distributions.LineIntegralEnergy(
                as_network(backend, lambda x, s=shift: ops(backend).tanh(x @ s)), (3,)
            )
    backend.distributions.LineIntegralEnergy(lambda x: 0 * x + 1.0, (3,))  # a constant has a potential
    with pytest.raises(ValueError, match=r"reconstruct: .*output 0 that depends on input 0"):
        backend.distributions.CausalAutoencoder(ops(backend).tanh, (3,))
    backend.distributions.CausalAutoencoder(ops(backend).tanh, (3,), validate_args=False)


@pytest.mark.parametrize("name", ["whole", "self", "ahead"])
def test_networks_that_stop_being_causal(backend, name):
    """Matrices ``r(x) = M x`` that training has filled, as gradients do where nothing masks them."""
    matrix = {
        "whole": np.random.default_rng(0).normal(size=(5, 5)),
        "self": np.diag([0.0, 0.0, 0.0, 1e-3, 0.0]),
        "ahead": np.eye(5, k=4),
    }[name]
    data = np.random.default_rng(1).normal(size=(100, 5))

    def log_prob(matrix, value):
        linear = as_network(backend, lambda x: (matrix * x[..., None, :]).sum(-1))
        return backend.distributions.CausalAutoencoder(linear, (5,), validate_args=False).log_prob(value)

    value = backend.array(data)
    with pytest.raises(ValueError, match="inputs at or after their own place, at the parameters in use"):
        log_prob(backend.array(matrix), value)
    causal = np.tril(np.ones((5, 5)), -1)
    expected = -0.5 * ((data - data @ causal.T) ** 2 + np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(backend.numpy(log_prob(backend.array(causal), value)), expected, **TOLERANCE)
    if backend.name == "numpyro":
        traced = backend.compiled(log_prob)
        assert np.isnan(traced(backend.array(matrix), value)).any()
        np.testing.assert_allclose(traced(backend.array(causal), value), expected, **TOLERANCE)


@pytest.mark.pyro
def test_a_causal_module_that_was_filled_after_it_was_checked():
    import torch

    from pyro_ebm import CausalAutoencoder

    network = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
    network.weight.data = torch.tril(torch.ones(3, 3, dtype=torch.float64), -1)
    value = torch.randn(20, 3, dtype=torch.float64)
    CausalAutoencoder(network, (3,)).log_prob(value)
    network.weight.data[0, 2] = 0.1
    with pytest.raises(ValueError, match="training filled the network's mask"):
        CausalAutoencoder(network, (3,)).log_prob(value)


@pytest.mark.parametrize("family", ["LineIntegralEnergy", "GradientStepEnergy"])
def test_parameters_of_the_network_are_guarded(backend, family):
    def objective(weights):
        cls = getattr(backend.distributions, family)
        return cls(as_network(backend, lambda x: ops(backend).tanh(x @ weights)), (2,)).log_prob(
            backend.array(points(1)[0])
        )

    with pytest.raises(backend.ebm.IntractablePartitionError, match=family):
        backend.grad(objective, backend.array(np.eye(2)))


def test_causal_networks_are_learned_by_their_likelihood(backend):
    at = backend.array(points(6))

    def objective(slope):
        lower = backend.array(np.array([[0.0, 1.0], [0.0, 0.0]]))
        model = backend.distributions.CausalAutoencoder(as_network(backend, lambda x: slope * (x @ lower)), (2,))
        return model.log_prob(at).sum()

    x = points(6)
    (gradient,) = backend.grad(objective, backend.array(0.3))
    np.testing.assert_allclose(gradient, (x[:, 0] * (x[:, 1] - 0.3 * x[:, 0])).sum(), rtol=1e-10)


@pytest.mark.pyro
def test_random_networks_are_refused():
    """Another density at every call: dropout, a function that draws, batch normalisation over the batch."""
    import torch
    from torch import nn

    from pyro_ebm import CausalAutoencoder, GradientStepEnergy, LineIntegralEnergy, NeuralEnergy

    dropout = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    normalised = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    energy = lambda network: lambda x: network(x).sum(-1)
    for family in (LineIntegralEnergy, GradientStepEnergy, CausalAutoencoder):
        with pytest.raises(ValueError, match=r"reconstruct: expected the same outputs for equal inputs.*network\.eval"):
            family(dropout.train(), (3,))
        with pytest.raises(ValueError, match="reconstruct: expected outputs that depend on their own value alone"):
            family(normalised.train(), (3,))
    for network in (dropout, normalised):
        with pytest.raises(ValueError, match="energy_fn: expected"):
            NeuralEnergy(energy(network), (3,))
    with pytest.raises(ValueError, match="energy_fn: expected the same outputs"):
        NeuralEnergy(lambda x: (x + torch.randn_like(x)).sum(-1), (3,))
    assert int(normalised[1].num_batches_tracked) == 0  # which the check leaves alone
    for network in (dropout.eval(), normalised.eval()):
        NeuralEnergy(energy(network), (3,)).log_prob(torch.zeros(2, 3))
        GradientStepEnergy(network, (3,)).log_prob(torch.zeros(2, 3))


@pytest.mark.numpyro
def test_random_networks_are_refused_in_numpyro():
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from numpyro_ebm import GradientStepEnergy, NeuralEnergy

    class Network(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.dropout(self.linear(x))

    network = Network()
    with pytest.raises(
        ValueError, match=r"reconstruct: expected the same outputs for equal inputs.*deterministic=True"
    ):
        GradientStepEnergy(network, (3,))
    with pytest.raises(ValueError, match="reconstruct: expected the same outputs"):
        jax.jit(lambda x: GradientStepEnergy(network, (3,)).log_prob(x))(jnp.zeros(3))
    with pytest.raises(ValueError, match="energy_fn: expected the same outputs"):
        NeuralEnergy(lambda x: jnp.sum(x * np.random.default_rng().normal()), (3,))
    network.eval()
    GradientStepEnergy(network, (3,)).log_prob(jnp.zeros(3, jnp.float32))
