"""Warm-up of gradient-informed kernels: a step size, and a diagonal preconditioner from what the chain sees.

Every chain learns its own. The last tenth of the warm-up learns nothing: what is kept comes from a Markov chain with
the target as its stationary distribution, and its first draw too.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from _ppl_ebm.adaptation import LINEAR, MAX_REACH, PRIOR_DRAWS, DualAveraging, Moments, Schedule


class AdaptationState(NamedTuple):
    """What a chain has learned.

    :param step_size: the step size now.
    :param scale: the preconditioner now: lengths, shape ``(D,)``.
    :param averaging: the averages from which the step size comes.
    :param moments: what the current window of the preconditioner has seen.
    """

    step_size: jax.Array
    scale: jax.Array
    averaging: DualAveraging
    moments: Moments


@dataclasses.dataclass(frozen=True)
class WarmupAdaptation:
    """Dual averaging of the step size (Hoffman & Gelman 2014) and windows for the preconditioner as in Stan.

    A scale comes from the mean squares in its window. In equilibrium the covariance of position and score is -1, in a
    short warm-up it is not yet: where the two are correlated well enough to tell, the squares are taken relative to it,
    which gives a normal density's scales exactly from wherever the chain comes. What a window tells is averaged with
    what was before, which has the weight of five draws.

    :param num_warmup: transitions of the warm-up; see :class:`_ppl_ebm.adaptation.Schedule`.
    :param step_size: the first one, a length in units of the preconditioned coordinates.
    :param adapt_step_size: whether to change it.
    :param target_accept_prob: what it is tuned to.
    :param preconditioner: ``"gradients"``, one over the root mean square of the score; ``"variances"``, the standard
        deviation of the positions; or ``None``, which stays at 1.

    >>> import jax.numpy as jnp
    >>> from numpyro_ebm.sampling.adaptation import WarmupAdaptation
    >>> adaptation = WarmupAdaptation(200, 1.0, True, 0.8, "variances")
    >>> adaptation.schedule.windows
    ((27, 36), (36, 54), (54, 135))
    >>> state = adaptation.init(jnp.zeros(3))
    >>> float(state.step_size), state.scale.shape
    (1.0, (3,))
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

    def init(self, position: jax.Array, step_size: ArrayLike | None = None) -> AdaptationState:
        """What is known before warm-up, for a position ``(D,)``.

        :param step_size: the first one, if not that of the configuration.
        """
        step_size = jnp.asarray(self.step_size if step_size is None else step_size, position.dtype)
        return AdaptationState(
            step_size, jnp.ones_like(position), DualAveraging.start(jnp.log(step_size)), _nothing(position)
        )

    def update(
        self, state: AdaptationState, index: jax.Array, accept_prob: jax.Array, position: jax.Array, score: jax.Array
    ) -> AdaptationState:
        """Learn from the transition number ``index``, counted from 0; after ``num_adapting`` of them nothing changes.

        :param accept_prob: acceptance probability, a scalar.
        :param position: after the transition, shape ``(D,)``.
        :param score: there.
        """

        def learn(state: AdaptationState) -> AdaptationState:
            if self.adapt_step_size:
                state = self._learn_step_size(state, accept_prob, index == self.schedule.num_adapting - 1)
            if self.preconditioner is not None and self.schedule.windows and position.size:
                state = self._learn_scale(state, index, position, score)
            return state

        return _when(index < self.schedule.num_adapting, learn, state)

    def _learn_step_size(self, state: AdaptationState, accept_prob: jax.Array, last: jax.Array) -> AdaptationState:
        """The next step to try; the last one is the average."""
        averaging = state.averaging.update(self.target_accept_prob - accept_prob)
        step_size = jnp.exp(jnp.where(last, averaging.log_average, averaging.log_step))
        return state._replace(step_size=step_size, averaging=averaging)

    def _learn_scale(
        self, state: AdaptationState, index: jax.Array, position: jax.Array, score: jax.Array
    ) -> AdaptationState:
        windows = self.schedule.windows
        inside = (index >= windows[0][0]) & (index < windows[-1][1])
        counted = inside & jnp.isfinite(position).all() & jnp.isfinite(score).all()  # no chain at infinity
        seen = _nothing(position)._replace(count=jnp.ones((), position.dtype), position=position, score=score)
        merged = state.moments.merge(seen)
        moments = jax.tree.map(lambda new, old: jnp.where(counted, new, old), merged, state.moments)
        ends = jnp.asarray([end - 1 for _, end in windows])
        return _when(jnp.isin(index, ends), self._renew, state._replace(moments=moments))

    def _renew(self, state: AdaptationState) -> AdaptationState:
        """A scale from the window's moments; the step size stays as long where it was shortest, and begins anew."""
        scale = self._scale(state.moments, state.scale)
        renewed = state._replace(scale=scale, moments=_nothing(scale))
        if not self.adapt_step_size:
            return renewed
        log_step = state.averaging.log_average + jnp.log(state.scale / scale).max()
        return renewed._replace(step_size=jnp.exp(log_step), averaging=DualAveraging.start(log_step))

    def _scale(self, moments: Moments, before: jax.Array) -> jax.Array:
        """Lengths from the moments of a window; a coordinate that has not moved keeps its own."""
        count = jnp.maximum(moments.count, 1.0)
        position, score, slope = (
            total / count for total in (moments.position_squares, moments.score_squares, -moments.products)
        )
        told = slope > LINEAR * jnp.sqrt(position * score)
        if self.preconditioner == "gradients":
            square = jnp.where(told, slope / score, 1 / (score + moments.score**2))
        else:
            square = jnp.where(told, position / slope, position)
        length = 0.5 * jnp.log(jnp.minimum(square, jnp.maximum(MAX_REACH**2 * position, before**2)))
        weight = count / (count + PRIOR_DRAWS)
        return jnp.where(position > 0, jnp.exp(weight * length + (1 - weight) * jnp.log(before)), before)


def _nothing(position: jax.Array) -> Moments:
    """The moments of no rows."""
    zeros = jnp.zeros_like(position)
    return Moments(jnp.zeros((), position.dtype), zeros, zeros, zeros, zeros, zeros)


def _when(
    condition: jax.Array, function: Callable[[AdaptationState], AdaptationState], state: AdaptationState
) -> AdaptationState:
    """``function(state)`` where the condition holds, else the state, by a loop of one round or none.

    Unlike a conditional it does not compute both under ``vmap``: nothing runs unless it holds for some chain.
    """
    return lax.fori_loop(0, jnp.asarray(condition, int), lambda _, state: function(state), state)
