"""What ``check_energy`` and ``check_kernel`` of both packages share: what is compared, with what, and how closely.

All here is NumPy. A backend shows its distribution as a :class:`Model`, whose values are rows ``(n, D)``, a value of
any event shape as one row.
"""

import warnings
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from _ppl_ebm.integrals import NODES, Array, Moments, integrated, states, summed

#: Monte Carlo gates: one false alarm in 150,000 gated numbers.
MAX_Z = 4.5
#: Values at which functions are compared.
NUM_VALUES = 5
#: Sweeps and transitions after which moments are compared with those at the start.
NUM_STEPS = (1, 4, 16)
_NUM_SWEEPS = 4
_UNSETTLED = 1e-3  # difference of a quadrature on two grids from which it tells nothing


def z_scores(draws: ArrayLike, expected: ArrayLike, effective_size: ArrayLike | None = None) -> Array:
    """Deviations of means over the first axis from ``expected``, in standard errors.

    :param draws: independent draws, unless ``effective_size`` says how many they are worth.

    >>> z_scores([[1.0, 5.0], [3.0, 5.0]], [1.0, 5.0]).round(3).tolist()
    [1.414, 0.0]
    """
    draws, expected = np.asarray(draws, float), np.asarray(expected, float)
    size = len(draws) if effective_size is None else effective_size
    rounding = 1e-12 * (1 + np.abs(draws).max(0, initial=0.0))
    return (draws.mean(0) - expected) / np.maximum(draws.std(0) / np.sqrt(size), rounding)


class Report:
    """What has been found wrong with one object, to be raised together."""

    def __init__(self, subject: str) -> None:
        self.subject, self.findings = subject, list[str]()

    def equal(self, what: str, found: object, expected: object) -> None:
        """Shapes, types and truths."""
        if found != expected:
            self.findings.append(f"{what}: expected {expected}, got {found}")

    def close(self, what: str, found: ArrayLike, expected: ArrayLike, tolerance: float, slack: float = 0.0) -> None:
        """``|found - expected| <= tolerance (1 + |expected|) + slack`` everywhere."""
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        if found.shape != expected.shape:
            self.equal(f"{what}: shape", found.shape, expected.shape)
            return
        with np.errstate(invalid="ignore"):
            excess = np.abs(found - expected) - slack - tolerance * (1 + np.abs(expected))
        wrong = (found != expected) & ~(excess <= 0)
        if wrong.any():
            worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess) * wrong), wrong.shape)
            where = f" at index {tuple(map(int, worst))}" if worst else ""
            self.findings.append(
                f"{what}: expected {expected[worst]:.8g}, got {found[worst]:.8g}{where}; they differ by "
                f"{abs(found[worst] - expected[worst]):.3g}, more than {tolerance * (1 + abs(expected[worst])):.2g}"
                f"{f' + {slack:.2g}' if slack else ''}"
            )

    def mean(self, what: str, draws: Array, expected: ArrayLike = 0.0) -> None:
        """The mean of independent draws, entry by entry, within ``MAX_Z`` standard errors."""
        z = z_scores(draws, expected)
        if not (np.abs(z) < MAX_Z).all():
            worst = np.unravel_index(np.argmax(np.where(np.isnan(z), np.inf, np.abs(z))), z.shape)
            should, is_ = np.broadcast_to(np.asarray(expected, float), z.shape)[worst], draws.mean(0)[worst]
            where = f" at index {tuple(map(int, worst))}" if worst else ""
            self.findings.append(
                f"{what}: expected {should:.5g}, got {is_:.5g}{where} over {len(draws)} draws; z = {z[worst]:.1f}, "
                f"and |z| < {MAX_Z} was expected"
            )

    def finish(self) -> None:
        """Raise what was found.

        :raises AssertionError: with a line for each finding.
        """
        if self.findings:
            raise AssertionError("\n- ".join([f"{self.subject}: {len(self.findings)} found wrong", *self.findings]))


class Point(NamedTuple):
    """Chains, or independent draws: values ``(n, D)`` and their energies ``(n,)``."""

    values: Array
    energy: Array

    def statistics(self) -> tuple[list[str], Array]:
        """What is compared between two times: coordinates, products of two, and the energy; names and columns."""
        pairs = list(zip(*np.triu_indices(size := self.values.shape[1]), strict=True))
        names = [*(f"x_{i}" for i in range(size)), *(f"x_{i} x_{j}" for i, j in pairs), "energy"]
        products = [self.values[:, i] * self.values[:, j] for i, j in pairs]
        return names, np.column_stack([self.values, *products, self.energy])


class Model(Protocol):
    """A distribution without batch dimensions, as arrays."""

    @property
    def size(self) -> int: ...

    @property
    def is_discrete(self) -> bool: ...

    @property
    def is_constrained(self) -> bool:
        """Whether gradient-informed chains move in other coordinates than the values'."""

    @property
    def capabilities(self) -> frozenset[str]: ...

    @property
    def tolerance(self) -> float:
        """How closely functions agree."""

    def initial(self, count: int) -> Array: ...

    def inside(self, values: Array) -> NDArray[np.bool_]:
        """Which values are in the support."""

    def energy(self, values: Array) -> Array: ...

    def laplacian(self, values: Array) -> Array: ...

    def comparisons(self, values: Array) -> Mapping[str, tuple[ArrayLike, ArrayLike]]:
        """Functions of values, as they are and as they should be, by what they are."""

    def positions(self, values: Array) -> Array:
        """In coordinates that cover all of R^D."""

    def log_density(self, positions: Array) -> Array:
        """There, up to its constant."""

    def score(self, positions: Array) -> Array:
        """There."""

    def draws(self, method: str, count: int) -> Array:
        """Draws ``(count, 2, D)`` of two copies, by ``"sample"`` or ``"ancestral_sample"``."""

    def swept(self, values: Array) -> Array:
        """Values after a Gibbs sweep."""

    def conditional_logits(self, values: Array) -> Array: ...

    def log_partition(self) -> float: ...

    def base_log_partition(self) -> float: ...

    def moments(self) -> tuple[Array, Array] | None:
        """Mean and variance as the host has them, where the family knows them."""

    def annealed(self, inverse_temperature: float) -> "Model": ...


def check_model(report: Report, model: Model, num_draws: int) -> None:
    """Everything that :func:`check_energy` does with a distribution beside shapes and types.

    :param num_draws: draws of each kind; 0 to compare functions alone.
    """
    values = model.initial(NUM_VALUES)
    report.equal("initial(): values inside the support", bool(model.inside(values).all()), True)
    report.equal("energy: finite at initial()", bool(np.isfinite(model.energy(values)).all()), True)
    for what, pair in sorted(model.comparisons(values).items()):
        report.close(what, *pair, model.tolerance)
    exact = _exact(model) if num_draws or "exact_partition" in model.capabilities else None
    if exact is not None:
        _check_exact(report, model, exact)
    if "conditional_logits" in model.capabilities:
        gaps = np.stack([_gap(model, values, unit) for unit in range(model.size)], -1)
        report.close("conditional_logits", model.conditional_logits(values), gaps, model.tolerance)
    if "annealing" in model.capabilities:
        _check_base(report, model, num_draws)
    if num_draws:
        draws = model.draws("sample", (num_draws + 1) // 2)
        _check_draws(report, "draws by sample", model, draws, exact)
        if "ancestral_sampler" in model.capabilities:
            ancestral = model.draws("ancestral_sample", len(draws))
            _check_draws(report, "draws by ancestral_sample", model, ancestral, exact)
        if "gibbs_step" in model.capabilities:
            _check_sweeps(report, model, draws.reshape(-1, model.size))


def check_drift(report: Report, what: str, start: Point, end: Point) -> None:
    """Moments of chains that started in their stationary distribution are the same later.

    Each chain is compared with itself, so that short moves are held to short errors.
    """
    names, before = start.statistics()
    _, after = end.statistics()
    for name, z, first, last in zip(names, z_scores(after - before, 0.0), before.mean(0), after.mean(0), strict=True):
        if not abs(z) < MAX_Z:
            report.findings.append(
                f"{what}: E[{name}] drifts from {first:.5g} to {last:.5g} over {len(before)} chains; z = {z:.1f}, and "
                f"|z| < {MAX_Z} was expected"
            )


def _exact(model: Model) -> Moments | None:
    """By a sum over states or a numerical integral; ``None`` where there are too many, or where it does not settle."""
    if model.is_discrete:
        every = states(model.inside, model.size)
        return None if every is None else summed(-model.energy(every), every)
    if model.size not in NODES:
        return None
    found = integrated(model.log_density, model.size)
    if found.error < _UNSETTLED:
        return found
    warnings.warn(
        f"the numerical integral did not settle: two grids differ by {found.error:.2g}, so that normaliser and moments "
        "are not compared with it",
        stacklevel=4,
    )
    return None


def _check_exact(report: Report, model: Model, exact: Moments) -> None:
    """Normaliser and moments of the family against a sum or an integral."""
    by = "a sum over all states" if model.is_discrete else "quadrature"
    if "exact_partition" in model.capabilities:
        found = model.log_partition()
        report.close(f"log_partition against {by}", found, exact.log_partition, model.tolerance, exact.error)
    known = model.moments()
    if known is not None and not model.is_constrained:
        report.close(f"mean against {by}", known[0], exact.mean, 10 * model.tolerance, exact.error)
        if exact.covariance is not None:
            variance = np.diagonal(exact.covariance)
            report.close(f"variance against {by}", known[1], variance, 10 * model.tolerance, 10 * exact.error)


def _check_base(report: Report, model: Model, num_draws: int) -> None:
    """The independent units where annealing starts: their normaliser, and exact draws by ``initial``."""
    base = model.annealed(0.0)
    exact = _exact(base)
    if exact is not None:
        found = model.base_log_partition()
        report.close("base_log_partition", found, exact.log_partition, model.tolerance, exact.error)
    if num_draws:
        draws = base.initial(num_draws)
        _check_identities(report, "initial() as draws at inverse temperature 0", base, draws, exact)


def _check_draws(report: Report, what: str, model: Model, draws: Array, exact: Moments | None) -> None:
    """Two copies: each distributed as the model, and independent of the other."""
    first, second = (draws[:, copy] - draws[:, copy].mean(0) for copy in (0, 1))
    report.mean(f"{what}: covariance of two copies", first * second)
    values = np.concatenate([draws[:, 0], draws[:, 1]])
    report.equal(f"{what}: inside the support", bool(model.inside(values).all()), True)
    _check_identities(report, what, model, values, exact)


def _check_identities(report: Report, what: str, model: Model, values: Array, exact: Moments | None) -> None:
    """Stein's identities, or those of binary units given the others; and moments, where they are known."""
    positions = values if model.is_discrete else model.positions(values)
    if not model.is_discrete:
        score = model.score(positions)
        report.mean(f"{what}: Stein's identity E[score] = 0", score)
        products = positions[:, :, None] * score[:, None, :]
        report.mean(f"{what}: Stein's identity E[x score'] = -1", products, -np.eye(model.size))
        if "continuous_score" in model.capabilities and not model.is_constrained:
            squares = model.laplacian(values) + (score**2).sum(-1)
            report.mean(f"{what}: E[laplacian + |score|^2] = 0, of a continuous score", squares)
    elif "conditional_logits" in model.capabilities:
        surprise = values - 1 / (1 + np.exp(-model.conditional_logits(values)))
        report.mean(f"{what}: E[(x_i - P(x_i = 1 | rest)) x_j] = 0", _products(surprise, values))
    if exact is not None:
        report.mean(f"{what}: mean", positions, exact.mean)
        if exact.covariance is not None:
            centred = positions - exact.mean
            report.mean(f"{what}: covariance", centred[:, :, None] * centred[:, None, :], exact.covariance)


def _check_sweeps(report: Report, model: Model, values: Array) -> None:
    """Gibbs sweeps leave the distribution as it is, and are as likely backwards as forwards."""
    start = Point(values, model.energy(values))
    for count in range(1, _NUM_SWEEPS + 1):
        values = model.swept(values)
        end = Point(values, model.energy(values))
        if count == 1:
            before, after = (np.concatenate([p.values, p.values**2, p.energy[:, None]], -1) for p in (start, end))
            rows, columns = np.triu_indices(before.shape[1], 1)
            turned = before[:, rows] * after[:, columns] - after[:, rows] * before[:, columns]
            report.mean("gibbs_step: E[f(x) g(x')] = E[g(x) f(x')] of a reversible sweep", turned)
        check_drift(report, f"gibbs_step, {count} of them", start, end)


def _products(surprise: Array, values: Array) -> Array:
    """``(x_i - P_i) x_j`` for all pairs, with 1 in place of ``x_i`` where ``i = j``."""
    size = values.shape[1]
    others = np.where(np.eye(size, dtype=bool), 1.0, values[:, None, :])
    return surprise[:, :, None] * others


def _gap(model: Model, values: Array, unit: int) -> Array:
    """Energy with a unit at 0 minus energy with the unit at 1."""
    off, on = values.copy(), values.copy()
    off[:, unit], on[:, unit] = 0.0, 1.0
    return model.energy(off) - model.energy(on)
