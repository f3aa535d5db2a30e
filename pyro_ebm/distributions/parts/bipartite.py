"""What models with hidden units share: conditionals, block Gibbs sampling, moments; conditioning and annealing."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from _ppl_ebm.shapes import check_units
from pyro_ebm.distributions.batching import as_tensor, linear
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.protocols import MarkovChain
from pyro_ebm.sampling.samplers import Gibbs
from pyro_ebm.sampling.types import ArrayLike


class HiddenUnitEnergy(EnergyDistribution):
    """A model of a visible vector ``v`` and a vector ``h`` of hidden units, each side tractable given the other.

    A member defines ``_energy`` and the methods below (for batches).
    """

    support = constraints.real_vector

    # ------------------------------------------------------------------ what a member defines

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Energy of visible and hidden units together."""
        raise NotImplementedError(f"{type(self).__name__} must define _joint_energy(value, hidden)")

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        """What the distribution of the hidden units given ``value`` depends on: logits, rates or means."""
        raise NotImplementedError(f"{type(self).__name__} must define _hidden_input(value)")

    def _hidden_distribution(self, inputs: torch.Tensor) -> TorchDistribution:
        """Distribution of the hidden units with these inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define _hidden_distribution(inputs)")

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_hidden(...)")

    def _visible_distribution(self, hidden: torch.Tensor) -> TorchDistribution:
        """Distribution of the visible units given hidden ones."""
        raise NotImplementedError(f"{type(self).__name__} must define _visible_distribution(hidden)")

    def _sample_given_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_given_hidden(...)")

    def _base_log_partition(self) -> torch.Tensor:
        """log Z of ``at_inverse_temperature(0)``, where there is such a path."""
        raise NotImplementedError(f"{type(self).__name__} has no path from independent units")

    def _exact_mean(self) -> torch.Tensor:
        """Mean of the visible units, where ``has_exact_partition``."""
        raise NotImplementedError(f"{type(self).__name__} has no exact moments")

    def _exact_covariance(self) -> torch.Tensor:
        """Covariance of the visible units, where ``has_exact_partition``."""
        raise NotImplementedError(f"{type(self).__name__} has no exact moments")

    # ------------------------------------------------------------------ what every member offers

    @property
    def num_hidden(self) -> int:
        """Number of hidden units."""
        raise NotImplementedError

    @property
    def has_exact_sampler(self) -> bool:
        return self.has_exact_partition

    @property
    def has_gibbs_step(self) -> bool:
        return True

    @property
    def default_chain(self) -> MarkovChain:
        return Gibbs()

    @property
    def mean(self) -> torch.Tensor:
        """Exact mean of the visible units, shape ``batch_shape + event_shape``.

        :raises NotImplementedError: where it is not known, or would need more than 2^16 terms.
        """
        return self._exact_moment(self._exact_mean, self.event_shape)

    @property
    def variance(self) -> torch.Tensor:
        """Exact variance of each visible unit, shape ``batch_shape + event_shape``; limited as :attr:`mean`."""
        return self._exact_moment(self._exact_variance, self.event_shape)

    @property
    def covariance_matrix(self) -> torch.Tensor:
        """Exact covariance of the visible units, shape ``batch_shape + (visible, visible)``; limited as ``mean``."""
        return self._exact_moment(self._exact_covariance, self.event_shape * 2)

    def joint_energy(self, value: ArrayLike, hidden: ArrayLike) -> torch.Tensor:
        """Energy E(v, h) of visible and hidden units together, shape ``broadcast(..., batch_shape)``.

        :param value: shape ``(..., visible)``.
        :param hidden: shape ``(..., hidden)``.
        """
        return self._joint_energy(self.check_value(value), self._check_hidden(hidden))

    def hidden_given_visible(self, value: ArrayLike) -> TorchDistribution:
        """Distribution of the hidden units given visible ones, event shape ``(hidden,)``.

        :param value: shape ``(..., visible)``.
        """
        return self._hidden_distribution(self._hidden_input(self.check_value(value)))

    def visible_given_hidden(self, hidden: ArrayLike) -> TorchDistribution:
        """Distribution of the visible units given hidden ones, event shape ``(visible,)``.

        :param hidden: shape ``(..., hidden)``.
        """
        return self._visible_distribution(self._check_hidden(hidden))

    def gibbs_step(self, value: torch.Tensor) -> torch.Tensor:
        """One block Gibbs sweep: hidden units given ``value``, then new visible units given those."""
        return self._sample_given_hidden(self._sample_hidden(self._hidden_input(value)))

    @property
    def base_log_partition(self) -> torch.Tensor:
        """Exact log partition function of ``at_inverse_temperature(0)``, where annealing starts."""
        return self._base_log_partition().expand(self.batch_shape)

    def _exact_variance(self) -> torch.Tensor:
        return torch.diagonal(self._exact_covariance(), dim1=-2, dim2=-1)

    def _exact_moment(self, moment: Callable[[], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        if not self.has_exact_partition:
            raise NotImplementedError(
                f"{type(self).__name__}: exact moments need a closed form or at most 2^16 enumerated terms; estimate "
                "them from samples"
            )
        return moment().expand(self.batch_shape + shape)

    def _check_hidden(self, hidden: ArrayLike) -> torch.Tensor:
        return self._check_batch(hidden, (self.num_hidden,), "hidden").to(self.dtype)


class RestrictedBoltzmannMachine(HiddenUnitEnergy):
    """The bipartite family's base: hidden units couple to visible ones through ``weights`` alone.

    Beside what :class:`HiddenUnitEnergy` asks for, a member defines the distribution ``_visible_units`` and draw
    ``_sample_visible`` of its visible units given their input; ``_visible_input`` and ``_hidden_input`` are linear.
    """

    parameter_dims = {"weights": ("visible", "hidden"), "visible_bias": ("visible",), "hidden_bias": ("hidden",)}
    arg_constraints = {
        "weights": constraints.independent(constraints.real, 2),
        "visible_bias": constraints.real_vector,
        "hidden_bias": constraints.real_vector,
    }
    weights: torch.Tensor
    visible_bias: torch.Tensor
    hidden_bias: torch.Tensor

    @property
    def num_hidden(self) -> int:
        return int(self.hidden_bias.shape[-1])  # torch.jit.trace makes shapes tensors, whose powers of two overflow

    @property
    def has_annealing(self) -> bool:
        return True

    def _visible_units(self, inputs: torch.Tensor) -> TorchDistribution:
        """Distribution of the visible units with these inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define _visible_units(inputs)")

    def _sample_visible(self, inputs: torch.Tensor) -> torch.Tensor:
        """A draw from it."""
        raise NotImplementedError(f"{type(self).__name__} must define _sample_visible(...)")

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def _visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.weights.mT, self.visible_bias)

    def condition(self, indices: ArrayLike, values: ArrayLike) -> Self:
        """The exact conditional distribution of the other visible units, which is of the same family.

        :param indices: one-dimensional integer sequence: the visible units that are known.
        :param values: their values, shape ``(..., len(indices))``; leading dimensions become batch dimensions.
        :return: a distribution over the remaining units in their original order. It keeps ``sampler`` and the
            normaliser policy, except that a constant ``log_partition`` does not carry over and becomes unknown.
        """
        num_visible = self.event_shape[0]
        known = check_units("indices", indices.cpu() if isinstance(indices, torch.Tensor) else indices, num_visible)
        part = self.replace(**self._visible_parameters(known))
        hidden_bias = part._hidden_input(part.check_value(values, "values"))
        rest = np.setdiff1d(np.arange(num_visible), known)
        return self.replace(**self._visible_parameters(rest), hidden_bias=hidden_bias)

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> Self:
        """The family's path from independent visible units (0) to this distribution (1).

        Weights and hidden biases are multiplied by ``inverse_temperature``; the visible part stays.
        """
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        return self.replace(weights=beta * self.weights, hidden_bias=beta * self.hidden_bias, log_partition=None)

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Visible units given hidden ones, of which another share is on in every chain: starts on all sides."""
        return self._sample_visible(self._visible_input(self._dispersed_hidden(shape)))

    def _dispersed_hidden(self, shape: tuple[int, ...]) -> torch.Tensor:
        return dispersed_states(shape, self.num_hidden, self.dtype, self.device)

    def _visible_distribution(self, hidden: torch.Tensor) -> TorchDistribution:
        return self._visible_units(self._visible_input(hidden))

    def _sample_given_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._sample_visible(self._visible_input(hidden))

    def _visible_parameters(self, units: np.ndarray) -> dict[str, torch.Tensor]:
        index = torch.tensor(units, device=self.device)
        return {
            name: getattr(self, name).index_select(-len(dims), index)
            for name, dims in self.parameter_dims.items()
            if dims[0] == "visible"
        }


def dispersed_states(shape: tuple[int, ...], size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Binary states, shape ``(*shape, size)``, each row with a share of ones of its own, uniform over (0, 1)."""
    uniform = torch.rand((*shape, size + 1), dtype=dtype, device=device)
    return (uniform[..., 1:] < uniform[..., :1]).to(dtype)


def bernoulli_units(logits: torch.Tensor) -> Any:
    """Independent binary units over the last axis."""
    return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)


def normal_units(loc: torch.Tensor) -> Any:
    return dist.Normal(loc, torch.ones_like(loc), validate_args=False).to_event(1)


def sample_unit_normal(loc: torch.Tensor) -> torch.Tensor:
    return loc + torch.randn_like(loc)
