"""Priors of the latent variables: normal, mixtures, the mixture of posteriors, and energy-based ones.

They are modules, and an autoencoder registers their parameters with Pyro under names that start with ``<name of the
autoencoder>.prior``.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from torch.distributions import Distribution, biject_to, constraints

from _ppl_ebm.checks import check_between, check_positive_int
from _ppl_ebm.errors import IntractablePartitionError
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.normaliser import intractable_message
from pyro_ebm.distributions.parts.networks import captured
from pyro_ebm.objectives.contrastive import ContrastiveDivergence, PersistentContrastiveDivergence
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.variational.normal import normal_from


class Prior(torch.nn.Module):
    """The base of priors over ``latent_size`` real variables; their parameters are learned."""

    #: Number of latent variables, or ``None`` where it is the encoder's business.
    latent_size: int | None = None

    def distribution(self, condition: Any = None) -> Distribution:
        """The distribution of z, event shape ``(latent_size,)``.

        :param condition: what a conditional prior is conditioned on, shape ``(N, *condition_shape)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(condition)")

    def site(self, condition: Any = None) -> Distribution:
        """What the model's site ``z`` has: the distribution itself, or a learning criterion of it."""
        return self.distribution(condition)

    def bind(self, encode: Callable[[torch.Tensor], Distribution]) -> None:
        """Take the encoder of the autoencoder that the prior is given to.

        :param encode: x -> q(z | x).
        """


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
    loc: torch.Tensor

    def __init__(self, latent_size: int, network: torch.nn.Module | None = None) -> None:
        super().__init__()
        check_positive_int("latent_size", latent_size)
        if network is not None and not isinstance(network, torch.nn.Module):
            raise TypeError(f"network: expected a torch.nn.Module or None, got {type(network).__name__}")
        self.latent_size, self.network = latent_size, network
        self.register_buffer("loc", torch.zeros(latent_size), persistent=False)

    def distribution(self, condition: Any = None) -> Distribution:
        """Batch shape ``()``, or ``(N,)`` for N conditions."""
        if self.network is None:
            return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)
        if condition is None:
            raise ValueError("condition: a NormalPrior with a network expected conditions of shape (N, ...), got None")
        return normal_from("prior", self.network(condition), self.latent_size)


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

    def __init__(self, num_components: int, latent_size: int, spread: float = 1.0) -> None:
        super().__init__()
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        check_between("spread", spread, 0, float("inf"))
        self.num_components, self.latent_size = num_components, latent_size
        self.logits = torch.nn.Parameter(torch.zeros(num_components))
        self.loc = torch.nn.Parameter(spread * torch.randn(num_components, latent_size))
        self.log_scale = torch.nn.Parameter(torch.zeros(num_components, latent_size))

    def distribution(self, condition: Any = None) -> Distribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class VampPrior(Prior):
    """The mixture of the encoder's posteriors at learned pseudo-inputs (Tomczak & Welling 2018).

    The :class:`VAE` that it is given to binds it to its encoder, whose gradient then has a part through the prior.

    :param pseudo_inputs: initial values, shape ``(num_components, *shape of one datum)``; data are a good start.
    :param constraint: of the pseudo-inputs, for example ``constraints.unit_interval`` for images, inside which they
        must start.
    :raises TypeError: if ``pseudo_inputs`` is not a floating-point tensor.
    :raises ValueError: for no pseudo-inputs, or some outside their constraint; on use without a :class:`VAE`.

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
        """Take the encoder."""
        self._encode = encode

    def distribution(self, condition: Any = None) -> Distribution:
        """The mixture, batch shape ``()``."""
        del condition
        if self._encode is None:
            raise ValueError("prior: VampPrior has no encoder yet; give it to a VAE")
        inputs = self.pseudo_inputs
        weights = dist.Categorical(logits=inputs.new_zeros(len(inputs)))
        return dist.MixtureSameFamily(weights, self._encode(inputs))


class EnergyPrior(Prior):
    r"""An energy distribution as the prior, :math:`p(z) = \exp(-F(z)) / Z` (Pang et al. 2020, with Z kept).

    The ELBO's gradient in the prior's parameters holds the term :math:`-\nabla \log Z`. It is exact where the family
    knows its partition function, as a Gaussian-Bernoulli RBM with at most 16 hidden units does; it comes from an
    estimator where the distribution has one as its ``log_partition``; and with a ``criterion`` it is the contrastive
    one. Without any of these, SVI over the prior's parameters raises :class:`IntractablePartitionError`.

    :param energy: an :class:`EnergyDistribution`, whose parameters are learned, from where they are and within their
        constraints, and so are the networks that it refers to. Or a function without arguments that returns one: the
        networks that it is or refers to are learned, and what it registers by ``pyro.param``, but no other tensors, so
        that ``lambda: distribution`` is a fixed prior.
    :param criterion: a function from the distribution to a :class:`ContrastiveDivergence` or
        :class:`PersistentContrastiveDivergence` of it. The model's site ``z`` then has the value ``-F(z)``, so that
        **losses lack log Z**, its gradient in z, which is exact, and the criterion's gradient in the parameters, in
        which draws from q(z | x) play the part of the data. It is for SVI and for inference of z.
    :raises TypeError: if ``energy``, or what the functions return, is something else.
    :raises ValueError: if the distribution has batch dimensions or is not over vectors of real numbers.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.variational import EnergyPrior
    >>> prior = EnergyPrior(GaussianBernoulliRBM(torch.zeros(2, 3)))
    >>> [name for name, _ in prior.named_parameters()]
    ['weights', 'visible_bias', 'hidden_bias', 'scale']
    >>> print(f"{prior.distribution().log_prob(torch.zeros(2)):.4f}")
    -1.8379
    """

    def __init__(
        self,
        energy: EnergyDistribution | Callable[[], EnergyDistribution],
        criterion: Callable[[EnergyDistribution], Criterion] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(energy, EnergyDistribution) and (isinstance(energy, type) or not callable(energy)):
            raise TypeError(
                f"energy: EnergyPrior expected an energy distribution or a function that returns one, got {energy!r}"
            )
        if criterion is not None and not callable(criterion):
            raise TypeError(f"criterion: EnergyPrior expected a function or None, got {criterion!r}")
        self.energy, self.criterion = energy, criterion
        self._learned: tuple[str, ...] = ()
        if isinstance(energy, EnergyDistribution):
            self.latent_size = _check_energy(energy).event_shape[0]
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

    def distribution(self, condition: Any = None) -> Any:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        energy = self.energy
        if not isinstance(energy, EnergyDistribution):
            return _check_energy(energy())
        if not self._learned:
            return energy
        names = ((name, biject_to(energy.arg_constraints[name])) for name in self._learned)
        return energy._with(**{name: transform(getattr(self, name)) for name, transform in names})

    def site(self, condition: Any = None) -> Distribution:
        """The distribution, or the criterion's stand-in for it."""
        base = self.distribution(condition)
        if self.criterion is None:
            return base
        criterion = self.criterion(base)
        if not isinstance(criterion, (ContrastiveDivergence, PersistentContrastiveDivergence)):
            raise TypeError(
                "criterion: EnergyPrior expected a function to a ContrastiveDivergence or "
                f"PersistentContrastiveDivergence, got {type(criterion).__name__} from it"
            )
        return _Contrasted(base, criterion)


class _Contrasted(Criterion):
    """A density whose value is that of ``exp(-energy)``, with the gradient of a contrastive criterion."""

    def __init__(self, base: EnergyDistribution, criterion: Criterion) -> None:
        super().__init__(base)
        self.criterion = criterion

    def loss(self, value: Any) -> torch.Tensor:
        loss = self.criterion.loss(value)
        with torch.no_grad():
            shift = self.base.energy(value) - loss
        return loss + shift


def _check_energy(energy: Any) -> EnergyDistribution:
    if not isinstance(energy, EnergyDistribution):
        raise TypeError(f"energy: EnergyPrior expected an energy distribution, got {type(energy).__name__}")
    if energy.is_discrete or energy.batch_shape or energy.event_dim != 1:
        raise ValueError(
            "energy: EnergyPrior expected a continuous distribution of batch shape () over vectors, got "
            f"{type(energy).__name__} of batch shape {tuple(energy.batch_shape)} and event shape "
            f"{tuple(energy.event_shape)}"
        )
    return energy


def normalized_log_prob(distribution: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The log-density as a function of z, whose normaliser is computed once, here.

    :raises IntractablePartitionError: if the density is not normalised, since a log-likelihood needs one that is.
    """
    if not isinstance(distribution, EnergyDistribution):
        return distribution.log_prob
    if not distribution.is_normalized:
        raise IntractablePartitionError(intractable_message(distribution._title))
    log_partition = distribution.log_partition
    return lambda z: distribution.unnormalized_log_prob(z) - log_partition
