"""Every energy beyond the RBM family against brute force in float64: values, derivatives, normalisers, conditionals.

All quantities of a case are computed once for each backend, and compared with references and with one another.
"""

import functools

import numpy as np
import pytest

from backends import backends, except_numpyro, get_backend, pairs, siblings
from families.zoo import ALL, AUTOENCODERS, MACHINES, binary_autoencoder, points, tied
from oracles import energies as oracle
from oracles.rbm import finite_difference

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
EXACT = [
    name
    for name in ALL
    if name.startswith(("PoT", "cRBM", "mcRBM", "gated", "tied", "tempered tied", "tempered gated"))
]
GRID, AREAS = oracle.plane_grid()
POINTS = points(5)
SIZES = [(2, 5), (5, 3), (4, 1)]
#: What NumPyro compiles in the fast suite: every family, and every kind of activation.
COMPILED = [
    *("PoT", "mPoT", "cRBM", "mcRBM", "gated RBM", "tied tanh", "tied relu", "tempered tied tanh", "gated tanh"),
    *("cAE sigmoid", "mcAE softmax"),
]


def every(names):
    """The fixture ``backend`` and each case in ``names``."""
    names = list(names)
    return pytest.mark.parametrize(*pairs(names, slow=except_numpyro(names, COMPILED)), indirect=["backend"])


@functools.cache
def quantities(backend_name, name):
    backend = get_backend(backend_name)
    return backend.quantities(ALL[name].make(backend), backend.array(POINTS), backend.array(GRID))


@functools.cache
def plane_moments(backend_name, name):
    """Of the backend's own energy, which other tests compare with its reference."""
    return oracle.grid_moments(quantities(backend_name, name)["grid"], GRID, AREAS)


def temperature(case):
    return float(case.parameters.get("temperature", 1.0))


@every(name for name in ALL if ALL[name].energy)
def test_energy_is_the_marginalised_joint(backend, name):
    got = quantities(backend.name, name)["energy"]
    np.testing.assert_allclose(got, [ALL[name].energy(v) for v in POINTS], **TOLERANCE)


@every(AUTOENCODERS)
def test_energy_is_the_integrated_field(backend, name):
    """F(x) - F(x') = -1/T of the line integral of r(x) - x, which is a definition that needs no antiderivative."""
    case = ALL[name]
    energy = quantities(backend.name, name)["energy"]
    cut = case.family == "TiedAutoencoder" and not case.smooth
    for i in (1, 2):
        ends = POINTS[0], POINTS[i]
        kinks = oracle.crossings(case.parameters, case.options["activation"], *ends) if cut else None
        difference = -oracle.potential_difference(case.field, *ends, kinks) / temperature(case)
        np.testing.assert_allclose(energy[i] - energy[0], difference, rtol=1e-9, atol=1e-9)


@every(AUTOENCODERS)
def test_the_field_of_a_conservative_autoencoder_is_its_score(backend, name):
    found = quantities(backend.name, name)
    np.testing.assert_allclose(found["field"], [ALL[name].field(x) for x in POINTS], **TOLERANCE)
    np.testing.assert_allclose(found["field"], temperature(ALL[name]) * found["score"], **TOLERANCE)
    np.testing.assert_allclose(found["reconstruct"], found["field"] + POINTS, **TOLERANCE)
    assert found["encode"].shape[0] == len(POINTS)


@every(ALL)
def test_score_and_laplacian_against_automatic_differentiation(backend, name):
    found = quantities(backend.name, name)
    np.testing.assert_allclose(found["score"], found["gradient"], **TOLERANCE)
    np.testing.assert_allclose(found["laplacian"], found["trace"], **TOLERANCE)


@every(name for name in ALL if ALL[name].energy)
def test_score_against_finite_differences_of_the_marginalised_joint(backend, name):
    found = quantities(backend.name, name)
    gradient, laplacian = finite_difference(lambda v: -ALL[name].energy(v), POINTS[3])
    np.testing.assert_allclose(found["score"][3], gradient, atol=1e-8)
    np.testing.assert_allclose(found["laplacian"][3], laplacian, atol=2e-5)


@every(EXACT)
def test_log_partition_against_quadrature_in_the_plane(backend, name):
    if name == "pooled PoT":
        pytest.skip("no closed form")
    # at a kink the reference grid, not the library, is coarse: the next test holds 10 digits there
    tolerance = 1e-9 if ALL[name].smooth else 3e-5
    expected, *_ = plane_moments(backend.name, name)
    np.testing.assert_allclose(quantities(backend.name, name)["log_partition"], expected, rtol=0, atol=tolerance)


@every(name for name in MACHINES if name.startswith(("PoT", "cRBM", "mcRBM", "gated")))
def test_exact_moments(backend, name):
    found = quantities(backend.name, name)
    _, mean, covariance = plane_moments(backend.name, name)
    np.testing.assert_allclose(found["mean"], mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found["covariance_matrix"], covariance, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found["variance"], np.diagonal(covariance), rtol=0, atol=1e-7)


@pytest.mark.numpyro
@pytest.mark.parametrize("name", siblings(ALL, COMPILED))
@pytest.mark.parametrize("quantity", ["score", "energy"])
def test_a_large_compiled_batch_is_its_rows(name, quantity):
    """jaxlib 0.10.2 compiles some sums of products wrongly for more than 16,384 rows on CPUs, without a sign."""
    jax = pytest.importorskip("jax")
    backend = get_backend("numpyro")
    function = jax.jit(getattr(ALL[name].make(backend), quantity))
    values = backend.array(np.random.default_rng(3).normal(size=(17_000, 2)))
    rows = np.concatenate([function(part) for part in np.split(np.asarray(values), 17)])
    np.testing.assert_allclose(function(values), rows, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(len(backends()) < 2, reason="one backend is installed")
@pytest.mark.parametrize("name", siblings(ALL, COMPILED))
def test_both_backends_agree(name):
    first, second = (quantities(backend, name) for backend in ("numpyro", "pyro"))
    assert set(first) == set(second)
    for quantity, array in first.items():
        np.testing.assert_allclose(second[quantity], array, err_msg=quantity, **TOLERANCE)


@pytest.mark.parametrize(
    *pairs(oracle.ACTIVATIONS, slow=except_numpyro(oracle.ACTIVATIONS, ["sigmoid", "relu", "sin"]), name="activation"),
    indirect=["backend"],
)
def test_log_partition_in_one_dimension(backend, activation):
    """The reference is cut at the kinks, so that it holds 10 digits for every activation."""
    case = tied(activation, 1, 2, temperature=np.array(0.7))
    p = case.parameters
    kinks = np.array(oracle.KINKS.get(activation, ()))
    cuts = ((kinks[:, None] - p["hidden_bias"]) / p["weights"][0]).ravel()
    edges = np.unique(np.concatenate([[-40.0, -10, -5, -2, 0, 2, 5, 10, 40], cuts[np.abs(cuts) < 40]]))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    grid = (middle[:, None] + half[:, None] * nodes).reshape(-1, 1)
    distribution = case.make(backend)
    log_density = backend.numpy(distribution.unnormalized_log_prob(backend.array(grid)))
    expected, *_ = oracle.grid_moments(log_density, grid, (half[:, None] * weights).ravel())
    np.testing.assert_allclose(backend.numpy(distribution.log_partition), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(*pairs(SIZES, slow=except_numpyro(SIZES, []), name="size"), indirect=["backend"], ids=str)
def test_rank_reduction_against_enumeration(backend, size):
    """Sigmoid units: the quadrature, forced by giving the temperature, against the sum over hidden states."""
    p = {k: v for k, v in tied("sigmoid", *size).parameters.items() if k != "gain"}
    arrays = {name: backend.array(value) for name, value in p.items()}

    def log_partition(weights, **options):
        return backend.distributions.TiedAutoencoder(**{**arrays, "weights": weights}, **options).log_partition

    got, expected = (
        backend.numpy(log_partition(arrays["weights"], **options)) for options in ({"temperature": 1.0}, {})
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
    (got,) = backend.grad(lambda w: log_partition(w, temperature=1.0), arrays["weights"])
    (expected,) = backend.grad(log_partition, arrays["weights"])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


STEEP = np.array([[400.0, 30.0], [-20.0, 900.0]])


def test_an_unresolved_quadrature_is_refused_and_not_a_number_where_traced(backend):
    """Weights whose oscillations the grid steps over must not give a wrong normaliser."""
    model = backend.distributions.TiedAutoencoder
    steep = model(backend.array(STEEP), activation="sin", gain=6.0)
    assert not steep.is_normalized
    for ask in (lambda: steep.log_partition, lambda: steep.log_prob(backend.array(np.zeros(2)))):
        with pytest.raises(backend.ebm.IntractablePartitionError, match="log_partition: expected a density that quadr"):
            ask()
    assert model(backend.array(STEEP), activation="sin", gain=6.0, log_partition=-1.0).is_normalized
    assert model(0.002 * backend.array(STEEP), activation="sin", gain=6.0).is_normalized

    def log_partition(weights):
        return model(weights, activation="sin", gain=6.0, validate_args=False).log_partition

    assert np.isnan(backend.numpy(backend.compiled(log_partition)(backend.array(STEEP))))


def test_a_large_log_partition_is_resolved_in_32_bits(backend):
    """Its two rules differ by roundings that are larger than the tolerance of 64 bits."""
    weights = 2 * np.random.default_rng(0).normal(size=(2, 30))
    values = {}
    for dtype in (np.float64, np.float32):
        model = backend.distributions.TiedAutoencoder(
            backend.array(weights, dtype), activation="tanh", temperature=backend.array(0.25, dtype)
        )
        assert model.is_normalized
        values[dtype] = float(model.log_partition)
    assert abs(values[np.float32] - values[np.float64]) < 1e-5 * values[np.float64]


def test_waves_that_fit_between_the_nodes_of_both_rules_are_refused(backend):
    """Both rules would agree on 1.8323 where log 2 pi I_0(0.02)^2 = 1.8381 is right."""
    weights = backend.array(np.diag([170.940824, 170.414618]))
    waves = backend.distributions.TiedAutoencoder(weights, activation="sin", gain=0.02)
    assert not waves.is_normalized


COLD = {
    "a narrow mode beside a wide shoulder": ("modulus", [-0.99], [-1.541], 3.132, [1.0], (0.1, 0.03, 1e-3)),
    "a cusp": ("step", [2.0, -5.0], [0.3, 1.0], 0.5, [-1.0, 2.0], (0.1, 1e-4)),
    "waves": ("sin", [9.0, 4.0], [0.3, 1.0], 2.0, [1.0, -2.0], (0.1, 0.01)),
    "one wave of many": ("sin", [-0.42179, 10.82422], [-5.20428, -11.42911], -1.42395, [1.0, 1.0], (1e-3,)),
    "gains of both signs": ("sigmoid", [30.0, -20.0], [5.0, 4.0], 0.1, [-1.0, 0.7], (0.1, 1e-3)),
    "almost improper": ("leaky_relu", [0.999], [20.0], -4.0, [1.0], (1.0, 0.01)),
}


@pytest.mark.parametrize(*pairs(COLD, slow=except_numpyro(COLD, [next(iter(COLD))])), indirect=["backend"])
def test_log_partition_at_low_temperature(backend, name):
    activation, weights, hidden_bias, visible_bias, gain, temperatures = COLD[name]
    for temperature in temperatures:
        distribution = backend.distributions.TiedAutoencoder(
            backend.array([weights]),
            hidden_bias=backend.array(hidden_bias),
            visible_bias=backend.array([visible_bias]),
            activation=activation,
            gain=backend.array(gain),
            temperature=temperature,
        )
        expected = line_log_partition(
            lambda x, d=distribution: backend.numpy(d.unnormalized_log_prob(backend.array(x)))
        )
        np.testing.assert_allclose(backend.numpy(distribution.log_partition), expected, rtol=0, atol=1e-6)


def line_log_partition(log_density, low=-1e5, high=1e5):
    """By a grid of a million nodes over what eight grids of 200,001 found to matter."""
    for _ in range(8):
        grid = np.linspace(low, high, 200_001)
        kept = grid[(values := log_density(grid[:, None])) > values.max() - 60]
        low, high = kept[0] - 2 * (grid[1] - grid[0]), kept[-1] + 2 * (grid[1] - grid[0])
    grid = np.linspace(low, high, 1_000_001)
    values = log_density(grid[:, None])
    return values.max() + np.log(np.trapezoid(np.exp(values - values.max()), grid))


@every(MACHINES)
def test_joint_energy_and_conditionals(backend, name):
    """-log p(h | v) = E(v, h) - F(v), and -log p(v | h) = E(v, h) + const(h)."""
    case = MACHINES[name]
    distribution = case.make(backend)
    hidden = _hidden(backend, distribution)
    at = POINTS[: len(hidden)]
    joint = np.array([case.joint(v, h) for v, h in zip(at, hidden, strict=True)])
    got = distribution.joint_energy(backend.array(at), backend.array(hidden))
    np.testing.assert_allclose(backend.numpy(got), joint, **TOLERANCE)
    given = distribution.hidden_given_visible(backend.array(at)).log_prob(backend.array(hidden))
    free = np.array([case.energy(v) for v in at])
    np.testing.assert_allclose(backend.numpy(given), free - joint, **TOLERANCE)
    held = np.tile(hidden[0], (len(at), 1))
    log_prob = distribution.visible_given_hidden(backend.array(held)).log_prob(backend.array(at))
    got = backend.numpy(log_prob) + np.array([case.joint(v, hidden[0]) for v in at])
    np.testing.assert_allclose(got, np.full(len(at), got[0]), **TOLERANCE)


def _hidden(backend, distribution):
    """A few hidden vectors in the support of their conditional: Gamma units first, then binary ones."""
    num_gamma = distribution.concentration.shape[-1] if hasattr(distribution, "concentration") else 0
    rng = np.random.default_rng(4)
    binary = rng.integers(0, 2, size=(4, distribution.num_hidden - num_gamma)).astype(float)
    return np.concatenate([rng.gamma(2.0, 0.5, size=(4, num_gamma)), binary], axis=1)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "softmax"])
def test_binary_autoencoder_on_the_unit_square(backend, activation):
    """-F = c'x + sum_k G(u_k) + sum_i H(x_i); its score logit r(x) - logit x points the way of r(x) - x."""
    distribution = binary_autoencoder(backend, activation)
    at = np.random.default_rng(5).uniform(size=(20, 2))
    found = backend.quantities(distribution, backend.array(at), backend.array(at))
    np.testing.assert_allclose(found["score"], found["gradient"], **TOLERANCE)
    np.testing.assert_allclose(found["laplacian"], found["trace"], **TOLERANCE)
    assert np.all((found["score"] * found["field"]).sum(-1) > 0)
    if activation == "sigmoid":
        w, b, c = (backend.numpy(getattr(distribution, n)) for n in ("weights", "hidden_bias", "visible_bias"))
        entropy = -(at * np.log(at) + (1 - at) * np.log(1 - at)).sum(-1)
        potential = at @ c + np.logaddexp(0, at @ w + b).sum(-1) + entropy
        np.testing.assert_allclose(found["energy"], -potential, **TOLERANCE)
        bound = backend.distributions.BernoulliRBM(
            backend.array(w), visible_bias=backend.array(c), hidden_bias=backend.array(b)
        )
        assert potential.max() <= float(bound.log_partition)


@pytest.mark.parametrize("weights", [np.zeros((5, 2)), np.array([[0.5], [0.2], [0.1], [-0.3]]) @ np.ones((1, 2))])
def test_gradients_at_filters_that_depend_on_each_other(backend, weights):
    """Of log Z, against differences: the triangle of W has no derivative there, log Z has."""

    def log_partition(array):
        return backend.distributions.TiedAutoencoder(array, activation="tanh").log_partition

    (gradient,) = backend.grad(log_partition, backend.array(weights))
    step = 1e-5
    for row, column in ((0, 0), (1, 1)):
        shift = np.zeros_like(weights)
        shift[row, column] = step
        ends = [float(log_partition(backend.array(weights + sign * shift))) for sign in (1, -1)]
        np.testing.assert_allclose(gradient[row, column], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
