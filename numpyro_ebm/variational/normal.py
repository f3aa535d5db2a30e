"""Normal distributions as networks give them, and their KL divergences in closed form."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import Distribution
from numpyro.util import not_jax_tracer

from _ppl_ebm.normals import (
    Covariance,
    EncoderOutput,
    check_output,
    check_rows_of_output,
    not_normal,
    output_size,
)
from numpyro_ebm.sampling.types import Key, PyTree

__all__ = ["draw", "kl_divergence", "kl_divergence_by_dimension", "loc_and_scale", "log_density", "normal_from"]
__all__ += ["normal_of", "output_size"]


def normal_from(
    name: str,
    output: PyTree,
    size: int,
    covariance: Covariance = "diagonal",
    *,
    encoder_output: EncoderOutput = "log_scale",
    inputs: Mapping[str, jax.Array] | None = None,
) -> Distribution:
    """The normal distribution whose parameters a network returned.

    :param name: the network's name in messages.
    :param output: shape ``(..., output_size(size, covariance))``, as :func:`output_size` describes it.
    :param size: dimensions.
    :param covariance: ``"diagonal"`` or ``"full"``.
    :param encoder_output: what the standard deviations, or the diagonal of the factor, are made of; where traced, NaN
        for scales and variances that are not positive.
    :param inputs: the network's arguments by name, of one row for each row of the output.
    :return: batch shape ``(...)``, event shape ``(size,)``.
    :raises TypeError: if the output is no array.
    :raises ValueError: for an output of another shape, and, unless it is traced, one that parametrises no distribution.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.normal import normal_from
    >>> print(normal_from("encoder", jnp.array([1.0, 2.0, 0.0, 0.5, 0.0]), 2, "full").covariance_matrix)
    [[1.   0.5 ]
     [0.5  1.25]]
    """
    if not isinstance(output, jax.Array):
        raise TypeError(f"{name}: expected a network that returns an array, got a {type(output).__name__}")
    check_output(name, output.shape, size, covariance)
    if inputs:
        check_rows_of_output(name, output.shape, len(next(iter(inputs.values()))))
    loc, rest = output[..., :size], output[..., size:]
    if covariance == "diagonal":
        scale = diagonal = _positive(rest, encoder_output)
    else:
        scale = _lower_triangular(rest, size, encoder_output)
        diagonal = jnp.diagonal(scale, axis1=-2, axis2=-1)
    is_wrong = ~(jnp.isfinite(output).all(-1) & ((diagonal > 0) & jnp.isfinite(diagonal)).all(-1))
    if not_jax_tracer(is_wrong) and is_wrong.any():
        bad = [key for key, array in (inputs or {}).items() if not_jax_tracer(array) and not jnp.isfinite(array).all()]
        raise not_normal(name, encoder_output, int(is_wrong.sum()), is_wrong.size, bad)
    return normal_of(loc, scale)


def _positive(raw: jax.Array, encoder_output: EncoderOutput) -> jax.Array:
    """Standard deviations from what a network says of them, NaN where it says what is not positive."""
    if encoder_output == "log_scale":
        return jnp.exp(raw)
    positive = jnp.where(raw > 0, raw, jnp.nan)
    return jnp.sqrt(positive) if encoder_output == "variance" else positive


def _lower_triangular(entries: jax.Array, size: int, encoder_output: EncoderOutput) -> jax.Array:
    """Lower-triangular matrices from their rows, the diagonal made positive."""
    factor = jnp.zeros((*entries.shape[:-1], size, size), entries.dtype)
    factor = factor.at[(..., *jnp.tril_indices(size))].set(entries)
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    identity = jnp.broadcast_to(jnp.eye(size, dtype=entries.dtype), factor.shape)
    return jnp.tril(factor, -1) + _positive(diagonal, encoder_output)[..., None] * identity


def kl_divergence(posterior: Distribution, prior: Distribution) -> jax.Array:
    """KL(posterior | prior) in closed form, of a normal distribution from a diagonal one, shape ``batch_shape``.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.variational.normal import kl_divergence, normal_from
    >>> standard = normal_from("prior", jnp.zeros(4), 2)
    >>> print(kl_divergence(normal_from("encoder", jnp.array([1.0, 0.0, 0.0, 0.0, 0.0]), 2, "full"), standard))
    0.5
    """
    if not isinstance(posterior, dist.MultivariateNormal):
        return kl_divergence_by_dimension(posterior, prior).sum(-1)
    loc, scale = _moments(prior, posterior.loc)
    factor = scale[..., None] * jnp.broadcast_to(jnp.eye(loc.shape[-1], dtype=loc.dtype), posterior.scale_tril.shape)
    return dist.kl_divergence(posterior, dist.MultivariateNormal(loc, scale_tril=factor))


def kl_divergence_by_dimension(posterior: Distribution, prior: Distribution) -> jax.Array:
    """The terms of :func:`kl_divergence`, one for each dimension, of two diagonal normal distributions.

    :return: shape ``(..., size)``.
    """
    loc, scale = loc_and_scale(posterior)
    return dist.kl_divergence(dist.Normal(loc, scale), dist.Normal(*_moments(prior, loc)))


def _moments(prior: Distribution, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Locations and standard deviations, of the shape and type of ``like``."""
    moments = (prior.mean, jnp.sqrt(prior.variance))
    loc, scale = (jnp.broadcast_to(moment, like.shape).astype(like.dtype) for moment in moments)
    return loc, scale


def loc_and_scale(posterior: Distribution) -> tuple[jax.Array, jax.Array]:
    """Location, and standard deviations ``(..., size)`` or the triangular factor ``(..., size, size)``."""
    if isinstance(posterior, dist.Independent):
        base: dist.Normal = posterior.base_dist
        return base.loc, base.scale
    full: dist.MultivariateNormal = posterior
    return full.loc, full.scale_tril


def normal_of(loc: jax.Array, scale: jax.Array) -> Distribution:
    """The distribution that :func:`loc_and_scale` took apart."""
    if scale.ndim > loc.ndim:
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def draw(rng_key: Key, num_samples: int, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """Draws from normal distributions, shape ``(num_samples, ..., size)``."""
    noise = jax.random.normal(rng_key, (num_samples, *loc.shape), loc.dtype)
    if scale.ndim > loc.ndim:
        return loc[None] + jnp.einsum("...ij,s...j->s...i", scale, noise)
    return loc[None] + noise * scale[None]


def log_density(points: jax.Array, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """Log-densities of points ``(num_points, size)`` under one normal distribution."""
    return jax.vmap(normal_of(loc, scale).log_prob)(points)
