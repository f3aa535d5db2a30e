"""Factored gated machines: energies of an output given an input, whose products drive the hidden units."""

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.rbm import GaussianBinaryMachine
from pyro_ebm.distributions.tensors import as_tensor, linear

_MATRIX = constraints.independent(constraints.real, 2)

#: Core dimensions of the parameters that gated machines and gated autoencoders share.
GATED_DIMS = {
    "input": ("input",),
    "input_weights": ("input", "factor"),
    "output_weights": ("visible", "factor"),
    "mapping_weights": ("factor", "hidden"),
    "visible_bias": ("visible",),
    "hidden_bias": ("hidden",),
}
#: Their constraints.
GATED_CONSTRAINTS: dict[str, constraints.Constraint] = {
    "input": constraints.real_vector,
    "input_weights": _MATRIX,
    "output_weights": _MATRIX,
    "mapping_weights": _MATRIX,
    "visible_bias": constraints.real_vector,
    "hidden_bias": constraints.real_vector,
}


class GatedEnergy:
    """Given its input a gated energy is one with the weights ``W_y diag(W_x' x) M``; the factors are cheaper."""

    input: torch.Tensor
    input_weights: torch.Tensor
    output_weights: torch.Tensor
    mapping_weights: torch.Tensor
    visible_bias: torch.Tensor
    hidden_bias: torch.Tensor

    @property
    def weights(self) -> torch.Tensor:
        """Weights of the energy given the input, shape ``batch + (visible, hidden)``."""
        return (self.output_weights * self._gates().unsqueeze(-2)) @ self.mapping_weights

    def _gates(self) -> torch.Tensor:
        return linear(self.input, self.input_weights)

    def _hidden_input(self, value: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        gates = self._gates() if gates is None else gates
        return linear(linear(value, self.output_weights) * gates, self.mapping_weights, self.hidden_bias)

    def _back(self, hidden: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """The output that hidden units reconstruct."""
        gates = self._gates() if gates is None else gates
        return linear(linear(hidden, self.mapping_weights.mT) * gates, self.output_weights.mT, self.visible_bias)

    def _answer(self, value: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What hidden units with this activation function make of an output."""
        gates = self._gates()
        return self._back(function(self._hidden_input(value, gates)), gates)


class GatedRBM(GatedEnergy, GaussianBinaryMachine):  # type: ignore[misc, override]
    r"""Factored gated conditional restricted Boltzmann machine, p(y | x) (Memisevic & Hinton 2010; Im & Taylor 2015).

    .. math::

        F(y \mid x) = \tfrac12 |y - a|^2
                      - \sum_k \mathrm{softplus}\Big(b_k + \sum_f M_{fk} (W_x^\top x)_f (W_y^\top y)_f\Big)

    A distribution over ``y``: given ``x`` it is a :class:`GaussianBernoulliRBM` of unit scale with the weights
    ``W_y diag(W_x' x) M``, so it is proper for all parameters, and the conditional density (with its own ``log Z(x)``),
    moments and draws are exact while ``hidden <= 16``. A batch of inputs makes a batch of distributions.

    :param input: x, shape ``(..., input)``.
    :param input_weights: W_x, shape ``(..., input, factor)``.
    :param output_weights: W_y, shape ``(..., visible, factor)``.
    :param mapping_weights: M, shape ``(..., factor, hidden)``.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.

    >>> import torch
    >>> from pyro_ebm import GatedRBM
    >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> gated = GatedRBM(inputs, torch.eye(2), torch.eye(2), torch.ones(2, 1), hidden_bias=20.0)
    >>> print(gated.mean)
    tensor([[1., 0.],
            [0., 2.],
            [0., 0.]])
    """

    parameter_dims = GATED_DIMS
    arg_constraints = GATED_CONSTRAINTS

    @property
    def scale(self) -> torch.Tensor:  # type: ignore[override]
        """Standard deviation of the visible units given the hidden ones: ones."""
        return torch.ones(self.event_shape, dtype=self.dtype, device=self.device)

    def annealed(self, inverse_temperature: Any) -> Any:
        """The family's path from independent visible units (0) to this distribution (1)."""
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        scaled = {"mapping_weights": beta * self.mapping_weights, "hidden_bias": beta * self.hidden_bias}
        return self._with(**scaled, log_partition=None)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._answer(value, torch.sigmoid) - value

    def _visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._back(hidden)
