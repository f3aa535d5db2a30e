"""Improper densities are refused, with a case on each side of every boundary; and what bad arguments say."""

import numpy as np
import pytest

from families.zoo import ALL, points

W = np.array([[0.6, 0.1], [-0.2, 0.5], [0.3, 0.3]])
UNIT = np.array([[1.0], [0.0]])
EYE = np.eye(2)
GATES = {"input": np.array([1.0]), "input_weights": np.array([[1.0]]), "output_weights": UNIT}

#: name: (family, argument that the message names, builder of arguments from x, proper x, improper x)
BOUNDARIES = {
    "linear autoencoder": ("TiedAutoencoder", "weights", lambda x: {"weights": x * UNIT}, 0.999, 1.0, "linear"),
    "relu autoencoder": ("TiedAutoencoder", "weights", lambda x: {"weights": x * UNIT}, 0.999, 1.001, "relu"),
    "selu autoencoder": ("TiedAutoencoder", "weights", lambda x: {"weights": x * UNIT}, 0.97, 0.98, "selu"),
    "softplus autoencoder": ("TiedAutoencoder", "weights", lambda x: {"weights": x * UNIT}, 0.999, 1.001, "softplus"),
    "gain of a linear autoencoder": (
        "TiedAutoencoder",
        "weights",
        lambda x: {"weights": UNIT, "gain": np.array([x])},
        0.999,
        1.0,
        "linear",
    ),
    "a negative gain only helps": (
        "TiedAutoencoder",
        "weights",
        lambda x: {"weights": UNIT, "gain": np.array([x])},
        -50.0,
        1.0,
        "relu",
    ),
    "modulus with a negative gain": (
        "TiedAutoencoder",
        "weights",
        lambda x: {"weights": UNIT, "gain": np.array([x])},
        -0.999,
        -1.0,
        "modulus",
    ),
    "gated linear autoencoder": (
        "GatedAutoencoder",
        "mapping_weights",
        lambda x: {**GATES, "mapping_weights": np.array([[x]])},
        0.999,
        1.0,
        "linear",
    ),
    "covariance machine": ("CovarianceRBM", "pooling", lambda x: {"filters": UNIT, "pooling": [[x]]}, 0.999, 1.0, None),
    "precision of a covariance machine": (
        "CovarianceRBM",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[1.0]], "precision": [x, 0.1]},
        1.001,
        1.0,
        None,
    ),
    "covariance units of mixed signs": (
        # one unit raises along x and lowers along y, the other the reverse: together they are harmless, alone not
        "CovarianceRBM",
        "pooling",
        lambda x: {"filters": EYE, "pooling": [[x, -x], [-x, x]]},
        0.999,
        1.0,
        None,
    ),
    "mean-covariance machine": (
        "MeanCovarianceRBM",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[0.6, x]], "weights": 9 * EYE},
        0.399,
        0.4,
        None,
    ),
    "covariance autoencoder": (
        "CovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[x]]},
        0.999,
        1.0,
        "sigmoid",
    ),
    "tanh covariance autoencoder": (
        "CovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[x]]},
        -0.999,
        -1.0,
        "tanh",
    ),
    "softmax covariance autoencoder": (
        # one unit is on at a time, so that the two columns do not add up
        "CovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[x, x]]},
        0.999,
        1.0,
        "softmax",
    ),
    "relu covariance autoencoder": (
        "CovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[x]]},
        -40.0,
        0.01,
        "relu",
    ),
    "elu covariance autoencoder": (
        "CovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[x]]},
        -0.999,
        -1.0,
        "elu",
    ),
    "relu mean-covariance autoencoder": (
        "MeanCovarianceAutoencoder",
        "pooling",
        lambda x: {"filters": UNIT, "pooling": [[-1.0]], "weights": x * UNIT},
        0.999,
        1.001,
        "relu",
    ),
    "square PoT": (
        "ProductOfStudentT",
        "concentration",
        lambda x: {"filters": EYE, "concentration": x},
        0.51,
        0.5,
        None,
    ),
    "overcomplete PoT": (
        # three filters in general position: 2 * 3 gamma > 2
        "ProductOfStudentT",
        "concentration",
        lambda x: {"filters": [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], "concentration": x},
        0.34,
        0.33,
        None,
    ),
    "overcomplete PoT with two parallel filters": (
        # the subspace that only the third filter sees decides: 2 gamma > 1
        "ProductOfStudentT",
        "concentration",
        lambda x: {"filters": [[1.0, 2.0, 0.0], [0.0, 0.0, 1.0]], "concentration": x},
        0.51,
        0.5,
        None,
    ),
    "pooled PoT": (
        # one unit for the plane: 2 gamma > 2
        "ProductOfStudentT",
        "concentration",
        lambda x: {"filters": EYE, "concentration": x, "pooling": [[1.0], [1.0]]},
        1.01,
        1.0,
        None,
    ),
}


def build(backend, family, arguments, activation, **options):
    arrays = {name: backend.array(value) for name, value in arguments.items()}
    options |= {} if activation is None else {"activation": activation}
    return getattr(backend.distributions, family)(**arrays, **options)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_each_side_of_every_boundary(backend, name):
    family, argument, arguments, proper, improper, activation = BOUNDARIES[name]
    build(backend, family, arguments(proper), activation).check_proper()
    with pytest.raises(backend.ebm.ImproperDensityError, match=f"^{argument}: ") as caught:
        build(backend, family, arguments(improper), activation)
    assert "expected" in str(caught.value)
    unchecked = build(backend, family, arguments(improper), activation, validate_args=False)
    with pytest.raises(backend.ebm.ImproperDensityError):
        unchecked.check_proper()


@pytest.mark.parametrize("name", BOUNDARIES)
def test_no_improper_density_has_a_finite_normaliser(backend, name):
    """Where nothing checks its parameters: without validation, and in NumPyro traced as well."""
    family, _, arguments, _, improper, activation = BOUNDARIES[name]
    distribution = build(backend, family, arguments(improper), activation, validate_args=False)
    if not distribution.has_exact_partition:
        pytest.skip("its normaliser is not known")
    assert not np.isfinite(backend.numpy(distribution.log_partition))
    if backend.name == "numpyro":
        import jax

        assert not np.isfinite(jax.jit(lambda traced: traced.log_partition)(distribution))


@pytest.mark.parametrize(
    "name", ["covariance machine", "covariance units of mixed signs", "tanh covariance autoencoder"]
)
def test_the_boundary_is_where_the_energy_stops_to_grow(backend, name):
    """Along some direction, far out, the energy rises on the proper side and falls on the other."""
    family, _, arguments, proper, improper, activation = BOUNDARIES[name]
    directions = np.stack([np.cos(np.linspace(0, np.pi, 181)), np.sin(np.linspace(0, np.pi, 181))], -1)
    for x, rises in ((proper, True), (improper * 1.01, False)):
        distribution = build(backend, family, arguments(x), activation, validate_args=False)
        far, farther = (backend.numpy(distribution.energy(backend.array(r * directions))) for r in (300.0, 600.0))
        assert (farther - far).min() > 0 if rises else (farther - far).min() < 0


def test_filters_that_do_not_span(backend):
    with pytest.raises(backend.ebm.ImproperDensityError, match="concentration"):
        backend.distributions.ProductOfStudentT(backend.array(W), concentration=9.0)  # 2 filters in 3 dimensions


def test_always_proper_families_take_anything(backend):
    mpot = backend.distributions.MeanProductOfStudentT
    mpot(backend.array(W), backend.array(9 * W), concentration=0.01).check_proper()
    machine = backend.distributions.CovarianceRBM
    machine(backend.array(W), pooling=backend.array([[50.0], [50.0]]), normalize_visible=True).check_proper()
    for activation in ("sigmoid", "tanh", "hard_tanh", "hard_sigmoid", "step", "softsign", "arctan", "probit", "sin"):
        backend.distributions.TiedAutoencoder(backend.array(50 * W), activation=activation).check_proper()
    backend.distributions.TiedAutoencoder(backend.array(50 * W), activation="softmax").check_proper()


def test_every_model_of_a_batch_is_checked(backend):
    weights = np.stack([0.1 * W, 9 * W])
    with pytest.raises(backend.ebm.ImproperDensityError):
        backend.distributions.TiedAutoencoder(backend.array(weights), activation="linear")


BAD = {
    "square activation": (
        "ImproperDensityError",
        "activation",
        lambda d, a: d.TiedAutoencoder(a(W), activation="square"),
    ),
    "exponential activation": (
        "ImproperDensityError",
        "activation",
        lambda d, a: d.GatedAutoencoder(*map(a, ([1.0], [[1.0]], UNIT, [[1.0]])), activation="exp"),
    ),
    "unknown activation": (ValueError, "activation", lambda d, a: d.TiedAutoencoder(a(W), activation="swish")),
    "activation that is a function": (ValueError, "activation", lambda d, a: d.TiedAutoencoder(a(W), activation=abs)),
    "gain of softmax units": (ValueError, "gain", lambda d, a: d.TiedAutoencoder(a(W), activation="softmax", gain=2.0)),
    "negative temperature": (ValueError, "temperature", lambda d, a: d.TiedAutoencoder(a(W), temperature=-1.0)),
    "zero temperature of an integral": (
        ValueError,
        "temperature",
        lambda d, a: d.LineIntegralEnergy(lambda x: 0.5 * x, (2,), temperature=0.0),
    ),
    "negative precision": (
        ValueError,
        "precision",
        lambda d, a: d.CovarianceRBM(a(W), pooling=a(-W.T), precision=-1.0),
    ),
    "negative pooling of PoT": (
        ValueError,
        "pooling",
        lambda d, a: d.ProductOfStudentT(a(W), concentration=2.0, pooling=a([[-1.0], [1.0]])),
    ),
    "zero concentration": (
        ValueError,
        "concentration",
        lambda d, a: d.MeanProductOfStudentT(a(W), a(W), concentration=0.0),
    ),
    "concentration of the wrong length": (
        ValueError,
        "concentration",
        lambda d, a: d.MeanProductOfStudentT(a(W), a(W), concentration=a([1.0, 2.0, 3.0])),
    ),
    "pooling of the wrong shape": (ValueError, "pooling", lambda d, a: d.CovarianceRBM(a(W), pooling=a(W))),
    "normalize_visible that is a number": (
        TypeError,
        "normalize_visible",
        lambda d, a: d.CovarianceRBM(a(W), pooling=a([[-1.0], [-1.0]]), normalize_visible=1),
    ),
    "missing weights": (TypeError, "weights", lambda d, a: d.TiedAutoencoder()),
    "unknown argument": (TypeError, "wieghts", lambda d, a: d.TiedAutoencoder(a(W), wieghts=1.0)),
    "argument given twice": (TypeError, "weights", lambda d, a: d.TiedAutoencoder(a(W), weights=a(W))),
    "input of the wrong width": (
        ValueError,
        "input_weights",
        lambda d, a: d.GatedRBM(*map(a, ([1.0, 2.0], [[1.0]], UNIT, [[1.0]]))),
    ),
    "NaN filters": (
        ValueError,
        "filters",
        lambda d, a: d.CovarianceAutoencoder(a(W * np.nan), pooling=a([[-1.0], [-1.0]])),
    ),
    "network that is no function": (TypeError, "reconstruct", lambda d, a: d.GradientStepEnergy(3.0, (2,))),
    "causal network over an image": (ValueError, "event_shape", lambda d, a: d.CausalAutoencoder(abs, (2, 2))),
    "no quadrature nodes": (ValueError, "num_nodes", lambda d, a: d.LineIntegralEnergy(abs, (2,), num_nodes=0)),
    "origin of the wrong shape": (
        ValueError,
        "origin",
        lambda d, a: d.LineIntegralEnergy(lambda x: 0.5 * x, (2,), origin=a([0.0, 0.0, 0.0])),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(backend, name):
    error, argument, make_it = BAD[name]
    error = backend.ebm.ImproperDensityError if error == "ImproperDensityError" else error
    with pytest.raises(error, match=argument) as caught:
        make_it(backend.distributions, backend.array)
    assert any(word in str(caught.value) for word in ("expected", "argument"))


def test_networks_of_the_wrong_output(backend):
    distribution = backend.distributions.GradientStepEnergy(lambda x: x[..., :1], (2,))
    with pytest.raises(ValueError, match="reconstruct: expected"):
        distribution.energy(backend.array(np.zeros(2)))


def test_samplers_that_do_not_suit(backend):
    tied, infer = backend.distributions.TiedAutoencoder, backend.infer
    with pytest.raises(TypeError, match="sampler"):
        tied(backend.array(W), activation="tanh", sampler=infer.Gibbs())
    with pytest.raises(TypeError, match="sampler"):
        tied(backend.array(np.zeros((4, 5))), activation="tanh", sampler=infer.Exact())
    with pytest.raises(TypeError, match="sampler"):
        tied(backend.array(W), sampler=infer.Ancestral())
    with pytest.raises(TypeError, match="sampler"):
        ALL["normalised cRBM"].make(backend, sampler=infer.Gibbs())
    with pytest.raises(TypeError, match="normalize_visible"):
        ALL["normalised cRBM"].make(backend).visible_given_hidden(backend.array([1.0, 0.0]))


def test_values_on_the_border_of_the_cube(backend):
    distribution = backend.distributions.BinaryAutoencoder(backend.array(W))
    for bad in (0.0, 1.0, -0.5, np.nan):
        with pytest.raises(ValueError, match="value: BinaryAutoencoder expected"):
            distribution.log_prob(backend.array([0.5, bad, 0.5]))


def test_score_matching_refuses_scores_with_jumps(backend):
    step = backend.distributions.TiedAutoencoder(backend.array(W), activation="step")
    with pytest.raises(TypeError, match="base: ScoreMatching expected a continuous score"):
        backend.objectives.ScoreMatching(step)


@pytest.mark.parametrize("name", ["mPoT", "cAE sigmoid", "normalised mcRBM", "pooled PoT", "mcAE relu"])
def test_unknown_partition_functions_are_guarded(backend, name):
    case, at = ALL[name], backend.array(points(2))
    first = next(iter(case.parameters))
    arrays = {key: backend.array(value) for key, value in case.parameters.items()}

    def objective(array):
        model = getattr(backend.distributions, case.family)(**{**arrays, first: array}, **case.options)
        return model.log_prob(at).sum()

    assert not case.make(backend).is_normalized
    with pytest.raises(backend.ebm.IntractablePartitionError, match=case.family):
        backend.grad(objective, arrays[first])


def test_a_parameter_left_at_its_default_is_not_frozen(backend):
    """Changed copies keep what an optimiser wrote into the parameters."""
    rbm = backend.distributions.BernoulliRBM(backend.array(W))
    rbm.visible_bias = backend.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(backend.numpy(rbm.at_inverse_temperature(1.0).visible_bias), [1.0, 2.0, 3.0])
