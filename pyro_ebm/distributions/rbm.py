"""The restricted Boltzmann machine family: bipartite models of a visible vector ``v`` and a hidden vector ``h``.

Throughout, ``weights`` has shape ``(visible, hidden)``, ``scale`` is a standard deviation, and the density of ``v`` is
the marginal ``exp(-F(v)) / Z`` with ``F(v) = -log sum_h exp(-E(v, h))`` (an integral over Gaussian hidden units).
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_ebm.distributions.bipartite import RestrictedBoltzmannMachine, sample_index
from pyro_ebm.distributions.partition import (
    MAX_ENUMERATED_TERMS,
    ImproperDensityError,
    binary_states,
    enumerate_terms,
)
from pyro_ebm.distributions.tensors import as_tensor, cholesky, is_concrete, linear, pullback, softplus
from pyro_ebm.infer.bernoulli import bernoulli_from_logits

_LOG_2PI = math.log(2 * math.pi)


def bernoulli_units(logits: torch.Tensor) -> Any:
    """Independent binary units over the last axis."""
    return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)


def _normal_units(loc: torch.Tensor) -> Any:
    return dist.Normal(loc, torch.ones_like(loc), validate_args=False).to_event(1)


def _sample_unit_normal(loc: torch.Tensor) -> torch.Tensor:
    return loc + torch.randn_like(loc)


class BernoulliRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with binary visible and hidden units in {0, 1} (Smolensky 1986; Hinton 2002).

    .. math::

        E(v, h) = -v^\top W h - a^\top v - b^\top h, \qquad
        F(v) = -a^\top v - \sum_j \mathrm{softplus}(b_j + W_{:j}^\top v)

    The partition function is exact (a sum over the smaller layer) while that layer has at most 16 units. ``score`` and
    ``laplacian`` are those of the free energy's smooth extension to real ``v``, which gradient-informed samplers use;
    on binary data there is no score in the sense of Hyvarinen, and ``ScoreMatching`` refuses this family.

    :param weights: W, shape ``(..., visible, hidden)``.
    :param visible_bias: a, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration, ``Exact()`` or ``Gibbs()``; default: exact where possible.

    >>> import torch
    >>> from pyro_ebm import BernoulliRBM
    >>> rbm = BernoulliRBM(torch.tensor([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.2]]), visible_bias=-0.5)
    >>> rbm.sample((4,)).shape
    torch.Size([4, 3])
    >>> print(f"{rbm.log_partition:.4f} {rbm.log_prob(torch.tensor([1.0, 0.0, 1.0])):.4f}")
    3.7144 -3.4669
    """

    support = constraints.independent(constraints.boolean, 1)

    @classmethod
    def from_spins(
        cls, weights: Any, visible_bias: Any = None, hidden_bias: Any = None, **options: Any
    ) -> "BernoulliRBM":
        """The binary machine that is equivalent to one with spins in {-1, +1}.

        With ``s = 2v - 1`` and ``t = 2h - 1`` the energies ``-s'Jt - a's - c't`` and this machine's differ by a
        constant, so the probabilities are equal.

        :param weights: spin couplings J, shape ``(..., visible, hidden)``.
        :param visible_bias: spin fields a.
        :param hidden_bias: spin fields c.
        """
        spins = cls(weights, visible_bias, hidden_bias, **options)
        return spins._with(**_binary_from_spins(spins), **options)

    def to_spins(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Couplings and fields ``(J, a, c)`` of the equivalent machine with spins in {-1, +1}."""
        return _spins_from_binary(self)

    def conditional_logits(self, value: Any) -> torch.Tensor:
        """Log odds of each visible unit given all others, ``F(v_i = 0) - F(v_i = 1)``, shape of ``value``."""
        return self._conditional_logits(self._check_value(value))

    @property
    def has_exact_partition(self) -> bool:
        return 2 ** min(self.event_shape[0], self.num_hidden) <= MAX_ENUMERATED_TERMS

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return -((linear(value, self.weights, self.hidden_bias) * hidden).sum(-1) + (self.visible_bias * value).sum(-1))

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return -((self.visible_bias * value).sum(-1) + softplus(self._hidden_input(value)).sum(-1))

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._visible_input(torch.sigmoid(self._hidden_input(value)))

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        active = torch.sigmoid(self._hidden_input(value))
        return ((self.weights**2).sum(-2) * active * (1 - active)).sum(-1)

    def _parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sum over the rows of ``value``, with ``coefficients``, of the gradient of -F in unbatched parameters."""
        active = torch.sigmoid(self._hidden_input(value)) * coefficients[:, None]
        return {"weights": value.mT @ active, "visible_bias": coefficients @ value, "hidden_bias": active.sum(0)}

    def _hidden_input(self, value: torch.Tensor) -> torch.Tensor:
        return linear(value, self.weights, self.hidden_bias)

    def _visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.weights.mT, self.visible_bias)

    def _conditional_logits(self, value: torch.Tensor) -> torch.Tensor:
        without = self._hidden_input(value).unsqueeze(-2) - value.unsqueeze(-1) * self.weights
        return self.visible_bias + (softplus(without + self.weights) - softplus(without)).sum(-1)

    _hidden_distribution = _visible_units = staticmethod(bernoulli_units)
    _sample_hidden = _sample_visible = staticmethod(bernoulli_from_logits)

    @property
    def _enumerates_hidden(self) -> bool:
        return self.num_hidden <= self.event_shape[0]

    def _log_terms(self) -> torch.Tensor:
        """Unnormalised log-probability of every state of the smaller layer, the other one summed out."""
        if self._enumerates_hidden:
            weights, bias, other = self.weights.mT, self.hidden_bias, self.visible_bias
        else:
            weights, bias, other = self.weights, self.visible_bias, self.hidden_bias

        def log_term(states: torch.Tensor) -> torch.Tensor:
            return bias @ states.mT + softplus(states @ weights + other.unsqueeze(-2)).sum(-1)

        return enumerate_terms(log_term, int(bias.shape[-1]), self.dtype, self.device)

    def _exact_log_partition(self) -> torch.Tensor:
        return torch.logsumexp(self._log_terms(), -1)

    def _base_log_partition(self) -> torch.Tensor:
        return softplus(self.visible_bias).sum(-1) + self.num_hidden * math.log(2)

    def _exact_mean(self) -> torch.Tensor:
        def log_partition(bias: torch.Tensor) -> torch.Tensor:
            return self._with(visible_bias=bias, validate_args=False)._exact_log_partition()

        bias = self.visible_bias.expand(self.batch_shape + self.event_shape)
        total, product = pullback(log_partition, bias, self._needs_graph(bias))
        return product(torch.ones_like(total))

    def _exact_variance(self) -> torch.Tensor:
        mean = self._exact_mean()
        return mean * (1 - mean)

    def _exact_covariance(self) -> torch.Tensor:
        probability = torch.softmax(self._log_terms(), -1)
        if self._enumerates_hidden:
            states = binary_states(self.num_hidden, self.dtype, self.device)
            means = torch.sigmoid(states @ self.weights.mT + self.visible_bias.unsqueeze(-2))
        else:
            means = binary_states(self.event_shape[0], self.dtype, self.device)
        centred = means - linear(probability, means).unsqueeze(-2)
        within = linear(probability, means * (1 - means))
        return centred.mT @ (probability.unsqueeze(-1) * centred) + torch.diag_embed(within)

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        if not self._enumerates_hidden:
            return binary_states(self.event_shape[0], self.dtype, self.device)[index]
        hidden = binary_states(self.num_hidden, self.dtype, self.device)[index]
        return self._sample_visible(self._visible_input(hidden))


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

    def _visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        return linear(hidden, self.weights.mT, self.visible_bias)

    _hidden_distribution = staticmethod(bernoulli_units)
    _sample_hidden = staticmethod(bernoulli_from_logits)

    def _visible_units(self, loc: torch.Tensor) -> Any:
        return dist.Normal(loc, self.scale, validate_args=False).to_event(1)

    def _sample_visible(self, loc: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(loc, self.scale, torch.randn_like(loc))

    def _log_terms(self) -> torch.Tensor:
        """Unnormalised log-weight of every Gaussian of the mixture."""
        scaled = self.weights / self.scale.unsqueeze(-1) ** 2
        bias = linear(self.visible_bias, scaled, self.hidden_bias)
        gram = self.weights.mT @ scaled

        def log_term(states: torch.Tensor) -> torch.Tensor:
            return bias @ states.mT + 0.5 * ((states @ gram) * states).sum(-1)

        return enumerate_terms(log_term, self.num_hidden, self.dtype, self.device)

    def _exact_log_partition(self) -> torch.Tensor:
        return self._gaussian_log_partition() + torch.logsumexp(self._log_terms(), -1)

    def _base_log_partition(self) -> torch.Tensor:
        return self._gaussian_log_partition() + self.num_hidden * math.log(2)

    def _gaussian_log_partition(self) -> torch.Tensor:
        return 0.5 * self.event_shape[0] * _LOG_2PI + torch.log(self.scale).sum(-1)

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

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        index = sample_index(self._log_terms(), shape)
        hidden = binary_states(self.num_hidden, self.dtype, self.device)[index]
        return self._sample_visible(self._visible_input(hidden))


class GaussianBernoulliRBM(GaussianBinaryMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and binary hidden units, in the mean-shift convention.

    .. math::

        E(v, h) = \tfrac12 (v - \mu)^\top \Lambda (v - \mu) - v^\top \Lambda W h - b^\top h, \qquad
        \Lambda = \mathrm{diag}(1 / \sigma^2)

    so that ``v | h ~ Normal(mu + W h, sigma)`` and ``h | v ~ Bernoulli(logits = b + W' Lambda v)`` (Krizhevsky 2009;
    Cho, Ilin & Raiko 2011; Liao et al. 2022). The marginal is a mixture of ``2^hidden`` Gaussians: proper for all
    weights, with exact density, moments and draws while ``hidden <= 16``.

    :param weights: W, shape ``(..., visible, hidden)``, in the units of ``v``.
    :param visible_bias: mu, shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param scale: sigma, the standard deviation (never a variance) of each visible unit given the hidden ones, shape
        ``(..., visible)`` or a scalar; default 1.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param sampler: sampler configuration; default: exact where possible, else ``Gibbs()``.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[2.0], [-1.0]]), hidden_bias=-10.0, scale=0.5)
    >>> rbm.sample((4,)).shape
    torch.Size([4, 2])
    >>> print(rbm.mean, rbm.variance)
    tensor([ 1.0000, -0.5000]) tensor([1.2500, 0.5000])
    """

    parameter_dims = {**RestrictedBoltzmannMachine.parameter_dims, "scale": ("visible",)}
    parameter_defaults = {**RestrictedBoltzmannMachine.parameter_defaults, "scale": 1.0}
    arg_constraints = {
        **RestrictedBoltzmannMachine.arg_constraints,
        "scale": constraints.independent(constraints.positive, 1),
    }

    @classmethod
    def from_krizhevsky(
        cls, weights: Any, visible_bias: Any = None, hidden_bias: Any = None, scale: Any = None, **options: Any
    ) -> "GaussianBernoulliRBM":
        r"""The machine in the convention of Hinton (2010) and Krizhevsky (2009), whose coupling is
        :math:`-\sum_{ij} (v_i / \sigma_i) W_{ij} h_j`; equal to this class with weights ``scale[:, None] * weights``.
        """
        given = cls(weights, visible_bias, hidden_bias, scale, **options)
        return given._with(weights=given.scale.unsqueeze(-1) * given.weights, **options)

    def condition_on_noisy(self, observation: Any, noise_scale: Any) -> "GaussianBernoulliRBM":
        """The exact posterior p(v | y) for ``v`` from this distribution and ``y ~ Normal(v, noise_scale)``.

        The product with a Gaussian likelihood stays in the family: precisions add, and the weights shrink.

        :param observation: y, shape ``(..., visible)``; leading dimensions become batch dimensions.
        :param noise_scale: standard deviation of the noise, a scalar or shape ``(..., visible)``.
        """
        observation = self._check_value(observation, "observation")
        noise = as_tensor("noise_scale", noise_scale, self.device, self.dtype).to(self.dtype)
        if self._validate_args and is_concrete(noise) and not (noise > 0).all():
            raise ValueError(f"noise_scale: expected a positive standard deviation, got {noise_scale!r}")
        noise = noise.expand(torch.broadcast_shapes(noise.shape, self.event_shape))
        return self._with(**self._posterior_parameters(observation, noise))

    def _posterior_parameters(self, observation: torch.Tensor, noise_scale: torch.Tensor) -> dict[str, torch.Tensor]:
        precision, noise_precision = self.scale**-2, noise_scale**-2
        total = precision + noise_precision
        return {
            "weights": (precision / total).unsqueeze(-1) * self.weights,
            "visible_bias": (precision * self.visible_bias + noise_precision * observation) / total,
            "scale": total**-0.5,
        }

    def _parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sum over the rows of ``value``, with ``coefficients``, of the gradient of -F in unbatched parameters."""
        precision = self.scale**-2
        active = torch.sigmoid(self._hidden_input(value))
        centred, signed = value - self.visible_bias, active * coefficients[:, None]
        spread = 2 * value * linear(active, self.weights.mT) - centred**2
        return {
            "weights": (precision * value).mT @ signed,
            "visible_bias": (coefficients @ centred) * precision,
            "hidden_bias": signed.sum(0),
            "scale": (coefficients @ spread) / -(self.scale**3),
        }


class GaussianRBM(RestrictedBoltzmannMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and Gaussian hidden units of unit conditional variance.

    .. math::

        E(v, h) = \tfrac12 v^\top v + \tfrac12 h^\top h - v^\top W h - a^\top v - b^\top h

    The marginal is ``Normal((I - W W')^-1 (a + W b), (I - W W')^-1)``, probabilistic PCA with unit noise in other
    parameters (Williams & Agakov 2002). **Proper only while the spectral norm of W is below one**; anything else is
    refused at construction where arguments are validated, and gives NaN densities where they are not.

    :param weights: W, shape ``(..., visible, hidden)``, spectral norm below 1.
    :param visible_bias: a, the linear coefficient (not the mean), shape ``(..., visible)`` or a scalar; default 0.
    :param hidden_bias: b, shape ``(..., hidden)`` or a scalar; default 0.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param sampler: sampler configuration; default ``Exact()``.
    :raises ImproperDensityError: if the spectral norm of ``weights`` is not below one.

    >>> import torch
    >>> from pyro_ebm import GaussianRBM
    >>> print(GaussianRBM(torch.tensor([[0.6], [0.0]])).variance)
    tensor([1.5625, 1.0000])
    """

    @property
    def has_exact_partition(self) -> bool:
        return True

    def _check_proper(self) -> None:
        norm = torch.linalg.matrix_norm(self.weights.detach().double(), ord=2).max().item()
        if not norm < 1:
            raise ImproperDensityError(
                f"weights: GaussianRBM expected a spectral norm below 1, got {norm:.6g}: exp(-energy) has no integral"
            )

    def _joint_energy(self, value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        quadratic = 0.5 * ((value**2).sum(-1) + (hidden**2).sum(-1))
        return quadratic - (self._hidden_input(value) * hidden).sum(-1) - (self.visible_bias * value).sum(-1)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        quadratic = (value**2).sum(-1) - (self._hidden_input(value) ** 2).sum(-1)
        return 0.5 * (quadratic - self.num_hidden * _LOG_2PI) - (self.visible_bias * value).sum(-1)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        return self._visible_input(self._hidden_input(value)) - value

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        return ((self.weights**2).sum((-2, -1)) - self.event_shape[0]).expand(value.shape[:-1])

    def _parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sum over the rows of ``value``, with ``coefficients``, of the gradient of -F in unbatched parameters."""
        hidden = self._hidden_input(value) * coefficients[:, None]
        return {"weights": value.mT @ hidden, "visible_bias": coefficients @ value, "hidden_bias": hidden.sum(0)}

    _hidden_input = BernoulliRBM._hidden_input
    _visible_input = BernoulliRBM._visible_input

    _hidden_distribution = _visible_units = staticmethod(_normal_units)
    _sample_hidden = _sample_visible = staticmethod(_sample_unit_normal)

    def _cholesky(self) -> torch.Tensor:
        """Lower Cholesky factor of ``I - W'W``; by Woodbury, ``(I - WW')^-1 = I + W (I - W'W)^-1 W'``."""
        eye = torch.eye(self.num_hidden, dtype=self.dtype, device=self.device)
        return cholesky(eye - self.weights.mT @ self.weights)

    def _exact_mean(self) -> torch.Tensor:
        constant = self._visible_input(self.hidden_bias)
        solved = torch.cholesky_solve(linear(constant, self.weights).unsqueeze(-1), self._cholesky()).squeeze(-1)
        return linear(solved, self.weights.mT, constant)

    def _exact_log_partition(self) -> torch.Tensor:
        units = self.event_shape[0] + self.num_hidden
        log_det = 2 * torch.log(torch.diagonal(self._cholesky(), dim1=-2, dim2=-1)).sum(-1)
        exponent = (self._visible_input(self.hidden_bias) * self._exact_mean()).sum(-1) + (self.hidden_bias**2).sum(-1)
        return 0.5 * (units * _LOG_2PI - log_det + exponent)

    def _base_log_partition(self) -> torch.Tensor:
        units = self.event_shape[0] + self.num_hidden
        return 0.5 * (units * _LOG_2PI + (self.visible_bias**2).sum(-1))

    def _covariance_root(self) -> torch.Tensor:
        """R of shape ``(..., visible, hidden)`` with ``I + R R'`` the covariance."""
        return torch.linalg.solve_triangular(self._cholesky(), self.weights.mT, upper=False).mT

    def _exact_covariance(self) -> torch.Tensor:
        root = self._covariance_root()
        return torch.eye(self.event_shape[0], dtype=self.dtype, device=self.device) + root @ root.mT

    def _exact_variance(self) -> torch.Tensor:
        return 1 + (self._covariance_root() ** 2).sum(-1)

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn((*shape, self.num_hidden), dtype=self.dtype, device=self.device)
        return self._sample_visible(linear(noise, self._covariance_root().mT, self._exact_mean()))


def _binary_from_spins(spins: BernoulliRBM) -> dict[str, torch.Tensor]:
    return {
        "weights": 4 * spins.weights,
        "visible_bias": 2 * (spins.visible_bias - spins.weights.sum(-1)),
        "hidden_bias": 2 * (spins.hidden_bias - spins.weights.sum(-2)),
    }


def _spins_from_binary(rbm: BernoulliRBM) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    couplings = rbm.weights / 4
    return couplings, rbm.visible_bias / 2 + couplings.sum(-1), rbm.hidden_bias / 2 + couplings.sum(-2)
