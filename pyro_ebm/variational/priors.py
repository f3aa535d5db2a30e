"""Priors over latent variables: normal, mixtures, the mixture of posteriors, and energy-based ones.

A prior is an object whose ``distribution(condition=None)`` is a host distribution over z. Those here are modules; a
model registers their parameters with Pyro.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from pyro import distributions as dist
from torch.distributions import Distribution, biject_to, constraints

from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.neural import captured
from pyro_ebm.infer.samplers import check_positive_int
from pyro_ebm.variational.normal import normal_from


@runtime_checkable
class Prior(Protocol):
    """What ``prior=`` accepts beside ``"standard"`` and, in a CVAE, a network."""

    def distribution(self, condition: Any = None) -> Distribution:
        """The distribution over z, of event shape ``(latent_size,)``.

        :param condition: shape ``(N, *condition_shape)`` in a CVAE, for which the batch shape is ``(N,)`` or ``()``.
        """


class NormalPrior(torch.nn.Module):
    """A normal prior: the standard one, or one whose parameters a network of the condition returns (Sohn et al. 2015).

    :param network: ``"standard"`` for N(0, I); else a module c -> ``(..., 2 * latent_size)``, location and log standard
        deviation.
    :param latent_size: dimensions of z.
    :raises ValueError: for a ``latent_size`` that is not a positive integer, or a network without a condition.
    :raises TypeError: for a ``network`` that is no module.

    >>> import torch
    >>> from pyro_ebm.variational.priors import NormalPrior
    >>> NormalPrior("standard", 2).distribution().mean
    tensor([0., 0.])
    >>> NormalPrior(torch.nn.Linear(3, 4), 2).distribution(torch.zeros(5, 3)).batch_shape
    torch.Size([5])
    """

    def __init__(self, network: torch.nn.Module | str, latent_size: int) -> None:
        super().__init__()
        check_positive_int("latent_size", latent_size)
        if not isinstance(network, torch.nn.Module) and network != "standard":
            raise TypeError(f'network: NormalPrior expected "standard" or a torch.nn.Module, got {network!r}')
        self.latent_size, self.network = latent_size, network
        self.register_buffer("loc", torch.zeros(latent_size), persistent=False)

    loc: torch.Tensor

    def distribution(self, condition: Any = None) -> Distribution:
        """N(0, I) of batch shape ``()``, or one distribution for each condition."""
        if isinstance(self.network, str):
            return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        if condition is None:
            raise ValueError("condition: NormalPrior with a network expected a condition, got None; use a CVAE")
        return normal_from("prior", self.network(condition), self.latent_size)


class MixturePrior(torch.nn.Module):
    """A learned mixture of normal distributions with diagonal covariances.

    :param num_components: of the mixture.
    :param latent_size: dimensions of z.
    :param spread: standard deviation of the components' initial locations, which are drawn from torch's generator;
        their scales start at 1 and their weights are equal.
    :raises ValueError: for sizes that are not positive integers, or a negative ``spread``.

    >>> import torch
    >>> from pyro_ebm.variational.priors import MixturePrior
    >>> MixturePrior(5, 2).distribution().log_prob(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    def __init__(self, num_components: int, latent_size: int, spread: float = 1.0) -> None:
        super().__init__()
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        if not spread >= 0:
            raise ValueError(f"spread: MixturePrior expected a number of at least 0, got {spread!r}")
        self.logits = torch.nn.Parameter(torch.zeros(num_components))
        self.loc = torch.nn.Parameter(spread * torch.randn(num_components, latent_size))
        self.log_scale = torch.nn.Parameter(torch.zeros(num_components, latent_size))

    def distribution(self, condition: Any = None) -> Distribution:
        """The mixture, of batch shape ``()``, whatever the condition."""
        del condition
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class VampPrior(torch.nn.Module):
    """The mixture of the encoder's posteriors at learned pseudo-inputs (Tomczak & Welling 2018).

    The model that it is given to binds its encoder. The gradient of the ELBO reaches the encoder through the prior too.

    :param pseudo_inputs: where they start, shape ``(num_components, *event_shape)``, for example some of the data.
    :param constraint: of the pseudo-inputs, for example ``constraints.unit_interval``, inside which they must start.
    :raises TypeError: for anything but a floating-point tensor.
    :raises ValueError: for no pseudo-inputs.
    :raises RuntimeError: on use before a model bound it.

    >>> import torch
    >>> from pyro_ebm.variational import VAE, VampPrior
    >>> prior = VampPrior(torch.rand(5, 3))
    >>> vae = VAE(torch.nn.Linear(3, 4), torch.nn.Linear(2, 3), 2, prior=prior)
    >>> prior.distribution().mixture_distribution.probs
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """

    def __init__(self, pseudo_inputs: torch.Tensor, *, constraint: constraints.Constraint = constraints.real) -> None:
        super().__init__()
        if not isinstance(pseudo_inputs, torch.Tensor) or not pseudo_inputs.is_floating_point():
            got = getattr(pseudo_inputs, "dtype", type(pseudo_inputs).__name__)
            raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point tensor, got {got}")
        if pseudo_inputs.dim() < 2 or len(pseudo_inputs) == 0:
            shape = tuple(pseudo_inputs.shape)
            raise ValueError(f"pseudo_inputs: VampPrior expected shape (num_components, *event_shape), got {shape}")
        free = biject_to(constraint).inv(pseudo_inputs.detach())
        if not torch.isfinite(free).all():
            raise ValueError(
                f"pseudo_inputs: VampPrior expected values inside {constraint}, got some outside or at its edge"
            )
        self.constraint, self.free_inputs = constraint, torch.nn.Parameter(free.clone())
        self._encode: Callable[[torch.Tensor], Distribution] | None = None

    @property
    def pseudo_inputs(self) -> torch.Tensor:
        """Where they are, shape ``(num_components, *event_shape)``."""
        return biject_to(self.constraint)(self.free_inputs)

    def bind(self, encode: Callable[[torch.Tensor], Distribution]) -> None:
        """Take the posterior of a model.

        :param encode: x -> q(z | x).
        """
        self._encode = encode

    def distribution(self, condition: Any = None) -> Distribution:
        """The mixture with equal weights, of batch shape ``()``."""
        del condition
        if self._encode is None:
            raise RuntimeError("prior: VampPrior expected to be given to a VAE, whose encoder it needs")
        inputs = self.pseudo_inputs
        weights = dist.Categorical(logits=inputs.new_zeros(len(inputs)))
        return dist.MixtureSameFamily(weights, self._encode(inputs))


class EnergyPrior(torch.nn.Module):
    r"""An energy-based prior, p(z) = exp(-F(z)) / Z (Pang et al. 2020, with the normaliser kept).

    The ELBO's gradient in the prior's parameters holds the term :math:`-\nabla \log Z`. So ``log p(z)`` is exact where
    the distribution knows its partition function (``GaussianBernoulliRBM``, ``GaussianRBM``), carries the estimator's
    gradient where one is given as its ``log_partition``, and raises :class:`IntractablePartitionError` in SVI over the
    prior's parameters otherwise. Draws are the distribution's own, by its ``sampler``.

    :param energy: an energy distribution over z, whose parameters are learned, from where they are and within their
        constraints, and so are the networks that it refers to. Or a function that returns one, called without
        arguments, or with the condition where there is one: the networks that it is or refers to are learned, and what
        it registers by ``pyro.param``, but no other tensors, so that ``lambda: distribution`` is a fixed prior.
    :raises TypeError: for any other ``energy``, and for a distribution of discrete values.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.variational.priors import EnergyPrior
    >>> prior = EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3), scale=1.0))
    >>> [name for name, _ in prior.named_parameters()]
    ['weights', 'visible_bias', 'hidden_bias', 'scale']
    >>> print(prior.distribution().log_prob(torch.zeros(2)))
    tensor(-8.7796, grad_fn=<SubBackward0>)
    """

    def __init__(self, energy: EnergyDistribution | Callable[..., EnergyDistribution]) -> None:
        super().__init__()
        if not isinstance(energy, EnergyDistribution) and (isinstance(energy, type) or not callable(energy)):
            raise TypeError(
                f"energy: EnergyPrior expected an energy distribution, or a function to one, got {energy!r}"
            )
        self.energy = energy
        self._learned: tuple[str, ...] = ()
        if isinstance(energy, EnergyDistribution):
            _check_continuous(energy)
            self._learn(energy)
        inside = getattr(energy, "_callable", None) if isinstance(energy, EnergyDistribution) else energy
        parts = captured(inside) if callable(inside) else []
        self.networks = torch.nn.ModuleList(
            part for part in parts if isinstance(part, torch.nn.Module) and part is not energy
        )

    def _learn(self, energy: EnergyDistribution) -> None:
        """Make parameters of this module from what the distribution wants learned."""
        self._learned = tuple(name for name in energy.parameter_dims if name not in energy._absent)
        for name in self._learned:
            free = biject_to(energy.arg_constraints[name]).inv(getattr(energy, name).detach())
            self.register_parameter(name, torch.nn.Parameter(free.clone()))

    def distribution(self, condition: Any = None) -> Distribution:
        """The energy distribution under the current parameters."""
        if isinstance(self.energy, EnergyDistribution):
            return self._current(self.energy) if self._learned else self.energy
        found = self.energy() if condition is None else self.energy(condition)
        if not isinstance(found, EnergyDistribution):
            raise TypeError(f"energy: EnergyPrior expected a function to an energy distribution, got {found!r} from it")
        _check_continuous(found)
        return found

    def _current(self, energy: EnergyDistribution) -> Distribution:
        parameters = {name: biject_to(energy.arg_constraints[name])(getattr(self, name)) for name in self._learned}
        return energy._with(**parameters)


def _check_continuous(distribution: EnergyDistribution) -> None:
    if distribution.is_discrete or len(distribution.event_shape) != 1:
        raise TypeError(
            f"energy: EnergyPrior expected a distribution of real vectors, got a {type(distribution).__name__} of "
            f"event shape {tuple(distribution.event_shape)} over {distribution.support}"
        )
