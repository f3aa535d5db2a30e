"""Whether chains have forgotten where they started, as far as many of them, from dispersed starts, can tell."""

import math

import torch

from _ppl_ebm.limits import MEMORY_CHAINS, MEMORY_COUNT
from pyro_ebm.sampling.protocols import Energy


@torch.no_grad()
def remembered(energy: Energy, start: torch.Tensor, end: torch.Tensor) -> tuple[float, float]:
    """The dependence of the ends of chains on their starts: the largest correlation, in standard errors and itself.

    Of every coordinate, and of the energy, it is looked at whether it is above its mean. Under independence such a
    correlation is normal where enough chains are expected in each of the four cases, and else is left out.

    :param start: shape ``(..., *batch_shape, *event_shape)``, chains in the leading dimensions.
    :param end: the same.
    """
    num_lead = start.dim() - len(energy.batch_shape) - len(energy.event_shape)
    num_chains, fixed = math.prod(start.shape[:num_lead]), start.shape[num_lead:]
    if num_chains < 4 * MEMORY_COUNT:
        return 0.0, 0.0
    kept = min(num_chains, MEMORY_CHAINS)
    first, last = (_above_mean(energy, value.reshape(num_chains, *fixed)[:kept]) for value in (start, end))
    first_share, last_share = first.mean(0), last.mean(0)
    covariance = (first * last).mean(0) - first_share * last_share
    spread = first_share * (1 - first_share) * last_share * (1 - last_share)
    rarest = torch.minimum(first_share, 1 - first_share) * torch.minimum(last_share, 1 - last_share)
    correlation = covariance.abs() / spread.sqrt()
    correlation = torch.where(kept * rarest >= MEMORY_COUNT, correlation, 0.0)
    largest = float(correlation.max()) if correlation.numel() else 0.0
    return math.sqrt(kept) * largest, largest


def _above_mean(energy: Energy, value: torch.Tensor) -> torch.Tensor:
    quantities = torch.cat([part.reshape(len(value), -1).double() for part in (value, energy.energy(value))], 1)
    return (quantities > quantities.mean(0)).double()
