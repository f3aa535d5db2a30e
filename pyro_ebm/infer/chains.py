"""Running Markov chains of a distribution's own transitions, outside the host's ``MCMC``."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, overload

import torch
from tqdm.auto import tqdm

from _ppl_ebm.checks import are_equal_densities, check_count, check_positive_int, check_reached
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.protocols import MarkovChain
from pyro_ebm.sampling.samplers import check_chain, has_no_density, starting_points
from pyro_ebm.sampling.steps import State
from pyro_ebm.sampling.types import ArrayLike, PyTree


class ChainState(NamedTuple):
    """Where chains stand, with all that the next draw depends on; it can be pickled and saved by ``torch.save``, whose
    files ``torch.load`` reads as it does by default (``weights_only=True``).

    :param carry: what the sampler carries along: positions of shape ``(chains, *batch_shape, *event_shape)``, or these
        with log-densities and scores.
    :param tuning: what the sampler adapted during warm-up.
    :param generator_states: of torch's global generators, by device.
    :param num_drawn: draws so far.
    """

    carry: PyTree
    tuning: PyTree
    generator_states: dict[str, torch.Tensor]
    num_drawn: int


@overload
def run_chain(
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = ...,
    thinning: int = ...,
    num_chains: int = ...,
    initial: ArrayLike | None = ...,
    sampler: MarkovChain | None = ...,
    progress: bool = ...,
    group: torch.distributed.ProcessGroup | None = ...,
    resume: ChainState | None = ...,
    return_state: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def run_chain(
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = ...,
    thinning: int = ...,
    num_chains: int = ...,
    initial: ArrayLike | None = ...,
    sampler: MarkovChain | None = ...,
    progress: bool = ...,
    group: torch.distributed.ProcessGroup | None = ...,
    resume: ChainState | None = ...,
    return_state: Literal[True],
) -> tuple[torch.Tensor, ChainState]: ...


@torch.no_grad()
def run_chain(
    distribution: EnergyDistribution,
    num_samples: int,
    *,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int = 1,
    initial: ArrayLike | None = None,
    sampler: MarkovChain | None = None,
    progress: bool = False,
    group: torch.distributed.ProcessGroup | None = None,
    resume: ChainState | None = None,
    return_state: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, ChainState]:
    """Draws along the distribution's Markov chain: all batch elements and chains advance as one batch, detached.

    An interrupt (Ctrl-C) ends a run with a warning and the draws so far.

    :param distribution: an energy distribution.
    :param num_samples: draws kept per chain.
    :param num_warmup: transitions run first and thrown away; the step size of a Langevin or Hamiltonian sampler is
        tuned in them unless it was given.
    :param thinning: transitions per kept draw.
    :param num_chains: independent chains; of a run that resumes, 1 stands for those that there are.
    :param initial: starting points, shape ``(num_chains, *batch_shape, *event_shape)``; default: the family's.
    :param sampler: ``Gibbs()``, ``Langevin()`` or ``Hamiltonian()``; default: the distribution's chain.
    :param progress: show a tqdm progress bar.
    :param group: a ``torch.distributed`` process group (``torch.distributed.group.WORLD``): each process calls this
        with the same arguments and runs its share of the chains, whose number the processes must divide; all get all
        draws. Processes must be seeded differently, for example ``pyro.set_rng_seed(seed + rank)``.
    :param resume: continue from the state that an earlier run returned, exactly as if that had gone on, with the same
        sampler; in another distribution from where the chains are.
    :param return_state: also return the :class:`ChainState` at the end (of this process's chains).
    :return: shape ``(num_chains, num_samples, *batch_shape, *event_shape)``, as ArviZ expects; with ``return_state`` a
        pair of these draws and the state.

    >>> import torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer import run_chain
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> run_chain(rbm, 10, num_warmup=5, num_chains=3).shape
    torch.Size([3, 10, 2])
    """
    for name, number in (("num_samples", num_samples), ("thinning", thinning), ("num_chains", num_chains)):
        check_positive_int(name, number)
    check_count("num_warmup", num_warmup)
    if not isinstance(distribution, EnergyDistribution):
        raise TypeError(f"distribution: run_chain expected an energy distribution, got {type(distribution).__name__}")
    sampler = distribution.chain if sampler is None else sampler
    check_chain("run_chain", distribution, sampler)
    target = distribution.frozen()
    if resume is None:
        position, tuning, num_drawn = _start(target, num_chains, initial, group), None, 0
        if num_warmup:
            position, tuning = sampler.tune(target, position, num_warmup)
        carry = sampler.init(target, position)
    else:
        _check_resume(target, sampler, resume, num_chains, num_warmup, initial, group)
        _, tuning, generators, num_drawn = resume
        carry = _go_on(target, sampler, resume.carry)
        set_generator_states(generators)
    kept: list[torch.Tensor] = []
    try:
        for _ in tqdm(range(num_samples), disable=not progress, desc="sampling", unit="draw"):
            after = sampler.advance(target, carry, thinning, tuning)
            carry, generators = after, generator_states(target.device)
            kept.append(sampler.value(target, carry))
    except KeyboardInterrupt:
        if not kept:
            raise
        warnings.warn(f"run_chain was interrupted: {len(kept)} draws are kept", RuntimeWarning, stacklevel=2)
    draws = _gather(torch.stack(kept, 1), group)
    if not return_state:
        return draws
    return draws, ChainState(carry, tuning, generators, num_drawn + len(kept))


def _start(
    distribution: EnergyDistribution,
    num_chains: int,
    initial: ArrayLike | None,
    group: torch.distributed.ProcessGroup | None,
) -> torch.Tensor:
    """Where this process's chains start."""
    own = _share(num_chains, group)
    shape = (num_chains, *distribution.batch_shape)
    if initial is None:
        position = starting_points(distribution, (own.stop - own.start, *distribution.batch_shape))
    else:
        position = distribution.check_value(initial, "initial").detach()
        if position.shape != shape + distribution.event_shape:
            expected = (*shape, *distribution.event_shape)
            raise ValueError(f"initial: expected shape {expected}, got {tuple(position.shape)}")
        position = position[own]
    is_lost = has_no_density(distribution, position)
    check_reached("sampler" if initial is None else "initial", distribution, int(is_lost.sum()), is_lost.numel())
    return position


# What ``torch.load`` may make of a file by default: named tuples, whose making runs no code of the file's.
torch.serialization.add_safe_globals([ChainState, State])


def _check_resume(
    distribution: EnergyDistribution,
    sampler: MarkovChain,
    resume: ChainState,
    num_chains: int,
    num_warmup: int,
    initial: ArrayLike | None,
    group: torch.distributed.ProcessGroup | None,
) -> None:
    if not isinstance(resume, ChainState):
        raise TypeError(f"resume: run_chain expected a ChainState, got {type(resume).__name__}")
    if num_warmup or initial is not None:
        raise ValueError("resume: run_chain expected neither num_warmup nor initial beside it: the state has both")
    shape = (*distribution.batch_shape, *distribution.event_shape)
    try:
        value = sampler.value(distribution, resume.carry)
        found, dtype = tuple(value.shape), value.dtype
    except AttributeError as error:
        raise TypeError(f"resume: run_chain expected the state of a {type(sampler).__name__} chain") from error
    if found[1:] != shape:
        raise ValueError(f"resume: expected positions of shape (chains, *{shape}), got {found}")
    if dtype != distribution.dtype:
        raise ValueError(f"resume: expected positions of {distribution.dtype}, got {dtype}")
    check_generators("resume", resume.generator_states)
    own = _share(num_chains, group)
    if num_chains != 1 and own.stop - own.start != found[0]:
        raise ValueError(f"num_chains: run_chain expected that of the state to resume, {found[0]}, got {num_chains}")


def _go_on(distribution: EnergyDistribution, sampler: MarkovChain, carry: PyTree) -> PyTree:
    """What the chains carried, with new log-densities and scores if these are of another distribution."""
    if not isinstance(carry, State):
        return carry
    new: State = sampler.init(distribution, sampler.value(distribution, carry))
    for name, one, other in zip(State._fields, carry, new, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(
                f"resume: expected {name} of shape {tuple(other.shape)} and {other.dtype}, got {tuple(one.shape)} and "
                f"{one.dtype}"
            )
    return carry if are_equal_densities(carry.log_density.cpu().numpy(), new.log_density.cpu().numpy()) else new


def _share(num_chains: int, group: torch.distributed.ProcessGroup | None) -> slice:
    """This process's part of the chains."""
    if group is None:
        return slice(0, num_chains)
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    if num_chains % size:
        raise ValueError(f"group: run_chain expected a number of processes that divides {num_chains}, got {size}")
    share = num_chains // size
    return slice(rank * share, (rank + 1) * share)


def _gather(draws: torch.Tensor, group: torch.distributed.ProcessGroup | None) -> torch.Tensor:
    """The chains of all processes, in the order of their ranks."""
    if group is None:
        return draws
    parts = [torch.empty_like(draws) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(parts, draws.contiguous(), group=group)
    return torch.cat(parts)


def generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's global generators that chains on a device draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[str(device)] = torch.get_device_module(device).get_rng_state(device)
    return states


def check_generators(argument: str, states: Any) -> None:
    """Refuse what are no states of torch's generators."""
    is_mapping = isinstance(states, Mapping) and "cpu" in states
    if not is_mapping or not all(isinstance(s, torch.Tensor) and s.dtype == torch.uint8 for s in states.values()):
        raise ValueError(f"{argument}: expected states of torch's generators, of 'cpu' at least, got {states!r:.80}")


def set_generator_states(states: dict[str, torch.Tensor]) -> None:
    """Put the generators back."""
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(name).set_rng_state(state, name)
