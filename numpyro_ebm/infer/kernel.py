"""The base of kernels for :class:`numpyro.infer.MCMC` that move along gradients.

It is a :class:`numpyro.infer.HMC` with another transition, so whatever the host does with HMC (models or potential
functions, constrained supports, sequential, vectorised and ``jax.vmap`` chains, blocks of ``numpyro.infer.Gibbs``,
pickling, divergences in ArviZ) it does with these kernels.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from numpyro.infer import HMC, init_to_uniform
from numpyro.infer.hmc import HMCState

from numpyro_ebm.infer import steps
from numpyro_ebm.infer.adaptation import PRECONDITIONERS, Adapter
from numpyro_ebm.infer.checks import check_positive, check_probability


class GradientKernel(HMC):
    """What the kernels share: warm-up, state and bookkeeping; a member defines ``_step``."""

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Any], Any] | None = None,
        *,
        score: Callable[[Any], Any] | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "gradients",
        target_accept_prob: float = 0.574,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        check_positive("step_size", step_size)
        check_probability("target_accept_prob", target_accept_prob)
        if preconditioner not in PRECONDITIONERS:
            raise ValueError(f"preconditioner: expected one of {PRECONDITIONERS}, got {preconditioner!r}")
        super().__init__(
            model,
            potential_fn,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept_prob,
            num_steps=1,
            trajectory_length=None,
            init_strategy=init_strategy,
        )
        self._score_fn = score
        self._preconditioner = preconditioner
        self._num_warmup = 0
        self._init_fn: Callable[..., Any] | None

    # ------------------------------------------------------------------ the transition

    def _step(self, rng_key: jax.Array, state: HMCState, target: Any) -> tuple[Any, steps.Info]:
        """One transition on vectors; ``state.r`` is a momentum that is kept, if any is."""
        raise NotImplementedError

    def _chain(self, state: HMCState) -> steps.State:
        """The functional state, with the sites as one vector."""
        position, gradient = ravel_pytree(state.z)[0], ravel_pytree(state.z_grad)[0]
        return steps.State(position, -state.potential_energy, -gradient)

    def _adapter(self) -> Adapter:
        return Adapter(self._num_warmup, self._adapt_step_size, self._preconditioner, self._target_accept_prob)

    def _initial_momentum(self, rng_key: jax.Array, position: jax.Array) -> Any:
        del rng_key, position

    @staticmethod
    def _as_arrays(init_params: Any) -> Any:
        """The unconstrained sites, of what the host or the user starts from."""
        params = init_params.z if hasattr(init_params, "z_grad") else init_params
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float, leaf)), params)

    def _init_chain(self, init_params: Any, *, model_args: Any, model_kwargs: Any, rng_key: jax.Array) -> HMCState:
        """The state of one chain."""
        params = self._as_arrays(init_params)
        key_chain, key_momentum = jax.random.split(rng_key)
        potential_energy, gradient = self._value_and_gradient(model_args, model_kwargs)(params)
        position = ravel_pytree(params)[0]
        zero = jnp.zeros((), position.dtype)
        return HMCState(
            i=jnp.array(0),
            z=params,
            z_grad=gradient,
            potential_energy=potential_energy,
            energy=potential_energy,
            r=self._initial_momentum(key_momentum, position),
            trajectory_length=None,
            num_steps=jnp.array(1),
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.array(False),
            adapt_state=self._adapter().init(self._step_size, position),
            rng_key=key_chain,
        )

    def _sample_chain(self, state: HMCState, model_args: Any, model_kwargs: Any) -> HMCState:
        """Advance one chain, and adapt while it warms up."""
        unravel = ravel_pytree(state.z)[1]
        rng_key, key_step = jax.random.split(state.rng_key)
        chain, info = self._step(key_step, state, self._target(unravel, model_args, model_kwargs))
        adapter = self._adapter()
        adapt_state = adapter.update(state.i, state.adapt_state, info.accept_prob, chain.position, chain.score)
        count = state.i + 1
        counted = jnp.where(count <= self._num_warmup, count, count - self._num_warmup)
        return state._replace(
            i=count,
            z=unravel(chain.position),
            z_grad=unravel(-chain.score),
            potential_energy=-chain.log_density,
            energy=-chain.log_density,
            r=getattr(chain, "momentum", None),
            accept_prob=info.accept_prob,
            mean_accept_prob=state.mean_accept_prob + (info.accept_prob - state.mean_accept_prob) / counted,
            diverging=info.diverging,
            adapt_state=adapt_state,
            rng_key=rng_key,
        )

    def _target(self, unravel: Callable[[Any], Any], model_args: Any, model_kwargs: Any) -> "Potential":
        """The density of vectors that the transition leaves invariant."""
        return Potential(self._value_and_gradient(model_args, model_kwargs), unravel)

    def _value_and_gradient(self, model_args: Any, model_kwargs: Any) -> Callable[[Any], tuple[Any, Any]]:
        """Potential energy and its gradient in the unconstrained sites, by the user's score where there is one."""
        potential = self.get_potential_fn(model_args, model_kwargs)
        if self._score_fn is None:
            return jax.value_and_grad(potential)
        score = self._score_fn
        return lambda z: (potential(z), jax.tree.map(jnp.negative, score(z)))

    # ------------------------------------------------------------------ the host's contract

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> HMCState:
        self._num_warmup = num_warmup
        self._init_fn = None  # the host keeps the functions of an earlier run, which were for other chains
        return super().init(rng_key, num_warmup, init_params, model_args, model_kwargs or {})

    def _init_state(self, rng_key: jax.Array, model_args: Any, model_kwargs: Any, init_params: Any) -> Any:
        init_params = super()._init_state(rng_key, model_args, model_kwargs, init_params)
        used = ("model_args", "model_kwargs", "rng_key")
        self._init_fn = lambda params, **options: self._init_chain(params, **{name: options[name] for name in used})
        self._sample_fn = self._sample_chain
        return init_params

    def refresh(self, state: HMCState, model_args: Any, model_kwargs: Any) -> HMCState:
        """The state with the potential energy and gradient that belong to these arguments."""
        potential_energy, gradient = self._value_and_gradient(model_args, model_kwargs)(state.z)
        return state._replace(potential_energy=potential_energy, z_grad=gradient)

    def wrap_model(self, wrapper: Callable[..., Any]) -> Any:
        if self._score_fn is not None:
            raise ValueError(
                f"score: {type(self).__name__} expected None as a block of Gibbs, got a function, which does not know "
                "the values that the model is conditioned on"
            )
        return super().wrap_model(wrapper)

    def get_diagnostics_str(self, state: HMCState) -> str:
        return f"step size {state.adapt_state.step_size:.2e}, acc. prob={state.mean_accept_prob:.2f}"


class Potential:
    """The target of a chain whose positions are vectors."""

    def __init__(self, value_and_gradient: Callable[[Any], tuple[Any, Any]], unravel: Callable[[Any], Any]) -> None:
        self._function = lambda position: value_and_gradient(unravel(position))

    def unnormalized_log_prob(self, position: jax.Array) -> jax.Array:
        return -self._function(position)[0]

    def score(self, position: jax.Array) -> jax.Array:
        return -ravel_pytree(self._function(position)[1])[0]
