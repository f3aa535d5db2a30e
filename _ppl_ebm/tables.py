"""What a Markov network's tables decide: whether any state is possible, and whether single-site moves are stuck.

All here is NumPy on concrete energies, of which ``+inf`` forbids a state. Tables have leading batch dimensions that
broadcast, and stand in the order of the graph's scopes.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from _ppl_ebm.errors import ImproperDensityError
from _ppl_ebm.factor_graph import FactorGraph
from _ppl_ebm.limits import MAX_ENUMERATED_TERMS
from _ppl_ebm.properness import single_models

_Table = tuple[tuple[int, ...], NDArray[np.bool_]]  # variables, and which of their states are possible, per model
#: How fast energies that forbid a state grow on the way from independent units, in multiples of -log(1 - beta).
STIFFNESS = 5.0
_STUCK = 1e-4  # probability of a single-site move below which it does not count
_MAX_STATES = 2**12  # up to which all joint states of a network are looked at together
_MAX_MODELS = 100  # of a batch that are looked at for stuck moves
_MAX_NAMES = 6  # in a message


def check_energies(owner: str, name: str, table: NDArray[np.floating]) -> None:
    """Refuse energies that are NaN or ``-inf``."""
    wrong = int((np.isnan(table) | np.isneginf(table)).sum())
    if wrong:
        raise ValueError(
            f"{name}: {owner} expected energies that are finite, or +inf to forbid a state, got {wrong} NaN or -inf"
        )


class NoPossibleState(ImproperDensityError):
    """Tables forbid every state of a model.

    :param row: its index in the batch.
    """

    def __init__(self, message: str, row: tuple[int, ...]) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type["NoPossibleState"], tuple[str, tuple[int, ...]]]:
        return type(self), (str(self), self.row)


class Contradiction(NamedTuple):
    """Why no state is possible.

    :param row: index of the first model without one, in the batch.
    :param scopes: variables of factors that exclude each other; without any one of them, the rest do not.
    """

    row: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]

    @property
    def variables(self) -> list[int]:
        """Those of the factors."""
        return sorted({v for scope in self.scopes for v in scope})


def check_possible(owner: str, graph: FactorGraph, tables: Sequence[NDArray[np.floating]]) -> None:
    """Refuse networks in which every state has an infinite energy.

    :raises ImproperDensityError: naming factors that exclude each other, and their variables.
    """
    found = find_contradiction(graph, tables)
    if found is not None:
        names = ["_".join(["factor", *map(str, scope)]) for scope in found.scopes]
        raise NoPossibleState(
            f"{names[0]}: {owner} expected at least one state of finite energy, got probability 0 for every state of "
            f"variables {found.variables}{_at(found.row)}, which {_listed(names)} forbid",
            found.row,
        )


@contextlib.contextmanager
def evidence_checked(owner: str, known: Sequence[int], values: NDArray[np.generic] | None) -> Iterator[None]:
    """Say that known values have probability 0 where a model that is made in this context has no possible state.

    :param known: their variables.
    :param values: shape ``(..., len(known))``; ``None`` where traced.
    :raises NoPossibleState: naming the variables with their values.
    """
    try:
        yield
    except NoPossibleState as error:
        if values is None:
            raise
        raise NoPossibleState(_impossible_evidence(owner, known, values, error.row), error.row) from error


def _impossible_evidence(owner: str, known: Sequence[int], values: NDArray[np.generic], row: tuple[int, ...]) -> str:
    values = np.broadcast_to(values, (*row, *values.shape[-1:])) if values.ndim == 1 else values
    own = row[len(row) - values.ndim + 1 :]
    place = tuple(0 if size == 1 else i for i, size in zip(own, values.shape[:-1], strict=True))
    pairs = _listed([f"{v} = {int(state)}" for v, state in zip(known, values[place], strict=True)])
    return (
        f"values: {owner} expected values of positive probability, got probability 0 for variables {pairs}{_at(row)}: "
        "no state of the other variables goes with them"
    )


def _at(row: tuple[int, ...]) -> str:
    return f" at batch index {row}" if row else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def find_contradiction(graph: FactorGraph, tables: Sequence[NDArray[np.floating]]) -> Contradiction | None:
    """Whether a model of the batch has no possible state: exactly where elimination is tractable.

    Beyond that, only contradictions that show while single variables lose states (arc consistency).
    """
    if not any(np.isposinf(table).any() for table in tables):
        return None
    leads = [table.shape[: table.ndim - len(scope)] for scope, table in zip(graph.scopes, tables, strict=True)]
    batch = np.broadcast_shapes(*leads)
    possible: list[_Table] = []
    for scope, lead, table in zip(graph.scopes, leads, tables, strict=True):
        core = table.shape[len(lead) :]
        full = np.broadcast_to(table < np.inf, batch + core) if lead else (table < np.inf)[None]
        possible.append((scope, full.reshape(-1, *core)))
    feasible = np.broadcast_to(_is_feasible(graph, possible), math.prod(batch))
    if feasible.all():
        return None
    number = int(np.flatnonzero(~feasible)[0])
    model = [(scope, table[number : number + 1] if len(table) > 1 else table) for scope, table in possible]
    row = tuple(map(int, np.unravel_index(number, batch))) if batch else ()
    return Contradiction(row, _conflicting(graph, model))


def _conflicting(graph: FactorGraph, model: list[_Table]) -> tuple[tuple[int, ...], ...]:
    """Scopes of factors that exclude each other, of which none can be left out."""
    kept = [(scope, table) for scope, table in model if not table.all()]
    for one in list(kept):
        others = [other for other in kept if other is not one]
        if not _is_feasible(graph, others).all():
            kept = others
    return tuple(scope for scope, _ in kept)


def _is_feasible(graph: FactorGraph, tables: list[_Table]) -> NDArray[np.bool_]:
    """Which models have a possible state, of shape ``(models,)`` or ``(1,)``."""
    plan = graph.elimination()
    if not plan.is_tractable:
        return _is_consistent(graph.cardinalities, tables)
    for cluster in plan.clusters:
        touching = [table for table in tables if cluster[0] in table[0]]
        tables = [table for table in tables if cluster[0] not in table[0]]
        tables.append((cluster[1:], np.any(_joined(touching, cluster), axis=1)))
    return _joined(tables, ())


def _is_consistent(cardinalities: tuple[int, ...], tables: list[_Table]) -> NDArray[np.bool_]:
    """Whether every variable keeps a state that each of its factors admits with states that the others keep."""
    models = max((len(table) for _, table in tables), default=1)
    domains = {v: np.ones((models, size), bool) for v, size in enumerate(cardinalities)}
    changed = True
    while changed:
        changed = False
        for scope, table in tables:
            joint = _joined([(scope, table), *(((v,), domains[v]) for v in scope)], scope)
            for axis, v in enumerate(scope):
                left = joint.any(tuple(a + 1 for a in range(len(scope)) if a != axis))
                changed |= bool((left != domains[v]).any())
                domains[v] = np.broadcast_to(left, domains[v].shape)
    return np.all([domain.any(1) for domain in domains.values()], axis=0) & _joined(
        [((), np.any(table.reshape(len(table), -1), axis=1)) for _, table in tables], ()
    )


def _joined(tables: Iterable[_Table], scope: tuple[int, ...]) -> NDArray[np.bool_]:
    """What all of some tables over subsets of ``scope`` admit, as one table over it that broadcasts."""
    total = np.ones((1,) * (1 + len(scope)), bool)
    for variables, table in tables:
        total = total & _spread(variables, table, scope)
    return total


def _spread(variables: tuple[int, ...], table: NDArray, scope: tuple[int, ...]) -> NDArray:
    """A table over a subset of ``scope``, behind one batch dimension, with its axes where they stand in ``scope``."""
    axes = [1 + variables.index(v) for v in scope if v in variables]
    sizes = dict(zip(variables, table.shape[1:], strict=True))
    return table.transpose(0, *axes).reshape(len(table), *(sizes.get(v, 1) for v in scope))


# ---------------------------------------------------------------------- moves of one variable at a time


def warn_of_stuck_moves(owner: str, variables: Sequence[int]) -> None:
    """Say that Gibbs sweeps do not move between some states of these variables."""
    warnings.warn(
        f"sampler: single-site Gibbs sweeps of {owner} do not move between states of variables {list(variables)}, "
        f"whose factors leave every way from one to the other a probability below {_STUCK:g} per move: draws show the "
        "states near which the chains started. Remedies: one variable in place of these, whose states are the "
        "possible joint ones (a block), or condition() on others until Exact() is possible",
        RuntimeWarning,
        stacklevel=4,
    )


def find_stuck(graph: FactorGraph, tables: Sequence[NDArray[np.floating]]) -> tuple[int, ...] | None:
    """Variables between whose joint states no sequence of single-site Gibbs moves of probability 1e-4 leads.

    All variables together while they have at most 2^12 joint states; else those of each factor, with all factors
    within them. Of a large batch the first hundred models are looked at.
    """
    shapes = tuple(np.shape(table) for table in tables)
    if not _is_steep(tables):
        return None
    return _find_stuck(graph, shapes, tuple(np.asarray(table, float).tobytes() for table in tables))


def _is_steep(tables: Sequence[NDArray[np.floating]]) -> bool:
    """Whether any moves could be that rare: the ranges of all tables together exceed the logarithm of their odds."""
    return sum(float(table.max()) - float(table.min()) for table in tables if table.size) > -math.log(_STUCK)


@functools.lru_cache(maxsize=32)
def _find_stuck(
    graph: FactorGraph, shapes: tuple[tuple[int, ...], ...], entries: tuple[bytes, ...]
) -> tuple[int, ...] | None:
    tables = [np.frombuffer(data).reshape(shape) for data, shape in zip(entries, shapes, strict=True)]
    models = single_models(tables, [len(scope) for scope in graph.scopes])
    for _, model in zip(range(_MAX_MODELS), models, strict=False):
        stuck = _stuck_in_model(graph, model)
        if stuck is not None:
            return stuck
    return None


def _stuck_in_model(graph: FactorGraph, tables: list[NDArray[np.floating]]) -> tuple[int, ...] | None:
    every = tuple(range(len(graph.cardinalities)))
    if math.prod(graph.cardinalities) > _MAX_STATES:
        return next(_stuck_scopes(graph, tables), None)
    if not _is_stuck(_energies(graph, tables, every)):
        return None
    return next(_stuck_scopes(graph, tables), every)


def _stuck_scopes(graph: FactorGraph, tables: list[NDArray[np.floating]]) -> Iterator[tuple[int, ...]]:
    """Scopes of factors that are stuck by themselves, smallest first; equal tables are looked at once."""
    seen: dict[tuple[tuple[int, ...], bytes], bool] = {}
    for scope in sorted(dict.fromkeys(graph.scopes), key=len):
        if len(scope) < 2 or math.prod(graph.cardinalities[v] for v in scope) > MAX_ENUMERATED_TERMS:
            continue
        energies = _energies(graph, tables, scope)
        key = energies.shape, energies.tobytes()
        if key not in seen:
            seen[key] = _is_steep([energies]) and _is_stuck(energies)
        if seen[key]:
            yield scope


def _energies(graph: FactorGraph, tables: list[NDArray[np.floating]], scope: tuple[int, ...]) -> NDArray[np.floating]:
    """Sum of all factors within ``scope``, as one table over it."""
    total = np.zeros([graph.cardinalities[v] for v in scope])
    for variables, table in zip(graph.scopes, tables, strict=True):
        if set(variables) <= set(scope):
            total = total + _spread(variables, table[None], scope)[0]
    return total


def _is_stuck(energies: NDArray[np.floating]) -> bool:
    """Whether Gibbs moves along the axes, of those that are likely enough, have more than one closed class."""
    targets = [_likely(energies, axis) for axis in range(energies.ndim)]
    possible = energies < np.inf
    if not possible.any():
        return False
    one = np.zeros_like(possible)
    one.flat[np.argmin(energies)] = True
    while True:
        ahead = _reached(one, targets)
        behind = _reaching(one, targets) & ahead
        if (ahead == behind).all():
            break
        one = np.zeros_like(possible)
        one.flat[np.flatnonzero(ahead & ~behind)[0]] = True
    return bool((possible & ~_reaching(ahead, targets)).any())


def _likely(energies: NDArray[np.floating], axis: int) -> NDArray[np.bool_]:
    """Where a move along an axis may lead: states of a conditional probability that counts."""
    lowest = energies.min(axis, keepdims=True)
    weights = np.exp(-(energies - np.where(lowest < np.inf, lowest, 0.0)))
    return (weights > 0) & (weights >= _STUCK * weights.sum(axis, keepdims=True))


def _reached(start: NDArray[np.bool_], targets: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """All states that moves lead to from some."""
    before, after = np.zeros_like(start), start
    while (before != after).any():
        before = after
        for axis, target in enumerate(targets):
            after = after | (after.any(axis, keepdims=True) & target)
    return after


def _reaching(end: NDArray[np.bool_], targets: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """All states from which moves lead to some."""
    before, after = np.zeros_like(end), end
    while (before != after).any():
        before = after
        for axis, target in enumerate(targets):
            after = after | (after & target).any(axis, keepdims=True)
    return after
