"""Priors of the latent variables: objects whose ``distribution(condition)`` is a host distribution over z.

Their learned parameters are ``numpyro.param`` sites, registered whenever ``distribution`` is called, under names that
start with the prior's own ``name``. Two autoencoders inside one model need priors of different names.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.neural import CallableEnergy
from numpyro_ebm.distributions.partition import IntractablePartitionError, intractable_message
from numpyro_ebm.infer.keys import require_key
from numpyro_ebm.infer.samplers import check_positive_int
from numpyro_ebm.variational.networks import check_network, register_network
from numpyro_ebm.variational.normal import normal_from_raw


class Prior:
    """The base of priors over ``latent_size`` real variables.

    :param name: start of the names of the prior's parameter sites.
    """

    #: Number of latent variables, or ``None`` where it is the encoder's business.
    latent_size: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def distribution(self, condition: Any = None) -> dist.Distribution:
        """The distribution of z, event shape ``(latent_size,)``.

        :param condition: what a conditional prior is conditioned on, shape ``(N, ...)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(condition)")

    def bound(self, encode: Callable[[Any], Any]) -> "Prior":
        """This prior, told the encoder of the model that it belongs to."""
        del encode
        return self


class NormalPrior(Prior):
    """The standard normal prior, or a learned diagonal normal one given a condition (Sohn et al. 2015).

    :param latent_size: number of latent variables.
    :param network: ``None`` for the standard one, or a network that maps one condition to ``2 * latent_size`` numbers,
        location and log standard deviation; its arrays are the parameter site ``<name>.network``.
    :raises TypeError: if ``network`` is neither.
    :raises ValueError: for a ``latent_size`` that is not a positive integer; on use, for a missing
        condition or a network with another number of outputs.

    >>> from numpyro_ebm.variational import NormalPrior
    >>> import jax.numpy as jnp
    >>> print(f"{NormalPrior(2).distribution().log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    latent_size: int

    def __init__(self, latent_size: int, network: Any = None, *, name: str = "prior") -> None:
        check_positive_int("latent_size", latent_size)
        if network is not None:
            check_network("network", network)
        super().__init__(name)
        self.network, self.latent_size = network, latent_size

    @property
    def is_standard(self) -> bool:
        """Whether it is the standard normal distribution, whatever the condition."""
        return self.network is None

    def distribution(self, condition: Any = None) -> dist.Distribution:
        """Batch shape ``()``, or ``(N,)`` for N conditions."""
        if self.is_standard:
            return dist.Normal(0.0, 1.0).expand((self.latent_size,)).to_event(1)
        if condition is None:
            raise ValueError("condition: a conditional NormalPrior expected conditions of shape (N, ...), got None")
        network = register_network(f"{self.name}.network", self.network)
        raw = jax.vmap(lambda one: network(one))(jnp.asarray(condition))
        return normal_from_raw(raw, self.latent_size, "diagonal", "prior")

    def moments(self, condition: Any, like: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Locations and standard deviations, of the shape and type of ``like``."""
        if self.is_standard:
            return jnp.zeros_like(like), jnp.ones_like(like)
        base: Any = self.distribution(condition)
        return base.base_dist.loc, base.base_dist.scale


class MixturePrior(Prior):
    """A learned mixture of diagonal normal distributions.

    Parameter sites: ``<name>.logits`` ``(num_components,)``, starting at 0; ``<name>.loc`` ``(num_components,
    latent_size)``, starting at normal draws; ``<name>.scale`` of the same shape, starting at 1.

    :param num_components: K.
    :param latent_size: number of latent variables.
    :param spread: standard deviation of the initial locations, not negative.
    :param rng_key: a JAX PRNG key for the initial locations; ``None`` draws one from the seeded model around it.
    :raises ValueError: for a number out of range, or a missing key.

    >>> import jax
    >>> from numpyro_ebm.variational import MixturePrior
    >>> MixturePrior(3, 2, rng_key=jax.random.key(0)).distribution().sample(jax.random.key(1), (4,)).shape
    (4, 2)
    """

    latent_size: int

    def __init__(
        self, num_components: int, latent_size: int, spread: float = 1.0, *, rng_key: Any = None, name: str = "prior"
    ) -> None:
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        if not isinstance(spread, (int, float)) or not 0 <= spread < float("inf"):
            raise ValueError(f"spread: MixturePrior expected a non-negative number, got {spread!r}")
        super().__init__(name)
        self.num_components, self.latent_size = num_components, latent_size
        rng_key = require_key("MixturePrior", rng_key)
        self.initial_loc = spread * jax.random.normal(rng_key, (num_components, latent_size))

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

    Parameter site: ``<name>.pseudo_inputs``. The autoencoder that it is given to binds it to its own encoder.

    :param pseudo_inputs: initial values, shape ``(num_components, *shape of one datum)``; data are a good start.
    :param constraint: of the pseudo-inputs, for example ``constraints.unit_interval`` for images.
    :raises TypeError: if ``pseudo_inputs`` is not a floating-point array of at least one dimension.
    :raises ValueError: on use, if no encoder is bound.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import VAE, VampPrior
    >>> encoder = lambda x: jnp.concatenate([x[..., :1], jnp.zeros_like(x[..., :1])], -1)
    >>> decoder = lambda z: jnp.concatenate([z, z], -1)
    >>> vae = VAE(encoder, decoder, 1, prior=VampPrior(jnp.array([[0.0, 0.0], [1.0, 1.0]])), likelihood=0.1)
    >>> print(f"{vae.log_prior(jnp.array([0.0])):.3f}")
    -1.138
    """

    def __init__(
        self, pseudo_inputs: Any, *, constraint: constraints.Constraint = constraints.real, name: str = "prior"
    ) -> None:
        if not hasattr(pseudo_inputs, "dtype") or not jnp.issubdtype(pseudo_inputs.dtype, jnp.floating):
            raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point array, got {pseudo_inputs!r}")
        if pseudo_inputs.ndim == 0 or len(pseudo_inputs) == 0:
            raise ValueError(f"pseudo_inputs: VampPrior expected shape (K, ...), got {pseudo_inputs.shape}")
        super().__init__(name)
        self.pseudo_inputs, self.constraint = jnp.asarray(pseudo_inputs), constraint
        self._encode: Callable[[Any], Any] | None = None

    def bound(self, encode: Callable[[Any], Any]) -> "VampPrior":
        """A copy that uses ``encode``."""
        prior = copy.copy(self)
        prior._encode = encode
        return prior

    def distribution(self, condition: Any = None) -> dist.Distribution:
        """Batch shape ``()``."""
        if condition is not None:
            raise ValueError("condition: VampPrior expected None, got one: its encoder sees no condition")
        if self._encode is None:
            raise ValueError("prior: VampPrior has no encoder yet; give it to a VAE and use that VAE's prior")
        inputs = numpyro.param(f"{self.name}.pseudo_inputs", self.pseudo_inputs, constraint=self.constraint)
        components = self._encode(inputs)
        weights = dist.Categorical(logits=jnp.zeros(len(self.pseudo_inputs), self.pseudo_inputs.dtype))
        return dist.MixtureSameFamily(weights, components)


class EnergyPrior(Prior):
    """An energy distribution as the prior, learned jointly with the networks (Pang et al. 2020).

    The ELBO needs ``log p(z)`` with its normaliser. Families that know it, as a Gaussian-Bernoulli RBM with at most 16
    hidden units, are exact; others need a partition estimator. Without either, a gradient in the prior's parameters
    raises :class:`IntractablePartitionError`, as everywhere in this package.

    :param source: an :class:`EnergyDistribution`, whose parameters are learned: each one by its name,
        ``<name>.<parameter>``, under the family's constraint, and for an energy made of a network its arrays
        ``<name>.network``. An estimator inside it keeps its key. Or a function without arguments that returns one: it
        registers what it wants to learn with ``numpyro.param``, and an estimator it makes gets a new key in every step;
        a function that registers nothing is a fixed prior.
    :raises TypeError: if ``source``, or what the function returns, is no energy distribution.
    :raises ValueError: if the distribution has batch dimensions or is not over vectors of real numbers.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.variational import EnergyPrior
    >>> prior = EnergyPrior(GaussianBernoulliRBM(jnp.zeros((2, 3))))
    >>> print(f"{prior.distribution().log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    """

    def __init__(self, source: Any, *, name: str = "prior") -> None:
        super().__init__(name)
        if not isinstance(source, EnergyDistribution) and (isinstance(source, type) or not callable(source)):
            raise TypeError(
                f"source: EnergyPrior expected an energy distribution or a function that returns one, got {source!r}"
            )
        self.source = source
        if isinstance(source, EnergyDistribution):
            self._check(source)
            self.latent_size = source.event_shape[0]

    def distribution(self, condition: Any = None) -> EnergyDistribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        if isinstance(self.source, EnergyDistribution):
            return self._learned(self.source)
        return self._check(self.source())

    def _check(self, energy: Any) -> EnergyDistribution:
        if not isinstance(energy, EnergyDistribution):
            raise TypeError(f"source: EnergyPrior expected an energy distribution, got {type(energy).__name__}")
        if energy.is_discrete or energy.batch_shape or energy.event_dim != 1:
            raise ValueError(
                "source: EnergyPrior expected a continuous distribution of batch shape () over vectors, got "
                f"{type(energy).__name__} of batch shape {energy.batch_shape} and event shape {energy.event_shape}"
            )
        return energy

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


def normalized_log_prob(distribution: Any) -> Callable[[jax.Array], jax.Array]:
    """The log-density as a function of z of shape ``(latent_size,)``, whose normaliser is computed once, here.

    :raises IntractablePartitionError: if the density is not normalised, since a log-likelihood needs one that is.
    """
    if not isinstance(distribution, EnergyDistribution):
        return lambda z: distribution.log_prob(z)
    if not distribution.is_normalized:
        raise IntractablePartitionError(intractable_message(distribution._title))
    log_partition = distribution.log_partition
    return lambda z: distribution.unnormalized_log_prob(z) - log_partition
