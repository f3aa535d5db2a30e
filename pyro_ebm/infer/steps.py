"""Functional Markov transitions: functions of a state and a target, batched over leading dimensions.

A *target* is an energy distribution (anything with ``unnormalized_log_prob`` and ``score``). Every transition leaves
``exp(-energy)`` exactly invariant. Random numbers come from torch's global generator.
"""

from typing import Any, NamedTuple

import torch


class State(NamedTuple):
    """Chains at ``position`` with the log-density (up to its constant) and score there."""

    position: torch.Tensor
    log_density: torch.Tensor
    score: torch.Tensor


class Info(NamedTuple):
    """What a transition did: acceptance probability and decision per chain."""

    accept_prob: torch.Tensor
    accepted: torch.Tensor


def init(target: Any, position: torch.Tensor) -> State:
    """The state of chains that start at ``position``."""
    return State(position, target.unnormalized_log_prob(position), target.score(position))


def hamiltonian_step(
    state: State, target: Any, step_size: Any, num_leapfrog: int, jitter: float = 0.5
) -> tuple[State, Info]:
    """One Hamiltonian Monte Carlo transition (Duane 1987; Neal 2011, section 5.3.2).

    A single leapfrog step without jitter is the Metropolis-adjusted Langevin proposal
    ``x + 0.5 step_size^2 score(x) + step_size n`` (Roberts & Tweedie 1996).

    The trajectory length is jittered by drawing every chain's step size from ``step_size * U(1 - jitter, 1 + jitter)``:
    a fixed length resonates with the target's periods.
    """
    position, log_density, score = state
    event_dim = position.dim() - log_density.dim()
    size = step_size * (1 - jitter + 2 * jitter * torch.rand_like(log_density))
    size = size.reshape(size.shape + (1,) * event_dim)
    momentum = start_momentum = torch.randn_like(position)
    for _ in range(num_leapfrog):
        momentum = momentum + 0.5 * size * score
        position = position + size * momentum
        score = target.score(position)
        momentum = momentum + 0.5 * size * score
    proposal = State(position, target.unnormalized_log_prob(position), score)
    kinetic = 0.5 * sum_event(start_momentum**2 - momentum**2, event_dim)
    log_ratio = proposal.log_density - log_density + kinetic
    accept_prob = torch.where(torch.isnan(log_ratio), 0.0, torch.exp(log_ratio.clamp(max=0.0)))
    accepted = torch.rand_like(accept_prob) < accept_prob
    return _select(accepted, proposal, state), Info(accept_prob, accepted)


def sum_event(tensor: torch.Tensor, event_dim: int) -> torch.Tensor:
    """Sum over the last ``event_dim`` dimensions."""
    return tensor.flatten(tensor.dim() - event_dim).sum(-1) if event_dim else tensor


def _select(accepted: torch.Tensor, proposal: State, state: State) -> State:
    def choose(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return torch.where(accepted.reshape(accepted.shape + (1,) * (new.dim() - accepted.dim())), new, old)

    return State(*map(choose, proposal, state))
