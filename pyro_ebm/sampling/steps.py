"""Functional Markov transitions: functions of a state and a target, batched over leading dimensions.

A *target* has ``unnormalized_log_prob`` and ``score``: an energy distribution, or a :class:`Target` made of functions.
``init`` makes the state of chains from positions, and every ``*_step`` advances it and says in an :class:`Info` what
happened. All but :func:`unadjusted_langevin_step` leave ``exp(log-density)`` exactly invariant. Random numbers come
from torch's global generator, and nothing here records gradients.

Step sizes and scales are lengths: standard deviations, not variances. A *scale* preconditions: it multiplies the step
of each coordinate, as a diagonal mass matrix with the entries ``1 / scale^2`` would.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

DIVERGENCE = 1000.0  # a fall of the log-density (kinetic energy included) that no working integrator makes


class State(NamedTuple):
    """Chains at ``position`` with the log-density (up to its constant) and score there."""

    position: torch.Tensor
    log_density: torch.Tensor
    score: torch.Tensor


class PhaseState(NamedTuple):
    """Chains that keep their momentum."""

    position: torch.Tensor
    log_density: torch.Tensor
    score: torch.Tensor
    momentum: torch.Tensor


class Info(NamedTuple):
    """What a transition did: acceptance probability, decision and whether it diverged, per chain."""

    accept_prob: torch.Tensor
    accepted: torch.Tensor
    diverging: torch.Tensor


class Target:
    """A density by its logarithm, up to a constant.

    :param log_density: maps positions of shape ``(*batch, *event)`` to ``(*batch,)``, each on its own.
    :param score: its gradient, of the shape of the positions, where there is a cheaper way to it than differentiation.

    >>> import torch
    >>> from pyro_ebm.infer import steps
    >>> normal = steps.Target(lambda x: -0.5 * (x**2).sum(-1), score=lambda x: -x)
    >>> state = steps.init(normal, torch.zeros(100, 2))
    >>> state, info = steps.hamiltonian_step(state, normal, 0.5, num_leapfrog=5)
    >>> state.position.shape, info.accept_prob.shape
    (torch.Size([100, 2]), torch.Size([100]))
    """

    def __init__(
        self,
        log_density: Callable[[torch.Tensor], torch.Tensor],
        score: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._log_density, self._score = log_density, score

    @torch.no_grad()
    def unnormalized_log_prob(self, position: torch.Tensor) -> torch.Tensor:
        """The log-density, detached."""
        return self._log_density(position)

    def score(self, position: torch.Tensor) -> torch.Tensor:
        """The gradient of the log-density, detached."""
        return self.log_density_and_score(position)[1]

    def log_density_and_score(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, by one pass where the score is by differentiation."""
        if self._score is not None:
            with torch.no_grad():
                return self._log_density(position), self._score(position)
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            log_density = self._log_density(position)
            (score,) = torch.autograd.grad(log_density.sum(), position)
        return log_density.detach(), score


def log_density_and_score(target: Any, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-density and score of a target."""
    if isinstance(target, Target):
        return target.log_density_and_score(position)
    return target.unnormalized_log_prob(position), target.score(position)


@torch.no_grad()
def init(target: Any, position: torch.Tensor) -> State:
    """The state of chains that start at ``position``."""
    return State(position, *log_density_and_score(target, position))


def init_underdamped(target: Any, position: torch.Tensor) -> PhaseState:
    """The state of chains that start at ``position`` with a normal momentum."""
    return PhaseState(*init(target, position), torch.randn_like(position))


@torch.no_grad()
def hamiltonian_step(
    state: State, target: Any, step_size: Any, num_leapfrog: int, jitter: float = 0.5, scale: Any = 1.0
) -> tuple[State, Info]:
    """One Hamiltonian Monte Carlo transition (Duane 1987; Neal 2011, section 5.3.2).

    The trajectory length is jittered by drawing every chain's step size from ``step_size * U(1 - jitter, 1 + jitter)``:
    a fixed length resonates with the target's periods.

    :param step_size: a scalar, or one per element of the batch.
    :param num_leapfrog: leapfrog steps.
    :param jitter: from 0 (none) to 1.
    :param scale: broadcasts against the position.
    """
    momentum = torch.randn_like(state.position)
    size = _sizes(step_size, state)
    if jitter:
        size = size * (1 - jitter + 2 * jitter * torch.rand_like(state.log_density))
    proposal, end_momentum = leapfrog(target, state, momentum, size, num_leapfrog, scale)
    accepted, info = _metropolis(state, proposal, momentum, end_momentum)
    return select(accepted, proposal, state), info


def adjusted_langevin_step(state: State, target: Any, step_size: Any, scale: Any = 1.0) -> tuple[State, Info]:
    """One Metropolis-adjusted Langevin transition, MALA (Roberts & Tweedie 1996).

    The proposal ``x + 0.5 step_size^2 scale^2 score(x) + step_size scale n`` is one leapfrog step.
    """
    return hamiltonian_step(state, target, step_size, 1, 0.0, scale)


@torch.no_grad()
def unadjusted_langevin_step(state: State, target: Any, step_size: Any, scale: Any = 1.0) -> tuple[State, Info]:
    """One step of the unadjusted Langevin algorithm, ULA: the proposal of MALA, always accepted.

    Biased: its stationary distribution differs from the target in order ``step_size^2``. In ``Normal(0, s^2)`` it has
    the variance ``s^2 / (1 - (step_size / (2 s))^2)``. Chains that have left all bounds are reported as diverging.
    """
    size = _sizes(step_size, state)
    size = _over_event(size, state.position) * scale
    position = state.position + 0.5 * size**2 * state.score + size * torch.randn_like(state.position)
    after = init(target, position)
    return after, _always(state)._replace(diverging=~after.log_density.isfinite())


@torch.no_grad()
def underdamped_step(
    state: PhaseState, target: Any, step_size: Any, friction: float = 1.0, num_leapfrog: int = 1, scale: Any = 1.0
) -> tuple[PhaseState, Info]:
    """One transition of adjusted underdamped Langevin dynamics (Horowitz 1991; Neal 2011, section 5.5.3).

    The momentum decays by ``exp(-friction * step_size * num_leapfrog)`` and takes up noise, leapfrog steps follow, and
    a rejection turns the chain around: exact for every step size and friction.

    :param friction: per unit of time; 0 keeps the momentum (and is not ergodic), infinity is Hamiltonian Monte Carlo.
    """
    size = _sizes(step_size, state)
    decay = _over_event(torch.exp(-friction * size * num_leapfrog), state.position)
    momentum = decay * state.momentum + torch.sqrt(1 - decay**2) * torch.randn_like(state.position)
    start = State(*state[:3])
    proposal, end_momentum = leapfrog(target, start, momentum, size, num_leapfrog, scale)
    accepted, info = _metropolis(start, proposal, momentum, end_momentum)
    return select(accepted, PhaseState(*proposal, end_momentum), PhaseState(*start, -momentum)), info


@torch.no_grad()
def block_gibbs_step(state: State, target: Any) -> tuple[State, Info]:
    """One sweep of an energy distribution's own conditionals, which is always accepted."""
    return init(target, target.gibbs_step(state.position)), _always(state)


def sum_event(tensor: torch.Tensor, event_dim: int) -> torch.Tensor:
    """Sum over the last ``event_dim`` dimensions."""
    return tensor.flatten(tensor.dim() - event_dim).sum(-1) if event_dim else tensor


def leapfrog(
    target: Any, state: State, momentum: torch.Tensor, step_size: torch.Tensor, num_leapfrog: int, scale: Any
) -> tuple[State, torch.Tensor]:
    """Follow Hamilton's equations; momenta are in units in which they are standard normal."""
    size = _over_event(step_size, state.position) * scale
    position, momentum = state.position, momentum + 0.5 * size * state.score
    for remaining in range(num_leapfrog - 1, -1, -1):
        position = position + size * momentum
        if remaining:
            momentum = momentum + size * target.score(position)
    log_density, score = log_density_and_score(target, position)
    return State(position, log_density, score), momentum + 0.5 * size * score


def _metropolis(
    state: State, proposal: State, momentum: torch.Tensor, end_momentum: torch.Tensor
) -> tuple[torch.Tensor, Info]:
    kinetic = 0.5 * sum_event(momentum**2 - end_momentum**2, momentum.dim() - state.log_density.dim())
    log_ratio = proposal.log_density - state.log_density + kinetic
    log_ratio = torch.where(torch.isnan(log_ratio), -torch.inf, log_ratio)
    accept_prob = torch.exp(log_ratio.clamp(max=0.0))
    accepted = torch.rand_like(accept_prob) < accept_prob
    return accepted, Info(accept_prob, accepted, log_ratio < -DIVERGENCE)


def _sizes(step_size: Any, state: Any) -> torch.Tensor:
    """A step size for each element of the batch."""
    log_density = state.log_density
    return torch.as_tensor(step_size, dtype=log_density.dtype, device=log_density.device).expand_as(log_density)


def _always(state: State) -> Info:
    ones = torch.ones_like(state.log_density)
    return Info(ones, ones > 0, ones < 0)


def _over_event(tensor: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape + (1,) * (position.dim() - tensor.dim()))


def select(accepted: torch.Tensor, proposal: Any, state: Any) -> Any:
    """The proposal where it is accepted, else the state as it is, of any kind of state."""
    pairs = zip(proposal, state, strict=True)
    return type(state)(*(torch.where(_over_event(accepted, new), new, old) for new, old in pairs))
