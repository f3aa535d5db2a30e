"""The exchange algorithm: posteriors over the parameters of energy distributions whose normaliser is not known."""

import pyro
import torch
from pyro import poutine

from _ppl_ebm.shapes import check_observed
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.infer.gibbs import GradientFreePotential, differentiate, is_reweighted
from pyro_ebm.infer.kernel import BatchedKernel
from pyro_ebm.infer.potential import Potential, Values
from pyro_ebm.infer.sites import Unnormalized, energy_distribution
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs, Site

#: Energy distributions by site.
Energies = dict[str, EnergyDistribution]


class Exchange(BatchedKernel):
    """Metropolis-Hastings over parameters, with model samples in place of normalisers (Murray et al. 2006).

    For a model that observes energy distributions, ``pyro.sample("v", BernoulliRBM(w, ...), obs=data)``, whose
    parameters depend on latent sites. A transition proposes parameters by a Gaussian step in the unconstrained sites,
    draws fictitious data from the energy distributions at the proposal, and accepts with the ratio of unnormalised
    densities in which the normalisers of data and fictitious data cancel. Exact where the distributions draw exactly
    (``has_exact_sampler``); with chains as samplers approximate, by how far these are from convergence. The normalisers
    of what is observed are never computed, whatever ``log_partition`` is, and potential energies are without them.

    Pseudo-marginal samplers, which would plug in estimates of the normalisers, need unbiased estimates of ``1 / Z``;
    annealed importance sampling has unbiased ones of ``Z`` and cannot be used so.

    :param model: a Pyro model with at least one observed energy distribution; latent sites are continuous.
    :param step_size: initial standard deviation of the proposal in unconstrained coordinates.
    :param adapt_step_size: tune it to ``target_accept_prob`` during warm-up.
    :param preconditioner: ``"variances"`` scales each coordinate by its standard deviation during warm-up; or ``None``.
    :param target_accept_prob: 0.3, as for random walks in a few dimensions.
    :raises TypeError: at the start of a run, if the model observes no energy distribution, or a masked or scaled one.
    :raises ValueError: at the start of a run, if one distribution observes several data without a plate.
    :raises IntractablePartitionError: at the start of a run, if the unknown normaliser of a latent energy distribution
        depends on another latent site.
    :raises ValueError: for other arguments; at the start of a run, for a model that does not vectorise.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> from pyro_ebm import GaussianBernoulliRBM
    >>> from pyro_ebm.infer.exchange import Exchange
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> def model(data):
    ...     weight = pyro.sample("weight", dist.Normal(0.0, 2.0))
    ...     with pyro.plate("data", len(data)):
    ...         pyro.sample("v", GaussianBernoulliRBM(weight[..., None, None], hidden_bias=-1.0), obs=data)
    >>> mcmc = BatchedMCMC(Exchange(model), 100, 100, num_chains=4, disable_progbar=True)
    >>> mcmc.run(torch.ones(30, 1))
    >>> mcmc.get_samples(group_by_chain=True)["weight"].shape
    torch.Size([4, 100])
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
    ) -> None:
        if preconditioner == "gradients":
            raise ValueError("preconditioner: Exchange expected 'variances' or None, got 'gradients': it has none")
        super().__init__(
            model,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            preconditioner=preconditioner,
            target_accept_prob=target_accept_prob,
        )

    def _make_potential(self, initial_params: Values | None, args: ModelArgs, kwargs: ModelKwargs) -> Potential:
        del initial_params
        assert self.model is not None
        return Likelihood(self.model, args, kwargs)

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        assert isinstance(target, Likelihood)
        position = chain.position + step_size[:, None] * scale * torch.randn_like(chain.position)
        _, now = target.observed(chain.position)
        log_density, then = target.observed(position)
        log_ratio = log_density - chain.log_density + _fictitious_ratio(now, then, len(position))
        accept_prob = torch.exp(torch.where(log_ratio.isnan(), -torch.inf, log_ratio).clamp(max=0.0))
        accepted = torch.rand_like(accept_prob) < accept_prob
        chain = steps.select(accepted, steps.State(position, log_density, chain.score), chain)
        return chain, steps.Info(accept_prob, accepted, accept_prob < 0)


def _fictitious_ratio(now: Energies, then: Energies, num_chains: int) -> torch.Tensor | float:
    """Log of the ratio that fictitious data from the proposal add, in which normalisers cancel."""
    total: torch.Tensor | float = 0.0
    for name, machine in then.items():
        fictitious = machine.sample()
        term = machine.energy(fictitious) - now[name].energy(fictitious)
        total = total + term.reshape(num_chains, -1).sum(-1)
    return total


class Likelihood(GradientFreePotential):
    """The target of :class:`Exchange`: a joint density in which observed energy distributions lack their normalisers.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :raises TypeError: for a model that observes no energy distribution, or a masked or scaled one.
    :raises ValueError: for a distribution that observes several data without a plate.
    :raises IntractablePartitionError: if another unknown normaliser depends on a latent site.
    """

    def __init__(self, model: Model, args: ModelArgs = (), kwargs: ModelKwargs | None = None) -> None:
        self._observed: list[str] = []
        super().__init__(Unnormalized(lambda msg: msg["is_observed"])(model), args, kwargs)
        nodes = self._check_normalisers()
        self._observed = [name for name, node in nodes.items() if self._is_observed(name, node)]
        if not self._observed:
            raise TypeError("model: Exchange expected an observed energy distribution, got none; use MALA, HMC or NUTS")
        for name in self._observed:
            if is_reweighted(nodes[name]):
                raise TypeError(
                    "model: Exchange expected sites without mask and scale, got "
                    f"{type(nodes[name]['fn']).__name__}, mask={nodes[name]['mask']} and scale={nodes[name]['scale']} "
                    f"at site {name!r}"
                )
            machine, value = energy_distribution(nodes[name]["fn"]), nodes[name]["value"]
            assert machine is not None
            check_observed(name, value.shape[: value.dim() - machine.event_dim], machine.batch_shape)

    def observed(self, position: torch.Tensor) -> tuple[torch.Tensor, Energies]:
        """Log-densities ``(chains,)``, and the observed energy distributions, with the chains in front."""
        log_density, nodes = self.evaluate(position)
        machines = {name: energy_distribution(nodes[name]["fn"]) for name in self._observed}
        return log_density, {name: machine for name, machine in machines.items() if machine is not None}

    def _is_observed(self, name: str, node: Site) -> bool:
        return name not in self.sites and energy_distribution(node["fn"]) is not None

    @torch.enable_grad()
    def _check_normalisers(self) -> dict[str, Site]:
        """The sites at a random position, where the log-density is differentiated: no gradient is needed, but guarded
        densities raise where a normaliser is missing that does not cancel."""
        position = self._uniform(1).requires_grad_()
        with pyro.validation_enabled(False), poutine.block():
            log_density, nodes = self.evaluate(position)
        differentiate(log_density, position)
        return nodes
