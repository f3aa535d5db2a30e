"""Block Gibbs for :class:`numpyro.infer.MCMC`: energy distributions inside a model move by their own conditionals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.typing import ArrayLike
from numpyro.distributions import Distribution
from numpyro.infer.gibbs import latent_sample_sites, prototype_trace
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import compute_log_probs
from numpyro.util import identity, is_prng_key, not_jax_tracer

from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.errors import IntractablePartitionError
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.infer.kernel import mean_so_far
from numpyro_ebm.infer.sites import energy_distribution, is_masked, is_reweighted
from numpyro_ebm.sampling.samplers import has_no_density
from numpyro_ebm.sampling.types import Key, Model, ModelArgs, ModelKwargs, Site

#: Values by site.
Values = dict[str, jax.Array]

_NUM_PROBES = 3  # draws of a site of integers


class BlockGibbsState(NamedTuple):
    """The state of :class:`BlockGibbs`.

    :param i: number of transitions so far.
    :param z: values of the sites.
    :param accept_prob: mean acceptance probability of the last transition's sweeps; 1 where nothing in the model but
        its own distribution depends on a site.
    :param mean_accept_prob: its mean over the transitions since warm-up.
    :param rng_key: key of the next transition.
    """

    i: jax.Array
    z: Values
    accept_prob: jax.Array
    mean_accept_prob: jax.Array
    rng_key: Key


class BlockGibbs(MCMCKernel):
    """Block Gibbs sampling of all latent energy distributions of a model (Hinton 2002), for binary and real units.

    A transition visits every site. It draws the hidden units given the value and new visible units given those: exact
    and reversible for the site's own distribution. Where other sites of the model depend on the value, for example
    observations of it, the sweep is a proposal that is accepted with the ratio of their densities: exact in any model.

    Other latent sites need a kernel of their own: ``numpyro.infer.Gibbs([(BlockGibbs(model), ["v"]), (NUTS(model),
    None)])``.

    :param model: a NumPyro model.
    :raises TypeError: at the start of a run, if a latent site has no conditionals to sweep with, is masked or scaled.
    :raises IntractablePartitionError: at the start of a run, if a normaliser that is not known depends on a value.
    :raises ValueError: at the start of a run, for ``init_params`` of infinite energy.

    A warning says so at the start of a run where sweeps of a :class:`MarkovNetwork` would not move between its states.

    >>> import jax, jax.numpy as jnp, numpyro
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.infer import BlockGibbs
    >>> rbm = BernoulliRBM(jnp.array([[1.0, -0.5], [0.3, 2.0]]))
    >>> mcmc = MCMC(BlockGibbs(lambda: numpyro.sample("v", rbm)), num_warmup=5, num_samples=20, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> mcmc.get_samples()["v"].shape
    (20, 2)
    """

    sample_field = "z"

    @shows_its_call
    def __init__(self, model: Model) -> None:
        if not callable(model):
            raise TypeError(f"model: BlockGibbs expected a NumPyro model, got {model!r}")
        self._model = model
        self._num_warmup = 0
        self._sample_fn: Callable[[BlockGibbsState, ModelArgs, ModelKwargs], BlockGibbsState] | None = None

    # ------------------------------------------------------------------ the host's contract

    @property
    def model(self) -> Model:
        return self._model

    def init(
        self,
        rng_key: Key,
        num_warmup: int,
        init_params: Values | None = None,
        model_args: ModelArgs = (),
        model_kwargs: ModelKwargs | None = None,
    ) -> BlockGibbsState:
        self._num_warmup = num_warmup
        args, kwargs, single = model_args, model_kwargs or {}, is_prng_key(rng_key)
        trace = prototype_trace(self._model, rng_key if single else rng_key[0], args, kwargs)
        sites = latent_sample_sites(trace)
        if not sites:
            raise ValueError("model: BlockGibbs expected at least one latent site, got none")
        machines = {name: _sweepable(name, trace[name]) for name in sites}
        for machine in machines.values():
            machine.check_sweeps()
        unknown = sorted(set(init_params or {}) - set(sites))
        if unknown:
            raise ValueError(f"init_params: BlockGibbs expected some of the sites {sorted(sites)}, got {unknown}")
        chains = () if single else (len(rng_key),)
        for name, value in (init_params or {}).items():
            _check_start(name, value, (*chains, *trace[name]["value"].shape), machines[name])
        joint = Joint(self._model, args, kwargs)
        joint.check_normalisers({name: (machine, trace[name]["value"]) for name, machine in machines.items()})

        def start(key: Key, given: Values | None) -> BlockGibbsState:
            key_chain, key_values = jax.random.split(key)
            own = prototype_trace(self._model, key_values, args, kwargs)
            values = {name: jnp.asarray((given or {}).get(name, own[name]["value"])) for name in sites}
            return BlockGibbsState(jnp.array(0), values, jnp.ones(()), jnp.zeros(()), key_chain)

        self._sample_fn = self._sample_chain if single else jax.vmap(self._sample_chain, in_axes=(0, None, None))
        return start(rng_key, init_params) if single else jax.vmap(start)(rng_key, init_params)

    def sample(
        self, state: BlockGibbsState, model_args: ModelArgs, model_kwargs: ModelKwargs | None
    ) -> BlockGibbsState:
        if self._sample_fn is None:
            raise RuntimeError("BlockGibbs: expected a call of init before sample")
        return self._sample_fn(state, model_args, model_kwargs or {})

    def _sample_chain(
        self, state: BlockGibbsState, model_args: ModelArgs, model_kwargs: ModelKwargs
    ) -> BlockGibbsState:
        rng_key, *keys = jax.random.split(state.rng_key, 1 + len(state.z))
        joint, values, accept_probs = Joint(self._model, model_args, model_kwargs), dict(state.z), []
        for name, key in zip(state.z, keys, strict=True):
            values, accept_prob = joint.visit(key, name, values)
            accept_probs.append(accept_prob)
        accept_prob = jnp.mean(jnp.stack(accept_probs)).astype(state.accept_prob.dtype)
        mean = mean_so_far(state.mean_accept_prob, accept_prob, state.i, self._num_warmup)
        return BlockGibbsState(state.i + 1, values, accept_prob, mean, rng_key)

    def get_diagnostics_str(self, state: BlockGibbsState) -> str:
        return f"acc. prob={state.mean_accept_prob:.2f}"

    def postprocess_fn(self, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> Callable[[Values], Values]:
        def values_and_deterministic(values: Values) -> Values:
            model = numpyro.handlers.substitute(numpyro.handlers.seed(self._model, jax.random.key(0)), data=values)
            trace = numpyro.handlers.trace(model).get_trace(*model_args, **(model_kwargs or {}))
            derived = {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}
            return {**values, **derived}

        return values_and_deterministic

    def get_constrain_fn(self, model_args: ModelArgs, model_kwargs: ModelKwargs | None) -> Callable[[Values], Values]:
        """Values are kept as they are."""
        del model_args, model_kwargs
        return identity

    def refresh(
        self, state: BlockGibbsState, model_args: ModelArgs, model_kwargs: ModelKwargs | None
    ) -> BlockGibbsState:
        """Nothing that depends on other sites is kept between transitions."""
        del model_args, model_kwargs
        return state

    def wrap_model(self, wrapper: Callable[[Model], Model]) -> "BlockGibbs":
        return BlockGibbs(wrapper(self._model))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sample_fn": None}


class Joint(NamedTuple):
    """The joint density of a model, of which one site at a time is swept.

    :param model: a NumPyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    """

    model: Model
    args: ModelArgs
    kwargs: ModelKwargs

    def visit(self, rng_key: Key, name: str, values: Values) -> tuple[Values, jax.Array]:
        """Sweep one site, and accept with the ratio of all that is in the model beside it."""
        key_sweep, key_accept = jax.random.split(rng_key)
        rest, site = self.rest(name, values)
        proposal = _sweepable(name, site).gibbs_step(key_sweep, values[name])
        log_ratio = self.rest(name, {**values, name: proposal})[0] - rest
        accept_prob = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
        accepted = jax.random.uniform(key_accept) < accept_prob
        return {**values, name: jnp.where(accepted, proposal, values[name])}, accept_prob

    def rest(self, name: str, values: Values) -> tuple[jax.Array, Site]:
        """Log-density of all that is in the model beside one site's own distribution, and that site."""
        log_probs, trace = compute_log_probs(self.model, self.args, self.kwargs, values)
        return sum((term for site, term in log_probs.items() if site != name), jnp.zeros(())), trace[name]

    def check_normalisers(self, machines: Mapping[str, tuple[EnergyDistribution, jax.Array]]) -> None:
        """Differentiate what every site's acceptance depends on: a guarded density raises where its normaliser would
        be missing from the ratio. Integers have no derivative: change them, and see whose parameters change.

        :param machines: the distribution of every site, and a value.
        """
        values = {name: value for name, (_, value) in machines.items()}
        for name, (machine, value) in machines.items():
            if jnp.issubdtype(value.dtype, jnp.floating):
                rest = lambda at, name=name: self.rest(name, {**values, name: at})[0]
                jax.eval_shape(jax.grad(rest), value)
                continue
            for seed in range(_NUM_PROBES):
                draw = machine.sample(jax.random.key(seed)).astype(value.dtype)
                self._check_same_normalisers(name, values, {**values, name: draw})

    def _check_same_normalisers(self, name: str, before: Values, after: Values) -> None:
        """Refuse guarded distributions whose parameters differ with the values of a site."""
        old, new = (compute_log_probs(self.model, self.args, self.kwargs, values)[1] for values in (before, after))
        for other, site in old.items():
            guarded = None if other == name or site["type"] != "sample" else _guarded(site["fn"])
            if guarded is None:
                continue
            pairs = zip(jax.tree.leaves(guarded), jax.tree.leaves(_guarded(new[other]["fn"])), strict=True)
            if any(not_jax_tracer(second) and not np.array_equal(first, second) for first, second in pairs):
                raise IntractablePartitionError(
                    f"model: the partition function of {guarded.description} at site {other!r} depends on site "
                    f'{name!r} and is not known; expected a normalised distribution, by log_partition="auto" for at '
                    "most 2^16 enumerated terms, or by an estimator"
                )


def _guarded(distribution: Distribution) -> EnergyDistribution | None:
    """The energy distribution of a site, if its normaliser does not follow its parameters."""
    found = energy_distribution(distribution)
    return found if found is not None and found.normaliser.is_guarded else None


def _check_start(name: str, value: ArrayLike, shape: tuple[int, ...], machine: EnergyDistribution) -> None:
    if jnp.shape(value) != shape:
        raise ValueError(f"init_params: expected values of site {name!r} of shape {shape}, got {jnp.shape(value)}")
    if not_jax_tracer(value) and not jnp.all(machine.support(value)):
        raise ValueError(f"init_params: expected values of site {name!r} inside {machine.support}, got {value}")
    is_lost = has_no_density(machine, jnp.asarray(value))
    if not_jax_tracer(is_lost) and is_lost.any():
        raise ValueError(f"init_params: expected values of site {name!r} of finite energy, got {value}")


def _sweepable(name: str, site: Site) -> EnergyDistribution:
    """The distribution of a site, with conditionals to sweep with."""
    distribution = None if is_masked(site["fn"]) else energy_distribution(site["fn"])
    if distribution is None or not distribution.has_gibbs_step:
        raise TypeError(
            "model: BlockGibbs expected every latent site to have an energy distribution with conditionals, got "
            f"{type(site['fn'] if distribution is None else distribution).__name__} at site {name!r}; give that site a "
            "kernel of its own in numpyro.infer.Gibbs"
        )
    if is_reweighted(site):
        raise TypeError(f"model: BlockGibbs expected a site without scale, got {site['scale']} at site {name!r}")
    return distribution
