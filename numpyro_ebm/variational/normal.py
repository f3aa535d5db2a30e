"""Normal distributions as networks give them, and their KL divergences in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

COVARIANCES = ("diagonal", "full")


def check_covariance(covariance: Any) -> str:
    """The name itself, refused unless it is known."""
    if covariance not in COVARIANCES:
        raise ValueError(f'covariance: expected "diagonal" or "full", got {covariance!r}')
    return str(covariance)


def output_size(size: int, covariance: str = "diagonal") -> int:
    """Outputs of a network that describes a normal distribution over ``size`` variables."""
    return 2 * size if covariance == "diagonal" else size + size * (size + 1) // 2


def normal_from(name: str, output: jax.Array, size: int, covariance: str = "diagonal") -> dist.Distribution:
    """The normal distribution that a network's outputs describe.

    :param name: the network's name in messages.
    :param output: shape ``(..., output_size(size, covariance))``: the location, then the log standard deviations, or,
        row by row, the lower-triangular factor of the covariance, with logarithms on its diagonal.
    :return: event shape ``(size,)``.
    """
    expected = output_size(size, covariance)
    if output.ndim == 0 or output.shape[-1] != expected:
        raise ValueError(
            f"{name}: expected {expected} outputs (a {covariance} normal distribution over {size} latent variables), "
            f"got shape {output.shape}"
        )
    loc, rest = output[..., :size], output[..., size:]
    if covariance == "diagonal":
        return dist.Normal(loc, jnp.exp(rest)).to_event(1)
    return dist.MultivariateNormal(loc, scale_tril=_lower_triangular(rest, size))


def _lower_triangular(entries: jax.Array, size: int) -> jax.Array:
    factor = jnp.zeros((*entries.shape[:-1], size, size), entries.dtype)
    factor = factor.at[(..., *jnp.tril_indices(size))].set(entries)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    identity = jnp.broadcast_to(jnp.eye(size, dtype=entries.dtype), factor.shape)
    return jnp.tril(factor, -1) + jnp.exp(diagonal)[..., None] * identity


def divergence_by_dimension(posterior: Any, prior: Any) -> jax.Array:
    """KL divergence of a diagonal normal distribution from a diagonal one, for each dimension, in nats.

    :param posterior: ``Normal(...).to_event(1)``, whose batch shape the prior's broadcasts to.
    """
    loc, scale = _moments(prior, posterior.base_dist.loc)
    return dist.kl_divergence(posterior.base_dist, dist.Normal(loc, scale))


def divergence(posterior: Any, prior: Any) -> jax.Array:
    """KL divergence of a normal distribution from a diagonal one, in nats, shape ``(...,)``."""
    if not isinstance(posterior, dist.MultivariateNormal):
        return divergence_by_dimension(posterior, prior).sum(-1)
    loc, scale = _moments(prior, posterior.loc)
    factor = scale[..., None] * jnp.broadcast_to(jnp.eye(loc.shape[-1], dtype=loc.dtype), posterior.scale_tril.shape)
    return dist.kl_divergence(posterior, dist.MultivariateNormal(loc, scale_tril=factor))


def _moments(prior: Any, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Locations and standard deviations, of the shape and type of ``like``."""
    moments = (prior.mean, jnp.sqrt(prior.variance))
    loc, scale = (jnp.broadcast_to(moment, like.shape).astype(like.dtype) for moment in moments)
    return loc, scale


def loc_and_scale(posterior: Any) -> tuple[jax.Array, jax.Array]:
    """Location, and standard deviations ``(..., size)`` or the triangular factor ``(..., size, size)``."""
    if isinstance(posterior, dist.MultivariateNormal):
        return posterior.loc, posterior.scale_tril
    return posterior.base_dist.loc, posterior.base_dist.scale


def normal_of(loc: jax.Array, scale: jax.Array) -> dist.Distribution:
    """The distribution that :func:`loc_and_scale` took apart."""
    if scale.ndim > loc.ndim:
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def draw(rng_key: jax.Array, num_samples: int, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """Draws from normal distributions, shape ``(num_samples, ..., size)``."""
    noise = jax.random.normal(rng_key, (num_samples, *loc.shape), loc.dtype)
    if scale.ndim > loc.ndim:
        return loc[None] + jnp.einsum("...ij,s...j->s...i", scale, noise)
    return loc[None] + noise * scale[None]


def log_density(points: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """Log-densities of points ``(num_points, size)`` under one normal distribution."""
    return jax.vmap(normal_of(loc, scale).log_prob)(points)
