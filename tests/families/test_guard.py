"""The normaliser policy: what is known is used, what is unknown is never differentiated in silence."""

import numpy as np
import pytest

from families.cases import FAMILIES, make, parameters, values


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("log_partition", [None, 3.5])
def test_gradient_in_a_parameter_raises_with_remedies(backend, family, log_partition):
    p = parameters(family)
    points = backend.array(values(family, p))
    cls = getattr(backend.distributions, family)
    for name in p.arguments(family):
        arguments = {key: backend.array(value) for key, value in p.arguments(family).items()}

        def objective(array, name=name, arguments=arguments):
            return cls(**{**arguments, name: array}, log_partition=log_partition).log_prob(points).sum()

        with pytest.raises(backend.ebm.IntractablePartitionError) as caught:
            backend.grad(objective, backend.array(getattr(p, name)))
        for remedy in ("AnnealedImportanceSampling", "ContrastiveDivergence", "ScoreMatching", "detach"):
            assert remedy in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES[1:])
@pytest.mark.parametrize("log_partition", [None, 3.5])
def test_gradient_in_the_value_is_the_score(backend, family, log_partition):
    p = parameters(family)
    points = backend.array(values(family, p))
    distribution = make(backend, family, p, log_partition=log_partition)
    (gradient,) = backend.grad(lambda v: distribution.log_prob(v).sum(), points)
    np.testing.assert_allclose(gradient, backend.numpy(distribution.score(points)), rtol=1e-10)


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_derivatives_of_the_score_need_no_constant(backend, family):
    """Score matching by hand: the gradient in a parameter of a function of the gradient in the value."""
    p = parameters(family)
    points = backend.array(values(family, p))
    cls = getattr(backend.distributions, family)
    arguments = {key: backend.array(value) for key, value in p.arguments(family).items()}

    def machine(weights):
        return cls(**{**arguments, "weights": weights}, log_partition=None, validate_args=False)

    if backend.name == "numpyro":
        import jax

        def score(weights):
            return jax.grad(lambda v: machine(weights).log_prob(v).sum())(points)
    else:
        import torch

        def score(weights):
            leaf = points.clone().requires_grad_()
            return torch.autograd.grad(machine(weights).log_prob(leaf).sum(), leaf, create_graph=True)[0]

    (got,) = backend.grad(lambda w: (score(w) ** 2).sum(), arguments["weights"])
    (expected,) = backend.grad(lambda w: (machine(w).score(points) ** 2).sum(), arguments["weights"])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(backend.ebm.IntractablePartitionError):
        backend.grad(lambda w: (score(w) ** 2).sum() + machine(w).log_prob(points).sum(), arguments["weights"])


def test_unknown_partition_is_left_out_and_a_constant_is_used(backend):
    p = parameters("GaussianBernoulliRBM")
    points = backend.array(values("GaussianBernoulliRBM", p))
    unknown = make(backend, "GaussianBernoulliRBM", p, log_partition=None)
    given = make(backend, "GaussianBernoulliRBM", p, log_partition=2.5)
    assert not unknown.is_normalized
    assert given.is_normalized
    energy = backend.numpy(unknown.energy(points))
    np.testing.assert_allclose(backend.numpy(unknown.log_prob(points)), -energy)
    np.testing.assert_allclose(backend.numpy(given.log_prob(points)), -energy - 2.5)
    assert float(given.log_partition) == 2.5
    with pytest.raises(backend.ebm.IntractablePartitionError, match="GaussianBernoulliRBM"):
        _ = unknown.log_partition


def test_auto_is_exact_up_to_sixteen_hidden_units_and_guarded_beyond(backend):
    for num_hidden, exact in ((16, True), (17, False)):
        rbm = backend.distributions.GaussianBernoulliRBM(backend.array(np.zeros((2, num_hidden))))
        assert rbm.is_normalized is exact
        assert rbm.has_exact_sampler is exact
    rbm = backend.distributions.BernoulliRBM(backend.array(np.zeros((16, 40))))
    assert rbm.is_normalized  # the smaller layer counts
    with pytest.raises(backend.ebm.IntractablePartitionError):
        backend.grad(
            lambda w: backend.distributions.BernoulliRBM(w).log_prob(backend.array(np.ones(17))).sum(),
            backend.array(np.zeros((17, 17))),
        )


def test_intractable_moments_say_so(backend):
    rbm = backend.distributions.BernoulliRBM(backend.array(np.zeros((17, 17))))
    with pytest.raises(NotImplementedError, match="exact moments"):
        _ = rbm.mean


def test_neural_energy_guards_what_its_function_closes_over(backend):
    def objective(strength):
        return backend.distributions.NeuralEnergy(lambda v: strength * (v**4).sum(-1), (2,)).log_prob(point)

    point = backend.array([1.0, 2.0])
    with pytest.raises(backend.ebm.IntractablePartitionError, match="NeuralEnergy"):
        backend.grad(objective, backend.array(0.5))
    (gradient,) = backend.grad(
        lambda v: backend.distributions.NeuralEnergy(lambda x: (x**4).sum(-1), (2,)).log_prob(v), point
    )
    np.testing.assert_allclose(gradient, [-4.0, -32.0])


def test_learning_criteria_are_not_guarded(backend):
    points = backend.array(np.eye(17))
    persistent = backend.objectives.PersistentContrastiveDivergence

    def objective(weights):
        rbm = backend.distributions.BernoulliRBM(weights)
        return backend.stochastic(persistent, rbm, backend.array(np.zeros((3, 17)))).log_prob(points).sum()

    (gradient,) = backend.grad(objective, backend.array(np.full((17, 17), 0.1)))
    assert np.abs(gradient).max() > 0
