"""Energy distributions as priors, and the log-densities of priors whose normalisers may not be known."""

from collections.abc import Callable

import jax
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from _ppl_ebm.errors import NOT_ON_THE_LINE
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.parts.networks import CallableEnergy
from numpyro_ebm.objectives.contrastive import ContrastiveDivergence, PersistentContrastiveDivergence
from numpyro_ebm.objectives.criterion import Criterion
from numpyro_ebm.variational.networks import Network
from numpyro_ebm.variational.priors import Prior


class EnergyPrior(Prior):
    r"""An energy distribution as the prior, :math:`p(z) = \exp(-F(z)) / Z` (Pang et al. 2020, with Z kept).

    The ELBO's gradient in the prior's parameters holds the term :math:`-\nabla \log Z`. It is exact where the family
    knows its partition function, as a Gaussian-Bernoulli RBM with at most 16 hidden units does; it comes from an
    estimator where the distribution has one as its ``log_partition``; and with a ``criterion`` it is the contrastive
    one. Without any of these, SVI over the prior's parameters raises :class:`IntractablePartitionError`.

    :param energy: an :class:`EnergyDistribution`, whose parameters are learned, each as the site of its name under the
        family's constraint, and, for an energy made of a network, its arrays as the site ``network``. An estimator
        inside it keeps its key. Or a function without arguments that returns one: it registers what it wants to learn
        by ``numpyro.param``, and an estimator that it makes gets a new key in every step of SVI; a function that
        registers nothing is a fixed prior.
    :param criterion: a function from the distribution to a :class:`ContrastiveDivergence` or
        :class:`PersistentContrastiveDivergence` of it. The model's site ``z`` then has the value ``-F(z)``, so that
        **losses lack log Z**, its gradient in z, which is exact, and the criterion's gradient in the parameters, in
        which draws from q(z | x) play the part of the data. It is for SVI and for inference of z.
    :raises TypeError: if ``energy``, or what the functions return, is something else.
    :raises ValueError: if the distribution has batch dimensions or is not over vectors of real numbers.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.variational import EnergyPrior
    >>> prior = EnergyPrior(GaussianBernoulliRBM(jnp.zeros((2, 3))))
    >>> print(f"{prior.distribution().log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    def __init__(
        self,
        energy: EnergyDistribution | Callable[[], EnergyDistribution],
        *,
        criterion: Callable[[EnergyDistribution], Criterion] | None = None,
    ) -> None:
        if not isinstance(energy, EnergyDistribution) and (isinstance(energy, type) or not callable(energy)):
            raise TypeError(
                f"energy: EnergyPrior expected an energy distribution or a function that returns one, got {energy!r}"
            )
        if criterion is not None and not callable(criterion):
            raise TypeError(f"criterion: EnergyPrior expected a function or None, got {criterion!r}")
        self.energy, self.criterion = energy, criterion
        if isinstance(energy, EnergyDistribution):
            self.latent_size = _check_energy(energy).event_shape[0]

    def distribution(self, condition: ArrayLike | None = None) -> EnergyDistribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        if isinstance(self.energy, EnergyDistribution):
            return self._learned(self.energy)
        with self.starting():
            return _check_energy(self.energy())

    def site(self, condition: ArrayLike | None = None) -> Distribution:
        """The distribution, or the criterion's stand-in for it."""
        base = self.distribution(condition)
        if self.criterion is None:
            return base
        with self.starting():
            criterion = self.criterion(base)
        if not isinstance(criterion, (ContrastiveDivergence, PersistentContrastiveDivergence)):
            raise TypeError(
                "criterion: EnergyPrior expected a function to a ContrastiveDivergence or "
                f"PersistentContrastiveDivergence, got {type(criterion).__name__} from it"
            )
        return _Contrasted(base, criterion)

    def _learned(self, energy: EnergyDistribution) -> EnergyDistribution:
        """The energy with learned parameters, and a learned network where it has one."""
        parts: dict[str, Network | jax.Array] = {
            name: self.parameter(name, start, energy.arg_constraints[name])
            for name, start in energy.parameters().items()
            if name not in energy.absent
        }
        if isinstance(energy, CallableEnergy):
            network = energy.callable_name
            parts[network] = self.network_of("network", energy.arguments()[network])
        return energy.replace(**parts)

    def __repr__(self) -> str:
        criterion = "" if self.criterion is None else f", criterion={self.criterion!r}"
        return f"EnergyPrior({self.energy!r}{criterion})"


class _Contrasted(Criterion):
    """A density whose value is that of ``exp(-energy)``, with the gradient of a contrastive criterion."""

    pytree_data_fields = ("criterion",)

    def __init__(self, base: EnergyDistribution, criterion: Criterion) -> None:
        super().__init__(base)
        self.criterion = criterion

    def loss(self, value: ArrayLike) -> jax.Array:
        loss = self.criterion.loss(value)
        return loss + lax.stop_gradient(self.base.energy(value) - loss)


def _check_energy(energy: EnergyDistribution) -> EnergyDistribution:
    if not isinstance(energy, EnergyDistribution):
        raise TypeError(f"energy: EnergyPrior expected an energy distribution, got {type(energy).__name__}")
    if energy.is_discrete or energy.batch_shape or energy.event_dim != 1:
        raise ValueError(
            "energy: EnergyPrior expected a continuous distribution of batch shape () over vectors, got "
            f"{type(energy).__name__} of batch shape {energy.batch_shape} and event shape {energy.event_shape}"
        )
    if energy.unconstrained is not energy:
        raise ValueError(NOT_ON_THE_LINE.format(type(energy).__name__))
    return energy


def normalized_log_prob(distribution: Distribution) -> Callable[[jax.Array], jax.Array]:
    """The log-density as a function of z, whose normaliser is computed once, here.

    :raises IntractablePartitionError: if the density is not normalised, since a log-likelihood needs one that is.
    """
    if not isinstance(distribution, EnergyDistribution):
        return distribution.log_prob
    log_partition = distribution.log_partition
    return lambda z: distribution.unnormalized_log_prob(z) - log_partition


def unnormalized_log_prob(distribution: Distribution) -> Callable[[jax.Array], jax.Array]:
    """The log-density as a function of z, up to a constant."""
    return distribution.unnormalized_log_prob if isinstance(distribution, EnergyDistribution) else distribution.log_prob
