"""Warm-up for a batch of chains: one step size and one diagonal preconditioner, learned by all chains together.

:class:`WarmupAdaptation` holds what is asked for, :class:`AdaptationState` what has been learned so far; after the last
warm-up transition the state does not change any more, so that the chains are Markov chains with the target as their
stationary distribution.
"""

import copy
import dataclasses
import math
from typing import Any, NamedTuple

import torch
from pyro.ops.dual_averaging import DualAveraging

PRECONDITIONERS = ("gradients", "variances", None)
START_BUFFER, FIRST_WINDOW, END_BUFFER = 75, 25, 50  # transitions, from Stan
STUCK = 0.05  # acceptance probability below which a chain tries a shorter step
MAX_HALVINGS = 30


class AdaptationState(NamedTuple):
    """Step size, scale ``(D,)`` and, while warming up, the averages that they come from.

    ``halvings`` says for every chain how many times it has halved the step size for itself. ``scheme`` is the dual
    averaging of the step size; ``num_seen``, ``mean`` and ``squares`` (the sum of squared deviations) are those of what
    the current window has seen.
    """

    step_size: Any
    scale: torch.Tensor
    halvings: torch.Tensor
    scheme: DualAveraging
    num_seen: int
    mean: torch.Tensor
    squares: torch.Tensor

    @property
    def step_sizes(self) -> torch.Tensor:
        """The step size of every chain, shape ``(chains,)``; after warm-up they are equal."""
        return self.step_size * 0.5**self.halvings

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors."""
        return {**self._asdict(), "scheme": dict(vars(self.scheme))}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "AdaptationState":
        """The inverse of :meth:`state_dict`."""
        scheme = DualAveraging()
        vars(scheme).update(state["scheme"])
        return cls(**{**state, "scheme": scheme})


@dataclasses.dataclass(frozen=True)
class WarmupAdaptation:
    """Dual averaging of the step size (Hoffman & Gelman 2014) and windows for the preconditioner as in Stan.

    The step size follows the mean acceptance probability over chains. A mean does not see a few chains that are stuck,
    as in a steep tail: during warm-up, a chain that hardly accepts halves the step for itself until it moves, and does
    not count in the mean until it is back. The preconditioner, a length for every coordinate, is estimated over chains
    and transitions in windows that double, shrunk towards 1e-3 (in squares) like Stan's with the weight of five draws,
    and renewed at the end of each.

    :param num_warmup: transitions to adapt in; fewer than 20 leave the preconditioner at 1.
    :param step_size: the first one, a length in units of the preconditioned coordinates.
    :param adapt_step_size: whether to change it.
    :param target_accept_prob: what it is tuned to.
    :param preconditioner: ``"gradients"``, one over the root mean square of the score; ``"variances"``, the standard
        deviation of the positions; or ``None``, which stays at 1.

    >>> import torch
    >>> from pyro_ebm.sampling.adaptation import WarmupAdaptation
    >>> adaptation = WarmupAdaptation(200, 1.0, True, 0.8, "variances")
    >>> adaptation.windows
    [(75, 100), (100, 150)]
    >>> state = adaptation.init(torch.zeros(4, 3))
    >>> state.step_size, state.scale
    (1.0, tensor([1., 1., 1.]))
    """

    num_warmup: int
    step_size: float
    adapt_step_size: bool
    target_accept_prob: float
    preconditioner: str | None

    @property
    def windows(self) -> list[tuple[int, int]]:
        """First transition, and the one after the last, of every window of the preconditioner."""
        if self.preconditioner is None or self.num_warmup < 20:
            return []
        start, length, end = START_BUFFER, FIRST_WINDOW, self.num_warmup - END_BUFFER
        if start + length > end:
            start, end = int(0.15 * self.num_warmup), self.num_warmup - int(0.1 * self.num_warmup)
            length = end - start
        windows = []
        while start < end:
            if 3 * length > end - start:  # the next window, twice as long, would not fit
                length = end - start
            windows.append((start, start + length))
            start, length = start + length, 2 * length
        return windows

    def init(self, position: torch.Tensor) -> AdaptationState:
        """What is known before warm-up, for positions ``(chains, D)``."""
        zeros = torch.zeros_like(position[0])
        scheme = DualAveraging(prox_center=math.log(10 * self.step_size))
        none = torch.zeros_like(position[:, 0])
        return AdaptationState(self.step_size, torch.ones_like(zeros), none, scheme, 0, zeros, zeros)

    def update(self, state: AdaptationState, index: int, accept_prob: torch.Tensor, chain: Any) -> AdaptationState:
        """Learn from the transition number ``index``, counted from 0; after warm-up the state stays as it is.

        :param accept_prob: acceptance probabilities, shape ``(chains,)``.
        :param chain: the state of the chains after the transition.
        """
        if index >= self.num_warmup:
            return state
        if self.adapt_step_size:
            state = self._learn_step_size(state, accept_prob)
        for start, end in self.windows:
            if start <= index < end:
                state = _learn_moments(state, chain.score if self.preconditioner == "gradients" else chain.position)
            if index == end - 1:
                state = self._renew_scale(state)
        return self.finish(state) if index == self.num_warmup - 1 else state

    def finish(self, state: AdaptationState) -> AdaptationState:
        """End the warm-up: the step size becomes the average over its latest window."""
        state = state._replace(halvings=torch.zeros_like(state.halvings))
        learned = self.adapt_step_size and state.scheme._t
        return state._replace(step_size=math.exp(state.scheme.get_state()[1])) if learned else state

    def _learn_step_size(self, state: AdaptationState, accept_prob: torch.Tensor) -> AdaptationState:
        stuck, full = accept_prob < STUCK, state.halvings == 0
        halvings = torch.where(stuck, state.halvings + 1, state.halvings - 1).clamp(0, MAX_HALVINGS)
        state = state._replace(halvings=halvings)
        counted = full if full.any() else stuck  # a shorter step that is refused tells that the full one would be
        if not counted.any():
            return state
        scheme = copy.copy(state.scheme)
        scheme.step(self.target_accept_prob - accept_prob[counted].mean().item())
        return state._replace(step_size=math.exp(scheme.get_state()[0]), scheme=scheme)

    def _renew_scale(self, state: AdaptationState) -> AdaptationState:
        """A scale from the window's moments; the step size keeps its mean length, and its averages start anew."""
        if self.preconditioner == "gradients":
            square = state.squares / max(state.num_seen, 1) + state.mean**2
        else:
            square = state.squares / max(state.num_seen - 1, 1)
        root = torch.sqrt((state.num_seen * square + 5e-3) / (state.num_seen + 5))
        scale = 1 / root if self.preconditioner == "gradients" else root
        step_size, zeros = state.step_size, torch.zeros_like(scale)
        if self.adapt_step_size:
            step_size *= math.exp((state.scale.log() - scale.log()).mean().item())
        scheme = DualAveraging(prox_center=math.log(10 * step_size))
        return AdaptationState(step_size, scale, state.halvings, scheme, 0, zeros, zeros)


def _learn_moments(state: AdaptationState, seen: torch.Tensor) -> AdaptationState:
    """Add rows ``(chains, D)`` to the moments of the window (Chan, Golub & LeVeque 1983); a chain at infinity is not
    counted."""
    seen = seen[seen.isfinite().all(-1)]
    if not len(seen):
        return state
    count = state.num_seen + len(seen)
    centre = seen.mean(0)
    shift = centre - state.mean
    squares = state.squares + ((seen - centre) ** 2).sum(0) + shift**2 * (state.num_seen * len(seen) / count)
    return state._replace(num_seen=count, mean=state.mean + shift * (len(seen) / count), squares=squares)
