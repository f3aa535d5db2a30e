r"""What is known of a partition function, and the guard that keeps an unknown one from being ignored.

The constructor keyword ``log_partition`` of every energy distribution becomes one :class:`Normaliser`, and nothing
outside this module interprets it:

===================  =================  =========================================  =====================
value given          object             meaning                                    ``log_prob``
===================  =================  =========================================  =====================
``"auto"``           :class:`Exact`     closed form, or at most 2^16 terms         normalised
\                    :class:`Unknown`   otherwise                                  guarded
``None``             :class:`Unknown`   declared unknown                           guarded
a number or tensor   :class:`Constant`  computed elsewhere                         normalised, guarded
a partition          :class:`Estimated` with the gradient ``-E_model[grad F]``     normalised
estimator
===================  =================  =========================================  =====================

A *guarded* ``log_prob`` raises :class:`IntractablePartitionError` where one value meets several models, for their
constants differ; ``independent=True`` says that nothing but sums over them is meant. It may be differentiated in its
value; differentiating it in any parameter raises :class:`IntractablePartitionError` when the backward (or forward-mode)
derivative reaches it, also through ``torch.func`` and in graphs of ``torch.jit.trace``, because the missing term would
make the result silently wrong. Inference over parameters that takes no gradients (importance sampling, random-walk
Metropolis) cannot be caught this way: give it a normalised density.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch.distributions import constraints

from _ppl_ebm.errors import IntractablePartitionError, incomparable_message, intractable_message
from _ppl_ebm.shapes import check_broadcast, shared_axis
from pyro_ebm.distributions.batching import is_concrete
from pyro_ebm.distributions.validation import check_constraint
from pyro_ebm.sampling.protocols import Energy, PartitionEstimator
from pyro_ebm.sampling.types import ArrayLike

_MOST_COMPUTED = 64
_COMPUTED: OrderedDict[Hashable, torch.Tensor] = OrderedDict()  # exact values by what they depend on, oldest first
# Attributes that do not matter to log Z, or follow from others.
_IMMATERIAL = {"normaliser", "independent", "sampler", "parameter_dims", "arg_constraints"}
_IMMATERIAL |= {"_batch_shape", "_event_shape", "_validate_args"}

#: What ``log_partition=`` accepts.
LogPartition: TypeAlias = Literal["auto"] | ArrayLike | PartitionEstimator | None


class Density(Energy, Protocol):
    """What a normaliser asks of the distribution it belongs to."""

    @property
    def description(self) -> str:
        """The distribution in messages."""

    @property
    def has_exact_partition(self) -> bool: ...

    @property
    def independent(self) -> bool:
        """Whether nothing but sums over the models of its batch are meant."""

    def exact_log_partition(self) -> torch.Tensor:
        """log Z as a function of the parameters, shape ``batch_shape``."""

    def exact_log_prob(self, value: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """``-energy - log Z`` of a value and its energy."""

    @property
    def resolves_partition(self) -> bool:
        """Whether that is one at these parameters."""

    def check_partition(self, log_partition: torch.Tensor) -> None:
        """Refuse an exact ``log_partition`` that turned out not to be."""

    def parameter_arrays(self) -> list[torch.Tensor]:
        """All tensors that log Z depends on."""

    def dependencies(self, value: torch.Tensor) -> list[torch.Tensor]:
        """Everything differentiable that the density depends on beside its value."""

    def unexpanded(self) -> "Density":
        """The same density over no larger a batch than its parameters have."""

    def frozen(self) -> "Density":
        """The same density with detached parameters, and without checks."""


class Normaliser:
    """What is known of log Z."""

    #: Whether ``log_prob`` includes it.
    is_known: ClassVar[bool]
    #: Whether a derivative of ``log_prob`` in a parameter would be wrong, and so is refused.
    is_guarded: ClassVar[bool]

    @property
    def policy(self) -> LogPartition:
        """What to give as ``log_partition`` to a distribution of other parameters."""
        raise NotImplementedError

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its own tensors, in which a guarded density must not be differentiated either."""
        return []

    def log_partition(self, density: Density) -> torch.Tensor:
        """log Z, shape ``batch_shape``.

        :raises IntractablePartitionError: where it is not known.
        """
        raise NotImplementedError

    def holds(self, density: Density) -> bool:
        """Whether what is known holds at the parameters of ``density``."""
        return True

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        """Refuse to compare models whose constants are unknown.

        :param lead: the leading dimensions of the values, before they are broadcast over the batch.
        :raises IntractablePartitionError: where one value meets several of them.
        """

    def log_prob(self, density: Density, value: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """``-energy - log Z``, with the guard or without the constant as the case may be.

        :param value: the value whose ``energy`` it is.
        """
        log_prob = -energy
        if self.is_known:
            log_prob = log_prob - self.log_partition(density)
        if self.is_guarded:
            parameters = [*density.dependencies(value), *self.tensors]
            log_prob = log_prob + _guarded_zero(density.description, log_prob, parameters)
        return log_prob

    def check(self, owner: str) -> None:
        """Refuse entries that are not finite, unless they are traced."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Exact(Normaliser):
    """In closed form or by a sum.

    While the parameters need no gradient, it is computed once for their values, however often a Pyro model makes the
    distribution anew.
    """

    is_known, is_guarded = True, False

    @property
    def policy(self) -> LogPartition:
        return "auto"

    def log_prob(self, density: Density, value: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        return density.exact_log_prob(value, energy)

    def holds(self, density: Density) -> bool:
        return density.resolves_partition

    def log_partition(self, density: Density) -> torch.Tensor:
        log_partition = self._log_partition(density)
        density.check_partition(log_partition)
        return log_partition

    def _log_partition(self, density: Density) -> torch.Tensor:
        if not all(is_concrete(tensor) and not tensor.requires_grad for tensor in density.parameter_arrays()):
            return density.exact_log_partition()
        key = _contents(density)
        if key is None:
            return density.exact_log_partition()
        if key not in _COMPUTED:
            while len(_COMPUTED) >= _MOST_COMPUTED:
                _COMPUTED.popitem(last=False)
            _COMPUTED[key] = density.unexpanded().exact_log_partition()
        return _COMPUTED[key].clone().expand(density.batch_shape)  # whoever changes it in place changes their own


class Unknown(Normaliser):
    """Not known; ``declared`` if ``None`` was given, else because the sum is too large."""

    is_known, is_guarded = False, True

    def __init__(self, declared: bool = True) -> None:
        self.declared = declared

    @property
    def policy(self) -> LogPartition:
        return None if self.declared else "auto"

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        _check_comparable(density, lead, ())

    def log_partition(self, density: Density) -> torch.Tensor:
        raise IntractablePartitionError(_message(density.description))


class Constant(Normaliser):
    """A number computed elsewhere, which does not follow the parameters."""

    is_known, is_guarded = True, True
    policy = None

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.value]

    def log_partition(self, density: Density) -> torch.Tensor:
        return self.value.to(density.dtype).expand(density.batch_shape)

    def check_comparable(self, density: Density, lead: Sequence[int]) -> None:
        _check_comparable(density, lead, self.value.shape)

    def check(self, owner: str) -> None:
        if is_concrete(self.value):
            check_constraint(owner, "log_partition", self.value, constraints.real)


class Estimated(Normaliser):
    """An estimate, with the gradient of the true value from the same samples."""

    is_known, is_guarded = True, False

    def __init__(self, estimator: PartitionEstimator) -> None:
        self.estimator = estimator

    @property
    def policy(self) -> LogPartition:
        return self.estimator

    def log_partition(self, density: Density) -> torch.Tensor:
        model = density.unexpanded()
        with torch.no_grad():
            estimate, samples, weights = self.estimator.weighted_samples(model.frozen())
        return with_model_gradient(estimate, model.energy, samples, weights).expand(density.batch_shape)


def _check_comparable(density: Density, lead: Sequence[int], known: Sequence[int]) -> None:
    """Refuse one value under several models, except along dimensions in which their constants are ``known``."""
    models = [*density.unexpanded().batch_shape]
    for place in range(1, min(len(models), len(known)) + 1):
        if known[-place] > 1:
            models[-place] = 1
    axis = shared_axis(lead, models)
    if axis is not None and not density.independent:
        raise IntractablePartitionError(incomparable_message(density.description, "pyro_ebm", axis, models[axis]))


def as_normaliser(density: Density, log_partition: LogPartition) -> Normaliser:
    """What the keyword ``log_partition`` of ``density`` means.

    :raises TypeError: for anything that it does not accept.
    :raises ValueError: for a constant that does not broadcast over the batch, or is on another device.
    """
    if isinstance(log_partition, str) and log_partition == "auto":
        return Exact() if density.has_exact_partition else Unknown(declared=False)
    if log_partition is None:
        return Unknown()
    if isinstance(log_partition, PartitionEstimator) and not isinstance(log_partition, type):
        return Estimated(log_partition.prepare(density))
    constant = _as_constant(log_partition, density.device)
    if constant is None:
        raise TypeError(
            'log_partition: expected "auto", None, a real number or floating-point tensor, or a partition estimator '
            f"such as pyro_ebm.infer.AnnealedImportanceSampling, got {log_partition!r}"
        )
    check_broadcast("log_partition", constant.shape, density.batch_shape)
    return Constant(constant)


def with_model_gradient(
    log_partition: torch.Tensor,
    energy: Callable[[torch.Tensor], torch.Tensor],
    samples: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Give an estimated ``log_partition`` the gradient ``-E_model[grad energy]`` of the true one.

    :param log_partition: the estimate, of shape ``batch_shape``.
    :param energy: the free energy as a function of values, carrying the parameters' gradients.
    :param samples: ``(M, *batch_shape, *event_shape)`` draws that stand for the model.
    :param weights: their normalised weights, ``(M, *batch_shape)``.
    """
    weights = weights.detach()
    terms = weights * energy(samples.detach())
    expected_energy = terms.masked_fill(weights == 0, 0).sum(0)  # at an infinite energy the weight is 0
    return (log_partition + expected_energy).detach() - expected_energy


def _as_constant(number: Any, device: torch.device) -> torch.Tensor | None:
    """A real number or floating-point array as a tensor; ``None`` for anything else."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.generic, np.ndarray, torch.Tensor)):
        return None
    if not isinstance(number, torch.Tensor):
        number = torch.tensor(number, dtype=torch.float64 if isinstance(number, (int, float)) else None, device=device)
    if number.device != device:
        raise ValueError(f"log_partition: expected a tensor on device {device}, got one on {number.device}")
    return number if number.is_floating_point() else None


def _contents(density: Density) -> Hashable | None:
    """All that log Z may depend on, tensors by their bytes, which is far cheaper than a sum over states; ``None`` where
    a family keeps something that cannot be told apart by its hash.
    """
    own = ((name, value) for name, value in sorted(vars(density).items()) if name not in _IMMATERIAL)
    key = type(density), *((name, _bytes(value) if isinstance(value, torch.Tensor) else value) for name, value in own)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _bytes(tensor: torch.Tensor) -> Hashable:
    flat = tensor.detach().flatten().clone(memory_format=torch.contiguous_format)  # a single entry may keep stride 0
    return tensor.dtype, tensor.device, tensor.shape, flat.view(torch.uint8).cpu().numpy().tobytes()


def _message(name: str) -> str:
    return intractable_message(name, "pyro_ebm", "with .detach(), or a network with .requires_grad_(False),")


def _guarded_zero(name: str, like: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """Zero, whose derivative in any of ``parameters`` raises :class:`IntractablePartitionError`.

    :param like: a tensor of the zero's type and device.
    """
    if not parameters:
        return torch.zeros((), dtype=like.dtype, device=like.device)
    return _GuardedZero.apply(name, like.dtype, like.device, *parameters)


class _GuardedZero(torch.autograd.Function):
    """``torch.autograd.grad`` in the value never comes here; whatever reaches a parameter does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, dtype: torch.dtype, device: torch.device, *parameters: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        del name, parameters
        return torch.zeros((), dtype=dtype, device=device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise IntractablePartitionError(_message(ctx.name))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise IntractablePartitionError(_message(ctx.name))
