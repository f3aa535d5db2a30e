"""An autoencoder of binary data as an energy on the unit cube, and the coordinates in which its chains move."""

import torch
from torch import sigmoid
from torch.distributions import constraints
from torch.special import entr, logit

from pyro_ebm.distributions.batching import is_concrete, linear, softplus
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.activations import Activation, resolve_activation
from pyro_ebm.distributions.parts.autoencoder import Autoencoder
from pyro_ebm.sampling.protocols import Coordinates, Sampler
from pyro_ebm.sampling.types import ArrayLike

_MATRIX = constraints.independent(constraints.real, 2)


class BinaryAutoencoder(Autoencoder):
    r"""Tied autoencoder with sigmoid outputs as an energy on the open unit cube.

    .. math::

        r(x) = \mathrm{sigmoid}(W g(W^\top x + b) + c), \qquad
        -F(x) = c^\top x + \sum_k G(u_k) + \sum_i H(x_i), \quad H(p) = -p \log p - (1 - p) \log(1 - p)

    ``r(x) - x`` is not a gradient field. This is the energy whose score, ``logit r(x) - logit x``, vanishes where
    ``r(x) = x`` and makes an angle below 90 degrees with ``r(x) - x`` everywhere else, so that reconstructing goes
    uphill in density. With sigmoid units it bounds the :class:`BernoulliRBM` of the same parameters:
    ``-F(x) <= log Z`` for every x.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param visible_bias: c, shape ``(..., visible)`` or a scalar; default 0.
    :param activation: g by name or an ``Activation``.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration; default ``Hamiltonian()``, which moves in ``logit x``.

    >>> import torch
    >>> from pyro_ebm import BinaryAutoencoder
    >>> autoencoder = BinaryAutoencoder(torch.tensor([[2.0], [-2.0]]))
    >>> [round(float(component), 3) for component in autoencoder.reconstruct(torch.tensor([0.5, 0.5]))]
    [0.731, 0.269]
    """

    parameter_dims = {"weights": ("visible", "hidden"), "hidden_bias": ("hidden",), "visible_bias": ("visible",)}
    arg_constraints = {
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }
    support = constraints.independent(constraints.unit_interval, 1)  # torch has no open one; see check_value
    weights: torch.Tensor
    hidden_bias: torch.Tensor
    visible_bias: torch.Tensor

    def __init__(
        self,
        weights: ArrayLike,
        *,
        hidden_bias: ArrayLike = 0.0,
        visible_bias: ArrayLike = 0.0,
        activation: str | Activation = "sigmoid",
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.activation = resolve_activation(activation)
        parameters = {"weights": weights, "hidden_bias": hidden_bias, "visible_bias": visible_bias}
        super().__init__(
            parameters,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def output_input(self, value: torch.Tensor) -> torch.Tensor:
        """``logit r(x)``, the input of the output units."""
        return linear(self._encode(value), self.weights.mT, self.visible_bias)

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return sigmoid(self.output_input(value))

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        own = (self.visible_bias * value + entr(value) + entr(1 - value)).sum(-1)
        return -own - self.activation.potential(self._hidden_input(value))

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self.output_input(value) - logit(value)

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        slopes = self.activation.derivative(self._hidden_input(value))
        return self._trace(slopes, self.weights) - (1 / (value * (1 - value))).sum(-1)

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        return sigmoid(super().initial(shape))

    def check_value(self, value: ArrayLike, name: str = "value") -> torch.Tensor:
        tensor = super().check_value(value, name)
        if self._validate_args and is_concrete(tensor) and not ((tensor > 0) & (tensor < 1)).all():
            raise ValueError(f"{name}: BinaryAutoencoder expected values inside the open unit cube, got zeros or ones")
        return tensor

    @property
    def unconstrained(self) -> Coordinates:
        return LogitSpace(self)


class LogitSpace:
    """The density of ``logit x``, whose Jacobian is ``x (1 - x)`` for each coordinate."""

    def __init__(self, distribution: BinaryAutoencoder) -> None:
        self.distribution = distribution

    def to_value(self, position: torch.Tensor) -> torch.Tensor:
        rounding = 0.5 * torch.finfo(position.dtype).eps
        return sigmoid(position).clamp(rounding, 1 - rounding)

    def from_value(self, value: torch.Tensor) -> torch.Tensor:
        return logit(value)

    def unnormalized_log_prob(self, position: torch.Tensor) -> torch.Tensor:
        value = self.to_value(position)
        log_jacobian = -softplus(position) - softplus(-position)
        return self.distribution.unnormalized_log_prob(value) + log_jacobian.sum(-1)

    def score(self, position: torch.Tensor) -> torch.Tensor:
        value = self.to_value(position)
        # the output's input less the position, not the logit of the value, which rounding holds back far out
        outward = self.distribution.output_input(value) - position
        return outward * value * (1 - value) + 1 - 2 * value
