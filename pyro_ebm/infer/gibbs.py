"""Block Gibbs: energy distributions inside a model move by their own conditionals; all chains advance as one batch.

Also the potential beneath it, and beneath :class:`pyro_ebm.infer.exchange.Exchange`: one that needs no gradient, and
hands out the sites of the model.
"""

from collections import OrderedDict
from collections.abc import Mapping

import pyro
import torch
from pyro import poutine
from torch.distributions import constraints
from torch.distributions.transforms import Transform, identity_transform

from _ppl_ebm.errors import IntractablePartitionError
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.infer.kernel import BatchedKernel
from pyro_ebm.infer.potential import (
    MAX_TRIES,
    ModelPotential,
    Potential,
    Site,
    Values,
    finite,
    is_latent,
    max_plate_nesting,
    prototype,
)
from pyro_ebm.infer.sites import Unnormalized, energy_distribution, is_masked
from pyro_ebm.sampling import steps
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs
from pyro_ebm.sampling.types import Site as Node


class BlockGibbs(BatchedKernel):
    """Block Gibbs sampling of all latent energy distributions of a model (Hinton 2002), for binary and real units.

    A transition visits every site. It draws the hidden units given the value and new visible units given those: exact
    and reversible for the site's own distribution. Where other sites of the model depend on the value, for example
    observations of it, the sweep is a proposal that is accepted, for every chain, with the ratio of their densities:
    exact in any model. ``accept_prob`` is the mean over sites; 1 where nothing else in the model depends on them.

    Chains start at draws of the model, or at ``initial_params``: values of the sites, as they are. Potential energies
    are up to a constant. :class:`pyro.infer.MCMC` gets integers as floating-point numbers, which its diagnostics need.

    :param model: a Pyro model whose latent sites all are energy distributions with conditionals.
    :raises TypeError: for what is not callable; at the start of a run, if a latent site has no conditionals to sweep
        with, is masked or scaled.
    :raises IntractablePartitionError: if a normaliser that is not known depends on a value: at the start of a run, or
        at the first transition that meets it where the value has no gradient.
    :raises ValueError: at the start of a run, for a model without latent sites, or that does not vectorise.

    A warning says so at the start of a run where sweeps of a :class:`MarkovNetwork` would not move between its states.

    >>> import pyro, torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.infer.gibbs import BlockGibbs
    >>> from pyro_ebm.infer.mcmc import BatchedMCMC
    >>> rbm = BernoulliRBM(torch.tensor([[1.0, -0.5], [0.3, 2.0]]))
    >>> mcmc = BatchedMCMC(BlockGibbs(lambda: pyro.sample("v", rbm)), 20, 5, num_chains=10, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["v"].shape
    torch.Size([10, 20, 2])
    """

    def __init__(self, model: Model) -> None:
        if not callable(model):
            raise TypeError(f"model: BlockGibbs expected a Pyro model, got {model!r}")
        super().__init__(model, adapt_step_size=False, preconditioner=None)

    def _make_potential(self, initial_params: Values | None, args: ModelArgs, kwargs: ModelKwargs) -> Potential:
        del initial_params
        assert self.model is not None
        return GibbsPotential(self.model, args, kwargs)

    def _given(self, num_chains: int, initial_params: Values) -> steps.State:
        target = self._target
        assert isinstance(target, GibbsPotential)
        for name, value in target.constrain(target.flatten(initial_params)).items():
            support = target.supports[name]
            if not support.check(value).all():
                raise ValueError(f"initial_params: expected values of site {name!r} inside {support}, got {value}")
        return super()._given(num_chains, initial_params)

    def _step(
        self, chain: steps.State, target: Potential, step_size: torch.Tensor, scale: torch.Tensor
    ) -> tuple[steps.State, steps.Info]:
        del step_size, scale
        assert isinstance(target, GibbsPotential)
        accept_probs = []
        for name in target.sites:
            chain, accept_prob = _visit(name, chain, target)
            accept_probs.append(accept_prob)
        accept_prob = torch.stack(accept_probs).mean(0)
        return chain, steps.Info(accept_prob, accept_prob > 0, accept_prob < 0)

    def logging(self) -> OrderedDict[str, str]:
        """Mean acceptance probability so far."""
        return OrderedDict([("acc. prob", f"{self.state.accept_prob.mean().item():.3f}")])


def _visit(name: str, chain: steps.State, target: "GibbsPotential") -> tuple[steps.State, torch.Tensor]:
    """Sweep one site of all chains, and accept with the ratio of all that is in the model beside it."""
    num_chains = len(chain.position)
    log_density, nodes = target.evaluate(chain.position)
    proposal = target.swept(name, nodes, chain.position)
    proposed_log_density, proposed_nodes = target.evaluate(proposal)
    _check_same_normalisers(name, nodes, proposed_nodes)
    log_ratio = rest(name, proposed_nodes, num_chains) - rest(name, nodes, num_chains)
    accept_prob = torch.exp(torch.where(log_ratio.isnan(), -torch.inf, log_ratio).clamp(max=0.0))
    accepted = torch.rand_like(accept_prob) < accept_prob
    position = torch.where(accepted[:, None], proposal, chain.position)
    return steps.State(position, torch.where(accepted, proposed_log_density, log_density), chain.score), accept_prob


class GradientFreePotential(ModelPotential):
    """A model's log-density without a score (it is 0), which hands out the sites; arguments as in its base."""

    def __init__(self, model: Model, args: ModelArgs = (), kwargs: ModelKwargs | None = None) -> None:
        super().__init__(model, args, kwargs, _no_score)

    def evaluate(self, position: torch.Tensor) -> tuple[torch.Tensor, dict[str, Node]]:
        """Log-densities ``(chains,)`` at positions ``(chains, D)``, and the model's sites there, by one run."""
        log_density = self._joint(position)
        return log_density, self._nodes

    def _run(self, values: dict[str, torch.Tensor]) -> dict[str, Node]:
        self._nodes = super()._run(values)
        return self._nodes


class GibbsPotential(GradientFreePotential):
    """The joint density of a model whose latent sites all are energy distributions with conditionals.

    Positions are the sites' values themselves, discrete ones as floating-point numbers. The own distribution of an only
    site leaves its normaliser out, which is constant.

    :param model: a Pyro model.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :raises TypeError: for a latent site without conditionals, masked or scaled.
    :raises IntractablePartitionError: if a normaliser that is not known depends on a value.
    :raises ValueError: for a model without latent sites.
    """

    def __init__(self, model: Model, args: ModelArgs = (), kwargs: ModelKwargs | None = None) -> None:
        self._prior, self._args, self._kwargs = model, args, kwargs or {}
        nodes = self._drawn()
        latent = {name: node for name, node in nodes.items() if is_latent(name, node)}
        if not latent:
            raise ValueError("model: BlockGibbs expected at least one latent site, got none")
        machines = {name: sweepable(name, node) for name, node in latent.items()}
        for machine in machines.values():
            machine.check_sweeps()
        self.supports = {name: machine.support for name, machine in machines.items()}
        self._model = Unnormalized(lambda msg: msg["name"] in latent)(model) if len(latent) == 1 else model
        self._max_plate_nesting = max_plate_nesting(nodes)
        values = [latent[name]["value"].to(machine.dtype) for name, machine in machines.items()]
        Potential.__init__(self, {n: _site_of_values(node) for n, node in latent.items()}, prototype(values), _no_score)
        self._check_normalisers()

    @property
    def transforms(self) -> dict[str, Transform]:
        """None: the host is to leave values as they are."""
        return {}

    def swept(self, name: str, nodes: Mapping[str, Node], position: torch.Tensor) -> torch.Tensor:
        """Positions after one sweep of a site, whose distributions at ``position`` are among ``nodes``."""
        values, node = self.constrain(position), nodes[name]
        value = sweepable(name, node).frozen().gibbs_step(node["value"])
        return self.flatten({**values, name: value.reshape(values[name].shape)})

    def start(self, num_chains: int) -> steps.State:
        """Chains at draws of the model; those without a finite log-density are drawn anew."""
        state = steps.init(self, self._uniform(num_chains))
        for _ in range(MAX_TRIES - 1):
            valid = finite(state)
            if valid.all():
                return state
            state = steps.select(valid, state, steps.init(self, self._uniform(num_chains)))
        if finite(state).all():
            return state
        raise ValueError(
            f"model: no starting point with a finite log-density in {MAX_TRIES} draws of the model; expected "
            "initial_params, or a model with such points"
        )

    def _probe(self) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.start(1)
        return state.position[0], state.log_density[0]

    def _uniform(self, num_chains: int) -> torch.Tensor:
        """Draws of the model, in place of uniform numbers."""
        nodes = self._drawn(num_chains)
        values = {name: nodes[name]["value"].reshape((num_chains, *site.shape)) for name, site in self.sites.items()}
        return self.flatten(values)

    def _drawn(self, num_chains: int = 1) -> dict[str, Node]:
        """The sample sites of the model, drawn for one chain, or in a plate of chains."""
        with torch.no_grad(), poutine.block():
            if num_chains == 1:
                trace = poutine.trace(self._prior).get_trace(*self._args, **self._kwargs)
            else:
                with pyro.plate("_pyro_ebm_chains", num_chains, dim=-self._max_plate_nesting - 1):
                    trace = poutine.trace(self._prior).get_trace(*self._args, **self._kwargs)
        return {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}

    def _verify_supports(self, position: torch.Tensor) -> None:
        """Values are not transformed, and their supports may move."""

    @torch.enable_grad()
    def _check_normalisers(self) -> None:
        """Differentiate what every site's acceptance depends on: a guarded density raises where its normaliser would
        be missing from the ratio."""
        position = self._uniform(1)
        values = {name: value[0] for name, value in self.constrain(position).items()}
        with pyro.validation_enabled(False), poutine.block():
            for name, value in values.items():
                if value.is_floating_point():
                    at = value.detach().requires_grad_()
                    differentiate(rest(name, self._run({**values, name: at}), 1), at)


def differentiate(log_density: torch.Tensor, value: torch.Tensor) -> None:
    """Reach every guard between a value and a log-density, if there is a way at all."""
    if log_density.requires_grad:
        torch.autograd.grad(log_density.sum(), value, allow_unused=True)


def rest(name: str, nodes: Mapping[str, Node], num_chains: int) -> torch.Tensor:
    """Log-density ``(chains,)`` of all that is in the model beside one site's own distribution."""
    terms = {site: node["log_prob"].reshape(num_chains, -1).sum(-1) for site, node in nodes.items()}
    return sum((term for site, term in terms.items() if site != name), torch.zeros_like(terms[name]))


def is_reweighted(node: Node) -> bool:
    """Whether a site is masked or scaled."""
    masked = node["mask"] is not None or is_masked(node["fn"])
    return masked or not bool(torch.all(torch.as_tensor(node["scale"]) == 1))


def sweepable(name: str, node: Node) -> EnergyDistribution:
    """The distribution of a site, with conditionals to sweep with."""
    distribution = None if is_masked(node["fn"]) else energy_distribution(node["fn"])
    if distribution is None or not distribution.has_gibbs_step:
        raise TypeError(
            "model: BlockGibbs expected every latent site to have an energy distribution with conditionals, got "
            f"{type(node['fn'] if distribution is None else distribution).__name__} at site {name!r}; use MALA, HMC or "
            "NUTS for continuous sites"
        )
    if is_reweighted(node):
        raise TypeError(
            f"model: BlockGibbs expected a site without mask and scale, got mask={node['mask']} and "
            f"scale={node['scale']} at site {name!r}"
        )
    return distribution


def _check_same_normalisers(name: str, before: Mapping[str, Node], after: Mapping[str, Node]) -> None:
    """Refuse other sites of unknown normaliser whose parameters changed with a site's value.

    Discrete values have no gradient by which the guard could tell.
    """
    for other, node in before.items():
        old, new = energy_distribution(node["fn"]), energy_distribution(after[other]["fn"])
        if other == name or old is None or new is None or not old.normaliser.is_guarded:
            continue
        pairs = zip(old.dependencies(node["value"]), new.dependencies(after[other]["value"]), strict=True)
        if not all(torch.equal(*torch.broadcast_tensors(first, second)) for first, second in pairs):
            raise IntractablePartitionError(
                f"model: the partition function of {old.description} at site {other!r} depends on site {name!r} "
                'and is not known; expected a normalised distribution, by log_partition="auto" for at most 2^16 '
                "enumerated terms, or by an estimator"
            )


class _AsFloat(Transform):
    """Discrete values as floating-point numbers; the inverse restores their type."""

    domain = codomain = constraints.real  # type: ignore[assignment]
    bijective = True

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.get_default_dtype())

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y.round().to(self._dtype)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(y, dtype=torch.get_default_dtype())


def _site_of_values(node: Node) -> Site:
    value, shape = node["value"], tuple(node["value"].shape)
    transform = identity_transform if value.is_floating_point() else _AsFloat(value.dtype)
    return Site(transform, tuple(node["fn"].batch_shape), shape, shape)


def _no_score(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in params.items()}
