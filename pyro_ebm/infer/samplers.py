"""Sampler configurations: how an energy distribution draws, given as ``sampler=`` to its constructor.

``Exact`` draws independently; ``Gibbs``, ``Langevin`` and ``Hamiltonian`` run one Markov chain per draw, all of them as
one batch, and return its end. All are small frozen dataclasses. Nothing here records gradients, and random numbers come
from torch's global generator.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from pyro_ebm.infer import steps
from pyro_ebm.infer.checks import check_positive, check_positive_int, check_probability


@runtime_checkable
class Sampler(Protocol):
    """What ``sampler=`` accepts."""

    def check(self, distribution: Any) -> None:
        """Raise ``TypeError`` where this sampler cannot draw from ``distribution``."""

    def sample(self, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
        """Draws of shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``."""


def check_sampler(distribution: Any, sampler: Any) -> None:
    """Refuse whatever is not a sampler configuration, or not one for this distribution."""
    if sampler is None:
        return
    if isinstance(sampler, type) or not isinstance(sampler, Sampler):
        raise TypeError(
            f"sampler: {type(distribution).__name__} expected None or one of Exact(), Gibbs(), Langevin(), "
            f"Hamiltonian() from pyro_ebm.infer, got {sampler!r}"
        )
    sampler.check(distribution)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Independent draws by enumeration or in closed form."""

    def check(self, distribution: Any) -> None:
        if not distribution.has_exact_sampler:
            raise TypeError(
                f"sampler: {type(distribution).__name__} of event shape {tuple(distribution.event_shape)} has no exact "
                "sampler (none in closed form, or more than 2^16 enumerated terms); expected a Markov chain"
            )

    @torch.no_grad()
    def sample(self, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
        return distribution._exact_sample(shape)


@dataclasses.dataclass(frozen=True)
class Ancestral(Exact):
    """Independent draws, one coordinate after the other, for causal models; ``Exact()`` draws the same in parallel."""

    def check(self, distribution: Any) -> None:
        if not hasattr(distribution, "_ancestral_sample"):
            raise TypeError(
                f"sampler: Ancestral() needs a causal model such as CausalAutoencoder, got "
                f"{type(distribution).__name__}"
            )

    @torch.no_grad()
    def sample(self, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
        return distribution._ancestral_sample(shape)


@dataclasses.dataclass(frozen=True)
class Gibbs:
    """Block Gibbs sampling between visible and hidden units (Hinton 2002), for families with conditionals.

    :param num_steps: sweeps per draw, from the family's starting points.
    """

    num_steps: int = 100

    def __post_init__(self) -> None:
        check_positive_int("num_steps", self.num_steps)

    def check(self, distribution: Any) -> None:
        if not distribution.has_gibbs_step:
            raise TypeError(
                f"sampler: Gibbs() needs hidden units with conditionals, and {type(distribution).__name__} has none; "
                "expected Langevin() or Hamiltonian()"
            )

    def sample(self, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
        return _chain_sample(self, distribution, shape)

    def tune(self, distribution: Any, position: torch.Tensor, num_steps: int) -> tuple[torch.Tensor, None]:
        """Run ``num_steps`` sweeps of warm-up; there is nothing to tune."""
        return self.run(distribution, position, num_steps), None

    def run(self, distribution: Any, position: torch.Tensor, num_steps: int, tuning: None = None) -> torch.Tensor:
        """Positions after ``num_steps`` sweeps from ``position``."""
        return self.advance(distribution, position, num_steps, tuning)

    def init(self, distribution: Any, position: torch.Tensor) -> torch.Tensor:
        """What a chain carries along: its position."""
        del distribution
        return position

    @torch.no_grad()
    def advance(self, distribution: Any, carry: torch.Tensor, num_steps: int, tuning: None = None) -> torch.Tensor:
        """What it carries ``num_steps`` sweeps later."""
        del tuning
        for _ in range(num_steps):
            carry = distribution.gibbs_step(carry)
        return carry

    def value(self, distribution: Any, carry: torch.Tensor) -> torch.Tensor:
        """Its position."""
        del distribution
        return carry


@dataclasses.dataclass(frozen=True)
class Hamiltonian:
    """Hamiltonian Monte Carlo with jittered trajectory lengths on the family's score.

    :param num_steps: transitions per draw. With ``step_size=None`` the first half of them adapts the step size to an
        acceptance probability of ``target_accept``; the second half keeps it, shared by all chains of a call.
    :param num_leapfrog: leapfrog steps per transition.
    :param step_size: mean leapfrog step, in the units of the values (so a standard deviation, not a variance).
    """

    num_steps: int = 100
    num_leapfrog: int = 10
    step_size: float | None = None
    target_accept: float = 0.8
    jitter: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        check_positive_int("num_steps", self.num_steps)
        check_positive_int("num_leapfrog", self.num_leapfrog)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        check_probability("target_accept", self.target_accept)

    def check(self, distribution: Any) -> None:
        if distribution.is_discrete:
            raise TypeError(
                f"sampler: {type(self).__name__}() moves along the score, and {type(distribution).__name__} is "
                "discrete; expected Gibbs() or Exact()"
            )

    def sample(self, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
        return _chain_sample(self, distribution, shape)

    @torch.no_grad()
    def tune(self, distribution: Any, position: torch.Tensor, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Run ``num_steps`` transitions while adapting the step size, unless it is given.

        Every chain adapts its own by Robbins-Monro steps on its logarithm, from a start that suits unit scales: one
        that starts in a steep tail shrinks it until it moves. The result is the median over chains of the averaged
        iterates, one step size for each element of the batch.
        """
        target = distribution.unconstrained
        state = steps.init(target, target._from_value(position))
        size = max(1, math.prod(distribution.event_shape))
        start = 0.5 * size**-0.25 if self.step_size is None else self.step_size
        rate = 2.0 if self.step_size is None else 0.0
        average = log_step = torch.full_like(state.log_density, math.log(start))
        for count in range(1, num_steps + 1):
            state, info = self._step(state, target, log_step.exp())
            log_step = log_step + rate * count**-0.5 * (info.accept_prob - self.target_accept)
            average = average + count**-0.75 * (log_step - average)
        num_chain_axes = average.dim() - len(distribution.batch_shape)
        if num_chain_axes and average.numel():
            average = average.flatten(0, num_chain_axes - 1).median(0).values
        return target._to_value(state.position), average.exp()

    def run(self, distribution: Any, position: torch.Tensor, num_steps: int, tuning: Any = None) -> torch.Tensor:
        """Positions after ``num_steps`` transitions from ``position``, at the tuned or given step size."""
        carry = self.advance(distribution, self.init(distribution, position), num_steps, tuning)
        return self.value(distribution, carry)

    def init(self, distribution: Any, position: torch.Tensor) -> steps.State:
        """What a chain carries along: unconstrained position, log-density and score."""
        target = distribution.unconstrained
        return steps.init(target, target._from_value(position))

    @torch.no_grad()
    def advance(self, distribution: Any, carry: steps.State, num_steps: int, tuning: Any = None) -> steps.State:
        """What it carries ``num_steps`` transitions later, at the tuned or given step size."""
        step_size = self.step_size if tuning is None else tuning
        if step_size is None:
            raise ValueError(
                f"step_size: {type(self).__name__}() expected a number, got None; only sample() and the warm-up of "
                "run_chain adapt it"
            )
        target = distribution.unconstrained
        for _ in range(num_steps):
            carry, _ = self._step(carry, target, step_size)
        return carry

    def value(self, distribution: Any, carry: steps.State) -> torch.Tensor:
        """Its position."""
        return distribution.unconstrained._to_value(carry.position)

    def _step(self, state: steps.State, target: Any, step_size: Any) -> tuple[steps.State, steps.Info]:
        return steps.hamiltonian_step(state, target, step_size, self.num_leapfrog, self.jitter)


@dataclasses.dataclass(frozen=True)
class Langevin(Hamiltonian):
    """Metropolis-adjusted Langevin: the proposal is ``x + 0.5 step_size^2 score(x) + step_size n``.

    :param num_steps: transitions per draw; adapted as in :class:`Hamiltonian`.
    """

    num_steps: int = 1000
    num_leapfrog: int = dataclasses.field(default=1, init=False)
    target_accept: float = 0.574
    jitter: ClassVar[float] = 0.0


@torch.no_grad()
def _chain_sample(sampler: Any, distribution: Any, shape: tuple[int, ...]) -> torch.Tensor:
    num_tune = sampler.num_steps // 2
    position, tuning = sampler.tune(distribution, distribution._initial(shape), num_tune)
    return sampler.run(distribution, position, sampler.num_steps - num_tune, tuning)
