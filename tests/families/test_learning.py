"""Learning criteria against exact gradients and closed-form optima.

Mutations tried by hand and caught: the Laplacian's sign in score matching; differentiating through negative samples;
CD that restarts from noise instead of the data; PCD that forgets to store its chains.
"""

import numpy as np
import pytest

from backends import except_numpyro, pairs, siblings, slow_in
from families.cases import CONTINUOUS, FAMILIES, make, parameters, values
from oracles import rbm as oracle
from oracles.rbm import Parameters
from oracles.statistics import MAX_Z


def _gradient(backend, family, p, log_prob_of):
    names = list(p.arguments(family))
    cls = getattr(backend.distributions, family)

    def objective(*arrays):
        return log_prob_of(cls(**dict(zip(names, arrays, strict=True)))).mean()

    gradients = backend.grad(objective, *(backend.array(getattr(p, name)) for name in names))
    return np.concatenate([gradient.ravel() for gradient in gradients])


@pytest.mark.parametrize(
    *pairs(["BernoulliRBM", "GaussianBernoulliRBM"], slow=except_numpyro(FAMILIES, []), name="family"),
    indirect=["backend"],
)
def test_contrastive_gradients_approach_the_exact_one(backend, family):
    """CD-k is biased at k = 1, less so at 5, and exact within |z| < 4.5 at 200; so is PCD with chains as old."""
    p = Parameters.random(3, 2, seed=2, strength=2.0 if family == "BernoulliRBM" else 1.0)
    p.scale = np.array([0.8, 1.0, 1.3])
    data = np.tile(values(family, p, 4), (5000, 1))
    points = backend.array(data)
    truth = _gradient(backend, family, p, lambda rbm: rbm.log_prob(points))
    draws = backend.sample(make(backend, family, p), 0, (2000,))
    deviation = np.std([oracle.free_energy_gradient(family, p, v) for v in draws], axis=0)
    standard_error = deviation / np.sqrt(len(data))

    def z_scores(criterion, num_steps, *chains):
        make_criterion = getattr(backend.objectives, criterion)
        got = _gradient(
            backend,
            family,
            p,
            lambda rbm: backend.stochastic(make_criterion, rbm, *chains, num_steps=num_steps).log_prob(points),
        )
        return np.abs(got - truth) / standard_error

    biases = [z_scores("ContrastiveDivergence", num_steps).max() for num_steps in (1, 5, 200)]
    assert biases[0] > 2 * biases[1] > 4 * biases[2]
    assert biases[2] < MAX_Z
    assert z_scores("PersistentContrastiveDivergence", 1, points + 0).max() > 2 * MAX_Z
    assert z_scores("PersistentContrastiveDivergence", 200, points + 0).max() < MAX_Z


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["PersistentContrastiveDivergence", "ContrastiveDivergence", "ScoreMatching"])
def test_gradient_is_that_of_the_mean_criterion(backend, family, name):
    """By name, for training loops of one's own: closed forms must equal automatic differentiation of log_prob."""
    if name == "ScoreMatching" and family == "BernoulliRBM":
        pytest.skip("binary data have no score")
    p = parameters(family)
    points = backend.array(values(family, p))
    start = backend.array(values(family, p, 8, seed=5))
    criterion = getattr(backend.objectives, name)

    def make_criterion(rbm):
        if name == "ScoreMatching":
            return criterion(rbm)
        arguments = (start + 0,) if name == "PersistentContrastiveDivergence" else ()
        return backend.stochastic(criterion, rbm, *arguments, seed=3)

    expected = _gradient(backend, family, p, lambda rbm: -make_criterion(rbm).log_prob(points))
    got = make_criterion(make(backend, family, p)).gradient(points)
    assert list(got) == list(p.arguments(family))
    got = np.concatenate([backend.numpy(got[key]).ravel() for key in got])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_contrastive_gradient_does_not_flow_through_negative_samples(backend):
    """The gradient must equal that of F(v) - F(v') with v' a plain constant."""
    p = parameters("GaussianBernoulliRBM")
    points = backend.array(values("GaussianBernoulliRBM", p))
    start = backend.array(values("GaussianBernoulliRBM", p, 8, seed=5))
    persistent = backend.objectives.PersistentContrastiveDivergence
    negative = backend.stochastic(persistent, make(backend, "GaussianBernoulliRBM", p), start + 0, seed=3).negative
    fixed = _gradient(backend, "GaussianBernoulliRBM", p, lambda rbm: rbm.energy(negative).mean() - rbm.energy(points))
    got = _gradient(
        backend,
        "GaussianBernoulliRBM",
        p,
        lambda rbm: backend.stochastic(persistent, rbm, start + 0, seed=3).log_prob(points),
    )
    np.testing.assert_allclose(got, fixed, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", siblings(CONTINUOUS, ["GaussianBernoulliRBM"]))
def test_score_matching_is_hyvarinens_objective(backend, family):
    p = parameters(family)
    points = values(family, p)
    criterion = backend.objectives.ScoreMatching(make(backend, family, p))
    got = -backend.numpy(criterion.log_prob(backend.array(points)))
    for value, point in zip(got, points, strict=True):
        gradient, laplacian = oracle.finite_difference(lambda v: -oracle.free_energy(family, p, v), point)
        np.testing.assert_allclose(value, 0.5 * gradient @ gradient + laplacian, atol=1e-5)


def test_score_matching_of_a_gaussian_bernoulli_machine_in_print(backend):
    """MATH 2 (Swersky 2011): J = 1/2 |v - vhat|^2 + sum W^2 hhat (1 - hhat) - D at unit scale."""
    p = parameters("GaussianBernoulliRBM")
    p.scale = np.ones(3)
    points = values("GaussianBernoulliRBM", p)
    active = 1 / (1 + np.exp(-(p.hidden_bias + points @ p.weights)))
    reconstruction = p.visible_bias + active @ p.weights.T
    expected = 0.5 * ((points - reconstruction) ** 2).sum(1) + (active * (1 - active)) @ (p.weights**2).sum(0) - 3
    criterion = backend.objectives.ScoreMatching(make(backend, "GaussianBernoulliRBM", p))
    np.testing.assert_allclose(-backend.numpy(criterion.log_prob(backend.array(points))), expected, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:value. ScoreMatching expected data")  # one point is no sample of a density
def test_hutchinson_estimates_the_exact_trace(backend):
    p = parameters("GaussianBernoulliRBM")
    point = values("GaussianBernoulliRBM", p, 1)[0]
    rbm = make(backend, "GaussianBernoulliRBM", p)
    exact = -float(backend.objectives.ScoreMatching(rbm).log_prob(backend.array(point)))
    probed = backend.stochastic(backend.objectives.ScoreMatching, rbm, estimator="hutchinson")
    losses = -backend.numpy(probed.log_prob(backend.array(np.tile(point, (20_000, 1)))))
    assert losses.std() > 0
    assert abs(losses.mean() - exact) < 4.5 * losses.std() / np.sqrt(len(losses))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_score_matching_optimum_of_the_gaussian_machine_is_pca(backend):
    """MATH 3: W = U_K diag(sqrt(1 - 1 / s_k)) R over the second-moment eigenpairs with s_k > 1 is stationary."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 5)) @ np.diag([3.0, 2.0, 1.5, 0.8, 0.5]) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    eigenvalues, vectors = np.linalg.eigh(data.T @ data / len(data))
    spectrum, basis = eigenvalues[::-1][:2], vectors[:, ::-1][:, :2]
    rotation = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    optimum = basis @ np.diag(np.sqrt(1 - 1 / spectrum)) @ rotation
    points = backend.array(data)

    def objective(weights):
        return backend.objectives.ScoreMatching(backend.distributions.GaussianRBM(weights)).log_prob(points).mean()

    def likelihood(weights):
        return backend.distributions.GaussianRBM(weights).log_prob(points).mean()

    for function in (objective, likelihood):
        (gradient,) = backend.grad(function, backend.array(optimum))
        np.testing.assert_allclose(gradient, 0, atol=1e-9)
        for other in (0.9 * optimum, optimum + 0.05 * rng.normal(size=optimum.shape)):
            assert float(function(backend.array(other))) < float(function(backend.array(optimum)))
    covariance = backend.numpy(backend.distributions.GaussianRBM(backend.array(optimum)).covariance_matrix)
    np.testing.assert_allclose(covariance, np.eye(5) + basis @ np.diag(spectrum - 1) @ basis.T, atol=1e-10)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_score_matching_training_reaches_the_pca_solution(backend):
    """Plain gradient ascent on the criterion, from small random weights, ends at the closed form."""
    rng = np.random.default_rng(1)
    data = rng.normal(size=(500, 3)) * np.array([2.0, 1.4, 0.6])
    eigenvalues, vectors = np.linalg.eigh(data.T @ data / len(data))
    points = backend.array(data)
    weights = 0.1 * rng.normal(size=(3, 1))
    for _ in range(400):
        (gradient,) = backend.grad(
            lambda w: backend.objectives.ScoreMatching(backend.distributions.GaussianRBM(w)).log_prob(points).mean(),
            backend.array(weights),
        )
        weights = weights + 0.05 * gradient
    expected = vectors[:, -1] * np.sqrt(1 - 1 / eigenvalues[-1])
    np.testing.assert_allclose(weights[:, 0] * np.sign(weights[0, 0] * expected[0]), expected, atol=1e-3)


def test_pseudo_likelihood_against_conditionals(backend):
    p = parameters("BernoulliRBM", 4, 3)
    points = values("BernoulliRBM", p, 5)
    got = backend.objectives.PseudoLikelihood(make(backend, "BernoulliRBM", p)).log_prob(backend.array(points))
    for value, point in zip(backend.numpy(got), points, strict=True):
        expected = 0.0
        for i in range(4):
            flipped = point.copy()
            flipped[i] = 1 - flipped[i]
            gap = oracle.free_energy("BernoulliRBM", p, flipped) - oracle.free_energy("BernoulliRBM", p, point)
            expected += -np.log1p(np.exp(-gap))
        np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(4,), (1,), (5, 4), ()])
def test_contrastive_divergence_of_a_batch_of_models(backend, shape):
    """Of zero couplings, whose chains are biased coins: zero on average for data of the same coins."""
    rbm = backend.distributions.BernoulliRBM(backend.array(np.zeros((4, 2, 3))))
    criterion = backend.stochastic(backend.objectives.ContrastiveDivergence, rbm)
    value = backend.array(np.ones((*shape, 2)))
    np.testing.assert_array_equal(backend.numpy(criterion.log_prob(value)), np.zeros(np.broadcast_shapes(shape, (4,))))


@pytest.mark.parametrize("batch", [(), (6,)])
@pytest.mark.parametrize(
    ("family", "options"),
    [("TiedAutoencoder", {"activation": "tanh"}), ("ProductOfStudentT", {"concentration": 3.0})],
)
def test_gradients_of_parameters_that_were_not_given_are_zero(backend, family, options, batch):
    """They play no part in the energy; the others' gradients are those of the loss."""
    rng = np.random.default_rng(0)
    couplings, data = 0.3 * rng.normal(size=(*batch, 2, 2)), backend.array(rng.normal(size=(6, 2)))
    options = {name: value if isinstance(value, str) else backend.array(value) for name, value in options.items()}
    build = lambda array: backend.objectives.ScoreMatching(getattr(backend.distributions, family)(array, **options))
    criterion = build(backend.array(couplings))
    found = {name: backend.numpy(array) for name, array in criterion.gradient(data).items()}
    assert set(found) == set(criterion.base.parameter_dims)
    first = next(iter(found))
    (expected,) = backend.grad(lambda array: build(array).loss(data).mean(), backend.array(couplings))
    np.testing.assert_allclose(found[first], expected, rtol=1e-9, atol=1e-12)
    for name in criterion.base.absent:
        np.testing.assert_array_equal(found[name], 0.0)
    contrast = backend.stochastic(backend.objectives.ContrastiveDivergence, criterion.base)
    if family == "ProductOfStudentT":
        assert set(contrast.gradient(data)) == set(found)
