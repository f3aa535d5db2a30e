"""What a Markov network's structure alone decides: an elimination order, groups of equal tables, a Gibbs schedule.

Nothing here sees a table's entries: it is plain Python and NumPy, computed once per structure (static under ``jit``).
"""

import dataclasses
import functools
import heapq
import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import SupportsIndex

import numpy as np

from _ppl_ebm.limits import MAX_ENUMERATED_TERMS


@dataclasses.dataclass(frozen=True)
class Elimination:
    """An order of eliminating variables, each with a table that joins all factors of it that are left.

    :param clusters: variables of each step's table, the eliminated one first.
    :param largest: entries of the largest table.
    :param width: variables of the widest table, minus one.
    :param total: entries of all tables.
    """

    clusters: tuple[tuple[int, ...], ...]
    largest: int
    width: int
    total: int

    @property
    def is_tractable(self) -> bool:
        """Whether every table has at most ``MAX_ENUMERATED_TERMS`` entries."""
        return self.largest <= MAX_ENUMERATED_TERMS

    def describe(self) -> str:
        """What the order needs, for error messages."""
        return (
            f"treewidth {self.width} found, whose largest table would need {_number(self.largest)} entries; the limit "
            f"is {MAX_ENUMERATED_TERMS}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Factors whose tables have one shape, to be looked up together in the concatenation of their flat tables.

    :param factors: positions among all factors, length ``G``.
    :param scopes: variables of each, shape ``(G, k)``.
    :param strides: steps of the ``k`` axes in a flat table.
    :param offsets: where each flat table starts in the concatenation, shape ``(G,)``.
    """

    factors: tuple[int, ...]
    shape: tuple[int, ...]
    scopes: np.ndarray
    strides: np.ndarray
    offsets: np.ndarray


@dataclasses.dataclass(frozen=True)
class FactorGraph:
    """Variables with their numbers of states, and the variables of each factor.

    >>> from _ppl_ebm.factor_graph import factor_graph
    >>> loop = factor_graph((2, 3, 2, 3), ((0, 1), (1, 2), (2, 3), (3, 0)))
    >>> loop.elimination().width, loop.elimination().largest
    (2, 12)
    >>> [colour.tolist() for colour in loop.colours]
    [[0, 2], [1, 3]]
    """

    cardinalities: tuple[int, ...]
    scopes: tuple[tuple[int, ...], ...]

    def elimination(self, keep: tuple[int, ...] = ()) -> Elimination:
        """The best order found that eliminates all variables but those in ``keep``."""
        return _find_elimination(self, keep)

    @functools.cached_property
    def parameter_dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the tables and of their dimensions."""
        names = ["_".join(["factor", *map(str, scope)]) for scope in self.scopes]
        dims = [tuple(f"variable_{v}" for v in scope) for scope in self.scopes]
        return dict(zip(names, dims, strict=True))

    @functools.cached_property
    def groups(self) -> tuple[Group, ...]:
        """Factors by the shape of their tables."""
        members: dict[tuple[int, ...], list[int]] = {}
        for position, scope in enumerate(self.scopes):
            members.setdefault(tuple(self.cardinalities[v] for v in scope), []).append(position)
        return tuple(self._group(shape, positions) for shape, positions in members.items())

    @functools.cached_property
    def colours(self) -> tuple[np.ndarray, ...]:
        """Classes of variables that share no factor: a Gibbs sweep updates each class at once."""
        neighbours = _neighbours(self.cardinalities, self.scopes)
        colour: dict[int, int] = {}
        for variable in sorted(neighbours, key=lambda v: (-len(neighbours[v]), v)):
            taken = {colour[u] for u in neighbours[variable] if u in colour}
            colour[variable] = next(c for c in range(len(taken) + 1) if c not in taken)
        colours = np.array([colour[v] for v in range(len(self.cardinalities))])
        return tuple(np.flatnonzero(colours == c) for c in range(colours.max() + 1))

    def incident(self, group: Group, axis: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per colour, the rows of ``group`` whose variable at ``axis`` has it, and the place of each in its class."""
        place = np.zeros(len(self.cardinalities), int)
        colour = np.zeros(len(self.cardinalities), int)
        for number, members in enumerate(self.colours):
            place[members], colour[members] = np.arange(len(members)), number
        variables = group.scopes[:, axis]
        rows = [np.flatnonzero(colour[variables] == number) for number in range(len(self.colours))]
        return [(chosen, place[variables[chosen]]) for chosen in rows]

    @functools.cached_property
    def backward(self) -> tuple[np.ndarray, ...]:
        """The elimination's clusters from the last to the first, as an exact draw visits them.

        :return: their first variables, where the tables start in the concatenation of all flat ones, strides of the
            first variables, and the other variables with their strides, padded to the widest by strides of zero.
        """
        clusters = self.elimination().clusters[::-1]
        shapes = [tuple(self.cardinalities[v] for v in cluster) for cluster in clusters]
        sizes = [math.prod(shape) for shape in shapes]
        first = np.array([cluster[0] for cluster in clusters])
        others = padded([np.array(cluster[1:], int) for cluster in clusters], 0)
        steps = [strides(shape) for shape in shapes]
        leading, rest = np.array([step[0] for step in steps]), padded([step[1:] for step in steps], 0)
        return first, np.cumsum(sizes) - sizes, leading, others, rest

    def _group(self, shape: tuple[int, ...], positions: list[int]) -> Group:
        scopes = np.array([self.scopes[position] for position in positions], int).reshape(len(positions), len(shape))
        offsets = math.prod(shape) * np.arange(len(positions))
        return Group(tuple(positions), shape, scopes, strides(shape), offsets)


@functools.lru_cache(maxsize=128)
def factor_graph(cardinalities: tuple[int, ...], scopes: tuple[tuple[int, ...], ...]) -> FactorGraph:
    """The graph of a structure; networks of equal structure share one, with all that was computed from it."""
    return FactorGraph(cardinalities, scopes)


def strides(shape: tuple[int, ...]) -> np.ndarray:
    """Steps of each axis in a flat table, last axis fastest."""
    return np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], int)


def padded(arrays: list[np.ndarray], fill: int) -> np.ndarray:
    """Rows of different lengths as one array."""
    longest = max(len(array) for array in arrays)
    return np.stack([np.pad(array, (0, longest - len(array)), constant_values=fill) for array in arrays])


@functools.lru_cache(maxsize=512)
def _find_elimination(graph: FactorGraph, keep: tuple[int, ...]) -> Elimination:
    """The best of three orders by the size of the largest table: greedy, as numbered, breadth first.

    The greedy one takes the variable with the smallest table next; grids want an order that sweeps over them.
    """
    scopes = (*graph.scopes, keep)
    neighbours = _neighbours(graph.cardinalities, scopes)
    best = _simulate(graph.cardinalities, scopes, keep, None)
    assert best is not None
    for ranks in (dict.fromkeys(neighbours, 0), _breadth_first(neighbours)):
        other = _simulate(graph.cardinalities, scopes, keep, ranks, min(best.largest, MAX_ENUMERATED_TERMS))
        if other is not None and (other.largest, other.total) < (best.largest, best.total):
            best = other
    return best


def _simulate(
    cardinalities: tuple[int, ...],
    scopes: Iterable[tuple[int, ...]],
    keep: tuple[int, ...],
    ranks: Mapping[int, int] | None,
    bound: float = math.inf,
) -> Elimination | None:
    """Eliminate by ``ranks``, or greedily by the size of the next table; ``None`` once a table exceeds ``bound``.

    An intractable order is left unfinished where nothing that remains could need a larger table.
    """
    neighbours = _neighbours(cardinalities, scopes)
    size = lambda v: math.prod((cardinalities[u] for u in neighbours[v]), start=cardinalities[v])
    priority: Callable[[int], int] = size if ranks is None else ranks.__getitem__
    current = {v: priority(v) for v in neighbours if v not in keep}
    heap = [(rank, v) for v, rank in current.items()]
    heapq.heapify(heap)
    clusters: list[tuple[int, ...]] = []
    largest, width, total = math.prod(cardinalities[v] for v in keep), max(0, len(keep) - 1), 0
    while current and not (largest > MAX_ENUMERATED_TERMS and _is_settled(cardinalities, neighbours, largest, width)):
        rank, variable = heapq.heappop(heap)
        if current.get(variable) != rank:
            continue  # eliminated, or queued again with another priority
        entries, others = size(variable), _remove(neighbours, variable)
        del current[variable]
        clusters.append((variable, *sorted(others)))
        largest, width, total = max(largest, entries), max(width, len(others)), total + entries
        if largest > bound:
            return None
        for other in others - set(keep):
            if current[other] != (rank := priority(other)):
                current[other] = rank
                heapq.heappush(heap, (rank, other))
    return Elimination(tuple(clusters), largest, width, total)


def _is_settled(cardinalities: tuple[int, ...], remaining: Mapping[int, set[int]], largest: int, width: int) -> bool:
    """Whether no table over the remaining variables can be larger or wider than those so far."""
    return len(remaining) <= width + 1 and math.prod(cardinalities[v] for v in remaining) <= largest


def _neighbours(cardinalities: tuple[int, ...], scopes: Iterable[tuple[int, ...]]) -> dict[int, set[int]]:
    neighbours: dict[int, set[int]] = {variable: set() for variable in range(len(cardinalities))}
    for scope in scopes:
        for variable in scope:
            neighbours[variable].update(scope)
    for variable, others in neighbours.items():
        others.discard(variable)
    return neighbours


def _remove(neighbours: dict[int, set[int]], variable: int) -> set[int]:
    """Take a variable out of the graph, joining its neighbours, and return these."""
    others = neighbours.pop(variable)
    for other in others:
        neighbours[other] |= others
        neighbours[other] -= {variable, other}
    return others


def _breadth_first(neighbours: Mapping[int, set[int]]) -> dict[int, int]:
    """Ranks of a breadth-first walk over every component, each from an end of it (as Cuthill & McKee 1969)."""
    ranks: dict[int, int] = {}
    for variable in neighbours:
        if variable not in ranks:
            far = list(_walk(neighbours, variable))[-1]
            for other in _walk(neighbours, far):
                ranks[other] = len(ranks)
    return ranks


def _walk(neighbours: Mapping[int, set[int]], start: int) -> list[int]:
    seen, queue, order = {start}, deque([start]), []
    while queue:
        variable = queue.popleft()
        order.append(variable)
        new = sorted(neighbours[variable] - seen, key=lambda v: (len(neighbours[v]), v))
        seen.update(new)
        queue.extend(new)
    return order


def _number(count: int) -> str:
    return str(count) if count < 10**12 else f"about 10^{math.log10(count):.0f}"


def check_cardinalities(cardinalities: object) -> tuple[int, ...]:
    """The numbers of states as integers, or an error."""
    if isinstance(cardinalities, (str, bytes)) or not isinstance(cardinalities, Iterable):
        raise TypeError(f"cardinalities: expected a sequence of positive integers, got {cardinalities!r}")
    sizes = tuple(_as_int("cardinalities", size) for size in cardinalities)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"cardinalities: expected one or more positive integers, got {sizes}")
    return sizes


def check_scopes(factors: object, count: int) -> tuple[tuple[int, ...], ...]:
    """The keys of ``factors``, over ``count`` variables, as integers, or an error."""
    if not isinstance(factors, Mapping):
        raise TypeError(
            f"factors: expected a mapping from tuples of variables to energy tables, got {type(factors).__name__}"
        )
    if not factors:
        raise ValueError("factors: expected at least one energy table, got none")
    for scope in factors:
        if not isinstance(scope, tuple):
            raise TypeError(f"factors: expected tuples of variables as keys, got {scope!r}")
    return tuple(check_variables("factors", scope, count, at_least=0) for scope in factors)


def check_variables(name: str, variables: object, count: int, at_least: int = 1) -> tuple[int, ...]:
    """Distinct variables out of ``count`` as integers, or an error that names the argument."""
    if isinstance(variables, (str, bytes)) or not isinstance(variables, Iterable):
        raise TypeError(f"{name}: expected a sequence of variables, got {variables!r}")
    numbers = tuple(_as_int(name, variable) for variable in variables)
    in_range = all(0 <= number < count for number in numbers)
    if not in_range or len(set(numbers)) < len(numbers) or len(numbers) < at_least:
        raise ValueError(f"{name}: expected distinct variables in 0..{count - 1}, got {numbers}")
    return numbers


def _as_int(name: str, number: object) -> int:
    try:
        if isinstance(number, (bool, np.bool_)) or not isinstance(number, SupportsIndex):
            raise TypeError
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: expected integers, got {number!r}") from None
