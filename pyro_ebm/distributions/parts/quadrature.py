r"""Partition functions of autoencoder energies over few directions, by quadrature.

.. math::

    Z = \int \exp\Big(-\tfrac{1}{T} \big(\tfrac12 |x - c|^2 - \sum_k \alpha_k G(w_k^\top x + b_k)\big)\Big) \, dx

is Gaussian off the span of the weights, and an integral over ``r = min(D, K)`` coordinates within it. The innermost
coordinate is cut at the activation's kinks and integrated by Gauss-Legendre panels; the others take the trapezoidal
rule, which converges exponentially for smooth integrands on a range that covers their mass. Why no mode is missed
stands in :mod:`_ppl_ebm.quadrature`.
"""

import math

import numpy.typing as npt
import torch

from _ppl_ebm import quadrature as rules
from pyro_ebm.distributions.parts.activations import Activation
from pyro_ebm.distributions.parts.enumeration import recomputed

_CHUNK_SIZE = 2**20


def low_rank_log_partition(
    weights: torch.Tensor,
    inputs: torch.Tensor,
    gains: torch.Tensor,
    activation: Activation,
    temperature: torch.Tensor,
) -> torch.Tensor:
    """log Z of the energy above; NaN where the grid cannot resolve the integrand: its half disagrees by 1e-3, or peaks
    would fit between its nodes.

    :param weights: W, shape ``(..., D, K)`` with ``min(D, K) <= 3``.
    :param inputs: the hidden units' inputs ``b + W'c`` at the visible bias, shape ``(..., K)``.
    :param gains: alpha, shape ``(..., K)``.
    :param temperature: T, shape ``(...,)``.
    """
    batch, parts = as_batch(weights, inputs, gains, temperature)
    return Lines(activation, *parts).log_partition().reshape(batch)


def as_batch(
    weights: torch.Tensor, inputs: torch.Tensor, gains: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Size, list[torch.Tensor]]:
    """The batch shape of these parameters, and each of them over all of it, flat."""
    cores = (weights.shape[-2:], inputs.shape[-1:], gains.shape[-1:], torch.Size())
    parts = (weights, inputs, gains, temperature)
    pairs = list(zip(parts, cores, strict=True))
    batch = torch.broadcast_shapes(*[part.shape[: part.dim() - len(core)] for part, core in pairs])
    return batch, [part.expand(batch + core).reshape(math.prod(batch), *core) for part, core in pairs]


class Lines:
    """The integrals over lines along the innermost coordinate, for a flat batch of models.

    A line's index counts the models slowest and the nodes of the last outer coordinate fastest.
    """

    def __init__(
        self,
        activation: Activation,
        weights: torch.Tensor,
        inputs: torch.Tensor,
        gains: torch.Tensor,
        temperature: torch.Tensor,
    ) -> None:
        self.weights, self.size = weights, weights.shape[-2]
        rows = weights.mT if self.size <= weights.shape[-1] else _triangle(weights).mT
        self.rotation = _generic_rotation(rows)
        self.rows = rows @ self.rotation
        self.activation, self.inputs, self.gains, self.temperature = activation, inputs, gains, temperature
        self.directions = rows.shape[-1]
        self.num_nodes = rules.OUTER_NODES[self.directions]
        self.bends, self.jumps = _sharpest(self.rows, gains, activation, temperature)
        self.middle, self.widths = self._range()

    @property
    def frame(self) -> torch.Tensor:
        """Orthonormal directions of the coordinates in the space of values, shape ``(models, D, directions)``."""
        if self.size <= self.weights.shape[-1]:
            return self.rotation
        return torch.linalg.qr(self.weights.detach())[0] @ self.rotation

    def log_partition(self) -> torch.Tensor:
        """log Z of every model."""
        num_outer, panels = self.directions - 1, rules.PANELS[self.directions]
        terms = self._terms(panels)
        if num_outer:
            coarse = terms[(slice(None), *[slice(None, None, 2)] * num_outer)].flatten(1).logsumexp(1)
            coarse = coarse + num_outer * math.log(2)
            fine = terms.flatten(1).logsumexp(1)
        else:
            fine, coarse = terms, self._terms(panels // 2)
        widest = like(rules.widest_cells(self.directions), self.widths)
        tolerance = rules.TOLERANCE + rules.ROUNDINGS * torch.finfo(fine.dtype).eps * fine.abs()
        resolved = (self.widths * self.bends.sqrt() <= widest).all(-1) & ((fine - coarse).abs() < tolerance)
        checked = torch.where(resolved, fine, math.nan)
        cells = torch.log(2 * self.widths[:, 1:] / max(1, self.num_nodes - 1)).sum(-1)
        gaussian = 0.5 * (self.size - self.directions) * torch.log(2 * math.pi * self.temperature)
        return checked + cells + gaussian

    @torch.no_grad()
    def _range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Middle and half the width of each coordinate's range, shape ``(models, directions)``: what a formula allows,
        narrowed to where the density is, which is found between nodes too.
        """
        widths = _half_widths(self.rows, self.inputs, self.gains, self.activation, self.temperature)
        middle, unit = torch.zeros_like(widths), like(rules.search_grid(self.directions), widths)
        grid, step = torch.cartesian_prod(*[unit] * self.directions).reshape(-1, self.directions), 2 / (len(unit) - 1)
        for _ in range(rules.NUM_SEARCHES):
            density = self._densities(grid, middle, widths)
            between = self.between(step * widths)
            inside = density >= density.amax(1, keepdim=True) - rules.DEPTH - between
            kept = torch.where(inside[..., None], grid, math.nan)
            low, high = kept.nan_to_num(nan=1.0).amin(1) - step, kept.nan_to_num(nan=-1.0).amax(1) + step
            low, high = low.clamp(min=-1), high.clamp(max=1)
            middle, widths = middle + widths * 0.5 * (low + high), widths * 0.5 * (high - low)
        return middle, widths

    def log_densities(self, unit: torch.Tensor) -> torch.Tensor:
        """At positions of shape ``(n, directions)`` within (-1, 1) of the range, shape ``(models, n)``."""
        return self._densities(unit, self.middle, self.widths)

    def between(self, cell: torch.Tensor) -> torch.Tensor:
        """By how much the log-density inside a cell may exceed that at its corners, shape ``(models, 1)``."""
        return (self.bends * cell**2 / 8 + self.jumps * cell / 4).sum(-1, keepdim=True)

    def _densities(self, unit: torch.Tensor, middle: torch.Tensor, widths: torch.Tensor) -> torch.Tensor:
        chunks = unit.split(max(1, _CHUNK_SIZE // self.inputs.numel()))
        return torch.cat([self.log_density(middle[:, None] + widths[:, None] * part) for part in chunks], 1)

    def _terms(self, num_panels: int) -> torch.Tensor:
        """All lines' logarithms, shape ``(models, nodes, ...)``, without keeping what the backward pass recomputes."""
        num_models, num_hidden = self.inputs.shape
        num_lines = self.num_nodes ** (self.directions - 1)
        panels = num_panels + num_hidden * len(self.activation.kinks)
        chunk = max(1, _CHUNK_SIZE // (panels * len(rules.PANEL_NODES) * max(1, num_hidden)))
        indices = torch.arange(num_models * num_lines, device=self.inputs.device).split(chunk)
        terms = [recomputed(lambda index: self._integrate(index, num_panels), index) for index in indices]
        return torch.cat(terms).reshape(num_models, *[self.num_nodes] * (self.directions - 1))

    def _integrate(self, index: torch.Tensor, num_panels: int) -> torch.Tensor:
        """Logarithms of the integrals over the lines ``index``, shape ``(n,)``."""
        num_outer = self.directions - 1
        model, node = index // self.num_nodes**num_outer, index.unsqueeze(-1)
        strides = [self.num_nodes**power for power in reversed(range(num_outer))]
        node = node // index.new_tensor(strides) % self.num_nodes
        rows, middle, widths = self.rows[model], self.middle[model], self.widths[model]
        outer = middle[:, 1:] + like(rules.outer_grid(self.directions), rows)[node] * widths[:, 1:]
        offsets = self.inputs[model] + (rows[..., 1:] @ outer.unsqueeze(-1)).squeeze(-1)
        inner = middle[:, :1], widths[:, :1]
        edges = _panel_edges(rows[..., 0], offsets, *inner, self.activation.kinks, num_panels)
        half, centre = 0.5 * edges.diff(), 0.5 * (edges[:, 1:] + edges[:, :-1])
        nodes = (centre.unsqueeze(-1) + half.unsqueeze(-1) * like(rules.PANEL_NODES, rows)).flatten(1)
        areas = (half.unsqueeze(-1) * like(rules.PANEL_WEIGHTS, rows)).flatten(1)
        units = torch.addcmul(offsets[:, None], nodes[..., None], rows[:, None, :, 0])
        potential = self._potential(units, self.gains[model])
        exponent = potential - 0.5 * (nodes**2 + (outer**2).sum(-1, keepdim=True))
        return _log_sum(exponent / self.temperature[model].unsqueeze(-1), areas)

    def log_density(self, position: torch.Tensor, model: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """At ``position`` of shape ``(models, n, directions)`` for these models, shape ``(models, n)``."""
        units = self.inputs[model][:, None] + position @ self.rows[model].mT
        potential = self._potential(units, self.gains[model])
        return (potential - 0.5 * (position**2).sum(-1)) / self.temperature[model].unsqueeze(-1)

    def _potential(self, units: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
        potential = self.activation.antiderivative(units)
        return potential if self.activation.is_joint else (potential @ gains.unsqueeze(-1)).squeeze(-1)


def like(array: npt.ArrayLike, tensor: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array, dtype=tensor.dtype, device=tensor.device)


def _log_sum(exponents: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    """``log sum areas exp(exponents)`` over the last axis; areas may be zero."""
    largest = exponents.detach().amax(-1, keepdim=True)
    return torch.log((areas * torch.exp(exponents - largest)).sum(-1)) + largest.squeeze(-1)


def _triangle(weights: torch.Tensor) -> torch.Tensor:
    """R with ``R'R = W'W`` for a tall W. Where columns depend on each other QR has no derivative, and R is followed
    within their span, which is exact to first order.
    """
    basis, triangle = torch.linalg.qr(weights.detach())
    diagonal = torch.diagonal(triangle, dim1=-2, dim2=-1).abs()
    independent = diagonal.amin(-1) > torch.finfo(weights.dtype).eps ** 0.5 * diagonal.amax(-1)
    independent = independent[..., None, None]
    some = torch.eye(*weights.shape[-2:], dtype=weights.dtype, device=weights.device)
    smooth = torch.linalg.qr(torch.where(independent, weights, some))[1]
    return torch.where(independent, smooth, basis.mT @ weights)


@torch.no_grad()
def _generic_rotation(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal bases whose first direction leans on all rows, so that it crosses all kinks at an angle."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    mixture = like(rules.mixture(rows.shape[-2]), rows)
    first = mixture @ (rows / torch.where(norms > 0, norms, 1.0)) + 1e-3
    eye = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device).expand(*rows.shape[:-2], -1, -1)
    return torch.linalg.qr(torch.cat([first.unsqueeze(-1), eye], -1))[0]


@torch.no_grad()
def _sharpest(
    rows: torch.Tensor, gains: torch.Tensor, activation: Activation, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How far at the most the log-density bends down along each coordinate, and its slope jumps down."""
    least, most = activation.bends or _seen_bends(activation, rows)
    bends = (-gains * least).maximum(-gains * most).clamp(min=0).unsqueeze(-2) @ rows**2
    jumps = (-gains * activation.jump).clamp(min=0).unsqueeze(-2) @ rows.abs()
    heat = temperature.unsqueeze(-1)
    return (1 + bends.squeeze(-2)) / heat, jumps.squeeze(-2) / heat


def _seen_bends(activation: Activation, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    derivative = activation.derivative(like(rules.DERIVATIVE_GRID, tensor))
    return derivative.amin(), derivative.amax()


@torch.no_grad()
def _half_widths(
    rows: torch.Tensor, inputs: torch.Tensor, gains: torch.Tensor, activation: Activation, temperature: torch.Tensor
) -> torch.Tensor:
    """Half the range of each coordinate that holds all but 1e-16 of the mass.

    The energy is bounded below by a quadratic form with the activation's slopes and a linear term with its bound.
    """
    left, right = activation.slopes  # type: ignore[misc]
    slopes = (gains * left).maximum(gains * right).clamp(min=0)
    eye = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    inverse, failed = torch.linalg.inv_ex(eye - (rows.mT * slopes.unsqueeze(-2)) @ rows)
    spread = torch.where(failed[..., None, None] == 0, inverse, math.nan)
    pull = ((slopes * inputs.abs() + gains.abs() * activation.bound).unsqueeze(-2) @ rows.abs()).squeeze(-2)
    reach = (spread.abs() @ pull.unsqueeze(-1)).squeeze(-1)
    heat = temperature.unsqueeze(-1)
    excess = 0.0 if activation.is_bounded else (pull * reach).sum(-1, keepdim=True) / heat
    return reach + torch.sqrt(heat * torch.diagonal(spread, dim1=-2, dim2=-1) * (rules.TAIL**2 + excess))


def _panel_edges(
    slopes: torch.Tensor,
    offsets: torch.Tensor,
    middle: torch.Tensor,
    width: torch.Tensor,
    kinks: tuple[float, ...],
    num_panels: int,
) -> torch.Tensor:
    """Equal panels over the range, cut where a unit's input crosses a kink, shape ``(n, edges)``."""
    edges = middle + width * like(rules.panel_grid(num_panels), slopes)
    if not kinks:
        return edges
    flat = slopes == 0
    crossings = (like(kinks, slopes).unsqueeze(-1) - offsets.unsqueeze(1)) / torch.where(flat, 1.0, slopes)[:, None]
    low, high = (middle - width)[..., None], (middle + width)[..., None]
    inside = torch.where(flat[:, None], high, crossings).clamp(low, high)
    return torch.cat([edges, inside.flatten(1)], -1).sort(-1).values
