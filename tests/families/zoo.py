"""One table of all energies beyond the RBM family, in two dimensions, with their references in NumPy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from oracles import energies as oracle


def _random(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Case:
    """An energy over the plane.

    ``energy`` is a reference for the free energy and ``joint`` one for the joint energy (machines); ``field`` one for
    ``reconstruct(x) - x`` (autoencoders).
    """

    family: str
    parameters: dict[str, np.ndarray]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    energy: Callable[..., float] | None = None
    joint: Callable[..., float] | None = None
    field: Callable[..., np.ndarray] | None = None
    smooth: bool = True

    def make(self, backend, dtype=np.float64, **options):
        arguments = {name: backend.array(value, dtype) for name, value in self.parameters.items()}
        return getattr(backend.distributions, self.family)(**arguments, **self.options, **options)


def _machine(family, parameters, energy, joint, **options):
    case = {"options": options} if options else {}
    return Case(
        family, parameters, energy=lambda v: energy(parameters, v), joint=lambda v, h: joint(parameters, v, h), **case
    )


def _covariance(seed, size=2, filters=3, pooled=2, sign=-1.0, **extra):
    p = _random(seed, filters=(size, filters), pooling=(filters, pooled), covariance_bias=pooled, visible_bias=size)
    return {**p, "pooling": sign * 0.7 * np.abs(p["pooling"]), "covariance_bias": p["covariance_bias"] + 1, **extra}


_MEAN_UNITS = _random(11, weights=(2, 2), hidden_bias=2)
_MIXED = {**_covariance(12), "pooling": np.array([[-0.5, 0.05], [0.06, -0.3], [-0.2, -0.4]])}
_STUDENT = {"filters": np.array([[1.2, 0.4], [-0.3, 0.8]]), "concentration": np.array([4.0, 6.0])}
_POOLED = {
    **_random(13, filters=(2, 3)),
    "concentration": np.array([5.0, 4.0]),
    "pooling": np.array([[0.5, 0.0], [1.2, 0.7], [0.0, 0.9]]),
}
_MEAN_STUDENT = {**_random(14, filters=(2, 1), weights=(2, 2), visible_bias=2, hidden_bias=2)}
_GATED = _random(15, input=3, input_weights=(3, 4), output_weights=(2, 4), mapping_weights=(4, 3), visible_bias=2)
_GATED |= {"input": 0.12 * _GATED["input"], "hidden_bias": np.array([0.3, -1.0, 0.6])}


def _normalized(p):
    return Case(
        "MeanCovarianceRBM" if "weights" in p else "CovarianceRBM",
        p,
        {"normalize_visible": True},
        energy=lambda v: oracle.covariance_energy(p, v, normalize=True),
        joint=lambda v, h: oracle.covariance_joint(p, v, h, normalize=True),
    )


MACHINES = {
    "PoT": _machine("ProductOfStudentT", _STUDENT, oracle.student_energy, oracle.student_joint),
    "pooled PoT": _machine("ProductOfStudentT", _POOLED, oracle.student_energy, oracle.student_joint),
    "mPoT": _machine(
        "MeanProductOfStudentT",
        {**_MEAN_STUDENT, "concentration": np.array([1.5])},
        oracle.student_energy,
        oracle.student_joint,
    ),
    "pooled mPoT": _machine(
        "MeanProductOfStudentT", {**_MEAN_STUDENT, **_POOLED}, oracle.student_energy, oracle.student_joint
    ),
    "cRBM": _machine(
        "CovarianceRBM",
        _covariance(16, precision=np.array([0.7, 1.6])),
        oracle.covariance_energy,
        oracle.covariance_joint,
    ),
    "cRBM of mixed signs": _machine("CovarianceRBM", _MIXED, oracle.covariance_energy, oracle.covariance_joint),
    "mcRBM": _machine(
        "MeanCovarianceRBM", _covariance(17, **_MEAN_UNITS), oracle.covariance_energy, oracle.covariance_joint
    ),
    "mcRBM with few filters": _machine(
        "MeanCovarianceRBM",
        _covariance(18, filters=1, pooled=1, **_MEAN_UNITS),
        oracle.covariance_energy,
        oracle.covariance_joint,
    ),
    "gated RBM": _machine("GatedRBM", _GATED, oracle.gated_energy, oracle.gated_joint),
}
NORMALIZED = {
    "normalised cRBM": _normalized(_covariance(19, sign=1.0)),
    "normalised mcRBM": _normalized(_covariance(20, **_MEAN_UNITS)),
}

#: Scale of the weights that keeps half-linear activations proper.
_PROPER_NORM = {name: 0.8 for name in ("linear", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "modulus")}
_PROPER_NORM |= {"selu": 0.75, "soft_threshold": 0.9}


def tied(activation, visible=2, hidden=3, seed=21, **extra):
    """A tied autoencoder, with a gain for all but softmax units."""
    p = _random(seed, weights=(visible, hidden), hidden_bias=hidden, visible_bias=visible)
    gain = {} if activation == "softmax" else {"gain": np.linspace(0.6, 0.9, hidden)}
    norm = _PROPER_NORM.get(activation)
    weights = p["weights"] * norm / np.linalg.norm(p["weights"], 2) if norm else 0.6 * p["weights"]
    p = {**p, "weights": weights, **gain, **extra}
    return Case(
        "TiedAutoencoder",
        p,
        {"activation": activation},
        field=lambda x: oracle.tied_reconstruction(p, activation, x) - x,
        smooth=activation not in oracle.KINKS,
    )


def _gated(activation, **extra):
    p = {**_GATED, **extra}
    return Case(
        "GatedAutoencoder",
        p,
        {"activation": activation},
        field=lambda y: oracle.gated_reconstruction(p, activation, y) - y,
        smooth=activation not in oracle.KINKS,
    )


def _filtered(activation, scale=1.0, mean_scale=1.0, **extra):
    p = {name: value for name, value in _covariance(22, **extra).items()}
    p["pooling"] = scale * p["pooling"]
    if "weights" in extra:
        p["weights"] = mean_scale * p["weights"]
    return Case(
        "MeanCovarianceAutoencoder" if "weights" in extra else "CovarianceAutoencoder",
        p,
        {"activation": activation},
        field=lambda y: oracle.covariance_reconstruction(p, activation, y) - y,
        smooth=activation not in oracle.KINKS,
    )


AUTOENCODERS = {
    **{f"tied {name}": tied(name) for name in oracle.ACTIVATIONS},
    "tempered tied tanh": tied("tanh", temperature=np.array(1.7)),
    "gated sigmoid": _gated("sigmoid"),
    "gated tanh": _gated("tanh"),
    "gated softmax": _gated("softmax"),
    "cAE sigmoid": _filtered("sigmoid"),
    "cAE tanh": _filtered("tanh", 0.05),
    "cAE relu": _filtered("relu"),
    "cAE softmax": _filtered("softmax"),
    "mcAE sigmoid": _filtered("sigmoid", **_MEAN_UNITS),
    "mcAE relu": _filtered("relu", 1.0, 0.4, **_MEAN_UNITS),
    "mcAE softmax": _filtered("softmax", **_MEAN_UNITS),
    "tempered gated tanh": _gated("tanh", temperature=np.array(0.6)),
    "tempered cAE sigmoid": _filtered("sigmoid", temperature=np.array(1.7)),
    "tempered mcAE softmax": _filtered("softmax", temperature=np.array(0.6), **_MEAN_UNITS),
}
ALL = {**MACHINES, **NORMALIZED, **AUTOENCODERS}


def binary_autoencoder(backend, activation="sigmoid", **options):
    """An energy on the unit square."""
    p = _random(23, weights=(2, 3), hidden_bias=3, visible_bias=2)
    arrays = {name: backend.array(2 * value) for name, value in p.items()}
    return backend.distributions.BinaryAutoencoder(**arrays, activation=activation, **options)


def points(count=4, seed=1, size=2):
    return 1.5 * np.random.default_rng(seed).normal(size=(count, size))
