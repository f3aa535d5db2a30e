"""Parallel tempering: replicas at several temperatures that exchange their places; all chains advance as one batch.

The replicas of all chains are one batch of the target too: a leapfrog step of all of them is one evaluation.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from _ppl_ebm.checks import check_positive_int
from _ppl_ebm.tempering import check_inverse_temperatures
from pyro_ebm.infer.kernel import BatchedKernel, mean_so_far
from pyro_ebm.infer.potential import Potential, PotentialFn, ScoreFn, Values
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs


class TemperingState(NamedTuple):
    """Chains of :class:`ParallelTempering`, each with T replicas that are ordered from cold to hot.

    :param positions: of all replicas, shape ``(chains, T, D)``.
    :param log_densities: there, at temperature 1, shape ``(chains, T)``.
    :param scores: likewise, shape ``(chains, T, D)``.
    :param accept_probs: of the last Hamiltonian moves, shape ``(chains, T)``.
    :param swap_prob: mean probability since warm-up that neighbours exchange places, shape ``(chains, T - 1)``.
    :param round_trips: how often since warm-up a replica has come from the hottest to the coldest place, ``(chains,)``.
    :param came_from: 1 for replicas that were last at the cold end, -1 for the hot one, 0 for neither yet.
    """

    positions: torch.Tensor
    log_densities: torch.Tensor
    scores: torch.Tensor
    accept_probs: torch.Tensor
    swap_prob: torch.Tensor
    round_trips: torch.Tensor
    came_from: torch.Tensor

    @property
    def position(self) -> torch.Tensor:
        """Of the cold replica, which samples the model, shape ``(chains, D)``."""
        return self.positions[:, 0].clone()  # not a view, which would keep all replicas of every draw

    @property
    def log_density(self) -> torch.Tensor:
        """Of the cold replica, shape ``(chains,)``."""
        return self.log_densities[:, 0]

    @property
    def score(self) -> torch.Tensor:
        """Of the cold replica, shape ``(chains, D)``."""
        return self.scores[:, 0]


class ParallelTempering(BatchedKernel):
    """Replica exchange between powers of a model's density (Swendsen & Wang 1986; Geyer 1991). Exact.

    Replica t moves by jittered Hamiltonian Monte Carlo in ``density^beta_t`` of the unconstrained sites; then
    neighbours exchange places with probability ``min(1, exp((beta_t - beta_u) (U_t - U_u)))``, pairs (0, 1), (2, 3) and
    so on and pairs (1, 2), (3, 4) and so on in turn, which makes for the most round trips (Okabe et al. 2001; Syed et
    al. 2022). The states that MCMC collects are those of the replica at ``beta = 1``, and so are ``accept_prob``,
    ``diverging`` and ``potential_energy``.

    The extra fields of :class:`pyro_ebm.infer.mcmc.BatchedMCMC` have ``swap_prob`` (below about 0.2 put more
    temperatures there) and ``round_trips`` up to each draw; :meth:`pyro.infer.MCMC.diagnostics` has them too.

    :param model: a Pyro model that vectorises, also for a single chain; or give ``potential_fn``.
    :param potential_fn: minus the log-density of a dict of unconstrained parameters with a leading batch dimension,
        which holds the replicas of all chains; the driver then needs ``initial_params``, where all replicas start.
    :param inverse_temperatures: decreasing from 1 to above 0; default: 8 in geometric steps from 1 to 0.02. The density
        to the smallest of them must have an integral.
    :param num_leapfrog: leapfrog steps of a Hamiltonian move.
    :param score: as in :class:`pyro_ebm.infer.langevin.MALA`.
    :param step_size: first step, a length, of the cold replica; others start with ``step_size / beta^0.5``.
    :param target_accept_prob: of the Hamiltonian moves, to which each temperature's step size is tuned during warm-up,
        by all chains together.
    :raises ValueError: for inverse temperatures that do not decrease from 1, or a step size that is not positive.

    >>> import torch
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> from pyro_ebm.infer.tempering import ParallelTempering
    >>> two_modes = lambda z: -torch.logaddexp(-0.5 * (z["x"] - 6) ** 2, -0.5 * (z["x"] + 6) ** 2)
    >>> kernel = ParallelTempering(potential_fn=two_modes)
    >>> start = {"x": torch.full((20,), 6.0)}
    >>> mcmc = BatchedMCMC(kernel, 200, 100, num_chains=20, initial_params=start, disable_progbar=True)
    >>> mcmc.run()
    >>> bool((mcmc.get_samples()["x"] > 0).double().mean().sub(0.5).abs() < 0.2)
    True
    """

    chain_type = TemperingState

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        inverse_temperatures: Sequence[float] | None = None,
        num_leapfrog: int = 10,
        score: ScoreFn | None = None,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            preconditioner=None,
            target_accept_prob=target_accept_prob,
        )
        check_positive_int("num_leapfrog", num_leapfrog)
        self._num_leapfrog = num_leapfrog
        self._betas = check_inverse_temperatures(inverse_temperatures)

    def prepare(
        self, num_chains: int, warmup_steps: int, initial_params: Values | None, args: ModelArgs, kwargs: ModelKwargs
    ) -> None:
        super().prepare(num_chains, warmup_steps, initial_params, args, kwargs)
        try:
            self._target.verify(num_chains * len(self._betas))
        except ValueError as error:
            raise ValueError(f"{error} ParallelTempering counts {len(self._betas)} replicas per chain.") from error

    def _first_step_size(self, position: torch.Tensor) -> torch.Tensor:
        return self._step_size / position.new_tensor(self._betas).sqrt()

    def _accept_probs(self, chain: TemperingState, info: steps.Info) -> torch.Tensor:
        del info  # of the cold replicas
        return chain.accept_probs

    @property
    def extra_fields(self) -> dict[str, torch.Tensor]:
        return {"swap_prob": self.swap_prob, "round_trips": self.round_trips}

    def _init_chain(self, chain: steps.State) -> TemperingState:
        num_chains, num_replicas = len(chain.position), len(self._betas)
        every = lambda tensor: tensor[:, None].expand(num_chains, num_replicas, *tensor.shape[1:]).clone()
        log_densities = every(chain.log_density)
        zeros = torch.zeros_like(log_densities)
        return TemperingState(
            positions=every(chain.position),
            log_densities=log_densities,
            scores=every(chain.score),
            accept_probs=zeros,
            swap_prob=zeros[:, 1:],
            round_trips=torch.zeros_like(chain.log_density, dtype=torch.long),
            came_from=torch.zeros_like(log_densities, dtype=torch.long),
        )

    def _step(
        self, chain: TemperingState, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[TemperingState, steps.Info]:
        del scale
        count, num_warmup = self.state.num_steps, self._adaptation.num_warmup
        betas = chain.log_densities.new_tensor(self._betas)
        replicas, info = _move(chain, target, betas, step_size, self._num_leapfrog)
        places, swap_prob = swap_neighbours(replicas.log_density, betas, count)
        came_from, round_trips = _count_trips(chain, places, count == num_warmup)
        chain = TemperingState(
            positions=_permuted(replicas.position, places),
            log_densities=_permuted(replicas.log_density, places),
            scores=_permuted(replicas.score, places),
            accept_probs=info.accept_prob,
            swap_prob=mean_so_far(chain.swap_prob, swap_prob, count, num_warmup),
            round_trips=round_trips,
            came_from=came_from,
        )
        return chain, steps.Info(*(field[:, 0].clone() for field in info))

    @property
    def swap_prob(self) -> torch.Tensor:
        """Mean probability since warm-up that neighbours exchange places, shape ``(chains, T - 1)``."""
        return self.state.chain.swap_prob

    @property
    def round_trips(self) -> torch.Tensor:
        """How often since warm-up a replica has come from the hottest to the coldest place, shape ``(chains,)``."""
        return self.state.chain.round_trips

    def logging(self) -> OrderedDict[str, str]:
        """Step size and mean acceptance probability of the cold replica, and round trips, so far."""
        return OrderedDict(
            [
                ("step size", f"{self.state.adaptation.step_size[0]:.2e}"),
                ("acc. prob", f"{self.state.accept_prob.mean().item():.3f}"),
                ("round trips", f"{self.round_trips.double().mean().item():.1f}"),
            ]
        )

    def diagnostics(self) -> dict[str, Any]:
        """As in the base class, with the probabilities of swaps and the number of round trips."""
        swaps = {"swap probability": self.swap_prob.mean(0).tolist(), "round trips": int(self.round_trips.sum())}
        return {**super().diagnostics(), **swaps}


def _move(
    chain: TemperingState, target: Potential, betas: torch.Tensor, step_size: torch.Tensor, num_leapfrog: int
) -> tuple[steps.State, steps.Info]:
    """A Hamiltonian move of every replica in its power of the density; the result is at temperature 1 again."""
    replicas = steps.State(*chain[:3])
    cooled = steps.State(chain.positions, betas * chain.log_densities, betas[:, None] * chain.scores)
    moved, info = steps.hamiltonian_step(cooled, _Powers(target, betas), step_size, num_leapfrog)
    moved = steps.State(moved.position, moved.log_density / betas, moved.score / betas[:, None])
    return steps.select(info.accepted, moved, replicas), info


def _count_trips(chain: TemperingState, places: torch.Tensor, is_first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Where every replica came from, and the round trips that are complete since the warm-up."""
    came_from = chain.came_from.gather(1, places)
    arrived = (came_from[:, 0] == -1).long()
    came_from[:, 0], came_from[:, -1] = 1, -1
    return came_from, arrived if is_first else chain.round_trips + arrived


def _permuted(field: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return field[torch.arange(len(field), device=field.device)[:, None], places]


class _Powers(steps.Target):
    """Powers of a density, one for each replica, at positions ``(chains, T, D)``."""

    def __init__(self, target: Potential, betas: torch.Tensor) -> None:
        self._target, self._betas = target, betas

    def log_density_and_score(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_density, score = self._target.log_density_and_score(position.flatten(0, 1))
        shape = position.shape
        return self._betas * log_density.reshape(shape[:2]), self._betas[:, None] * score.reshape(shape)


def swap_neighbours(log_density: torch.Tensor, betas: torch.Tensor, parity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which replica comes to each place, and each pair's probability to exchange, if it were its turn.

    :param log_density: at temperature 1, shape ``(chains, T)``.
    :param betas: inverse temperatures, shape ``(T,)``.
    :param parity: pairs ``(t, t + 1)`` with ``t`` of this parity take part.
    :return: indices of shape ``(chains, T)`` and probabilities of shape ``(chains, T - 1)``.
    """
    log_ratio = (betas[:-1] - betas[1:]) * log_density.diff(dim=-1)
    swap_prob = torch.exp(torch.where(log_ratio.isnan(), -torch.inf, log_ratio).clamp(max=0.0))
    index = torch.arange(len(betas), device=betas.device)
    swapped = (index[:-1] % 2 == parity % 2) & (torch.rand_like(swap_prob) < swap_prob)
    up, down = torch.nn.functional.pad(swapped.long(), (0, 1)), torch.nn.functional.pad(swapped.long(), (1, 0))
    return index + up - down, swap_prob
