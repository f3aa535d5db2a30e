"""Warm-up of gradient-informed kernels: a step size, and a diagonal preconditioner from what the chains see.

All chains of a batch learn together. The last tenth of the warm-up learns nothing: what is kept comes from Markov
chains with the target as their stationary distribution, and the first draw too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from _ppl_ebm.adaptation import (
    LINEAR,
    MAX_HALVINGS,
    MAX_REACH,
    PRIOR_DRAWS,
    STUCK,
    DualAveraging,
    Moments,
    Schedule,
)
from _ppl_ebm.states import check_fields


class AdaptationState(NamedTuple):
    """What the chains have learned.

    :param step_size: the step size now, a scalar, or one for each temperature.
    :param scale: the preconditioner now: lengths, shape ``(D,)``.
    :param averaging: the averages from which the step size comes.
    :param moments: what the current window of the preconditioner has seen.
    :param halvings: how many times every chain has halved the step size for itself, shape ``(chains, ...)``.
    """

    step_size: torch.Tensor
    scale: torch.Tensor
    averaging: DualAveraging
    moments: Moments
    halvings: torch.Tensor

    @property
    def step_sizes(self) -> torch.Tensor:
        """The step size of every chain, shape ``(chains, ...)``; after warm-up they are equal."""
        return self.step_size * 0.5**self.halvings

    def state_dict(self) -> dict[str, Any]:
        """Tensors only."""
        return {**self._asdict(), "averaging": self.averaging._asdict(), "moments": self.moments._asdict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "AdaptationState":
        """The inverse of :meth:`state_dict`.

        :raises ValueError: for other keys.
        """
        check_fields("state_dict: adaptation", state, cls._fields)
        check_fields("state_dict: averaging", state["averaging"], DualAveraging._fields)
        check_fields("state_dict: moments", state["moments"], Moments._fields)
        averages = {"averaging": DualAveraging(**state["averaging"]), "moments": Moments(**state["moments"])}
        return cls(**{**state, **averages})


@dataclasses.dataclass(frozen=True)
class WarmupAdaptation:
    """Dual averaging of the step size (Hoffman & Gelman 2014) and windows for the preconditioner as in Stan.

    A scale comes from the mean squares in its window. In equilibrium the covariance of position and score is -1, in a
    short warm-up it is not yet: where the two are correlated well enough to tell, the squares are taken relative to it,
    which gives a normal density's scales exactly from wherever the chains come. What a window tells is averaged with
    what was before, which has the weight of five draws.

    The step size follows the mean acceptance probability over chains. A mean does not see a few chains that are stuck,
    as in a steep tail: during warm-up, one of several chains that hardly accepts halves the step for itself until it
    moves, and does not count in the mean until it is back.

    :param num_warmup: transitions of the warm-up; see :class:`_ppl_ebm.adaptation.Schedule`.
    :param step_size: the first one, a length in units of the preconditioned coordinates.
    :param adapt_step_size: whether to change it.
    :param target_accept_prob: what it is tuned to.
    :param preconditioner: ``"gradients"``, one over the root mean square of the score; ``"variances"``, the standard
        deviation of the positions; or ``None``, which stays at 1.

    >>> import torch
    >>> from pyro_ebm.sampling.adaptation import WarmupAdaptation
    >>> adaptation = WarmupAdaptation(200, 1.0, True, 0.8, "variances")
    >>> adaptation.schedule.windows
    ((27, 36), (36, 54), (54, 135))
    >>> state = adaptation.init(torch.zeros(4, 3))
    >>> float(state.step_size), state.scale.shape
    (1.0, torch.Size([3]))
    """

    num_warmup: int
    step_size: float
    adapt_step_size: bool
    target_accept_prob: float
    preconditioner: str | None

    @property
    def schedule(self) -> Schedule:
        """When it learns what."""
        return Schedule(self.num_warmup)

    def init(self, position: torch.Tensor, step_size: torch.Tensor | None = None) -> AdaptationState:
        """What is known before warm-up, for positions ``(chains, D)``.

        :param step_size: the first one, if not that of the configuration.
        """
        step_size = position.new_tensor(self.step_size) if step_size is None else step_size
        halvings = position.new_zeros((len(position), *step_size.shape))
        averaging, ones = DualAveraging.start(step_size.log()), torch.ones_like(position[0])
        return AdaptationState(step_size, ones, averaging, _nothing(ones), halvings)

    def update(
        self,
        state: AdaptationState,
        index: int,
        accept_prob: torch.Tensor,
        position: torch.Tensor,
        score: torch.Tensor,
    ) -> AdaptationState:
        """Learn from the transition number ``index``, counted from 0; after ``num_adapting`` of them nothing changes.

        :param accept_prob: acceptance probabilities, shape ``(chains,)``, or ``(chains, T)`` for T step sizes.
        :param position: after the transition, shape ``(chains, D)``.
        :param score: there.
        """
        if index >= self.schedule.num_adapting:
            return state
        if self.adapt_step_size:
            state = self._learn_step_size(state, accept_prob)
        if self.preconditioner is not None and position.shape[-1]:
            state = self._learn_scale(state, index, position, score)
        return self.finish(state) if index == self.schedule.num_adapting - 1 else state

    def finish(self, state: AdaptationState) -> AdaptationState:
        """Learn no more: the step size becomes the average of those tried, for all chains."""
        state = state._replace(halvings=torch.zeros_like(state.halvings))
        return state._replace(step_size=state.averaging.log_average.exp()) if self.adapt_step_size else state

    def _learn_step_size(self, state: AdaptationState, accept_prob: torch.Tensor) -> AdaptationState:
        """The next step to try."""
        halvings, counted = _halve(state.halvings, accept_prob)
        shortfall = torch.where(counted, self.target_accept_prob - accept_prob, 0.0).sum(0)
        averaging = state.averaging.update(shortfall / counted.sum(0).clamp(min=1))
        return state._replace(step_size=averaging.log_step.exp(), averaging=averaging, halvings=halvings)

    def _learn_scale(
        self, state: AdaptationState, index: int, position: torch.Tensor, score: torch.Tensor
    ) -> AdaptationState:
        for start, end in self.schedule.windows:
            if start <= index < end:
                state = state._replace(moments=_merge(state.moments, position, score))
            if index == end - 1:
                state = self._renew(state)
        return state

    def _renew(self, state: AdaptationState) -> AdaptationState:
        """A scale from the window's moments; the step size stays as long where it was shortest, and begins anew."""
        scale = self._scale(state.moments, state.scale)
        renewed = state._replace(scale=scale, moments=_nothing(scale))
        if not self.adapt_step_size:
            return renewed
        log_step = state.averaging.log_average + torch.log(state.scale / scale).max()
        return renewed._replace(step_size=log_step.exp(), averaging=DualAveraging.start(log_step))

    def _scale(self, moments: Moments, before: torch.Tensor) -> torch.Tensor:
        """Lengths from the moments of a window; a coordinate that has not moved keeps its own."""
        count = moments.count.clamp(min=1.0)
        sums = (moments.position_squares, moments.score_squares, -moments.products)
        position, score, slope = (total / count for total in sums)
        told = slope > LINEAR * torch.sqrt(position * score)
        if self.preconditioner == "gradients":
            square = torch.where(told, slope / score, 1 / (score + moments.score**2))
        else:
            square = torch.where(told, position / slope, position)
        length = 0.5 * torch.log(torch.minimum(square, torch.maximum(MAX_REACH**2 * position, before**2)))
        weight = count / (count + PRIOR_DRAWS)
        return torch.where(position > 0, torch.exp(weight * length + (1 - weight) * before.log()), before)


def _nothing(like: torch.Tensor) -> Moments:
    """The moments of no rows."""
    zeros = torch.zeros_like(like)
    return Moments(like.new_zeros(()), zeros, zeros, zeros, zeros, zeros)


def _merge(moments: Moments, position: torch.Tensor, score: torch.Tensor) -> Moments:
    """With the rows ``(chains, D)``; a chain at infinity is not counted."""
    finite = position.isfinite().all(-1) & score.isfinite().all(-1)
    position, score = position[finite], score[finite]
    if not len(position):
        return moments
    means = position.mean(0), score.mean(0)
    shift, turn = position - means[0], score - means[1]
    count = position.new_tensor(len(position))
    return moments.merge(Moments(count, *means, (shift**2).sum(0), (turn**2).sum(0), (shift * turn).sum(0)))


def _halve(halvings: torch.Tensor, accept_prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What every chain does to the step size, and which chains the mean counts."""
    if len(accept_prob) == 1:
        return halvings, torch.ones_like(accept_prob, dtype=torch.bool)
    stuck, full = accept_prob < STUCK, halvings == 0
    # a shorter step that is refused tells that the full one would be
    counted = torch.where(full.any(0), full, stuck)
    return torch.where(stuck, halvings + 1, halvings - 1).clamp(0, MAX_HALVINGS), counted
