r"""Exact draws from autoencoder energies over few directions, by rejection.

The proposal is uniform within the cells of a grid over the range of the quadrature, whose probabilities are bounds of
the density in them: where it bends down by at most :math:`\kappa` along a coordinate, it is no larger inside a cell of
width h than at a corner, but for :math:`\kappa h^2 / 8`. Off the span of the weights the density is Gaussian.
"""

import torch

from _ppl_ebm import quadrature as rules
from pyro_ebm.distributions.parts.activations import Activation
from pyro_ebm.distributions.parts.quadrature import Lines, as_batch, like


@torch.no_grad()
def has_low_rank_sampler(
    weights: torch.Tensor,
    inputs: torch.Tensor,
    gains: torch.Tensor,
    activation: Activation,
    temperature: torch.Tensor,
) -> bool:
    """Whether enough proposals are accepted: not, where weights or gains are too large for the cells."""
    _, parts = as_batch(weights, inputs, gains, temperature)
    lines = Lines(activation, *parts)
    cell = 2 * lines.widths / (rules.CELL_NODES[lines.directions] - 1)
    return bool((lines.between(cell) <= rules.MOST_BETWEEN).all())


@torch.no_grad()
def low_rank_sample(
    weights: torch.Tensor,
    inputs: torch.Tensor,
    gains: torch.Tensor,
    activation: Activation,
    temperature: torch.Tensor,
    num_draws: int,
) -> torch.Tensor:
    """Draws of ``x - c``, shape ``(*batch, num_draws, D)``; NaN where none of many proposals was accepted.

    The parameters are those of :func:`pyro_ebm.distributions.parts.quadrature.low_rank_log_partition`.
    """
    batch, parts = as_batch(weights, inputs, gains, temperature)
    lines = Lines(activation, *parts)
    inside = _Cells(lines).draw(num_draws) @ lines.frame.mT
    if lines.size > lines.directions:
        noise = torch.randn_like(inside) * lines.temperature.sqrt()[:, None, None]
        inside = inside + noise - (noise @ lines.frame) @ lines.frame.mT
    return inside.reshape(*batch, num_draws, lines.size)


class _Cells:
    """The cells of each model's grid, and bounds of the log-density in them, shape ``(models, cells)``."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        size, self.directions = rules.CELL_NODES[lines.directions], lines.directions
        unit = like(torch.linspace(-1, 1, size, dtype=torch.float64), lines.widths)
        self.size, self.step = size - 1, 2 / (size - 1)
        grid = torch.cartesian_prod(*[unit] * self.directions).reshape(-1, self.directions)
        corners = lines.log_densities(grid).reshape(-1, *[size] * self.directions)
        for axis in range(1, 1 + self.directions):
            below, above = (corners.narrow(axis, start, self.size) for start in (0, 1))
            corners = torch.maximum(below, above)
        self.bounds = corners.flatten(1) + lines.between(self.step * lines.widths)
        self.models = len(self.bounds)
        weights = (self.bounds - self.bounds.amax(1, keepdim=True)).double().exp()
        shares = weights.cumsum(1) / weights.sum(1, keepdim=True)
        self.shares = (shares + torch.arange(self.models, device=shares.device)[:, None]).flatten()

    def draw(self, num_draws: int) -> torch.Tensor:
        """Shape ``(models, num_draws, directions)``."""
        draws = self.lines.widths.new_full((self.models * num_draws, self.directions), torch.nan)
        model = torch.arange(self.models, device=draws.device).repeat_interleave(num_draws)
        pending = torch.arange(len(draws), device=draws.device)
        for _ in range(rules.MAX_PROPOSALS):
            if not len(pending):
                break
            position, accepted = self._propose(model[pending])
            draws[pending[accepted]] = position[accepted]
            pending = pending[~accepted]
        return draws.reshape(self.models, num_draws, self.directions)

    def _propose(self, model: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A proposal for each of ``model``, and whether it is accepted."""
        uniform = torch.rand(len(model), dtype=torch.float64, device=model.device)
        total = self.bounds.shape[1]
        cell = torch.searchsorted(self.shares, uniform + model) - model * total
        cell = cell.clamp(max=total - 1)
        strides = torch.tensor([self.size**power for power in reversed(range(self.directions))], device=model.device)
        corner = self.step * (cell[:, None] // strides % self.size) - 1
        middle, widths = self.lines.middle[model], self.lines.widths[model]
        within = torch.rand(len(model), self.directions, dtype=widths.dtype, device=model.device)
        position = middle + widths * (corner.to(widths.dtype) + self.step * within)
        gain = self.lines.log_density(position[:, None], model)[:, 0] - self.bounds[model, cell]
        return position, torch.log(torch.rand_like(gain)) < gain
