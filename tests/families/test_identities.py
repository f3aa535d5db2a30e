"""Models that are others in disguise: each identity in float64, in both backends."""

import numpy as np
import pytest

from families.zoo import points

RNG = np.random.default_rng(41)
W, B, C = RNG.normal(size=(3, 4)), RNG.normal(size=4), RNG.normal(size=3)
FILTERS, POOLING, BIAS = RNG.normal(size=(3, 5)), -np.abs(RNG.normal(size=(5, 2))), RNG.normal(size=2)
AT = points(6, size=3)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def build(backend, family, activation=None, normalize_visible=None, **arrays):
    options = {"activation": activation, "normalize_visible": normalize_visible}
    given = {name: option for name, option in options.items() if option is not None}
    arguments = {name: backend.array(array) for name, array in arrays.items()}
    return getattr(backend.distributions, family)(**arguments, **given)


def evaluate(backend, distribution, *methods):
    return [backend.numpy(getattr(distribution, method)(backend.array(AT))) for method in methods]


def assert_same(backend, first, second, methods=("energy", "score", "laplacian", "log_prob")):
    for got, expected in zip(evaluate(backend, first, *methods), evaluate(backend, second, *methods), strict=True):
        np.testing.assert_allclose(got, expected, **TOLERANCE)


def test_tied_sigmoid_autoencoder_is_the_gaussian_bernoulli_machine(backend):
    assert_same(
        backend,
        build(backend, "TiedAutoencoder", weights=W, hidden_bias=B, visible_bias=C),
        build(backend, "GaussianBernoulliRBM", weights=W, visible_bias=C, hidden_bias=B),
    )


GATES = {
    "input": RNG.normal(size=(6, 2)),
    "input_weights": RNG.normal(size=(2, 5)),
    "output_weights": RNG.normal(size=(3, 5)),
    "mapping_weights": RNG.normal(size=(5, 4)),
}


def test_gated_sigmoid_autoencoder_is_the_gated_machine(backend):
    machine = build(backend, "GatedRBM", **GATES, visible_bias=C, hidden_bias=B)
    assert_same(backend, build(backend, "GatedAutoencoder", **GATES, hidden_bias=B, visible_bias=C), machine)


def test_gated_machine_is_a_gaussian_bernoulli_machine_for_each_input(backend):
    machine = build(backend, "GatedRBM", **GATES, visible_bias=C, hidden_bias=B)
    weights = np.einsum(
        "df,nf,fk->ndk", GATES["output_weights"], GATES["input"] @ GATES["input_weights"], GATES["mapping_weights"]
    )
    np.testing.assert_allclose(backend.numpy(machine.weights), weights, **TOLERANCE)
    plain = build(backend, "GaussianBernoulliRBM", weights=weights, visible_bias=C, hidden_bias=B)
    assert_same(backend, machine, plain)
    np.testing.assert_allclose(backend.numpy(machine.mean), backend.numpy(plain.mean), **TOLERANCE)
    known = backend.array(AT[:, [2]])
    rest = [backend.numpy(m.condition([2], known).log_prob(backend.array(AT[:, :2]))) for m in (machine, plain)]
    np.testing.assert_allclose(*rest, **TOLERANCE)


def test_covariance_autoencoder_is_the_covariance_machine_at_temperature_two(backend):
    """F_cAE(y) = F_cRBM(sqrt(2) y) / 2 + |a|^2 / 2 with the same filters, pooling and hidden biases."""
    autoencoder = build(
        backend, "CovarianceAutoencoder", filters=FILTERS, pooling=POOLING, covariance_bias=BIAS, visible_bias=C
    )
    machine = build(
        backend, "CovarianceRBM", filters=FILTERS, pooling=POOLING, covariance_bias=BIAS, visible_bias=np.sqrt(2) * C
    )
    expected = 0.5 * backend.numpy(machine.energy(backend.array(np.sqrt(2) * AT))) + 0.5 * C @ C
    np.testing.assert_allclose(*evaluate(backend, autoencoder, "energy"), expected, **TOLERANCE)


def test_covariance_field_in_print(backend):
    """2 r(y) - y, without a bias, is the score of the covariance machine with twice the pooling (MATH 12)."""
    autoencoder = build(backend, "CovarianceAutoencoder", filters=FILTERS, pooling=POOLING, covariance_bias=BIAS)
    machine = build(backend, "CovarianceRBM", filters=FILTERS, pooling=2 * POOLING, covariance_bias=BIAS)
    (reconstruction,) = evaluate(backend, autoencoder, "reconstruct")
    (score,) = evaluate(backend, machine, "score")
    np.testing.assert_allclose(2 * reconstruction - AT, score, **TOLERANCE)


def test_mean_covariance_autoencoder_is_the_mean_covariance_machine_at_temperature_two(backend):
    """Every mean unit twice, with weights w / sqrt(2): the mean part has no factor 1/2."""
    autoencoder = build(
        backend,
        "MeanCovarianceAutoencoder",
        filters=FILTERS,
        pooling=POOLING,
        weights=W,
        covariance_bias=BIAS,
        hidden_bias=B,
        visible_bias=C,
    )
    doubled = np.concatenate([W, W], axis=1) / np.sqrt(2)
    machine = build(
        backend,
        "MeanCovarianceRBM",
        filters=FILTERS,
        pooling=POOLING,
        weights=doubled,
        covariance_bias=BIAS,
        hidden_bias=np.concatenate([B, B]),
        visible_bias=np.sqrt(2) * C,
    )
    expected = 0.5 * backend.numpy(machine.energy(backend.array(np.sqrt(2) * AT))) + 0.5 * C @ C
    np.testing.assert_allclose(*evaluate(backend, autoencoder, "energy"), expected, **TOLERANCE)


def test_softmax_autoencoder_is_the_modern_hopfield_energy(backend):
    """E = |x|^2 / 2 - lse(X'x) (Ramsauer et al. 2021, eq. 3, beta = 1, up to a constant), whose update is r(x)."""
    autoencoder = build(backend, "TiedAutoencoder", weights=W, activation="softmax")
    inputs = AT @ W
    energy = 0.5 * (AT**2).sum(-1) - np.log(np.exp(inputs).sum(-1))
    update = (np.exp(inputs) / np.exp(inputs).sum(-1, keepdims=True)) @ W.T
    np.testing.assert_allclose(*evaluate(backend, autoencoder, "energy"), energy, **TOLERANCE)
    np.testing.assert_allclose(*evaluate(backend, autoencoder, "reconstruct"), update, **TOLERANCE)


def test_linear_autoencoder_is_the_gaussian_machine(backend):
    """Up to the constant that integrating its hidden units leaves, and a shift of the visible bias."""
    weights = 0.3 * W
    autoencoder = build(backend, "TiedAutoencoder", weights=weights, hidden_bias=B, visible_bias=C, activation="linear")
    machine = build(backend, "GaussianRBM", weights=weights, visible_bias=C, hidden_bias=B)
    assert_same(backend, autoencoder, machine, ("score", "laplacian"))


@pytest.mark.parametrize("normalize", [False, True])
def test_covariance_machine_without_mean_units(backend, normalize):
    """A mean-covariance machine whose mean units see nothing adds log 2 for each of them."""
    options = {"normalize_visible": normalize}
    plain = build(
        backend, "CovarianceRBM", filters=FILTERS, pooling=POOLING, covariance_bias=BIAS, visible_bias=C, **options
    )
    both = build(
        backend,
        "MeanCovarianceRBM",
        filters=FILTERS,
        pooling=POOLING,
        weights=np.zeros((3, 2)),
        covariance_bias=BIAS,
        hidden_bias=np.zeros(2),
        visible_bias=C,
        **options,
    )
    first, second = (evaluate(backend, model, "energy", "score") for model in (plain, both))
    np.testing.assert_allclose(first[0], second[0] + 2 * np.log(2), **TOLERANCE)
    np.testing.assert_allclose(first[1], second[1], **TOLERANCE)


def test_pooling_by_the_identity_is_no_pooling(backend):
    plain = build(backend, "ProductOfStudentT", filters=FILTERS, concentration=np.full(5, 2.0))
    pooled = build(backend, "ProductOfStudentT", filters=FILTERS, concentration=np.full(5, 2.0), pooling=np.eye(5))
    assert_same(backend, plain, pooled, ("energy", "score", "laplacian"))


@pytest.mark.parametrize("family", ["CovarianceRBM", "CovarianceAutoencoder", "MeanCovarianceRBM"])
def test_covariance_units_without_pooling_see_a_filter_each(backend, family):
    """With weight -1: an active unit forbids variation along its filter."""
    arrays = {"filters": FILTERS, "covariance_bias": RNG.normal(size=5)}
    if family.startswith("Mean"):
        arrays |= {"weights": W, "hidden_bias": B}
    plain, pooled = build(backend, family, **arrays), build(backend, family, pooling=-np.eye(5), **arrays)
    assert_same(backend, plain, pooled, ("energy", "score", "laplacian"))
