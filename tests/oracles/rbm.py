"""NumPy references for the RBM family: joint energies as printed, and everything else by brute force from them."""

import dataclasses
import itertools

import numpy as np
from scipy import integrate
from scipy.special import logsumexp


def binary_states(num_units):
    return np.array(list(itertools.product([0.0, 1.0], repeat=num_units)))


@dataclasses.dataclass
class Parameters:
    """An asymmetric set of parameters; ``scale`` is used by the Gaussian-Bernoulli machine only."""

    weights: np.ndarray
    visible_bias: np.ndarray
    hidden_bias: np.ndarray
    scale: np.ndarray

    @classmethod
    def random(cls, visible, hidden, seed=0, strength=0.5):
        rng = np.random.default_rng(seed)
        return cls(
            strength * rng.normal(size=(visible, hidden)),
            rng.normal(size=visible),
            rng.normal(size=hidden),
            np.exp(0.4 * rng.normal(size=visible)),
        )

    def arguments(self, family):
        names = ["weights", "visible_bias", "hidden_bias"] + ["scale"] * (family == "GaussianBernoulliRBM")
        return {name: getattr(self, name) for name in names}


def joint_energy(family, p, value, hidden):
    """E(v, h) of one pair, as printed in MATH 1, 2 and 3."""
    if family == "BernoulliRBM":
        return -value @ p.weights @ hidden - p.visible_bias @ value - p.hidden_bias @ hidden
    if family == "GaussianBernoulliRBM":
        precision = np.diag(1 / p.scale**2)
        centred = value - p.visible_bias
        return 0.5 * centred @ precision @ centred - value @ precision @ p.weights @ hidden - p.hidden_bias @ hidden
    linear = p.visible_bias @ value + p.hidden_bias @ hidden
    return 0.5 * value @ value + 0.5 * hidden @ hidden - value @ p.weights @ hidden - linear


def free_energy(family, p, value):
    """-log of the sum (or integral) of exp(-E(v, h)) over h."""
    num_hidden = p.weights.shape[1]
    if family != "GaussianRBM":
        return -logsumexp([-joint_energy(family, p, value, h) for h in binary_states(num_hidden)])
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    grid = np.array(list(itertools.product(nodes, repeat=num_hidden)))
    log_weights = np.array([np.sum(np.log(w)) for w in itertools.product(node_weights, repeat=num_hidden)])
    # the quadrature's weight function is exp(-h^2 / 2), so take that part out of the integrand
    terms = [lw - joint_energy(family, p, value, h) + 0.5 * h @ h for lw, h in zip(log_weights, grid, strict=True)]
    return -logsumexp(terms)


def log_partition(family, p):
    """By enumerating visible and hidden states, or one-dimensional quadratures per visible unit, or a determinant."""
    visible, hidden = p.weights.shape
    if family == "BernoulliRBM":
        return logsumexp([-free_energy(family, p, value) for value in binary_states(visible)])
    if family == "GaussianBernoulliRBM":
        return logsumexp([_integrate_visible(p, h) for h in binary_states(hidden)])
    precision, linear = _joint_gaussian(p)
    _, log_det = np.linalg.slogdet(precision)
    return 0.5 * ((visible + hidden) * np.log(2 * np.pi) - log_det + linear @ np.linalg.solve(precision, linear))


def _integrate_visible(p, hidden):
    """log of the integral of exp(-E(v, h)) over v: the units are independent given h."""
    total = p.hidden_bias @ hidden
    for i, scale in enumerate(p.scale):
        centre = p.visible_bias[i] + p.weights[i] @ hidden
        peak = 0.5 * (centre**2 - p.visible_bias[i] ** 2) / scale**2
        density = lambda v, i=i, s=scale, peak=peak: np.exp(
            -0.5 * ((v - p.visible_bias[i]) / s) ** 2 + v * (p.weights[i] @ hidden) / s**2 - peak
        )
        area, _ = integrate.quad(density, centre - 12 * scale, centre + 12 * scale, epsabs=0, epsrel=1e-12)
        total += np.log(area) + peak
    return total


def _joint_gaussian(p):
    """Precision and linear term of the joint Gaussian over (v, h)."""
    visible, hidden = p.weights.shape
    precision = np.block([[np.eye(visible), -p.weights], [-p.weights.T, np.eye(hidden)]])
    return precision, np.concatenate([p.visible_bias, p.hidden_bias])


def moments(family, p):
    """Mean vector and covariance matrix of v."""
    visible, hidden = p.weights.shape
    if family == "BernoulliRBM":
        states = binary_states(visible)
        log_prob = np.array([-free_energy(family, p, value) for value in states])
        prob = np.exp(log_prob - logsumexp(log_prob))
        mean = prob @ states
        return mean, (states - mean).T @ (prob[:, None] * (states - mean))
    if family == "GaussianBernoulliRBM":
        states = binary_states(hidden)
        log_prob = np.array([_integrate_visible(p, h) for h in states])
        prob = np.exp(log_prob - logsumexp(log_prob))
        centres = p.visible_bias + states @ p.weights.T
        mean = prob @ centres
        return mean, np.diag(p.scale**2) + (centres - mean).T @ (prob[:, None] * (centres - mean))
    precision, linear = _joint_gaussian(p)
    covariance = np.linalg.inv(precision)[:visible, :visible]
    return np.linalg.solve(precision, linear)[:visible], covariance


def finite_difference(function, point, step=1e-4):
    """Gradient and Laplacian of a scalar function by central differences (fourth order)."""
    gradient, laplacian = np.zeros_like(point), 0.0
    for i in range(len(point)):
        values = [function(point + k * step * np.eye(len(point))[i]) for k in (-2, -1, 0, 1, 2)]
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[3] - values[4]) / (12 * step)
        laplacian += (-values[0] + 16 * values[1] - 30 * values[2] + 16 * values[3] - values[4]) / (12 * step**2)
    return gradient, laplacian


def free_energy_gradient(family, p, value):
    """Gradient of the free energy in every parameter, flattened in the order of ``arguments``; binary hidden units."""
    precision = np.ones_like(p.scale) if family == "BernoulliRBM" else p.scale**-2.0
    active = 1 / (1 + np.exp(-(p.hidden_bias + (precision * value) @ p.weights)))
    weights = -np.outer(precision * value, active).ravel()
    if family == "BernoulliRBM":
        return np.concatenate([weights, -value, -active])
    centred = value - p.visible_bias
    scale = (2 * value * (p.weights @ active) - centred**2) / p.scale**3
    return np.concatenate([weights, -precision * centred, -active, scale])
