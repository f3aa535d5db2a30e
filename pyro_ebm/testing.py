"""The test case for energies and kernels of your own, which this package's families and kernels pass too.

:func:`check_energy` holds a distribution against automatic differentiation, numerical integrals or sums over states,
identities that draws of any density fulfil, and its own declared capabilities. :func:`check_kernel` starts chains from
exact draws and looks whether their moments drift. Both raise ``AssertionError`` with all that they found wrong.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro.distributions.transforms import biject_to

from _ppl_ebm.checks import check_count, check_positive_int
from _ppl_ebm.integrals import Array
from _ppl_ebm.testing import NUM_STEPS, Point, Report, check_drift, check_model
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.infer.kernel import BatchedKernel
from pyro_ebm.sampling.protocols import MarkovChain
from pyro_ebm.sampling.samplers import Ancestral, Exact

__all__ = ["check_energy", "check_kernel"]

_CHUNK = 2**17  # values at a time


def check_energy(distribution: EnergyDistribution, *, num_draws: int = 20_000, tolerance: float | None = None) -> None:
    """Hold a distribution against everything that its energy implies.

    - Score and Laplacian against automatic differentiation of the energy; all functions of values in single precision,
      under ``expand`` and in a batch with a second model, whose parameters are 5 % smaller.
    - The exact normaliser, mean and variance against quadrature in up to three dimensions, or against the sum over all
      states where these are at most 2^16. (Where the integral does not settle, a warning says so.)
    - Draws of ``sample`` and ``ancestral_sample`` by Stein's identities ``E[score] = 0`` and ``E[x score'] = -1``, or
      by those of binary units given all others, and by the mean and covariance of that integral or sum.
    - Capabilities: a Gibbs sweep leaves exact draws as they are distributed, and is reversible; the annealing path ends
      at the energy itself, and starts at ``base_log_partition`` and at ``initial``; conditional log odds are those of
      the energy; a score is continuous if it is said to be.

    Monte Carlo gates are at 4.5 standard errors. Chains that have not converged fail them: give a longer ``sampler``.

    :param distribution: one model, without batch dimensions.
    :param num_draws: draws of each kind; 0 compares functions alone.
    :param tolerance: of functions, relative and absolute; default: the root of the machine's precision.
    :raises AssertionError: with a line for everything that disagrees: what, by how much, and what was admitted.
    :raises ValueError: for a distribution with batch dimensions.

    >>> import pyro, torch
    >>> from torch.distributions import constraints
    >>> from pyro_ebm import EnergyDistribution, GaussianRBM
    >>> from pyro_ebm.testing import check_energy
    >>> pyro.set_rng_seed(0)
    >>> check_energy(GaussianRBM(torch.tensor([[0.5], [0.3]])))
    >>> class Quartic(EnergyDistribution):
    ...     parameter_dims = {"strength": ("visible",)}
    ...     arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
    ...     support = constraints.real_vector
    ...     def __init__(self, strength, **options):
    ...         super().__init__({"strength": strength}, **options)
    ...     def _energy(self, value):
    ...         return (self.strength * value**4).sum(-1)
    ...     def _score(self, value):
    ...         return -self.strength * value**3
    >>> check_energy(Quartic(torch.ones(1)), num_draws=0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: Quartic: 2 found wrong
    - laplacian against automatic differentiation of the energy: expected ...
    - score against automatic differentiation of the energy: expected ...
    """
    _check_single("check_energy", distribution)
    check_count("num_draws", num_draws)
    report = Report(type(distribution).__name__)
    value = distribution.initial((2,))
    energy = distribution.energy(value)
    report.equal("initial(): shape", tuple(value.shape), (2, *distribution.event_shape))
    report.equal("energy: shape and type", (tuple(energy.shape), energy.dtype), ((2,), distribution.dtype))
    check_model(report, _Model(distribution, tolerance), num_draws)
    report.finish()


def check_kernel(
    kernel: BatchedKernel | MarkovChain,
    distribution: EnergyDistribution,
    *,
    site: str | None = None,
    num_chains: int = 20_000,
    num_steps: tuple[int, ...] = NUM_STEPS,
    num_warmup: int = 0,
) -> None:
    """Whether a kernel leaves a distribution invariant: chains start from exact draws, and no moment may drift.

    It tells a wrong kernel from one that mixes slowly, for it does not depend on mixing. Means of ``x_i``,
    ``x_i x_j`` and of the energy over all chains are compared with those at the start, at 4.5 standard errors of the
    change. Kernels whose state is more than a position (tempering) start outside their stationary distribution, and
    cannot be checked so.

    :param kernel: a kernel for :class:`pyro_ebm.infer.mcmc.BatchedMCMC`, or a Markov chain such as ``Gibbs()``. It
        moves as it is configured: give it a step size.
    :param distribution: its stationary distribution, with an exact sampler and without batch dimensions.
    :param site: the site of the kernel's model whose posterior ``distribution`` is, or the name of that parameter of a
        potential function; ``None`` for Markov chains.
    :param num_chains: independent chains.
    :param num_steps: numbers of transitions after which moments are compared.
    :param num_warmup: transitions of a warm-up before, after which chains start anew from other exact draws, with what
        they have learned: so that a learned step size and preconditioner are tested too.
    :raises AssertionError: with every moment that drifts, or if no chain has moved.
    :raises TypeError: for a distribution without an exact sampler, or what is no kernel.

    >>> import pyro, torch
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer import MALA, Gibbs
    >>> from pyro_ebm.testing import check_kernel
    >>> pyro.set_rng_seed(0)
    >>> rbm = GaussianBernoulliRBM(torch.tensor([[1.0], [-1.0]]))
    >>> check_kernel(Gibbs(), rbm)
    >>> kernel = MALA(lambda: pyro.sample("v", rbm), step_size=1.2)
    >>> check_kernel(kernel, rbm, site="v")
    """
    _check_single("check_kernel", distribution)
    check_positive_int("num_chains", num_chains)
    check_count("num_warmup", num_warmup)
    if not distribution.has_exact_sampler:
        raise TypeError(
            f"distribution: check_kernel expected one with an exact sampler, got {type(distribution).__name__}"
        )
    report = Report(f"{type(kernel).__name__} on {type(distribution).__name__}")
    model = distribution.frozen()
    starts = [Exact().sample(model, (num_chains,)) for _ in range(2 if num_warmup else 1)]
    if isinstance(kernel, BatchedKernel):
        ends = _run_kernel(kernel, model, starts, site, num_steps, num_warmup)
    elif isinstance(kernel, MarkovChain):
        ends = _run_chain(kernel, model, starts, num_steps, num_warmup)
    else:
        raise TypeError(
            f"kernel: check_kernel expected a kernel of BatchedMCMC or a Markov chain, got {kernel!r}; Pyro's own "
            "kernels run one chain at a time"
        )
    points = {0: starts[-1], **ends}
    found = {steps: Point(_rows(value), _array(model.energy(value))) for steps, value in points.items()}
    moved = any((point.values != found[0].values).any() for point in found.values())
    report.equal(f"a chain that moves in {max(num_steps)} transitions", moved, True)
    for steps in num_steps:
        check_drift(report, f"after {steps} transition{'s' * (steps > 1)}", found[0], found[steps])
    report.finish()


@torch.no_grad()
def _run_kernel(
    kernel: BatchedKernel,
    distribution: EnergyDistribution,
    starts: list[torch.Tensor],
    site: str | None,
    num_steps: tuple[int, ...],
    num_warmup: int,
) -> dict[int, torch.Tensor]:
    """Values after these numbers of transitions, all chains as one batch."""
    if site is None:
        raise TypeError(f"site: {type(kernel).__name__} moves the sites of a model; expected the name of one, got None")
    transform = None if distribution.is_discrete else biject_to(distribution.support)
    params = [{site: start if transform is None else transform.inv(start)} for start in starts]
    num_chains = len(starts[0])
    kernel.prepare(num_chains, num_warmup, params[0], (), {})
    kernel.start(num_chains, params[0])
    for _ in range(num_warmup):
        kernel.advance()
    if num_warmup:
        learned = kernel.state
        kernel.start(num_chains, params[1])
        kernel.restore(learned._replace(chain=kernel.state.chain))
    ends = {}
    for count in range(1, max(num_steps) + 1):
        kernel.advance()
        position = kernel.state.chain.position.reshape(num_chains, *distribution.event_shape)
        ends[count] = position if transform is None else transform(position)
    kernel.cleanup()
    return {steps: ends[steps] for steps in num_steps}


@torch.no_grad()
def _run_chain(
    chain: MarkovChain,
    distribution: EnergyDistribution,
    starts: list[torch.Tensor],
    num_steps: tuple[int, ...],
    num_warmup: int,
) -> dict[int, torch.Tensor]:
    """Values after these numbers of transitions, by the chain's own methods."""
    chain.check(distribution)
    tuning = chain.tune(distribution, starts[0], num_warmup)[1] if num_warmup else None
    carry, ends = chain.init(distribution, starts[-1]), {}
    for count in range(1, max(num_steps) + 1):
        carry = chain.advance(distribution, carry, 1, tuning)
        ends[count] = chain.value(distribution, carry)
    return {steps: ends[steps] for steps in num_steps}


def _check_single(owner: str, distribution: EnergyDistribution) -> None:
    if distribution.batch_shape:
        raise ValueError(f"distribution: {owner} expected no batch dimensions, got {tuple(distribution.batch_shape)}")


class _Model:
    """A distribution as :class:`_ppl_ebm.testing.Model`: functions of rows of NumPy arrays."""

    def __init__(self, distribution: EnergyDistribution, tolerance: float | None = None) -> None:
        self.distribution: Any = distribution.frozen()
        precision = torch.finfo(distribution.dtype).eps
        self.size, self.tolerance = math.prod(distribution.event_shape), tolerance or math.sqrt(precision)
        self.is_discrete, self.capabilities = distribution.is_discrete, distribution.capabilities
        self.is_constrained = not self.is_discrete and distribution.unconstrained is not distribution

    def _value(self, rows: Array) -> torch.Tensor:
        value = torch.as_tensor(rows.reshape(-1, *self.distribution.event_shape), device=self.distribution.device)
        return value.to(self.distribution.dtype)

    def initial(self, count: int) -> Array:
        return _rows(self.distribution.initial((count,)))

    def inside(self, values: Array) -> np.ndarray:
        return self.distribution.support.check(self._value(values)).cpu().numpy()

    def energy(self, values: Array) -> Array:
        return _in_chunks(self.distribution.energy, self._value(values))

    def laplacian(self, values: Array) -> Array:
        return _in_chunks(self.distribution.laplacian, self._value(values))

    def log_density(self, positions: Array) -> Array:
        return _in_chunks(self.distribution.unconstrained.unnormalized_log_prob, self._value(positions))

    def score(self, positions: Array) -> Array:
        return _rows(_in_chunks(self.distribution.unconstrained.score, self._value(positions)))

    def conditional_logits(self, values: Array) -> Array:
        return _rows(self.distribution.conditional_logits(self._value(values)))

    def positions(self, values: Array) -> Array:
        return _rows(self.distribution.unconstrained.from_value(self._value(values)))

    def comparisons(self, values: Array) -> dict[str, tuple[Array, Array]]:
        value = self._value(values)
        single = _functions(self.distribution, value)
        others = _alternatives(self.distribution, value)
        found = {what: (single[what.split()[0]], _array(other)) for what, other in others.items()}
        return found | _compared_in_a_batch(self.distribution, value)

    def draws(self, method: str, count: int) -> Array:
        copies = self.distribution.expand((2,))
        if method == "ancestral_sample":
            copies = copies.replace(sampler=Ancestral())
        return _array(copies.sample((count,))).reshape(count, 2, self.size)

    def swept(self, values: Array) -> Array:
        return _rows(self.distribution.gibbs_step(self._value(values)))

    def log_partition(self) -> float:
        return float(self.distribution.with_log_partition("auto").log_partition)

    def base_log_partition(self) -> float:
        return float(self.distribution.base_log_partition)

    def moments(self) -> tuple[Array, Array] | None:
        try:
            return _array(self.distribution.mean).ravel(), _array(self.distribution.variance).ravel()
        except NotImplementedError:
            return None

    def annealed(self, inverse_temperature: float) -> "_Model":
        return _Model(self.distribution.at_inverse_temperature(inverse_temperature), self.tolerance)


def _array(value: torch.Tensor) -> Array:
    return value.detach().cpu().double().numpy()


def _rows(value: torch.Tensor | Array) -> Array:
    array = _array(value) if isinstance(value, torch.Tensor) else value
    return array.reshape(len(array), -1)


@torch.no_grad()
def _in_chunks(function: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor) -> Array:
    """``function`` of many values."""
    return np.concatenate([_array(function(part)) for part in value.split(_CHUNK)])


def _functions(distribution: EnergyDistribution, value: torch.Tensor) -> dict[str, Array]:
    """Functions of values."""
    found = {"energy": distribution.energy(value)}
    if not distribution.is_discrete:
        found |= {"score": distribution.score(value), "laplacian": distribution.laplacian(value)}
    return {name: _array(tensor) for name, tensor in found.items()}


def _alternatives(distribution: EnergyDistribution, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the same functions should be, by other ways."""
    found = {
        "energy against -unnormalized_log_prob": -distribution.unnormalized_log_prob(value),
        "energy against itself of one value at a time": torch.stack([distribution.energy(one) for one in value]),
        "energy against itself under expand": distribution.expand((2,)).energy(value[:, None])[:, 1],
    }
    if distribution.is_normalized:
        known = -distribution.log_prob(value) - distribution.log_partition
        found["energy against -log_prob - log_partition"] = known
    if distribution.has_annealing:
        end = distribution.at_inverse_temperature(1.0)
        found["energy against that at inverse temperature 1"] = end.energy(value)
    if not distribution.is_discrete:
        by = "against automatic differentiation of the energy"
        flat = value.flatten(1).detach().requires_grad_()
        with torch.enable_grad():
            log_density = -distribution.energy(flat.reshape(value.shape)).sum()
            (gradient,) = torch.autograd.grad(log_density, flat, create_graph=True)
            rows = [torch.autograd.grad(column.sum(), flat, **_AGAIN)[0] for column in gradient.unbind(-1)]
        found[f"score {by}"] = gradient.reshape(value.shape)
        found[f"laplacian {by}"] = torch.stack(rows, -1).diagonal(dim1=-2, dim2=-1).sum(-1)
    return found


_AGAIN: dict[str, Any] = {"retain_graph": True, "materialize_grads": True, "allow_unused": True}


def _compared_in_a_batch(distribution: EnergyDistribution, value: torch.Tensor) -> dict[str, tuple[Array, Array]]:
    """Two models in a batch against each alone; nothing for a family without parameters."""
    bare = distribution.with_log_partition(None)
    given = _parameters(bare)
    if not given:
        return {}
    smaller = _changed(given, lambda tensor: 0.95 * tensor)
    pair = bare.replace(**_changed(given, lambda tensor: torch.stack([tensor, 0.95 * tensor])))
    models = [bare, bare.replace(**smaller)]
    alone = [_functions(model, value) for model in models]
    found = {
        f"{name} of a batch of two models": (array, np.stack([functions[name] for functions in alone], 1))
        for name, array in _functions(pair, value[:, None]).items()
    }
    if distribution.has_exact_partition and distribution.with_log_partition("auto").is_normalized:
        exact = [_array(model.with_log_partition("auto").log_partition) for model in (pair, *models)]
        found["log_partition of a batch of two models"] = (exact[0], np.stack(exact[1:]))
    return found


def _parameters(distribution: EnergyDistribution) -> dict[str, Any]:
    """Parameters (in mappings, too) as arguments of the constructor."""
    names = distribution.parameters()
    arguments = distribution.arguments().items()
    return {name: value for name, value in arguments if name in names or isinstance(value, Mapping)}


def _changed(given: Mapping[Any, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[Any, Any]:
    """Parameters, in mappings too, changed."""
    return {
        name: _changed(value, change) if isinstance(value, Mapping) else change(value) for name, value in given.items()
    }
