"""The base of every energy distribution: parameters, broadcasting, validation and the normaliser policy, once.

A family is a subclass that names its parameters and writes its formulas for **batches**: values of shape
``(..., *event_shape)`` against parameters whose batch dimensions broadcast with the leading ones::

    class Quartic(EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

        def _energy(self, value):
            return (self.strength * value**4).sum(-1)

The base checks and broadcasts, derives scores by automatic differentiation where the family has no closed form, and
decides what ``log_prob`` may be differentiated in.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.util import ignore_jit_warnings
from torch.distributions import constraints

from pyro_ebm.distributions.parameters import (
    bind_arguments,
    check_broadcast,
    check_constraint,
    check_shape,
    check_support,
    commas,
    declare_constructor,
)
from pyro_ebm.distributions.partition import (
    IntractablePartitionError,
    guarded_zero,
    intractable_message,
    resolve_policy,
    with_model_gradient,
)
from pyro_ebm.distributions.tensors import as_real_tensors, as_tensor, broadcast_shape, is_concrete, pullback
from pyro_ebm.infer.samplers import Exact, Hamiltonian, Sampler, check_sampler
from pyro_ebm.infer.steps import sum_event


class EnergyDistribution(TorchDistribution):
    r"""A distribution with density :math:`p(v) = \exp(-F(v)) / Z`, where the free energy :math:`F` is always known.

    :param arguments: the family's parameters and options, by position or name, as its signature has them; ``None``
        stands for ``parameter_defaults``. Every parameter has the shape ``batch dimensions + parameter_dims[name]``, or
        is a scalar where all these sizes are known from parameters before it; batch dimensions broadcast. Tensors keep
        their autograd graph; arrays, lists and Python scalars are converted.
    :param event_shape: shape of one value; default: the size that ``parameter_dims`` calls "visible".
    :param log_partition: the normaliser policy (see :mod:`pyro_ebm.distributions.partition`).
    :param sampler: configuration of :meth:`sample` (see :mod:`pyro_ebm.infer.samplers`); ``None`` takes
        ``default_sampler``.
    :param validate_args: check parameters and values, except while ``torch.jit`` or ``torch.func`` traces them;
        ``None`` follows :func:`pyro.enable_validation`.
    :raises TypeError: for a parameter that is not real floating point, an unknown ``log_partition`` or ``sampler``.
    :raises ValueError: for shapes or devices that do not fit, NaN or infinite entries, a parameter outside its
        constraint.
    :raises ImproperDensityError: where the parameters fail the family's cheap condition for a proper density.
    """

    #: Core dimensions of each parameter by name, for example ``{"weights": ("visible", "hidden")}``.
    parameter_dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    #: Scalar defaults of the optional parameters.
    parameter_defaults: ClassVar[Mapping[str, float]] = {}
    #: Those among them that play no part in any formula unless they are given.
    optional_parameters: ClassVar[tuple[str, ...]] = ()
    #: Options beside the parameters, which are not arrays, with their defaults.
    option_defaults: ClassVar[Mapping[str, Any]] = {}
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # type: ignore[misc]
    has_rsample = False
    has_enumerate_support = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declare_constructor(cls, EnergyDistribution)

    @ignore_jit_warnings()
    def __init__(self, *arguments: Any, event_shape: tuple[int, ...] | None = None, **named: Any) -> None:
        given = bind_arguments(self, arguments, named)
        for name in self.option_defaults:
            setattr(self, name, self._resolve_option(name, given[name]))
        sizes = {"visible": event_shape[0]} if event_shape is not None and len(event_shape) == 1 else {}
        batch_shape = self._store_parameters(given, sizes)
        shape = torch.Size((sizes["visible"],) if event_shape is None else event_shape)
        self._batch_shape, self._event_shape = batch_shape, shape  # which estimators look at
        self._partition_policy, self._given_partition = resolve_policy(self, given["log_partition"])
        if self._partition_policy == "constant":
            check_broadcast("log_partition", self._given_partition.shape, batch_shape)
        self.sampler = given["sampler"]
        super().__init__(batch_shape, shape, validate_args=False)
        del self._validate_args  # back to the host's default
        if given["validate_args"] is not None:
            self._validate_args = given["validate_args"]
        if self._validate_args:
            self._validate_parameters()
        check_sampler(self, self.sampler)

    # ------------------------------------------------------------------ the family's formulas, for batches

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        """Free energy of values of shape ``(..., *batch_shape, *event_shape)``, one number each."""
        raise NotImplementedError(f"{type(self).__name__} must define _energy(value)")

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        energy, product = pullback(self._energy, value, self._needs_graph(value))
        return -product(torch.ones_like(energy))

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        score, product = pullback(self._score, value, self._needs_graph(value))
        basis = torch.eye(math.prod(self.event_shape), dtype=value.dtype, device=value.device)
        units = [row.reshape(self.event_shape).expand(score.shape) for row in basis]
        return torch.stack([sum_event(product(unit) * unit, self.event_dim) for unit in units]).sum(0)

    def _exact_log_partition(self) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no exact partition function")

    def _resolve_option(self, name: str, option: Any) -> Any:
        """Check an option, and turn it into what the formulas use."""
        del name
        return option

    def _check_proper(self) -> None:
        """Raise :class:`ImproperDensityError` where the parameters give no proper density."""

    def _initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Starting points of Markov chains, shape ``shape + event_shape``."""
        return torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    # ------------------------------------------------------------------ what every family offers

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, and so of energies and samples."""
        return getattr(self, next(iter(self.parameter_dims))).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters, and so of energies and samples."""
        return getattr(self, next(iter(self.parameter_dims))).device

    @property
    def is_discrete(self) -> bool:
        """Whether the values are discrete."""
        support: Any = self.support
        return bool(support.is_discrete)

    def energy(self, value: Any) -> torch.Tensor:
        """Free energy F, including every constant that integrating hidden units produces.

        :param value: shape ``(..., *event_shape)``, broadcasting against ``batch_shape``.
        :return: shape ``broadcast(..., batch_shape)``.
        """
        return self._energy(self._check_value(value))

    def unnormalized_log_prob(self, value: Any) -> torch.Tensor:
        """``-energy(value)``: differentiable in everything, and not a log-density."""
        return -self.energy(value)

    def score(self, value: Any) -> torch.Tensor:
        """Gradient of the log-density in its value, shape of ``value`` broadcast against ``batch_shape``."""
        return self._score(self._check_value(value))

    def laplacian(self, value: Any) -> torch.Tensor:
        """Trace of the Hessian of the log-density in its value."""
        return self._laplacian(self._check_value(value))

    @property
    def has_exact_partition(self) -> bool:
        """Whether the family computes its partition function in closed form or by at most 2^16 terms."""
        return False

    @property
    def has_exact_sampler(self) -> bool:
        """Whether independent exact draws are available, whatever is declared about the partition function."""
        return False

    @property
    def has_continuous_score(self) -> bool:
        """Whether the score has no jumps, without which score matching would miss part of its trace."""
        return True

    @property
    def has_gibbs_step(self) -> bool:
        """Whether ``gibbs_step`` is there: a sweep of exact conditional draws."""
        return hasattr(self, "gibbs_step")

    @property
    def is_normalized(self) -> bool:
        """Whether ``log_prob`` includes the partition function: exact, given or estimated."""
        exact = self._partition_policy == "auto" and self.has_exact_partition
        return exact or self._partition_policy in ("constant", "estimator")

    @property
    def log_partition(self) -> torch.Tensor:
        """The log partition function under the policy, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known.
        """
        if self._partition_policy == "auto" and self.has_exact_partition:
            return self._exact_log_partition().expand(self.batch_shape)
        if self._partition_policy == "constant":
            return self._given_partition.to(self.dtype).expand(self.batch_shape)
        if self._partition_policy == "estimator":
            model = self._unexpanded()
            with torch.no_grad():
                estimate, samples, weights = self._given_partition.weighted_samples(model._frozen())
            return with_model_gradient(estimate, model.energy, samples, weights).expand(self.batch_shape)
        raise IntractablePartitionError(intractable_message(self._title))

    def log_prob(self, value: Any) -> torch.Tensor:
        """Log-density; without its normaliser, and guarded, where the partition function is unknown.

        :param value: shape ``(..., *event_shape)``.
        :raises IntractablePartitionError: when a guarded density is differentiated in a parameter.
        """
        value = self._check_value(value)
        log_prob = -self._energy(value)
        if self.is_normalized:
            log_prob = log_prob - self.log_partition
        if not self.is_normalized or self._partition_policy == "constant":
            log_prob = log_prob + guarded_zero(self._title, log_prob, self._guarded(value))
        return log_prob

    @property
    def unconstrained(self) -> Any:
        """The density in coordinates that cover all of R^D, where gradient-informed chains move; here the same."""
        return self

    def _to_value(self, position: torch.Tensor) -> torch.Tensor:
        return position

    def _from_value(self, value: torch.Tensor) -> torch.Tensor:
        return value

    @property
    def default_sampler(self) -> Sampler:
        """Exact draws where the family has them, else its Markov chain."""
        return Exact() if self.has_exact_sampler else self.default_chain

    @property
    def default_chain(self) -> Sampler:
        """The Markov chain that ``sample``, contrastive criteria and annealing fall back to."""
        return Hamiltonian()

    @property
    def chain(self) -> Sampler:
        """``sampler`` if it is a Markov chain, else ``default_chain``."""
        return self.default_chain if self.sampler is None or isinstance(self.sampler, Exact) else self.sampler

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        """Independent draws, detached from the parameters: exact where possible, else the ends of separate chains.

        :param sample_shape: leading dimensions of independent draws.
        :return: shape ``sample_shape + batch_shape + event_shape``.
        """
        sampler = self.default_sampler if self.sampler is None else self.sampler
        return sampler.sample(self._frozen(), (*sample_shape, *self.batch_shape))

    def check_proper(self) -> None:
        """Run the family's exact test for a proper density.

        :raises ImproperDensityError: if ``exp(-energy)`` cannot be normalised.
        """
        if all(is_concrete(getattr(self, name)) for name in self.parameter_dims):
            self._check_proper()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "EnergyDistribution":
        """The same density over a larger batch, of the same class and without copying parameters."""
        shape = torch.Size(batch_shape)
        if broadcast_shape(shape, self.batch_shape) != shape:
            raise ValueError(
                f"batch_shape: expected a shape that {tuple(self.batch_shape)} expands to, got {tuple(shape)}"
            )
        expanded = copy.copy(self)
        expanded._batch_shape = shape
        return expanded

    # ------------------------------------------------------------------ how it works

    def __copy__(self) -> "EnergyDistribution":
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def _frozen(self) -> Any:
        """A copy for Markov chains: detached parameters, and no checks on where the chains go."""
        frozen = copy.copy(self)
        frozen._validate_args = False
        for name in self.parameter_dims:
            setattr(frozen, name, getattr(self, name).detach())
        return frozen

    def _unexpanded(self) -> "EnergyDistribution":
        """The same density over no larger a batch than the parameters have."""
        shapes = [
            getattr(self, name).shape[: getattr(self, name).dim() - len(dims)]
            for name, dims in self.parameter_dims.items()
        ]
        model = copy.copy(self)
        model._batch_shape = torch.broadcast_shapes(*shapes)
        return model

    def _with(self, **changes: Any) -> Any:
        """A copy with other parameters, options, normaliser policy or sampler."""
        arguments = {name: getattr(self, name) for name in self.parameter_dims if name not in self._absent}
        options = {name: getattr(self, name) for name in self.option_defaults}
        policy = {"auto": "auto", "estimator": self._given_partition}.get(self._partition_policy)
        rest = {"log_partition": policy, "validate_args": self._validate_args, "sampler": self.sampler}
        changed = type(self)(**{**arguments, **options, **rest, **changes})
        return changed.expand(broadcast_shape(changed.batch_shape, self.batch_shape))

    @property
    def _title(self) -> str:
        """The class's name, with what makes its partition function intractable where that is known, for messages."""
        return type(self).__name__

    def _guarded(self, value: torch.Tensor) -> list[torch.Tensor]:
        """Everything differentiable that the density depends on beside its value."""
        del value
        candidates = [getattr(self, name) for name in self.parameter_dims] + [self._given_partition]
        return [candidate for candidate in candidates if isinstance(candidate, torch.Tensor)]

    def _needs_graph(self, value: torch.Tensor) -> bool:
        """Whether a derivative in ``value`` may itself be differentiated later."""
        if not torch.is_grad_enabled():
            return False
        return value.requires_grad or any(tensor.requires_grad for tensor in self._guarded(value))

    def _store_parameters(self, parameters: Mapping[str, Any], sizes: dict[str, int]) -> torch.Size:
        """Store all parameters, bind the ``sizes`` of their dimensions and return their joint batch shape."""
        missing = {n for n in self.parameter_dims if parameters[n] is None and n in self.parameter_defaults}
        self._absent = frozenset(missing.intersection(self.optional_parameters))
        given = {name: parameters[name] for name in self.parameter_dims if name not in missing}
        tensors, dtype, device = as_real_tensors(given)
        batch_shape = torch.Size()
        for name, dims in self.parameter_dims.items():
            if name in tensors:
                tensor = tensors[name].to(dtype)
            else:
                tensor = torch.as_tensor(self._default_parameter(name, sizes), dtype=dtype, device=device)
            if tensor.dim() == 0 and all(dim in sizes for dim in dims):
                tensor = tensor.expand([sizes[dim] for dim in dims])
            batch_shape = check_shape(name, tensor.shape, dims, sizes, batch_shape)
            setattr(self, name, tensor)
        return batch_shape

    def _default_parameter(self, name: str, sizes: Mapping[str, int]) -> Any:
        """The value, a number or tensor, of a parameter that was not given; ``sizes`` are those of the ones before."""
        del sizes
        return self.parameter_defaults[name]

    def _validate_parameters(self) -> None:
        """Check the parameters that are not traced: finite, inside their constraints, of a proper density."""
        for name in self.parameter_dims:
            if is_concrete(getattr(self, name)):
                check_constraint(type(self).__name__, name, getattr(self, name), self.arg_constraints[name])
        if self._partition_policy == "constant" and is_concrete(self._given_partition):
            check_constraint(type(self).__name__, "log_partition", self._given_partition, constraints.real)
        self.check_proper()

    def _check_value(self, value: Any, name: str = "value") -> torch.Tensor:
        """``value`` as a tensor of the parameters' type, expanded over ``batch_shape``."""
        tensor = self._check_batch(value, self.event_shape, name)
        if tensor.is_complex():
            raise TypeError(f"{name}: expected a real tensor, got dtype {tensor.dtype}")
        if not self.is_discrete and not tensor.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got dtype {tensor.dtype}")
        if self._validate_args and is_concrete(tensor):
            check_support(type(self).__name__, name, tensor, self.support)
        return tensor.to(self.dtype)

    @ignore_jit_warnings()
    def _check_batch(self, value: Any, core: tuple[int, ...], name: str) -> torch.Tensor:
        """``value`` as a tensor of shape ``(..., *core)``, expanded over ``batch_shape``."""
        tensor = as_tensor(name, value, self.device, self.dtype)
        lead = tensor.shape[: max(0, tensor.dim() - len(core))]
        if tensor.shape[len(lead) :] != torch.Size(core):
            raise ValueError(f"{name}: expected shape (..., {commas(core)}), got {tuple(tensor.shape)}")
        shape = check_broadcast(name, lead, self.batch_shape)
        return tensor if shape == lead else tensor.expand(shape + core)
