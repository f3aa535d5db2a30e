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


def num_outputs(size: int, covariance: str) -> int:
    """Outputs of a network that describes a normal distribution over ``size`` variables."""
    return 2 * size if covariance == "diagonal" else size + size * (size + 1) // 2


def normal_from_raw(raw: jax.Array, size: int, covariance: str, owner: str) -> dist.Distribution:
    """The normal distribution that a network's outputs describe.

    :param raw: shape ``(..., num_outputs(size, covariance))``: the location, then the log standard deviations, or, row
        by row, the lower-triangular factor of the covariance, with logarithms on its diagonal.
    :param owner: the argument that the network was given as, for errors.
    :return: event shape ``(size,)``.
    """
    expected = num_outputs(size, covariance)
    if raw.ndim == 0 or raw.shape[-1] != expected:
        raise ValueError(
            f"{owner}: expected {expected} outputs (a {covariance} normal distribution over {size} latent variables), "
            f"got shape {raw.shape}"
        )
    loc, rest = raw[..., :size], raw[..., size:]
    if covariance == "diagonal":
        return dist.Normal(loc, jnp.exp(rest)).to_event(1)
    return dist.MultivariateNormal(loc, scale_tril=_lower_triangular(rest, size))


def _lower_triangular(entries: jax.Array, size: int) -> jax.Array:
    factor = jnp.zeros((*entries.shape[:-1], size, size), entries.dtype)
    factor = factor.at[(..., *jnp.tril_indices(size))].set(entries)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    identity = jnp.broadcast_to(jnp.eye(size, dtype=entries.dtype), factor.shape)
    return jnp.tril(factor, -1) + jnp.exp(diagonal)[..., None] * identity


def kl_per_dimension(posterior: Any, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """KL divergence of a diagonal normal distribution from a diagonal one, for each dimension, in nats.

    :param posterior: ``Normal(...).to_event(1)``.
    :param loc: of the second distribution, of the same shape ``(..., size)`` as the first's.
    :param scale: standard deviations of the second.
    """
    ratio, shift = posterior.base_dist.scale / scale, (posterior.base_dist.loc - loc) / scale
    return 0.5 * (ratio**2 + shift**2 - 1) - jnp.log(ratio)


def kl_of_full(posterior: Any, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """KL divergence of a multivariate normal distribution from a diagonal one, in nats, shape ``(...,)``."""
    factor = posterior.scale_tril / scale[..., :, None]
    shift = (posterior.loc - loc) / scale
    log_det = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return 0.5 * ((factor**2).sum((-2, -1)) + (shift**2).sum(-1) - shift.shape[-1]) - log_det


def entropy(posterior: Any) -> jax.Array:
    """Differential entropy of either kind of normal distribution in closed form, in nats, shape ``(...,)``."""
    if isinstance(posterior, dist.MultivariateNormal):
        scale = jnp.diagonal(posterior.scale_tril, axis1=-2, axis2=-1)
    else:
        scale = posterior.base_dist.scale
    return (jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi * jnp.e)).sum(-1)


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
