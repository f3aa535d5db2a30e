"""Parallel tempering for :class:`numpyro.infer.MCMC`: replicas at several temperatures that exchange their places."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform

from _ppl_ebm.checks import check_positive, check_positive_int, check_probability
from _ppl_ebm.tempering import check_inverse_temperatures
from numpyro_ebm.infer.kernel import ModelKernel, mean_so_far
from numpyro_ebm.infer.potential import Potential, PotentialFn, ravel
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.adaptation import AdaptationState, WarmupAdaptation
from numpyro_ebm.sampling.protocols import Target
from numpyro_ebm.sampling.types import Key, Model, ModelArgs, ModelKwargs, PyTree


class TemperingState(NamedTuple):
    """The state of :class:`ParallelTempering`; replicas are ordered from cold to hot.

    :param i: number of transitions so far.
    :param z: sites of the cold replica, which samples the model.
    :param z_grad: gradient of the potential energy there.
    :param potential_energy: potential energy there.
    :param replicas: all replicas as vectors, with their log-densities and scores at temperature 1.
    :param adapt_state: what each replica has tuned, its ``step_size`` above all.
    :param accept_prob: of the cold replica's Hamiltonian move.
    :param mean_accept_prob: its mean since warm-up.
    :param swap_prob: mean probability since warm-up that neighbours exchange places, shape ``(temperatures - 1,)``.
    :param round_trips: how often since warm-up a replica has come from the hottest to the coldest place.
    :param came_from: 1 for replicas that were last at the cold end, -1 for the hot one, 0 for neither yet.
    :param diverging: whether the cold replica's move diverged.
    :param rng_key: key of the next transition.
    """

    i: jax.Array
    z: PyTree
    z_grad: PyTree
    potential_energy: jax.Array
    replicas: steps.State
    adapt_state: AdaptationState
    accept_prob: jax.Array
    mean_accept_prob: jax.Array
    swap_prob: jax.Array
    round_trips: jax.Array
    came_from: jax.Array
    diverging: jax.Array
    rng_key: Key


class ParallelTempering(ModelKernel):
    """Replica exchange between powers of a model's density (Swendsen & Wang 1986; Geyer 1991). Exact.

    Replica t moves by jittered Hamiltonian Monte Carlo in ``density^beta_t`` of the unconstrained sites; then
    neighbours exchange places with probability ``min(1, exp((beta_t - beta_u) (U_t - U_u)))``, pairs (0, 1), (2, 3) and
    so on and pairs (1, 2), (3, 4) and so on in turn, which makes for the most round trips (Okabe et al. 2001; Syed et
    al. 2022). The states that MCMC collects are those of the replica at ``beta = 1``.

    Diagnostics to ask for as ``extra_fields``: ``"swap_prob"`` (below about 0.2 put more temperatures there) and
    ``"round_trips"``.

    :param model: a NumPyro model; or give ``potential_fn``.
    :param potential_fn: minus the log-density of unconstrained parameters, with ``init_params`` given to ``run``.
    :param inverse_temperatures: decreasing from 1 to above 0; default: 8 in geometric steps from 1 to 0.02. The density
        to the smallest of them must have an integral.
    :param num_leapfrog: leapfrog steps of a Hamiltonian move.
    :param score: as in :class:`MALA`.
    :param step_size: initial step, a length, of the cold replica; others start with ``step_size / beta^0.5``.
    :param target_accept_prob: of the Hamiltonian moves, to which each replica's step size is tuned during warm-up.
    :param init_strategy: of :mod:`numpyro.infer.initialization`.
    :raises ValueError: for inverse temperatures that do not decrease from 1, or a step size that is not positive.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm.infer import ParallelTempering
    >>> two_modes = lambda x: -jnp.logaddexp(-0.5 * (x - 6) ** 2, -0.5 * (x + 6) ** 2)
    >>> mcmc = MCMC(ParallelTempering(potential_fn=two_modes), num_warmup=200, num_samples=500, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params=jnp.array(6.0))
    >>> bool(abs(jnp.mean(mcmc.get_samples() > 0) - 0.5) < 0.2)
    True
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        inverse_temperatures: Sequence[float] | None = None,
        num_leapfrog: int = 10,
        score: Callable[[PyTree], PyTree] | None = None,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        super().__init__(model, potential_fn, score=score, init_strategy=init_strategy)
        check_positive("step_size", step_size)
        check_probability("target_accept_prob", target_accept_prob)
        check_positive_int("num_leapfrog", num_leapfrog)
        self._step_size, self._target_accept_prob = float(step_size), target_accept_prob
        self._num_leapfrog = num_leapfrog
        self._betas = check_inverse_temperatures(inverse_temperatures)

    @property
    def _adaptation(self) -> WarmupAdaptation:
        """What the warm-up tunes, for each replica."""
        return WarmupAdaptation(self._num_warmup, self._step_size, True, self._target_accept_prob, None)

    def _start(self, rng_key: Key, params: PyTree, target: Potential) -> TemperingState:
        cold = steps.init(target, ravel(params))
        betas = jnp.asarray(self._betas, cold.position.dtype)
        every = lambda leaf: jnp.broadcast_to(leaf, betas.shape + leaf.shape)
        replicas = jax.tree.map(every, cold)
        learned = jax.vmap(self._adaptation.init)(replicas.position, self._step_size / jnp.sqrt(betas))
        zero = jnp.zeros_like(cold.log_density)
        return TemperingState(
            i=jnp.array(0),
            **_cold_fields(replicas, target),
            replicas=replicas,
            adapt_state=learned,
            accept_prob=zero,
            mean_accept_prob=zero,
            swap_prob=jnp.zeros(len(betas) - 1, betas.dtype),
            round_trips=jnp.array(0),
            came_from=jnp.zeros(len(betas), int),
            diverging=jnp.array(False),
            rng_key=rng_key,
        )

    def _advance(self, state: TemperingState, target: Potential) -> TemperingState:
        rng_key, key_move, key_swap = jax.random.split(state.rng_key, 3)
        betas = jnp.asarray(self._betas, state.accept_prob.dtype)
        replicas, info, learned = self._move(key_move, state, target, betas)
        places, swap_prob = swap_neighbours(key_swap, replicas.log_density, betas, state.i)
        replicas = jax.tree.map(lambda leaf: leaf[places], replicas)
        came_from, round_trips = _count_trips(state, places, self._num_warmup)
        mean = lambda before, now: mean_so_far(before, now, state.i, self._num_warmup)
        return TemperingState(
            i=state.i + 1,
            **_cold_fields(replicas, target),
            replicas=replicas,
            adapt_state=learned,
            accept_prob=info.accept_prob[0],
            mean_accept_prob=mean(state.mean_accept_prob, info.accept_prob[0]),
            swap_prob=mean(state.swap_prob, swap_prob),
            round_trips=round_trips,
            came_from=came_from,
            diverging=info.diverging[0],
            rng_key=rng_key,
        )

    def _move(
        self, rng_key: Key, state: TemperingState, target: Target, betas: jax.Array
    ) -> tuple[steps.State, steps.Info, AdaptationState]:
        """A Hamiltonian move of every replica in its power of the density; the result is at temperature 1 again."""
        powers = _Powers(target, betas)
        moved, info = steps.hamiltonian_step(
            rng_key, powers.cooled(state.replicas), powers, state.adapt_state.step_size, self._num_leapfrog
        )
        learned = jax.vmap(self._adaptation.update, in_axes=(0, None, 0, 0, 0))(
            state.adapt_state, state.i, info.accept_prob, moved.position, moved.score
        )
        return powers.warmed(moved), info, learned

    def refresh(self, state: TemperingState, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> TemperingState:
        """The state with the potential energies and gradients that belong to these arguments, of all replicas."""
        target = self._target(state.z, model_args, model_kwargs or {})
        powers = _Powers(target, jnp.ones(len(self._betas), state.accept_prob.dtype))
        replicas = steps.init(powers, state.replicas.position)
        return state._replace(replicas=replicas, **_cold_fields(replicas, target))

    def get_diagnostics_str(self, state: TemperingState) -> str:
        return f"acc. prob={state.mean_accept_prob:.2f}, {state.round_trips} round trips"


def _cold_fields(replicas: steps.State, target: Potential) -> dict[str, PyTree]:
    """The cold replica as fields of a :class:`TemperingState`."""
    return {
        "z": target.unravel(replicas.position[0]),
        "z_grad": target.unravel(-replicas.score[0]),
        "potential_energy": -replicas.log_density[0],
    }


def _count_trips(state: TemperingState, places: jax.Array, num_warmup: int) -> tuple[jax.Array, jax.Array]:
    """Where every replica came from, and the round trips that are complete since the warm-up."""
    came_from = state.came_from[places]
    arrived = came_from[0] == -1
    round_trips = jnp.where(state.i == num_warmup, 0, state.round_trips) + arrived
    return came_from.at[0].set(1).at[-1].set(-1), round_trips


class _Powers:
    """Powers of a density, one for each replica, at positions ``(T, D)``."""

    def __init__(self, target: Target, betas: jax.Array) -> None:
        self._target, self._betas = target, betas

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        return self._betas * jax.vmap(self._target.unnormalized_log_prob)(position)

    def score(self, position: jax.Array) -> jax.Array:
        return self._betas[:, None] * jax.vmap(self._target.score)(position)

    def cooled(self, state: steps.State) -> steps.State:
        """From temperature 1."""
        return steps.State(state.position, self._betas * state.log_density, self._betas[:, None] * state.score)

    def warmed(self, state: steps.State) -> steps.State:
        """To temperature 1."""
        return steps.State(state.position, state.log_density / self._betas, state.score / self._betas[:, None])


def swap_neighbours(
    rng_key: Key, log_density: jax.Array, betas: jax.Array, parity: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which replica comes to each place, and each pair's probability to exchange, if it were its turn.

    :param log_density: at temperature 1, shape ``(T,)``.
    :param betas: inverse temperatures, shape ``(T,)``.
    :param parity: pairs ``(t, t + 1)`` with ``t`` of this parity take part.
    """
    log_ratio = (betas[:-1] - betas[1:]) * (log_density[1:] - log_density[:-1])
    swap_prob = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    index = jnp.arange(len(betas))
    tried = index[:-1] % 2 == parity % 2
    swapped = tried & (jax.random.uniform(rng_key, swap_prob.shape, swap_prob.dtype) < swap_prob)
    up, down = jnp.append(swapped, False), jnp.insert(swapped, 0, False)
    return index + up - down, swap_prob
