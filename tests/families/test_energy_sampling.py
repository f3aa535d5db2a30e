"""Energies beyond the RBM family in batches and in the hosts' NUTS, against exact moments of asymmetric parameters.

Gates as in ``oracles.statistics``; exact moments are sums over a grid of the plane. Every family's own draws and sweeps
are in ``test_testing.py``.
"""

import numpy as np
import pytest

from backends import except_numpyro, pairs, siblings, slow_in
from families.test_annealing import bounds
from families.test_energies import AREAS, EXACT, GRID, plane_moments
from families.zoo import ALL, MACHINES, binary_autoencoder, points
from oracles import energies as oracle
from oracles.statistics import assert_mean

BATCHED = ["mPoT", "mcRBM", "gated RBM", "cRBM", "pooled PoT", "cAE sigmoid", "tied tanh", "PoT"]
#: One of every family; ``mPoT`` and ``tied tanh`` in a test of their own.
HOSTED = ["PoT", "cRBM", "mcRBM", "normalised mcRBM", "gated RBM", "gated tanh", "cAE sigmoid", "mcAE sigmoid"]


@pytest.mark.parametrize("name", [name for name in ALL if name not in EXACT or name.startswith("tied")])
def test_energies_without_conditionals_move_along_their_score(backend, name):
    """The default of families without conditionals is a Hamiltonian chain of jittered length."""
    distribution = ALL[name].make(backend)
    assert type(distribution.default_chain).__name__ == ("Gibbs" if name in MACHINES else "Hamiltonian")
    assert backend.infer.Hamiltonian().jitter > 0


@pytest.mark.parametrize(
    *pairs(
        BATCHED,
        slow=except_numpyro(BATCHED, []),
        without=[("numpyro", "pooled PoT")],
    ),
    indirect=["backend"],
)
def test_batches_are_the_models_in_them(backend, name):
    """Two models in a batch, one parameter shared: every quantity is the single model's, and so are the draws."""
    case = ALL[name]
    scales = {"concentration": [1.0, 1.3]}
    shared = next(iter(case.parameters))
    batch = {
        key: value if key == shared else np.stack([s * value for s in scales.get(key, [1.0, 0.7])])
        for key, value in case.parameters.items()
    }
    build = lambda p: getattr(backend.distributions, case.family)(
        **{key: backend.array(value) for key, value in p.items()}, **case.options
    )
    batched = build(batch)
    assert tuple(batched.batch_shape) == (2,)
    at = points(3)
    functions = backend.compiled(lambda model, value: (model.energy(value), model.score(value), model.laplacian(value)))
    together = [backend.numpy(array) for array in functions(batched, backend.array(at[:, None, :]))]
    draws = backend.sample(batched, 0, (10_000,))
    assert draws.shape == (10_000, 2, 2)
    for index in range(2):
        single = build({key: array if key == shared else array[index] for key, array in batch.items()})
        for got, expected in zip(together, functions(single, backend.array(at)), strict=True):
            np.testing.assert_allclose(got[:, index], backend.numpy(expected), rtol=1e-10, atol=1e-10)
        if single.is_normalized:
            got, expected = backend.numpy(batched.log_partition)[index], backend.numpy(single.log_partition)
            np.testing.assert_allclose(got, expected, rtol=1e-10)
        log_density = backend.numpy(single.unnormalized_log_prob(backend.array(GRID)))
        _, mean, covariance = oracle.grid_moments(log_density, GRID, AREAS)
        assert_mean(draws[:, index], mean)
        assert_mean((draws[:, index] - mean) ** 2, np.diagonal(covariance))
    expanded = batched.expand((3, 2))
    assert backend.sample(expanded, 1, (4,)).shape == (4, 3, 2, 2)


def host_draws(backend, distribution, num_copies=200, num_samples=100):
    """NUTS of the host over independent copies in a plate: shape (copies, draws, event).

    The partition function is a constant here; not to know it saves its quadrature at every step.
    """
    if backend.name == "numpyro":
        import jax
        import numpyro
        from numpyro.infer import MCMC, NUTS

        def model():
            with numpyro.plate("copies", num_copies):
                numpyro.sample("v", distribution)

        mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=num_samples, progress_bar=False)
        mcmc.run(jax.random.key(0))
        return np.asarray(mcmc.get_samples()["v"]).swapaxes(0, 1)
    import pyro
    from pyro.infer import MCMC, NUTS

    def model():
        with pyro.plate("copies", num_copies):
            pyro.sample("v", distribution)

    mcmc = MCMC(NUTS(model), num_samples=num_samples, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    return mcmc.get_samples()["v"].numpy().swapaxes(0, 1)


def assert_host_moments(draws, mean, covariance):
    """Copies are independent, the draws of one copy are not: averages over draws are the sample."""
    assert_mean(draws.mean(1), mean)
    products = (draws - mean)[..., :, None] * (draws - mean)[..., None, :]
    assert_mean(products.mean(1), covariance)
    error = products.mean(1).std(0) / np.sqrt(len(draws))
    assert np.all(4.5 * np.diagonal(error) < 0.25 * np.diagonal(covariance)), "too few draws to see an error"


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
@pytest.mark.parametrize("name", siblings(["mPoT", "tied tanh"], ["mPoT"]))
def test_host_nuts_over_a_latent_value(backend, name):
    assert_host_moments(
        host_draws(backend, ALL[name].make(backend, log_partition=None)), *plane_moments(backend.name, name)[1:]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTED)
def test_host_nuts_over_every_latent_energy(backend, name):
    assert_host_moments(
        host_draws(backend, ALL[name].make(backend, log_partition=None)), *plane_moments(backend.name, name)[1:]
    )


@pytest.mark.slow
def test_host_nuts_on_the_unit_square(backend):
    """The host transforms the cube to the plane by itself."""
    distribution = binary_autoencoder(backend)
    grid, areas = oracle.unit_square_grid()
    log_density = backend.numpy(distribution.unnormalized_log_prob(backend.array(grid)))
    assert_host_moments(host_draws(backend, distribution), *oracle.grid_moments(log_density, grid, areas)[1:])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["LineIntegralEnergy", "GradientStepEnergy", "CausalAutoencoder"])
def test_host_nuts_over_network_energies(backend, family):
    from families.test_networks import moments, network

    distribution = network(backend, family)
    assert_host_moments(host_draws(backend, distribution), *moments(backend, distribution))


def test_learning_a_gated_conditional(backend):
    """p(y | x) as a likelihood: the gradient of log p in the weights, log Z(x) included, by finite differences."""
    case = MACHINES["gated RBM"]
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    arrays = {key: backend.array(value) for key, value in case.parameters.items()} | {"input": backend.array(inputs)}
    family = backend.distributions.GatedRBM
    names = ("input_weights", "output_weights", "mapping_weights", "hidden_bias")

    @backend.compiled
    def objective(*leaves):
        return family(**{**arrays, **dict(zip(names, leaves, strict=True))}).log_prob(backend.array(outputs)).sum()

    gradients = backend.grad(objective, *(arrays[name] for name in names))
    for name, gradient in zip(names, gradients, strict=True):
        index = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        shifted = []
        for step in (-1e-5, 1e-5):
            moved = np.array(case.parameters[name])
            moved[index] += step
            shifted.append(float(objective(*(backend.array(moved) if n == name else arrays[n] for n in names))))
        np.testing.assert_allclose(gradient[index], (shifted[1] - shifted[0]) / 2e-5, rtol=1e-6)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_far_out(backend, dtype):
    """Where rounding makes the value 0 or 1 the density in logits falls like that of a logistic variable."""
    weights = backend.array([[0.5, -0.2]], dtype)
    space = backend.distributions.BinaryAutoencoder(weights).unconstrained
    position = np.array([[-95.0], [-40.0], [17.0], [20.0], [110.0]])
    score = backend.numpy(space.score(backend.array(position, dtype)))
    log_density = backend.numpy(space.unnormalized_log_prob(backend.array(position, dtype)))
    np.testing.assert_allclose(score, -np.sign(position), atol=1e-4)
    further = backend.numpy(space.unnormalized_log_prob(backend.array(1.5 * position, dtype)))
    np.testing.assert_allclose(further - log_density, -0.5 * abs(position[:, 0]), rtol=1e-4)


def test_no_draws(backend):
    """Neither of chains that tune their step size, nor of exact samplers."""
    for sampler in (None, backend.infer.Hamiltonian(5), backend.infer.Gibbs(5)):
        weights = backend.array(np.ones((2, 1)))
        rbm = backend.distributions.GaussianBernoulliRBM(weights, sampler=sampler)
        assert backend.sample(rbm, 0, (0,)).shape == (0, 2)


def gamma_energy(backend, shift=0.0):
    """Two independent Gamma(3, 1) variables, of which a quarter of all standard normal starts know nothing."""
    if backend.name == "numpyro":
        import jax.numpy as module
    else:
        import torch as module
    return backend.distributions.NeuralEnergy(lambda v: -(2 * module.log(v - shift) - v).sum(-1), (2,))


def test_chains_start_inside_the_support(backend):
    for draws in (
        backend.sample(gamma_energy(backend), 0, (4000,)),
        backend.run_chain(gamma_energy(backend), 0, 1, num_warmup=60, num_chains=4000)[:, 0],
    ):
        assert_mean(draws.astype(float), 3.0)
        assert_mean((draws.astype(float) - 3) ** 2, 3.0)


def test_chains_that_find_no_finite_energy_give_no_draws(backend):
    distribution = gamma_energy(backend, shift=1e3)
    with pytest.raises(
        ValueError, match="sampler: expected chains where the energy of NeuralEnergy is finite, got 10 of 10"
    ):
        backend.sample(distribution, 0, (10,))
    with pytest.raises(ValueError, match="sampler: expected chains where the energy"):
        backend.run_chain(distribution, 0, 1)
    with pytest.raises(
        ValueError, match="initial: expected chains where the energy of NeuralEnergy is finite, got 1 of 2"
    ):
        backend.run_chain(distribution, 0, 1, num_chains=2, initial=backend.array(np.array([[2e3, 2e3], [0.0, 2e3]])))
    if backend.name == "numpyro":
        import jax

        assert np.isnan(jax.jit(lambda key: distribution.sample(key, (3,)))(jax.random.key(0))).all()


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_chains_that_find_no_finite_energy_give_no_bounds(backend):
    with pytest.raises(ValueError, match="sampler: expected chains where the energy"):
        bounds(backend, gamma_energy(backend, shift=1e3), num_chains=4, num_temperatures=3)


# ---------------------------------------------------------------------------------------------------- separate modes


def two_modes(backend, num_dead, log_partition, weight=2.0):
    """A machine of 16 units that are on or off together, at 0 and 8 in every coordinate, and some dead ones."""
    weights = np.zeros((3, 16 + num_dead))
    weights[:, :16] = weight / 4
    hidden_bias = np.zeros(16 + num_dead)
    hidden_bias[:16] = -1.5 * weight**2 / 2 * 4 / 2
    return backend.distributions.GaussianBernoulliRBM(
        backend.array(weights), hidden_bias=backend.array(hidden_bias), log_partition=log_partition
    )


def test_draws_that_depend_on_their_starts_warn(backend):
    """Sixteen units are summed exactly; one dead unit more, and the same density is drawn by chains."""
    exact = backend.sample(two_modes(backend, 0, "auto"), 0, (4000,))
    assert 0.2 < (exact > 4).mean() < 0.8
    with pytest.warns(UserWarning, match="sampler: expected chains of GaussianBernoulliRBM that forget where they sta"):
        chained = backend.sample(two_modes(backend, 1, None), 0, (4000,))
    assert 0.1 < (chained > 4).mean() < 0.9  # both modes are there, in shares that the warning is about


@pytest.mark.parametrize("num_draws", [50, 3000])
def test_chains_that_forget_do_not_warn(backend, num_draws):
    draws = backend.sample(two_modes(backend, 1, None, weight=0.5), 0, (num_draws,))
    assert np.isfinite(draws).all()


LOW_RANK = {"tanh": (1, 2), "sin": (2, 3), "softmax": (3, 2), "modulus": (2, 2), "step": (4, 1)}


@pytest.mark.parametrize(*pairs(LOW_RANK, slow=except_numpyro(LOW_RANK, ["sin", "step"])), indirect=["backend"])
def test_draws_are_exact_where_quadrature_is(backend, name):
    """Stein's identities of independent draws: E[score] = 0 and E[(x - c) score'] = -I."""
    size, num_hidden = LOW_RANK[name]
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(size, num_hidden))
    weights *= 0.8 / np.linalg.norm(weights, 2) if name == "modulus" else 1.3
    distribution = backend.distributions.TiedAutoencoder(
        backend.array(weights),
        hidden_bias=backend.array(rng.normal(size=num_hidden)),
        visible_bias=backend.array(rng.normal(size=size)),
        activation=name,
        temperature=0.3,
        log_partition=None,
    )
    assert distribution.has_exact_sampler
    draws = backend.sample(distribution, 0, (20_000,))
    score = backend.numpy(distribution.score(backend.array(draws)))
    assert_mean(score, 0.0)
    assert_mean(draws[:, :, None] * score[:, None, :], -np.eye(size))
    assert_mean(np.tanh(draws[:-1]) * np.tanh(draws[1:]), np.tanh(draws).mean(0) ** 2)


def test_batches_of_exact_draws_are_independent(backend):
    weights = np.random.default_rng(1).normal(size=(2, 1, 2, 3))
    batch = backend.distributions.TiedAutoencoder(backend.array(weights), activation="tanh").expand((5, 2, 4))
    draws = backend.sample(batch, 0, (3,))
    assert draws.shape == (3, 5, 2, 4, 2)
    assert len(np.unique(draws)) == draws.size


def test_steep_energies_are_drawn_by_chains(backend):
    weights = backend.array(np.array([[400.0, 30.0], [-20.0, 900.0]]))
    assert not backend.distributions.TiedAutoencoder(weights, activation="sin", gain=6.0).has_exact_sampler
