"""The base of kernels for :class:`numpyro.infer.MCMC` that move in the unconstrained sites of a model.

:class:`ModelKernel` keeps the host's contract: models or potential functions, constrained supports, sequential,
vectorised and ``jax.vmap`` chains, blocks of ``numpyro.infer.Gibbs``, pickling. :class:`GradientKernel` adds the state,
warm-up and bookkeeping that kernels on the functional transitions of :mod:`numpyro_ebm.infer.steps` share.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import identity, is_prng_key, not_jax_tracer

from _ppl_ebm.adaptation import PRECONDITIONERS
from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_positive, check_probability
from numpyro_ebm.infer.check_model import check_sampled
from numpyro_ebm.infer.potential import Potential, PotentialFn, SiteFunctions, ravel, site_functions
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.adaptation import AdaptationState, WarmupAdaptation
from numpyro_ebm.sampling.protocols import Target
from numpyro_ebm.sampling.types import Key, Model, ModelArgs, ModelKwargs, PyTree


class ModelKernel(MCMCKernel):
    """A kernel over the unconstrained sites of a model, or over the parameters of a potential function.

    A member defines what happens to one chain: ``_start``, ``_advance`` and ``refresh``. Its state is a named tuple
    with the fields ``z`` (sites), ``potential_energy``, ``diverging`` and ``rng_key`` at least.

    :param model: a NumPyro model; or give ``potential_fn``.
    :param potential_fn: minus the log-density of unconstrained parameters, with ``init_params`` given to ``run``.
    :param score: gradient of the log-density in the unconstrained sites, of the same structure as they, where there is
        a cheaper way to it than differentiation.
    :param init_strategy: of :mod:`numpyro.infer.initialization`. In blocks of ``numpyro.infer.Gibbs`` the host gives
        the starting point, and ``init_params`` of a block are constrained values.
    :raises ValueError: for both or neither of ``model`` and ``potential_fn``.
    :raises IntractablePartitionError: at the start of a run, as :func:`numpyro_ebm.infer.check_model` does.
    """

    sample_field = "z"
    default_fields = ("z", "diverging")
    #: Whether the normalisers of observed energies play no part.
    _normalisers_cancel = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    def __init__(
        self,
        model: Model | None,
        potential_fn: PotentialFn | None,
        *,
        score: Callable[[PyTree], PyTree] | None = None,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise ValueError(
                f"model, potential_fn: {type(self).__name__} expected exactly one of them, got {model!r} and "
                f"{potential_fn!r}"
            )
        self._model, self._potential_fn, self._score_fn = model, potential_fn, score
        self._init_strategy = init_strategy
        self._num_warmup = 0
        self._functions: SiteFunctions | None = None
        self._sample_fn: Callable[[PyTree, ModelArgs, ModelKwargs], PyTree] | None = None

    # ------------------------------------------------------------------ one chain

    def _start(self, rng_key: Key, params: PyTree, target: Potential) -> PyTree:
        """The state of a chain at unconstrained sites."""
        raise NotImplementedError

    def _advance(self, state: PyTree, target: Potential) -> PyTree:
        """The state one transition later."""
        raise NotImplementedError

    def _target(self, sites: PyTree, model_args: ModelArgs, model_kwargs: ModelKwargs) -> Potential:
        """The density of vectors that the transition leaves invariant."""
        return Potential(self.get_potential_fn(model_args, model_kwargs), sites, self._score_fn)

    def _density_model(self) -> Model | None:
        """The model whose joint density is the target."""
        return self._model

    # ------------------------------------------------------------------ the host's contract

    @property
    def model(self) -> Model | None:
        return self._model

    def init(
        self,
        rng_key: Key,
        num_warmup: int,
        init_params: PyTree = None,
        model_args: ModelArgs = (),
        model_kwargs: ModelKwargs | None = None,
    ) -> PyTree:
        self._num_warmup = num_warmup
        args, kwargs, single = model_args, model_kwargs or {}, is_prng_key(rng_key)
        key_chain, key_model = (jax.random.split if single else jax.vmap(jax.random.split, out_axes=1))(rng_key)
        params = jax.tree.map(_as_float, self._starting_point(key_model, init_params, args, kwargs))
        start = lambda key, params: self._start(key, params, self._target(params, args, kwargs))
        batched = self._sample_chain if single else jax.vmap(self._sample_chain, in_axes=(0, None, None))
        state = (start if single else jax.vmap(start))(key_chain, params)
        _check_density(state.potential_energy)
        self._sample_fn = batched
        return state

    def _starting_point(self, rng_key: Key, init_params: PyTree, args: ModelArgs, kwargs: ModelKwargs) -> PyTree:
        """Unconstrained sites, given or found by the initial strategy; the model's functions, on the way."""
        model = self._density_model()
        if model is None:
            if init_params is None:
                raise ValueError(f"init_params: {type(self).__name__} expected them with a potential_fn, got None")
            return init_params
        check_sampled(model, args, kwargs, cancels=self._normalisers_cancel)
        found, functions = site_functions(rng_key, model, self._init_strategy, args, kwargs)
        self._functions = functions
        if GIBBS_SITES_KWARG not in kwargs:
            return found if init_params is None else init_params
        if functions.moving:
            raise ValueError(
                f"model: {type(self).__name__} as a block of Gibbs expected supports that depend on no other site, got "
                f"such at {list(functions.moving)}"
            )
        return functions.unconstrain(init_params)  # from the host, at constrained values

    def sample(self, state: PyTree, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> PyTree:
        if self._sample_fn is None:
            raise RuntimeError(f"{type(self).__name__}: expected a call of init before sample")
        return self._sample_fn(state, model_args, model_kwargs or {})

    def _sample_chain(self, state: PyTree, model_args: ModelArgs, model_kwargs: ModelKwargs) -> PyTree:
        return self._advance(state, self._target(state.z, model_args, model_kwargs))

    def get_potential_fn(self, model_args: ModelArgs = (), model_kwargs: ModelKwargs | None = None) -> PotentialFn:
        """Potential energy of unconstrained sites for these arguments of the model; after ``init``."""
        if self._potential_fn is not None:
            return self._potential_fn
        return self._initialised("get_potential_fn").potential_fn(*model_args, **(model_kwargs or {}))

    def get_constrain_fn(
        self, model_args: ModelArgs = (), model_kwargs: ModelKwargs | None = None
    ) -> Callable[[PyTree], PyTree]:
        """From unconstrained to constrained sites; after ``init``."""
        if self._model is None:
            return identity
        return self._initialised("get_constrain_fn").constrain_fn(model_args, model_kwargs or {})

    def postprocess_fn(self, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> Callable[[PyTree], PyTree]:
        """From unconstrained sites to values, with deterministic sites; before ``init`` it changes nothing."""
        if self._functions is None:
            return identity
        return self._functions.postprocess_fn(*model_args, **(model_kwargs or {}))

    def _initialised(self, caller: str) -> SiteFunctions:
        if self._functions is None:
            raise RuntimeError(f"{caller}: {type(self).__name__} expected a call of init first")
        return self._functions

    def wrap_model(self, wrapper: Callable[[Model], Model]) -> Self:
        if self._model is None:
            raise ValueError(
                f"potential_fn: {type(self).__name__} expected a model as a block of Gibbs, got a function"
            )
        if self._score_fn is not None:
            raise ValueError(
                f"score: {type(self).__name__} expected None as a block of Gibbs, got a function, which does not know "
                "the values that the model is conditioned on"
            )
        kernel = copy.copy(self)
        vars(kernel).update(_model=wrapper(self._model), _functions=None, _sample_fn=None)
        return kernel

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sample_fn": None}


def _check_density(potential_energy: jax.Array) -> None:
    """Chains whose start has no density would reject every proposal, without a sign."""
    if not_jax_tracer(potential_energy) and not jnp.isfinite(potential_energy).all():
        bad = jnp.flatnonzero(~jnp.isfinite(jnp.atleast_1d(potential_energy))).tolist()
        raise ValueError(f"init_params: expected a finite log-density, which chains {bad} do not have")


class KernelState(NamedTuple):
    """The state of a :class:`GradientKernel`.

    :param i: number of transitions so far.
    :param z: unconstrained sites.
    :param z_grad: gradient of the potential energy there; zero for kernels that use none.
    :param potential_energy: potential energy there.
    :param momentum: of kernels that keep one, shape ``(D,)``, else ``None``.
    :param accept_prob: of the last transition.
    :param mean_accept_prob: its mean over the warm-up, or over what came after.
    :param diverging: whether the last transition diverged.
    :param adapt_state: what has been learned, its ``step_size`` and ``scale`` above all.
    :param rng_key: key of the next transition.
    """

    i: jax.Array
    z: PyTree
    z_grad: PyTree
    potential_energy: jax.Array
    momentum: jax.Array | None
    accept_prob: jax.Array
    mean_accept_prob: jax.Array
    diverging: jax.Array
    adapt_state: AdaptationState
    rng_key: Key


class GradientKernel(ModelKernel):
    """What kernels on functional transitions share. A member defines ``_step``.

    :param model: as in :class:`ModelKernel`, and so are ``potential_fn``, ``score`` and ``init_strategy``.
    :param step_size: the first step size, a length (standard deviation).
    :param adapt_step_size: tune it to ``target_accept_prob`` during warm-up.
    :param preconditioner: lengths of the coordinates from warm-up: ``"gradients"``, one over the root mean square of
        the score; ``"variances"``, the standard deviation of the positions; or ``None``.
    :param target_accept_prob: between 0 and 1.
    :raises ValueError: for a step size that is not positive, an unknown preconditioner, both or neither of ``model``
        and ``potential_fn``.
    """

    def __init__(
        self,
        model: Model | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        score: Callable[[PyTree], PyTree] | None = None,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "gradients",
        target_accept_prob: float = 0.574,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        super().__init__(model, potential_fn, score=score, init_strategy=init_strategy)
        check_positive("step_size", step_size)
        check_probability("target_accept_prob", target_accept_prob)
        if preconditioner not in PRECONDITIONERS:
            raise ValueError(f"preconditioner: expected one of {PRECONDITIONERS}, got {preconditioner!r}")
        self._step_size, self._adapt_step_size = float(step_size), adapt_step_size
        self._preconditioner, self._target_accept_prob = preconditioner, target_accept_prob

    def _step(
        self, rng_key: Key, chain: PyTree, target: Target, step_size: jax.Array, scale: jax.Array
    ) -> tuple[PyTree, steps.Info]:
        """One transition of a chain, one of the states of :mod:`steps`."""
        raise NotImplementedError

    def _init_chain(self, rng_key: Key, chain: steps.State) -> PyTree:
        """The functional state of a chain that starts at ``chain``."""
        del rng_key
        return chain

    @property
    def _adaptation(self) -> WarmupAdaptation:
        """What the warm-up tunes."""
        return WarmupAdaptation(
            self._num_warmup, self._step_size, self._adapt_step_size, self._target_accept_prob, self._preconditioner
        )

    def _start(self, rng_key: Key, params: PyTree, target: Potential) -> KernelState:
        key_chain, key_momentum = jax.random.split(rng_key)
        chain = self._init_chain(key_momentum, steps.init(target, ravel(params)))
        zero = jnp.zeros_like(chain.log_density)
        return KernelState(
            i=jnp.array(0),
            **_fields(chain, target),
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.array(False),
            adapt_state=self._adaptation.init(chain.position),
            rng_key=key_chain,
        )

    def _advance(self, state: KernelState, target: Potential) -> KernelState:
        rng_key, key_step = jax.random.split(state.rng_key)
        learned = state.adapt_state
        chain, info = self._step(key_step, _chain(state), target, learned.step_size, learned.scale)
        return KernelState(
            i=state.i + 1,
            **_fields(chain, target),
            accept_prob=info.accept_prob,
            mean_accept_prob=mean_so_far(state.mean_accept_prob, info.accept_prob, state.i, self._num_warmup),
            diverging=info.diverging,
            adapt_state=self._adaptation.update(learned, state.i, info.accept_prob, chain.position, chain.score),
            rng_key=rng_key,
        )

    def refresh(self, state: KernelState, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> KernelState:
        """The state with the potential energy and gradient that belong to these arguments."""
        target = self._target(state.z, model_args, model_kwargs or {})
        chain = steps.init(target, ravel(state.z))
        return state._replace(potential_energy=-chain.log_density, z_grad=target.unravel(-chain.score))

    def get_diagnostics_str(self, state: KernelState) -> str:
        return f"step size {state.adapt_state.step_size:.2e}, acc. prob={state.mean_accept_prob:.2f}"


def mean_so_far(before: jax.Array, now: jax.Array, index: jax.Array, num_warmup: int) -> jax.Array:
    """The mean with what transition number ``index`` (from 0) adds; it begins anew after the warm-up."""
    counted = jnp.where(index < num_warmup, index, index - num_warmup) + 1
    return before + (now - before) / counted


def _chain(state: KernelState) -> steps.State | steps.PhaseState:
    """The functional state, with the sites as one vector."""
    chain = steps.State(ravel(state.z), -state.potential_energy, -ravel(state.z_grad))
    return chain if state.momentum is None else steps.PhaseState(*chain, state.momentum)


def _fields(chain: steps.State | steps.PhaseState, target: Potential) -> dict[str, PyTree]:
    """The functional state as fields of a :class:`KernelState`."""
    return {
        "z": target.unravel(chain.position),
        "z_grad": target.unravel(-chain.score),
        "potential_energy": -chain.log_density,
        "momentum": chain.momentum if isinstance(chain, steps.PhaseState) else None,
    }


def _as_float(leaf: jax.Array) -> jax.Array:
    return jnp.asarray(leaf, jnp.result_type(float, leaf))
