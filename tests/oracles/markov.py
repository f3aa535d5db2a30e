"""NumPy references for Markov networks: everything by summing over all states."""

import itertools

import numpy as np
from scipy.special import logsumexp

from oracles.statistics import MAX_Z


def all_states(cardinalities):
    """Every joint state, shape ``(prod(cardinalities), len(cardinalities))``, last variable fastest."""
    return np.array(list(itertools.product(*map(range, cardinalities))))


def random_factors(cardinalities, scopes, seed=0, batch=()):
    """Asymmetric energy tables."""
    rng = np.random.default_rng(seed)
    return {scope: rng.normal(size=(*batch, *(cardinalities[v] for v in scope))) for scope in scopes}


def energy(factors, states):
    """Sum of the tables' entries at each of ``states``."""
    total = np.zeros(len(states))
    for scope, table in factors.items():
        for number, state in enumerate(states):
            total[number] += table[tuple(state[v] for v in scope)]
    return total


def log_partition(cardinalities, factors):
    return logsumexp(-energy(factors, all_states(cardinalities)))


def joint(cardinalities, factors):
    """Probabilities of all states, as one table over all variables in order."""
    log_weights = -energy(factors, all_states(cardinalities))
    return np.exp(log_weights - logsumexp(log_weights)).reshape(cardinalities)


def marginal(cardinalities, factors, variables):
    """Probability table over ``variables`` in the order given, summed one state at a time."""
    table = np.zeros([cardinalities[v] for v in variables])
    probabilities = joint(cardinalities, factors).ravel()
    for state, probability in zip(all_states(cardinalities), probabilities, strict=True):
        table[tuple(state[v] for v in variables)] += probability
    return table


def shares(states, variables, cardinalities):
    """How often each joint state of some variables comes among ``states``."""
    table = np.zeros([cardinalities[v] for v in variables])
    np.add.at(table, tuple(states[:, v] for v in variables), 1 / len(states))
    return table


def assert_frequencies(draws, probabilities):
    """Joint states of all variables come as often as they should; rare ones are counted together."""
    expected = len(draws) * probabilities.ravel()
    counts = len(draws) * shares(draws.astype(int), range(draws.shape[1]), probabilities.shape).ravel()
    rare = expected < 10
    expected = np.append(expected[~rare], expected[rare].sum())
    counts = np.append(counts[~rare], counts[rare].sum())
    z = (counts - expected) / np.sqrt(np.maximum(expected * (1 - expected / len(draws)), 1))
    assert np.all(np.abs(z) < MAX_Z), f"z = {z}"
