r"""Partition functions of autoencoder energies over few directions, by quadrature.

.. math::

    Z = \int \exp\Big(-\tfrac{1}{T} \big(\tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k)\big)\Big) \, dx

is Gaussian off the span of the weights, and an integral over ``r = min(D, K)`` coordinates within it. The innermost
coordinate is cut at the activation's kinks and integrated by Gauss-Legendre panels; the others take the trapezoidal
rule, which converges exponentially for smooth integrands on a range that covers their mass.
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
    """log Z of the energy above; NaN where the grid cannot resolve the integrand (its half disagrees by 1e-3).

    :param weights: W, shape ``(D, K)`` with ``min(D, K) <= 3``.
    :param inputs: the hidden units' inputs ``b + W'c`` at the visible bias, shape ``(K,)``.
    :param gains: alpha, shape ``(K,)``.
    """
    size, num_hidden = weights.shape
    rows = weights.T if size <= num_hidden else _triangle(weights).T
    rows = rows @ lax.stop_gradient(_generic_rotation(rows))
    widths = lax.stop_gradient(_half_widths(rows, inputs, gains, activation, temperature))
    fine, coarse = _Lines(activation, rows, inputs, gains, temperature, widths).log_integrals()
    gaussian = 0.5 * (size - rows.shape[1]) * jnp.log(2 * math.pi * temperature)
    return gaussian + jnp.where(jnp.abs(fine - coarse) < rules.TOLERANCE, fine, jnp.nan)


class _Lines(NamedTuple):
    """The integrals over lines along the innermost coordinate."""

    activation: Activation
    rows: jax.Array
    inputs: jax.Array
    gains: jax.Array
    temperature: jax.Array
    widths: jax.Array

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
        grids = [unit * width for width in self.widths[1:]]

        def plane(first: jax.Array) -> jax.Array:
            outer = jnp.stack(jnp.meshgrid(first[None], *grids[1:], indexing="ij"), -1).reshape(-1, num_outer)
            return jax.vmap(lambda outer: self.along(outer, num_panels))(outer)

        return lax.map(jax.checkpoint(plane), grids[0]).reshape((len(unit),) * num_outer)

    def along(self, outer: jax.Array, num_panels: int) -> jax.Array:
        """log of the integral over the line through ``outer``."""
        offsets = self.inputs + self.rows[:, 1:] @ outer
        edges = _panel_edges(self.rows[:, 0], offsets, self.widths[0], self.activation.kinks, num_panels)
        half, middle = 0.5 * jnp.diff(edges), 0.5 * (edges[1:] + edges[:-1])
        nodes = middle[:, None] + half[:, None] * jnp.asarray(rules.PANEL_NODES, edges.dtype)[None]
        areas = half[:, None] * jnp.asarray(rules.PANEL_WEIGHTS, edges.dtype)[None]
        points = jnp.concatenate([nodes[..., None], jnp.broadcast_to(outer, (*nodes.shape, *outer.shape))], axis=-1)
        return logsumexp(jax.vmap(jax.vmap(self._log_density))(points), b=areas)

    def _log_density(self, position: jax.Array) -> jax.Array:
        potential = self.activation.antiderivative(self.inputs + self.rows @ position)
        potential = potential if self.activation.is_joint else self.gains @ potential
        return (potential - 0.5 * (position @ position)) / self.temperature


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
    slopes: jax.Array, offsets: jax.Array, width: jax.Array, kinks: tuple[float, ...], num_panels: int
) -> jax.Array:
    """Equal panels over the range, cut where a unit's input crosses a kink."""
    edges = width * jnp.asarray(rules.panel_grid(num_panels), slopes.dtype)
    if not kinks:
        return edges
    flat = slopes == 0
    crossings = (jnp.asarray(kinks, slopes.dtype)[:, None] - offsets[None]) / jnp.where(flat, 1.0, slopes)[None]
    inside = jnp.clip(jnp.where(flat[None], width, crossings), -width, width)
    return jnp.sort(jnp.concatenate([edges, inside.reshape(-1)]))
