"""Parallel tempering for :class:`numpyro.infer.MCMC`: replicas at several temperatures that exchange their places."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_uniform

from numpyro_ebm.infer import steps
from numpyro_ebm.infer.adaptation import Adaptation
from numpyro_ebm.infer.checks import check_positive_int
from numpyro_ebm.infer.kernel import GradientKernel


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
    z: Any
    z_grad: Any
    potential_energy: jax.Array
    replicas: steps.State
    adapt_state: Adaptation
    accept_prob: jax.Array
    mean_accept_prob: jax.Array
    swap_prob: jax.Array
    round_trips: jax.Array
    came_from: jax.Array
    diverging: jax.Array
    rng_key: jax.Array


class ParallelTempering(GradientKernel):
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
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Any], Any] | None = None,
        *,
        inverse_temperatures: Sequence[float] | None = None,
        num_leapfrog: int = 10,
        score: Callable[[Any], Any] | None = None,
        step_size: float = 1.0,
        target_accept_prob: float = 0.8,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        super().__init__(
            model,
            potential_fn,
            score=score,
            step_size=step_size,
            adapt_step_size=True,
            preconditioner=None,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )
        check_positive_int("num_leapfrog", num_leapfrog)
        self._num_leapfrog = num_leapfrog
        self._betas = check_inverse_temperatures(inverse_temperatures)

    def _init_chain(self, init_params: Any, *, model_args: Any, model_kwargs: Any, rng_key: jax.Array) -> Any:
        params = self._as_arrays(init_params)
        potential_energy, gradient = self._value_and_gradient(model_args, model_kwargs)(params)
        position = ravel_pytree(params)[0]
        betas = jnp.asarray(self._betas, position.dtype)
        every = lambda leaf: jnp.broadcast_to(leaf, betas.shape + leaf.shape)
        replicas = steps.State(every(position), every(-potential_energy), every(-ravel_pytree(gradient)[0]))
        zero = jnp.zeros((), position.dtype)
        return TemperingState(
            i=jnp.array(0),
            z=params,
            z_grad=gradient,
            potential_energy=potential_energy,
            replicas=replicas,
            adapt_state=jax.vmap(self._adapter().init)(self._step_size / jnp.sqrt(betas), replicas.position),
            accept_prob=zero,
            mean_accept_prob=zero,
            swap_prob=jnp.zeros(len(betas) - 1, position.dtype),
            round_trips=jnp.array(0),
            came_from=jnp.zeros(len(betas), int),
            diverging=jnp.array(False),
            rng_key=rng_key,
        )

    def _sample_chain(self, state: TemperingState, model_args: Any, model_kwargs: Any) -> TemperingState:
        unravel = ravel_pytree(state.z)[1]
        betas = jnp.asarray(self._betas, state.adapt_state.step_size.dtype)
        rng_key, key_move, key_swap = jax.random.split(state.rng_key, 3)
        target = _Tempered(self._value_and_gradient(model_args, model_kwargs), unravel, betas)
        tempered, info = steps.hamiltonian_step(
            key_move, target.tempered(state.replicas), target, state.adapt_state.step_size, self._num_leapfrog
        )
        adapt_state = jax.vmap(self._adapter().update, in_axes=(None, 0, 0, 0, 0))(
            state.i, state.adapt_state, info.accept_prob, tempered.position, tempered.score
        )
        moved = target.untempered(tempered)
        places, swap_prob = swap_neighbours(key_swap, moved.log_density, betas, state.i)
        replicas = jax.tree.map(lambda leaf: leaf[places], moved)
        came_from = state.came_from[places]
        arrived = came_from[0] == -1
        came_from = came_from.at[0].set(1).at[-1].set(-1)
        count = state.i + 1
        counted = jnp.where(count <= self._num_warmup, count, count - self._num_warmup)
        mean = lambda before, now: before + (now - before) / counted  # begins anew after the warm-up
        return TemperingState(
            i=count,
            z=unravel(replicas.position[0]),
            z_grad=unravel(-replicas.score[0]),
            potential_energy=-replicas.log_density[0],
            replicas=replicas,
            adapt_state=adapt_state,
            accept_prob=info.accept_prob[0],
            mean_accept_prob=mean(state.mean_accept_prob, info.accept_prob[0]),
            swap_prob=mean(state.swap_prob, swap_prob),
            round_trips=jnp.where(count == self._num_warmup + 1, 0, state.round_trips) + arrived,
            came_from=came_from,
            diverging=info.diverging[0],
            rng_key=rng_key,
        )

    def refresh(self, state: Any, model_args: Any, model_kwargs: Any) -> Any:
        """The state with the potential energies and gradients that belong to these arguments, of all replicas."""
        value_and_gradient = self._value_and_gradient(model_args, model_kwargs)
        ones = jnp.ones_like(state.adapt_state.step_size)
        target = _Tempered(value_and_gradient, ravel_pytree(state.z)[1], ones)
        replicas = steps.init(target, state.replicas.position)
        cold = ravel_pytree(state.z)[1](-replicas.score[0])
        return state._replace(replicas=replicas, potential_energy=-replicas.log_density[0], z_grad=cold)

    def get_diagnostics_str(self, state: Any) -> str:
        return f"acc. prob={state.mean_accept_prob:.2f}, {state.round_trips} round trips"


class _Tempered:
    """Powers of a density, one for each replica."""

    def __init__(self, value_and_gradient: Any, unravel: Any, betas: jax.Array) -> None:
        self._function = lambda position: value_and_gradient(unravel(position))
        self._betas = betas

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        return -self._betas * jax.vmap(lambda x: self._function(x)[0])(position)

    def score(self, position: jax.Array) -> jax.Array:
        return -self._betas[:, None] * jax.vmap(lambda x: ravel_pytree(self._function(x)[1])[0])(position)

    def tempered(self, state: steps.State) -> steps.State:
        return steps.State(state.position, self._betas * state.log_density, self._betas[:, None] * state.score)

    def untempered(self, state: steps.State) -> steps.State:
        return steps.State(state.position, state.log_density / self._betas, state.score / self._betas[:, None])


def swap_neighbours(
    rng_key: jax.Array, log_density: jax.Array, betas: jax.Array, parity: Any
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


def check_inverse_temperatures(inverse_temperatures: Sequence[float] | None) -> tuple[float, ...]:
    """A ladder from 1 down, as plain numbers."""
    if inverse_temperatures is None:
        return tuple(np.geomspace(1.0, 0.02, 8).tolist())
    ladder = np.asarray(inverse_temperatures, float)
    if ladder.ndim != 1 or len(ladder) < 2 or ladder[0] != 1 or not (np.diff(ladder) < 0).all() or ladder[-1] <= 0:
        raise ValueError(
            "inverse_temperatures: expected at least two numbers that decrease from 1 and stay above 0, got "
            f"{inverse_temperatures!r}"
        )
    return tuple(ladder.tolist())
