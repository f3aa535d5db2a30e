"""Energy distributions as priors, and the log-densities of priors whose normalisers may not be known."""

from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import biject_to

from _ppl_ebm.errors import NOT_ON_THE_LINE
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.distributions.parts.networks import CallableEnergy, captured
from pyro_ebm.objectives.contrastive import ContrastiveDivergence, PersistentContrastiveDivergence
from pyro_ebm.objectives.criterion import Criterion
from pyro_ebm.sampling.types import ArrayLike
from pyro_ebm.variational.priors import Prior


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
        *,
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
        self.networks = torch.nn.ModuleList(_networks_of(energy))

    def distribution(self, condition: torch.Tensor | None = None) -> EnergyDistribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        energy = self.energy
        if not isinstance(energy, EnergyDistribution):
            return _check_energy(energy())
        if not self._learned:
            return energy
        names = ((name, biject_to(energy.arg_constraints[name])) for name in self._learned)
        return energy.replace(**{name: transform(getattr(self, name)) for name, transform in names})

    def site(self, condition: torch.Tensor | None = None) -> TorchDistribution:
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

    def _learn(self, energy: EnergyDistribution) -> None:
        """Make parameters of this module from what the distribution wants learned."""
        self._learned = tuple(name for name in energy.parameter_dims if name not in energy.absent)
        for name, start in energy.parameters().items():
            if name in self._learned:
                free = biject_to(energy.arg_constraints[name]).inv(start.detach())
                self.register_parameter(name, torch.nn.Parameter(free.clone()))

    def extra_repr(self) -> str:
        criterion = "" if self.criterion is None else f", criterion={self.criterion!r}"
        return f"{self.energy!r}{criterion}"


def _networks_of(energy: EnergyDistribution | Callable[[], EnergyDistribution]) -> list[torch.nn.Module]:
    """The modules that an energy, or a function that makes one, refers to."""
    if isinstance(energy, EnergyDistribution):
        if not isinstance(energy, CallableEnergy):
            return []
        function = energy.arguments()[energy.callable_name]
    else:
        function = energy
    return [part for part in captured(function) if isinstance(part, torch.nn.Module) and part is not energy]


class _Contrasted(Criterion):
    """A density whose value is that of ``exp(-energy)``, with the gradient of a contrastive criterion."""

    def __init__(self, base: EnergyDistribution, criterion: Criterion) -> None:
        super().__init__(base)
        self.criterion = criterion

    def loss(self, value: ArrayLike) -> torch.Tensor:
        loss = self.criterion.loss(value)
        with torch.no_grad():
            shift = self.base.energy(value) - loss
        return loss + shift


def _check_energy(energy: EnergyDistribution) -> EnergyDistribution:
    if not isinstance(energy, EnergyDistribution):
        raise TypeError(f"energy: EnergyPrior expected an energy distribution, got {type(energy).__name__}")
    if energy.is_discrete or energy.batch_shape or energy.event_dim != 1:
        raise ValueError(
            "energy: EnergyPrior expected a continuous distribution of batch shape () over vectors, got "
            f"{type(energy).__name__} of batch shape {tuple(energy.batch_shape)} and event shape "
            f"{tuple(energy.event_shape)}"
        )
    if energy.unconstrained is not energy:
        raise ValueError(NOT_ON_THE_LINE.format(type(energy).__name__))
    return energy


def normalized_log_prob(distribution: TorchDistribution) -> Callable[[torch.Tensor], torch.Tensor]:
    """The log-density as a function of z, whose normaliser is computed once, here.

    :raises IntractablePartitionError: if the density is not normalised, since a log-likelihood needs one that is.
    """
    if not isinstance(distribution, EnergyDistribution):
        return distribution.log_prob
    log_partition = distribution.log_partition
    return lambda z: distribution.unnormalized_log_prob(z) - log_partition


def unnormalized_log_prob(distribution: TorchDistribution) -> Callable[[torch.Tensor], torch.Tensor]:
    """The log-density as a function of z, up to a constant."""
    return distribution.unnormalized_log_prob if isinstance(distribution, EnergyDistribution) else distribution.log_prob
