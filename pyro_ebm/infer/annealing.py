"""Annealed importance sampling: a partition function as an estimate, with its error and its gradient."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from _ppl_ebm.bounds import check_agreement, check_start, warn_of_estimate
from _ppl_ebm.checks import check_positive_int
from _ppl_ebm.limits import MIN_EFFECTIVE_SIZE
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.protocols import Energy
from pyro_ebm.sampling.samplers import Exact, chain_ends
from pyro_ebm.sampling.types import ArrayLike

_PILOT_CHAINS = 16
_PILOT_ACCEPT, _PILOT_RATE = 0.8, 0.2  # the pilot's step size follows its mean acceptance probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedImportanceSampling:
    """Estimator of log Z by annealing from independent units (Neal 2001; Salakhutdinov & Murray 2008).

    Families with hidden units start from themselves without couplings and move by Gibbs sweeps. Others go along the
    geometric path from the standard normal distribution, by jittered Hamiltonian Monte Carlo whose step size at every
    temperature comes from a pilot run, so that the estimate stays unbiased.

    Give it as ``log_partition=`` to a distribution: ``log_prob`` is then normalised by the estimate, and differentiable
    everywhere, with ``-E_model[grad F]`` taken over the same weighted samples. ``exp`` of the estimate is unbiased for
    Z, so the estimate itself is a lower bound on log Z in expectation, and ``log_prob`` an upper bound. Every use of
    ``log_partition`` or ``log_prob`` runs new chains from torch's global generator, as SVI wants it; with a ``seed``
    all run the same ones, and the estimate is a function of the parameters, as HMC and NUTS over them want it.

    :param num_chains: independent annealed chains.
    :param num_temperatures: inverse temperatures, equally spaced from 0 to 1, one transition at each.
    :param num_leapfrog: leapfrog steps of a Hamiltonian transition.
    :param seed: of a generator that leaves the global one alone; default: the global one.
    :raises ValueError: for numbers that are not positive integers.
    :raises TypeError: for a discrete family without conditionals.

    >>> import pyro, torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.infer import AnnealedImportanceSampling
    >>> pyro.set_rng_seed(0)
    >>> weights = torch.tensor([[1.0, -0.5], [0.3, 2.0]])
    >>> estimated = BernoulliRBM(weights, log_partition=AnnealedImportanceSampling())
    >>> bool(abs(estimated.log_partition - BernoulliRBM(weights).log_partition) < 0.05)
    True
    """

    num_chains: int = 100
    num_temperatures: int = 1000
    num_leapfrog: int = 5
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_chains", "num_temperatures", "num_leapfrog"):
            check_positive_int(name, getattr(self, name))

    def prepare(self, energy: Energy) -> "AnnealedImportanceSampling":
        """This configuration, checked against the distribution that will use it."""
        if energy.is_discrete and not energy.capabilities >= {"annealing", "gibbs_step"}:
            raise TypeError(
                "log_partition: AnnealedImportanceSampling needs real values, or a family with a path to independent "
                f"units and Gibbs sampling along it; {type(energy).__name__} is discrete and has none"
            )
        return self

    @torch.no_grad()
    def weighted_samples(self, energy: Energy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Estimate of log Z, the chains' final samples and their normalised weights."""
        path, device = _Path(energy), energy.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device], enabled=self.seed is not None):
            if self.seed is not None:
                torch.manual_seed(self.seed)
            step_sizes = _pilot(path, self.num_temperatures, self.num_leapfrog)
            log_weights, samples = _anneal(path, step_sizes, self.num_chains, self.num_leapfrog)
        total = torch.logsumexp(log_weights, 0)
        weights = torch.exp(log_weights - total)
        return path.base_log_partition + total - math.log(self.num_chains), samples, weights


class LogPartitionBounds(NamedTuple):
    """Stochastic bounds on log Z from both ends of an annealing path; every field has the shape ``batch_shape``.

    :param lower: forward estimate, at most log Z in expectation.
    :param upper: reverse estimate, at least log Z in expectation **where the chains started exactly**; else an estimate
        and no bound: from chains that all miss a mode, it and ``lower`` agree on a value that is too small.
    :param lower_standard_error: of ``lower``, over chains (delta method); infinite at an effective size below 10, of
        which no error can be told.
    :param upper_standard_error: of ``upper``, likewise.
    :param lower_effective_sample_size: of the forward weights, at most the number of chains.
    :param upper_effective_sample_size: of the reverse weights.
    :param exact_start: whether the reverse chains started from exact draws; else from ``start`` or from long chains,
        whose distance from the model ``upper`` does not cover.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    lower_standard_error: torch.Tensor
    upper_standard_error: torch.Tensor
    lower_effective_sample_size: torch.Tensor
    upper_effective_sample_size: torch.Tensor
    exact_start: bool


@torch.no_grad()
def log_partition_bounds(
    distribution: EnergyDistribution,
    *,
    start: ArrayLike | None = None,
    num_chains: int = 100,
    num_temperatures: int = 1000,
    num_leapfrog: int = 5,
    progress: bool = False,
) -> LogPartitionBounds:
    """Bounds on log Z by annealing forward and in reverse (Neal 2001; Grosse, Ghahramani & Adams 2015).

    Reverse chains start from ``start``, else from exact draws of the distribution where it has them, else from the ends
    of chains of ``num_temperatures`` transitions, and cool down to independent units. Only from exact draws is
    ``upper`` a bound.

    :param distribution: an energy distribution, as :class:`AnnealedImportanceSampling` takes it.
    :param start: draws to start reverse chains from in place of exact ones, shape ``(n, *batch_shape, *event_shape)``:
        of a tempered run, or data; ``num_chains`` of them are chosen at random.
    :param num_chains: chains in each direction.
    :param num_temperatures: inverse temperatures, equally spaced, one transition at each.
    :param num_leapfrog: leapfrog steps of a Hamiltonian transition.
    :param progress: show tqdm progress bars.
    :raises ValueError: if the two contradict each other, because the reverse chains did not start from the
        distribution; for a ``start`` of another shape.
    :raises TypeError: for a discrete family without conditionals.

    A warning says so where ``upper`` is no bound because neither exact draws nor ``start`` are there.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer import log_partition_bounds
    >>> pyro.set_rng_seed(0)
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0, 0.5], [-1.0, 2.0]]))
    >>> bounds = log_partition_bounds(rbm, num_temperatures=200)
    >>> error = 3 * bounds.lower_standard_error, 3 * bounds.upper_standard_error
    >>> bool(bounds.lower - error[0] < rbm.log_partition < bounds.upper + error[1])
    True
    """
    sizes = {"num_chains": num_chains, "num_temperatures": num_temperatures, "num_leapfrog": num_leapfrog}
    AnnealedImportanceSampling(**sizes).prepare(distribution)
    path = _Path(distribution.frozen())
    step_sizes = _pilot(path, num_temperatures, num_leapfrog)
    forward = _anneal(path, step_sizes, num_chains, num_leapfrog, progress)[0]
    exact = start is None and distribution.has_exact_sampler
    values = _reverse_start(distribution, path.distribution, start, num_chains, num_temperatures)
    reverse = _anneal_in_reverse(path, step_sizes, values, num_leapfrog, progress)
    lower, lower_error, lower_size = _log_mean(forward)
    upper, upper_error, upper_size = _log_mean(-reverse)
    lower, upper = path.base_log_partition + lower, path.base_log_partition - upper
    error = torch.hypot(lower_error, upper_error)
    check_agreement(type(distribution).__name__, *(tensor.cpu().numpy() for tensor in (lower, upper, error)))
    errors = [
        torch.where(size < MIN_EFFECTIVE_SIZE, torch.inf, error)
        for size, error in ((lower_size, lower_error), (upper_size, upper_error))
    ]
    return LogPartitionBounds(lower, upper, errors[0], errors[1], lower_size, upper_size, exact)


def _reverse_start(
    distribution: EnergyDistribution,
    frozen: Energy,
    start: ArrayLike | None,
    num_chains: int,
    num_temperatures: int,
) -> torch.Tensor:
    """Where reverse chains start: some of ``start``, exact draws, or the ends of chains, of which a warning tells."""
    shape = (num_chains, *distribution.batch_shape)
    if start is not None:
        check_start(np.shape(start), (*distribution.batch_shape, *distribution.event_shape))
        draws = distribution.check_value(start, "start")
        rows = torch.randperm(len(draws)) if len(draws) >= num_chains else torch.randint(len(draws), (num_chains,))
        return draws[rows[:num_chains]]
    if distribution.has_exact_sampler:
        return Exact().sample(frozen, shape)
    warn_of_estimate(type(distribution).__name__)
    return chain_ends(distribution.chain, frozen, shape, num_temperatures)


def _log_mean(log_weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log of the mean weight over chains, its standard error and the effective sample size."""
    count = len(log_weights)
    total = torch.logsumexp(log_weights, 0)
    size = 1 / (torch.exp(log_weights - total) ** 2).sum(0)
    return total - math.log(count), torch.sqrt((1 / size - 1 / count) * count / max(count - 1, 1)), size


class _Path:
    """Energies from an independent base (inverse temperature 0) to a distribution (1)."""

    def __init__(self, distribution: Energy) -> None:
        self.distribution = distribution

    @property
    def has_own_base(self) -> bool:
        """Whether the family has a path to independent units; else it is mixed with the standard normal."""
        return "annealing" in self.distribution.capabilities

    @property
    def sweeps(self) -> bool:
        """Whether it moves by Gibbs sweeps; else along the score."""
        return self.distribution.capabilities >= {"annealing", "gibbs_step"}

    @property
    def base_log_partition(self) -> torch.Tensor:
        if self.has_own_base:
            return self.distribution.base_log_partition
        value = 0.5 * math.prod(self.distribution.event_shape) * math.log(2 * math.pi)
        return self._full(self.distribution.batch_shape, value)

    def at(self, inverse_temperature: float) -> "Energy | _Mixed":
        """The target on the way."""
        if self.has_own_base:
            return self.distribution.at_inverse_temperature(inverse_temperature)
        return _Mixed(self.distribution, inverse_temperature)

    def start(self, num_chains: int) -> torch.Tensor:
        """Exact draws at 0."""
        shape = (num_chains, *self.distribution.batch_shape)
        if self.has_own_base:
            return self.distribution.at_inverse_temperature(0.0).initial(shape)
        shape += tuple(self.distribution.event_shape)
        return torch.randn(shape, dtype=self.distribution.dtype, device=self.distribution.device)

    def to_value(self, position: torch.Tensor) -> torch.Tensor:
        return position if self.has_own_base else self.distribution.unconstrained.to_value(position)

    def from_value(self, value: torch.Tensor) -> torch.Tensor:
        return value if self.has_own_base else self.distribution.unconstrained.from_value(value)

    def log_weights(self, num_chains: int) -> torch.Tensor:
        return self._full((num_chains, *self.distribution.batch_shape), 0.0)

    def move(
        self, target: "Energy | _Mixed", position: torch.Tensor, step_size: torch.Tensor, num_leapfrog: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One transition: new positions and acceptance probabilities."""
        if self.sweeps and not isinstance(target, _Mixed):
            return target.gibbs_step(position), torch.ones_like(step_size)
        state, info = steps.hamiltonian_step(steps.init(target, position), target, step_size, num_leapfrog)
        return state.position, info.accept_prob

    def _full(self, shape: tuple[int, ...], value: float) -> torch.Tensor:
        return torch.full(shape, value, dtype=self.distribution.dtype, device=self.distribution.device)


class _Mixed:
    """The geometric mixture of the standard normal density and another."""

    def __init__(self, distribution: Energy, weight: float) -> None:
        self.target, self.weight = distribution.unconstrained, weight
        self.event_dim = len(distribution.event_shape)

    def energy(self, position: torch.Tensor) -> torch.Tensor:
        return -self.unnormalized_log_prob(position)

    def unnormalized_log_prob(self, position: torch.Tensor) -> torch.Tensor:
        normal = -0.5 * steps.sum_event(position**2, self.event_dim)
        return (1 - self.weight) * normal + self.weight * self.target.unnormalized_log_prob(position)

    def score(self, position: torch.Tensor) -> torch.Tensor:
        return self.weight * self.target.score(position) - (1 - self.weight) * position


def _pilot(path: _Path, num_temperatures: int, num_leapfrog: int) -> list[torch.Tensor]:
    """Step sizes at all temperatures but 0, each of shape ``batch_shape``; they play no part in Gibbs."""
    if path.sweeps:
        return [torch.ones_like(path.log_weights(1)[0])] * num_temperatures
    position, step_sizes = path.start(_PILOT_CHAINS), []
    size = max(1, math.prod(path.distribution.event_shape))
    log_step = path.log_weights(1)[0] - 0.25 * math.log(size)
    for step in range(1, num_temperatures + 1):
        target = path.at(step / num_temperatures)
        position, accept_prob = path.move(target, position, log_step.exp(), num_leapfrog)
        log_step = log_step + _PILOT_RATE * (accept_prob.mean(0) - _PILOT_ACCEPT)
        step_sizes.append(log_step.exp())
    return step_sizes


def _anneal(
    path: _Path, step_sizes: list[torch.Tensor], num_chains: int, num_leapfrog: int, progress: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log importance weights and final values of ``num_chains`` annealed chains."""
    position, log_weights = path.start(num_chains), path.log_weights(num_chains)
    previous = path.at(0.0)
    for step in tqdm(range(1, len(step_sizes) + 1), disable=not progress, desc="annealing", unit="temperature"):
        current = path.at(step / len(step_sizes))
        log_weights = log_weights + previous.energy(position) - current.energy(position)
        position, _ = path.move(current, position, step_sizes[step - 1], num_leapfrog)
        previous = current
    return log_weights, path.to_value(position)


def _anneal_in_reverse(
    path: _Path, step_sizes: list[torch.Tensor], values: torch.Tensor, num_leapfrog: int, progress: bool
) -> torch.Tensor:
    """Log weights of the reverse chains from ``values``, in the sense of the forward ones."""
    position, log_weights = path.from_value(values), path.log_weights(len(values))
    current = path.at(1.0)
    for step in tqdm(range(len(step_sizes), 0, -1), disable=not progress, desc="in reverse", unit="temperature"):
        position, _ = path.move(current, position, step_sizes[step - 1], num_leapfrog)
        previous = path.at((step - 1) / len(step_sizes))
        log_weights = log_weights + previous.energy(position) - current.energy(position)
        current = previous
    return log_weights
