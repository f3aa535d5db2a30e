"""Log-densities for a batch of chains in unconstrained coordinates: of a Pyro model, or of a function.

:class:`ModelPotential` and :class:`FunctionPotential` are targets of :mod:`pyro_ebm.infer.steps` whose positions have
the shape ``(chains, D)``: all latent sites, unconstrained, flattened and put one after the other. A model runs once for
all chains, inside a plate of its own to the left of the model's. Not every model can be run so, and one that cannot may
give wrong numbers without an error: ``verify`` compares the chains with the model's own log-density, one at a time.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import biject_to
from torch.distributions.transforms import Transform, identity_transform

from pyro_ebm.sampling import steps
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs
from pyro_ebm.sampling.types import Site as Node

#: Unconstrained or constrained sites by name, with a leading chain dimension.
Values = Mapping[str, torch.Tensor]
#: Potential energies ``(chains,)`` of unconstrained sites.
PotentialFn = Callable[[dict[str, torch.Tensor]], torch.Tensor]
#: Gradient of the log-density in the unconstrained sites.
ScoreFn = Callable[[dict[str, torch.Tensor]], Values]

MAX_TRIES = 100  # draws of a starting point before giving up
NUM_PROBES = 3  # positions at which batched and single log-densities are compared

_VECTORISING = (
    "Chains are a batch dimension to the left of all of the model's own, so a model has to index and reduce from the "
    "right (x[..., 0], x.sum(-1), torch.einsum('nd,...d->...n', data, x)), to declare batch dimensions by pyro.plate "
    "or .to_event, and to make no shape by hand. With num_chains=1 any model runs."
)


class Site(NamedTuple):
    """A latent site: the transform to unconstrained space, and shapes without the chains."""

    transform: Transform
    batch_shape: tuple[int, ...]
    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]


class Potential(steps.Target):
    """What the potentials share: sites as parts of one vector, starting points, and the comparison at set-up.

    :param sites: by name, in the order of their coordinates.
    :param prototype: a scalar of the dtype and device of all positions.
    :param score: maps a dict of unconstrained tensors with a leading chain dimension to a dict of the gradients of the
        log-density, used in place of differentiation. A wrong one leaves adjusted kernels exact, but slow.
    """

    def __init__(self, sites: dict[str, Site], prototype: torch.Tensor, score: ScoreFn | None) -> None:
        super().__init__(self._joint, None if score is None else self._given_score)
        self.sites, self._prototype, self._score_fn = sites, prototype, score
        self._sizes = [torch.Size(site.unconstrained_shape).numel() for site in sites.values()]

    @property
    def transforms(self) -> dict[str, Transform]:
        """From constrained to unconstrained values, by site, as the host wants them."""
        return {name: site.transform for name, site in self.sites.items()}

    def unflatten(self, position: torch.Tensor) -> dict[str, torch.Tensor]:
        """Unconstrained sites of shape ``(*batch, *unconstrained_shape)`` from positions ``(*batch, D)``."""
        parts = zip(self.sites.items(), position.split(self._sizes, -1), strict=True)
        return {name: part.reshape(position.shape[:-1] + site.unconstrained_shape) for (name, site), part in parts}

    def flatten(self, params: Values, argument: str = "initial_params") -> torch.Tensor:
        """Positions ``(chains, D)`` from unconstrained sites of shape ``(chains, *unconstrained_shape)``.

        :raises ValueError: naming ``argument``, for other sites or shapes.
        """
        if set(params) != set(self.sites):
            raise ValueError(f"{argument}: expected tensors for the sites {list(self.sites)}, got {list(params)}")
        like = self._prototype
        values = {
            name: torch.as_tensor(params[name], dtype=like.dtype, device=like.device).detach() for name in self.sites
        }
        leading = next(iter(values.values())).shape[:1]
        for name, site in self.sites.items():
            if not leading or values[name].shape != leading + site.unconstrained_shape:
                raise ValueError(
                    f"{argument}: expected {name!r} of shape {('chains', *site.unconstrained_shape)} with as many "
                    f"chains in all sites, got {tuple(values[name].shape)}"
                )
        return torch.cat([value.reshape((*leading, -1)) for value in values.values()], -1)

    def check_position(self, argument: str, position: torch.Tensor) -> None:
        """Refuse positions of another size, type or device than the model's.

        :raises ValueError: naming ``argument``.
        """
        like = self._prototype
        expected = (sum(self._sizes), like.dtype, like.device)
        got = (position.shape[-1], position.dtype, position.device)
        if got != expected:
            raise ValueError(
                f"{argument}: expected positions of {expected[0]} coordinates, {expected[1]} on {expected[2]}, as the "
                f"model has, got {got[0]}, {got[1]} on {got[2]}"
            )

    def constrain(self, position: torch.Tensor) -> dict[str, torch.Tensor]:
        """Values of shape ``(*batch, *site_shape)`` from positions ``(*batch, D)``."""
        return {name: self.sites[name].transform.inv(part) for name, part in self.unflatten(position).items()}

    def start(self, num_chains: int) -> steps.State:
        """Chains uniform in (-2, 2) in every coordinate; those without a finite log-density and score start anew."""
        position = self._uniform(num_chains)
        for _ in range(MAX_TRIES):
            state = steps.init(self, position)
            valid = finite(state)
            if valid.all():
                return state
            position = torch.where(valid[:, None], position, self._uniform(num_chains))
        raise ValueError(
            f"model: no starting point with a finite log-density and score in {MAX_TRIES} draws from (-2, 2) in every "
            "unconstrained coordinate; expected initial_params, or a model with such points"
        )

    @torch.no_grad()
    def verify(self, num_chains: int) -> None:
        """Compare the log-density of ``num_chains`` chains with that of every chain alone, at a few random positions.

        :raises ValueError: that explains how to write a model that vectorises, where they differ.
        """
        probes = [self._probe() for _ in range(NUM_PROBES)]
        if num_chains == 1:
            return
        index = torch.arange(num_chains) % NUM_PROBES
        expected = torch.stack([log_density for _, log_density in probes])[index]
        try:
            found = self._batch(torch.stack([position for position, _ in probes])[index])
        except Exception as error:
            raise ValueError(
                f"{self._argument}: {num_chains} chains cannot run as one batch: {error}\n{_VECTORISING}"
            ) from error
        tolerance = torch.finfo(found.dtype).eps ** 0.5 * (1 + expected.abs())
        if not ((found - expected).abs() <= tolerance).all():
            raise ValueError(
                f"{self._argument}: as one batch of {num_chains}, chains have the log-densities "
                f"{found[:NUM_PROBES].tolist()}, and alone {expected[:NUM_PROBES].tolist()}. {_VECTORISING}"
            )

    _argument = "model"

    def _batch(self, position: torch.Tensor) -> torch.Tensor:
        """Log-densities ``(chains,)``, all chains at once."""
        raise NotImplementedError

    def _alone(self, position: torch.Tensor) -> torch.Tensor:
        """The log-density of one chain at a position ``(D,)``."""
        raise NotImplementedError

    def _joint(self, position: torch.Tensor) -> torch.Tensor:
        with pyro.validation_enabled(False), poutine.block():  # a diverging chain leaves the support
            return self._alone(position[0])[None] if len(position) == 1 else self._batch(position)

    def _given_score(self, position: torch.Tensor) -> torch.Tensor:
        assert self._score_fn is not None
        return self.flatten(self._score_fn(self.unflatten(position)), "score")

    def _probe(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A random position with a finite log-density, and that."""
        for _ in range(MAX_TRIES):
            position = self._uniform(1)
            log_density = self._joint(position)[0]
            if log_density.isfinite():
                return position[0], log_density
        raise ValueError(
            f"{self._argument}: no finite log-density at {MAX_TRIES} points drawn from (-2, 2) in every unconstrained "
            f"coordinate, the last of them {log_density.item()}"
        )

    def _uniform(self, num_chains: int) -> torch.Tensor:
        return 4 * torch.rand_like(self._prototype.expand(num_chains, sum(self._sizes))) - 2


def finite(state: steps.State | steps.PhaseState) -> torch.Tensor:
    """Which chains have a finite log-density and score."""
    return state.log_density.isfinite() & state.score.isfinite().all(-1)


class FunctionPotential(Potential):
    """The density ``exp(-potential_fn(params))`` of unconstrained parameters.

    :param potential_fn: maps a dict of tensors with a leading chain dimension to ``(chains,)``.
    :param initial_params: a dict of such tensors.
    :param score: as in :class:`Potential`.
    :raises ValueError: for parameters without a chain dimension, or (from ``verify``) another shape of the result.

    >>> import torch
    >>> from pyro_ebm.infer.potential import FunctionPotential
    >>> potential = FunctionPotential(lambda z: 0.5 * z["x"].square().sum(-1), {"x": torch.zeros(5, 2)})
    >>> potential.unnormalized_log_prob(torch.ones(5, 2))
    tensor([-1., -1., -1., -1., -1.])
    """

    _argument = "potential_fn"

    def __init__(
        self,
        potential_fn: PotentialFn,
        initial_params: Values | None,
        score: ScoreFn | None = None,
    ) -> None:
        if not initial_params or any(torch.as_tensor(value).dim() == 0 for value in initial_params.values()):
            raise ValueError(
                "initial_params: potential_fn expected a dict of unconstrained tensors with a leading chain "
                f"dimension, got {initial_params!r}"
            )
        values = {name: torch.as_tensor(value) for name, value in initial_params.items()}
        shapes = {name: tuple(value.shape[1:]) for name, value in values.items()}
        sites = {name: Site(identity_transform, shape, shape, shape) for name, shape in shapes.items()}
        super().__init__(sites, prototype(values.values()), score)
        self._potential_fn = potential_fn

    def _batch(self, position: torch.Tensor) -> torch.Tensor:
        energy = self._potential_fn(self.unflatten(position))
        if not isinstance(energy, torch.Tensor) or energy.shape != position.shape[:1]:
            raise ValueError(
                f"potential_fn: expected a tensor of shape {tuple(position.shape[:1])}, an energy for every chain, got "
                f"{energy!r}"
            )
        return -energy

    def _alone(self, position: torch.Tensor) -> torch.Tensor:
        return self._batch(position[None])[0]


class ModelPotential(Potential):
    """The joint density of a Pyro model's latent sites, with its observations, in unconstrained coordinates.

    :param model: a Pyro model with continuous latent sites, the same ones in every run.
    :param args: its arguments.
    :param kwargs: its keyword arguments.
    :param score: as in :class:`Potential`.
    :raises ValueError: for a model without latent sites, with discrete ones, with subsampling plates, with supports
        that depend on other sites, or (from ``verify``) that does not vectorise.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> from pyro_ebm.infer.potential import ModelPotential
    >>> def model():
    ...     scale = pyro.sample("scale", dist.HalfNormal(1.0))
    ...     with pyro.plate("groups", 3):
    ...         pyro.sample("x", dist.Normal(0.0, scale))
    >>> potential = ModelPotential(model)
    >>> potential.verify(num_chains=5)
    >>> position = torch.zeros(5, 4)
    >>> potential.unnormalized_log_prob(position).shape, potential.constrain(position)["x"].shape
    (torch.Size([5]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        model: Model,
        args: ModelArgs = (),
        kwargs: ModelKwargs | None = None,
        score: ScoreFn | None = None,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs or {}
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(model).get_trace(*args, **self._kwargs)
        nodes = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
        latent = {name: node for name, node in nodes.items() if is_latent(name, node)}
        if not latent:
            raise ValueError("model: expected at least one latent site, got none")
        sites = {name: _site(name, node) for name, node in latent.items()}
        self._max_plate_nesting = max_plate_nesting(nodes)
        super().__init__(sites, prototype(node["value"] for node in latent.values()), score)

    def _batch(self, position: torch.Tensor) -> torch.Tensor:
        num_chains, depth = len(position), self._max_plate_nesting
        values, log_density = self._transformed(position)
        for name, site in self.sites.items():
            shape = (num_chains,) + (1,) * (depth - len(site.batch_shape)) + site.shape
            values[name] = values[name].reshape(shape)
        with pyro.plate("_pyro_ebm_chains", num_chains, dim=-depth - 1):
            nodes = self._run(values)
        for name, node in nodes.items():
            log_prob = node["log_prob"]
            if log_prob.dim() != depth + 1 or len(log_prob) != num_chains:
                raise ValueError(
                    f"site {name!r} expected a log-probability with {num_chains} chains in front of {depth} batch "
                    f"dimensions, got shape {tuple(log_prob.shape)}"
                )
            log_density = log_density + log_prob.reshape(num_chains, -1).sum(-1)
        return log_density

    def _alone(self, position: torch.Tensor) -> torch.Tensor:
        values, log_density = self._transformed(position[None])
        nodes = self._run({name: value[0] for name, value in values.items()})
        return log_density[0] + sum(node["log_prob"].sum() for node in nodes.values())

    def _transformed(self, position: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Constrained values ``(chains, *site_shape)`` and the sum of their log-Jacobians ``(chains,)``."""
        values, total = {}, position.new_zeros(len(position))
        for name, part in self.unflatten(position).items():
            constrain = self.sites[name].transform.inv
            values[name] = constrain(part)
            total = total + constrain.log_abs_det_jacobian(part, values[name]).reshape(len(part), -1).sum(-1)
        return values, total

    def _run(self, values: dict[str, torch.Tensor]) -> dict[str, Node]:
        """The sites of the model at ``values``, with their log-probabilities."""
        conditioned = poutine.condition(self._model, data=values)
        trace = poutine.trace(conditioned).get_trace(*self._args, **self._kwargs)
        new = [name for name in trace.stochastic_nodes if not isinstance(trace.nodes[name]["fn"], _Subsample)]
        missing = [name for name in values if name not in trace.nodes]
        if new or missing:
            raise ValueError(f"model: expected the same latent sites in every run, got {new} more and {missing} less")
        trace.compute_log_prob(site_filter=_counts)
        return {name: node for name, node in trace.nodes.items() if node["type"] == "sample" and _counts(name, node)}

    @torch.no_grad()
    def verify(self, num_chains: int) -> None:
        for _ in range(NUM_PROBES):
            with pyro.validation_enabled(False), poutine.block():
                self._verify_supports(self._uniform(1))
        super().verify(num_chains)

    def _verify_supports(self, position: torch.Tensor) -> None:
        """Transforms are those of the first run: refuse supports that move with the values of other sites."""
        values = {name: value[0] for name, value in self._transformed(position)[0].items()}
        nodes = self._run(values)
        for name, part in self.unflatten(position[0]).items():
            if not torch.equal(biject_to(nodes[name]["fn"].support)(part), values[name]):
                raise ValueError(
                    f"model: the support of site {name!r} depends on other sites; expected a fixed support, for "
                    "example a unit interval that the model scales"
                )


def prototype(values: Any) -> torch.Tensor:
    """A scalar of the dtype and device that positions of these values have."""
    value = torch.cat([value.detach().reshape(-1)[:1] for value in values])[0]
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def _counts(name: str, node: Node) -> bool:
    """Whether a sample site is part of the density: plates' indices and deterministic sites are not."""
    return not isinstance(node["fn"], _Subsample) and not node["infer"].get("_deterministic")


def is_latent(name: str, node: Node) -> bool:
    """Whether a site is sampled by the kernel; subsampling plates are refused."""
    function = node["fn"]
    if isinstance(function, _Subsample) and (function.subsample_size or function.size) < function.size:
        raise ValueError(
            f"model: expected plates over all of their elements, got plate {name!r} with "
            f"subsample_size={function.subsample_size}, which makes the density random"
        )
    return _counts(name, node) and not node["is_observed"]


def _site(name: str, node: Node) -> Site:
    function, value = node["fn"], node["value"].detach()
    if function.has_enumerate_support or function.support.is_discrete:
        raise ValueError(
            f"model: expected continuous latent sites, got the discrete site {name!r}, {function}; sum it out in the "
            "model, or sample it with another kernel"
        )
    try:
        transform = biject_to(function.support).inv
    except NotImplementedError as error:
        raise ValueError(f"model: no transform to unconstrained space for site {name!r}, {function}") from error
    batch_shape = tuple(function.batch_shape)
    return Site(transform, batch_shape, tuple(value.shape), tuple(transform(value).shape))


def max_plate_nesting(nodes: Mapping[str, Node]) -> int:
    """Batch dimensions that the model uses, by plates or without."""
    frames = [frame for node in nodes.values() for frame in node["cond_indep_stack"] if frame.vectorized]
    functions = [node["fn"] for node in nodes.values() if not isinstance(node["fn"], _Subsample)]
    return max([-frame.dim for frame in frames] + [len(function.batch_shape) for function in functions])
