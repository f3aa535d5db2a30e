"""Markov networks: discrete variables, and energies over small cliques of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.distributions import constraints

from _ppl_ebm.errors import IntractablePartitionError
from _ppl_ebm.factor_graph import (
    Elimination,
    FactorGraph,
    check_cardinalities,
    check_scopes,
    check_variables,
    factor_graph,
    strides,
)
from _ppl_ebm.limits import NO_STATE
from _ppl_ebm.tables import evidence_checked
from pyro_ebm.distributions.batching import as_tensor, is_concrete
from pyro_ebm.distributions.normaliser import LogPartition
from pyro_ebm.distributions.parts.factor_tables import (
    concatenated,
    draw,
    log_sum,
    log_total,
    softened,
    sweep_schedule,
    take,
)
from pyro_ebm.distributions.parts.table_energy import TableEnergy
from pyro_ebm.sampling.protocols import MarkovChain, Sampler
from pyro_ebm.sampling.samplers import Gibbs
from pyro_ebm.sampling.types import ArrayLike


class MarkovNetwork(TableEnergy):
    r"""Discrete variables of any numbers of states, whose energy is a sum of tables over cliques.

    .. math::

        p(x) = \frac{1}{Z} \exp\Big(-\sum_c E_c(x_c)\Big)

    a product of factors :math:`\phi_c = \exp(-E_c)`, not of marginals: every table counts once, so a unary term
    belongs in one of them. Variables in no factor are uniform. The partition function, marginals and independent draws
    are exact by variable elimination (Dechter 1999; Koller & Friedman 2009, chapter 9) while its largest table has at
    most 2^16 entries; :attr:`treewidth` says how wide the order found is. Beyond that ``log_prob`` is guarded, and
    draws come from Gibbs sampling, which redraws at once all variables of a colour, that is without common factors.

    An energy of ``+inf`` forbids a state: a hard constraint. Sums over states, draws and derivatives take it exactly. A
    network without a possible state, and known values of probability 0, are errors that say so where tables are
    concrete (beyond the limit above, where variables lose all their states one by one); where traced, ``log_partition``
    is ``-inf``, log-densities, marginals and derivatives are NaN, and draws are a state that no variable has. Gibbs
    sweeps of concrete tables between whose states they could not move draw all variables at once, by elimination; where
    that needs too large a table, a warning names the variables.

    :param cardinalities: number of states of each variable, positive integers; values are ``0..cardinality - 1``.
    :param factors: energy tables by the tuple of their variables: the table of ``(2, 0)`` has the shape
        ``(..., cardinalities[2], cardinalities[0])``, in nats, and is called ``factor_2_0`` in messages and gradients.
        The empty tuple's is a constant, ``factor``. Leading dimensions are batch dimensions and broadcast; a scalar
        stands for a constant table. Entries are finite or ``+inf``.
    :param log_partition: normaliser policy: ``"auto"``, ``None``, a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: sampler configuration, ``Exact()`` or ``Gibbs()``; default: exact where possible.
    :raises TypeError: for cardinalities or variables that are not integers, tables that are not real floating point.
    :raises ValueError: for cardinalities below 1, no factors, variables that are repeated or out of range, and tables
        of the wrong shape or with entries that are NaN or ``-inf``.
    :raises ImproperDensityError: for tables that forbid every state.

    >>> import torch
    >>> from pyro_ebm import MarkovNetwork
    >>> agree = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> chain = MarkovNetwork([2, 2, 3], {(0, 1): agree, (1, 2): torch.tensor([[0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])})
    >>> chain.sample((4,)).shape
    torch.Size([4, 3])
    >>> print(f"{chain.treewidth} {chain.marginal([2])[0]:.4f} {chain.log_prob(torch.tensor([1, 1, 2])):.4f}")
    1 0.4683 -1.7650
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        factors: Mapping[tuple[int, ...], Any],
        *,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        sizes = check_cardinalities(cardinalities)
        self._set_graph(factor_graph(sizes, check_scopes(factors, len(sizes))))
        super().__init__(
            dict(zip(self.parameter_dims, factors.values(), strict=True)),
            event_shape=(len(sizes),),
            sizes={f"variable_{v}": size for v, size in enumerate(sizes)},
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    # ------------------------------------------------------------------ what it offers

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of states of each variable."""
        return self._graph.cardinalities

    @property
    def factors(self) -> dict[tuple[int, ...], torch.Tensor]:
        """Energy tables by the tuple of their variables."""
        return dict(zip(self._graph.scopes, self._tables, strict=True))

    @property
    def treewidth(self) -> int:
        """Width of the elimination order found: the variables of its largest table minus one.

        The treewidth proper, that of the best order, may be smaller: finding it is as hard as the elimination.
        """
        return self._graph.elimination().width

    @property
    def has_exact_partition(self) -> bool:
        return self._graph.elimination().is_tractable

    @property
    def has_exact_sampler(self) -> bool:
        return self.has_exact_partition

    @property
    def description(self) -> str:
        name = type(self).__name__
        return name if self.has_exact_partition else f"{name} ({self._graph.elimination().describe()})"

    @property
    def has_gibbs_step(self) -> bool:
        return True

    @property
    def has_annealing(self) -> bool:
        return True

    @property
    def default_chain(self) -> MarkovChain:
        return Gibbs()

    @property
    def support(self) -> constraints.Constraint:
        bounds = torch.tensor(self.cardinalities, device=self.device) - 1
        return constraints.independent(constraints.integer_interval(0, bounds), 1)

    def score(self, value: ArrayLike) -> torch.Tensor:
        """Refused: a discrete density has no gradient in its value."""
        raise TypeError(_NO_SCORE)

    def laplacian(self, value: ArrayLike) -> torch.Tensor:
        """Refused: a discrete density has no Hessian in its value."""
        raise TypeError(_NO_SCORE)

    def marginal(self, variables: Sequence[int]) -> torch.Tensor:
        """Exact probabilities of the joint states of some variables.

        :param variables: distinct variables.
        :return: shape ``batch_shape`` + the cardinalities of ``variables``, in the order given.
        :raises IntractablePartitionError: where the elimination of the others needs more than 2^16 entries.
        :raises ImproperDensityError: where no state is possible; NaN where traced.
        """
        keep = check_variables("variables", variables, len(self.cardinalities))
        plan = self._graph.elimination(keep)
        if not plan.is_tractable:
            raise IntractablePartitionError(
                f"variables: the marginal of {keep} in {type(self).__name__} is not tractable: {plan.describe()}; "
                "estimate it from samples"
            )
        table = self._eliminate(plan, keep)[1]
        flat = torch.softmax(table.flatten(-len(keep)), -1)
        full = flat.reshape(table.shape).expand(self.batch_shape + self._sizes(keep))
        return self._unless_impossible(full, torch.isnan)

    def condition(self, indices: Sequence[int], values: ArrayLike) -> "MarkovNetwork":
        """The exact conditional distribution of the other variables: a network of the tables at the known values.

        Its energy is that of all variables together, so its ``log_partition`` minus this one's is the log-probability
        of the known values.

        :param indices: distinct variables: those that are known.
        :param values: their values, shape ``(..., len(indices))``; leading dimensions become batch dimensions.
        :return: a network of the remaining variables in their original order. It keeps ``sampler`` and the normaliser
            policy, except that a constant ``log_partition`` does not carry over and becomes unknown.
        :raises ImproperDensityError: for values of probability 0, unless they or the tables are traced.
        """
        known = check_variables("indices", indices, len(self.cardinalities))
        rest = [v for v in range(len(self.cardinalities)) if v not in known]
        if not rest:
            raise ValueError(f"indices: expected some but not all of {len(known)} variables, got {list(known)}")
        none = {(): torch.zeros(self.batch_shape, dtype=self.dtype, device=self.device)}
        part = self.replace(cardinalities=self._sizes(known), factors=none, log_partition=None, sampler=None)
        values = part.check_value(values, "values")
        factors: dict[tuple[int, ...], torch.Tensor] = {}
        for scope, full in self.factors.items():
            left = tuple(rest.index(v) for v in scope if v in rest)
            table = self._sliced(full, scope, known, values)
            factors[left] = factors.get(left, torch.zeros((), dtype=self.dtype, device=self.device)) + table
        given = values.detach().cpu().numpy() if is_concrete(values) else None
        with evidence_checked(type(self).__name__, known, given):
            conditional = self.replace(cardinalities=self._sizes(rest), factors=factors)
            conditional.check_proper()
        return conditional

    def gibbs_step(self, value: torch.Tensor) -> torch.Tensor:
        """One palindromic Gibbs sweep: a new draw of every variable given its neighbours, colour by colour and back.

        Going back makes the sweep reversible, which annealing and Metropolis rules on top of it ask for. Where sweeps
        of concrete tables would not move between their states, exact draws take their place if elimination is
        tractable.
        """
        if self._draws_at_once is None:
            self._look_at_moves()
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape) + self.event_shape
        if self._draws_at_once:
            return self.exact_sample(shape[: len(shape) - 1]).to(value.dtype)
        return self._sweep(value.expand(shape), self._uniform(shape), self._uniform(shape))

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> "MarkovNetwork":
        """The path from uniform variables (0) to this distribution (1): all energies times ``inverse_temperature``.

        Energies that forbid a state grow to infinity on it, so that every state is possible before its end.
        """
        beta = as_tensor("inverse_temperature", inverse_temperature, self.device, self.dtype).to(self.dtype)
        network = self.with_log_partition(None)
        network.__dict__.update({name: softened(table, beta) for name, table in self.parameters().items()})
        network._draws_at_once = False
        return network

    @property
    def base_log_partition(self) -> torch.Tensor:
        """Exact log partition function of ``at_inverse_temperature(0)``, where annealing starts."""
        total = math.log(math.prod(self.cardinalities))
        return torch.full(self.batch_shape, total, dtype=self.dtype, device=self.device)

    # ------------------------------------------------------------------ formulas, for batches

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        states = value.long().clamp(min=0).minimum(self._index(self.cardinalities) - 1)
        total = torch.zeros((), dtype=self.dtype, device=self.device)
        for group, flat in zip(self._graph.groups, self._flat_tables(), strict=True):
            chosen = (states[..., self._index(group.scopes)] * self._index(group.strides)).sum(-1)
            total = total + take(flat, self._index(group.offsets) + chosen, 1).sum(-1)
        # without validation, values are not checked before
        return torch.where((value == states).all(-1), total, math.inf)

    def _exact_log_partition(self) -> torch.Tensor:
        return log_total(self._eliminate(self._graph.elimination())[1])

    def _eliminate(self, plan: Elimination, keep: tuple[int, ...] = ()) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Sum variables out of ``exp(-energy)`` in the order of ``plan``, in log space.

        :return: the table of each cluster; and the log of what remains, a table over ``keep``.
        """
        factors = [(scope, -table) for scope, table in self.factors.items()]
        clusters = []
        for cluster in plan.clusters:
            touching = [factor for factor in factors if cluster[0] in factor[0]]
            factors = [factor for factor in factors if cluster[0] not in factor[0]]
            clusters.append(self._joined(touching, cluster))
            factors.append((cluster[1:], log_sum(clusters[-1], -len(cluster))))
        return clusters, self._joined(factors, keep)

    def _joined(self, factors: Iterable[tuple[tuple[int, ...], torch.Tensor]], scope: tuple[int, ...]) -> torch.Tensor:
        """Sum of tables over subsets of ``scope``, as one table over ``scope``."""
        total = torch.zeros(self._sizes(scope), dtype=self.dtype, device=self.device)
        for variables, table in factors:
            lead = table.dim() - len(variables)
            axes = [lead + variables.index(v) for v in scope if v in variables]
            shape = [self.cardinalities[v] if v in variables else 1 for v in scope]
            total = total + table.permute((*range(lead), *axes)).reshape((*table.shape[:lead], *shape))
        return total

    def _backward(self, uniform: torch.Tensor) -> torch.Tensor:
        """An exact draw: the eliminated variables in reverse order, each given those that its table joins it to."""
        plan = self._graph.elimination()
        clusters, total = self._eliminate(plan)
        tables = zip(clusters[::-1], plan.clusters[::-1], strict=True)
        flat = concatenated([(table, len(cluster)) for table, cluster in tables])
        states = torch.zeros_like(uniform, dtype=torch.long)
        for variable, start, stride, others, steps in zip(*self._graph.backward, strict=True):
            count = torch.tensor(self.cardinalities[variable], device=self.device)
            index = int(start) + (states[..., others] * self._index(steps)).sum(-1, keepdim=True)
            logits = take(flat, index + int(stride) * torch.arange(int(count), device=self.device), 1)
            states[..., variable] = draw(logits, count, uniform[..., variable], states[..., variable])
        return torch.where(torch.isneginf(total)[..., None], NO_STATE, states)

    def _sweep(self, value: torch.Tensor, forth: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Redraw every variable given the others, one colour after another and back, by uniform numbers."""
        flat_tables = self._flat_tables()
        most = max(self.cardinalities)
        sizes = self._index(self.cardinalities)
        states = value.long().clone()
        schedule = sweep_schedule(self._graph, self.device)
        draws = [(forth, *step) for step in schedule] + [(back, *step) for step in reversed(schedule)]
        for uniform, members, blocks in draws:
            logits = uniform.new_zeros((*uniform.shape[:-1], len(members), most))
            for number, scopes, steps, options, places in blocks:
                index = options + (states[..., scopes] * steps).sum(-1, keepdim=True)
                energies = take(flat_tables[number], index, 2)
                logits[..., : options.shape[1]].index_add_(-2, places, -energies.to(logits.dtype))
            states[..., members] = draw(logits, sizes[members], uniform[..., members], states[..., members])
        return states.to(value.dtype)

    # ------------------------------------------------------------------ how it works

    def _sizes(self, variables: Iterable[int]) -> tuple[int, ...]:
        return tuple(self.cardinalities[v] for v in variables)

    def _index(self, numbers: Any) -> torch.Tensor:
        return torch.as_tensor(numbers, dtype=torch.long, device=self.device)

    def _flat_tables(self) -> list[torch.Tensor]:
        """The tables of each group, flat and in one, their batch dimensions expanded."""
        tables = self._tables
        return [concatenated([(tables[f], len(group.shape)) for f in group.factors]) for group in self._graph.groups]

    def _sliced(
        self, table: torch.Tensor, scope: tuple[int, ...], known: tuple[int, ...], values: torch.Tensor
    ) -> torch.Tensor:
        """A table at the known values of some of its variables."""
        held = [v for v in scope if v in known]
        if not held:
            return table
        left = self._sizes(v for v in scope if v not in known)
        steps = dict(zip(scope, strides(self._sizes(scope)), strict=True))
        states = values.long()[..., [known.index(v) for v in held]]
        start = (states * self._index([steps[v] for v in held])).sum(-1, keepdim=True)
        grid = np.indices(left).reshape(len(left), math.prod(left))
        options = np.array([steps[v] for v in scope if v not in known], int) @ grid
        entries = take(concatenated([(table, len(scope))]), start + self._index(options), 1)
        return entries.reshape((*entries.shape[:-1], *left))

    def _uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, dtype=torch.promote_types(self.dtype, torch.float32), device=self.device)

    def exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._backward(self._uniform((*shape, *self.event_shape)))

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform states; where these are forbidden, exact draws in their place if elimination is tractable."""
        states = (self._uniform((*shape, *self.event_shape)) * self._index(self.cardinalities)).long()
        is_lost = ~torch.isfinite(self.energy(states))
        if not self.has_exact_sampler or (is_concrete(is_lost) and not is_lost.any()):
            return states
        return torch.where(is_lost[..., None], self.exact_sample(shape), states)

    def check_value(self, value: ArrayLike, name: str = "value") -> torch.Tensor:
        # Integers stay integers, which a low-precision floating-point type would round.
        checked, tensor = super().check_value(value, name), self._check_batch(value, self.event_shape, name)
        return checked if tensor.is_floating_point() else tensor.long()

    def _set_graph(self, graph: FactorGraph) -> None:
        self._graph = graph
        self.parameter_dims = graph.parameter_dims  # type: ignore[misc]
        self.arg_constraints = {  # type: ignore[misc]
            name: constraints.independent(constraints.real, len(dims)) for name, dims in graph.parameter_dims.items()
        }

    def arguments(self) -> dict[str, Any]:
        return {"cardinalities": self.cardinalities, "factors": self.factors}


_NO_SCORE = (
    "MarkovNetwork: expected a continuous distribution, got a discrete one, which has no score; use log_prob, or a "
    "contrastive criterion"
)
