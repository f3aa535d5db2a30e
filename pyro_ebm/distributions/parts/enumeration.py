"""Sums over all states of binary units, and draws from the terms."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from _ppl_ebm.limits import chunk_units
from pyro_ebm.distributions.batching import in_function_transform


def binary_states(num_units: int, dtype: torch.dtype, device: Any = None) -> torch.Tensor:
    """All states of ``num_units`` binary units, shape ``(2**num_units, num_units)``, first unit slowest."""
    codes = torch.arange(2**num_units, device=device)
    shifts = torch.arange(num_units - 1, -1, -1, device=device)
    return ((codes[:, None] >> shifts) & 1).to(dtype)


def enumerate_terms(
    log_term: Callable[[torch.Tensor], torch.Tensor],
    num_units: int,
    dtype: torch.dtype,
    device: Any = None,
    *,
    cost: int,
) -> torch.Tensor:
    """``log_term`` of every binary state, shape ``(..., 2**num_units)``, computed and differentiated chunk by chunk.

    :param log_term: maps states of shape ``(n, num_units)`` to log terms of shape ``(..., n)``.
    :param cost: numbers that it takes for one state, on which the size of the chunks depends.
    """
    states = binary_states(num_units, dtype, device)
    if num_units <= chunk_units(cost):
        return log_term(states)
    return torch.cat([recomputed(log_term, chunk) for chunk in states.split(2 ** chunk_units(cost))], dim=-1)


def recomputed(function: Callable[[torch.Tensor], torch.Tensor], argument: torch.Tensor) -> torch.Tensor:
    """Call ``function`` without keeping its intermediate results for the backward pass, where torch can do so."""
    if in_function_transform() or not torch.is_grad_enabled():
        return function(argument)
    result = checkpoint(function, argument, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, torch.Tensor)
    return result


def sample_index(log_terms: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Draw indices from the categorical distributions over the last axis of ``log_terms`` by inversion.

    :param log_terms: shape ``(*batch, n)``.
    :param shape: shape of the result, whose last dimensions broadcast with ``batch``.
    """
    cumulative = torch.cumsum(torch.softmax(log_terms, -1), -1)
    batch = log_terms.shape[:-1]
    uniform = torch.rand(shape, dtype=cumulative.dtype, device=cumulative.device)
    lead = len(shape) - len(batch)
    columns = uniform.reshape(math.prod(shape[:lead]), *shape[lead:]).movedim(0, -1).contiguous()
    cumulative = cumulative.expand(*columns.shape[:-1], -1).contiguous()
    index = torch.searchsorted(cumulative, columns * cumulative[..., -1:], right=True)
    return index.clamp(max=cumulative.shape[-1] - 1).movedim(-1, 0).reshape(shape)
