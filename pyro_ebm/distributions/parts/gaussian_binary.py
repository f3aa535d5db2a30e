"""Machines of Gaussian visible and binary hidden units: mixtures of Gaussians."""

import math

import pyro.distributions as dist
import torch

from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.normals import LOG_2PI
from pyro_ebm.distributions.batching import linear, softplus
from pyro_ebm.distributions.parts.bipartite import RestrictedBoltzmannMachine, bernoulli_units
from pyro_ebm.distributions.parts.enumeration import binary_states, enumerate_terms, sample_index
from pyro_ebm.sampling.random import bernoulli_from_logits


class GaussianBinaryMachine(RestrictedBoltzmannMachine):
    """What machines with Gaussian visible and binary hidden units share: a mixture of ``2^hidden`` Gaussians.

    A member provides ``weights`` and ``scale``, as parameters or derived from them.
    """

    scale: torch.Tensor

    @property
    def has_exact_partition(self) -> bool:
        return 2**self.num_hidden <= MAX_ENUMERATED_TERMS

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self._quadratic(value) - (self._hidden_input(value) * hidden).sum(-1)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return self._quadratic(value) - softplus(self._hidden_input(value)).sum(-1)

    def _quadratic(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * (((value - self.visible_bias) / self.scale) ** 2).sum(-1)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return (self._visible_input(torch.sigmoid(self._hidden_input(value))) - value) / self.scale**2

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        active = torch.sigmoid(self._hidden_input(value))
        curvature = linear(self.scale**-4, self.weights**2)
        return (curvature * active * (1 - active)).sum(-1) - (self.scale**-2).sum(-1)

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value / self.scale**2, self.weights, self.hidden_bias)

    def _hidden_distribution(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return bernoulli_units(inputs)

    def _sample_hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        return bernoulli_from_logits(inputs)

    def _visible_units(self, inputs: torch.Tensor) -> dist.TorchDistribution:
        return dist.Normal(inputs, self.scale, validate_args=False).to_event(1)

    def _sample_visible(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(inputs, self.scale, torch.randn_like(inputs))

    def _log_terms(self) -> torch.Tensor:
        """Unnormalised log-weight of every Gaussian of the mixture."""
        scaled = self.weights / self.scale.unsqueeze(-1) ** 2
        bias = linear(self.visible_bias, scaled, self.hidden_bias)
        gram = self.weights.mT @ scaled

        def log_term(states: torch.Tensor) -> torch.Tensor:
            return bias @ states.mT + 0.5 * ((states @ gram) * states).sum(-1)

        cost = self._num_models * self.num_hidden
        return enumerate_terms(log_term, self.num_hidden, self.dtype, self.device, cost=cost)

    def _exact_log_partition(self) -> torch.Tensor:
        return self._gaussian_log_partition() + torch.logsumexp(self._log_terms(), -1)

    def _base_log_partition(self) -> torch.Tensor:
        return self._gaussian_log_partition() + self.num_hidden * math.log(2)

    def _gaussian_log_partition(self) -> torch.Tensor:
        return 0.5 * self.event_shape[0] * LOG_2PI + torch.log(self.scale).sum(-1)

    def _hidden_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and covariance of the hidden units under the model."""
        states = binary_states(self.num_hidden, self.dtype, self.device)
        probability = torch.softmax(self._log_terms(), -1)
        mean = probability @ states
        centred = states - mean.unsqueeze(-2)
        return mean, centred.mT @ (probability.unsqueeze(-1) * centred)

    def _exact_mean(self) -> torch.Tensor:
        return self._visible_input(self._hidden_moments()[0])

    def _exact_variance(self) -> torch.Tensor:
        return self.scale**2 + ((self.weights @ self._hidden_moments()[1]) * self.weights).sum(-1)

    def _exact_covariance(self) -> torch.Tensor:
        return torch.diag_embed(self.scale**2) + self.weights @ self._hidden_moments()[1] @ self.weights.mT

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        hidden = binary_states(self.num_hidden, self.dtype, self.device)[index]
        return self._sample_visible(self._visible_input(hidden))


class UnitScaleMachine(GaussianBinaryMachine):
    """A machine of unit scale; with sigmoid units the tied autoencoder of the same weights and biases is its energy."""

    @property
    def scale(self) -> torch.Tensor:  # type: ignore[override]
        """Standard deviation of the visible units given the hidden ones: ones."""
        return torch.ones(self.event_shape, dtype=self.dtype, device=self.device)
