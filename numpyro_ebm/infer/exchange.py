"""The exchange algorithm: posteriors over the parameters of energy distributions whose normaliser is not known."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import init_to_uniform
from numpyro.util import is_prng_key

from _ppl_ebm.shapes import check_observed
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.infer.kernel import GradientKernel
from numpyro_ebm.infer.potential import Potential, PotentialFn
from numpyro_ebm.infer.sites import Unnormalized, energy_distribution, is_reweighted
from numpyro_ebm.sampling import steps
from numpyro_ebm.sampling.protocols import Target
from numpyro_ebm.sampling.types import Key, Model, ModelArgs, ModelKwargs, PyTree, Site

#: Energy distributions by site.
Energies = dict[str, EnergyDistribution]


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
    :raises ValueError: at the start of a run, if one distribution observes several data without a plate.

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

    _normalisers_cancel = True

    def __init__(
        self,
        model: Model,
        *,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        preconditioner: str | None = "variances",
        target_accept_prob: float = 0.3,
        init_strategy: Callable[..., PyTree] = init_to_uniform,
    ) -> None:
        if preconditioner == "gradients":
            raise ValueError("preconditioner: Exchange expected 'variances' or None, got 'gradients': it has none")
        super().__init__(
            model,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
        )

    def _density_model(self) -> Model | None:
        return None if self._model is None else Unnormalized(self._model, _is_observed)

    def _starting_point(self, rng_key: Key, init_params: PyTree, args: ModelArgs, kwargs: ModelKwargs) -> PyTree:
        params = super()._starting_point(rng_key, init_params, args, kwargs)
        first = params if is_prng_key(rng_key) else jax.tree.map(lambda leaf: leaf[0], params)
        self._target(first, args, kwargs).check()
        return params

    def _target(self, sites: PyTree, model_args: ModelArgs, model_kwargs: ModelKwargs) -> "Likelihood":
        def observed(z: PyTree) -> Energies:
            values = self.get_constrain_fn(model_args, model_kwargs)(z)
            model = substitute(seed(self._density_model(), jax.random.key(0)), data=values)
            return _observed_energies(trace(model).get_trace(*model_args, **model_kwargs))

        return Likelihood(self.get_potential_fn(model_args, model_kwargs), sites, observed)

    def _step(
        self, rng_key: Key, chain: steps.State, target: Target, step_size: jax.Array, scale: jax.Array
    ) -> tuple[steps.State, steps.Info]:
        assert isinstance(target, Likelihood)
        key_propose, key_data, key_accept = jax.random.split(rng_key, 3)
        noise = jax.random.normal(key_propose, chain.position.shape, chain.position.dtype)
        proposal = steps.init(target, chain.position + step_size * scale * noise)
        log_ratio = proposal.log_density - chain.log_density
        log_ratio += _fictitious_ratio(key_data, target.observed(chain.position), target.observed(proposal.position))
        accept_prob = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
        accepted = jax.random.uniform(key_accept, (), accept_prob.dtype) < accept_prob
        chain = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposal, chain)
        return chain, steps.Info(accept_prob, accepted, jnp.array(False))


def _fictitious_ratio(rng_key: Key, now: Energies, then: Energies) -> jax.Array:
    """Log of the ratio that fictitious data from the proposal add, in which normalisers cancel."""
    total = jnp.zeros(())
    for name, key in zip(then, jax.random.split(rng_key, len(then)), strict=True):
        fictitious = then[name].sample(key)
        total = total + jnp.sum(then[name].energy(fictitious) - now[name].energy(fictitious))
    return total


class Likelihood(Potential):
    """The target of :class:`Exchange`: a density without a score (it is 0), and the energies observed at a position.

    :param potential_fn: potential energy of unconstrained sites.
    :param sites: an example of these.
    :param observed: the observed energy distributions at unconstrained sites.
    """

    def __init__(self, potential_fn: PotentialFn, sites: PyTree, observed: Callable[[PyTree], Energies]) -> None:
        super().__init__(potential_fn, sites, lambda z: jax.tree.map(jnp.zeros_like, z))
        self._sites, self._observed = sites, observed

    def observed(self, position: jax.Array) -> Energies:
        """The observed energy distributions at a position ``(D,)``."""
        return self._observed(self.unravel(position))

    def check(self) -> None:
        """Refuse a model that observes no energy distribution."""
        if not self._observed(self._sites):
            raise TypeError("model: Exchange expected an observed energy distribution, got none; use HMC or NUTS")


def _observed_energies(sites: dict[str, Site]) -> Energies:
    """The energy distributions among the observed sites of a trace, none of which is masked or scaled."""
    found = {}
    for name, site in sites.items():
        distribution = energy_distribution(site["fn"]) if site["type"] == "sample" and site["is_observed"] else None
        if distribution is None:
            continue
        if is_reweighted(site):
            raise TypeError(
                f"model: Exchange expected sites without mask and scale, got scale={site['scale']} and the "
                f"distribution {type(site['fn']).__name__} at site {name!r}"
            )
        lead = jnp.shape(site["value"])[: jnp.ndim(site["value"]) - distribution.event_dim]
        check_observed(name, lead, distribution.batch_shape)
        found[name] = distribution
    return found


def _is_observed(site: Site) -> bool:
    return site["is_observed"]
