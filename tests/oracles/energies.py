"""NumPy references for the energies beyond the RBM family, by brute force from joint energies and fields.

Each free energy below sums or integrates a joint energy as printed, or integrates a field along a line: it knows
nothing of antiderivatives, of closed forms for hidden units, or of conditionals.
"""

import itertools

import numpy as np
from scipy import integrate, special


def binary_states(num_units):
    return np.array(list(itertools.product([0.0, 1.0], repeat=num_units))).reshape(2**num_units, num_units)


def squares(p, value):
    """q_k = 1/2 sum_f P_fk (C_f'v)^2; without pooling, a unit for each filter."""
    outputs = (value @ p["filters"]) ** 2
    return 0.5 * (outputs @ p["pooling"] if "pooling" in p else outputs)


def enumerate_hidden(joint, num_hidden):
    """-log of the sum of exp(-joint(h)) over binary h."""
    return -special.logsumexp([-joint(h) for h in binary_states(num_hidden)])


def covariance_joint(p, value, hidden, normalize=False):
    """MATH 5: binary covariance units first, then binary mean units, if there are weights."""
    seen = value / np.sqrt(np.mean(value**2) + 0.5) if normalize else value
    inputs = p["covariance_bias"] + squares(p, seen)
    if "weights" in p:
        inputs = np.concatenate([inputs, p["hidden_bias"] + value @ p["weights"]])
    precision = p.get("precision", np.ones_like(value))
    return 0.5 * value @ (precision * value) - p["visible_bias"] @ value - hidden @ inputs


def covariance_energy(p, value, normalize=False):
    num_hidden = len(p["covariance_bias"]) + len(p.get("hidden_bias", ()))
    return enumerate_hidden(lambda h: covariance_joint(p, value, h, normalize), num_hidden)


def student_joint(p, value, hidden):
    """MATH 4: Gamma units first, then binary mean units, if there are weights."""
    precisions, means = np.split(hidden, [len(p["concentration"])])
    energy = precisions @ (1 + squares(p, value)) + (1 - p["concentration"]) @ np.log(precisions)
    if "weights" in p:
        energy += 0.5 * value @ value - p["visible_bias"] @ value - means @ (p["hidden_bias"] + value @ p["weights"])
    return energy


def student_energy(p, value):
    """One numerical integral for each Gamma unit, and a sum over the mean units."""
    rates = 1 + squares(p, value)
    logs = [
        np.log(integrate.quad(lambda h, g=g, r=r: h ** (g - 1) * np.exp(-h * r), 0, 60 * g, epsabs=0, epsrel=1e-13)[0])
        for g, r in zip(p["concentration"], rates, strict=True)
    ]
    energy = -np.sum(logs)
    if "weights" in p:
        inputs = p["hidden_bias"] + value @ p["weights"]
        energy += enumerate_hidden(lambda h: -h @ inputs, len(inputs))
        energy += 0.5 * value @ value - p["visible_bias"] @ value
    return energy


def gated_joint(p, value, hidden):
    """MATH 7, with the four-way products written out."""
    factors = (p["input"] @ p["input_weights"]) * (value @ p["output_weights"])
    quadratic = 0.5 * np.sum((value - p["visible_bias"]) ** 2)
    return quadratic - hidden @ (p["hidden_bias"] + factors @ p["mapping_weights"])


def gated_energy(p, value):
    return enumerate_hidden(lambda h: gated_joint(p, value, h), len(p["hidden_bias"]))


#: Activation functions as their definitions read.
ACTIVATIONS = {
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "hard_tanh": lambda u: np.clip(u, -1, 1),
    "hard_sigmoid": lambda u: np.clip(u / 6 + 0.5, 0, 1),
    "step": lambda u: (u > 0).astype(float),
    "softsign": lambda u: u / (1 + np.abs(u)),
    "arctan": np.arctan,
    "probit": special.ndtr,
    "sin": np.sin,
    "linear": lambda u: u,
    "relu": lambda u: np.maximum(u, 0),
    "leaky_relu": lambda u: np.where(u > 0, u, 0.01 * u),
    "elu": lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
    "selu": lambda u: 1.0507009873554805 * np.where(u > 0, u, 1.6732632423543772 * np.expm1(np.minimum(u, 0))),
    "gelu": lambda u: u * special.ndtr(u),
    "silu": lambda u: u * special.expit(u),
    "softplus": lambda u: np.logaddexp(u, 0),
    "modulus": np.abs,
    "soft_threshold": lambda u: np.sign(u) * np.maximum(np.abs(u) - 1, 0),
    "softmax": lambda u: special.softmax(u, axis=-1),
}
#: Where g or g' jumps.
KINKS = {
    **{name: (0.0,) for name in ("step", "softsign", "relu", "leaky_relu", "elu", "selu", "modulus")},
    **{name: (-1.0, 1.0) for name in ("hard_tanh", "soft_threshold")},
    "hard_sigmoid": (-3.0, 3.0),
}


def tied_reconstruction(p, activation, value):
    """r(x) = W diag(gain) g(W'x + b) + c."""
    hidden = ACTIVATIONS[activation](value @ p["weights"] + p["hidden_bias"])
    return (p.get("gain", 1.0) * hidden) @ p["weights"].T + p["visible_bias"]


def gated_reconstruction(p, activation, value):
    gates = p["input"] @ p["input_weights"]
    inputs = (gates * (value @ p["output_weights"])) @ p["mapping_weights"] + p["hidden_bias"]
    return (gates * (ACTIVATIONS[activation](inputs) @ p["mapping_weights"].T)) @ p["output_weights"].T + p[
        "visible_bias"
    ]


def covariance_reconstruction(p, activation, value):
    """A gated autoencoder of the value given itself, and tied mean units if there are weights."""
    outputs = value @ p["filters"]
    inputs = outputs**2 @ p["pooling"] + p["covariance_bias"]
    back = (outputs * (ACTIVATIONS[activation](inputs) @ p["pooling"].T)) @ p["filters"].T + p["visible_bias"]
    if "weights" in p:
        back = back + ACTIVATIONS[activation](value @ p["weights"] + p["hidden_bias"]) @ p["weights"].T
    return back


def potential_difference(field, start, end, points=None):
    """Integral of a field along the straight line between two points: minus the difference of its energies."""
    along = lambda t: field(start + t * (end - start)) @ (end - start)
    return integrate.quad(along, 0, 1, epsabs=1e-11, epsrel=1e-11, limit=400, points=points, full_output=1)[0]


def crossings(p, activation, start, end):
    """Where the straight line from start to end takes a tied unit across a kink of its activation."""
    first, last = (point @ p["weights"] + p["hidden_bias"] for point in (start, end))
    times = [(kink - first) / (last - first) for kink in KINKS.get(activation, ())]
    return sorted(t for t in np.ravel(times) if 0 < t < 1) or None


def plane_grid(reach=8.5, count=561):
    """Points of the plane with their areas, dense near the origin and reaching to exp(reach) / 2."""
    t = np.linspace(-reach, reach, count)
    axis, weights = np.sinh(t), np.cosh(t) * (t[1] - t[0])
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), np.outer(weights, weights).ravel()


def unit_square_grid(count=400):
    """Points of the unit square with their areas, by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    axis, weights = 0.5 * (nodes + 1), 0.5 * weights
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), np.outer(weights, weights).ravel()


def grid_moments(log_density, points, areas):
    """log of the integral, mean and covariance of an unnormalised log-density on a grid."""
    log_terms = log_density + np.log(areas)
    total = special.logsumexp(log_terms)
    probability = np.exp(log_terms - total)
    mean = probability @ points
    centred = points - mean
    return total, mean, centred.T @ (probability[:, None] * centred)
