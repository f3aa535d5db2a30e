"""An autoencoder of binary data as an energy on the unit cube, and the coordinates in which its chains move."""

from typing import Any

import torch
from torch import sigmoid
from torch.distributions import constraints
from torch.special import entr, logit

from pyro_ebm.distributions.autoencoder import Autoencoder
from pyro_ebm.distributions.tensors import is_concrete, linear, softplus

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
    :param sampler: sampler configuration; default ``Hamiltonian()``, which moves in ``logit x``.

    >>> import torch
    >>> from pyro_ebm import BinaryAutoencoder
    >>> autoencoder = BinaryAutoencoder(torch.tensor([[2.0], [-2.0]]))
    >>> [round(float(component), 3) for component in autoencoder.reconstruct(torch.tensor([0.5, 0.5]))]
    [0.731, 0.269]
    """

    parameter_dims = {"weights": ("visible", "hidden"), "hidden_bias": ("hidden",), "visible_bias": ("visible",)}
    parameter_defaults = {"hidden_bias": 0.0, "visible_bias": 0.0}
    arg_constraints = {
        "weights": _MATRIX,
        "hidden_bias": constraints.real_vector,
        "visible_bias": constraints.real_vector,
    }
    support = constraints.independent(constraints.unit_interval, 1)  # torch has no open one; see _check_value
    weights: torch.Tensor
    hidden_bias: torch.Tensor
    visible_bias: torch.Tensor

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def _output_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(self._encode(value), self.weights.mT, self.visible_bias)

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return sigmoid(self._output_input(value))

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        own = (self.visible_bias * value + entr(value) + entr(1 - value)).sum(-1)
        return -own - self.activation.units(self._hidden_input(value), 0)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._output_input(value) - logit(value)

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        slopes = self.activation.derivative(self._hidden_input(value))
        return self._trace(slopes, self.weights) - (1 / (value * (1 - value))).sum(-1)

    def _initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        return sigmoid(super()._initial(shape))

    def _check_value(self, value: Any, name: str = "value") -> torch.Tensor:
        tensor = super()._check_value(value, name)
        if self._validate_args and is_concrete(tensor) and not ((tensor > 0) & (tensor < 1)).all():
            raise ValueError(f"{name}: BinaryAutoencoder expected values inside the open unit cube, got zeros or ones")
        return tensor

    @property
    def unconstrained(self) -> "_LogitSpace":
        return _LogitSpace(self)


class _LogitSpace:
    """The density of ``logit x``, whose Jacobian is ``x (1 - x)`` for each coordinate."""

    def __init__(self, distribution: BinaryAutoencoder) -> None:
        self.distribution = distribution

    def _to_value(self, position: torch.Tensor) -> torch.Tensor:
        rounding = 0.5 * torch.finfo(position.dtype).eps
        return sigmoid(position).clamp(rounding, 1 - rounding)

    def _from_value(self, value: torch.Tensor) -> torch.Tensor:
        return logit(value)

    def unnormalized_log_prob(self, position: torch.Tensor) -> torch.Tensor:
        value = sigmoid(position)
        log_jacobian = -softplus(position) - softplus(-position)
        return self.distribution.unnormalized_log_prob(value) + log_jacobian.sum(-1)

    def score(self, position: torch.Tensor) -> torch.Tensor:
        value = sigmoid(position)
        outward = self.distribution._output_input(value) - position  # finite also where rounding makes value 1
        return outward * value * (1 - value) + 1 - 2 * value
