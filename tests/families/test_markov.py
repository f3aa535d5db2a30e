"""Markov networks against the sum over all states.

Gates of Monte Carlo results as in ``oracles.statistics``. Mutations that were tried by hand and are caught
here: a factor left out of a cluster; tables whose axes are not permuted; the backward pass in forward order, or without
one of the neighbours; strides with the wrong axis fastest; a Gibbs sweep that forgets an axis or redraws neighbours at
once; known values, or a marginal's variables, in sorted order; an annealing path that ends too early.
"""

import copy
import importlib
import pickle
import warnings

import numpy as np
import pytest

from backends import get_backend, slow_in
from oracles import markov as oracle
from oracles.rbm import Parameters
from oracles.statistics import MAX_Z

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}

#: Cardinalities, factors' variables and treewidth of the structures that matter.
STRUCTURES = {
    "chain": ((2, 3, 4, 2), ((1, 0), (1, 2), (2, 3), (0,), (2,)), 1),
    "loop": ((3, 2, 4, 2), ((0, 1), (2, 1), (2, 3), (0, 3), (3,)), 2),
    "tree": ((2, 3, 2, 2, 3), ((0, 1), (2, 0), (0, 3), (4, 3)), 1),
    "clique": ((2, 3, 2, 2), ((2, 0, 1), (1, 2), (3, 1), ()), 2),
    "isolated": ((2, 3, 1, 2), ((0, 3), (3, 0), (2,)), 1),
}
LOOP = STRUCTURES["loop"][0]


def network_class(backend):
    return importlib.import_module(f"{backend.ebm.__name__}").MarkovNetwork


def tables(structure, seed=0):
    cardinalities, scopes, _ = STRUCTURES[structure]
    return oracle.random_factors(cardinalities, scopes, seed)


def build(backend, cardinalities, factors, dtype=np.float64, **options):
    arrays = {scope: backend.array(table, dtype) for scope, table in factors.items()}
    return network_class(backend)(cardinalities, arrays, **options)


def make(backend, structure, **options):
    return build(backend, STRUCTURES[structure][0], tables(structure), **options)


def integers(backend, values):
    return backend.array(values, np.int64)


# ---------------------------------------------------------------------- exact quantities


@pytest.mark.parametrize("structure", STRUCTURES)
def test_energies_and_probabilities(backend, structure):
    cardinalities, _, treewidth = STRUCTURES[structure]
    factors, states = tables(structure), oracle.all_states(cardinalities)
    network = make(backend, structure)
    values = integers(backend, states)
    np.testing.assert_allclose(backend.numpy(network.energy(values)), oracle.energy(factors, states), **TOLERANCE)
    log_partition = oracle.log_partition(cardinalities, factors)
    np.testing.assert_allclose(backend.numpy(network.log_partition), log_partition, **TOLERANCE)
    probabilities = np.exp(backend.numpy(network.log_prob(values)))
    np.testing.assert_allclose(probabilities.reshape(cardinalities), oracle.joint(cardinalities, factors), **TOLERANCE)
    np.testing.assert_allclose(probabilities.sum(), 1, **TOLERANCE)
    assert network.treewidth == treewidth
    assert network.is_normalized
    assert network.has_exact_sampler
    assert network.cardinalities == cardinalities
    assert tuple(network.event_shape) == (len(cardinalities),)
    assert list(network.factors) == list(factors)


@pytest.mark.parametrize("structure", ["loop", "isolated"])
def test_states_out_of_range_are_impossible(backend, structure):
    """Not other states, where nothing checks them: without validation, and in NumPyro traced."""
    network = make(backend, structure, validate_args=False)
    largest = np.array(network.cardinalities) - 1
    outside = np.stack(
        [0 * largest - np.eye(len(largest), dtype=int)[0], largest + np.eye(len(largest), dtype=int)[-1]]
    )
    assert np.all(np.isneginf(backend.numpy(network.log_prob(integers(backend, outside)))))
    assert np.all(np.isfinite(backend.numpy(network.log_prob(integers(backend, np.stack([0 * largest, largest]))))))
    if backend.name == "numpyro":
        import jax

        assert np.all(np.isneginf(jax.jit(make(backend, structure).log_prob)(integers(backend, outside))))


@pytest.mark.parametrize(
    ("structure", "variables"),
    [("chain", (3, 0)), ("loop", (2,)), ("tree", (4, 0)), ("clique", (2, 1, 0, 3)), ("isolated", (1, 3, 2))],
)
def test_marginals(backend, structure, variables):
    """Also of variables that no factor joins, and in an order that is not the network's."""
    got = backend.numpy(make(backend, structure).marginal(variables))
    cardinalities = STRUCTURES[structure][0]
    np.testing.assert_allclose(got, oracle.marginal(cardinalities, tables(structure), variables), **TOLERANCE)


def test_variables_without_factors_are_uniform(backend):
    got = backend.numpy(make(backend, "isolated").marginal([1]))
    np.testing.assert_allclose(got, np.full(3, 1 / 3), **TOLERANCE)


def test_gradient_is_the_difference_of_indicators(backend):
    """d log p(x) / dE_c[s] = p(x_c = s) - [x_c = s]."""
    factors = tables("loop")
    states = np.array([[2, 1, 3, 0], [0, 0, 1, 1]])

    def objective(*arrays):
        network = network_class(backend)(LOOP, dict(zip(factors, arrays, strict=True)))
        return network.log_prob(integers(backend, states)).sum()

    gradients = backend.grad(objective, *map(backend.array, factors.values()))
    for scope, gradient in zip(factors, gradients, strict=True):
        expected = len(states) * oracle.marginal(LOOP, factors, scope)
        for state in states:
            expected[tuple(state[v] for v in scope)] -= 1
        np.testing.assert_allclose(gradient, expected, **TOLERANCE)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_batches_of_tables(backend):
    """Tables of different batch shapes: every element is the network made of its own tables, in every quantity."""
    cardinalities, factors = LOOP, tables("loop")
    factors[(0, 1)] = oracle.random_factors(cardinalities, [(0, 1)], 1, (4, 1))[(0, 1)]
    factors[(3,)] = oracle.random_factors(cardinalities, [(3,)], 2, (3,))[(3,)]
    batched = build(backend, cardinalities, factors)
    assert tuple(batched.batch_shape) == (4, 3)
    one = {**factors, (0, 1): factors[(0, 1)][2, 0], (3,): factors[(3,)][1]}
    states = oracle.all_states(cardinalities)
    got = backend.numpy(batched.log_prob(integers(backend, states[:, None, None])))
    np.testing.assert_allclose(
        got[:, 2, 1].reshape(cardinalities), np.log(oracle.joint(cardinalities, one)), **TOLERANCE
    )
    marginal = backend.numpy(batched.marginal((3, 0)))
    assert marginal.shape == (4, 3, 2, 3)
    np.testing.assert_allclose(marginal[2, 1], oracle.marginal(cardinalities, one, (3, 0)), **TOLERANCE)
    assert backend.numpy(batched.energy(integers(backend, states[5]))).shape == (4, 3)
    for sampler in (None, backend.infer.Gibbs(30)):
        network = build(backend, cardinalities, factors, sampler=sampler)
        draws = backend.sample(network, 0, (4000,))
        assert draws.shape == (4000, 4, 3, 4)
        oracle.assert_frequencies(draws[:, 2, 1], oracle.joint(cardinalities, one))
    expanded = make(backend, "loop").expand((5, 2))
    assert backend.sample(expanded, 0, (3,)).shape == (3, 5, 2, 4)
    assert backend.numpy(expanded.marginal([0])).shape == (5, 2, 3)
    assert backend.numpy(expanded.to_event(1).log_prob(integers(backend, np.zeros((5, 2, 4))))).shape == (5,)


def test_condition_is_the_joint_with_variables_held(backend):
    """Batched values; the log-partition functions' difference is the log-probability of what is known."""
    factors, known = tables("loop"), np.array([[3, 2], [0, 0], [1, 1]])
    network = make(backend, "loop")
    conditional = network.condition([2, 0], integers(backend, known))
    assert tuple(conditional.batch_shape) == (3,)
    assert conditional.cardinalities == (2, 2)
    joint = oracle.joint(LOOP, factors)
    evidence = oracle.marginal(LOOP, factors, (2, 0))[tuple(known.T)]
    difference = backend.numpy(conditional.log_partition) - backend.numpy(network.log_partition)
    np.testing.assert_allclose(difference, np.log(evidence), **TOLERANCE)
    rest = oracle.all_states((2, 2))
    got = np.exp(backend.numpy(conditional.log_prob(integers(backend, rest[:, None]))))
    expected = [[joint[k[1], r[0], k[0], r[1]] / e for k, e in zip(known, evidence, strict=True)] for r in rest]
    np.testing.assert_allclose(got, expected, **TOLERANCE)


def test_a_restricted_boltzmann_machine_as_a_network(backend):
    """Pairwise factors with every unary term in one table: the same probabilities of the visible units (MATH 8)."""
    p = Parameters.random(2, 2, seed=4, strength=0.8)
    unary = [*p.visible_bias, *p.hidden_bias]
    factors = {(i,): np.array([0.0, -bias]) for i, bias in enumerate(unary)}
    for i, j in np.ndindex(2, 2):
        factors[(i, 2 + j)] = np.array([[0.0, 0.0], [0.0, -p.weights[i, j]]])
    network = build(backend, (2,) * 4, factors)
    biases = {"visible_bias": backend.array(p.visible_bias), "hidden_bias": backend.array(p.hidden_bias)}
    rbm = backend.distributions.BernoulliRBM(backend.array(p.weights), **biases)
    visible = oracle.all_states((2, 2))
    expected = np.exp(backend.numpy(rbm.log_prob(backend.array(visible)))).reshape(2, 2)
    np.testing.assert_allclose(backend.numpy(network.marginal((0, 1))), expected, **TOLERANCE)
    np.testing.assert_allclose(float(network.log_partition), float(rbm.log_partition), **TOLERANCE)
    bits = integers(backend, [1, 1, 0, 1])
    joint = rbm.joint_energy(backend.array([1.0, 1.0]), backend.array([0.0, 1.0]))
    np.testing.assert_allclose(float(network.energy(bits)), float(joint), **TOLERANCE)


# ---------------------------------------------------------------------- samples


@pytest.mark.parametrize("structure", ["clique", "isolated"])
@pytest.mark.parametrize("sampler", ["Exact", "Gibbs"])
def test_samplers(backend, structure, sampler):
    options = {"num_steps": 30} if sampler == "Gibbs" else {}
    network = make(backend, structure, sampler=getattr(backend.infer, sampler)(**options))
    draws = backend.sample(network, 0, (20_000,))
    assert draws.dtype == np.int64
    oracle.assert_frequencies(draws, oracle.joint(STRUCTURES[structure][0], tables(structure)))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_a_gibbs_sweep_keeps_its_target(backend):
    """One sweep from exact draws: a bias that grows with the chain would show here first; floats stay floats."""
    network = make(backend, "loop")
    start = backend.sample(network, 1, (20_000,))
    for dtype in (np.int64, np.float64):
        draws = backend.run_chain(network, 0, 1, num_chains=20_000, initial=backend.array(start, dtype))[:, 0]
        assert draws.dtype == dtype
        oracle.assert_frequencies(draws, oracle.joint(LOOP, tables("loop")))
    assert np.mean(np.any(draws != start, axis=1)) > 0.5


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_annealed_importance_sampling(backend):
    estimator = backend.estimator(0, num_chains=2000, num_temperatures=20)
    estimated = make(backend, "loop", log_partition=estimator)
    truth = oracle.log_partition(LOOP, tables("loop"))
    assert abs(float(estimated.log_partition) - truth) < 0.1
    np.testing.assert_allclose(float(estimated.base_log_partition), np.log(np.prod(LOOP)), **TOLERANCE)
    states = integers(backend, oracle.all_states(LOOP))
    np.testing.assert_allclose(backend.numpy(estimated.at_inverse_temperature(0.0).energy(states)), 0, **TOLERANCE)
    np.testing.assert_allclose(
        backend.numpy(estimated.at_inverse_temperature(1.0).energy(states)), estimated.energy(states)
    )


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize("name", ["ContrastiveDivergence", "PersistentContrastiveDivergence"])
def test_contrastive_gradients_come_near_the_exact_one(backend, name):
    """Minus the gradient of the likelihood, E_data[x_c = s] - p(x_c = s), once the chains have run for long."""
    factors = tables("loop")
    data = np.tile([[2, 1, 3, 0], [0, 0, 1, 1]], (4000, 1))
    network, criterion = make(backend, "loop"), getattr(backend.objectives, name)
    chains = [backend.array(data)] if name.startswith("Persistent") else []
    got = backend.stochastic(criterion, network, *chains, num_steps=40).gradient(integers(backend, data))
    assert list(got) == ["factor_0_1", "factor_2_1", "factor_2_3", "factor_0_3", "factor_3"]
    for scope, key in zip(factors, got, strict=True):
        probability = oracle.marginal(LOOP, factors, scope)
        expected = oracle.shares(data, scope, LOOP) - probability
        z = (backend.numpy(got[key]) - expected) / np.sqrt(probability * (1 - probability) / len(data))
        # chains that start at one of two states keep no trace of it after 40 sweeps
        assert np.abs(z).max() < MAX_Z


# ---------------------------------------------------------------------- what is too large


def complete(backend, table=None, **options):
    """Five variables of ten states, each pair in a factor: 100,000 states, all of them in one cluster."""
    scopes = [(i, j) for i in range(5) for j in range(i)]
    factors = oracle.random_factors((10,) * 5, scopes)
    arrays = {scope: backend.array(0.6 * entries) for scope, entries in factors.items()}
    if table is not None:
        arrays[1, 0] = table
    return network_class(backend)((10,) * 5, arrays, **options)


def test_too_large_a_network_says_its_treewidth(backend):
    network, error = complete(backend), backend.ebm.IntractablePartitionError
    assert not network.has_exact_partition
    assert not network.is_normalized
    found = r"treewidth 4 found.* 100000 entries; the limit is 65536"
    with pytest.raises(error, match=rf"MarkovNetwork \({found}"):
        _ = network.log_partition
    with pytest.raises(error, match=f"^variables: .*{found}"):
        network.marginal([2])
    with pytest.raises(TypeError, match="sampler: MarkovNetwork"):
        complete(backend, sampler=backend.infer.Exact())
    point, table = integers(backend, [1, 2, 3, 4, 5]), network.factors[1, 0]
    np.testing.assert_allclose(backend.numpy(network.log_prob(point)), -backend.numpy(network.energy(point)))
    with pytest.raises(error, match=found):
        backend.grad(lambda t: complete(backend, t).log_prob(point), table)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_gibbs_sampling_of_too_large_a_network(backend):
    network = complete(backend, sampler=backend.infer.Gibbs(30))
    draws = backend.sample(network, 0, (10_000,))
    energies = np.zeros((10,) * 5)
    for (i, j), table in network.factors.items():
        energies += np.expand_dims(backend.numpy(table).T, [axis for axis in range(5) if axis not in (i, j)])
    probabilities = np.exp(-energies) / np.exp(-energies).sum()
    oracle.assert_frequencies(draws[:, [2, 4]], probabilities.sum((0, 1, 3)))
    gradient = backend.stochastic(backend.objectives.ContrastiveDivergence, network).gradient(integers(backend, draws))
    assert set(map(np.shape, gradient.values())) == {(10, 10)}


@pytest.mark.parametrize(("cardinalities", "exact"), [((256, 256), True), ((256, 257), False)])
def test_the_limit_is_two_to_the_sixteen_entries(backend, cardinalities, exact):
    network = build(backend, cardinalities, {(0, 1): np.zeros(cardinalities)})
    assert network.is_normalized is exact


def test_a_marginal_may_be_too_wide_where_the_network_is_not(backend):
    network = build(backend, (20,) * 5, oracle.random_factors((20,) * 5, [(i, i + 1) for i in range(4)]))
    assert network.has_exact_partition
    with pytest.raises(backend.ebm.IntractablePartitionError, match="3200000 entries"):
        network.marginal(range(5))


@pytest.mark.parametrize(("rows", "columns", "width"), [(12, 5, 5), (5, 12, 5), (1, 400, 1), (20, 20, None)])
def test_elimination_orders_of_grids(backend, rows, columns, width):
    """A long grid is as wide as its short side, whichever way its variables are numbered."""
    number = np.arange(rows * columns).reshape(rows, columns)
    pairs = [(number[:-1], number[1:]), (number[:, :-1], number[:, 1:])]
    scopes = [tuple(map(int, pair)) for a, b in pairs for pair in zip(a.flat, b.flat, strict=True)]
    network = build(backend, (2,) * number.size, {scope: np.zeros((2, 2)) for scope in scopes})
    assert network.has_exact_partition is (width is not None)
    assert network.treewidth == width if width else network.treewidth >= 20


# ---------------------------------------------------------------------- values and arguments


def test_values_may_be_integers_or_whole_numbers(backend):
    network = make(backend, "loop")
    got = [backend.numpy(network.log_prob(backend.array([2, 1, 3, 0], dtype))) for dtype in (np.int32, np.float32)]
    expected = np.log(oracle.joint(LOOP, tables("loop"))[2, 1, 3, 0])
    np.testing.assert_allclose(got, expected, **TOLERANCE)
    assert network.is_discrete
    assert network.support.event_dim == 1


VALUES = {
    "too large": [0, 2, 0, 0],
    "negative": [0, 0, -1, 0],
    "between": [0.0, 0.5, 0.0, 0.0],
    "NaN": [0.0, np.nan, 0.0, 0.0],
    "too short": [0, 0, 0],
    "a scalar": 0,
}


@pytest.mark.parametrize("case", VALUES)
def test_bad_values(backend, case):
    network, value = make(backend, "loop"), np.array(VALUES[case])
    for method in ("log_prob", "energy"):
        with pytest.raises(ValueError, match=r"^value: .*expected"):
            getattr(network, method)(backend.array(value, value.dtype))
    with pytest.raises(ValueError, match=r"^values: .*expected"):
        network.condition([1, 2], integers(backend, [2, 0]))


def test_there_is_no_score(backend):
    network = make(backend, "loop")
    for method in ("score", "laplacian"):
        with pytest.raises(TypeError, match="no score"):
            getattr(network, method)(integers(backend, [0, 0, 0, 0]))
    with pytest.raises(TypeError, match=r"^base: "):
        backend.objectives.ScoreMatching(network)
    with pytest.raises(TypeError, match=r"^sampler: .*discrete"):
        make(backend, "loop", sampler=backend.infer.Hamiltonian())


TABLE = np.zeros((2, 3))
ARGUMENTS = {
    "no variables": (ValueError, "cardinalities", (), {(): np.zeros(())}),
    "a variable without states": (ValueError, "cardinalities", (2, 0), {(0,): np.zeros(2)}),
    "a fractional cardinality": (TypeError, "cardinalities", (2.0, 3), {(0, 1): TABLE}),
    "a truth value for a cardinality": (TypeError, "cardinalities", (2, True), {(0,): np.zeros(2)}),
    "one number for the cardinalities": (TypeError, "cardinalities", 2, {(0,): np.zeros(2)}),
    "no factors": (ValueError, "factors", (2, 3), {}),
    "a list of factors": (TypeError, "factors", (2, 3), [TABLE]),
    "a key that is no tuple": (TypeError, "factors", (2, 3), {0: np.zeros(2)}),
    "a fractional variable": (TypeError, "factors", (2, 3), {(0.0, 1): TABLE}),
    "a repeated variable": (ValueError, "factors", (2, 2), {(0, 0): np.zeros((2, 2))}),
    "a variable out of range": (ValueError, "factors", (2, 3), {(0, 2): TABLE}),
    "a negative variable": (ValueError, "factors", (2, 3), {(0, -1): TABLE}),
    "a transposed table": (ValueError, "factor_1_0", (2, 3), {(1, 0): TABLE}),
    "a table of too few dimensions": (ValueError, "factor_0_1", (2, 3), {(0, 1): np.zeros(3)}),
    "batches that do not broadcast": (
        ValueError,
        "factor_1",
        (2, 3),
        {(0, 1): np.zeros((4, 2, 3)), (1,): np.zeros((5, 3))},
    ),
    "NaN": (ValueError, "factor_0_1", (2, 3), {(0, 1): TABLE * np.nan}),
    "infinite": (ValueError, "factor_0_1", (2, 3), {(0, 1): TABLE + np.inf}),
    "complex": (TypeError, "factor_0_1", (2, 3), {(0, 1): TABLE + 1j}),
    "integers": (TypeError, "factor_0_1", (2, 3), {(0, 1): TABLE.astype(int)}),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(backend, case):
    error, argument, cardinalities, factors = ARGUMENTS[case]
    if isinstance(factors, dict):
        factors = {scope: backend.array(table, table.dtype) for scope, table in factors.items()}
    with pytest.raises(error, match=f"^{argument}: .*expected|^{argument}: expected"):
        network_class(backend)(cardinalities, factors)


@pytest.mark.parametrize(
    ("method", "argument", "error", "variables"),
    [
        ("marginal", "variables", ValueError, [4]),
        ("marginal", "variables", ValueError, [1, 1]),
        ("marginal", "variables", ValueError, []),
        ("marginal", "variables", TypeError, [0.5]),
        ("marginal", "variables", TypeError, 1),
        ("condition", "indices", ValueError, [0, 1, 2, 3]),
        ("condition", "indices", TypeError, [True]),
    ],
)
def test_bad_variables(backend, method, argument, error, variables):
    network = make(backend, "loop")
    values = [integers(backend, np.zeros(np.size(variables)))] if method == "condition" else []
    with pytest.raises(error, match=f"^{argument}: expected"):
        getattr(network, method)(variables, *values)


# ---------------------------------------------------------------------- the hosts


def test_copies(backend):
    """What a copy or a pickle must not lose: the tables, their names and the structure."""
    network, state = make(backend, "loop"), integers(backend, [2, 1, 3, 0])
    for other in (copy.copy(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert list(other.parameter_dims) == list(network.parameter_dims)
        assert other.cardinalities == LOOP
        np.testing.assert_array_equal(other.log_prob(state), network.log_prob(state))


def test_a_plate_of_networks_in_a_model(backend):
    """Learned tables, observed in the host's own model: the joint density is the sum over the data."""
    factors = tables("loop")
    data = np.array([[2, 1, 3, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
    expected = np.log(oracle.joint(LOOP, factors)[tuple(data.T)]).sum()
    np.testing.assert_allclose(_HOSTS[backend.name](make(backend, "loop"), integers(backend, data)), expected)


def _numpyro_log_density(network, data):
    import numpyro

    def model():
        with numpyro.plate("data", len(data)):
            numpyro.sample("x", network, obs=data)

    return float(numpyro.infer.util.log_density(model, (), {}, {})[0])


def _pyro_log_density(network, data):
    import pyro

    def model():
        with pyro.plate("data", len(data)):
            pyro.sample("x", network, obs=data)

    return float(pyro.poutine.trace(model).get_trace().log_prob_sum())


_HOSTS = {"numpyro": _numpyro_log_density, "pyro": _pyro_log_density}


@pytest.mark.numpyro
def test_a_numpyro_network_crosses_transformations():
    """jit, vmap over tables and values, scan: the structure is static, the tables are leaves."""
    jax = pytest.importorskip("jax")
    backend = get_backend("numpyro")
    network, states = make(backend, "loop"), integers(backend, oracle.all_states(LOOP)[::7])
    expected = network.log_prob(states)
    assert len(jax.tree.leaves(network)) == 5
    np.testing.assert_allclose(jax.jit(lambda n, x: n.log_prob(x))(network, states), expected, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(network.log_prob)(states), expected, rtol=1e-10)
    _, scanned = jax.lax.scan(lambda carry, x: (carry, carry.log_prob(x)), network, states)
    np.testing.assert_allclose(scanned, expected, rtol=1e-10)
    stacked = jax.tree.map(lambda leaf: jax.numpy.stack([leaf, 2 * leaf]), network)
    got = jax.vmap(lambda n: n.log_partition)(stacked)
    doubled = oracle.log_partition(LOOP, {scope: 2 * table for scope, table in tables("loop").items()})
    np.testing.assert_allclose(got, [network.log_partition, doubled], rtol=1e-10)


@pytest.mark.pyro
def test_a_pyro_network_crosses_vmap_and_trace():
    torch = pytest.importorskip("torch")
    backend = get_backend("pyro")
    factors, state = tables("loop"), backend.array([2, 1, 3, 0], int)

    def log_prob(table):
        arrays = {scope: backend.array(entries) for scope, entries in factors.items()}
        return network_class(backend)(LOOP, {**arrays, (0, 1): table}).log_prob(state)

    batch = backend.array(np.random.default_rng(3).normal(size=(4, 3, 2)))
    expected = [float(log_prob(table)) for table in batch]
    np.testing.assert_allclose(torch.func.vmap(log_prob)(batch), expected, rtol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(log_prob, (batch[0],), check_trace=False)
    np.testing.assert_allclose(float(traced(batch[1])), expected[1], rtol=1e-10)


@pytest.mark.numpyro
@pytest.mark.pyro
@pytest.mark.parametrize("structure", ["loop", "clique"])
def test_both_packages_agree(structure):
    """Densities and marginals to 1e-10, and the same draws from the same uniform numbers."""
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    backends = [get_backend("numpyro"), get_backend("pyro")]
    networks = [make(backend, structure) for backend in backends]
    cardinalities = STRUCTURES[structure][0]
    states = oracle.all_states(cardinalities)
    uniform = np.random.default_rng(5).uniform(size=(2, 200, len(cardinalities)))
    start = np.random.default_rng(6).integers(0, cardinalities, uniform.shape[1:])

    def results(backend, network):
        yield network.log_prob(integers(backend, states))
        yield network.marginal([3, 1])
        yield network.condition([1], integers(backend, [1])).log_partition
        noise = backend.array(uniform)
        if backend.name == "numpyro":
            jit = importlib.import_module("jax").jit
            yield jit(lambda n, u: n._map(type(n)._backward, u))(network, noise)
            yield jit(lambda n, x, *u: n._map(type(n)._sweep, x, *u))(network, integers(backend, start), *noise)
        else:
            yield network._backward(noise)
            yield network._sweep(integers(backend, start), *noise)

    for first, second in zip(*map(results, backends, networks), strict=True):
        np.testing.assert_allclose(np.asarray(first), np.asarray(second), **TOLERANCE)
