"""Warm-up of gradient kernels: a step size by dual averaging and a diagonal preconditioner from what the chain sees.

Both change in every transition of the warm-up and are then frozen, so that the chain is exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.hmc_util import dual_averaging

PRECONDITIONERS = ("gradients", "variances", None)

_FORGETTING = 3  # averages weigh transition t by about t^3: the first half of the warm-up counts for a sixteenth
_DELAY = 0.3  # share of the warm-up before the chain has come far enough to tell any scales
_FLOOR = 1e-10  # of second moments


class Adaptation(NamedTuple):
    """What a kernel tunes.

    :param step_size: the step size now.
    :param scale: the preconditioner now: lengths, shape ``(D,)``.
    """

    step_size: jax.Array
    scale: jax.Array
    averaging: Any
    mean: jax.Array
    second_moment: jax.Array


class Adapter(NamedTuple):
    """How a kernel tunes; hashable, so that it can be made anew wherever it is needed.

    ``"gradients"`` scales each coordinate by one over the root mean square of its score, ``"variances"`` by the
    standard deviation of its position.
    """

    num_warmup: int
    adapt_step_size: bool
    preconditioner: str | None
    target_accept_prob: float

    def init(self, step_size: Any, position: jax.Array) -> Adaptation:
        """Before the first transition."""
        step_size, ones = jnp.asarray(step_size, position.dtype), jnp.ones_like(position)
        return Adaptation(step_size, ones, dual_averaging()[0](jnp.log(10 * step_size)), position, ones)

    def update(self, count: jax.Array, state: Adaptation, accept_prob: jax.Array, position: Any, score: Any) -> Any:
        """After transition number ``count``, from 0; nothing changes once the warm-up is over."""
        weight = (_FORGETTING + 1) / (count + 1 + _FORGETTING)
        seen = score if self.preconditioner == "gradients" else position
        mean, square = state.mean, seen**2
        if self.preconditioner == "variances":
            mean = state.mean + weight * (seen - state.mean)
            square = (seen - mean) * (seen - state.mean)
        new = state._replace(mean=mean, second_moment=state.second_moment + weight * (square - state.second_moment))
        if self.preconditioner is not None:
            root = jnp.sqrt(jnp.maximum(new.second_moment, _FLOOR))
            scale = 1 / root if self.preconditioner == "gradients" else root
            new = new._replace(scale=jnp.where(count >= _DELAY * self.num_warmup, scale, state.scale))
        if self.adapt_step_size:
            averaging = dual_averaging()[1](self.target_accept_prob - accept_prob, state.averaging)
            last = count + 1 == self.num_warmup
            step_size = jnp.exp(jnp.where(last, averaging[1], averaging[0])).astype(state.step_size.dtype)
            new = new._replace(averaging=averaging, step_size=step_size)
        return jax.tree.map(lambda now, before: jnp.where(count < self.num_warmup, now, before), new, state)
