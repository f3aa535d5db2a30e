r"""Exact draws from autoencoder energies over few directions, by rejection.

The proposal is uniform within the cells of a grid over the range of the quadrature, whose probabilities are bounds of
the density in them: where it bends down by at most :math:`\kappa` along a coordinate, it is no larger inside a cell of
width h than at a corner, but for :math:`\kappa h^2 / 8`. Off the span of the weights the density is Gaussian.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from _ppl_ebm import quadrature as rules
from numpyro_ebm.distributions.parts.activations import Activation
from numpyro_ebm.distributions.parts.quadrature import frame_of, lines_of
from numpyro_ebm.sampling.types import Key


@functools.partial(jax.jit, static_argnames="activation")
def low_rank_excess(
    weights: jax.Array, inputs: jax.Array, gains: jax.Array, activation: Activation, temperature: jax.Array
) -> jax.Array:
    """By how much the log-density may exceed that at the corners of a cell: exact draws need that it is not much."""
    lines = lines_of(weights, inputs, gains, activation, temperature)
    return lines.between(2 * lines.widths / (rules.CELL_NODES[lines.rows.shape[1]] - 1))


def low_rank_sample(
    rng_key: Key,
    weights: jax.Array,
    inputs: jax.Array,
    gains: jax.Array,
    activation: Activation,
    temperature: jax.Array,
    num_draws: int,
) -> jax.Array:
    """Draws of ``x - c``, shape ``(num_draws, D)``; NaN where none of many proposals was accepted.

    The parameters are those of :func:`numpyro_ebm.distributions.parts.quadrature.low_rank_log_partition`.
    """
    lines, frame = lines_of(weights, inputs, gains, activation, temperature), frame_of(weights)
    size, directions = frame.shape
    nodes = rules.CELL_NODES[directions]
    step = 2 / (nodes - 1)
    unit = jnp.linspace(-1.0, 1.0, nodes, dtype=weights.dtype)
    grid = jnp.stack(jnp.meshgrid(*[unit] * directions, indexing="ij"), -1)
    corners = lines.log_densities(grid.reshape(-1, nodes, directions)).reshape(*[nodes] * directions)
    for axis in range(directions):
        below, above = (lax.slice_in_dim(corners, start, start + nodes - 1, axis=axis) for start in (0, 1))
        corners = jnp.maximum(below, above)
    bounds = corners.reshape(-1) + lines.between(step * lines.widths)
    shares = jnp.cumsum(jnp.exp(bounds - bounds.max()))
    key_noise, key_draw = jax.random.split(rng_key)

    def propose(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        count, draws, pending = state
        key_cell, key_within, key_accept = jax.random.split(jax.random.fold_in(key_draw, count), 3)
        uniform = jax.random.uniform(key_cell, (num_draws,), weights.dtype) * shares[-1]
        cell = jnp.minimum(jnp.searchsorted(shares, uniform), len(bounds) - 1)
        corner = step * jnp.stack(jnp.unravel_index(cell, (nodes - 1,) * directions), -1).astype(weights.dtype) - 1
        within = jax.random.uniform(key_within, (num_draws, directions), weights.dtype)
        position = lines.middle[None] + lines.widths[None] * (corner + step * within)
        gain = jax.vmap(lines.log_density)(position) - bounds[cell]
        accepted = pending & (jnp.log(jax.random.uniform(key_accept, (num_draws,), weights.dtype)) < gain)
        return count + 1, jnp.where(accepted[:, None], position, draws), pending & ~accepted

    start = jnp.asarray(0), jnp.full((num_draws, directions), jnp.nan, weights.dtype), jnp.ones(num_draws, bool)
    _, draws, _ = lax.while_loop(lambda state: (state[0] < rules.MAX_PROPOSALS) & state[2].any(), propose, start)
    inside = draws @ frame.T
    if size == directions:
        return inside
    noise = jnp.sqrt(temperature) * jax.random.normal(key_noise, (num_draws, size), weights.dtype)
    return inside + noise - (noise @ frame) @ frame.T
