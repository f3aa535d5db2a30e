"""Diagnostics of vector fields: closed forms, finite differences, and one backend against the other."""

import importlib

import numpy as np
import pytest
from scipy.optimize import brentq

from backends import backends, get_backend
from oracles.statistics import MAX_Z

SYMMETRIC = np.array([[-1.0, 0.3, 0.2], [0.3, 0.5, -0.7], [0.2, -0.7, 2.0]])
ANTISYMMETRIC = np.array([[0.0, 1.5, -0.3], [-1.5, 0.0, 0.8], [0.3, -0.8, 0.0]])
TRIANGULAR = np.array([[0.0, 0.0, 0.0], [1.3, 0.0, 0.0], [-0.4, 2.0, 0.0]])
GENERAL = np.array([[-0.5, 1.2, 0.1], [0.4, 0.3, -2.0], [0.9, 0.6, 0.7]])
JACOBIANS = {
    "symmetric": (SYMMETRIC, 0.0),
    "antisymmetric": (ANTISYMMETRIC, 1.0),
    "strictly triangular": (TRIANGULAR, 0.5),  # |J - J'|^2 = 2 |J|^2, as no entry of J meets one of J'
    "general": (GENERAL, np.sum((GENERAL - GENERAL.T) ** 2) / np.sum(4 * GENERAL**2)),
    "zero": (np.zeros((3, 3)), 0.0),
}
VALUES = np.random.default_rng(0).normal(size=(2, 5, 3))
KEYED = ("divergence", "asymmetry")


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


class Tools:
    """The functions under test, and the few operations that their fields need, in one backend."""

    def __init__(self, backend):
        self.backend, self.name = backend, backend.name
        self.array, self.numpy, self.distributions = backend.array, backend.numpy, backend.distributions
        self.m = importlib.import_module("jax.numpy" if self.name == "numpyro" else "torch")
        self.fields, self.equilibria, self.plots = (
            importlib.import_module(f"{backend.ebm.__name__}.diagnostics.{name}")
            for name in ("fields", "equilibria", "plots")
        )

    def stack(self, parts):
        return self.m.stack(parts, -1)

    def linear(self, matrix):
        matrix = self.array(matrix)
        return lambda value: value @ matrix.T

    def gated(self, seed=1, size=3):
        """A nonlinear field with an asymmetric Jacobian that depends on the value."""
        rng = np.random.default_rng(seed)
        first, second = self.array(rng.normal(size=(size, 4))), self.array(rng.normal(size=(4, size)))
        return lambda value: self.m.tanh(value @ first) @ second + value**2 - value

    def tied(self, weights, hidden_bias, visible_bias):
        """Reconstruction of a tied sigmoid autoencoder."""
        weights, hidden_bias, visible_bias = map(self.array, (weights, hidden_bias, visible_bias))
        return lambda value: 1 / (1 + self.m.exp(-(value @ weights + hidden_bias))) @ weights.T + visible_bias

    def __call__(self, function, field, value, *arguments, dtype=np.float64, **options):
        """A diagnostic of NumPy values, as a NumPy array; NumPyro compiles it, and its stochastic ones get a key."""
        diagnostic = getattr(self.fields, function)
        call = lambda value: diagnostic(field, value, *arguments, **options)
        if self.name == "numpyro":
            import jax

            call = jax.jit(call)
            if function in KEYED:
                options["rng_key"] = jax.random.key(0)
        return self.numpy(call(self.array(value, dtype)))

    def fixed_points(self, reconstruct, starts, dtype=np.float64, **options):
        found = self.equilibria.fixed_points(reconstruct, self.array(starts, dtype), **options)
        return found._replace(points=self.numpy(found.points), eigenvalues=self.numpy(found.eigenvalues))


@pytest.fixture
def tools(backend):
    return Tools(backend)


def finite_difference_jacobian(tools, field, value, step=1e-3):
    columns = []
    for unit in step * np.eye(value.shape[-1]):
        samples = [tools.numpy(field(tools.array(value + k * unit))) for k in (-2, -1, 1, 2)]
        columns.append((samples[0] - 8 * samples[1] + 8 * samples[2] - samples[3]) / (12 * step))
    return np.stack(columns, -1)


# ---------------------------------------------------------------------- divergence and asymmetry


@pytest.mark.parametrize("name", JACOBIANS)
def test_linear_fields(tools, name):
    matrix, expected = JACOBIANS[name]
    field = tools.linear(matrix)
    divergence, asymmetry = (tools(function, field, VALUES) for function in KEYED)
    np.testing.assert_allclose(divergence, np.full((2, 5), np.trace(matrix)), atol=1e-14)
    np.testing.assert_allclose(asymmetry, np.full((2, 5), expected), atol=1e-15)


def test_nonlinear_field_against_finite_differences(tools):
    field = tools.gated()
    jacobian = finite_difference_jacobian(tools, field, VALUES)
    difference = np.sum((jacobian - jacobian.swapaxes(-1, -2)) ** 2, (-2, -1))
    expected = difference / (4 * np.sum(jacobian**2, (-2, -1)))
    np.testing.assert_allclose(tools("divergence", field, VALUES), np.trace(jacobian, axis1=-2, axis2=-1), rtol=1e-7)
    np.testing.assert_allclose(tools("asymmetry", field, VALUES), expected, rtol=1e-7)


def test_a_single_point_has_a_single_number(tools):
    for function in ("divergence", "asymmetry", "circulation"):
        several = tools(function, tools.gated(), VALUES)
        assert several.shape == (2, 5)
        np.testing.assert_allclose(tools(function, tools.gated(), VALUES[1, 2]), several[1, 2], rtol=1e-12, atol=1e-14)


def test_no_points(tools):
    assert all(tools(function, tools.gated(), np.zeros((0, 3))).shape == (0,) for function in KEYED)


def test_hutchinson_divergence_is_unbiased(tools):
    values = np.broadcast_to(VALUES[:1, :3], (2000, 3, 3))
    draws = tools("divergence", tools.gated(), values, estimator="hutchinson", num_probes=2)
    z = (draws.mean(0) - tools("divergence", tools.gated(), VALUES[0, :3])) / (draws.std(0) / np.sqrt(len(draws)))
    assert np.all(np.abs(z) < MAX_Z)
    assert np.all(draws.std(0) > 0.1)


def test_hutchinson_asymmetry_tends_to_the_exact_one(tools):
    values = np.broadcast_to(VALUES[:1, :3], (300, 3, 3))
    draws = tools("asymmetry", tools.gated(), values, estimator="hutchinson", num_probes=400)
    z = (draws.mean(0) - tools("asymmetry", tools.gated(), VALUES[0, :3])) / (draws.std(0) / np.sqrt(len(draws)))
    assert np.all(np.abs(z) < MAX_Z)
    assert np.all(draws.std(0) < 0.02)


def test_hutchinson_asymmetry_lies_between_its_extremes(tools):
    draw = lambda matrix: tools("asymmetry", tools.linear(matrix), VALUES, estimator="hutchinson")
    np.testing.assert_allclose(draw(ANTISYMMETRIC), 1.0)
    np.testing.assert_allclose(draw(SYMMETRIC), 0.0, atol=1e-30)
    np.testing.assert_array_equal(draw(np.zeros((3, 3))), 0.0)
    one_row = np.array([[1.0, 1.1, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # J e = +-0.1 for half of all probes
    assert np.all((draw(one_row) >= 0) & (draw(one_row) <= 1))


def test_asymmetry_is_differentiable_in_the_parameters(tools):
    """Against central differences of the same draw: what it takes to be a penalty."""
    direction = normal(3, 3)

    def penalty(matrix):
        field = lambda value: tools.m.tanh(value @ matrix)
        options = {}
        if tools.name == "numpyro":
            import jax

            options["rng_key"] = jax.random.key(3)
        else:
            tools.m.manual_seed(3)
        value = tools.array(VALUES[0])
        return tools.fields.asymmetry(field, value, estimator="hutchinson", num_probes=2, **options).mean()

    if tools.name == "numpyro":
        penalty = importlib.import_module("jax").jit(penalty)
    (gradient,) = tools.backend.grad(penalty, tools.array(GENERAL))
    ends = [float(penalty(tools.array(GENERAL + step * direction))) for step in (-1e-5, 1e-5)]
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


# ---------------------------------------------------------------------- circulation


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (0, 2), (2, 1)])
def test_circulation_of_a_linear_field_is_area_times_curl(tools, first, second):
    circulation = tools("circulation", tools.linear(GENERAL), VALUES, radius=0.7, plane=(first, second))
    curl = GENERAL[second, first] - GENERAL[first, second]
    np.testing.assert_allclose(circulation, np.full((2, 5), np.pi * 0.7**2 * curl), rtol=1e-12)


def test_a_counter_clockwise_rotation_circulates_positively(tools):
    rotation = lambda value: tools.stack([-value[..., 1], value[..., 0]])
    np.testing.assert_allclose(tools("circulation", rotation, np.ones(2), radius=0.5), np.pi * 0.25 * 2)


def test_circulation_in_any_plane(tools):
    directions = np.linalg.qr(normal(3, 2))[0].T
    expected = np.pi * 0.3**2 * (directions[1] @ GENERAL @ directions[0] - directions[0] @ GENERAL @ directions[1])
    circulation = tools("circulation", tools.linear(GENERAL), VALUES, radius=0.3, plane=directions)
    np.testing.assert_allclose(circulation, np.full((2, 5), expected), rtol=1e-12)


def test_circulation_of_a_nonlinear_field_tends_to_area_times_curl(tools):
    field, radius = tools.gated(), 1e-3
    jacobian = finite_difference_jacobian(tools, field, VALUES)
    expected = np.pi * radius**2 * (jacobian[..., 2, 1] - jacobian[..., 1, 2])
    np.testing.assert_allclose(tools("circulation", field, VALUES, radius=radius, plane=(1, 2)), expected, rtol=1e-4)


def test_a_tied_autoencoder_is_conservative(tools):
    reconstruct = tools.tied(normal(3, 6), normal(6, seed=2), normal(3, seed=3))
    field = lambda value: reconstruct(value) - value
    assert np.all(tools("asymmetry", field, VALUES) < 1e-20)
    assert np.all(tools("asymmetry", field, VALUES, estimator="hutchinson") < 1e-20)
    for plane in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(tools("circulation", field, VALUES, radius=0.5, plane=plane), 0.0, atol=1e-13)


# ---------------------------------------------------------------------- what may be a field


def test_energies_are_fields_by_their_score(tools):
    rbm = tools.distributions.GaussianBernoulliRBM(tools.array(normal(3, 2)))
    np.testing.assert_allclose(tools("divergence", rbm, VALUES), tools.numpy(rbm.laplacian(tools.array(VALUES))))
    np.testing.assert_allclose(tools("divergence", rbm.score, VALUES), tools("divergence", rbm, VALUES))
    assert np.all(tools("asymmetry", rbm, VALUES) < 1e-20)


def test_a_batch_of_energies(tools):
    weights = normal(5, 3, 2)
    batch = tools.distributions.GaussianBernoulliRBM(tools.array(weights))
    for function in ("divergence", "circulation"):
        single = tools(function, tools.distributions.GaussianBernoulliRBM(tools.array(weights[3])), VALUES[:, 3])
        np.testing.assert_allclose(tools(function, batch, VALUES)[:, 3], single, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(tools(function, batch, VALUES[1, 3])[3], single[1], rtol=1e-12, atol=1e-14)


def _autoencoder(tools, weights, hidden_bias, bounded=False):
    """An energy with the methods of an autoencoder; ``field`` is not the score, so that one sees which is taken."""

    host = importlib.import_module("numpyro" if tools.name == "numpyro" else "torch").distributions.constraints

    class Autoencoder(tools.distributions.GaussianBernoulliRBM):
        if bounded:
            support = host.independent(host.unit_interval, 1)

        def reconstruct(self, value):
            return value + self.score(value)

        def field(self, value):
            return 2 * self.score(value)

    return Autoencoder(tools.array(weights), hidden_bias=tools.array(hidden_bias))


def test_autoencoders_are_fields_by_their_field(tools):
    autoencoder = _autoencoder(tools, normal(3, 2), np.zeros(2))
    expected = 2 * tools.numpy(autoencoder.laplacian(tools.array(VALUES)))
    np.testing.assert_allclose(tools("divergence", autoencoder, VALUES), expected)


def test_fixed_points_of_an_autoencoder(tools):
    weights, bias = np.array([[3.0], [0.0]]), np.array([-4.5])  # symmetric about 1.5 on the first axis
    autoencoder = _autoencoder(tools, weights, bias)
    found = tools.fixed_points(autoencoder, np.array([[0.0, 1.0], [4.0, 1.0]]))
    assert found.kinds == ("sink", "sink", "saddle")
    np.testing.assert_allclose(found.points[2], [1.5, 0.0], atol=1e-12)
    batch = tools.distributions.GaussianBernoulliRBM.expand(autoencoder, (3,))
    with pytest.raises(ValueError, match=r"^reconstruct: expected a distribution without batch"):
        tools.fixed_points(batch, np.zeros((1, 2)))


def test_searches_may_leave_the_support(tools):
    autoencoder = _autoencoder(tools, np.array([[3.0], [0.0]]), np.array([-4.4]), bounded=True)
    found = tools.fixed_points(autoencoder, np.array([[0.9, 0.5], [0.1, 0.5]]))
    assert found.kinds == ("sink", "sink", "saddle")
    assert found.points[1, 0] > 2


def test_modules_are_fields(tools):
    if tools.name == "pyro":
        module = tools.m.nn.Linear(3, 3, dtype=tools.m.float64)
        modules, matrix = [module], module.weight
    else:
        import equinox
        import jax
        from flax import nnx

        module = equinox.nn.Linear(3, 3, key=jax.random.key(0), dtype=np.float64)
        other = nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=np.float64)
        other.kernel[...] = module.weight.T
        modules, matrix = [module, other], module.weight
    matrix = tools.numpy(matrix)
    expected = {
        "divergence": np.trace(matrix),
        "asymmetry": np.sum((matrix - matrix.T) ** 2) / np.sum(4 * matrix**2),
        "circulation": np.pi * 0.01 * (matrix[1, 0] - matrix[0, 1]),
    }
    for function, number in expected.items():
        np.testing.assert_allclose(tools(function, modules[0], VALUES), np.full((2, 5), number), rtol=1e-9)
    np.testing.assert_allclose(tools("divergence", modules[-1], VALUES), np.full((2, 5), np.trace(matrix)), rtol=1e-9)
    assert tools.fixed_points(modules[-1], VALUES).points.shape == (1, 3)


@pytest.mark.pyro
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
class TestTorchGraphs:
    """What only autograd distinguishes."""

    @pytest.fixture
    def tools(self):
        return Tools(get_backend("pyro"))

    @pytest.mark.parametrize("estimator", ["exact", "hutchinson"])
    @pytest.mark.parametrize("function", KEYED)
    def test_results_have_graphs_where_inputs_ask_for_them(self, tools, function, estimator):
        diagnostic, value = getattr(tools.fields, function), tools.array(VALUES)
        module = tools.m.nn.Sequential(tools.m.nn.Linear(3, 3), tools.m.nn.Tanh()).double()
        assert not diagnostic(tools.gated(), value, estimator=estimator).requires_grad
        assert diagnostic(tools.gated(), value.clone().requires_grad_(), estimator=estimator).requires_grad
        diagnostic(module, value, estimator=estimator).sum().backward()
        assert module[0].weight.grad.abs().sum() > 0
        with tools.m.no_grad():
            tools.m.manual_seed(0)
            silent = diagnostic(module, value, estimator=estimator)
        tools.m.manual_seed(0)
        assert not silent.requires_grad
        np.testing.assert_allclose(silent, diagnostic(module, value, estimator=estimator).detach(), rtol=1e-12)

    @pytest.mark.parametrize("function", KEYED)
    def test_inside_torch_func(self, tools, function):
        diagnostic, value = getattr(tools.fields, function), tools.array(VALUES[0])
        mapped = tools.m.func.vmap(lambda v: diagnostic(tools.gated(), v))(value)
        np.testing.assert_allclose(mapped, diagnostic(tools.gated(), value), rtol=1e-12)
        total = lambda v: diagnostic(tools.gated(), v).sum()
        leaf = value.clone().requires_grad_()
        (expected,) = tools.m.autograd.grad(total(leaf), leaf)
        np.testing.assert_allclose(tools.m.func.grad(total)(value), expected, rtol=1e-10)
        stochastic = lambda v: diagnostic(tools.gated(), v, estimator="hutchinson")
        assert tools.m.func.vmap(stochastic, randomness="different")(value).shape == (5,)

    def test_circulation_inside_torch_func(self, tools):
        value = tools.array(VALUES[0])
        circulation = lambda v: tools.fields.circulation(tools.gated(), v, radius=0.3)
        np.testing.assert_allclose(tools.m.func.vmap(circulation)(value), circulation(value), rtol=1e-12)

    def test_a_field_that_hides_its_graph_is_refused(self, tools):
        hidden = tools.m.no_grad()(tools.gated())
        value = tools.array(VALUES)
        for call in (tools.fields.divergence, tools.fields.asymmetry):
            with pytest.raises(ValueError, match=r"^field: expected a function that autograd can follow"):
                call(hidden, value)
        with pytest.raises(ValueError, match=r"^reconstruct: expected a function that autograd can follow"):
            tools.equilibria.fixed_points(hidden, value)
        constant = lambda v: tools.m.ones_like(v)
        assert not tools.fields.divergence(constant, value).any()


@pytest.mark.numpyro
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs JAX")
def test_stochastic_estimates_need_a_key():
    import jax
    import numpyro

    tools = Tools(get_backend("numpyro"))
    field, value = tools.linear(GENERAL), tools.array(VALUES[0])
    for name in KEYED:
        function = getattr(tools.fields, name)
        with pytest.raises(ValueError, match=f"^rng_key: {name} is stochastic"):
            function(field, value, estimator="hutchinson")
        with pytest.raises(TypeError, match=f"^rng_key: {name} expected"):
            function(field, value, estimator="hutchinson", rng_key=0)
        with numpyro.handlers.seed(rng_seed=0):
            inside = function(field, value, estimator="hutchinson")
        outside = function(field, value, estimator="hutchinson", rng_key=jax.random.key(0))
        assert inside.shape == outside.shape


# ---------------------------------------------------------------------- fixed points


def test_two_sinks_and_the_saddle_between_them(tools):
    weights = np.array([[1.5], [0.5]])
    matrix = tools.array(weights)
    found = tools.fixed_points(lambda x: tools.m.tanh(x @ matrix) @ matrix.T, normal(6, 2))
    projection = brentq(lambda s: 2.5 * np.tanh(s) - s, 1e-3, 5, xtol=1e-14)  # x = w tanh(s), s = w'x, |w|^2 = 2.5
    sink = weights[:, 0] * np.tanh(projection)
    assert found.kinds == ("sink", "sink", "saddle")
    assert found.num_dropped == 0
    np.testing.assert_allclose(np.sort(found.points, 0), np.sort([-sink, 0 * sink, sink], 0), atol=1e-10)
    np.testing.assert_allclose(found.points[2], 0, atol=1e-12)
    rate = 2.5 / np.cosh(projection) ** 2 - 1
    np.testing.assert_allclose(found.eigenvalues, [[-1, rate], [-1, rate], [-1, 1.5]], atol=1e-9)


def test_a_saddle_is_found_from_the_sinks_alone(tools):
    """Newton from the starts goes to the sinks, where they are; half-way between them lies the saddle."""
    reconstruct = lambda x: tools.m.tanh(2 * x)
    found = tools.fixed_points(reconstruct, np.array([[-0.95], [0.96]]))
    assert found.kinds == ("sink", "sink", "source")
    np.testing.assert_allclose(found.points[2], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("rates", "kind"),
    [
        ([[0.5, 1.0], [-1.0, 0.5]], "source"),
        ([[-0.5, 1.0], [-1.0, -0.5]], "sink"),
        ([[0.5, 3.0], [0.0, -0.5]], "saddle"),
        ([[0.0, 1.0], [-1.0, 0.0]], "degenerate"),
    ],
)
def test_kinds_of_linear_fixed_points(tools, rates, kind):
    """r(x) = x + A (x - c), whose field has the eigenvalues of A: none of them needs a contracting reconstruction."""
    centre, field = tools.array(np.array([3.0, -1.0])), tools.linear(np.array(rates))
    shift = field(centre)
    found = tools.fixed_points(lambda x: x + field(x) - shift, normal(4, 2))
    assert found.kinds == (kind,)
    np.testing.assert_allclose(found.points, [[3.0, -1.0]], atol=1e-9)
    expected = np.sort(np.linalg.eigvals(np.array(rates)).astype(complex))
    np.testing.assert_allclose(found.eigenvalues, [expected], atol=1e-12)


def test_a_map_that_oscillates_still_has_its_sink(tools):
    """Forward iteration of r = -2 tanh(x) never settles, and yet the field's flow ends at 0."""
    found = tools.fixed_points(lambda x: -2 * tools.m.tanh(x), np.array([[0.7], [3.0]]), num_steps=50)
    assert found.kinds == ("sink",)
    np.testing.assert_allclose(found.points, [[0.0]], atol=1e-10)


@pytest.mark.parametrize("name", ["translation", "parabola"])
def test_no_fixed_points(tools, name):
    reconstruct = {"translation": lambda x: x + 1, "parabola": lambda x: x + 0.1 + x**2}[name]
    found = tools.fixed_points(reconstruct, normal(4, 2))
    assert found.points.shape == found.eigenvalues.shape == (0, 2)
    assert (found.kinds, found.num_dropped) == ((), 4)


def test_a_double_root_is_one_degenerate_point(tools):
    found = tools.fixed_points(lambda x: x + x**2, np.array([[-0.5], [-0.1], [0.2]]))
    assert found.kinds == ("degenerate",)
    np.testing.assert_allclose(found.points, [[0.0]], atol=1e-4)


def test_a_flat_root_in_single_precision_is_one_degenerate_point(tools):
    """x - tanh(x) is x^3 / 3 at 0: rounding stops searches from either side short of it, and of each other."""
    found = tools.fixed_points(tools.m.tanh, np.array([[-0.5], [0.1], [0.4], [2.0]]), np.float32)
    assert found.kinds == ("degenerate",)
    np.testing.assert_allclose(found.points, [[0.0]], atol=5e-3)


def test_starts_that_lead_nowhere_are_counted(tools):
    """x + sqrt(1 + x^2) - 2 has its fixed points at +-sqrt(3); far out in the second one there are none."""
    reconstruct = lambda x: tools.m.where(x < 10, x + tools.m.sqrt(1 + x**2) - 2, x + 1)
    found = tools.fixed_points(reconstruct, np.array([[1.0], [-1.0], [50.0]]))
    assert (found.kinds, found.num_dropped) == (("sink", "source"), 1)
    np.testing.assert_allclose(found.points, [[-np.sqrt(3)], [np.sqrt(3)]], atol=1e-10)


# ---------------------------------------------------------------------- both packages alike


@pytest.mark.numpyro
@pytest.mark.pyro
@pytest.mark.skipif(len(backends()) < 2, reason="needs both backends")
class TestParity:
    @pytest.fixture
    def both(self):
        return [Tools(get_backend(name)) for name in ("numpyro", "pyro")]

    @pytest.mark.parametrize("function", ["divergence", "asymmetry", "circulation"])
    def test_diagnostics(self, both, function):
        first, second = (tools(function, tools.gated(), VALUES) for tools in both)
        np.testing.assert_allclose(first, second, rtol=1e-10, atol=1e-10)

    def test_fixed_points(self, both):
        rng = np.random.default_rng(5)
        weights, starts = 1.3 * rng.normal(size=(2, 6)), 2 * rng.normal(size=(20, 2))

        def find(tools):
            return tools.fixed_points(tools.tied(2 * weights, -2 * np.ones(6), -weights.sum(1)), starts)

        first, second = map(find, both)
        assert first.kinds == second.kinds
        assert {"sink", "saddle"} <= set(first.kinds)
        assert first.num_dropped == second.num_dropped
        np.testing.assert_allclose(first.points, second.points, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(first.eigenvalues, second.eigenvalues, rtol=1e-8, atol=1e-8)

    def test_types(self, both):
        for tools in both:
            value = tools.array(VALUES, np.float32)
            for function in ("divergence", "asymmetry", "circulation"):
                assert tools(function, tools.m.tanh, VALUES, dtype=np.float32).dtype == np.float32
            found = tools.equilibria.fixed_points(lambda v, tools=tools: tools.m.tanh(2 * v), value[0, :, :2])
            assert tools.numpy(found.points).dtype == np.float32
            assert tools.numpy(found.eigenvalues).dtype == np.complex64
            assert found.kinds.count("sink") <= 4


# ---------------------------------------------------------------------- pictures


def _plot(tools, *arguments, **options):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    return tools.plots.plot_field(*arguments, num_points=15, **options)


def test_plot_shows_everything(tools):
    autoencoder = _autoencoder(tools, np.array([[3.0], [0.0]]), np.array([-4.5]))
    data = tools.array(normal(7, 2))
    found = tools.equilibria.fixed_points(autoencoder, data)
    axes = _plot(tools, autoencoder, fixed_points=found, data=data, bounds=((-1.0, 4.0), (-2.0, 2.0)))
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1.0, 4.0), (-2.0, 2.0))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["data", "sink", "saddle"]
    shown = {artist.get_label(): np.asarray(artist.get_offsets()) for artist in axes.collections}
    np.testing.assert_allclose(shown["data"], tools.numpy(data))
    np.testing.assert_allclose(shown["saddle"], [[1.5, 0.0]], atol=1e-10)
    assert len(axes.figure.axes) == 2  # the second is the energy's colour bar
    axes.figure.canvas.draw()


def test_plot_of_a_plain_field_in_given_axes(tools):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    given = pyplot.figure().subplots()
    rotation = lambda value: tools.stack([-value[..., 1], value[..., 0]])
    axes = _plot(tools, rotation, ax=given)
    assert axes is given
    assert axes.get_legend() is None
    assert len(axes.figure.axes) == 1
    assert axes.get_xlim() == (-3.0, 3.0)


def test_plot_takes_an_energy_and_frames_the_data(tools):
    rotation = lambda value: tools.stack([-value[..., 1], value[..., 0]])
    axes = _plot(tools, rotation, lambda value: (value**2).sum(-1), data=tools.array([[0.0, 0.0], [2.0, 1.0]]))
    assert len(axes.figure.axes) == 2
    np.testing.assert_allclose([axes.get_xlim(), axes.get_ylim()], [[-0.3, 2.3], [-0.15, 1.15]])


# ---------------------------------------------------------------------- errors

POINT = np.zeros(3)
ERRORS = {
    "unknown estimator": (ValueError, "estimator", lambda t: t("divergence", t.gated(), POINT, estimator="exakt")),
    "estimator of asymmetry": (ValueError, "estimator", lambda t: t("asymmetry", t.gated(), POINT, estimator=None)),
    "no probes": (ValueError, "num_probes", lambda t: t("divergence", t.gated(), POINT, num_probes=0)),
    "half a probe": (ValueError, "num_probes", lambda t: t("asymmetry", t.gated(), POINT, num_probes=0.5)),
    "a number as a field": (TypeError, "field", lambda t: t("divergence", 3.0, POINT)),
    "a narrower output": (ValueError, "field", lambda t: t("divergence", lambda v: v[..., :2], POINT)),
    "a scalar output": (ValueError, "field", lambda t: t("circulation", lambda v: v.sum(-1), POINT)),
    "no output": (TypeError, "field", lambda t: t("asymmetry", lambda v: None, POINT)),
    "an integer output": (TypeError, "field", lambda t: t("asymmetry", lambda v: t.array(POINT, np.int32), POINT)),
    "a discrete energy": (
        TypeError,
        "field",
        lambda t: t("divergence", t.distributions.BernoulliRBM(t.array(np.ones((3, 2)))), POINT),
    ),
    "a distribution without a score": (
        TypeError,
        "field",
        lambda t: t(
            "divergence", importlib.import_module(f"{t.name}.distributions").Normal(t.array(POINT), 1.0), POINT
        ),
    ),
    "an energy of matrices": (
        ValueError,
        "field",
        lambda t: t("divergence", t.distributions.NeuralEnergy(lambda v: v.sum((-2, -1)), (2, 3)), np.zeros((2, 3))),
    ),
    "integer values": (TypeError, "value", lambda t: t.fields.divergence(t.gated(), t.array(POINT, np.int32))),
    "text as values": (TypeError, "value", lambda t: t.fields.asymmetry(t.gated(), "abc")),
    "a scalar value": (ValueError, "value", lambda t: t("circulation", t.gated(), 1.0)),
    "negative radius": (ValueError, "radius", lambda t: t("circulation", t.gated(), POINT, radius=-0.1)),
    "infinite radius": (ValueError, "radius", lambda t: t("circulation", t.gated(), POINT, radius=np.inf)),
    "radius that is text": (TypeError, "radius", lambda t: t("circulation", t.gated(), POINT, radius="0.1")),
    "equal axes": (ValueError, "plane", lambda t: t("circulation", t.gated(), POINT, plane=(1, 1))),
    "axes out of range": (ValueError, "plane", lambda t: t("circulation", t.gated(), POINT, plane=(0, 3))),
    "one axis": (ValueError, "plane", lambda t: t("circulation", t.gated(), POINT, plane=(0,))),
    "no plane": (ValueError, "plane", lambda t: t("circulation", t.gated(), POINT, plane=None)),
    "oblique directions": (
        ValueError,
        "plane",
        lambda t: t("circulation", t.gated(), POINT, plane=([1.0, 0.0, 0.0], [0.6, 0.8, 0.0])),
    ),
    "two nodes": (ValueError, "num_nodes", lambda t: t("circulation", t.gated(), POINT, num_nodes=2)),
    "no starts": (ValueError, "starts", lambda t: t.fixed_points(t.gated(), np.zeros((0, 3)))),
    "infinite starts": (ValueError, "starts", lambda t: t.fixed_points(t.gated(), np.full((1, 3), np.inf))),
    "integer starts": (
        TypeError,
        "starts",
        lambda t: t.equilibria.fixed_points(t.gated(), t.array(np.zeros((1, 3)), np.int32)),
    ),
    "a number as a reconstruction": (TypeError, "reconstruct", lambda t: t.fixed_points(3.0, np.zeros((1, 3)))),
    "an energy without a reconstruction": (
        TypeError,
        "reconstruct",
        lambda t: t.fixed_points(t.distributions.GaussianRBM(t.array(np.zeros((3, 2)))), np.zeros((1, 3))),
    ),
    "a narrower reconstruction": (
        ValueError,
        "reconstruct",
        lambda t: t.fixed_points(lambda v: v[..., :2], np.zeros((1, 3))),
    ),
    "no steps": (ValueError, "num_steps", lambda t: t.fixed_points(t.gated(), np.zeros((1, 3)), num_steps=0)),
    "no tolerance": (ValueError, "tolerance", lambda t: t.fixed_points(t.gated(), np.zeros((1, 3)), tolerance=0.0)),
    "picture of a field of three dimensions": (ValueError, "field", lambda t: _plot(t, t.gated())),
    "picture of an energy of three dimensions": (
        ValueError,
        "field",
        lambda t: _plot(t, t.distributions.GaussianRBM(t.array(np.zeros((3, 2))))),
    ),
    "picture of a number": (TypeError, "field", lambda t: _plot(t, 3.0)),
    "picture of data of three dimensions": (
        ValueError,
        "data",
        lambda t: _plot(t, lambda v: -v, data=t.array(np.zeros((4, 3)))),
    ),
    "picture of fixed points of three dimensions": (
        ValueError,
        "fixed_points",
        lambda t: _plot(t, lambda v: -v, fixed_points=t.equilibria.fixed_points(lambda v: -v, t.array(VALUES[0]))),
    ),
    "picture with a number as energy": (TypeError, "energy", lambda t: _plot(t, lambda v: -v, 3.0)),
    "picture with a vector as energy": (ValueError, "energy", lambda t: _plot(t, lambda v: -v, lambda v: v)),
    "picture with bounds out of order": (ValueError, "bounds", lambda t: _plot(t, lambda v: -v, bounds=(1.0, -1.0))),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(tools, case):
    error, argument, call = ERRORS[case]
    with pytest.raises(error, match=f"^{argument}: ") as caught:
        call(tools)
    assert "expected" in str(caught.value)
