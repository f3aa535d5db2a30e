"""A user's own family: one formula, and scores, guards, batches, sampling and learning criteria follow."""

import importlib

import numpy as np
import pytest

STRENGTH = np.array([0.25, 2.0])


def quartic(backend):
    """exp(-sum_i strength_i v_i^4), written once: the formula is the same for one value and for a batch."""
    host = {"numpyro": "numpyro.distributions", "pyro": "pyro.distributions"}[backend.name]
    constraints = importlib.import_module(host).constraints

    class Quartic(backend.ebm.EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

        def __init__(self, strength, **options):
            super().__init__({"strength": strength}, **options)

        def _energy(self, value):
            return (self.strength * value**4).sum(-1)

    return Quartic


@pytest.mark.parametrize("batch", [(), (3, 1)])
def test_scores_by_automatic_differentiation(backend, batch):
    strength = np.broadcast_to(STRENGTH, (*batch, 2)).copy()
    distribution = quartic(backend)(backend.array(strength))
    points = np.random.default_rng(0).normal(size=(7, *batch, 2))
    np.testing.assert_allclose(backend.numpy(distribution.score(backend.array(points))), -4 * strength * points**3)
    laplacian = -(12 * strength * points**2).sum(-1)
    np.testing.assert_allclose(backend.numpy(distribution.laplacian(backend.array(points))), laplacian)


def test_guard_and_validation(backend):
    family = quartic(backend)
    with pytest.raises(backend.ebm.IntractablePartitionError, match="Quartic"):
        backend.grad(lambda s: family(s).log_prob(backend.array([1.0, 1.0])), backend.array(STRENGTH))
    with pytest.raises(ValueError, match="strength"):
        family(backend.array(-STRENGTH))


def test_score_matching_finds_the_parameters(backend):
    """J is quadratic in the strengths: its exact minimiser is E[12 v^2] / E[16 v^6] per unit."""
    family = quartic(backend)
    data = backend.sample(family(backend.array(STRENGTH)), 1, (2000,))
    optimum = (12 * data**2).mean(0) / (16 * data**6).mean(0)
    criterion = backend.objectives.ScoreMatching
    (gradient,) = backend.grad(
        lambda s: criterion(family(s)).log_prob(backend.array(data)).mean(), backend.array(optimum)
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    np.testing.assert_allclose(optimum, STRENGTH, rtol=0.1)


def test_contrastive_divergence_with_a_langevin_chain(backend):
    """Without conditionals CD moves along the score; its gradient is that of F(v) - F(v')."""
    family = quartic(backend)
    sampler = backend.infer.Langevin(step_size=0.3)
    points = backend.array(np.full((4000, 2), 0.1))

    def objective(strength):
        base = family(strength, sampler=sampler)
        return backend.stochastic(backend.objectives.ContrastiveDivergence, base, num_steps=50).log_prob(points).mean()

    (gradient,) = backend.grad(objective, backend.array(STRENGTH))
    # after 50 steps the negative samples have E[v^4] = 1 / (4 strength); its deviation is below twice that
    exact = -(0.1**4) + 0.25 / STRENGTH
    assert np.all(np.abs(gradient - exact) < 4.5 * 0.5 / STRENGTH / np.sqrt(4000))
