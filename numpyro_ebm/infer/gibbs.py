"""Block Gibbs for :class:`numpyro.infer.MCMC`: energy distributions inside a model move by their own conditionals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Independent
from numpyro.infer.gibbs import latent_sample_sites, prototype_trace
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import compute_log_probs
from numpyro.util import is_prng_key, not_jax_tracer

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.partition import IntractablePartitionError

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
    z: dict[str, jax.Array]
    accept_prob: jax.Array
    mean_accept_prob: jax.Array
    rng_key: jax.Array


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

    def __init__(self, model: Callable[..., Any]) -> None:
        if not callable(model):
            raise TypeError(f"model: BlockGibbs expected a NumPyro model, got {model!r}")
        self._model = model
        self._num_warmup = 0
        self._sample_fn: Callable[..., Any] | None = None

    @property
    def model(self) -> Callable[..., Any]:
        return self._model

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple[Any, ...] = (),
        model_kwargs: dict[str, Any] | None = None,
    ) -> BlockGibbsState:
        self._num_warmup = num_warmup
        model_kwargs = model_kwargs or {}
        single = is_prng_key(rng_key)
        trace = prototype_trace(self._model, rng_key if single else rng_key[0], model_args, model_kwargs)
        sites = latent_sample_sites(trace)
        for name in sites:
            _sweepable(name, trace[name])
        unknown = sorted(set(init_params or {}) - set(sites))
        if unknown:
            raise ValueError(f"init_params: BlockGibbs expected some of the sites {sorted(sites)}, got {unknown}")
        self._check_normalisers({name: trace[name]["value"] for name in sites}, model_args, model_kwargs)

        def start(key: jax.Array, given: Any) -> BlockGibbsState:
            key_chain, key_values = jax.random.split(key)
            own = prototype_trace(self._model, key_values, model_args, model_kwargs)
            values = {name: jnp.asarray((given or {}).get(name, own[name]["value"])) for name in sites}
            return BlockGibbsState(jnp.array(0), values, jnp.ones(()), jnp.zeros(()), key_chain)

        self._sample_fn = self._sample_chain if single else jax.vmap(self._sample_chain, in_axes=(0, None, None))
        return start(rng_key, init_params) if single else jax.vmap(start)(rng_key, init_params)

    def sample(self, state: BlockGibbsState, model_args: Any, model_kwargs: Any) -> BlockGibbsState:
        if self._sample_fn is None:
            raise RuntimeError("BlockGibbs: expected a call of init before sample")
        return self._sample_fn(state, model_args, model_kwargs)

    def _sample_chain(self, state: BlockGibbsState, model_args: Any, model_kwargs: Any) -> BlockGibbsState:
        values = dict(state.z)
        rng_key, *keys = jax.random.split(state.rng_key, 1 + len(values))
        accept_probs = []
        for name, key in zip(values, keys, strict=True):
            key_sweep, key_accept = jax.random.split(key)
            rest, site = self._rest(name, values, model_args, model_kwargs)
            proposal = _sweepable(name, site).gibbs_step(key_sweep, values[name])
            moved = {**values, name: proposal}
            log_ratio = self._rest(name, moved, model_args, model_kwargs)[0] - rest
            accept_prob = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
            accepted = jax.random.uniform(key_accept) < accept_prob
            values[name] = jnp.where(accepted, proposal, values[name])
            accept_probs.append(accept_prob)
        count = state.i + 1
        counted = jnp.where(count <= self._num_warmup, count, count - self._num_warmup)
        accept_prob = jnp.mean(jnp.stack(accept_probs)).astype(state.accept_prob.dtype)
        mean = state.mean_accept_prob + (accept_prob - state.mean_accept_prob) / counted
        return BlockGibbsState(count, values, accept_prob, mean, rng_key)

    def _rest(self, name: str, values: Mapping[str, Any], model_args: Any, model_kwargs: Any) -> tuple[Any, Any]:
        """Log-density of all that is in the model beside one site's own distribution, and that site."""
        log_probs, trace = compute_log_probs(self._model, model_args, model_kwargs or {}, values)
        return sum((term for site, term in log_probs.items() if site != name), jnp.zeros(())), trace[name]

    def _check_normalisers(self, values: dict[str, Any], model_args: Any, model_kwargs: Any) -> None:
        """Differentiate what every site's acceptance depends on: a guarded density raises where its normaliser would
        be missing from the ratio. Integers have no derivative: change them, and see whose parameters change."""
        for name, value in values.items():
            if jnp.issubdtype(value.dtype, jnp.floating):
                rest = lambda at, name=name: self._rest(name, {**values, name: at}, model_args, model_kwargs)[0]
                jax.eval_shape(jax.grad(rest), value)
            else:
                self._check_dependence(name, values, model_args, model_kwargs)

    def _check_dependence(self, name: str, values: dict[str, Any], model_args: Any, model_kwargs: Any) -> None:
        """Compare guarded distributions at a few draws of a site of integers."""
        sites = lambda at: compute_log_probs(self._model, model_args, model_kwargs or {}, at)[1]
        before = sites(values)
        distribution = _sweepable(name, before[name])
        for seed in range(_NUM_PROBES):
            after = sites({**values, name: distribution.sample(jax.random.key(seed)).astype(values[name].dtype)})
            for other, site in before.items():
                guarded = None if other == name or site["type"] != "sample" else _guarded(site["fn"])
                if guarded is None:
                    continue
                pairs = zip(jax.tree.leaves(guarded), jax.tree.leaves(after[other]["fn"]), strict=True)
                if any(not_jax_tracer(new) and not np.array_equal(old, new) for old, new in pairs):
                    raise IntractablePartitionError(
                        f"model: the partition function of {guarded._title} at site {other!r} depends on site {name!r} "
                        'and is not known; expected a normalised distribution, by log_partition="auto" for at most '
                        "2^16 enumerated terms, or by an estimator"
                    )

    def get_diagnostics_str(self, state: BlockGibbsState) -> str:
        return f"acc. prob={state.mean_accept_prob:.2f}"

    def postprocess_fn(self, model_args: Any, model_kwargs: Any) -> Callable[[Any], Any]:
        model_kwargs = model_kwargs or {}

        def values_and_deterministic(values: dict[str, Any]) -> dict[str, Any]:
            model = numpyro.handlers.substitute(numpyro.handlers.seed(self._model, jax.random.key(0)), data=values)
            trace = numpyro.handlers.trace(model).get_trace(*model_args, **model_kwargs)
            derived = {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}
            return {**values, **derived}

        return values_and_deterministic

    def get_constrain_fn(self, model_args: Any, model_kwargs: Any) -> Callable[[Any], Any]:
        """Values are kept as they are."""
        del model_args, model_kwargs
        return lambda values: values

    def refresh(self, state: BlockGibbsState, model_args: Any, model_kwargs: Any) -> BlockGibbsState:
        """Nothing that depends on other sites is kept between transitions."""
        del model_args, model_kwargs
        return state

    def wrap_model(self, wrapper: Callable[..., Any]) -> "BlockGibbs":
        return BlockGibbs(wrapper(self._model))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sample_fn": None}


def energy_distribution(distribution: Any) -> EnergyDistribution | None:
    """The energy distribution inside ``to_event``, if there is one."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, EnergyDistribution) else None


def _guarded(distribution: Any) -> EnergyDistribution | None:
    """The energy distribution of a site, if its normaliser does not follow its parameters."""
    found = energy_distribution(distribution)
    if found is None or (found.is_normalized and found._partition_policy != "constant"):
        return None
    return found


def _sweepable(name: str, site: Mapping[str, Any]) -> EnergyDistribution:
    """The distribution of a site, with conditionals to sweep with."""
    distribution = energy_distribution(site["fn"])
    if distribution is None or not distribution.has_gibbs_step:
        raise TypeError(
            "model: BlockGibbs expected every latent site to have an energy distribution with conditionals, got "
            f"{type(site['fn'] if distribution is None else distribution).__name__} at site {name!r}; give that site a "
            "kernel of its own in numpyro.infer.Gibbs"
        )
    if site["scale"] is not None:
        raise TypeError(f"model: BlockGibbs expected a site without scale, got {site['scale']} at site {name!r}")
    return distribution
