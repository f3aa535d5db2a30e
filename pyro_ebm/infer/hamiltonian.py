"""Hamiltonian kernels: of jittered length, and without U-turns; all chains advance as one batch.

They run in :class:`pyro_ebm.infer.mcmc.BatchedMCMC` and in :class:`pyro.infer.MCMC`. :func:`no_u_turn_step` is the
functional transition of NUTS: recursion-free, so that every chain of a batch can grow a tree of its own under masks.
"""

from typing import NamedTuple

import torch

from _ppl_ebm.checks import check_between, check_positive_int
from pyro_ebm.infer.kernel import BatchedKernel
from pyro_ebm.infer.potential import Potential, PotentialFn, ScoreFn
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.protocols import Target
from pyro_ebm.sampling.types import Model


class HMC(BatchedKernel):
    """Hamiltonian Monte Carlo with jittered trajectory lengths (Duane 1987; Neal 2011). Exact.

    Every chain draws its step size of a transition from ``step_size * U(1 - jitter, 1 + jitter)``, as a fixed length
    resonates with the periods of the target.

    :param model: a Pyro model; this, ``potential_fn``, ``score`` and ``adapt_step_size`` are as in
        :class:`pyro_ebm.infer.langevin.MALA`.
    :param step_size: first mean leapfrog step, a length (standard deviation).
    :param num_leapfrog: leapfrog steps per transition.
    :param jitter: from 0 (none) to 1.
    :param target_accept_prob: what the step size is tuned to during warm-up.
    :param preconditioner: lengths of the coordinates from warm-up, ``"variances"``, ``"gradients"`` or ``None``.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer.hamiltonian import HMC
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> mcmc = BatchedMCMC(HMC(lambda: pyro.sample("v", rbm)), 20, num_chains=10, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["v"].shape
    torch.Size([10, 20, 2])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float = 1.0,
        num_leapfrog: int = 10,
        jitter: float = 0.5,
        score: ScoreFn | None = None,
        adapt_step_size: bool = True,
        preconditioner: str | None = "variances",
        target_accept_prob: float = 0.8,
    ) -> None:
        check_positive_int("num_leapfrog", num_leapfrog)
        check_between("jitter", jitter, 0, 1)
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
        )
        self._num_leapfrog, self._jitter = num_leapfrog, jitter

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        return steps.hamiltonian_step(chain, target, step_size, self._num_leapfrog, self._jitter, scale)


class NUTS(BatchedKernel):
    """The no-U-turn sampler (Hoffman & Gelman 2014) for a batch of chains: see :func:`no_u_turn_step`. Exact.

    :param model: a Pyro model; this, ``potential_fn``, ``score`` and ``adapt_step_size`` are as in
        :class:`pyro_ebm.infer.langevin.MALA`.
    :param step_size: first leapfrog step, a length (standard deviation).
    :param max_tree_depth: a transition takes at most ``2^max_tree_depth - 1`` leapfrog steps.
    :param target_accept_prob: what the step size is tuned to during warm-up.
    :param preconditioner: lengths of the coordinates from warm-up, ``"variances"``, ``"gradients"`` or ``None``.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer.hamiltonian import NUTS
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> mcmc = BatchedMCMC(NUTS(lambda: pyro.sample("v", rbm)), 20, num_chains=10, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["v"].shape
    torch.Size([10, 20, 2])
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float = 1.0,
        max_tree_depth: int = 10,
        score: ScoreFn | None = None,
        adapt_step_size: bool = True,
        preconditioner: str | None = "variances",
        target_accept_prob: float = 0.8,
    ) -> None:
        check_positive_int("max_tree_depth", max_tree_depth)
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
        )
        self._max_tree_depth = max_tree_depth

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        return no_u_turn_step(chain, target, step_size, self._max_tree_depth, scale)


class _Subtree(NamedTuple):
    """A trajectory that extends another: its far end, a draw from it, and sums over it, for every chain.

    ``log_weight`` is the log of the sum of the states' densities relative to that of the first state of all.
    """

    end: steps.PhaseState
    draw: steps.State
    log_weight: torch.Tensor
    momentum_sum: torch.Tensor
    complete: torch.Tensor
    diverging: torch.Tensor
    accept_sum: torch.Tensor
    num_steps: torch.Tensor


@torch.no_grad()
def no_u_turn_step(
    state: steps.State,
    target: Target,
    step_size: torch.Tensor,
    max_tree_depth: int = 10,
    scale: torch.Tensor | float = 1.0,
) -> tuple[steps.State, steps.Info]:
    """One transition of NUTS for positions ``(chains, D)``, each chain under a mask of its own.

    Trajectories double forwards or backwards until an end would turn back, by the generalised criterion on the sum of
    momenta (Betancourt 2017, appendix A.4), and their states are drawn with multinomial weights, later halves
    preferred. Subtrees are checked without recursion (Phan, Pradhan & Jankowiak 2019; Lao & Dillon 2019).

    :param step_size: leapfrog steps, shape ``(chains,)``.
    :param max_tree_depth: doublings, at most.
    :param scale: broadcasts against the position.
    :return: the chains, and an ``Info`` whose ``accept_prob`` is the mean over the trajectory.
    """
    momentum = torch.randn_like(state.position)
    energy = state.log_density - 0.5 * (momentum**2).sum(-1)
    left = right = steps.PhaseState(*state, momentum)
    draw, momentum_sum = state, momentum
    accept_sum = num_steps = log_weight = torch.zeros_like(energy)
    active = torch.ones_like(energy, dtype=torch.bool)
    diverging = moved = ~active
    for depth in range(max_tree_depth):
        if not active.any():
            break
        forward = torch.rand_like(energy) < 0.5
        edge = steps.select(forward, right, left)
        tree = _extend(edge, target, torch.where(forward, step_size, -step_size), depth, energy, scale, active)
        taken = tree.complete & (torch.rand_like(energy) < torch.exp(tree.log_weight - log_weight))
        draw = steps.select(taken, tree.draw, draw)
        left = steps.select(tree.complete & ~forward, tree.end, left)
        right = steps.select(tree.complete & forward, tree.end, right)
        log_weight = torch.where(tree.complete, torch.logaddexp(log_weight, tree.log_weight), log_weight)
        momentum_sum = torch.where(tree.complete[:, None], momentum_sum + tree.momentum_sum, momentum_sum)
        active = tree.complete & ~_is_turning(left.momentum, right.momentum, momentum_sum)
        moved, diverging = moved | taken, diverging | tree.diverging
        accept_sum, num_steps = accept_sum + tree.accept_sum, num_steps + tree.num_steps
    return draw, steps.Info(accept_sum / num_steps, moved, diverging)


def _extend(
    edge: steps.PhaseState,
    target: Target,
    step_size: torch.Tensor,
    depth: int,
    energy: torch.Tensor,
    scale: torch.Tensor | float,
    going: torch.Tensor,
) -> _Subtree:
    """``2^depth`` leapfrog steps from ``edge``; a chain stops where one of its subtrees turns, or diverges."""
    zeros = torch.zeros_like(energy)
    end, draw, log_weight = edge, steps.State(*edge[:3]), torch.full_like(energy, -torch.inf)
    momentum_sum, accept_sum, num_steps, diverging = torch.zeros_like(edge.momentum), zeros, zeros, zeros > 0
    starts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for leaf in range(2**depth):
        if not going.any():
            break
        moved, momentum = steps.leapfrog(target, steps.State(*end[:3]), end.momentum, step_size, 1, scale)
        weight = moved.log_density - 0.5 * (momentum**2).sum(-1) - energy
        weight = torch.where(weight.isnan(), -torch.inf, weight)
        accept_sum = accept_sum + torch.where(going, torch.exp(weight.clamp(max=0.0)), 0.0)
        num_steps = num_steps + going
        diverging = diverging | (going & (weight < -steps.DIVERGENCE))
        going = going & ~diverging
        end = steps.select(going, steps.PhaseState(*moved, momentum), end)
        log_weight = torch.where(going, torch.logaddexp(log_weight, weight), log_weight)
        taken = going & (torch.rand_like(energy) < torch.exp(weight - log_weight))
        draw = steps.select(taken, steps.State(*end[:3]), draw)
        momentum_sum = torch.where(going[:, None], momentum_sum + end.momentum, momentum_sum)
        going = going & ~_turns_at(leaf, starts, end.momentum, momentum_sum)
    return _Subtree(end, draw, log_weight, momentum_sum, going, diverging, accept_sum, num_steps)


def _turns_at(
    leaf: int,
    starts: dict[int, tuple[torch.Tensor, torch.Tensor]],
    momentum: torch.Tensor,
    momentum_sum: torch.Tensor,
) -> torch.Tensor:
    """Whether a subtree that ends in this leaf turns.

    An even leaf begins subtrees and is stored in ``starts``, under the number of ones in ``leaf >> 1``; an odd one
    ends as many subtrees as it has trailing ones, which began at the latest entries.
    """
    latest = (leaf >> 1).bit_count()
    turning = torch.zeros_like(momentum[:, 0], dtype=torch.bool)
    if leaf % 2 == 0:
        starts[latest] = momentum, momentum_sum
        return turning
    num_subtrees = (leaf ^ (leaf + 1)).bit_length() - 1
    for index in range(latest - num_subtrees + 1, latest + 1):
        first, sum_to_first = starts[index]
        turning = turning | _is_turning(first, momentum, momentum_sum - sum_to_first + first)
    return turning


def _is_turning(first: torch.Tensor, last: torch.Tensor, momentum_sum: torch.Tensor) -> torch.Tensor:
    """Whether either end moves against the sum of the momenta between them, the ends' own counted by half."""
    inner = momentum_sum - 0.5 * (first + last)
    return ((first * inner).sum(-1) <= 0) | ((last * inner).sum(-1) <= 0)
