"""The exchange algorithm: posteriors over the parameters of energy distributions whose normaliser is not known."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import init_to_uniform
from numpyro.infer.hmc import HMCState
from numpyro.primitives import Messenger

from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.infer import steps
from numpyro_ebm.infer.gibbs import energy_distribution
from numpyro_ebm.infer.kernel import GradientKernel, Potential


class Exchange(GradientKernel):
    """Metropolis-Hastings over parameters, with model samples in place of normalisers (Murray et al. 2006).

    For a model that observes energy distributions, ``numpyro.sample("v", BernoulliRBM(w, ...), obs=data)``, whose
    parameters depend on latent sites. A transition proposes parameters by a Gaussian step in the unconstrained sites,
    draws fictitious data from the energy distributions at the proposal, and accepts with the ratio of unnormalised
    densities in which the normalisers of data and fictitious data cancel. Exact where the distributions draw exactly
    (``has_exact_sampler``); with chains as samplers approximate, by how far these are from convergence. The model's
    normalisers are never computed, whatever ``log_partition`` is.

    Pseudo-marginal samplers, which would plug in estimates of the normalisers, need unbiased estimates of ``1 / Z``;
    annealed importance sampling has unbiased ones of ``Z`` and cannot be used so.

    :param model: a NumPyro model with at least one observed energy distribution; latent sites are continuous.
    :param step_size: initial standard deviation of the proposal in unconstrained coordinates.
    :param adapt_step_size: tune it to ``target_accept_prob`` during warm-up.
    :param preconditioner: ``"variances"`` scales each coordinate by its standard deviation during warm-up; or ``None``.
    :param target_accept_prob: 0.3, as for random walks in a few dimensions.
    :param init_strategy: of :mod:`numpyro.infer.initialization`.
    :raises TypeError: at the start of a run, if the model observes no energy distribution, or a masked or scaled one.

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC
    >>> from numpyro_ebm import GaussianBernoulliRBM
    >>> from numpyro_ebm.infer import Exchange
    >>> def model(data):
    ...     weight = numpyro.sample("weight", dist.Normal(0.0, 2.0))
    ...     with numpyro.plate("data", len(data)):
    ...         numpyro.sample("v", GaussianBernoulliRBM(weight[None, None], hidden_bias=-1.0), obs=data)
    >>> mcmc = MCMC(Exchange(model), num_warmup=100, num_samples=100, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jnp.ones((30, 1)))
    >>> mcmc.get_samples()["weight"].shape
    (100,)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "variances",
        target_accept_prob: float = 0.3,
        init_strategy: Callable[..., Any] = init_to_uniform,
    ) -> None:
        if preconditioner == "gradients":
            raise ValueError("preconditioner: Exchange expected 'variances' or None, got 'gradients': it has none")
        super().__init__(
            Unnormalized(model),
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )

    def _value_and_gradient(self, model_args: Any, model_kwargs: Any) -> Callable[[Any], tuple[Any, Any]]:
        potential = self.get_potential_fn(model_args, model_kwargs)
        return lambda z: (potential(z), jax.tree.map(jnp.zeros_like, z))

    def _init_state(self, rng_key: jax.Array, model_args: Any, model_kwargs: Any, init_params: Any) -> Any:
        init_params = super()._init_state(rng_key, model_args, model_kwargs, init_params)
        self._observed(self._as_arrays(_first(init_params, rng_key)), model_args, model_kwargs)
        return init_params

    @property
    def model(self) -> Any:
        return self._model.model if isinstance(self._model, Unnormalized) else self._model

    def _target(self, unravel: Callable[[Any], Any], model_args: Any, model_kwargs: Any) -> "_Likelihood":
        observed = lambda position: self._observed(unravel(position), model_args, model_kwargs)
        return _Likelihood(self._value_and_gradient(model_args, model_kwargs), unravel, observed)

    def _step(self, rng_key: jax.Array, state: HMCState, target: Any) -> tuple[Any, steps.Info]:
        key_propose, key_data, key_accept = jax.random.split(rng_key, 3)
        position = ravel_pytree(state.z)[0]
        step_size, scale, *_ = state.adapt_state
        proposed = position + step_size * scale * jax.random.normal(key_propose, position.shape, position.dtype)
        log_density = target.unnormalized_log_prob(proposed)
        now, then = target.observed(position), target.observed(proposed)
        log_ratio = log_density + state.potential_energy
        for name, key in zip(then, jax.random.split(key_data, len(then)), strict=True):
            fictitious = then[name].sample(key)
            log_ratio = log_ratio + jnp.sum(then[name].energy(fictitious) - now[name].energy(fictitious))
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        accept_prob = jnp.exp(jnp.minimum(log_ratio, 0.0))
        accepted = jax.random.uniform(key_accept, (), accept_prob.dtype) < accept_prob
        chain = steps.State(
            jnp.where(accepted, proposed, position),
            jnp.where(accepted, log_density, -state.potential_energy),
            jnp.zeros_like(position),
        )
        return chain, steps.Info(accept_prob, accepted, jnp.array(False))

    def _observed(self, z: Any, model_args: Any, model_kwargs: Any) -> dict[str, EnergyDistribution]:
        """The observed energy distributions at unconstrained values of the latent sites."""
        values = self.get_constrain_fn(model_args, model_kwargs)(z)
        model = substitute(seed(self._model, jax.random.key(0)), data=values)
        sites = trace(model).get_trace(*model_args, **(model_kwargs or {}))
        found = {}
        for name, site in sites.items():
            observed = site["type"] == "sample" and site["is_observed"]
            distribution = energy_distribution(site["fn"]) if observed else None
            if distribution is None:
                continue
            if site["scale"] is not None:
                raise TypeError(f"model: Exchange expected sites without scale, got {site['scale']} at site {name!r}")
            found[name] = distribution
        if not found:
            raise TypeError("model: Exchange expected an observed energy distribution, got none; use HMC or NUTS")
        return found


class _Likelihood(Potential):
    """The target, with the energy distributions that the model observes at a position."""

    def __init__(self, value_and_gradient: Any, unravel: Any, observed: Callable[[jax.Array], Any]) -> None:
        super().__init__(value_and_gradient, unravel)
        self.observed = observed


class Unnormalized:
    """A model whose observed energy distributions leave their normalisers out, without a guard.

    :param model: a NumPyro model.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Unnormalized():
            return self.model(*args, **kwargs)


class _Unnormalized(Messenger):
    """Replaces the distribution of observed energy sites; its parameters are detached, for nobody needs gradients."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"]:
            return
        distribution = energy_distribution(msg["fn"])
        if distribution is None:
            return
        bare = copy.copy(lax.stop_gradient(distribution))
        bare._partition_policy, bare._given_partition = "unknown", None
        depth = msg["fn"].event_dim - distribution.event_dim
        msg["fn"] = bare.to_event(depth) if depth else bare


def _first(init_params: Any, rng_key: jax.Array) -> Any:
    """Initial sites of the first chain, where chains are vectorised."""
    batched = jnp.ndim(rng_key) > (0 if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key) else 1)
    return jax.tree.map(lambda leaf: leaf[0], init_params) if batched else init_params
