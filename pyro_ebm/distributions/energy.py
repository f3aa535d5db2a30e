"""The base of every energy distribution: parameters, broadcasting, validation and sampling, once.

A family is a subclass that names its parameters and writes its formulas for **batches**: values of shape
``(..., *event_shape)`` against parameters whose batch dimensions broadcast with the leading ones::

    class Quartic(EnergyDistribution):
        parameter_dims = {"strength": ("visible",)}
        arg_constraints = {"strength": constraints.independent(constraints.positive, 1)}
        support = constraints.real_vector

        def __init__(self, strength, **options):  # log_partition, independent, sampler and validate_args
            super().__init__({"strength": strength}, **options)

        def _energy(self, value):
            return (self.strength * value**4).sum(-1)

The base checks and broadcasts, derives scores by automatic differentiation where the family has no closed form, and
leaves to its :mod:`normaliser <pyro_ebm.distributions.normaliser>` what ``log_prob`` may be differentiated in.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from pyro.util import ignore_jit_warnings

from _ppl_ebm.calls import show_constructor
from _ppl_ebm.checks import check_flag
from _ppl_ebm.shapes import check_broadcast, check_expandable, commas
from pyro_ebm.distributions.batching import (
    as_tensor,
    is_concrete,
    pullback,
)
from pyro_ebm.distributions.masked import MaskedEnergy
from pyro_ebm.distributions.normaliser import LogPartition, Normaliser, as_normaliser
from pyro_ebm.distributions.parametrised import Parametrised
from pyro_ebm.distributions.validation import check_constraint, check_support
from pyro_ebm.sampling.protocols import Coordinates, MarkovChain, Sampler
from pyro_ebm.sampling.samplers import Exact, Hamiltonian, check_sampler
from pyro_ebm.sampling.steps import sum_event
from pyro_ebm.sampling.types import ArrayLike


class EnergyDistribution(Parametrised):
    r"""A distribution with density :math:`p(v) = \exp(-F(v)) / Z`, where the free energy :math:`F` is always known.

    :param parameters: the family's parameters by name. Every one has the shape ``batch dimensions +
        parameter_dims[name]``, or is a scalar where all these sizes are known from parameters before it; batch
        dimensions broadcast. Tensors keep their autograd graph; arrays, lists and Python scalars are converted.
        ``None`` for one of ``optional_parameters`` stands for a default that no formula uses.
    :param event_shape: shape of one value; default: the size that ``parameter_dims`` calls "visible".
    :param sizes: sizes of dimensions that are known before the parameters are looked at.
    :param dtype: floating-point type of the parameters; default: what they promote to.
    :param log_partition: what is known of the partition function (see :mod:`pyro_ebm.distributions.normaliser`).
    :param independent: that the models of a batch are never compared, so that one value may meet several of unknown
        partition function; their sum is what is meant.
    :param sampler: configuration of :meth:`sample` (see :mod:`pyro_ebm.sampling.samplers`); ``None`` takes
        ``default_sampler``.
    :param validate_args: check parameters and values, except while ``torch.jit`` or ``torch.func`` traces them;
        ``None`` follows :func:`pyro.enable_validation`.
    :raises TypeError: for a parameter that is not real floating point, an unknown ``log_partition`` or ``sampler``.
    :raises ValueError: for shapes or devices that do not fit, NaN or infinite entries, a parameter outside its
        constraint.
    :raises ImproperDensityError: where the parameters fail the family's cheap condition for a proper density.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False
    has_enumerate_support = False
    #: What is known of the partition function.
    normaliser: Normaliser
    #: Whether the models of a batch are never compared.
    independent: bool
    #: The configuration of :meth:`sample` that was given.
    sampler: Sampler | None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        show_constructor(cls)

    @ignore_jit_warnings()
    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        event_shape: tuple[int, ...] | None = None,
        sizes: Mapping[str, int] | None = None,
        dtype: torch.dtype | None = None,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        known = dict(sizes or {})
        if event_shape is not None and len(event_shape) == 1:
            known["visible"] = event_shape[0]
        batch_shape = self._store_parameters(parameters, known, dtype)
        shape = torch.Size((known["visible"],) if event_shape is None else event_shape)
        self._batch_shape, self._event_shape = batch_shape, shape  # which estimators look at
        self.independent = check_flag("independent", independent)
        self.normaliser = as_normaliser(self, log_partition)
        self.sampler = sampler
        super().__init__(batch_shape, shape, validate_args=False)
        del self._validate_args  # back to the host's default
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._validate_parameters()
        check_sampler(self, sampler)

    # ------------------------------------------------------------------ the family's formulas, for batches

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        """Free energy of values of shape ``(..., *batch_shape, *event_shape)``, one number each."""
        raise NotImplementedError(f"{type(self).__name__} must define _energy(value)")

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        energy, product = pullback(self._energy, value, self.needs_graph(value))
        return -product(torch.ones_like(energy))

    def _laplacian(self, value: torch.Tensor) -> torch.Tensor:
        score, product = pullback(self._score, value, self.needs_graph(value))
        basis = torch.eye(math.prod(self.event_shape), dtype=value.dtype, device=value.device)
        units = [row.reshape(self.event_shape).expand(score.shape) for row in basis]
        return torch.stack([sum_event(product(unit) * unit, self.event_dim) for unit in units]).sum(0)

    def _exact_log_partition(self) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no exact partition function")

    def _check_parameter(self, name: str, tensor: torch.Tensor) -> None:
        """Refuse (untraced) entries that are not finite or outside the parameter's constraint."""
        check_constraint(type(self).__name__, name, tensor, self.arg_constraints[name])

    def _check_proper(self) -> None:
        """Raise :class:`ImproperDensityError` where the parameters give no proper density."""

    # ------------------------------------------------------------------ what every family offers

    @property
    def _value_device(self) -> torch.device | None:
        """Device that values have to be on, if there is one: functions without parameters are at home everywhere."""
        return self.device

    @property
    def is_discrete(self) -> bool:
        """Whether the values are discrete."""
        support: Any = self.support
        return bool(support.is_discrete)

    def energy(self, value: ArrayLike) -> torch.Tensor:
        """Free energy F, including every constant that integrating hidden units produces.

        :param value: shape ``(..., *event_shape)``, broadcasting against ``batch_shape``.
        :return: shape ``broadcast(..., batch_shape)``.
        """
        return self._energy(self.check_value(value))

    def unnormalized_log_prob(self, value: ArrayLike) -> torch.Tensor:
        """``-energy(value)``: differentiable in everything, and not a log-density."""
        return -self.energy(value)

    def score(self, value: ArrayLike) -> torch.Tensor:
        """Gradient of the log-density in its value, shape of ``value`` broadcast against ``batch_shape``."""
        return self._score(self.check_value(value))

    def laplacian(self, value: ArrayLike) -> torch.Tensor:
        """Trace of the Hessian of the log-density in its value."""
        return self._laplacian(self.check_value(value))

    def initial(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Starting points of Markov chains, shape ``shape + event_shape``, where ``shape`` ends in ``batch_shape``."""
        return torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    @property
    def unconstrained(self) -> Coordinates:
        """The density in coordinates that cover all of R^D, where gradient-informed chains move; here the same."""
        return self

    def to_value(self, position: torch.Tensor) -> torch.Tensor:
        """The value at a position of :attr:`unconstrained`."""
        return position

    def from_value(self, value: torch.Tensor) -> torch.Tensor:
        """The position of a value."""
        return value

    @property
    def default_sampler(self) -> Sampler:
        """Exact draws where the family has them, else its Markov chain."""
        return Exact() if self.has_exact_sampler else self.default_chain

    @property
    def default_chain(self) -> MarkovChain:
        """The Markov chain that ``sample``, contrastive criteria and annealing fall back to."""
        return Hamiltonian()

    @property
    def chain(self) -> MarkovChain:
        """``sampler`` if it is a Markov chain, else ``default_chain``."""
        if self.sampler is not None and isinstance(self.sampler, MarkovChain):
            return self.sampler
        return self.default_chain

    # ------------------------------------------------------------------ the host's contract

    @property
    def is_normalized(self) -> bool:
        """Whether ``log_prob`` includes the partition function: exact, given or estimated."""
        return self.normaliser.is_known and self.normaliser.holds(self)

    @property
    def log_partition(self) -> torch.Tensor:
        """The log partition function, shape ``batch_shape``.

        :raises IntractablePartitionError: when it is not known, or quadrature does not resolve it (NaN where traced).
        """
        return self.normaliser.log_partition(self)

    def log_prob(self, value: ArrayLike) -> torch.Tensor:
        """Log-density; without its normaliser, and guarded, where the partition function is unknown.

        :param value: shape ``(..., *event_shape)``.
        :raises IntractablePartitionError: when a guarded density is differentiated in a parameter, or where one value
            meets several models of unknown partition functions.
        """
        shape = np.shape(value)
        value = self.check_value(value)
        self.normaliser.check_comparable(self, shape[: len(shape) - self.event_dim])
        return self.normaliser.log_prob(self, value, self._energy(value))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> torch.Tensor:
        """Independent draws, detached from the parameters: exact where possible, else the ends of separate chains.

        :param sample_shape: leading dimensions of independent draws.
        :return: shape ``sample_shape + batch_shape + event_shape``.
        """
        sampler = self.default_sampler if self.sampler is None else self.sampler
        return sampler.sample(self.frozen(), (*sample_shape, *self.batch_shape))

    def mask(self, mask: bool | torch.Tensor) -> TorchDistribution:
        """The same distribution where ``mask`` is true, and 1 elsewhere.

        :param mask: a truth value for every value; one over the elements of a value is refused by ``log_prob``.
        """
        return MaskedEnergy.of(self, mask)

    def check_proper(self) -> None:
        """Run the family's exact test for a proper density.

        :raises ImproperDensityError: if ``exp(-energy)`` cannot be normalised.
        """
        if all(is_concrete(tensor) for tensor in self.parameters().values()):
            self._check_proper()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The same density over a larger batch, of the same class and without copying parameters."""
        shape = torch.Size(batch_shape)
        check_expandable(self.batch_shape, shape)
        expanded = copy.copy(self)
        expanded._batch_shape = shape
        return expanded

    # ------------------------------------------------------------------ parameters

    def arguments(self) -> dict[str, Any]:
        """What the constructor was given, normaliser, sampler and validation apart."""
        given = {name: array for name, array in self.parameters().items() if name not in self.absent}
        return given | {name: getattr(self, name) for name in self.option_names}

    def replace(self, **changes: Any) -> Self:
        """A copy with other arguments of the constructor.

        A constant ``log_partition`` does not carry over to other parameters, and becomes unknown.

        :param changes: parameters, options, ``log_partition``, ``sampler`` or ``validate_args``, by name.
        """
        rest = {
            "log_partition": self.normaliser.policy,
            "validate_args": self._validate_args,
            "sampler": self.sampler,
        }
        rest |= {"independent": True} if self.independent else {}
        changed = type(self)(**{**self.arguments(), **rest, **changes})
        return changed.expand(torch.broadcast_shapes(changed.batch_shape, self.batch_shape))

    def with_log_partition(self, log_partition: LogPartition, *, independent: bool | None = None) -> Self:
        """The same density with something else known of its partition function, without checking the parameters again.

        :param log_partition: as the constructor takes it.
        :param independent: as the constructor takes it; ``None`` keeps what it was.
        """
        other = copy.copy(self)
        other.independent = self.independent if independent is None else check_flag("independent", independent)
        other.normaliser = as_normaliser(other, log_partition)
        return other

    @property
    def description(self) -> str:
        """The class's name, with what makes its partition function intractable where that is known, for messages."""
        return type(self).__name__

    def dependencies(self, value: torch.Tensor) -> list[torch.Tensor]:
        """Everything differentiable that the energy of ``value`` depends on beside it."""
        del value
        return self.parameter_arrays()

    def exact_log_partition(self) -> torch.Tensor:
        """log Z as a function of the parameters, shape ``batch_shape``, where :attr:`has_exact_partition`.

        It is computed in 32 bits at least, and rounded to the type of the parameters.
        """
        return self._in_single_precision()._exact_log_partition().to(self.dtype).expand(self.batch_shape)

    def exact_log_prob(self, value: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """``-energy - log Z``; for families that override it without terms that cancel.

        :param value: the value whose ``energy`` it is.
        """
        del value
        return -energy - self.log_partition

    @property
    def resolves_partition(self) -> bool:
        """Whether the exact partition function is one at these parameters: always, for sums and formulas."""
        return True

    def check_partition(self, log_partition: torch.Tensor) -> None:
        """Refuse an exact ``log_partition`` that turned out not to be: nothing, for sums and formulas.

        :raises IntractablePartitionError: in families that override it.
        """

    def parameter_gradient(self, value: torch.Tensor, coefficients: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sum over values of the gradients of ``-energy`` in every parameter, without batch dimensions.

        :param value: shape ``(N, *event_shape)``.
        :param coefficients: factor of each value's gradient, shape ``(N,)``.
        """
        model = self.frozen()
        leaves = {name: tensor.requires_grad_() for name, tensor in model.parameters().items()}
        with torch.enable_grad():
            total = -(coefficients * model.energy(value)).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))

    def check_value(self, value: ArrayLike, name: str = "value") -> torch.Tensor:
        """``value`` as a tensor of the parameters' type, expanded over the batch.

        :param value: shape ``(..., *event_shape)``.
        :param name: what messages call it.
        :raises TypeError: if it is not real, or not floating point where the support is continuous.
        :raises ValueError: for a shape or device that does not fit, and for values outside the support unless they are
            traced.
        """
        tensor = self._check_batch(value, self.event_shape, name)
        if not self.is_discrete and not tensor.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got dtype {tensor.dtype}")
        if self._validate_args and is_concrete(tensor):
            check_support(type(self).__name__, name, tensor, self.support)
        return tensor.to(self.dtype)

    def __repr__(self) -> str:
        shapes = [
            f"{name}: {tuple(array.shape)}" for name, array in self.parameters().items() if name not in self.absent
        ]
        options = [f"{name}={getattr(self, name)!r}" for name in self.option_names]
        sampler = self.default_sampler if self.sampler is None else self.sampler
        facts = [f"batch_shape={tuple(self.batch_shape)}", f"event_shape={tuple(self.event_shape)}"]
        known = [f"log_partition={self.normaliser!r}", f"sampler={sampler!r}"]
        return f"{type(self).__name__}({commas([*shapes, *options, *facts, *known])})"

    # ------------------------------------------------------------------ how it works

    def needs_graph(self, value: torch.Tensor) -> bool:
        """Whether a derivative in ``value`` may itself be differentiated later."""
        if not torch.is_grad_enabled():
            return False
        if value.requires_grad or any(tensor.requires_grad for tensor in self.parameter_arrays()):
            return True
        return any(tensor.requires_grad for tensor in self.dependencies(value))  # which may take a network's pass

    def _validate_parameters(self) -> None:
        """Check the parameters that are not traced: finite, inside their constraints, of a proper density."""
        owner = type(self).__name__
        for name, tensor in self.parameters().items():
            if is_concrete(tensor):
                self._check_parameter(name, tensor)
        self.normaliser.check(owner)
        self.check_proper()

    @ignore_jit_warnings()
    def _check_batch(self, value: ArrayLike, core: tuple[int, ...], name: str) -> torch.Tensor:
        """``value`` as a real tensor of shape ``(..., *core)``, expanded over ``batch_shape``."""
        tensor = as_tensor(name, value, self._value_device, self.dtype)
        lead = tensor.shape[: max(0, tensor.dim() - len(core))]
        if tensor.shape[len(lead) :] != torch.Size(core):
            raise ValueError(f"{name}: expected shape (..., {commas(core)}), got {tuple(tensor.shape)}")
        shape = check_broadcast(name, lead, self.batch_shape)
        if tensor.is_complex():
            raise TypeError(f"{name}: expected a real tensor, got dtype {tensor.dtype}")
        return tensor if shape == lead else tensor.expand(shape + core)
