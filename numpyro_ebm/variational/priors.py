"""Priors of the latent variables: normal, mixtures, the mixture of posteriors, and energy-based ones.

The learned parameters of a prior are ``numpyro.param`` sites named ``<name of the autoencoder>.prior.<parameter>``.
"""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions import constraints

from _ppl_ebm.checks import check_between, check_positive_int
from _ppl_ebm.errors import IntractablePartitionError
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.normaliser import intractable_message
from numpyro_ebm.distributions.parts.networks import CallableEnergy
from numpyro_ebm.objectives.contrastive import ContrastiveDivergence, PersistentContrastiveDivergence
from numpyro_ebm.objectives.criterion import Criterion
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.variational.networks import StartFrom, check_network, register_network
from numpyro_ebm.variational.normal import normal_from

_Self = TypeVar("_Self", bound="Prior")


def _from_learned(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a prior whose parameter sites start from what the prior was bound to."""

    @functools.wraps(method)
    def started(self: "Prior", condition: Any = None) -> Any:
        with StartFrom(self._parameters):
            return method(self, condition)

    return started


class Prior:
    """The base of priors over ``latent_size`` real variables."""

    #: Number of latent variables, or ``None`` where it is the encoder's business.
    latent_size: int | None = None
    #: Start of the names of the prior's parameter sites.
    name = "prior"
    _encode: Callable[[Any], Any] | None = None
    _parameters: Mapping[str, Any] = {}

    def distribution(self, condition: Any = None) -> dist.Distribution:
        """The distribution of z, event shape ``(latent_size,)``.

        :param condition: what a conditional prior is conditioned on, shape ``(N, ...)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(condition)")

    def site(self, condition: Any = None) -> dist.Distribution:
        """What the model's site ``z`` has: the distribution itself, or a learning criterion of it."""
        return self.distribution(condition)

    def bound(self: _Self, name: str, encode: Callable[[Any], Any], parameters: Mapping[str, Any]) -> _Self:
        """A copy for the autoencoder of that name and encoder, which starts from learned parameters."""
        prior = copy.copy(self)
        prior.name, prior._encode, prior._parameters = f"{name}.prior", encode, parameters
        return prior


class NormalPrior(Prior):
    """The standard normal prior, or a learned diagonal normal one given a condition (Sohn et al. 2015).

    :param latent_size: number of latent variables.
    :param network: ``None`` for the standard one, or a network that maps one condition to ``2 * latent_size`` numbers,
        location and log standard deviation.
    :raises TypeError: if ``network`` is neither.
    :raises ValueError: for a ``latent_size`` that is not a positive integer; on use, for a missing
        condition or a network with another number of outputs.

    >>> from numpyro_ebm.variational import NormalPrior
    >>> import jax.numpy as jnp
    >>> print(f"{NormalPrior(2).distribution().log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    latent_size: int

    def __init__(self, latent_size: int, network: Any = None) -> None:
        check_positive_int("latent_size", latent_size)
        self.network = None if network is None else check_network("network", network)
        self.latent_size = latent_size

    @_from_learned
    def distribution(self, condition: Any = None) -> dist.Distribution:
        """Batch shape ``()``, or ``(N,)`` for N conditions."""
        if self.network is None:
            return dist.Normal(0.0, 1.0).expand((self.latent_size,)).to_event(1)
        if condition is None:
            raise ValueError("condition: a NormalPrior with a network expected conditions of shape (N, ...), got None")
        network = register_network(f"{self.name}.network", self.network)
        raw = jax.vmap(lambda one: network(one))(jnp.asarray(condition))
        return normal_from("prior", raw, self.latent_size)


class MixturePrior(Prior):
    """A learned mixture of diagonal normal distributions.

    Parameter sites: ``logits`` ``(num_components,)``, starting at 0; ``loc`` ``(num_components, latent_size)``,
    starting at normal draws; ``scale``, standard deviations of the same shape, starting at 1.

    :param num_components: K.
    :param latent_size: number of latent variables.
    :param spread: standard deviation of the initial locations, not negative.
    :param rng_key: a JAX PRNG key for the initial locations; ``None`` draws one from the seeded model around it.
    :raises TypeError: for a ``spread`` that is no number.
    :raises ValueError: for a number out of range, or a missing key.

    >>> import jax
    >>> from numpyro_ebm.variational import MixturePrior
    >>> MixturePrior(3, 2, rng_key=jax.random.key(0)).distribution().sample(jax.random.key(1), (4,)).shape
    (4, 2)
    """

    latent_size: int

    def __init__(self, num_components: int, latent_size: int, spread: float = 1.0, *, rng_key: Any = None) -> None:
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        check_between("spread", spread, 0, float("inf"))
        self.num_components, self.latent_size = num_components, latent_size
        key = require_key("MixturePrior", rng_key)
        self.initial_loc = spread * jax.random.normal(key, (num_components, latent_size))

    @_from_learned
    def distribution(self, condition: Any = None) -> dist.Distribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        start = self.initial_loc
        logits = numpyro.param(f"{self.name}.logits", jnp.zeros(self.num_components, start.dtype))
        loc = numpyro.param(f"{self.name}.loc", start)
        scale = numpyro.param(f"{self.name}.scale", jnp.ones_like(start), constraint=constraints.positive)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1))


class VampPrior(Prior):
    """The mixture of the encoder's posteriors at learned pseudo-inputs, with equal weights (Tomczak & Welling 2018).

    The :class:`VAE` that it is given to uses a copy that knows its encoder, whose gradient then has a part through
    the prior. Parameter site: ``pseudo_inputs``.

    :param pseudo_inputs: initial values, shape ``(num_components, *shape of one datum)``; data are a good start.
    :param constraint: of the pseudo-inputs, for example ``constraints.unit_interval`` for images, inside which they
        must start.
    :raises TypeError: if ``pseudo_inputs`` is not a floating-point array.
    :raises ValueError: for no pseudo-inputs, or some outside their constraint; on use without a :class:`VAE`.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, VampPrior
    >>> encoder = lambda x: jnp.concatenate([x[..., :1], jnp.zeros_like(x[..., :1])], -1)
    >>> decoder = lambda z: jnp.concatenate([z, z], -1)
    >>> vae = VAE(encoder, decoder, 1, prior=VampPrior(jnp.array([[0.0, 0.0], [1.0, 1.0]])), likelihood=0.1)
    >>> print(f"{vae.log_prior(jnp.array([0.0])):.3f}")
    -1.138
    """

    def __init__(self, pseudo_inputs: Any, *, constraint: constraints.Constraint = constraints.real) -> None:
        dtype = getattr(pseudo_inputs, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            got = type(pseudo_inputs).__name__ if dtype is None else dtype
            raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point array, got {got}")
        if pseudo_inputs.ndim < 2 or len(pseudo_inputs) == 0:
            shape = tuple(pseudo_inputs.shape)
            raise ValueError(f"pseudo_inputs: VampPrior expected shape (num_components, *event_shape), got {shape}")
        self.pseudo_inputs, self.constraint = jnp.asarray(pseudo_inputs), constraint
        if not jnp.isfinite(dist.biject_to(constraint).inv(self.pseudo_inputs)).all():
            raise ValueError(
                f"pseudo_inputs: VampPrior expected values inside {constraint}, got some outside or at its edge"
            )

    @_from_learned
    def distribution(self, condition: Any = None) -> dist.Distribution:
        """The mixture, batch shape ``()``."""
        del condition
        if self._encode is None:
            raise ValueError("prior: VampPrior has no encoder yet; give it to a VAE, and use that VAE's prior")
        inputs = numpyro.param(f"{self.name}.pseudo_inputs", self.pseudo_inputs, constraint=self.constraint)
        weights = dist.Categorical(logits=jnp.zeros(len(self.pseudo_inputs), self.pseudo_inputs.dtype))
        return dist.MixtureSameFamily(weights, self._encode(inputs))


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

    def __init__(self, energy: Any, criterion: Callable[[EnergyDistribution], Criterion] | None = None) -> None:
        if not isinstance(energy, EnergyDistribution) and (isinstance(energy, type) or not callable(energy)):
            raise TypeError(
                f"energy: EnergyPrior expected an energy distribution or a function that returns one, got {energy!r}"
            )
        if criterion is not None and not callable(criterion):
            raise TypeError(f"criterion: EnergyPrior expected a function or None, got {criterion!r}")
        self.energy, self.criterion = energy, criterion
        if isinstance(energy, EnergyDistribution):
            self.latent_size = _check_energy(energy).event_shape[0]

    @_from_learned
    def distribution(self, condition: Any = None) -> EnergyDistribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        if isinstance(self.energy, EnergyDistribution):
            return self._learned(self.energy)
        return _check_energy(self.energy())

    @_from_learned
    def site(self, condition: Any = None) -> dist.Distribution:
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

    def _learned(self, energy: EnergyDistribution) -> EnergyDistribution:
        learned = copy.copy(energy)
        for name in energy.parameter_dims:
            if name not in energy._absent:
                start, constraint = getattr(energy, name), energy.arg_constraints[name]
                setattr(learned, name, numpyro.param(f"{self.name}.{name}", start, constraint=constraint))
        if isinstance(learned, CallableEnergy):
            network = register_network(f"{self.name}.network", learned._callable)
            learned._store_callable(network, energy.event_shape)
        return learned


class _Contrasted(Criterion):
    """A density whose value is that of ``exp(-energy)``, with the gradient of a contrastive criterion."""

    pytree_data_fields = ("criterion",)

    def __init__(self, base: EnergyDistribution, criterion: Criterion) -> None:
        super().__init__(base)
        self.criterion = criterion

    def loss(self, value: Any) -> jax.Array:
        loss = self.criterion.loss(value)
        return loss + lax.stop_gradient(self.base.energy(value) - loss)


def _check_energy(energy: Any) -> EnergyDistribution:
    if not isinstance(energy, EnergyDistribution):
        raise TypeError(f"energy: EnergyPrior expected an energy distribution, got {type(energy).__name__}")
    if energy.is_discrete or energy.batch_shape or energy.event_dim != 1:
        raise ValueError(
            "energy: EnergyPrior expected a continuous distribution of batch shape () over vectors, got "
            f"{type(energy).__name__} of batch shape {energy.batch_shape} and event shape {energy.event_shape}"
        )
    return energy


def normalized_log_prob(distribution: Any) -> Callable[[jax.Array], jax.Array]:
    """The log-density as a function of z, whose normaliser is computed once, here.

    :raises IntractablePartitionError: if the density is not normalised, since a log-likelihood needs one that is.
    """
    if not isinstance(distribution, EnergyDistribution):
        return distribution.log_prob
    if not distribution.is_normalized:
        raise IntractablePartitionError(intractable_message(distribution._title))
    log_partition = distribution.log_partition
    return lambda z: distribution.unnormalized_log_prob(z) - log_partition
