"""Sampler configurations: how an energy distribution draws, given as ``sampler=`` to its constructor.

``Exact`` draws independently; ``Gibbs``, ``Langevin`` and ``Hamiltonian`` run one Markov chain per draw and return its
end.

A user's own chain is a frozen dataclass that extends :class:`Chain`::

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class RandomWalk(Chain):
        step_size: float = 0.5

        def check(self, energy): ...
        def init(self, energy, value): ...
        def advance(self, energy, carry, num_steps, tuning): ...
        def value(self, energy, carry): ...
"""

import dataclasses
import math
from typing import Any, ClassVar

import torch

from _ppl_ebm import capabilities
from _ppl_ebm.checks import check_positive, check_positive_int, check_probability, check_reached, warn_of_memory
from _ppl_ebm.limits import NUM_REDRAWS
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.memory import remembered
from pyro_ebm.sampling.protocols import Coordinates, Energy, MarkovChain, Sampler
from pyro_ebm.sampling.types import PyTree


def check_sampler(energy: Energy, sampler: Any) -> None:
    """Refuse whatever is not a sampler configuration, or not one for this distribution."""
    if sampler is not None:
        capabilities.check_sampler(energy, sampler, Sampler, "pyro_ebm")
        sampler.check(energy)


def check_chain(owner: str, energy: Energy, sampler: Any) -> None:
    """Refuse whatever is not a Markov chain for this distribution."""
    capabilities.check_chain(owner, sampler, MarkovChain)
    sampler.check(energy)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Independent draws by enumeration or in closed form."""

    def check(self, energy: Energy) -> None:
        capabilities.check_exact(energy)

    @torch.no_grad()
    def sample(self, energy: Energy, shape: tuple[int, ...]) -> torch.Tensor:
        return energy.exact_sample(shape)


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """Independent draws, one coordinate after the other, for causal models; ``Exact()`` draws the same in parallel."""

    def check(self, energy: Energy) -> None:
        capabilities.check_ancestral(energy)

    @torch.no_grad()
    def sample(self, energy: Energy, shape: tuple[int, ...]) -> torch.Tensor:
        return energy.ancestral_sample(shape)


@dataclasses.dataclass(frozen=True)
class Chain:
    """The base of Markov chains: ``sample`` and ``tune`` for members that define ``check``, ``init``, ``advance`` and
    ``value`` (see :class:`pyro_ebm.sampling.protocols.MarkovChain`).

    :param num_steps: transitions per draw, of which the first half warms up.
    """

    num_steps: int = 100

    def __post_init__(self) -> None:
        check_positive_int("num_steps", self.num_steps)

    def check(self, energy: Energy) -> None:
        """Raise ``TypeError`` where this chain cannot draw from ``energy``."""
        raise NotImplementedError(f"{type(self).__name__} must define check(energy)")

    def init(self, energy: Energy, value: torch.Tensor) -> PyTree:
        """What chains that start at ``value`` carry along."""
        raise NotImplementedError(f"{type(self).__name__} must define init(energy, value)")

    def advance(self, energy: Energy, carry: PyTree, num_steps: int, tuning: PyTree) -> PyTree:
        """What they carry ``num_steps`` transitions later."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(energy, carry, ...)")

    def value(self, energy: Energy, carry: PyTree) -> torch.Tensor:
        """The values where they are."""
        raise NotImplementedError(f"{type(self).__name__} must define value(energy, carry)")

    def tune(self, energy: Energy, value: torch.Tensor, num_steps: int) -> tuple[torch.Tensor, PyTree]:
        """Run ``num_steps`` transitions of warm-up; there is nothing to tune."""
        return run_from(self, energy, value, num_steps), None

    def sample(self, energy: Energy, shape: tuple[int, ...]) -> torch.Tensor:
        """Ends of separate chains, shape ``shape + event_shape``.

        :raises ValueError: if a chain reached no finite energy.
        """
        return chain_ends(self, energy, shape, self.num_steps)


@dataclasses.dataclass(frozen=True)
class Gibbs(Chain):
    """Block Gibbs sampling between visible and hidden units (Hinton 2002), for families with conditionals.

    :param num_steps: sweeps per draw, from the family's starting points.

    A warning says so where the sweeps of a Markov network would not move between its states, as far as its tables tell.
    """

    def check(self, energy: Energy) -> None:
        capabilities.check_gibbs(energy)
        energy.check_sweeps()

    def init(self, energy: Energy, value: torch.Tensor) -> torch.Tensor:
        """What a chain carries along: its value."""
        del energy
        return value

    @torch.no_grad()
    def advance(self, energy: Energy, carry: torch.Tensor, num_steps: int, tuning: None = None) -> torch.Tensor:
        """The value ``num_steps`` sweeps later."""
        del tuning
        for _ in range(num_steps):
            carry = energy.gibbs_step(carry)
        return carry

    def value(self, energy: Energy, carry: torch.Tensor) -> torch.Tensor:
        """The value itself."""
        del energy
        return carry

    def sample(self, energy: Energy, shape: tuple[int, ...]) -> torch.Tensor:
        """As :meth:`Chain.sample`; warns where sweeps would not move."""
        energy.check_sweeps()
        return super().sample(energy, shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hamiltonian(Chain):
    """Hamiltonian Monte Carlo with jittered trajectory lengths on the family's score.

    :param num_steps: transitions per draw. With ``step_size=None`` the first half of them adapts the step size to an
        acceptance probability of ``target_accept``; the second half keeps it, shared by all chains of a call.
    :param num_leapfrog: leapfrog steps per transition.
    :param step_size: mean leapfrog step, in the units of the values (so a standard deviation, not a variance).
    """

    num_leapfrog: int = 10
    step_size: float | None = None
    target_accept: float = 0.8
    jitter: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("num_leapfrog", self.num_leapfrog)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        check_probability("target_accept", self.target_accept)

    def check(self, energy: Energy) -> None:
        capabilities.check_continuous(type(self).__name__, energy)

    @torch.no_grad()
    def tune(self, energy: Energy, value: torch.Tensor, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Run ``num_steps`` transitions while adapting the step size, unless it is given.

        Every chain adapts its own by Robbins-Monro steps on its logarithm, from a start that suits unit scales: one
        that starts in a steep tail shrinks it until it moves. The result is the median over chains of the averaged
        iterates, one step size for each element of the batch.
        """
        target = energy.unconstrained
        state = self.init(energy, value)
        size = max(1, math.prod(energy.event_shape))
        start = 0.5 * size**-0.25 if self.step_size is None else self.step_size
        rate = 2.0 if self.step_size is None else 0.0
        average = log_step = torch.full_like(state.log_density, math.log(start))
        for count in range(1, num_steps + 1):
            state, info = self._step(state, target, log_step.exp())
            log_step = log_step + rate * count**-0.5 * (info.accept_prob - self.target_accept)
            average = average + count**-0.75 * (log_step - average)
        num_chain_axes = average.dim() - len(energy.batch_shape)
        if num_chain_axes and average.numel():
            ordered = average.flatten(0, num_chain_axes - 1).sort(0).values
            average = 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])
        return self.value(energy, state), average.exp()

    def init(self, energy: Energy, value: torch.Tensor) -> steps.State:
        """What a chain carries along: unconstrained position, log-density and score."""
        target = energy.unconstrained
        return steps.init(target, target.from_value(value))

    @torch.no_grad()
    def advance(
        self, energy: Energy, carry: steps.State, num_steps: int, tuning: torch.Tensor | None = None
    ) -> steps.State:
        """What it carries ``num_steps`` transitions later, at the tuned or given step size."""
        step_size = self.step_size if tuning is None else tuning
        if step_size is None:
            raise ValueError(
                f"step_size: {type(self).__name__}() expected a number, got None; only sample() and the warm-up of "
                "run_chain adapt it"
            )
        target = energy.unconstrained
        for _ in range(num_steps):
            carry, _ = self._step(carry, target, step_size)
        return carry

    def value(self, energy: Energy, carry: steps.State) -> torch.Tensor:
        """The value at its position."""
        return energy.unconstrained.to_value(carry.position)

    def _step(
        self, state: steps.State, target: Coordinates, step_size: float | torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        return steps.hamiltonian_step(state, target, step_size, self.num_leapfrog, self.jitter)


@dataclasses.dataclass(frozen=True)
class Langevin(Hamiltonian):
    """Metropolis-adjusted Langevin: the proposal is ``x + 0.5 step_size^2 score(x) + step_size n``.

    :param num_steps: transitions per draw; adapted as in :class:`Hamiltonian`.
    """

    num_steps: int = 1000
    _: dataclasses.KW_ONLY
    num_leapfrog: int = dataclasses.field(default=1, init=False)
    target_accept: float = 0.574
    jitter: ClassVar[float] = 0.0


def run_from(
    chain: MarkovChain, energy: Energy, value: torch.Tensor, num_steps: int, tuning: PyTree = None
) -> torch.Tensor:
    """Values ``num_steps`` transitions after ``value``, at the tuned or given settings."""
    return chain.value(energy, chain.advance(energy, chain.init(energy, value), num_steps, tuning))


@torch.no_grad()
def chain_ends(chain: MarkovChain, energy: Energy, shape: tuple[int, ...], num_steps: int) -> torch.Tensor:
    """Ends of separate chains of ``num_steps`` transitions from the family's starting points; half of them warm up.

    A warning tells where many of them have not forgotten where they started.

    :raises ValueError: if a chain reached no finite energy.
    """
    num_tune = num_steps // 2
    starts = starting_points(energy, shape)
    value, tuning = chain.tune(energy, starts, num_tune)
    ends = run_from(chain, energy, value, num_steps - num_tune, tuning)
    is_lost = has_no_density(energy, ends)
    check_reached("sampler", energy, int(is_lost.sum()), is_lost.numel())
    warn_of_memory(energy, chain, num_steps, *remembered(energy, starts, ends))
    return ends


@torch.no_grad()
def starting_points(energy: Energy, shape: tuple[int, ...]) -> torch.Tensor:
    """The family's starting points; those without a finite energy are drawn anew, a number of times.

    :param shape: as in ``energy.initial``.
    """
    value = energy.initial(shape)
    for _ in range(NUM_REDRAWS):
        is_lost = has_no_density(energy, value)
        if not is_lost.any():
            break
        is_lost = is_lost.reshape(is_lost.shape + (1,) * len(energy.event_shape))
        value = torch.where(is_lost, energy.initial(shape), value)  # not in place: it may be the family's own tensor
    return value


@torch.no_grad()
def has_no_density(energy: Energy, value: torch.Tensor) -> torch.Tensor:
    """Which values have no finite energy."""
    return ~torch.isfinite(energy.energy(value))
