"""Markov networks with hard constraints, energies of +inf, against the sum over all states."""

import contextlib
import importlib
import pickle

import numpy as np
import pytest

from _ppl_ebm.factor_graph import factor_graph
from _ppl_ebm.tables import find_stuck
from backends import get_backend
from oracles import markov as oracle
from oracles.statistics import MAX_Z

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
INF = np.inf


def network_class(backend):
    return importlib.import_module(f"{backend.ebm.__name__}").MarkovNetwork


def build(backend, cardinalities, factors, **options):
    arrays = {scope: backend.array(table) for scope, table in factors.items()}
    return network_class(backend)(cardinalities, arrays, **options)


def integers(backend, values):
    return backend.array(values, np.int64)


def different(size):
    return np.where(np.eye(size) > 0, INF, 0.0)


def equal(size, energy=INF):
    return np.where(np.eye(size) > 0, 0.0, energy)


def cycle(length):
    return [(i, (i + 1) % length) for i in range(length)]


PETERSEN = [*cycle(5), *[(i, i + 5) for i in range(5)], *[(5 + i, 5 + (i + 2) % 5) for i in range(5)]]


def colouring(edges, colours):
    return {edge: different(colours) for edge in edges}


def random_part(cardinalities, scopes, seed=0):
    return oracle.random_factors(cardinalities, scopes, seed)


def _pentagon():
    """Colourings of a cycle with random preferences: contradictions in no single factor, two classes of states."""
    sizes = (3,) * 5
    return sizes, colouring(cycle(5), 3) | random_part(sizes, [(0,), (3,)])


def _assignment():
    """Permutations of four things: all pairs differ, with random costs."""
    sizes = (4,) * 4
    pairs = [(i, j) for i in range(4) for j in range(i)]
    return sizes, colouring(pairs, 4) | random_part(sizes, [(v,) for v in range(4)], 1)


def _implications():
    """A chain in which a variable that is on switches on the next, and one clause of three variables."""
    sizes, implies = (2,) * 5, np.array([[0.0, 0.0], [INF, 0.0]])
    clause = np.zeros((2, 2, 2))
    clause[0, 0, 0] = INF
    chain = {(v, v + 1): implies + table for v, table in enumerate(random_part((2, 2), [(0, 1)] * 1).values())}
    chain |= {(v, v + 1): implies for v in range(1, 4)}
    return sizes, {**chain, (4, 0, 2): clause, **random_part(sizes, [(1, 3), (2,)], 2)}


def _square():
    """Two colourings, and eliminated variables of which some neighbours leave no state."""
    sizes = (2,) * 4
    return sizes, colouring(cycle(4), 2) | random_part(sizes, [(0,), (2,)], 3)


NETWORKS = {"square": _square(), "pentagon": _pentagon(), "assignment": _assignment(), "implications": _implications()}


# ---------------------------------------------------------------------- exact quantities


@pytest.mark.parametrize(("edges", "colours", "count"), [(cycle(5), 3, 30), (cycle(6), 2, 2), (PETERSEN, 3, 120)])
def test_partition_functions_count_colourings(backend, edges, colours, count):
    size = 1 + max(map(max, edges))
    network = build(backend, (colours,) * size, colouring(edges, colours))
    np.testing.assert_allclose(float(network.log_partition), np.log(count), **TOLERANCE)
    draws = backend.sample(network, 0, (500,))
    assert all(np.all(draws[:, i] != draws[:, j]) for i, j in edges)
    np.testing.assert_allclose(backend.numpy(network.marginal([size - 1])), np.full(colours, 1 / colours), **TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
def test_densities_marginals_and_draws(backend, name):
    cardinalities, factors = NETWORKS[name]
    network, states = build(backend, cardinalities, factors), oracle.all_states(cardinalities)
    probabilities = oracle.joint(cardinalities, factors)
    with np.errstate(divide="ignore"):
        expected = np.log(probabilities).ravel()
    for network_log_prob in (network.log_prob, backend.compiled(network.log_prob)):
        got = backend.numpy(network_log_prob(integers(backend, states)))
        np.testing.assert_array_equal(np.isneginf(got), probabilities.ravel() == 0)
        np.testing.assert_allclose(got, expected, **TOLERANCE)
    for variables in ((0,), (3, 1), (2, 3, 0)):
        got = backend.numpy(network.marginal(variables))
        np.testing.assert_allclose(got, oracle.marginal(cardinalities, factors, variables), **TOLERANCE)
    draws = backend.sample(network, 0, (20_000,))
    assert np.all(probabilities[tuple(draws.T)] > 0)
    oracle.assert_frequencies(draws, probabilities)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_log_z_are_expected_indicators(backend, name):
    """Minus the probability of each entry: 0, not NaN, where it is infinite; and of a log-density, in all tables."""
    cardinalities, factors = NETWORKS[name]
    state = oracle.all_states(cardinalities)[np.argmax(oracle.joint(cardinalities, factors))]

    def network(arrays):
        return network_class(backend)(cardinalities, dict(zip(factors, arrays, strict=True)))

    arrays = [backend.array(table) for table in factors.values()]
    of_log_z = backend.grad(lambda *arrays: network(arrays).log_partition, *arrays)
    of_log_prob = backend.grad(lambda *arrays: network(arrays).log_prob(integers(backend, state)), *arrays)
    for scope, first, second in zip(factors, of_log_z, of_log_prob, strict=True):
        expected = oracle.marginal(cardinalities, factors, scope)
        np.testing.assert_allclose(first, -expected, **TOLERANCE)
        expected[tuple(state[v] for v in scope)] -= 1
        np.testing.assert_allclose(second, expected, **TOLERANCE)


def test_batches_of_constraints(backend):
    """One model with a constraint, one without, in every quantity."""
    cardinalities, factors = NETWORKS["implications"]
    free = random_part(cardinalities, [(1, 2)], 5)[1, 2]
    batched = {**factors, (1, 2): np.stack([factors[1, 2], free])}
    network = build(backend, cardinalities, batched)
    states = oracle.all_states(cardinalities)
    got = backend.numpy(network.log_prob(integers(backend, states[:, None])))
    marginals, draws = backend.numpy(network.marginal((1, 2))), backend.sample(network, 0, (4000,))
    for row, table in enumerate((factors[1, 2], free)):
        one = {**factors, (1, 2): table}
        with np.errstate(divide="ignore"):
            expected = np.log(oracle.joint(cardinalities, one)).ravel()
        np.testing.assert_allclose(got[:, row], expected, **TOLERANCE)
        np.testing.assert_allclose(marginals[row], oracle.marginal(cardinalities, one, (1, 2)), **TOLERANCE)
        oracle.assert_frequencies(draws[:, row], oracle.joint(cardinalities, one))


@pytest.mark.parametrize(("name", "known", "values"), [("pentagon", (3, 0), (1, 1)), ("implications", (1,), (1,))])
def test_conditionals(backend, name, known, values):
    cardinalities, factors = NETWORKS[name]
    network = build(backend, cardinalities, factors)
    conditional = network.condition(known, integers(backend, values))
    joint = np.moveaxis(oracle.joint(cardinalities, factors), known, range(len(known)))[values]
    evidence = backend.numpy(conditional.log_partition) - backend.numpy(network.log_partition)
    np.testing.assert_allclose(evidence, np.log(joint.sum()), **TOLERANCE)
    got = np.exp(backend.numpy(conditional.log_prob(integers(backend, oracle.all_states(joint.shape)))))
    np.testing.assert_allclose(got, joint.ravel() / joint.sum(), **TOLERANCE)


# ---------------------------------------------------------------------- probability 0


LAST = np.array([[INF, 0.0], [INF, 0.0]])
IMPOSSIBLE = {
    "a table that forbids all": ((2, 3), {(0, 1): np.full((2, 3), INF)}, "factor_0_1"),
    "a constant": ((2,), {(): np.array(INF), (0,): np.zeros(2)}, "factor: "),
    "an odd cycle": ((2,) * 5, colouring(cycle(5), 2), r"factor_0_1: .*\[0, 1, 2, 3, 4\]"),
    "four in three colours": ((3,) * 4, colouring([(i, j) for i in range(4) for j in range(i)], 3), r"\[0, 1, 2, 3\]"),
    "one row": ((2, 2), {(0, 1): equal(2), (0,): np.stack([[0, 0], [INF, 0]]), (1,): np.array([0, INF])}, r"\(1,\)"),
    "one row of two": ((2, 2), {(0, 1): equal(2) + np.zeros((3, 1, 1, 1)), (1,): LAST, (0,): np.zeros(2)}, None),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_networks_without_a_possible_state(backend, case):
    """Also where only elimination finds it, and in one model of a batch; without validation, wherever it matters."""
    cardinalities, factors, match = IMPOSSIBLE[case]
    if match is None:
        build(backend, cardinalities, factors)
        return
    error = backend.ebm.ImproperDensityError
    with pytest.raises(error, match=rf"{match}") as caught:
        build(backend, cardinalities, factors, validate_args=True)
    assert "probability 0" in str(caught.value)
    network = build(backend, cardinalities, factors, validate_args=False)
    state = integers(backend, np.zeros(len(cardinalities)))
    for use in (
        lambda: network.log_partition,
        lambda: network.log_prob(state),
        lambda: network.marginal([0]),
        lambda: backend.sample(network, 0),
    ):
        with pytest.raises(error, match="probability 0"):
            use()


def test_the_factors_named_are_those_that_exclude_each_other(backend):
    """And no others, however many there are."""
    factors = colouring([(0, 1), (1, 2), (2, 3), (3, 4), (4, 2)], 2) | {(0, 3): equal(2)}
    with pytest.raises(ValueError, match=r"variables \[2, 3, 4\], which factor_2_3, factor_3_4, factor_4_2 forbid"):
        build(backend, (2,) * 5, factors, validate_args=True)


def test_contradictions_beyond_elimination(backend):
    """Where single variables lose their states one after the other."""
    factors = {(0, 1): np.zeros((300, 300))} | {(v, v + 1): equal(300) for v in range(2)}
    first, last = (np.where(np.arange(300) == state, 0.0, INF) for state in (3, 4))
    wide = {**factors, (0,): first, (2,): last}
    assert not build(backend, (300,) * 3, {**wide, (2,): first}).has_exact_partition
    with pytest.raises(ValueError, match=r"probability 0 .*variables \[0, 1, 2\]"):
        build(backend, (300,) * 3, wide, validate_args=True)


EVIDENCE = {
    "one factor": ([0, 1], [1, 1], r"0 = 1, 1 = 1: "),
    "a chain of factors": ([0, 2, 3], [0, 1, 2], r"0 = 0, 2 = 1, 3 = 2: "),
    "one row of a batch": ([2, 1], [[0, 1], [0, 0], [1, 2]], r"2 = 0, 1 = 0 at batch index \(1,\)"),
}


@pytest.mark.parametrize("case", EVIDENCE)
@pytest.mark.parametrize("validate", [True, False])
def test_impossible_evidence(backend, case, validate):
    """On a triangle with a tail: {0, 1, 2} all differ, and 3 differs from 1 too."""
    indices, values, match = EVIDENCE[case]
    network = build(backend, (3,) * 4, colouring([(0, 1), (1, 2), (2, 0), (1, 3)], 3), validate_args=validate)
    if case == "a chain of factors":
        assert np.all(np.isfinite(backend.numpy(network.condition([0, 2], integers(backend, [0, 1])).log_partition)))
    with pytest.raises(backend.ebm.ImproperDensityError, match=f"^values: .*probability 0 for variables {match}"):
        network.condition(indices, integers(backend, values))


@pytest.mark.parametrize("entry", [np.nan, -INF])
def test_other_entries_are_refused(backend, entry):
    table = np.zeros((2, 2))
    table[0, 1], table[1, 1] = entry, INF
    with pytest.raises(ValueError, match=r"^factor_0_1: .*\+inf to forbid.*got 1 NaN or -inf"):
        build(backend, (2, 2), {(0, 1): table}, validate_args=True)


@pytest.mark.numpyro
def test_traced_networks_and_evidence_of_probability_0():
    """Nothing finite: log Z is -inf, densities, marginals and derivatives are NaN, and draws are no states."""
    jax = pytest.importorskip("jax")
    jnp, backend = jax.numpy, get_backend("numpyro")
    triangle = colouring([(0, 1), (1, 2), (2, 0)], 3)

    def conditional(value, shift=0.0):
        arrays = {scope: backend.array(table) + shift for scope, table in triangle.items()}
        return network_class(backend)((3,) * 3, arrays).condition([0, 1], value)

    def quantities(value, key):
        network = conditional(value)
        state = jnp.zeros(1, int)
        chains = network.replace(sampler=backend.infer.Gibbs(1))
        draws = jnp.concatenate([network.sample(key, (4,)), chains.sample(key, (3,))])
        return network.log_partition, network.log_prob(state), network.marginal([0]), draws

    same, other = integers(backend, [1, 1]), integers(backend, [1, 2])
    log_z, log_prob, marginal, draws = jax.jit(quantities)(same, jax.random.key(0))
    assert jnp.isneginf(log_z)
    assert jnp.isnan(log_prob)
    assert jnp.isnan(marginal).all()
    assert (draws == -(2**31)).all()
    log_z, log_prob, marginal, draws = jax.jit(quantities)(other, jax.random.key(0))
    assert log_z == log_prob == 0
    np.testing.assert_array_equal(marginal, [1, 0, 0])
    assert (draws == 0).all()
    slope = jax.jit(jax.grad(lambda shift, value: conditional(value, shift).log_prob(jnp.zeros(1, int))))
    assert jnp.isnan(slope(0.0, same))
    np.testing.assert_allclose(slope(0.0, other), 0, atol=1e-12)
    batch = jax.jit(jax.vmap(lambda value: conditional(value).marginal([0])))(jnp.stack([same, other]))
    np.testing.assert_array_equal(batch, [[np.nan] * 3, [1, 0, 0]])


@pytest.mark.pyro
def test_transformed_networks_of_probability_0():
    torch = pytest.importorskip("torch")
    backend = get_backend("pyro")

    def quantities(bias):
        network = network_class(backend)((2, 2), {(0, 1): backend.array(equal(2)), (0,): bias, (1,): bias.flip(0)})
        return network.log_partition, network.log_prob(backend.array([1, 1], int)), network.marginal([0])

    biases = backend.array([[0.0, 0.0], [0.0, INF]])
    log_z, log_prob, marginal = torch.func.vmap(quantities)(biases)
    np.testing.assert_allclose(log_z, [np.log(2), -INF])
    np.testing.assert_allclose(log_prob, [-np.log(2), np.nan])
    np.testing.assert_allclose(marginal, [[0.5, 0.5], [np.nan, np.nan]])
    slope = torch.func.grad(lambda bias: quantities(bias)[0])
    assert slope(biases[1]).isnan().any()
    assert slope(biases[0]).isfinite().all()


# ---------------------------------------------------------------------- Markov chains


def chained(coupling, length=2, states=2):
    """Variables that want to be equal, at an energy otherwise, with a preference at one end."""
    factors = {(v, v + 1): equal(states, coupling) for v in range(length - 1)}
    return (states,) * length, {**factors, (0,): np.linspace(0.0, 1.0, states)}


WIDE = 257


def wide(coupling, extra=()):
    """Beyond elimination: two variables of many states, and what is coupled to the first of them."""
    factors = {(0, 1): np.zeros((WIDE, WIDE)), (2, 3): equal(2, coupling), **dict(extra)}
    return (WIDE, WIDE, 2, 2), factors


STUCK = {
    "nearly equal": chained(30.0),
    "equal": chained(INF),
    "in two halves": ((2, 2), {(0, 1): equal(2, 7.0), (1, 0): equal(2, 8.0), (1,): np.array([0.0, 1.0])}),
    "parity": (
        (2, 2, 2),
        {(2, 0, 1): np.where(np.indices((2, 2, 2)).sum(0) % 2, INF, 0.0), (1,): np.array([0.0, 1.0])},
    ),
    "two classes of colourings": NETWORKS["pentagon"],
    "permutations": NETWORKS["assignment"],
}


@pytest.mark.parametrize("case", STUCK)
def test_sweeps_that_would_not_move_draw_all_at_once(backend, case):
    """Within chains from one state: others are left once in 10^4 single-site moves, or never."""
    cardinalities, factors = STUCK[case]
    expected = oracle.joint(cardinalities, factors)
    start = np.tile(oracle.all_states(cardinalities)[np.argmax(expected)], (40, 1))
    chains = backend.run_chain(
        build(backend, cardinalities, factors), 0, 50, num_chains=40, initial=integers(backend, start)
    )
    oracle.assert_frequencies(chains.reshape(2000, -1), expected)
    draws = backend.sample(build(backend, cardinalities, factors, sampler=backend.infer.Gibbs(2)), 0, (2000,))
    oracle.assert_frequencies(draws, expected)


MOVING = {
    "a chain of couplings": chained(3.0, 5),
    "implications": NETWORKS["implications"],
    "four colours": ((4,) * 5, colouring(cycle(5), 4)),
    "small steps between far states": (
        (20, 20),
        {(0, 1): 5.0 * np.abs(np.subtract.outer(np.arange(20), np.arange(20)))},
    ),
    "one mode": ((2, 2), {(0, 1): equal(2, 30.0), (1,): np.array([0.0, 100.0])}),
}


@pytest.mark.parametrize("case", MOVING)
def test_ordinary_networks_are_swept(backend, case):
    """No exact draws in their place: a sweep is what it was, from the same uniform numbers."""
    cardinalities, factors = MOVING[case]
    network = build(backend, cardinalities, factors)
    start = np.tile(oracle.all_states(cardinalities)[np.argmax(oracle.joint(cardinalities, factors))], (30, 1))
    looked_at, hidden = (
        backend.run_chain(one, 0, 1, num_chains=30, initial=integers(backend, start))
        for one in (network, network.at_inverse_temperature(1.0))
    )
    np.testing.assert_array_equal(looked_at, hidden)
    assert find_stuck(factor_graph(cardinalities, tuple(factors)), list(factors.values())) is None


def quiet():
    return contextlib.nullcontext()


def warned():
    return pytest.warns(RuntimeWarning, match=r"^sampler: .*MarkovNetwork do not move.*variables \[2, 3\]")


@pytest.mark.parametrize(("coupling", "expectation"), [(30.0, warned), (INF, warned), (3.0, quiet)])
def test_sweeps_beyond_elimination_warn_where_they_are_asked_for(backend, coupling, expectation):
    cardinalities, factors = wide(coupling)
    network = build(backend, cardinalities, factors)
    assert not network.has_exact_sampler
    state = integers(backend, np.zeros(4))
    backend.numpy(network.log_prob(state))
    with expectation():
        build(backend, cardinalities, factors, sampler=backend.infer.Gibbs(2))
    with expectation():
        draws = backend.sample(network, 0, (3,))
    assert coupling < INF or np.all(draws[:, 2] == draws[:, 3])
    with expectation():
        backend.run_chain(build(backend, cardinalities, factors), 0, 2)
    with expectation():
        backend.stochastic(backend.objectives.ContrastiveDivergence, build(backend, cardinalities, factors))


NUM_DRAWS = 300


def test_tables_are_looked_at_again(backend):
    """Where they change in place, or a chain is asked for again."""
    if backend.name == "pyro":
        cardinalities, factors = chained(3.0)
        network = build(backend, cardinalities, factors)
        start = integers(backend, np.zeros((200, 2)))
        backend.run_chain(network, 0, 1, num_chains=200, initial=start)
        network.factor_0_1.mul_(10.0)
        assert 0.1 < backend.run_chain(network, 0, 1, num_chains=200, initial=start).mean() < 0.9
    network = build(backend, *wide(30.0))
    for _ in range(2):
        with warned():
            backend.run_chain(network, 0, 1)


def _numpyro_block_gibbs(network, init_params=None):
    import jax
    import numpyro

    from numpyro_ebm.infer import BlockGibbs

    kernel = BlockGibbs(lambda: numpyro.sample("x", network))
    mcmc = numpyro.infer.MCMC(kernel, num_warmup=0, num_samples=NUM_DRAWS, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=init_params)
    return np.asarray(mcmc.get_samples()["x"])


def _pyro_block_gibbs(network, init_params=None):
    import pyro

    from pyro_ebm.infer import BatchedMCMC, BlockGibbs

    pyro.set_rng_seed(0)
    kernel = BlockGibbs(lambda: pyro.sample("x", network))
    mcmc = BatchedMCMC(kernel, NUM_DRAWS, 0, 1, initial_params=init_params, disable_progbar=True)
    mcmc.run()
    return np.asarray(mcmc.get_samples()["x"])


_BLOCK_GIBBS = {"numpyro": _numpyro_block_gibbs, "pyro": _pyro_block_gibbs}


def test_block_gibbs_moves_between_modes_or_warns(backend):
    cardinalities, factors = chained(30.0)
    draws = _BLOCK_GIBBS[backend.name](build(backend, cardinalities, factors))
    oracle.assert_frequencies(draws.astype(int), oracle.joint(cardinalities, factors))
    with warned():
        _BLOCK_GIBBS[backend.name](build(backend, *wide(30.0)))


def key(backend):
    return (importlib.import_module("jax").random.key(0),) if backend.name == "numpyro" else ()


def test_chains_start_where_the_energy_is_finite(backend):
    """A needle that uniform starts miss; beyond elimination, an error that names the sampler."""
    needle = np.where(np.arange(10) == 7, 0.0, INF)
    size = 4
    factors = {(v,): needle for v in range(size)} | {(0, 1): np.zeros((10, 10))}
    network = build(backend, (10,) * size, factors, sampler=backend.infer.Gibbs(1))
    assert np.all(backend.sample(network, 0, (5,)) == 7)
    assert np.all(backend.run_chain(network, 0, 1, num_chains=3) == 7)
    beyond = {(0, 1): np.zeros((WIDE, WIDE)), (2, 3): equal(300), (3, 4): equal(300), (2, 4): equal(300)}
    with pytest.raises(ValueError, match=r"^sampler: .*MarkovNetwork is finite"):
        build(backend, (WIDE, WIDE, 300, 300, 300), beyond, sampler=backend.infer.Gibbs(2)).sample(*key(backend))


def test_a_chain_is_not_started_in_a_forbidden_state(backend):
    network, wrong = build(backend, *NETWORKS["implications"]), integers(backend, [[1, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"^initial: .*finite"):
        backend.run_chain(network, 0, 1, initial=wrong)
    params = {"x": wrong[0] if backend.name == "numpyro" else wrong}
    with pytest.raises(ValueError, match=r"^init"):
        _BLOCK_GIBBS[backend.name](network, params)


def test_annealed_importance_sampling(backend):
    """Its path lets constraints grow: estimate and gradient are near the exact ones, though some chains end nowhere."""
    cardinalities, factors = NETWORKS["square"]
    estimator = backend.estimator(0, num_chains=4000, num_temperatures=3)
    estimated = build(backend, cardinalities, factors, log_partition=estimator)
    assert abs(float(estimated.log_partition) - oracle.log_partition(cardinalities, factors)) < 0.1
    unary = backend.array(factors[0,])

    def log_partition(table):
        arrays = {scope: backend.array(entries) for scope, entries in factors.items()} | {(0,): table}
        return network_class(backend)(cardinalities, arrays, log_partition=estimator).log_partition

    (gradient,) = backend.grad(log_partition, unary)
    np.testing.assert_allclose(gradient, -oracle.marginal(cardinalities, factors, (0,)), atol=0.1)


def test_check_energy_of_a_constrained_network(backend):
    cardinalities, factors = NETWORKS["implications"]
    backend.check_energy(build(backend, cardinalities, factors), num_draws=4000)


@pytest.mark.parametrize("name", ["ContrastiveDivergence", "PersistentContrastiveDivergence"])
def test_criteria_of_constrained_networks(backend, name):
    """Chains never enter a forbidden state, and gradients are finite, of infinite entries zero."""
    cardinalities, factors = NETWORKS["implications"]
    network = build(backend, cardinalities, factors)
    data = backend.sample(network, 0, (4000,))
    chains = [backend.array(data)] if name.startswith("Persistent") else []
    criterion = backend.stochastic(getattr(backend.objectives, name), network, *chains, num_steps=5)
    assert np.all(np.isfinite(backend.numpy(criterion.log_prob(integers(backend, data)))))
    for key, gradient in criterion.gradient(integers(backend, data)).items():
        scope = tuple(map(int, key.split("_")[1:]))
        probability = oracle.marginal(cardinalities, factors, scope)
        deviation = np.sqrt(2 * probability * (1 - probability) / len(data))
        assert np.all(np.abs(backend.numpy(gradient)) <= MAX_Z * deviation)
    with np.errstate(invalid="ignore"):
        assert np.isneginf(backend.numpy(criterion.log_prob(integers(backend, [[1, 0, 0, 0, 0]])))).all()


def test_an_error_of_probability_0_crosses_processes(backend):
    with pytest.raises(backend.ebm.ImproperDensityError) as caught:
        build(backend, (2,), {(0,): np.array([INF, INF])}, validate_args=True)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
