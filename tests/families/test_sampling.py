"""Draws against exact moments on asymmetric parameters.

Gates as in ``oracles.statistics``. Every family's own draws and sweeps are in ``test_testing.py``.
"""

import numpy as np
import pytest

from backends import slow_in
from families.cases import FAMILIES, make, parameters
from oracles import rbm as oracle
from oracles.statistics import assert_mean, assert_moments

NUM_DRAWS = 60_000


@pytest.mark.parametrize("sampler", ["Exact", "Gibbs", pytest.param("Hamiltonian", marks=pytest.mark.slow)])
def test_without_weights_the_variance_is_the_squared_scale(backend, sampler):
    """The classic bug: noise and step decoupled, or a variance taken for a deviation."""
    scale = np.array([0.3, 1.0, 2.5])
    distribution = backend.distributions.GaussianBernoulliRBM(
        backend.array(np.zeros((3, 2))), scale=backend.array(scale), sampler=getattr(backend.infer, sampler)()
    )
    np.testing.assert_array_equal(backend.numpy(distribution.variance), scale**2)
    assert_moments(backend.sample(distribution, 1, (NUM_DRAWS,)), np.zeros(3), np.diag(scale**2))


def test_gibbs_conditionals_by_themselves(backend):
    """One sweep from a fixed point: the mean of v is mu + W E[h | v0], whose error a long chain might hide."""
    p = parameters("GaussianBernoulliRBM")
    start = np.array([0.5, -1.0, 2.0])
    distribution = make(backend, "GaussianBernoulliRBM", p)
    draws = backend.run_chain(
        distribution, 0, 1, num_chains=NUM_DRAWS, initial=backend.array(np.tile(start, (NUM_DRAWS, 1)))
    )[:, 0]
    states = oracle.binary_states(2)
    log_prob = [-oracle.joint_energy("GaussianBernoulliRBM", p, start, h) for h in states]
    prob = np.exp(log_prob - np.logaddexp.reduce(log_prob))
    centres = p.visible_bias + states @ p.weights.T
    mean = prob @ centres
    covariance = np.diag(p.scale**2) + (centres - mean).T @ (prob[:, None] * (centres - mean))
    assert_moments(draws, mean, covariance)


@pytest.mark.parametrize("family", FAMILIES)
def test_run_chain_keeps_its_target(backend, family):
    """A long thinned chain per (parallel) start; draws of one chain are correlated, so chains are the sample."""
    p = parameters(family)
    distribution = make(backend, family, p)
    draws = backend.run_chain(distribution, 0, 30, num_warmup=20, num_chains=4000, thinning=2)
    assert draws.shape == (4000, 30, 3)
    mean, covariance = oracle.moments(family, p)
    assert_mean(draws.mean(1), mean)
    assert_mean(((draws - mean) ** 2).mean(1), np.diagonal(covariance))


def test_batches_draw_their_own_models(backend):
    """A batch of two very different models, expanded over a third dimension: every cell has its own moments."""
    scale = np.array([[0.2, 0.2], [3.0, 3.0]])
    means = np.array([[5.0, -5.0], [0.0, 1.0]])
    distribution = backend.distributions.GaussianBernoulliRBM(
        backend.array(np.zeros((2, 2, 1))), visible_bias=backend.array(means), scale=backend.array(scale)
    ).expand((3, 2))
    draws = backend.sample(distribution, 0, (NUM_DRAWS,))
    assert draws.shape == (NUM_DRAWS, 3, 2, 2)
    for row in range(3):
        for column in range(2):
            assert_moments(draws[:, row, column], means[column], np.diag(scale[column] ** 2))
    flat = draws.reshape(NUM_DRAWS, -1)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(NUM_DRAWS) * 1.1  # expanded copies are independent


@pytest.mark.slow
def test_large_exact_enumeration_samples(backend):
    """12 hidden units: 4,096 mixture components, drawn by inversion."""
    p = parameters("GaussianBernoulliRBM", 2, 12)
    distribution = make(backend, "GaussianBernoulliRBM", p)
    assert_moments(backend.sample(distribution, 0, (NUM_DRAWS,)), *oracle.moments("GaussianBernoulliRBM", p))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_annealed_importance_sampling_value_and_gradient(backend):
    """log Z and its gradient -E[grad F] from the weighted samples, on a machine whose truth is known."""
    p = parameters("BernoulliRBM", 6, 5)
    exact = make(backend, "BernoulliRBM", p)
    estimator = backend.estimator(0, num_chains=4000, num_temperatures=100)
    estimated = make(backend, "BernoulliRBM", p, log_partition=estimator)
    assert estimated.is_normalized
    assert abs(float(estimated.log_partition) - float(exact.log_partition)) < 0.02
    points = backend.array(np.eye(6))

    def log_likelihood(weights, estimator):
        rbm = backend.distributions.BernoulliRBM(
            weights,
            visible_bias=backend.array(p.visible_bias),
            hidden_bias=backend.array(p.hidden_bias),
            log_partition=estimator,
        )
        return rbm.log_prob(points).mean()

    weights = backend.array(p.weights)
    (truth,) = backend.grad(lambda w: log_likelihood(w, "auto"), weights)
    another = backend.estimator(1, num_chains=4000, num_temperatures=100)
    (got,) = backend.grad(lambda w: log_likelihood(w, another), weights)
    # each entry is a mean over about 4,000 effective draws of a product in [0, 1]: standard error below 0.01
    np.testing.assert_allclose(got, truth, atol=4.5 * 0.01)
    assert np.corrcoef(got.ravel(), truth.ravel())[0, 1] > 0.98
