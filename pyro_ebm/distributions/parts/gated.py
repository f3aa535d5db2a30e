"""What gated machines and gated autoencoders share: weights that an input sets."""

from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import constraints

from pyro_ebm.distributions.batching import linear

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
GATED_CONSTRAINTS: dict[str, Any] = {
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

    def _output(self, hidden: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
        """The output that hidden units reconstruct."""
        gates = self._gates() if gates is None else gates
        return linear(linear(hidden, self.mapping_weights.mT) * gates, self.output_weights.mT, self.visible_bias)

    def _answer(self, value: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What hidden units with this activation function make of an output."""
        gates = self._gates()
        return self._output(function(self._hidden_input(value, gates)), gates)
