r"""Autoencoders whose field ``r(x) - x`` is the gradient of an energy, as distributions.

``energy(value)`` is that potential over ``temperature``, so ``score = field / temperature``. A denoising autoencoder
that was trained at noise ``sigma`` has ``temperature = sigma^2``: a tempered energy of unit variance, which is not a
Gaussian-Bernoulli machine of that variance (Alain & Bengio 2014; Vincent 2011).
"""

from typing import Any

import numpy as np
import torch
from torch.distributions import constraints

from pyro_ebm.distributions.activations import ACTIVATIONS, Activation, resolve_activation
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.filters import FilterEnergy
from pyro_ebm.distributions.gated import GATED_CONSTRAINTS, GATED_DIMS, GatedEnergy
from pyro_ebm.distributions.partition import MAX_ENUMERATED_TERMS
from pyro_ebm.distributions.properness import (
    check_pooled_growth,
    check_spectral_norm,
    single_models,
)
from pyro_ebm.distributions.quadrature import MAX_DIRECTIONS, low_rank_log_partition
from pyro_ebm.distributions.rbm import GaussianBernoulliRBM
from pyro_ebm.distributions.tensors import linear

_MATRIX = constraints.independent(constraints.real, 2)


class Autoencoder(EnergyDistribution):
    """The family's base: ``reconstruct``, ``encode`` and ``field``.

    A member defines ``_hidden_input``, the input ``u`` of its hidden units, and ``_reconstruct``.
    """

    option_defaults = {"activation": "sigmoid"}
    support = constraints.real_vector
    activation: Activation

    def _resolve_option(self, name: str, option: Any) -> Activation:
        return resolve_activation(option)

    @property
    def has_continuous_score(self) -> bool:
        return self.activation.is_continuous

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _encode(self, value: torch.Tensor) -> torch.Tensor:
        return self.activation.function(self._hidden_input(value))

    def _trace(self, slopes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Trace of ``W g' W'``, for the units' slopes (softmax: matrices) at each value."""
        if self.activation.is_joint:
            return (slopes * (weights.mT @ weights)).sum((-2, -1))
        return (slopes * (weights**2).sum(-2)).sum(-1)

    def encode(self, value: Any) -> torch.Tensor:
        """Hidden activations g(u), shape ``(..., hidden)``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._encode(self._check_value(value))

    def reconstruct(self, value: Any) -> torch.Tensor:
        """The reconstruction r(x), shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._reconstruct(self._check_value(value))

    def field(self, value: Any) -> torch.Tensor:
        """``reconstruct(value) - value``."""
        value = self._check_value(value)
        return self._reconstruct(value) - value


class _LinearAutoencoder(Autoencoder):
    """Hidden units see linear functions of the value, ``u = W'x + b``, and answer through the same weights.

    A member provides ``weights``, as a parameter or derived from its parameters.
    """

    weights: torch.Tensor
    hidden_bias: torch.Tensor
    visible_bias: torch.Tensor

    def _given(self, name: str) -> bool:
        """Whether an optional parameter is there and plays a part."""
        return name in self.parameter_dims and name not in self._absent

    def _gains(self) -> torch.Tensor:
        """Gain of each hidden unit's answer."""
        return torch.ones(self.hidden_bias.shape[-1], dtype=self.dtype, device=self.device)

    def _heat(self) -> torch.Tensor:
        """The temperature."""
        return torch.ones((), dtype=self.dtype, device=self.device)

    def _potential(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._given("gain"):
            return (self._gains() * self.activation.antiderivative(inputs)).sum(-1)
        return self.activation.units(inputs, 0)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        quadratic = 0.5 * ((value - self.visible_bias) ** 2).sum(-1)
        energy = quadratic - self._potential(self._hidden_input(value))
        return energy / self._heat() if self._given("temperature") else energy

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        hidden = self._gains() * self._encode(value) if self._given("gain") else self._encode(value)
        return linear(hidden, self.weights.mT, self.visible_bias)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        field = self._reconstruct(value) - value
        return field / self._heat().unsqueeze(-1) if self._given("temperature") else field

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        slopes = self.activation.derivative(self._hidden_input(value))
        if not self.activation.is_joint:
            slopes = self._gains() * slopes
        return (self._trace(slopes, self.weights) - self.event_shape[0]) / self._heat()

    @property
    def _is_machine(self) -> bool:
        """Whether this is the free energy of a Gaussian-Bernoulli machine that can be enumerated."""
        plain = not any(map(self._given, self.optional_parameters))
        size = 2 ** self.hidden_bias.shape[-1]
        return self.activation is ACTIVATIONS["sigmoid"] and plain and size <= MAX_ENUMERATED_TERMS

    @property
    def has_exact_partition(self) -> bool:
        directions = min(self.event_shape[0], self.hidden_bias.shape[-1])
        return self._is_machine or (directions <= MAX_DIRECTIONS and self.activation.slopes is not None)

    @property
    def has_exact_sampler(self) -> bool:
        return self._is_machine

    def _machine(self) -> GaussianBernoulliRBM:
        return GaussianBernoulliRBM(self.weights, self.visible_bias, self.hidden_bias, validate_args=False)

    def _exact_log_partition(self) -> torch.Tensor:
        if self._is_machine:
            return self._machine()._exact_log_partition()
        inputs = linear(self.visible_bias, self.weights, self.hidden_bias)
        return low_rank_log_partition(self.weights, inputs, self._gains(), self.activation, self._heat())

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._machine()._exact_sample(shape)

    def _check_proper(self) -> None:
        slopes = self.activation.slopes
        if slopes is None or self.activation.is_bounded:
            return
        for weights, gains in self._single_weights():
            worst = np.maximum(gains * slopes[0], gains * slopes[1])
            check_spectral_norm(type(self).__name__, self._weights_name, weights, worst)

    _weights_name = "weights"

    def _single_weights(self) -> Any:
        raise NotImplementedError


class TiedAutoencoder(_LinearAutoencoder):
    r"""Tied one-layer autoencoder as an energy (Vincent 2011; Kamyshanska & Memisevic 2013, 2015).

    .. math::

        r(x) = W \,\mathrm{diag}(\alpha)\, g(W^\top x + b) + c, \qquad
        F(x) = \frac1T \Big( \tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k) \Big), \quad G' = g

    so that ``field = r(x) - x = T score``. With sigmoid units it is the free energy of :class:`GaussianBernoulliRBM` of
    unit scale. The partition function is exact for sigmoid units (at most 16, ``temperature`` and ``gain`` not given),
    and by quadrature for any activation while ``min(visible, hidden) <= 3``.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: c, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name (see :mod:`pyro_ebm.distributions.activations`) or an ``Activation``.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param gain: alpha, scaled tying, shape ``(..., hidden)`` or a scalar; default 1; not for softmax.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact for sigmoid units as above, else ``Hamiltonian()``.
    :raises ImproperDensityError: for linear and half-linear activations unless the spectral norm of
        ``W diag(alpha)^0.5``, times the root of the largest slope, is below one (sufficient; necessary for linear).

    >>> import torch
    >>> from pyro_ebm import TiedAutoencoder
    >>> autoencoder = TiedAutoencoder(torch.tensor([[1.0], [2.0]]), activation="tanh")
    >>> [round(float(component), 3) for component in autoencoder.field(torch.tensor([0.0, 1.0]))]
    [0.964, 0.928]
    >>> print(f"{autoencoder.log_partition:.4f}")
    4.3379
    """

    parameter_dims = {
        "weights": ("visible", "hidden"),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
        "temperature": (),
        "gain": ("hidden",),
    }
    parameter_defaults = {"hidden_bias": 0.0, "visible_bias": 0.0, "temperature": 1.0, "gain": 1.0}
    optional_parameters = ("temperature", "gain")
    arg_constraints = {
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
        "temperature": constraints.positive,
        "gain": constraints.real_vector,
    }
    temperature: torch.Tensor
    gain: torch.Tensor

    def _store_parameters(self, parameters: Any, sizes: dict[str, int]) -> torch.Size:
        batch_shape = super()._store_parameters(parameters, sizes)
        if self.activation.is_joint and self._given("gain"):
            raise ValueError("gain: TiedAutoencoder expected None with softmax units, whose field it would twist")
        return batch_shape

    def _gains(self) -> torch.Tensor:
        return self.gain if self._given("gain") else super()._gains()

    def _heat(self) -> torch.Tensor:
        return self.temperature if self._given("temperature") else super()._heat()

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def _single_weights(self) -> Any:
        return single_models(self, ("weights", "gain"))


class GatedAutoencoder(GatedEnergy, _LinearAutoencoder):  # type: ignore[misc, override]
    r"""Gated autoencoder of an output given an input, as a conditional energy (Memisevic 2011; Im & Taylor 2015).

    .. math::

        u = M^\top \big((W_x^\top x) \odot (W_y^\top y)\big) + b, \qquad
        r(y \mid x) = W_y \big((W_x^\top x) \odot M g(u)\big) + a, \qquad
        F(y \mid x) = \tfrac12 |y - a|^2 - \sum_k G(u_k), \quad G' = g

    A distribution over ``y``; given ``x`` it is a :class:`TiedAutoencoder` with the weights ``W_y diag(W_x' x) M``, and
    with sigmoid units the free energy of :class:`GatedRBM`. Exact as these are, with a ``log Z(x)`` for each input.

    :param input: x, shape ``(..., input)``.
    :param input_weights: W_x, shape ``(..., input, factor)``.
    :param output_weights: W_y, shape ``(..., visible, factor)``.
    :param mapping_weights: M, shape ``(..., factor, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact for at most 16 sigmoid units, else ``Hamiltonian()``.
    :raises ImproperDensityError: as :class:`TiedAutoencoder`, for the weights given the input.

    >>> import torch
    >>> from pyro_ebm import GatedAutoencoder
    >>> gated = GatedAutoencoder(torch.tensor([2.0, 1.0]), torch.eye(2), torch.eye(2), torch.ones(2, 1))
    >>> print(gated.reconstruct(torch.zeros(2)))
    tensor([1.0000, 0.5000])
    """

    parameter_dims = GATED_DIMS
    parameter_defaults = {"hidden_bias": 0.0, "visible_bias": 0.0}
    arg_constraints = GATED_CONSTRAINTS
    _weights_name = "mapping_weights"

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return self._answer(value, self.activation.function)

    def _single_weights(self) -> Any:
        weights = self.weights.detach().cpu().double().numpy()
        flat = weights.reshape(-1, *weights.shape[-2:])
        return zip(flat, np.ones((len(flat), flat.shape[-1])), strict=True)


class _FilterAutoencoder(Autoencoder, FilterEnergy):
    """Hidden units that see pooled squares of filter outputs; the filters' products with them reconstruct."""

    covariance_bias: torch.Tensor
    visible_bias: torch.Tensor

    def _quadratic(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((value - self.visible_bias) ** 2).sum(-1)

    def _linear(self) -> torch.Tensor:
        return self.visible_bias

    def _covariance_input(self, value: torch.Tensor) -> torch.Tensor:
        return torch.add(self.covariance_bias, self._pooled(value), alpha=2)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return self._covariance_input(value)

    def _covariance_units(self, pooled: torch.Tensor, order: int) -> torch.Tensor:
        units = self.activation.units(torch.add(self.covariance_bias, pooled, alpha=2), order)
        return units if order == 1 else units * (2 if order else 0.5)

    def _mean_units(self, inputs: torch.Tensor, order: int) -> torch.Tensor:
        return self.activation.units(inputs, order)

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return self._score(value) + value

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        return EnergyDistribution._laplacian(self, value) if self.activation.is_joint else super()._laplacian(value)

    def _check_proper(self) -> None:
        if self.activation.slopes is None:
            return
        name, slope = type(self).__name__, max(0.0, *self.activation.slopes)
        names = [name for name in ("filters", "pooling", "weights") if name in self.parameter_dims]
        for filters, pooling, *weights in single_models(self, names):
            fixed = np.sqrt(slope) * weights[0] if weights and slope > 0 else None
            check_pooled_growth(name, filters, pooling, self.activation, fixed)


class CovarianceAutoencoder(_FilterAutoencoder):
    r"""Covariance autoencoder: a gated autoencoder of ``y`` given itself (Memisevic 2011; Im & Taylor 2015, section 5).

    .. math::

        u_k = b_k + \sum_f P_{fk} (C_f^\top y)^2, \qquad r(y) = C \big((C^\top y) \odot P g(u)\big) + a, \qquad
        F(y) = \tfrac12 |y - a|^2 - \tfrac12 \sum_k G(u_k), \quad G' = g

    The factor 1/2 before G, missing in print, is what makes ``r(y) - y`` the gradient of ``-F``. With sigmoid units
    ``F(y) = F_cRBM(sqrt(2) y) / 2 + |a|^2 / 2`` for the :class:`CovarianceRBM` with the same filters, pooling and
    biases (``sqrt(2) a`` for the visible ones): the machine at temperature 2. The partition function is not known.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: sampler configuration; default ``Hamiltonian()``.
    :raises ImproperDensityError: if the units' growth outweighs the quadratic term in some direction.

    >>> import torch
    >>> from pyro_ebm import CovarianceAutoencoder
    >>> autoencoder = CovarianceAutoencoder(torch.eye(2), pooling=-torch.ones(2, 1))
    >>> print(autoencoder.field(torch.tensor([1.0, 0.0])))
    tensor([-1.2689,  0.0000])
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "hidden"),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
    }
    parameter_defaults = {"hidden_bias": 0.0, "visible_bias": 0.0}
    arg_constraints = {
        "filters": _MATRIX,
        "pooling": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }

    @property
    def covariance_bias(self) -> torch.Tensor:  # type: ignore[override]
        return self.hidden_bias


class MeanCovarianceAutoencoder(_FilterAutoencoder):
    r"""Mean-covariance autoencoder: :class:`CovarianceAutoencoder` and tied mean units together (Im & Taylor 2015).

    .. math::

        r(y) = C \big((C^\top y) \odot P g(u)\big) + W g(W^\top y + c) + a, \qquad
        F(y) = \tfrac12 |y - a|^2 - \tfrac12 \sum_k G(u_k) - \sum_j G(c_j + w_j^\top y)

    with ``u`` as there and a single quadratic term (two, in print, would count it twice). With sigmoid units
    ``F(y) = F_mcRBM(sqrt(2) y) / 2 + |a|^2 / 2`` for the :class:`MeanCovarianceRBM` with the same filters, pooling and
    covariance biases, every mean unit twice with weights ``w / sqrt(2)``, and visible biases ``sqrt(2) a``.

    :param filters: C, shape ``(..., visible, filter)``.
    :param pooling: P, shape ``(..., filter, covariance)``.
    :param weights: W, shape ``(..., visible, hidden)``.
    :param covariance_bias: b, shape ``(..., covariance)`` or a scalar; default 0.
    :param hidden_bias: c, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name or an ``Activation``, for both kinds of units.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: sampler configuration; default ``Hamiltonian()``.
    :raises ImproperDensityError: if the units' growth outweighs the quadratic term in some direction.

    >>> import torch
    >>> from pyro_ebm import MeanCovarianceAutoencoder
    >>> autoencoder = MeanCovarianceAutoencoder(torch.eye(2), -torch.ones(2, 1), torch.ones(2, 1))
    >>> [round(float(component), 3) for component in autoencoder.field(torch.tensor([1.0, 0.0]))]
    [-0.538, 0.731]
    """

    parameter_dims = {
        "filters": ("visible", "filter"),
        "pooling": ("filter", "covariance"),
        "weights": ("visible", "hidden"),
        "covariance_bias": ("covariance",),
        "hidden_bias": ("hidden",),
        "visible_bias": ("visible",),
    }
    parameter_defaults = {"covariance_bias": 0.0, "hidden_bias": 0.0, "visible_bias": 0.0}
    arg_constraints = {
        **CovarianceAutoencoder.arg_constraints,
        "weights": _MATRIX,
        "covariance_bias": constraints.real_vector,
    }
    has_mean_units = True

    def _encode(self, value: torch.Tensor) -> torch.Tensor:
        inputs = self._covariance_input(value), self._mean_inputs(value)
        return torch.cat([self.activation.function(part) for part in inputs], -1)
