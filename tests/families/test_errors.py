"""One table of bad inputs: each raises, naming the argument, and says what was expected."""

import numpy as np
import pytest

from families.cases import make, parameters

W = np.array([[0.3, -0.2], [0.1, 0.4], [-0.3, 0.2]])


def _rbm(backend, family="GaussianBernoulliRBM", weights=W, **options):
    arrays = {k: backend.array(v) if isinstance(v, (list, np.ndarray)) else v for k, v in options.items()}
    return getattr(backend.distributions, family)(
        backend.array(weights) if isinstance(weights, np.ndarray) else weights, **arrays
    )


def _batched(backend, **options):
    return _rbm(backend, weights=np.zeros((4, 3, 2)), **options)


CONSTRUCTION = {
    "bias of the wrong length": (ValueError, "visible_bias", lambda b: _rbm(b, visible_bias=np.zeros(4))),
    "hidden bias of the wrong length": (ValueError, "hidden_bias", lambda b: _rbm(b, hidden_bias=np.zeros(3))),
    "weights that are a vector": (ValueError, "weights", lambda b: _rbm(b, weights=np.zeros(3))),
    "weights that are a scalar": (ValueError, "weights", lambda b: _rbm(b, weights=0.5)),
    "scale of the wrong length": (ValueError, "scale", lambda b: _rbm(b, scale=np.ones(2))),
    "batches that do not broadcast": (
        ValueError,
        "visible_bias",
        lambda b: _rbm(b, weights=np.zeros((2, 3, 2)), visible_bias=np.zeros((4, 3))),
    ),
    "NaN weights": (ValueError, "weights", lambda b: _rbm(b, weights=W * np.nan)),
    "infinite bias": (ValueError, "hidden_bias", lambda b: _rbm(b, hidden_bias=np.array([np.inf, 0]))),
    "negative scale": (ValueError, "scale", lambda b: _rbm(b, scale=np.array([1.0, -1.0, 1.0]))),
    "zero scale": (ValueError, "scale", lambda b: _rbm(b, scale=0.0)),
    "integer weights": (TypeError, "weights", lambda b: _rbm(b, weights=b.array(np.ones((3, 2)), np.int32))),
    "integer bias": (TypeError, "visible_bias", lambda b: _rbm(b, visible_bias=b.array([1, 2, 3], np.int64))),
    "estimator of no chains": (ValueError, "num_chains", lambda b: b.infer.AnnealedImportanceSampling(num_chains=0)),
    "negative threshold": (
        ValueError,
        "threshold",
        lambda b: b.ebm.distributions.parts.activations.soft_threshold(-1.0),
    ),
    "complex hidden units": (
        TypeError,
        "hidden",
        lambda b: _rbm(b).visible_given_hidden(b.array([1j, 0.0], np.complex128)),
    ),
    "unknown sampler": (TypeError, "sampler", lambda b: _rbm(b, sampler="gibbs")),
    "sampler class": (TypeError, "sampler", lambda b: _rbm(b, sampler=b.infer.Gibbs)),
    "exact sampler of a large model": (
        TypeError,
        "sampler",
        lambda b: _rbm(b, weights=np.zeros((3, 17)), sampler=b.infer.Exact()),
    ),
    "gradient sampler of a discrete model": (
        TypeError,
        "sampler",
        lambda b: _rbm(b, "BernoulliRBM", sampler=b.infer.Hamiltonian()),
    ),
    "Gibbs sampler without hidden units": (
        TypeError,
        "sampler",
        lambda b: b.distributions.NeuralEnergy(lambda v: v.sum(-1), (2,), sampler=b.infer.Gibbs()),
    ),
    "unknown normaliser policy": (TypeError, "log_partition", lambda b: _rbm(b, log_partition="exact")),
    "true as a normaliser": (TypeError, "log_partition", lambda b: _rbm(b, log_partition=True)),
    "NaN as a normaliser": (ValueError, "log_partition", lambda b: _rbm(b, log_partition=float("nan"))),
    "no weights": (TypeError, "weights", lambda b: b.distributions.BernoulliRBM(None)),
    "weights that are text": (TypeError, "weights", lambda b: b.distributions.BernoulliRBM("abc")),
    "criterion over another batch": (
        ValueError,
        "value",
        lambda b: b.objectives.ScoreMatching(_rbm(b)).expand((4,)).log_prob(b.array(np.zeros((3, 3)))),
    ),
    "constant of the wrong shape": (
        ValueError,
        "log_partition",
        lambda b: _rbm(b, log_partition=np.zeros((2, 3)), weights=np.zeros((4, 3, 2))),
    ),
    "improper Gaussian machine": (ValueError, "weights", lambda b: _rbm(b, "GaussianRBM", weights=3 * W)),
    "no steps": (ValueError, "num_steps", lambda b: b.infer.Gibbs(num_steps=0)),
    "negative step": (ValueError, "step_size", lambda b: b.infer.Langevin(step_size=-0.1)),
    "energy that is no function": (TypeError, "energy_fn", lambda b: b.distributions.NeuralEnergy(3.0, (2,))),
    "event shape that is no tuple": (TypeError, "event_shape", lambda b: b.distributions.NeuralEnergy(abs, 2)),
    "indices out of range": (ValueError, "indices", lambda b: _rbm(b).condition([3], b.array([0.0]))),
    "repeated indices": (ValueError, "indices", lambda b: _rbm(b).condition([1, 1], b.array([0.0, 0.0]))),
    "boolean indices": (TypeError, "indices", lambda b: _rbm(b).condition([True, False], b.array([0.0, 0.0]))),
    "all indices": (ValueError, "indices", lambda b: _rbm(b).condition([0, 1, 2], b.array(np.zeros(3)))),
    "values that do not match indices": (ValueError, "values", lambda b: _rbm(b).condition([0], b.array(np.zeros(2)))),
    "negative noise": (ValueError, "noise_scale", lambda b: _rbm(b).condition_on_noisy(b.array(np.zeros(3)), -1.0)),
    "unknown trace estimator": (
        ValueError,
        "estimator",
        lambda b: b.objectives.ScoreMatching(_rbm(b), estimator="sliced"),
    ),
    "score matching of binary data": (TypeError, "base", lambda b: b.objectives.ScoreMatching(_rbm(b, "BernoulliRBM"))),
    "pseudo-likelihood of real data": (TypeError, "base", lambda b: b.objectives.PseudoLikelihood(_rbm(b))),
    "criterion of a number": (TypeError, "base", lambda b: b.objectives.PseudoLikelihood(3.0)),
    "chains of the wrong width": (
        ValueError,
        "chains",
        lambda b: b.stochastic(b.objectives.PersistentContrastiveDivergence, _rbm(b), b.array(np.zeros((5, 4)))),
    ),
    "chains without their own dimension": (
        ValueError,
        "chains",
        lambda b: b.stochastic(b.objectives.PersistentContrastiveDivergence, _rbm(b), b.array(np.zeros(3))),
    ),
    "chains that are no array": (
        TypeError,
        "chains",
        lambda b: b.stochastic(b.objectives.PersistentContrastiveDivergence, _rbm(b), "chains"),
    ),
    "no contrastive steps": (
        ValueError,
        "num_steps",
        lambda b: b.stochastic(b.objectives.ContrastiveDivergence, _rbm(b), num_steps=0),
    ),
    "contrastive Langevin without a step size": (
        ValueError,
        "step_size",
        lambda b: b.stochastic(
            b.objectives.ContrastiveDivergence, b.distributions.NeuralEnergy(lambda v: (v**4).sum(-1), (2,))
        ).log_prob(b.array(np.zeros(2))),
    ),
    "gradient by name of a nameless energy": (
        TypeError,
        "base",
        lambda b: b.objectives.ScoreMatching(b.distributions.NeuralEnergy(lambda v: (v**4).sum(-1), (2,))).gradient(
            b.array(np.zeros((3, 2)))
        ),
    ),
    "no draws": (ValueError, "num_samples", lambda b: b.run_chain(_rbm(b), 0, 0)),
    "start of the wrong shape": (
        ValueError,
        "initial",
        lambda b: b.run_chain(_rbm(b), 0, 1, initial=b.array(np.zeros(3))),
    ),
    "chain of independent draws": (TypeError, "sampler", lambda b: b.run_chain(_rbm(b), 0, 1, sampler=b.infer.Exact())),
    "expand to a smaller batch": (
        ValueError,
        "batch_shape",
        lambda b: _rbm(b, visible_bias=np.zeros((4, 3))).expand((2,)),
    ),
}

VALUES = {
    "too short": (ValueError, "value", "GaussianBernoulliRBM", np.zeros(2), np.float64),
    "a scalar": (ValueError, "value", "GaussianBernoulliRBM", np.zeros(()), np.float64),
    "NaN": (ValueError, "value", "GaussianBernoulliRBM", np.array([0.0, np.nan, 0.0]), np.float64),
    "integers for a continuous model": (TypeError, "value", "GaussianBernoulliRBM", np.zeros(3), np.int64),
    "grey pixels for a binary model": (ValueError, "value", "BernoulliRBM", np.array([0.0, 0.5, 1.0]), np.float64),
    "spins for a binary model": (ValueError, "value", "BernoulliRBM", np.array([-1.0, 1.0, 1.0]), np.float64),
}


@pytest.mark.parametrize("case", CONSTRUCTION)
def test_bad_construction(backend, case):
    error, argument, make_it = CONSTRUCTION[case]
    with pytest.raises(error, match=argument) as caught:
        make_it(backend)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("case", VALUES)
def test_bad_values(backend, case):
    error, argument, family, value, dtype = VALUES[case]
    distribution = _rbm(backend, family)
    for method in ("log_prob", "energy", "score"):
        with pytest.raises(error, match=f"^{argument}: ") as caught:
            getattr(distribution, method)(backend.array(value, dtype))
        assert "expected" in str(caught.value)


def test_improper_gaussian_machines_on_each_side_of_the_boundary(backend):
    """The largest singular value decides, not the smallest, nor their sum of squares."""
    for largest, proper in ((0.999, True), (1.0, False), (1.001, False)):
        weights = backend.array(np.diag([0.5, largest]))
        if proper:
            backend.distributions.GaussianRBM(weights).check_proper()
            continue
        with pytest.raises(backend.ebm.ImproperDensityError, match="weights"):
            backend.distributions.GaussianRBM(weights)
        unchecked = backend.distributions.GaussianRBM(weights, validate_args=False)
        with pytest.raises(backend.ebm.ImproperDensityError):
            unchecked.check_proper()


def test_validation_can_be_switched_off(backend):
    distribution = backend.distributions.GaussianBernoulliRBM(backend.array(W), scale=-1.0, validate_args=False)
    assert np.isnan(backend.numpy(distribution.log_prob(backend.array(np.zeros(3)))))


def test_a_refused_update_leaves_the_chains_alone(backend):
    p = parameters("GaussianBernoulliRBM")
    chains = backend.array(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="num_steps"):
        backend.stochastic(
            backend.objectives.PersistentContrastiveDivergence,
            make(backend, "GaussianBernoulliRBM", p),
            chains,
            num_steps=0,
        )
    np.testing.assert_array_equal(backend.numpy(chains), np.zeros((5, 3)))


def test_what_energies_do_not_have(backend):
    machine = make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM"))
    with pytest.raises(NotImplementedError, match="entropy: GaussianBernoulliRBM has none in closed form"):
        machine.entropy()
    with pytest.raises(NotImplementedError, match="rsample: draws of GaussianBernoulliRBM do not follow"):
        machine.rsample(None)


@pytest.mark.parametrize("family", ["BernoulliRBM", "GaussianBernoulliRBM", "GaussianRBM", "TiedAutoencoder"])
def test_surplus_positional_arguments_are_answered_with_the_call(backend, family):
    """In 0.1 some families took the biases in one order, some in the other."""
    first = {"TiedAutoencoder": "hidden_bias"}.get(family, "visible_bias")
    call = rf"^{family}: expected 1 positional argument, got 2; write {family}\(weights, \*, {first}=0.0, "
    with pytest.raises(TypeError, match=call):
        getattr(backend.distributions, family)(backend.array(W), backend.array(np.zeros(3)))
