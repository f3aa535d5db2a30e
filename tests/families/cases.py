"""One table of constructors for every generic test."""

from oracles.rbm import Parameters

FAMILIES = ("BernoulliRBM", "GaussianBernoulliRBM", "GaussianRBM")
CONTINUOUS = FAMILIES[1:]


def parameters(family, visible=3, hidden=2, seed=0):
    """Asymmetric parameters; weak enough for a Gaussian machine to be proper."""
    return Parameters.random(visible, hidden, seed, strength=0.25 if family == "GaussianRBM" else 0.8)


def make(backend, family, p, **options):
    """The family's distribution in this backend, in float64."""
    arguments = {name: backend.array(value) for name, value in p.arguments(family).items()}
    return getattr(backend.distributions, family)(**arguments, **options)


def values(family, p, count=5, seed=1):
    """Points in the support."""
    import numpy as np

    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, len(p.visible_bias))) * 1.5
    return (points > 0).astype(float) if family == "BernoulliRBM" else points
