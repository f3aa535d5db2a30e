"""What gated machines and gated autoencoders share: weights that an input sets."""

from collections.abc import Callable

import jax
from numpyro.distributions import constraints

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
GATED_CONSTRAINTS = {
    "input": constraints.real_vector,
    "input_weights": _MATRIX,
    "output_weights": _MATRIX,
    "mapping_weights": _MATRIX,
    "visible_bias": constraints.real_vector,
    "hidden_bias": constraints.real_vector,
}


class GatedEnergy:
    """Given its input a gated energy is one with the weights ``W_y diag(W_x' x) M``; the factors are cheaper."""

    input: jax.Array
    input_weights: jax.Array
    output_weights: jax.Array
    mapping_weights: jax.Array
    hidden_bias: jax.Array
    _map: Callable[..., jax.Array]

    @property
    def weights(self) -> jax.Array:
        """Weights of the energy given the input, shape ``batch + (visible, hidden)``."""
        return self._map(GatedEnergy._gated_weights, using=tuple(GATED_DIMS)[:4])

    def _gates(self) -> jax.Array:
        return self.input @ self.input_weights

    def _gated_weights(self) -> jax.Array:
        return (self.output_weights * self._gates()[None]) @ self.mapping_weights

    def _hidden_input(self, value: jax.Array) -> jax.Array:
        return ((value @ self.output_weights) * self._gates()) @ self.mapping_weights + self.hidden_bias

    def _output(self, hidden: jax.Array) -> jax.Array:
        """What the hidden units add to the output."""
        return self.output_weights @ (self._gates() * (self.mapping_weights @ hidden))
