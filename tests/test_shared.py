"""What both packages share, on NumPy arrays and plain Python: no backend is needed to run most of this file."""

import ast
import importlib
import inspect
import itertools
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest

import _ppl_ebm
from _ppl_ebm import activations, arviz, checks, equilibria, factor_graph, fields, plots, properness
from _ppl_ebm.errors import ImproperDensityError
from backends import backends, get_backend

SOURCES = sorted(pathlib.Path(_ppl_ebm.__path__[0]).glob("*.py"))
HOSTS = {"jax", "jaxlib", "numpyro", "torch", "pyro", "numpyro_ebm", "pyro_ebm"}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_backend_is_imported_anywhere(path):
    """Not in functions either; ``tests/test_imports.py`` imports the modules without them."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not HOSTS & {name.split(".")[0] for name in names}


# ---------------------------------------------------------------------- arguments

BAD_ARGUMENTS = {
    "a fraction for an integer": (ValueError, lambda: checks.check_positive_int("x", 1.5)),
    "a truth value for an integer": (ValueError, lambda: checks.check_positive_int("x", True)),
    "no steps": (ValueError, lambda: checks.check_positive_int("x", 0)),
    "a negative count": (ValueError, lambda: checks.check_count("x", -1)),
    "a number that is text": (TypeError, lambda: checks.check_positive("x", "1")),
    "not a number": (ValueError, lambda: checks.check_positive("x", float("nan"))),
    "infinity": (ValueError, lambda: checks.check_positive("x", np.float32(np.inf))),
    "below the least": (ValueError, lambda: checks.check_between("x", -0.1, 0, 1)),
    "a certain event": (ValueError, lambda: checks.check_probability("x", 1)),
    "an unknown choice": (ValueError, lambda: checks.check_choice("x", "owner", "c", ("a", "b"))),
    "a choice that is no text": (ValueError, lambda: checks.check_choice("x", "owner", None, ("a", "b"))),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_named(case):
    error, call = BAD_ARGUMENTS[case]
    with pytest.raises(error, match=r"^x: .*expected .*, got "):
        call()


def test_good_arguments_pass():
    checks.check_positive_int("x", np.int64(1))
    checks.check_count("x", np.int64(0))
    checks.check_positive("x", np.float32(1e-3))
    checks.check_between("x", 0, 0, 1)
    checks.check_probability("x", 0.5)
    checks.check_choice("x", "owner", "a", ("a", "b"))


def test_all_choices_are_named():
    for choices, expected in {("a",): '"a"', ("a", "b"): '"a" or "b"', ("a", "b", "c"): '"a", "b" or "c"'}.items():
        with pytest.raises(ValueError, match=f"^x: owner expected {expected}, got 3$"):
            checks.check_choice("x", "owner", 3, choices)


# ---------------------------------------------------------------------- proper densities


def accepts(check, *arguments, **options):
    try:
        check("Model", *arguments, **options)
    except ImproperDensityError:
        return False
    return True


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (2, 5)])
def test_spectral_norm_against_eigenvalues(shape):
    outcomes = set()
    for seed in range(40):
        weights, gains = rng(seed).normal(size=shape) / 2, rng(seed).normal(size=shape[1])
        proper = np.linalg.eigvalsh(np.eye(shape[0]) - (weights * np.maximum(gains, 0)) @ weights.T).min() > 0
        check = lambda owner, weights, gains: properness.check_spectral_norm(owner, "weights", weights, gains)
        assert accepts(check, weights, gains) == proper
        outcomes.add(bool(proper))
    assert outcomes == {True, False}


@pytest.mark.parametrize("with_fixed", [False, True])
def test_conditional_precisions_against_all_states(with_fixed):
    """Columns of one sign, of mixed signs, a diagonal, states other than 0 and 1: every one is decided exactly."""
    outcomes = []
    for seed in range(60):
        random = rng(seed)
        filters, pooling = 0.5 * random.normal(size=(3, 4)), random.normal(size=(4, 3))
        pooling[:, 0] = np.abs(pooling[:, 0])
        diagonal, (low, high) = random.uniform(0.5, 1.5, 3), sorted(random.normal(size=2))
        fixed = 0.3 * random.normal(size=(3, 2)) if with_fixed else None
        base = np.diag(diagonal) - (fixed @ fixed.T if with_fixed else 0)
        states = itertools.product((low, high), repeat=3)
        least = min(np.linalg.eigvalsh(base - (filters * (pooling @ h)) @ filters.T).min() for h in states)
        outcomes.append(least > 0)
        assert accepts(properness.check_conditional_precisions, filters, pooling, diagonal, low, high, fixed) == (
            least > 0
        )
    assert 5 < sum(outcomes) < 55


def test_too_many_units_of_mixed_signs_are_not_enumerated():
    filters, pooling = np.eye(2), np.array([[0.9], [-0.9]]) * np.ones(17)
    with pytest.raises(ImproperDensityError, match="more than 16 units of mixed signs"):
        properness.check_conditional_precisions("Model", filters, pooling)
    properness.check_conditional_precisions("Model", filters, 0.05 * pooling)  # where even the bound holds


TAILS = {
    # filters (D, F), pooling (F, K), concentrations on both sides of the boundary
    "one dimension": ([[1.0]], [[1.0]], [0.51], [0.5]),
    "two units share a dimension": ([[1.0, 2.0]], np.eye(2), [0.26, 0.26], [0.26, 0.24]),
    "a unit for each dimension": (np.eye(2), np.eye(2), [0.51, 0.51], [5.0, 0.5]),
    "one unit sees both": (np.eye(2), [[1.0], [1.0]], [1.01], [1.0]),
    "a diagonal unit helps": (
        [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]],
        np.eye(3),
        [0.34, 0.34, 0.34],
        [0.33, 0.33, 0.33],
    ),
    "a dimension that none sees": (np.eye(2), [[1.0, 0.1], [0.0, 0.1]], [3.0, 3.0], None),
    "filters that do not span": ([[1.0], [0.0]], [[1.0]], None, [9.0]),
}


@pytest.mark.parametrize("case", TAILS)
def test_student_tails_at_their_boundaries(case):
    filters, pooling, *sides = TAILS[case]
    for concentration, proper in zip(sides, (True, False), strict=True):
        if concentration is not None:
            arrays = [np.asarray(array, float) for array in (filters, pooling, concentration)]
            assert accepts(properness.check_student_tails, *arrays) == proper


def test_many_units_need_the_sufficient_condition():
    filters, pooling = np.ones((1, 17)), np.eye(17)
    assert accepts(properness.check_student_tails, filters, pooling, np.full(17, 0.51))
    with pytest.raises(ImproperDensityError, match="at most 16 units"):
        properness.check_student_tails("Model", filters, pooling, np.full(17, 0.49))


@pytest.mark.parametrize(
    ("name", "weight", "proper"), [("relu", 0.1, False), ("relu", -9.0, True), ("tanh", -1.1, False)]
)
def test_pooled_growth(name, weight, proper):
    arrays = np.eye(1), np.array([[weight]]), activations.GROWTH[name]
    assert accepts(properness.check_pooled_growth, *arrays) == proper


def test_nothing_is_refused_of_activations_whose_growth_is_not_known():
    assert accepts(properness.check_pooled_growth, np.eye(1), np.array([[9.0]]), activations.Growth())


def test_models_of_a_batch_broadcast():
    weights, bias = rng().normal(size=(3, 1, 2, 4)), rng().normal(size=(5, 4))
    models = list(properness.single_models([weights, bias], [2, 1]))
    assert len(models) == 15
    np.testing.assert_array_equal(models[7][0], weights[1, 0])
    np.testing.assert_array_equal(models[7][1], bias[2])


# ---------------------------------------------------------------------- factor graphs


def chain(length):
    return [(i, i + 1) for i in range(length - 1)]


def grid(rows, columns):
    index = lambda r, c: r * columns + c
    right = [(index(r, c), index(r, c + 1)) for r in range(rows) for c in range(columns - 1)]
    return right + [(index(r, c), index(r + 1, c)) for r in range(rows - 1) for c in range(columns)]


GRAPHS = {
    "chain": (6, chain(6), 1),
    "loop": (6, [*chain(6), (5, 0)], 2),
    "star": (6, [(0, i) for i in range(1, 6)], 1),
    "complete": (5, list(itertools.combinations(range(5), 2)), 4),
    "grid": (16, grid(4, 4), 4),
    "single factor of three": (4, [(3, 1, 0), (2,)], 2),
    "no factor of the last": (3, [(0, 1)], 1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_treewidths(name):
    count, scopes, width = GRAPHS[name]
    elimination = factor_graph.factor_graph((2,) * count, tuple(scopes)).elimination()
    assert elimination.width == width
    assert elimination.largest == 2 ** (width + 1)


def random_graph(seed):
    random = rng(seed)
    cardinalities = tuple(int(size) for size in random.integers(1, 4, 7))
    scopes = [tuple(int(v) for v in random.permutation(7)[: random.integers(1, 4)]) for _ in range(8)]
    return factor_graph.factor_graph(cardinalities, tuple(scopes))


@pytest.mark.parametrize("keep", [(), (2,), (5, 0)])
@pytest.mark.parametrize("seed", range(8))
def test_orders_eliminate_everything_that_is_not_kept(seed, keep):
    """Every factor lies in the cluster of its first variable to go, and so does what each step leaves behind."""
    graph = random_graph(seed)
    order = graph.elimination(keep)
    first = [cluster[0] for cluster in order.clusters]
    assert sorted([*first, *keep]) == list(range(7))
    left = [cluster[1:] for cluster in order.clusters]
    for scope in [*graph.scopes, *left]:
        going = [first.index(v) for v in scope if v not in keep]
        if going:
            assert set(scope) <= set(order.clusters[min(going)])
    sizes = [np.prod([graph.cardinalities[v] for v in cluster]) for cluster in order.clusters]
    assert order.total == sum(sizes)
    assert order.largest == max(*sizes, np.prod([graph.cardinalities[v] for v in keep]))


@pytest.mark.parametrize("seed", range(8))
def test_colours_share_no_factor(seed):
    graph = random_graph(seed)
    assert sorted(np.concatenate(graph.colours)) == list(range(7))
    for colour, scope in itertools.product(graph.colours, graph.scopes):
        assert len(set(colour.tolist()) & set(scope)) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_groups_look_up_the_entries_of_their_tables(seed):
    graph = random_graph(seed)
    tables = [rng(seed).normal(size=[graph.cardinalities[v] for v in scope]) for scope in graph.scopes]
    state = np.array([rng(seed).integers(size) for size in graph.cardinalities])
    found = {}
    for group in graph.groups:
        flat = np.concatenate([tables[factor].ravel() for factor in group.factors])
        entries = flat[group.offsets + (state[group.scopes] * group.strides).sum(-1)]
        found |= dict(zip(group.factors, entries, strict=True))
    assert found == {factor: tables[factor][tuple(state[list(scope)])] for factor, scope in enumerate(graph.scopes)}


def test_intractable_orders_say_what_they_need():
    order = factor_graph.factor_graph((2,) * 40, tuple(itertools.combinations(range(40), 2))).elimination()
    assert not order.is_tractable
    assert "about 10^12 entries" in order.describe()


BAD_GRAPHS = {
    "text": (TypeError, "cardinalities", lambda: factor_graph.check_cardinalities("23")),
    "a number": (TypeError, "cardinalities", lambda: factor_graph.check_cardinalities(3)),
    "fractions": (TypeError, "cardinalities", lambda: factor_graph.check_cardinalities([2.5])),
    "truth values": (TypeError, "cardinalities", lambda: factor_graph.check_cardinalities([True])),
    "no states": (ValueError, "cardinalities", lambda: factor_graph.check_cardinalities([2, 0])),
    "no variables": (ValueError, "cardinalities", lambda: factor_graph.check_cardinalities([])),
    "a list of factors": (TypeError, "factors", lambda: factor_graph.check_scopes([(0, 1)], 2)),
    "no factors": (ValueError, "factors", lambda: factor_graph.check_scopes({}, 2)),
    "a scope that is no tuple": (TypeError, "factors", lambda: factor_graph.check_scopes({0: 1}, 2)),
    "a variable twice": (ValueError, "factors", lambda: factor_graph.check_scopes({(1, 1): 1}, 2)),
    "a variable out of range": (ValueError, "indices", lambda: factor_graph.check_variables("indices", [2], 2)),
    "an array without dimensions": (TypeError, "indices", lambda: factor_graph.check_variables("indices", 3, 2)),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_bad_graphs(case):
    error, name, call = BAD_GRAPHS[case]
    with pytest.raises(error, match=f"^{name}: expected"):
        call()


def test_variables_may_come_as_arrays():
    assert factor_graph.check_variables("indices", np.array([1, 0]), 2) == (1, 0)
    assert factor_graph.check_cardinalities(np.array([2, 3])) == (2, 3)
    assert factor_graph.check_scopes({(np.int64(1), 0): 1, (): 2}, 2) == ((1, 0), ())


# ---------------------------------------------------------------------- fields and their fixed points


def test_methods_of_the_class_count_and_attributes_of_the_instance_do_not():
    """A network may keep a layer called ``score``."""

    class Network:
        def __init__(self):
            self.score = self.field = abs

        def __call__(self, value):
            return 2 * value

    class Energy(Network):
        def score(self, value):
            return -value

    network, energy = Network(), Energy()
    energy.__dict__.clear()
    function = lambda owner: fields.function_of("field", owner, ("field", "score"), is_distribution=False)
    assert function(network)(1.0) == 2.0
    assert function(energy)(1.0) == -1.0
    with pytest.raises(TypeError, match=r"^field: expected a function or an object with a method `field` or `score`"):
        fields.function_of("field", network, ("field", "score"), is_distribution=True)


def test_circles_are_round_in_every_plane():
    plane = np.linalg.qr(rng().normal(size=(4, 2)))[0].T
    outward, along = fields.circle(plane, 4, 1.0, 12)
    np.testing.assert_allclose((outward**2).sum(-1), 1.0)
    np.testing.assert_allclose((along**2).sum(-1), 1.0)
    np.testing.assert_allclose((outward * along).sum(-1), 0.0, atol=1e-15)
    np.testing.assert_allclose(np.roll(outward, -3, 0), along, atol=1e-15)  # a quarter turn on


def test_fixed_points_are_told_apart():
    """Near ones are one, degenerate ones in a wider circle; sinks come first, and others in the order of their kind."""
    points = np.array([[5.0], [0.0], [1e-7], [9.0], [9.0005], [-3.0]])
    matrices = np.array([2.0, -1.0, -1.0, 0.0, 0.0, -2.0])[:, None, None]
    found, kinds, eigenvalues = equilibria.classify(points, matrices, 1e-6)
    np.testing.assert_array_equal(found[:, 0], [0.0, -3.0, 5.0, 9.0])
    assert [equilibria.KINDS[kind] for kind in kinds] == ["sink", "sink", "source", "degenerate"]
    np.testing.assert_array_equal(eigenvalues[:, 0], [-1.0, -2.0, 2.0, 0.0])
    saddle = equilibria.classify(np.zeros((1, 2)), np.diag([1.0, -1.0])[None], 1e-6)
    assert equilibria.KINDS[saddle[1][0]] == "saddle"


def test_a_start_is_dropped_where_neither_of_its_searches_ends_at_a_fixed_point():
    """The first is found from the end of its iteration, the second from itself, the third from nowhere."""
    calls = []

    def search(points):
        calls.append(points.shape)
        is_fixed = np.isin(points, [1.0, 20.0, 10.5])[:, 0]
        return points, is_fixed, np.broadcast_to(-np.eye(1), (len(points), 1, 1))

    ends, starts = np.array([[1.0], [2.0], [3.0]]), np.array([[10.0], [20.0], [30.0]])
    found = equilibria.locate(search, ends, starts, 1e-6)
    assert found.num_dropped == 1
    assert sorted(found.points[:, 0]) == [1.0, 10.5, 20.0]  # with what lies half-way
    assert calls == [(6, 1), (6, 1)]


def test_midpoints_of_the_nearest_sinks():
    points, kinds = np.array([[0.0], [1.0], [4.0], [0.4]]), np.array([0, 0, 0, 1])
    np.testing.assert_array_equal(equilibria.midpoints(points, kinds, 2), [[0.5], [2.5]])
    np.testing.assert_array_equal(equilibria.midpoints(points, kinds, 4), [[0.5], [2.5], [2.0], [0.5]])
    assert equilibria.midpoints(points[:1], kinds[:1], 4).shape == (0, 1)


def test_results_can_be_pickled():
    found = equilibria.FixedPoints(np.zeros((1, 2)), ("sink",), np.zeros((1, 2), complex), 3)
    assert pickle.loads(pickle.dumps(found)).num_dropped == 3


# ---------------------------------------------------------------------- ArviZ and pictures


@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_call_style_of_every_arviz(monkeypatch, version):
    old = lambda posterior=None, sample_stats=None, observed_data=None, *, coords=None, dims=None: (
        {"posterior": posterior, "sample_stats": sample_stats, "observed_data": observed_data},
        coords,
        dims,
    )
    new = lambda data, *, coords=None, dims=None: (data, coords, dims)
    monkeypatch.setitem(sys.modules, "arviz", types.SimpleNamespace(from_dict=old if version == "0.x" else new))
    groups = {"posterior": {"v": [[1.0]]}, "prior": None, "sample_stats": {"lp": [[2.0]]}}
    data, coords, dims = arviz.inference_data(groups, {"y": [3.0]}, {"pixel": [0]}, {"y": ["pixel"]})
    assert {name: {k: v.tolist() for k, v in values.items()} for name, values in data.items()} == {
        "posterior": {"v": [[1.0]]},
        "sample_stats": {"lp": [[2.0]]},
        "observed_data": {"y": [3.0]},
    }
    assert (coords, dims) == ({"pixel": [0]}, {"y": ["pixel"]})


def test_missing_matplotlib_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'^plot_latent needs matplotlib.*"ppl-ebm\[examples\]"'):
        plots.draw_latent(None, np.zeros((3, 2)), np.zeros((3, 2)))


def test_latent_draws_are_projected_on_principal_components():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    draws = rng().normal(size=(50, 4)) * [5.0, 0.1, 0.1, 2.0]
    axes = plots.draw_latent(None, draws, draws)
    shown = np.asarray(axes.collections[1].get_offsets())
    widths = np.linalg.svd(draws - draws.mean(0), compute_uv=False)[:2]
    np.testing.assert_allclose(shown.T @ shown, np.diag(widths**2), atol=1e-10)
    assert axes.get_xlabel() == "principal component 1 of z"
    pyplot.close("all")


def test_fields_without_finite_energies_are_refused():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    box = plots.frame((-1.0, 1.0))
    with pytest.raises(ValueError, match=r"^energy: expected finite numbers"):
        plots.draw_field(None, box, plots.grid_of(box, 5), np.full((5, 5), np.inf))
    pyplot.close("all")


# ---------------------------------------------------------------------- facts about activations


@pytest.fixture(params=backends())
def backend(request):
    return get_backend(request.param)


@pytest.fixture
def table(backend):
    module = importlib.import_module(f"{backend.ebm.__name__}.distributions.parts.activations")
    return module.ACTIVATIONS


def test_every_activation_is_in_every_table(table):
    assert set(table) == set(activations.GROWTH)
    for name, activation in table.items():
        facts = activations.GROWTH[name]
        assert {field: getattr(activation, field) for field in vars(facts)} == vars(facts)


ELEMENTWISE = sorted(name for name, growth in activations.GROWTH.items() if not growth.is_joint)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_growth_is_that_of_the_function(backend, table, name):
    """Slopes and limits far out, the bound as a supremum over a grid, and jumps nowhere but at the kinks."""
    activation = table[name]
    g = lambda u: backend.numpy(activation.slope(backend.array(u)))
    far = 1e7
    np.testing.assert_allclose(g([-far, far]) / [-far, far], activation.slopes, atol=1e-6)
    if name != "sin":  # whose limits are mean values
        limits = [limit for limit, slope in zip(g([-far, far]), activation.slopes, strict=True) if slope == 0]
        stated = [limit for limit, s in zip(activation.limits, activation.slopes, strict=True) if s == 0]
        np.testing.assert_allclose(limits, stated, atol=1e-6)
    u = np.linspace(-60, 60, 24001) + 1e-5
    deviation = np.abs(g(u) - np.where(u < 0, *activation.slopes) * u).max()
    assert activation.bound - 0.03 <= deviation <= activation.bound + 1e-12
    curvature = backend.numpy(activation.curvature(backend.array(u)))
    least, most = activation.bends
    assert least - 1e-12 <= curvature.min() <= least + 0.02
    assert most - 0.02 <= curvature.max() <= most + 1e-12
    smooth = np.min(np.abs(u[:, None] - [*activation.kinks, np.inf]), 1) > 0.02
    assert np.abs(np.diff(curvature))[smooth[1:] & smooth[:-1]].max() < 0.05


@pytest.mark.parametrize("name", [*ELEMENTWISE, "softmax"])
def test_slope_and_curvature_are_derivatives_of_the_potential(backend, table, name):
    activation, u = table[name], rng(3).normal(size=4)
    (slope,) = backend.grad(activation.potential, backend.array(u))
    np.testing.assert_allclose(slope, backend.numpy(activation.slope(backend.array(u))), rtol=1e-10)
    directions = [backend.grad(lambda u, k=k: activation.slope(u)[k] + 0 * u[k], backend.array(u))[0] for k in range(4)]
    curvature = backend.numpy(activation.curvature(backend.array(u)))
    np.testing.assert_allclose(directions, curvature if activation.is_joint else np.diag(curvature), atol=1e-10)


def test_activations_survive_pickling(table):
    assert all(pickle.loads(pickle.dumps(activation)) is activation for activation in table.values())


def test_activations_are_keyword_only_after_their_functions(table):
    activation = type(table["tanh"])
    assert list(inspect.signature(activation).parameters)[:4] == ["function", "antiderivative", "derivative", "name"]
    with pytest.raises(TypeError, match=r"^Activation: expected 3 positional arguments, got 4; write Activation\("):
        activation(abs, abs, abs, "mine")
    assert activation(abs, abs, abs, name="mine") == activation(abs, abs, abs, name="mine")
    assert not activation(abs, abs, abs).is_bounded


def test_explosive_and_unknown_activations_are_refused():
    for name in ("square", "exp"):
        with pytest.raises(ImproperDensityError, match=r"^activation: expected one whose antiderivative"):
            activations.check_name(name)
    for other in ("tanhh", None, 3):
        with pytest.raises(ValueError, match=r"^activation: expected an Activation or one of sigmoid, tanh"):
            activations.check_name(other)
