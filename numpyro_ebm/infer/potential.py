"""Log-densities of a model's latent sites in unconstrained coordinates, as NumPyro derives them, and as targets.

Chains move in vectors: all unconstrained sites, flattened and put one after the other.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to
from numpyro.infer.util import initialize_model, transform_fn

from numpyro_ebm.sampling.types import Key, Model, ModelArgs, ModelKwargs, PyTree, Site

#: Potential energy of unconstrained sites.
PotentialFn = Callable[[PyTree], jax.Array]


class SiteFunctions(NamedTuple):
    """What NumPyro makes of a model with continuous latent sites.

    :param potential_fn: maps arguments of the model to the potential energy of unconstrained sites.
    :param postprocess_fn: maps arguments of the model to the way from unconstrained sites to values, with deterministic
        sites.
    :param transforms: from unconstrained to constrained values, by site.
    :param moving: sites whose supports may depend on other sites.
    """

    potential_fn: Callable[..., PotentialFn]
    postprocess_fn: Callable[..., Callable[[PyTree], PyTree]]
    transforms: Mapping[str, Transform]
    moving: tuple[str, ...]

    def constrain_fn(self, args: ModelArgs, kwargs: ModelKwargs) -> Callable[[PyTree], PyTree]:
        """From unconstrained to constrained sites; the model runs only where supports move."""
        if self.moving:
            return self.postprocess_fn(*args, **kwargs)
        return functools.partial(transform_fn, self.transforms)

    def unconstrain(self, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Unconstrained sites of constrained ones."""
        return transform_fn(self.transforms, values, invert=True)


def site_functions(
    rng_key: Key, model: Model, init_strategy: Callable[..., PyTree], args: ModelArgs, kwargs: ModelKwargs
) -> tuple[PyTree, SiteFunctions]:
    """Unconstrained sites of finite density, by an initial strategy of the host, and the model's functions.

    :param rng_key: one key, or one for each chain, whose starting points then have a leading dimension.
    :raises RuntimeError: of the host, if there is no such point, or for discrete sites that cannot be summed out.
    """
    info = initialize_model(
        rng_key, model, init_strategy=init_strategy, dynamic_args=True, model_args=args, model_kwargs=kwargs
    )
    latent = {name: site for name, site in info.model_trace.items() if _is_continuous_latent(site)}
    transforms = {name: biject_to(site["fn"].support) for name, site in latent.items()}
    moving = tuple(name for name, site in latent.items() if _may_move(site["fn"].support))
    return info.param_info.z, SiteFunctions(info.potential_fn, info.postprocess_fn, transforms, moving)


def _is_continuous_latent(site: Site) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not site["fn"].support.is_discrete


def _may_move(support: constraints.Constraint) -> bool:
    """Whether a support has bounds that are not plain numbers, and so may be other sites' values (as the host asks)."""
    bounds = []
    if isinstance(support, constraints.greater_than):
        bounds = [support.lower_bound]
    elif isinstance(support, constraints.interval):
        bounds = [support.lower_bound, support.upper_bound]
    return any(not isinstance(bound, (int, float)) for bound in bounds)


class Potential:
    """The target of chains whose positions are vectors.

    :param potential_fn: potential energy of unconstrained sites.
    :param sites: an example of these, for their structure.
    :param score: gradient of the log-density in the sites, where there is a cheaper way to it than differentiation.
    """

    def __init__(
        self, potential_fn: PotentialFn, sites: PyTree, score: Callable[[PyTree], PyTree] | None = None
    ) -> None:
        self.unravel: Callable[[jax.Array], PyTree] = ravel_pytree(sites)[1]
        self._value_and_gradient = _value_and_gradient(potential_fn, score)

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        """Minus the potential energy at a position ``(D,)``."""
        return -self._value_and_gradient(self.unravel(position))[
            0
        ]  # of which a compiler shares the work with the score

    def score(self, position: jax.Array) -> jax.Array:
        """The gradient of the log-density, shape ``(D,)``."""
        return -ravel(self._value_and_gradient(self.unravel(position))[1])


def ravel(sites: PyTree) -> jax.Array:
    """Unconstrained sites as one vector."""
    return ravel_pytree(sites)[0]


def _value_and_gradient(
    potential_fn: PotentialFn, score: Callable[[PyTree], PyTree] | None
) -> Callable[[PyTree], tuple[jax.Array, PyTree]]:
    if score is None:
        return jax.value_and_grad(potential_fn)
    return lambda z: (potential_fn(z), jax.tree.map(jnp.negative, score(z)))
