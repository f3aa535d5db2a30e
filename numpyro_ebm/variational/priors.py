"""Priors of the latent variables: normal, mixtures, and the mixture of posteriors.

The learned parameters of a prior are ``numpyro.param`` sites named ``<name of the autoencoder>.prior.<parameter>``.
"""

import copy
from collections.abc import Mapping
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_between, check_positive_int
from numpyro_ebm.sampling.keys import require_key
from numpyro_ebm.sampling.types import Key
from numpyro_ebm.variational.networks import (
    Network,
    Parameters,
    StartFrom,
    apply_network,
    check_network,
    describe,
    in_evaluation,
    register_network,
)
from numpyro_ebm.variational.normal import normal_from


class Autoencoder(Protocol):
    """What a prior sees of the model it is given to."""

    @property
    def name(self) -> str:
        """Start of the names of its parameter sites."""

    @property
    def learned(self) -> Parameters:
        """Values that its parameter sites start from."""

    def latent_given_data(self, x: ArrayLike, condition: ArrayLike | None = None) -> Distribution:
        """q(z | x)."""


class Prior:
    """The base of priors over ``latent_size`` real variables; their parameters are learned."""

    #: Number of latent variables, or ``None`` where it is the encoder's business.
    latent_size: int | None = None
    #: Whether it is a diagonal normal distribution, so that a KL divergence from it has a closed form.
    is_normal: bool = False
    #: Whether the encoder is a part of it.
    uses_encoder: bool = False
    #: Attributes that are networks, registered as the parameter sites of their names.
    network_names: tuple[str, ...] = ()
    #: The autoencoder it is a part of.
    model: Autoencoder | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    @property
    def is_conditional(self) -> bool:
        """Whether it needs a condition."""
        return False

    def distribution(self, condition: ArrayLike | None = None) -> Distribution:
        """The distribution of z, event shape ``(latent_size,)``.

        :param condition: what a conditional prior is conditioned on, shape ``(N, *condition_shape)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define distribution(condition)")

    def site(self, condition: ArrayLike | None = None) -> Distribution:
        """What the model's site ``z`` has: the distribution itself, or a learning criterion of it."""
        return self.distribution(condition)

    def for_model(self, model: Autoencoder) -> Self:
        """The prior as part of an autoencoder: here a copy, which has its name and starts from what it learned."""
        prior = copy.copy(self)
        prior.model = model
        return prior

    def site_name(self, parameter: str) -> str:
        """The name of a parameter site."""
        return f"prior.{parameter}" if self.model is None else f"{self.model.name}.prior.{parameter}"

    def starting(self) -> StartFrom:
        """A handler under which parameter sites start from what the autoencoder has learned."""
        return StartFrom({} if self.model is None else self.model.learned)

    def parameter(
        self, name: str, start: ArrayLike, constraint: constraints.Constraint = constraints.real
    ) -> jax.Array:
        """A learned parameter, which starts at ``start``."""
        with self.starting():
            return numpyro.param(self.site_name(name), start, constraint=constraint)

    def networks(self) -> Mapping[str, Network]:
        """Its networks by the names of their parameter sites."""
        return {name: getattr(self, name) for name in self.network_names}

    def in_evaluation(self) -> Self:
        """A copy whose networks are in evaluation mode."""
        prior = copy.copy(self)
        for name, network in self.networks().items():
            setattr(prior, name, in_evaluation(network))
        return prior

    def network_of(self, name: str, network: Network) -> Network:
        """A network with its learned arrays, as the parameter site of this name."""
        with self.starting():
            return register_network(self.site_name(name), network)


class NormalPrior(Prior):
    """The standard normal prior, or a learned diagonal normal one given a condition (Sohn et al. 2015).

    :param latent_size: number of latent variables.
    :param network: ``None`` for the standard one, or a network that maps one condition to ``2 * latent_size`` numbers,
        location and log standard deviation.
    :raises TypeError: if ``network`` is neither.
    :raises ValueError: for a ``latent_size`` that is not a positive integer; on use, for a missing condition or a
        network with another number of outputs.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational import NormalPrior
    >>> print(f"{NormalPrior(2).distribution().log_prob(jnp.zeros(2)):.4f}")
    -1.8379
    >>> NormalPrior(2, lambda c: jnp.tile(c, 4)).distribution(jnp.zeros((5, 1))).batch_shape
    (5,)
    """

    latent_size: int
    is_normal = True

    def __init__(self, latent_size: int, network: Network | None = None) -> None:
        check_positive_int("latent_size", latent_size)
        self.latent_size = latent_size
        self.network = None if network is None else check_network("network", network)
        self.network_names = () if network is None else ("network",)

    @property
    def is_conditional(self) -> bool:
        """Whether it has a network."""
        return self.network is not None

    def distribution(self, condition: ArrayLike | None = None) -> Distribution:
        """Batch shape ``()``, or ``(N,)`` for N conditions."""
        if self.network is None:
            return dist.Normal(0.0, 1.0).expand((self.latent_size,)).to_event(1)
        if condition is None:
            raise ValueError("condition: a NormalPrior with a network expected conditions of shape (N, ...), got None")
        with self.starting():
            raw = apply_network(self.site_name("network"), self.network, jnp.asarray(condition))
        return normal_from("prior", raw, self.latent_size, inputs={"condition": jnp.asarray(condition)})

    def __repr__(self) -> str:
        network = "" if self.network is None else f", network: {describe(self.network)}"
        return f"NormalPrior(latent_size={self.latent_size}{network})"


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm.variational import MixturePrior
    >>> MixturePrior(5, 2, rng_key=jax.random.key(0)).distribution().log_prob(jnp.zeros((3, 2))).shape
    (3,)
    """

    latent_size: int

    def __init__(
        self, num_components: int, latent_size: int, *, spread: float = 1.0, rng_key: Key | None = None
    ) -> None:
        check_positive_int("num_components", num_components)
        check_positive_int("latent_size", latent_size)
        check_between("spread", spread, 0, float("inf"))
        self.num_components, self.latent_size = num_components, latent_size
        key = require_key("MixturePrior", rng_key)
        self.initial_loc = spread * jax.random.normal(key, (num_components, latent_size))

    def distribution(self, condition: ArrayLike | None = None) -> Distribution:
        """Batch shape ``()``; any condition is ignored."""
        del condition
        start = self.initial_loc
        logits = self.parameter("logits", jnp.zeros(self.num_components, start.dtype))
        loc = self.parameter("loc", start)
        scale = self.parameter("scale", jnp.ones_like(start), constraints.positive)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1))

    def __repr__(self) -> str:
        return f"MixturePrior(num_components={self.num_components}, latent_size={self.latent_size})"


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
    >>> vae = VAE(lambda x: jnp.tile(x[0], 4), lambda z: z, 2, prior=VampPrior(jnp.ones((4, 3))))
    >>> print(vae.prior.distribution().mixing_distribution.probs)
    [0.25 0.25 0.25 0.25]
    """

    uses_encoder = True

    def __init__(self, pseudo_inputs: ArrayLike, *, constraint: constraints.Constraint = constraints.real) -> None:
        self.pseudo_inputs, self.constraint = _check_inputs(pseudo_inputs), constraint
        if not jnp.isfinite(dist.biject_to(constraint).inv(self.pseudo_inputs)).all():
            raise ValueError(
                f"pseudo_inputs: VampPrior expected values inside {constraint}, got some outside or at its edge"
            )

    def distribution(self, condition: ArrayLike | None = None) -> Distribution:
        """The mixture, batch shape ``()``."""
        del condition
        if self.model is None:
            raise ValueError("prior: VampPrior has no encoder yet; give it to a VAE, and use that VAE's prior")
        inputs = self.parameter("pseudo_inputs", self.pseudo_inputs, self.constraint)
        weights = dist.Categorical(logits=jnp.zeros(len(inputs), inputs.dtype))
        return dist.MixtureSameFamily(weights, self.model.latent_given_data(inputs))

    def __repr__(self) -> str:
        return f"VampPrior(pseudo_inputs: {self.pseudo_inputs.shape}, constraint={self.constraint})"


def _check_inputs(pseudo_inputs: object) -> jax.Array:
    if not isinstance(pseudo_inputs, (jax.Array, np.ndarray)):
        raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point array, got {type(pseudo_inputs).__name__}")
    if not jnp.issubdtype(pseudo_inputs.dtype, jnp.floating):
        raise TypeError(f"pseudo_inputs: VampPrior expected a floating-point array, got {pseudo_inputs.dtype}")
    if pseudo_inputs.ndim < 2 or len(pseudo_inputs) == 0:
        raise ValueError(
            f"pseudo_inputs: VampPrior expected shape (num_components, *event_shape), got {pseudo_inputs.shape}"
        )
    return jnp.asarray(pseudo_inputs)
