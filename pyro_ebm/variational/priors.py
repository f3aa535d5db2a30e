"""Priors of the latent variables: normal, mixtures, and the mixture of posteriors.

They are modules, and an autoencoder registers their parameters with Pyro under names that start with ``<name of the
autoencoder>.prior``.
"""

import copy
from collections.abc import Callable
from typing import Any, Protocol, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import biject_to, constraints

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_between, check_positive_int
from pyro_ebm.variational.networks import check_network
from pyro_ebm.variational.normal import normal_from


class Autoencoder(Protocol):
    """What a prior sees of the model it is given to."""

    def latent_given_data(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> TorchDistribution:
        """q(z | x)."""


class Prior(torch.nn.Module):
    """The base of priors over ``latent_size`` real variables; their parameters are learned."""

    #: Number of latent variables, or ``None`` where it is the encoder's business.
    latent_size: int | None = None
    #: Whether it is a diagonal normal distribution, so that a KL divergence from it has a closed form.
    is_normal: bool = False
    #: Whether the encoder is a part of it.
    uses_encoder: bool = False
    _encode: Callable[[torch.Tensor], TorchDistribution] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    @property
    def is_conditional(self) -> bool:
        """Whether it needs a condition."""
        return False

    def distribution(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """The distribution of z, event shape ``(latent_size,)``.

        :param condition: what a conditional prior is conditioned on, shape ``(N, *condition_shape)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(condition)")

    def site(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """What the model's site ``z`` has: the distribution itself, or a learning criterion of it."""
        return self.distribution(condition)

    def for_model(self, model: Autoencoder) -> Self:
        """The prior as part of an autoencoder: here itself, or a copy of the same parameters that has its encoder."""
        if not self.uses_encoder:
            return self
        prior = copy.copy(self)
        prior._encode = model.latent_given_data
        return prior


class NormalPrior(Prior):
    """The standard normal prior, or a learned diagonal normal one given a condition (Sohn et al. 2015).

    :param latent_size: number of latent variables.
    :param network: ``None`` for the standard one, or a module that maps conditions to ``(..., 2 * latent_size)``,
        location and log standard deviation.
    :raises TypeError: if ``network`` is neither.
    :raises ValueError: for a ``latent_size`` that is not a positive integer; on use, for a missing condition or a
        network with another number of outputs.

    >>> import torch
    >>> from pyro_ebm.variational import NormalPrior
    >>> print(f"{NormalPrior(2).distribution().log_prob(torch.zeros(2)):.4f}")
    -1.8379
    >>> NormalPrior(2, torch.nn.Linear(3, 4)).distribution(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    latent_size: int
    is_normal = True
    loc: torch.Tensor

    def __init__(self, latent_size: int, network: torch.nn.Module | None = None) -> None:
        super().__init__()
        check_positive_int("latent_size", latent_size)
        self.latent_size = latent_size
        self.network = None if network is None else check_network("network", network)
        self.register_buffer("loc", torch.zeros(latent_size), persistent=False)

    @property
    def is_conditional(self) -> bool:
        """Whether it has a network."""
        return self.network is not None

    def distribution(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """Batch shape ``()``, or ``(N,)`` for N conditions."""
        if self.network is None:
            return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        if condition is None:
            raise ValueError("condition: a NormalPrior with a network expected conditions of shape (N, ...), got None")
        return normal_from("prior", self.network(condition), self.latent_size, inputs={"condition": condition})

    def extra_repr(self) -> str:
        return f"latent_size={self.latent_size}"


class MixturePrior(Prior):
    """A learned mixture of diagonal normal distributions.

    Parameters: ``logits`` ``(num_components,)``, starting at 0; ``loc`` ``(num_components, latent_size)``, starting at
    normal draws from torch's generator; ``log_scale``, log standard deviations of the same shape, starting at 0.

    :param num_components: K.
    :param latent_size: number of latent variables.
    :param spread: standard deviation of the initial locations, not negative.
    :raises TypeError: for a ``spread`` that is no number.
    :raises ValueError: for a number out of range.

    >>> import torch
    >>> from pyro_ebm.variational import MixturePrior
    >>> MixturePrior(5, 2).distribution().log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    latent_size: int

    def __init__(self, num_components: int, latent_size: int, *, spread: float = 1.0) -> None:
        super().__init__()
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        check_between("spread", spread, 0, float("inf"))
        self.num_components, self.latent_size = num_components, latent_size
        self.logits = torch.nn.Parameter(torch.zeros(num_components))
        self.loc = torch.nn.Parameter(spread * torch.randn(num_components, latent_size))
        self.log_scale = torch.nn.Parameter(torch.zeros(num_components, latent_size))

    def distribution(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def extra_repr(self) -> str:
        return f"num_components={self.num_components}, latent_size={self.latent_size}"


class VampPrior(Prior):
    """The mixture of the encoder's posteriors at learned pseudo-inputs, with equal weights (Tomczak & Welling 2018).

    It keeps the encoder of the :class:`VAE` that it is given to, whose gradient then has a part through the prior.
    Parameter: ``free_inputs``, the pseudo-inputs in unconstrained space.

    :param pseudo_inputs: initial values, shape ``(num_components, *shape of one datum)``; data are a good start.
    :param constraint: of the pseudo-inputs, for example ``constraints.unit_interval`` for images, inside which they
        must start.
    :raises TypeError: if ``pseudo_inputs`` is not a floating-point tensor.
    :raises ValueError: for no pseudo-inputs, or some outside their constraint; on use without a :class:`VAE`.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, VampPrior
    >>> vae = VAE(torch.nn.Linear(3, 4), torch.nn.Linear(2, 3), 2, prior=VampPrior(torch.rand(4, 3)))
    >>> print(vae.prior.distribution().mixture_distribution.probs)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    uses_encoder = True

    def __init__(self, pseudo_inputs: torch.Tensor, *, constraint: constraints.Constraint = constraints.real) -> None:
        super().__init__()
        free = biject_to(constraint).inv(_check_inputs(pseudo_inputs))
        if not torch.isfinite(free).all():
            raise ValueError(
                f"pseudo_inputs: VampPrior expected values inside {constraint}, got some outside or at its edge"
            )
        self.constraint, self.free_inputs = constraint, torch.nn.Parameter(free.clone())

    @property
    def pseudo_inputs(self) -> torch.Tensor:
        """Where they are, shape ``(num_components, *event_shape)``."""
        return biject_to(self.constraint)(self.free_inputs)

    def distribution(self, condition: torch.Tensor | None = None) -> TorchDistribution:
        """The mixture, batch shape ``()``."""
        del condition
        if self._encode is None:
            raise ValueError("prior: VampPrior has no encoder yet; give it to a VAE")
        inputs = self.pseudo_inputs
        weights = dist.Categorical(logits=inputs.new_zeros(len(inputs)))
        return dist.MixtureSameFamily(weights, self._encode(inputs))

    def extra_repr(self) -> str:
        return f"pseudo_inputs: {tuple(self.free_inputs.shape)}, constraint={self.constraint}"


def _check_inputs(pseudo_inputs: torch.Tensor) -> torch.Tensor:
    if not isinstance(pseudo_inputs, torch.Tensor):
        raise TypeError(
            f"pseudo_inputs: VampPrior expected a floating-point tensor, got {type(pseudo_inputs).__name__}"
        )
    if not pseudo_inputs.is_floating_point():
        raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point tensor, got {pseudo_inputs.dtype}")
    if pseudo_inputs.dim() < 2 or len(pseudo_inputs) == 0:
        shape = tuple(pseudo_inputs.shape)
        raise ValueError(f"pseudo_inputs: VampPrior expected shape (num_components, *event_shape), got {shape}")
    return pseudo_inputs.detach()
