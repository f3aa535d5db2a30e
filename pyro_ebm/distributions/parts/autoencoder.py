r"""Autoencoders whose field ``r(x) - x`` is the gradient of an energy, as distributions.

``energy(value)`` is that potential over ``temperature``, so ``score = field / temperature``. A denoising autoencoder
that was trained at noise ``sigma`` has ``temperature = sigma^2``: a tempered energy of unit variance, which is not a
Gaussian-Bernoulli machine of that variance (Alain & Bengio 2014; Vincent 2011).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch.distributions import constraints

from _ppl_ebm.errors import IntractablePartitionError, unresolved_message
from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.properness import check_pooled_growth, check_spectral_norm
from _ppl_ebm.quadrature import MAX_DIRECTIONS
from _ppl_ebm.shapes import draws_by_model
from pyro_ebm.distributions.batching import is_concrete, linear
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.parts.activations import ACTIVATIONS, Activation
from pyro_ebm.distributions.parts.filters import FilterEnergy, PooledUnits, Units
from pyro_ebm.distributions.parts.gaussian_binary import UnitScaleMachine
from pyro_ebm.distributions.parts.quadrature import low_rank_log_partition
from pyro_ebm.distributions.parts.reconstruction import Reconstruction
from pyro_ebm.distributions.parts.rejection import has_low_rank_sampler, low_rank_sample
from pyro_ebm.sampling.types import ArrayLike


class Autoencoder(Reconstruction):
    """The family's base: ``encode`` beside ``reconstruct`` and ``field``.

    A member defines ``_hidden_input``, the input ``u`` of its hidden units, and ``_reconstruct``.
    """

    support = constraints.real_vector
    option_names = ("activation",)
    activation: Activation

    @property
    def has_continuous_score(self) -> bool:
        return self.activation.is_continuous

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _encode(self, value: torch.Tensor) -> torch.Tensor:
        return self.activation.function(self._hidden_input(value))

    def _trace(self, slopes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Trace of ``W g' W'``, for the units' slopes (softmax: matrices) at each value."""
        if self.activation.is_joint:
            return (slopes * (weights.mT @ weights)).sum((-2, -1))
        return (slopes * (weights**2).sum(-2)).sum(-1)

    def encode(self, value: ArrayLike) -> torch.Tensor:
        """Hidden activations g(u), shape ``(..., hidden)``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._encode(self.check_value(value))


class TemperedAutoencoder(Autoencoder):
    """An energy that is the potential of ``field`` over a temperature, which is 1 unless it is given."""

    optional_parameters: ClassVar[Mapping[str, float]] = {"temperature": 1.0}
    temperature: torch.Tensor

    def _tempered(self, tensor: torch.Tensor, event_dim: int = 0) -> torch.Tensor:
        if "temperature" in self.absent:
            return tensor
        return tensor / (self.temperature.unsqueeze(-1) if event_dim else self.temperature)


class LinearAutoencoder(TemperedAutoencoder):
    """Hidden units see linear functions of the value, ``u = W'x + b``, and answer through the same weights.

    A member provides ``weights``, as a parameter or derived from its parameters.
    """

    weights: torch.Tensor
    hidden_bias: torch.Tensor
    visible_bias: torch.Tensor

    @property
    def _has_gains(self) -> bool:
        return "gain" in self.parameter_dims and "gain" not in self.absent

    def _gains(self) -> torch.Tensor:
        """Gain of each hidden unit's answer."""
        return torch.ones(self.hidden_bias.shape[-1], dtype=self.dtype, device=self.device)

    def _potential(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._has_gains:
            return (self._gains() * self.activation.antiderivative(inputs)).sum(-1)
        return self.activation.potential(inputs)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        quadratic = 0.5 * ((value - self.visible_bias) ** 2).sum(-1)
        return self._tempered(quadratic - self._potential(self._hidden_input(value)))

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        hidden = self._gains() * self._encode(value) if self._has_gains else self._encode(value)
        return linear(hidden, self.weights.mT, self.visible_bias)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._tempered(self._reconstruct(value) - value, event_dim=1)

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        slopes = self.activation.derivative(self._hidden_input(value))
        if not self.activation.is_joint:
            slopes = self._gains() * slopes
        return self._tempered(self._trace(slopes, self.weights) - self.event_shape[0])

    @property
    def _is_machine(self) -> bool:
        """Whether this is the free energy of a Gaussian-Bernoulli machine that can be enumerated."""
        plain = self.optional_parameters.keys() <= self.absent
        size = 2 ** self.hidden_bias.shape[-1]
        return self.activation is ACTIVATIONS["sigmoid"] and plain and size <= MAX_ENUMERATED_TERMS

    @property
    def has_exact_partition(self) -> bool:
        directions = min(self.event_shape[0], self.hidden_bias.shape[-1])
        return self._is_machine or (directions <= MAX_DIRECTIONS and self.activation.slopes is not None)

    @property
    def has_exact_sampler(self) -> bool:
        if self._is_machine or not self.has_exact_partition:
            return self._is_machine
        tensors = self._low_rank()
        return not all(map(is_concrete, tensors[:3])) or has_low_rank_sampler(*tensors)

    def _machine(self) -> UnitScaleMachine:
        parameters = {"weights": self.weights, "visible_bias": self.visible_bias, "hidden_bias": self.hidden_bias}
        return UnitScaleMachine(parameters, log_partition=None, validate_args=False)

    def _exact_log_partition(self) -> torch.Tensor:
        if self._is_machine:
            return self._machine().exact_log_partition()
        return low_rank_log_partition(*self._low_rank())

    @property
    def resolves_partition(self) -> bool:
        if self._is_machine:
            return True
        try:
            log_partition = self.log_partition
        except IntractablePartitionError:
            return False
        return not is_concrete(log_partition) or not bool(torch.isnan(log_partition).any())

    def check_partition(self, log_partition: torch.Tensor) -> None:
        if self._validate_args and is_concrete(log_partition) and bool(torch.isnan(log_partition).any()):
            raise IntractablePartitionError(unresolved_message(type(self).__name__))

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self._is_machine:
            return self._machine().exact_sample(shape)
        num_draws, arrange = draws_by_model(shape, self.unexpanded().batch_shape)
        return self.visible_bias + arrange(low_rank_sample(*self._low_rank(), num_draws), torch)

    def _low_rank(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Activation, torch.Tensor]:
        """The energy around the visible bias: what quadrature and rejection take."""
        inputs = linear(self.visible_bias, self.weights, self.hidden_bias)
        return self.weights, inputs, self._gains(), self.activation, self.temperature

    def _check_proper(self) -> None:
        slopes = self.activation.slopes
        if slopes is None or self.activation.is_bounded:
            return
        for weights, gains in self._single_weights():
            worst = np.maximum(gains * slopes[0], gains * slopes[1])
            check_spectral_norm(type(self).__name__, self._weights_name, weights, worst)

    _weights_name = "weights"

    def _single_weights(self) -> Iterable[Sequence[np.ndarray]]:
        """Weights and gains of each model of the batch."""
        raise NotImplementedError


class FilterAutoencoder(TemperedAutoencoder, FilterEnergy):
    """Hidden units that see pooled squares of filter outputs; the filters' products with them reconstruct."""

    optional_parameters = {"temperature": 1.0, "pooling": 0.0}
    default_pooling = -1.0
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

    @property
    def _covariance_units(self) -> Units:
        return PooledUnits(self.activation, self.covariance_bias, gain=2.0)

    @property
    def _mean_units(self) -> Units:
        return self.activation

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return self._tempered(super()._energy(value))

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return super()._score(value) + value

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._tempered(super()._score(value), event_dim=1)

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        if self.activation.is_joint:
            return EnergyDistribution._laplacian(self, value)
        return self._tempered(super()._laplacian(value))

    def _check_proper(self) -> None:
        if self.activation.slopes is None:
            return
        name, slope = type(self).__name__, max(0.0, *self.activation.slopes)
        names = [name for name in ("filters", "pooling", "weights") if name in self.parameter_dims]
        for filters, pooling, *weights in self._single_models(names):
            fixed = np.sqrt(slope) * weights[0] if weights and slope > 0 else None
            check_pooled_growth(name, filters, pooling, self.activation, fixed)
