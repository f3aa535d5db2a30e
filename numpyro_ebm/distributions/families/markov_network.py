"""Markov networks: discrete variables, and energies over small cliques of them."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from _ppl_ebm.errors import IntractablePartitionError
from _ppl_ebm.factor_graph import (
    Elimination,
    FactorGraph,
    check_cardinalities,
    check_scopes,
    check_variables,
    factor_graph,
)
from _ppl_ebm.limits import NO_STATE
from _ppl_ebm.tables import evidence_checked
from numpyro_ebm.distributions.batching import broadcasting_vmap
from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.factor_tables import (
    States,
    draw,
    flat_index,
    log_sum,
    log_total,
    softened,
    sweep_schedule,
)
from numpyro_ebm.distributions.parts.table_energy import TableEnergy
from numpyro_ebm.sampling.protocols import MarkovChain, Sampler
from numpyro_ebm.sampling.samplers import Gibbs
from numpyro_ebm.sampling.types import Key


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

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import MarkovNetwork
    >>> agree = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> chain = MarkovNetwork([2, 2, 3], {(0, 1): agree, (1, 2): jnp.array([[0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])})
    >>> chain.sample(jax.random.key(0), (4,)).shape
    (4, 3)
    >>> print(f"{chain.treewidth} {chain.marginal([2])[0]:.4f} {chain.log_prob(jnp.array([1, 1, 2])):.4f}")
    1 0.4683 -1.7650
    """

    pytree_aux_fields = ("_graph", "_draws_at_once")

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
    def factors(self) -> dict[tuple[int, ...], jax.Array]:
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
        return constraints.independent(States(0, np.array(self.cardinalities) - 1), 1)

    def score(self, value: ArrayLike) -> jax.Array:
        """Refused: a discrete density has no gradient in its value."""
        raise TypeError(_NO_SCORE)

    def laplacian(self, value: ArrayLike) -> jax.Array:
        """Refused: a discrete density has no Hessian in its value."""
        raise TypeError(_NO_SCORE)

    def marginal(self, variables: Sequence[int]) -> jax.Array:
        """Exact probabilities of the joint states of some variables.

        :param variables: distinct variables (not traced).
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
        log_table = self._map(lambda network: _log_remainder(network, keep).reshape(-1))
        table = jax.nn.softmax(log_table).reshape(log_table.shape[:-1] + self._sizes(keep))
        return self._unless_impossible(jnp.broadcast_to(table, self.batch_shape + self._sizes(keep)), jnp.isnan)

    def condition(self, indices: Sequence[int], values: ArrayLike) -> "MarkovNetwork":
        """The exact conditional distribution of the other variables: a network of the tables at the known values.

        Its energy is that of all variables together, so its ``log_partition`` minus this one's is the log-probability
        of the known values.

        :param indices: distinct variables (not traced): those that are known.
        :param values: their values, shape ``(..., len(indices))``; leading dimensions become batch dimensions.
        :return: a network of the remaining variables in their original order. It keeps ``sampler`` and the normaliser
            policy, except that a constant ``log_partition`` does not carry over and becomes unknown.
        :raises ImproperDensityError: for values of probability 0, unless they or the tables are traced.
        """
        known = check_variables("indices", indices, len(self.cardinalities))
        rest = [v for v in range(len(self.cardinalities)) if v not in known]
        if not rest:
            raise ValueError(f"indices: expected some but not all of {len(known)} variables, got {list(known)}")
        none = {(): jnp.zeros(self.batch_shape, self.dtype)}
        part = self.replace(cardinalities=self._sizes(known), factors=none, log_partition=None, sampler=None)
        values = part.check_value(values, "values")
        factors: dict[tuple[int, ...], jax.Array] = {}
        for scope, name in zip(self._graph.scopes, self.parameter_dims, strict=True):
            left = tuple(rest.index(v) for v in scope if v in rest)
            table = self._sliced(name, scope, known, values)
            before = factors.get(left, jnp.zeros(self._sizes(rest[i] for i in left), self.dtype))
            factors[left] = broadcasting_vmap(jnp.add, [len(left)] * 2, before, table)
        given = np.asarray(values) if not_jax_tracer(values) else None
        with evidence_checked(type(self).__name__, known, given):
            conditional = self.replace(cardinalities=self._sizes(rest), factors=factors)
            conditional.check_proper()
        return conditional

    def gibbs_step(self, rng_key: Key, value: jax.Array) -> jax.Array:
        """One palindromic Gibbs sweep: a new draw of every variable given its neighbours, colour by colour and back.

        Going back makes the sweep reversible, which annealing and Metropolis rules on top of it ask for. Where sweeps
        of concrete tables would not move between their states, exact draws take their place if elimination is
        tractable.
        """
        if self._draws_at_once is None:
            self._look_at_moves()
        shape = jnp.broadcast_shapes(value.shape[:-1], self.batch_shape) + self.event_shape
        if self._draws_at_once:
            return self.exact_sample(rng_key, shape[: len(shape) - 1]).astype(value.dtype)
        uniforms = (self._uniform(key, shape) for key in jax.random.split(rng_key))
        return self._map(type(self)._sweep, value, *uniforms)

    def at_inverse_temperature(self, inverse_temperature: ArrayLike) -> "MarkovNetwork":
        """The path from uniform variables (0) to this distribution (1): all energies times ``inverse_temperature``.

        Energies that forbid a state grow to infinity on it, so that every state is possible before its end.
        """
        beta = jnp.asarray(inverse_temperature, self.dtype)
        network = self.with_log_partition(None)
        network.__dict__.update({name: softened(table, beta) for name, table in self.parameters().items()})
        network._draws_at_once = False
        return network

    @property
    def base_log_partition(self) -> jax.Array:
        """Exact log partition function of ``at_inverse_temperature(0)``, where annealing starts."""
        return jnp.full(self.batch_shape, math.log(math.prod(self.cardinalities)), self.dtype)

    # ------------------------------------------------------------------ formulas, for one value

    def _energy(self, value: jax.Array) -> jax.Array:
        return _sum_of_tables(self, value)

    def _exact_log_partition(self) -> jax.Array:
        return log_total(_log_remainder(self, ()))

    def _eliminate(self, plan: Elimination, keep: tuple[int, ...] = ()) -> tuple[list[jax.Array], jax.Array]:
        """Sum variables out of ``exp(-energy)`` in the order of ``plan``, in log space.

        :return: the table of each cluster; and the log of what remains, a table over ``keep``.
        """
        factors = [(scope, -table) for scope, table in self.factors.items()]
        clusters = []
        for cluster in plan.clusters:
            touching = [factor for factor in factors if cluster[0] in factor[0]]
            factors = [factor for factor in factors if cluster[0] not in factor[0]]
            clusters.append(self._joined(touching, cluster))
            factors.append((cluster[1:], log_sum(clusters[-1])))
        return clusters, self._joined(factors, keep)

    def _joined(self, factors: Iterable[tuple[tuple[int, ...], jax.Array]], scope: tuple[int, ...]) -> jax.Array:
        """Sum of tables over subsets of ``scope``, as one table over ``scope``."""
        total = jnp.zeros(self._sizes(scope), self.dtype)
        for variables, table in factors:
            axes = [variables.index(v) for v in scope if v in variables]
            shape = [self.cardinalities[v] if v in variables else 1 for v in scope]
            total = total + table.transpose(axes).reshape(shape)
        return total

    def _backward(self, uniform: jax.Array) -> jax.Array:
        """An exact draw: the eliminated variables in reverse order, each given those that its table joins it to."""
        clusters, total = self._eliminate(self._graph.elimination())
        flat = jnp.concatenate([table.reshape(-1) for table in reversed(clusters)])
        sizes, most = jnp.array(self.cardinalities), max(self.cardinalities)

        def redraw(states: jax.Array, step: Any) -> tuple[jax.Array, None]:
            variable, start, stride, others, steps = step
            index = start + (states[others] * steps).sum() + stride * jnp.arange(most)
            logits = flat.at[index].get(mode="clip")
            state = draw(logits, sizes[variable], uniform[variable], states[variable])
            return states.at[variable].set(state), None

        states = jnp.zeros(self.event_shape, int)
        return jnp.where(jnp.isneginf(total), NO_STATE, lax.scan(redraw, states, self._graph.backward)[0])

    def _sweep(self, value: jax.Array, forth: jax.Array, back: jax.Array) -> jax.Array:
        """Redraw every variable given the others, one colour after another and back, by uniform numbers."""
        flat_tables = self._flat_tables()
        most = max(self.cardinalities)
        sizes = jnp.array([*self.cardinalities, most])  # the last one pads

        def update(uniform: jax.Array, states: jax.Array, step: Any) -> tuple[jax.Array, None]:
            members, blocks = step
            logits = jnp.zeros((len(members), most), uniform.dtype)
            for (number, axis), (rows, places) in zip(pairs, blocks, strict=True):
                group = self._graph.groups[number]
                energies = flat_tables[number][flat_index(group, states, rows, axis)]
                logits = logits.at[places, : group.shape[axis]].add(-energies.astype(logits.dtype), mode="drop")
            uniforms, before = (array.at[members].get(mode="clip") for array in (uniform, states))
            draws = draw(logits, sizes[members], uniforms, before)
            return states.at[members].set(draws, mode="drop"), None

        pairs, schedule = sweep_schedule(self._graph)
        states = lax.scan(functools.partial(update, forth), value.astype(int), schedule)[0]
        return lax.scan(functools.partial(update, back), states, schedule, reverse=True)[0].astype(value.dtype)

    # ------------------------------------------------------------------ how it works

    def _sizes(self, variables: Iterable[int]) -> tuple[int, ...]:
        return tuple(self.cardinalities[v] for v in variables)

    def _flat_tables(self) -> list[jax.Array]:
        """The tables of each group, flat and in one."""
        tables = self._tables
        return [jnp.concatenate([tables[f].reshape(-1) for f in group.factors]) for group in self._graph.groups]

    def _sliced(self, name: str, scope: tuple[int, ...], known: tuple[int, ...], values: jax.Array) -> jax.Array:
        """A table at the known values of some of its variables."""
        held = {axis: known.index(v) for axis, v in enumerate(scope) if v in known}
        if not held:
            return getattr(self, name)

        def at(network: MarkovNetwork, states: jax.Array) -> jax.Array:
            index = tuple(states[held[axis]] if axis in held else slice(None) for axis in range(len(scope)))
            return getattr(network, name)[index]

        return self._map(at, values.astype(int), using=(name,))

    def _uniform(self, rng_key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(rng_key, shape, jnp.promote_types(self.dtype, jnp.float32))

    def exact_sample(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        return self._map(type(self)._backward, self._uniform(rng_key, shape + self.event_shape))

    def initial(self, rng_key: Key, shape: tuple[int, ...]) -> jax.Array:
        """Uniform states; where these are forbidden, exact draws in their place if elimination is tractable."""
        largest = jnp.broadcast_to(jnp.array(self.cardinalities), shape + self.event_shape)
        states = jax.random.randint(rng_key, largest.shape, 0, largest)
        if not self.has_exact_sampler:
            return states
        is_lost = ~jnp.isfinite(self.energy(states))
        possible = lambda: jnp.where(
            is_lost[..., None], self.exact_sample(jax.random.fold_in(rng_key, 1), shape), states
        )
        if not_jax_tracer(is_lost):
            return possible() if bool(is_lost.any()) else states
        return lax.cond(is_lost.any(), possible, lambda: states)

    def check_value(self, value: ArrayLike, name: str = "value") -> jax.Array:
        # Integers stay integers, which a low-precision floating-point type would round.
        checked, array = super().check_value(value, name), jnp.asarray(value)
        return checked if jnp.issubdtype(array.dtype, jnp.floating) else self._over_batch(array.astype(int), 1)

    def _set_graph(self, graph: FactorGraph) -> None:
        self._graph = graph
        self.parameter_dims = graph.parameter_dims  # type: ignore[misc]
        self.arg_constraints = {
            name: constraints.independent(constraints.real, len(dims)) for name, dims in graph.parameter_dims.items()
        }

    def arguments(self) -> dict[str, Any]:
        return {"cardinalities": self.cardinalities, "factors": self.factors}

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        data, static = super().tree_flatten()
        return (*data, *self._tables), static

    @classmethod
    def tree_unflatten(cls, aux_data: tuple[Any, ...], params: tuple[Any, ...]) -> "MarkovNetwork":
        own = len(cls.gather_pytree_data_fields())
        network: Any = super().tree_unflatten(aux_data, params[:own])
        network._set_graph(network._graph)
        network.__dict__.update(zip(network.parameter_dims, params[own:], strict=True))
        return network


@jax.jit
def _sum_of_tables(network: MarkovNetwork, value: jax.Array) -> jax.Array:
    """Energy of one value; compiled, because outside ``jit`` many small tables would cost mostly dispatch."""
    largest = jnp.array(network.cardinalities) - 1
    states = jnp.clip(value.astype(int), 0, largest)
    total = jnp.zeros((), network.dtype)
    for group, flat in zip(network._graph.groups, network._flat_tables(), strict=True):
        total = total + flat[flat_index(group, states)].sum()
    return jnp.where(jnp.all(value == states), total, jnp.inf)  # traced values are not checked before


@functools.partial(jax.jit, static_argnums=1)
def _log_remainder(network: MarkovNetwork, keep: tuple[int, ...]) -> jax.Array:
    """Log of ``exp(-energy)`` summed over all variables but those in ``keep``."""
    return network._eliminate(network._graph.elimination(keep), keep)[1]


_NO_SCORE = (
    "MarkovNetwork: expected a continuous distribution, got a discrete one, which has no score; use log_prob, or a "
    "contrastive criterion"
)
