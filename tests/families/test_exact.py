"""Every quantity of every family against brute force in float64."""

import functools

import numpy as np
import pytest
from scipy.special import gammaln

from backends import siblings
from families.cases import CONTINUOUS, FAMILIES, make, parameters, values
from oracles import rbm as oracle

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("visible", "hidden"), [(3, 2), (2, 4), (1, 1)])
def test_energy_is_the_marginalised_joint(backend, family, visible, hidden):
    p = parameters(family, visible, min(hidden, 2) if family == "GaussianRBM" else hidden)
    points = values(family, p)
    got = backend.numpy(make(backend, family, p).energy(backend.array(points)))
    np.testing.assert_allclose(got, [oracle.free_energy(family, p, v) for v in points], **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_joint_energy(backend, family):
    p = parameters(family)
    points, hidden = values(family, p), values(family, p)[:, :2]
    got = make(backend, family, p).joint_energy(backend.array(points), backend.array(hidden))
    expected = [oracle.joint_energy(family, p, v, h) for v, h in zip(points, hidden, strict=True)]
    np.testing.assert_allclose(backend.numpy(got), expected, **TOLERANCE)


@pytest.mark.parametrize("family", siblings(FAMILIES, FAMILIES[:2]))
def test_score_and_laplacian_against_finite_differences(backend, family):
    p = parameters(family)
    distribution = make(backend, family, p)
    for point in values(family, p, 3):
        gradient, laplacian = oracle.finite_difference(lambda v: -oracle.free_energy(family, p, v), point)
        np.testing.assert_allclose(backend.numpy(distribution.score(backend.array(point))), gradient, atol=1e-8)
        np.testing.assert_allclose(backend.numpy(distribution.laplacian(backend.array(point))), laplacian, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("visible", "hidden"), [(3, 2), (2, 4)])
def test_log_partition(backend, family, visible, hidden):
    p = parameters(family, visible, hidden)
    distribution = make(backend, family, p)
    np.testing.assert_allclose(backend.numpy(distribution.log_partition), oracle.log_partition(family, p), **TOLERANCE)
    assert distribution.is_normalized


@pytest.mark.slow
def test_chunked_enumeration_equals_brute_force(backend):
    """13 hidden units are enumerated chunk by chunk; brute force takes a quadrature for each of their states."""
    p = parameters("GaussianBernoulliRBM", 1, 13)
    got = backend.numpy(make(backend, "GaussianBernoulliRBM", p).log_partition)
    np.testing.assert_allclose(got, oracle.log_partition("GaussianBernoulliRBM", p), **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("visible", "hidden"), [(3, 2), (2, 4)])
def test_mean_and_variance(backend, family, visible, hidden):
    p = parameters(family, visible, hidden)
    distribution = make(backend, family, p)
    mean, covariance = oracle.moments(family, p)
    np.testing.assert_allclose(backend.numpy(distribution.mean), mean, **TOLERANCE)
    np.testing.assert_allclose(backend.numpy(distribution.variance), np.diagonal(covariance), **TOLERANCE)
    if family != "BernoulliRBM":
        np.testing.assert_allclose(backend.numpy(distribution.covariance_matrix), covariance, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_conditionals_belong_to_the_joint(backend, family):
    """log p(h|v) = log p(v|h) + const(v) needs E(v,h) = -log p(h|v) + F(v), and likewise for the visible units."""
    p = parameters(family)
    distribution = make(backend, family, p)
    point = values(family, p, 1)[0]
    hidden = (values(family, p, 4, seed=2)[:, :2] > 0).astype(float)
    # (repeated by hand: NumPyro's own Bernoulli promotes ranks implicitly, which these tests forbid)
    conditional = distribution.hidden_given_visible(backend.array(np.tile(point, (4, 1))))
    got = backend.numpy(conditional.log_prob(backend.array(hidden)))
    expected = [oracle.free_energy(family, p, point) - oracle.joint_energy(family, p, point, h) for h in hidden]
    np.testing.assert_allclose(got, expected, **TOLERANCE)
    points = values(family, p, 4)
    visible = distribution.visible_given_hidden(backend.array(np.tile(hidden[0], (4, 1))))
    got = backend.numpy(visible.log_prob(backend.array(points)))
    expected = -np.array([oracle.joint_energy(family, p, v, hidden[0]) for v in points])
    np.testing.assert_allclose(got - got[0], expected - expected[0], **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_condition_is_the_joint_with_units_held(backend, family):
    p = parameters(family, 4, 3)
    distribution = make(backend, family, p)
    known, rest = [2, 0], [1, 3]
    points = values(family, p, 6)
    points[:, known] = points[0, known]
    conditional = distribution.condition(known, backend.array(points[0, known]))
    got = backend.numpy(conditional.log_prob(backend.array(points[:, rest])))
    joint = backend.numpy(distribution.log_prob(backend.array(points)))
    np.testing.assert_allclose(got - got[0], joint - joint[0], **TOLERANCE)
    assert conditional.is_normalized


def test_condition_batches_over_values(backend):
    p = parameters("GaussianBernoulliRBM", 4, 3)
    distribution = make(backend, "GaussianBernoulliRBM", p)
    held = backend.array(np.random.default_rng(0).normal(size=(5, 2)))
    batched = distribution.condition([1, 2], held)
    assert tuple(batched.batch_shape) == (5,)
    single = backend.numpy(distribution.condition([1, 2], held[3]).mean)
    np.testing.assert_allclose(backend.numpy(batched.mean)[3], single, **TOLERANCE)


def test_condition_on_noisy_is_bayes_rule(backend):
    p = parameters("GaussianBernoulliRBM")
    distribution = make(backend, "GaussianBernoulliRBM", p)
    observed, noise = np.array([0.3, -1.0, 2.0]), np.array([0.4, 0.7, 1.1])
    posterior = distribution.condition_on_noisy(backend.array(observed), backend.array(noise))
    points = values("GaussianBernoulliRBM", p)
    likelihood = -0.5 * (((observed - points) / noise) ** 2).sum(-1)
    expected = backend.numpy(distribution.log_prob(backend.array(points))) + likelihood
    got = backend.numpy(posterior.log_prob(backend.array(points)))
    np.testing.assert_allclose(got - got[0], expected - expected[0], **TOLERANCE)


def test_krizhevsky_convention(backend):
    """E = sum (v-a)^2 / 2 sigma^2 - b'h - sum_ij (v_i / sigma_i) W_ij h_j (Krizhevsky 2009, eq. 1.7)."""
    p = parameters("GaussianBernoulliRBM")
    arguments = {name: backend.array(value) for name, value in p.arguments("GaussianBernoulliRBM").items()}
    distribution = backend.distributions.GaussianBernoulliRBM.from_krizhevsky(**arguments)
    for v, h in zip(values("GaussianBernoulliRBM", p, 4), oracle.binary_states(2), strict=True):
        expected = (
            0.5 * (((v - p.visible_bias) / p.scale) ** 2).sum() - p.hidden_bias @ h - (v / p.scale) @ p.weights @ h
        )
        got = backend.numpy(distribution.joint_energy(backend.array(v), backend.array(h)))
        np.testing.assert_allclose(got, expected, **TOLERANCE)


def test_spin_converters(backend):
    p = parameters("BernoulliRBM")
    arrays = [backend.array(value) for value in (p.weights, p.visible_bias, p.hidden_bias)]
    distribution = backend.distributions.BernoulliRBM.from_spins(
        arrays[0], visible_bias=arrays[1], hidden_bias=arrays[2]
    )
    states = oracle.binary_states(3)
    spins_h = 2 * oracle.binary_states(2) - 1
    log_weight = np.array(
        [
            np.log(sum(np.exp(s @ p.weights @ t + p.visible_bias @ s + p.hidden_bias @ t) for t in spins_h))
            for s in 2 * states - 1
        ]
    )
    expected = log_weight - np.log(np.exp(log_weight).sum())
    np.testing.assert_allclose(backend.numpy(distribution.log_prob(backend.array(states))), expected, **TOLERANCE)
    for got, given in zip(distribution.to_spins(), (p.weights, p.visible_bias, p.hidden_bias), strict=True):
        np.testing.assert_allclose(backend.numpy(got), given, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_annealing_path_ends(backend, family):
    p = parameters(family)
    distribution = make(backend, family, p)
    points = backend.array(values(family, p))
    end = backend.numpy(distribution.at_inverse_temperature(1.0).energy(points))
    np.testing.assert_allclose(end, backend.numpy(distribution.energy(points)), **TOLERANCE)
    start = oracle.Parameters(0 * p.weights, p.visible_bias, 0 * p.hidden_bias, p.scale)
    np.testing.assert_allclose(
        backend.numpy(distribution.base_log_partition), oracle.log_partition(family, start), **TOLERANCE
    )
    np.testing.assert_allclose(
        backend.numpy(distribution.at_inverse_temperature(0.0).energy(points)),
        [oracle.free_energy(family, start, v) for v in values(family, p)],
        **TOLERANCE,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_dimensions_broadcast(backend, family):
    """Batched weights and biases of different batch shapes: every element equals the model made by itself."""
    rng = np.random.default_rng(3)
    weights, bias = 0.2 * rng.normal(size=(4, 1, 3, 2)), rng.normal(size=(5, 3))
    batched = getattr(backend.distributions, family)(backend.array(weights), visible_bias=backend.array(bias))
    points = values(family, parameters(family), 7)
    got = backend.numpy(batched.log_prob(backend.array(points[:, None, None])))
    assert tuple(batched.batch_shape) == (4, 5)
    assert got.shape == (7, 4, 5)
    single = getattr(backend.distributions, family)(backend.array(weights[2, 0]), visible_bias=backend.array(bias[3]))
    np.testing.assert_allclose(got[:, 2, 3], backend.numpy(single.log_prob(backend.array(points))), **TOLERANCE)
    np.testing.assert_allclose(backend.numpy(batched.mean)[2, 3], backend.numpy(single.mean), **TOLERANCE)
    np.testing.assert_allclose(
        backend.numpy(batched.score(backend.array(points[:, None, None])))[:, 2, 3],
        backend.numpy(single.score(backend.array(points))),
        **TOLERANCE,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_expanded_and_empty_batches(backend, family):
    """A single value under an expanded distribution gives the whole batch; no values give no results."""
    p = parameters(family)
    distribution = make(backend, family, p)
    expanded = distribution.expand((4,))
    point, none = values(family, p, 1)[0], backend.array(np.zeros((0, 3)))
    for method, core in (("energy", ()), ("log_prob", ()), ("score", (3,)), ("laplacian", ())):
        whole = backend.numpy(getattr(expanded, method)(backend.array(point)))
        assert whole.shape == (4, *core)
        np.testing.assert_allclose(whole[2], backend.numpy(getattr(distribution, method)(backend.array(point))))
        assert backend.numpy(getattr(distribution, method)(none)).shape == (0, *core)
    assert tuple(expanded.hidden_given_visible(backend.array(point)).batch_shape) == (4,)
    assert tuple(expanded.visible_given_hidden(backend.array(np.ones(2))).batch_shape) == (4,)
    assert tuple(expanded.at_inverse_temperature(0.5).batch_shape) == (4,)
    assert backend.sample(distribution, 0, (0,)).shape == (0, 3)


def test_posteriors_of_many_observations_share_their_weights(backend):
    """200 noisy images must not make 200 copies of the weights."""
    distribution = make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"))
    posterior = distribution.condition_on_noisy(backend.array(np.zeros((200, 3))), 0.4)
    assert tuple(posterior.batch_shape) == (200,)
    assert tuple(posterior.weights.shape) == (3, 2)
    assert tuple(posterior.scale.shape) == (3,)
    conditional = distribution.condition([0], backend.array(np.zeros((200, 1))))
    assert tuple(conditional.weights.shape) == (2, 2)


@pytest.mark.parametrize("family", CONTINUOUS)
def test_exact_gradient_is_the_enumerated_one(backend, family):
    """grad of the mean log_prob in every parameter, against central differences of the oracle's log-likelihood."""
    p = parameters(family, 2, 2)
    data = values(family, p, 2)
    names = list(p.arguments(family))
    cls = getattr(backend.distributions, family)

    def log_likelihood(*arrays):
        return cls(**dict(zip(names, arrays, strict=True))).log_prob(backend.array(data)).mean()

    got = backend.grad(log_likelihood, *(backend.array(getattr(p, name)) for name in names))
    for name, gradient in zip(names, got, strict=True):
        np.testing.assert_allclose(gradient, _differentiated_oracle(family, name), atol=1e-8)


def test_exact_gradient_is_the_enumerated_one_for_binary_data(backend):
    """<v h>_data - <v h>_model, each by enumeration."""
    p = parameters("BernoulliRBM", 4, 3)
    data = values("BernoulliRBM", p, 6)
    names = list(p.arguments("BernoulliRBM"))

    def log_likelihood(*arrays):
        return (
            backend.distributions.BernoulliRBM(**dict(zip(names, arrays, strict=True)))
            .log_prob(backend.array(data))
            .mean()
        )

    weights, visible_bias, hidden_bias = backend.grad(log_likelihood, *(backend.array(getattr(p, n)) for n in names))
    states = oracle.binary_states(4)
    log_prob = np.array([-oracle.free_energy("BernoulliRBM", p, v) for v in states])
    prob = np.exp(log_prob - np.log(np.exp(log_prob).sum()))
    hidden = lambda v: 1 / (1 + np.exp(-(v @ p.weights + p.hidden_bias)))
    expected = data.T @ hidden(data) / len(data) - (prob[:, None] * states).T @ hidden(states)
    np.testing.assert_allclose(weights, expected, **TOLERANCE)
    np.testing.assert_allclose(visible_bias, data.mean(0) - prob @ states, **TOLERANCE)
    np.testing.assert_allclose(hidden_bias, hidden(data).mean(0) - prob @ hidden(states), **TOLERANCE)


@functools.cache
def _differentiated_oracle(family, name, step=1e-4):
    """Of the model and data above, in one parameter; both backends are compared with it."""
    p = parameters(family, 2, 2)
    data = values(family, p, 2)

    def log_likelihood(array):
        changed = oracle.Parameters(**{**p.__dict__, name: array})
        energies = [oracle.free_energy(family, changed, v) for v in data]
        return -np.mean(energies) - oracle.log_partition(family, changed)

    base = getattr(p, name)
    flat = oracle.finite_difference(lambda flat: log_likelihood(flat.reshape(base.shape)), base.reshape(-1), step)[0]
    return flat.reshape(base.shape)


@pytest.mark.parametrize("concentration", [0.7, 20.0, 31.0, 1e4, 1e6])
def test_student_log_densities_keep_their_digits_in_32_bits(backend, concentration):
    """log Gamma of the concentrations is in the energy and in log Z, and does not cancel there."""
    filters = np.array([[1.2, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.0, -0.5, 1.0]])
    points = np.random.default_rng(0).normal(size=(5, 3)) / np.sqrt(concentration)
    gamma = np.full(3, concentration)
    expected = (
        3 * (gammaln(concentration) - gammaln(concentration - 0.5) - 0.5 * np.log(2 * np.pi))
        + np.log(abs(np.linalg.det(filters)))
        - (gamma * np.log1p(0.5 * (points @ filters) ** 2)).sum(-1)
    )
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 2e-5)):
        arrays = backend.array(filters, dtype), backend.array(gamma, dtype)
        student = backend.distributions.ProductOfStudentT(arrays[0], concentration=arrays[1])
        found = backend.numpy(student.log_prob(backend.array(points, dtype)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, abs(expected).max() / 10))
