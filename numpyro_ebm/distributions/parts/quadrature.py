r"""Partition functions of autoencoder energies over few directions, by quadrature.

.. math::

    Z = \int \exp\Big(-\tfrac{1}{T} \big(\tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k)\big)\Big) \, dx

is Gaussian off the span of the weights, and an integral over ``r = min(D, K)`` coordinates within it. The innermost
coordinate is cut at the activation's kinks and integrated by Gauss-Legendre panels; the others take the trapezoidal
rule, which converges exponentially for smooth integrands on a range that covers their mass. Why no mode is missed
stands in :mod:`_ppl_ebm.quadrature`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp

from _ppl_ebm import quadrature as rules
from numpyro_ebm.distributions.parts.activations import Activation


@functools.partial(jax.jit, static_argnames="activation")
def low_rank_log_partition(
    weights: jax.Array, inputs: jax.Array, gains: jax.Array, activation: Activation, temperature: jax.Array
) -> jax.Array:
    """log Z of the energy above; NaN where the grid cannot resolve the integrand: its half disagrees by 1e-3, or peaks
    would fit between its nodes.

    :param weights: W, shape ``(D, K)`` with ``min(D, K) <= 3``.
    :param inputs: the hidden units' inputs ``b + W'c`` at the visible bias, shape ``(K,)``.
    :param gains: alpha, shape ``(K,)``.
    """
    lines = lines_of(weights, inputs, gains, activation, temperature)
    fine, coarse = lines.log_integrals()
    directions = lines.rows.shape[1]
    gaussian = 0.5 * (len(weights) - directions) * jnp.log(2 * math.pi * temperature)
    sharpness = lines.widths * jnp.sqrt(lines.sharpest()[0])
    tolerance = rules.TOLERANCE + rules.ROUNDINGS * jnp.finfo(fine.dtype).eps * jnp.abs(fine)
    resolved = (sharpness <= rules.widest_cells(directions)).all() & (jnp.abs(fine - coarse) < tolerance)
    return gaussian + jnp.where(resolved, fine, jnp.nan)


def lines_of(
    weights: jax.Array, inputs: jax.Array, gains: jax.Array, activation: Activation, temperature: jax.Array
) -> "Lines":
    """What is integrated, over a range that holds it."""
    rows = _rows(weights)
    rows = rows @ lax.stop_gradient(_generic_rotation(rows))
    widths = _half_widths(rows, inputs, gains, activation, temperature)
    return Lines(activation, rows, inputs, gains, temperature, jnp.zeros_like(widths), widths).narrowed()


def frame_of(weights: jax.Array) -> jax.Array:
    """Orthonormal directions of the coordinates in the space of values, shape ``(D, directions)``."""
    rotation = _generic_rotation(_rows(weights))
    return rotation if weights.shape[0] <= weights.shape[1] else jnp.linalg.qr(weights)[0] @ rotation


def _rows(weights: jax.Array) -> jax.Array:
    return weights.T if weights.shape[0] <= weights.shape[1] else _triangle(weights).T


class Lines(NamedTuple):
    """The integrals over lines along the innermost coordinate."""

    activation: Activation
    rows: jax.Array
    inputs: jax.Array
    gains: jax.Array
    temperature: jax.Array
    middle: jax.Array
    widths: jax.Array

    def narrowed(self) -> "Lines":
        """With the range of each coordinate narrowed to where the density is, which is found between nodes too."""
        lines = Lines(self.activation, *lax.stop_gradient(self[1:]))
        directions = self.rows.shape[1]
        unit = jnp.asarray(rules.search_grid(directions), self.rows.dtype)
        grid = jnp.stack(jnp.meshgrid(*[unit] * directions, indexing="ij"), -1).reshape(-1, len(unit), directions)
        step = 2 / (len(unit) - 1)

        def narrow(_: int, range_: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            middle, widths = range_
            density = lines._replace(middle=middle, widths=widths).log_densities(grid)
            inside = (density >= density.max() - rules.DEPTH - lines.between(step * widths))[..., None]
            low = jnp.maximum(jnp.where(inside, grid, 1.0).min((0, 1)) - step, -1.0)
            high = jnp.minimum(jnp.where(inside, grid, -1.0).max((0, 1)) + step, 1.0)
            return middle + 0.5 * widths * (low + high), 0.5 * widths * (high - low)

        middle, widths = lax.fori_loop(0, rules.NUM_SEARCHES, narrow, (lines.middle, lines.widths))
        return self._replace(middle=middle, widths=widths)

    def log_densities(self, unit: jax.Array) -> jax.Array:
        """At positions of shape ``(m, n, directions)`` within (-1, 1) of the range, shape ``(m, n)``."""
        at = jax.vmap(lambda part: self.log_density(self.middle + self.widths * part))
        return lax.map(at, unit)

    def between(self, cell: jax.Array) -> jax.Array:
        """By how much the log-density inside a cell may exceed that at its corners."""
        bends, jumps = self.sharpest()
        return (bends * cell**2 / 8 + jumps * cell / 4).sum()

    def sharpest(self) -> tuple[jax.Array, jax.Array]:
        """How far at the most the log-density bends down along each coordinate, and its slope jumps down."""
        least, most = self.activation.bends or _seen_bends(self.activation, self.rows.dtype)
        bends = jnp.maximum(jnp.maximum(-self.gains * least, -self.gains * most), 0.0) @ self.rows**2
        jumps = jnp.maximum(-self.gains * self.activation.jump, 0.0) @ jnp.abs(self.rows)
        return (1 + bends) / self.temperature, jumps / self.temperature

    def log_integrals(self) -> tuple[jax.Array, jax.Array]:
        """log of the integral over all coordinates, on the whole grid and on every second node of it."""
        directions = self.rows.shape[1]
        panels, num_outer = rules.PANELS[directions], directions - 1
        if not num_outer:
            none = jnp.zeros(0, self.rows.dtype)
            return self.along(none, panels), self.along(none, panels // 2)
        terms = self._terms(panels)
        cell = jnp.log(2 * self.widths[1:] / (len(terms) - 1)).sum()
        coarse = logsumexp(terms[(slice(None, None, 2),) * num_outer]) + num_outer * math.log(2)
        return logsumexp(terms) + cell, coarse + cell

    def _terms(self, num_panels: int) -> jax.Array:
        """All lines' logarithms, a dimension for each outer coordinate."""
        num_outer = self.rows.shape[1] - 1
        unit = jnp.asarray(rules.outer_grid(num_outer + 1), self.rows.dtype)
        grids = [middle + unit * width for middle, width in zip(self.middle[1:], self.widths[1:], strict=True)]

        def plane(first: jax.Array) -> jax.Array:
            outer = jnp.stack(jnp.meshgrid(first[None], *grids[1:], indexing="ij"), -1).reshape(-1, num_outer)
            return jax.vmap(lambda outer: self.along(outer, num_panels))(outer)

        return lax.map(jax.checkpoint(plane), grids[0]).reshape((len(unit),) * num_outer)

    def along(self, outer: jax.Array, num_panels: int) -> jax.Array:
        """log of the integral over the line through ``outer``."""
        offsets = self.inputs + self.rows[:, 1:] @ outer
        inner = self.middle[0], self.widths[0]
        edges = _panel_edges(self.rows[:, 0], offsets, *inner, self.activation.kinks, num_panels)
        half, middle = 0.5 * jnp.diff(edges), 0.5 * (edges[1:] + edges[:-1])
        nodes = middle[:, None] + half[:, None] * jnp.asarray(rules.PANEL_NODES, edges.dtype)[None]
        areas = half[:, None] * jnp.asarray(rules.PANEL_WEIGHTS, edges.dtype)[None]
        points = jnp.concatenate([nodes[..., None], jnp.broadcast_to(outer, (*nodes.shape, *outer.shape))], axis=-1)
        return logsumexp(jax.vmap(jax.vmap(self.log_density))(points), b=areas)

    def log_density(self, position: jax.Array) -> jax.Array:
        potential = self.activation.antiderivative(self.inputs + self.rows @ position)
        potential = potential if self.activation.is_joint else self.gains @ potential
        return (potential - 0.5 * (position @ position)) / self.temperature


def _seen_bends(activation: Activation, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    derivative = activation.derivative(jnp.asarray(rules.DERIVATIVE_GRID, dtype))
    return derivative.min(), derivative.max()


def _triangle(weights: jax.Array) -> jax.Array:
    """R with ``R'R = W'W`` for a tall W. Where columns depend on each other QR has no derivative, and R is followed
    within their span, which is exact to first order.
    """
    basis, triangle = jnp.linalg.qr(lax.stop_gradient(weights))
    diagonal = jnp.abs(jnp.diagonal(triangle))
    independent = diagonal.min() > jnp.finfo(weights.dtype).eps ** 0.5 * diagonal.max()
    some = jnp.eye(weights.shape[0], weights.shape[1], dtype=weights.dtype)
    smooth = jnp.linalg.qr(jnp.where(independent, weights, some))[1]
    return jnp.where(independent, smooth, basis.T @ weights)


def _generic_rotation(rows: jax.Array) -> jax.Array:
    """An orthonormal basis whose first direction leans on all rows, so that it crosses all kinks at an angle."""
    norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
    mixture = jnp.asarray(rules.mixture(len(rows)), rows.dtype)
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
    return reach + jnp.sqrt(temperature * jnp.diagonal(spread) * (rules.TAIL**2 + excess))


def _panel_edges(
    slopes: jax.Array,
    offsets: jax.Array,
    middle: jax.Array,
    width: jax.Array,
    kinks: tuple[float, ...],
    num_panels: int,
) -> jax.Array:
    """Equal panels over the range, cut where a unit's input crosses a kink."""
    edges = middle + width * jnp.asarray(rules.panel_grid(num_panels), slopes.dtype)
    if not kinks:
        return edges
    flat = slopes == 0
    crossings = (jnp.asarray(kinks, slopes.dtype)[:, None] - offsets[None]) / jnp.where(flat, 1.0, slopes)[None]
    inside = jnp.clip(jnp.where(flat[None], middle, crossings), middle - width, middle + width)
    return jnp.sort(jnp.concatenate([edges, inside.reshape(-1)]))
