r"""Partition functions of autoencoder energies over few directions, by quadrature.

.. math::

    Z = \int \exp\Big(-\tfrac{1}{T} \big(\tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k)\big)\Big) \, dx

is Gaussian off the span of the weights, and an integral over ``r = min(D, K)`` coordinates within it. The innermost
coordinate is cut at the activation's kinks and integrated by Gauss-Legendre panels; the others take the trapezoidal
rule, which converges exponentially for smooth integrands on a range that covers their mass.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from numpyro_ebm.distributions.activations import Activation

#: Directions that quadrature covers.
MAX_DIRECTIONS = 3
_OUTER_NODES = {1: 1, 2: 385, 3: 97}
_PANELS = {1: 64, 2: 24, 3: 16}
_PANEL_NODES, _PANEL_WEIGHTS = np.polynomial.legendre.leggauss(8)
_TAIL = 8.5  # standard deviations beyond which a Gaussian has less than 1e-16 of its mass
_TOLERANCE = 1e-3


@functools.partial(jax.jit, static_argnames="activation")
def low_rank_log_partition(
    weights: jax.Array, inputs: jax.Array, gains: jax.Array, activation: Activation, temperature: jax.Array
) -> jax.Array:
    """log Z of the energy above; NaN where the grid cannot resolve the integrand (its half disagrees by 1e-3).

    :param weights: W, shape ``(D, K)`` with ``min(D, K) <= 3``.
    :param inputs: the hidden units' inputs ``b + W'c`` at the visible bias, shape ``(K,)``.
    :param gains: alpha, shape ``(K,)``.
    """
    size, num_hidden = weights.shape
    rows = weights.T if size <= num_hidden else jnp.linalg.qr(weights, mode="r").T
    rows = rows @ lax.stop_gradient(_generic_rotation(rows))
    widths = lax.stop_gradient(_half_widths(rows, inputs, gains, activation, temperature))
    directions = rows.shape[1]

    def log_density(position: jax.Array) -> jax.Array:
        units = inputs + rows @ position
        potential = activation.antiderivative(units)
        return ((potential if activation.is_joint else gains @ potential) - 0.5 * (position @ position)) / temperature

    def inner(outer: jax.Array, num_panels: int) -> jax.Array:
        offsets = inputs + rows[:, 1:] @ outer
        edges = _panel_edges(rows[:, 0], offsets, widths[0], activation.kinks, num_panels)
        half, middle = 0.5 * jnp.diff(edges), 0.5 * (edges[1:] + edges[:-1])
        nodes = middle[:, None] + half[:, None] * jnp.asarray(_PANEL_NODES, edges.dtype)[None]
        areas = half[:, None] * jnp.asarray(_PANEL_WEIGHTS, edges.dtype)[None]
        points = jnp.concatenate([nodes[..., None], jnp.broadcast_to(outer, (*nodes.shape, *outer.shape))], axis=-1)
        return logsumexp(jax.vmap(jax.vmap(log_density))(points), b=areas)

    gaussian = 0.5 * (size - directions) * jnp.log(2 * math.pi * temperature)
    if directions == 1:
        none = jnp.zeros(0, weights.dtype)
        return gaussian + _checked(inner(none, _PANELS[1]), inner(none, _PANELS[1] // 2))
    num_nodes = _OUTER_NODES[directions]
    unit = jnp.linspace(-1, 1, num_nodes, dtype=weights.dtype)
    grids = [unit * width for width in widths[1:]]
    along = jax.vmap(lambda outer: inner(outer, _PANELS[directions]))

    def line(first: jax.Array) -> jax.Array:
        return along(jnp.stack(jnp.meshgrid(first[None], *grids[1:], indexing="ij"), -1).reshape(-1, directions - 1))

    terms = lax.map(jax.checkpoint(line), grids[0]).reshape((num_nodes,) * (directions - 1))
    cell = jnp.log(2 * widths[1:] / (num_nodes - 1)).sum()
    every_other = terms[(slice(None, None, 2),) * (directions - 1)]
    coarse = logsumexp(every_other) + cell + (directions - 1) * math.log(2)
    return gaussian + _checked(logsumexp(terms) + cell, coarse)


def _checked(fine: jax.Array, coarse: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(fine - coarse) < _TOLERANCE, fine, jnp.nan)


def _generic_rotation(rows: jax.Array) -> jax.Array:
    """An orthonormal basis whose first direction leans on all rows, so that it crosses all kinks at an angle."""
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    mixture = jnp.asarray([1.0, 0.8, 0.6], rows.dtype)[jnp.arange(len(rows)) % 3]
    first = mixture @ (rows / jnp.where(norms > 0, norms, 1.0)) + 1e-3
    frame = jnp.concatenate([first[:, None], jnp.eye(rows.shape[1], dtype=rows.dtype)], axis=1)
    return jnp.linalg.qr(frame)[0]


def _half_widths(
    rows: jax.Array, inputs: jax.Array, gains: jax.Array, activation: Activation, temperature: jax.Array
) -> jax.Array:
    """Half the range of each coordinate that holds all but 1e-16 of the mass.

    The energy is bounded below by a quadratic form with the activation's slopes and a linear term with its bound.
    """
    left, right = activation.slopes  # type: ignore[misc]
    slopes = jnp.maximum(jnp.maximum(gains * left, gains * right), 0)
    spread = jnp.linalg.inv(jnp.eye(rows.shape[1], dtype=rows.dtype) - (rows.T * slopes[None]) @ rows)
    pull = (slopes * jnp.abs(inputs) + jnp.abs(gains) * activation.bound) @ jnp.abs(rows)
    reach = jnp.abs(spread) @ pull
    excess = 0.0 if activation.is_bounded else pull @ reach / temperature
    return reach + jnp.sqrt(temperature * jnp.diagonal(spread) * (_TAIL**2 + excess))


def _panel_edges(
    slopes: jax.Array, offsets: jax.Array, width: jax.Array, kinks: tuple[float, ...], num_panels: int
) -> jax.Array:
    """Equal panels over the range, cut where a unit's input crosses a kink."""
    edges = width * jnp.linspace(-1, 1, num_panels + 1, dtype=slopes.dtype)
    if not kinks:
        return edges
    flat = slopes == 0
    crossings = (jnp.asarray(kinks, slopes.dtype)[:, None] - offsets[None]) / jnp.where(flat, 1.0, slopes)[None]
    inside = jnp.clip(jnp.where(flat[None], width, crossings), -width, width)
    return jnp.sort(jnp.concatenate([edges, inside.reshape(-1)]))
