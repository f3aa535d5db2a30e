"""What a Markov network computes with its tables: sums in log space, look-ups, draws and the order of a sweep."""

import functools
import math
from typing import Any

import numpy as np
import torch

from _ppl_ebm.factor_graph import FactorGraph
from _ppl_ebm.tables import STIFFNESS


def log_sum(table: torch.Tensor, dim: int) -> torch.Tensor:
    """Log of the sum of ``exp(table)`` over a dimension, where entries and whole sums may be ``-inf``.

    Where no term is possible, cotangents go on to the terms; those of ``logsumexp`` would be NaN even at weight 0.
    """
    largest = table.amax(dim)
    is_impossible = torch.isneginf(largest)
    shift = torch.where(torch.isfinite(largest), largest, 0).detach()
    total = torch.exp(table - shift.unsqueeze(dim)).sum(dim)
    return torch.where(is_impossible, largest, torch.log(torch.where(is_impossible, 1, total)) + shift)


def log_total(total: torch.Tensor) -> torch.Tensor:
    """``total`` itself; where it is ``-inf``, because no state is possible, with NaN for all its derivatives."""
    is_impossible = torch.isneginf(total)
    return torch.where(is_impossible, torch.log(torch.exp(torch.where(is_impossible, total, 0))), total)


def softened(table: torch.Tensor, inverse_temperature: torch.Tensor) -> torch.Tensor:
    """Energies on the way from 0 to ``table``; those that forbid a state grow from 0 to infinity on it."""
    forbids = torch.isposinf(table)
    below = inverse_temperature < 1
    barrier = torch.where(below, -STIFFNESS * torch.log1p(-torch.where(below, inverse_temperature, 0)), math.inf)
    return torch.where(forbids, barrier, inverse_temperature * torch.where(forbids, 0, table))


def concatenated(tables: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """Tables, given with their numbers of dimensions without batch, flat and in one along the last dimension."""
    flat = [table.flatten(-core) if core else table.unsqueeze(-1) for table, core in tables]
    batch = torch.broadcast_shapes(*(table.shape[:-1] for table in flat))
    return torch.cat([table.expand(*batch, -1) for table in flat], -1)


def take(flat: torch.Tensor, index: torch.Tensor, core: int) -> torch.Tensor:
    """Entries of flat tables at indices, batch by batch.

    :param flat: shape ``(*batch, n)``.
    :param index: shape ``(..., *core_shape)`` with ``core`` dimensions in the end; the others broadcast with ``batch``.
    """
    batch = flat.shape[:-1]
    own = [
        torch.arange(size, device=flat.device).reshape(-1, *[1] * (len(batch) - 1 - dim + core))
        for dim, size in enumerate(batch)
    ]
    return flat[(*own, index)]


def draw(logits: torch.Tensor, counts: torch.Tensor, uniform: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Draw from the categorical distributions over the first ``counts`` entries of the last axis, by inversion.

    :param before: what stays where no entry is possible.
    """
    impossible = torch.arange(logits.shape[-1], device=logits.device) >= counts[..., None]
    logits = logits.to(uniform.dtype).masked_fill(impossible, -torch.inf)
    cumulative = torch.cumsum(torch.softmax(logits, -1), -1)
    below = cumulative <= uniform[..., None] * cumulative[..., -1:]
    return torch.where(cumulative[..., -1].isnan(), before, torch.minimum(below.sum(-1), counts - 1))


@functools.lru_cache(maxsize=128)
def sweep_schedule(graph: FactorGraph, device: torch.device) -> list[tuple[torch.Tensor, list[Any]]]:
    """Which variables each step of a sweep redraws, and the blocks of factors that it depends on.

    A block is the number of a group, the variables of some of its factors, the strides of those that stay, where the
    states of the others stand in the flat tables, and the places of these variables among those to redraw.
    """
    tensor = functools.partial(torch.as_tensor, dtype=torch.long, device=device)
    schedule: list[tuple[torch.Tensor, list[Any]]] = [(tensor(members), []) for members in graph.colours]
    for number, group in enumerate(graph.groups):
        for axis, size in enumerate(group.shape):
            steps = group.strides * (np.arange(len(group.shape)) != axis)
            for (_, blocks), (rows, places) in zip(schedule, graph.incident(group, axis), strict=True):
                options = group.offsets[rows, None] + group.strides[axis] * np.arange(size)
                if len(rows):
                    blocks.append((number, *map(tensor, (group.scopes[rows], steps, options, places))))
    return schedule
