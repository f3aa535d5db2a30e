"""What is known about a partition function, and the guard that keeps an unknown one from being ignored.

The normaliser policy is the constructor keyword ``log_partition`` of every energy distribution:

===================  ==========================================================  =====================
value                meaning                                                     ``log_prob``
===================  ==========================================================  =====================
``"auto"``           exact if closed form or at most 2^16 enumerated terms       normalised, or guarded
``None``             declared unknown                                            guarded
a number or tensor   a constant computed elsewhere                               normalised, guarded
a partition          an estimate with the gradient ``-E_model[grad F]``          normalised
estimator
===================  ==========================================================  =====================

A *guarded* ``log_prob`` may be differentiated in its value; differentiating it in any parameter raises
:class:`IntractablePartitionError` when the backward (or forward-mode) derivative reaches it, also through
``torch.func`` and in graphs of ``torch.jit.trace``, because the missing term would make the result silently wrong.
Inference over parameters that takes no gradients (importance sampling, random-walk Metropolis) cannot be caught this
way: give it a normalised density.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from pyro_ebm.distributions.tensors import in_function_transform

#: Largest number of terms that ``log_partition="auto"`` enumerates.
MAX_ENUMERATED_TERMS = 2**16
_CHUNK_UNITS = 10


class IntractablePartitionError(RuntimeError):
    """A partition function, or its gradient, is needed and is not known."""


class ImproperDensityError(ValueError):
    """The parameters give an energy whose ``exp(-energy)`` cannot be normalised."""


@runtime_checkable
class PartitionEstimator(Protocol):
    """What ``log_partition=`` accepts beside ``"auto"``, ``None`` and constants."""

    def check(self, distribution: Any) -> None:
        """Raise ``TypeError`` where this estimator does not suit ``distribution``."""

    def weighted_samples(self, distribution: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Estimate a partition function and draw from the model.

        :param distribution: the energy distribution; its parameters carry no gradient.
        :return: ``log_partition`` of shape ``batch_shape``, samples of shape ``(M, *batch_shape, *event_shape)`` and
            their normalised weights of shape ``(M, *batch_shape)``.
        """


def resolve_policy(distribution: Any, log_partition: Any) -> tuple[str, Any]:
    """Split the keyword ``log_partition`` into a policy name and its data."""
    if log_partition is None:
        return "unknown", None
    if isinstance(log_partition, str):
        if log_partition == "auto":
            return "auto", None
    elif isinstance(log_partition, PartitionEstimator):
        log_partition.check(distribution)
        return "estimator", log_partition
    elif isinstance(log_partition, (int, float, np.generic, np.ndarray, torch.Tensor)):
        constant = _constant(log_partition, distribution.device)
        if constant.is_floating_point():
            return "constant", constant
    raise TypeError(
        f'log_partition: expected "auto", None, a real number or floating-point tensor, or a partition estimator such '
        f"as pyro_ebm.infer.AnnealedImportanceSampling, got {log_partition!r}"
    )


def _constant(number: Any, device: torch.device) -> torch.Tensor:
    if not isinstance(number, torch.Tensor):
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        return torch.tensor(number, dtype=torch.float64 if is_number else None, device=device)
    if number.device != device:
        raise ValueError(f"log_partition: expected a tensor on device {device}, got one on {number.device}")
    return number


def intractable_message(name: str) -> str:
    """The error text of a guarded density, with its remedies."""
    return (
        f"{name}: the partition function is not known as a function of the parameters, so the gradient of log_prob in "
        "a parameter would silently miss the term -grad log Z. Remedies: (1) an estimator, "
        "log_partition=pyro_ebm.infer.AnnealedImportanceSampling(...); (2) observe the data under a learning "
        "criterion of pyro_ebm.objectives (ContrastiveDivergence, PersistentContrastiveDivergence, ScoreMatching, "
        "PseudoLikelihood); (3) detach the parameters with .detach(), or a network with .requires_grad_(False), if "
        "they are meant to stay fixed. "
        'Small models (at most 2^16 enumerated terms) are exact under log_partition="auto".'
    )


def guarded_zero(name: str, like: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
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
        raise IntractablePartitionError(intractable_message(ctx.name))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise IntractablePartitionError(intractable_message(ctx.name))


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
    expected_energy = (weights.detach() * energy(samples.detach())).sum(0)
    return (log_partition + expected_energy).detach() - expected_energy


def binary_states(num_units: int, dtype: torch.dtype, device: Any = None) -> torch.Tensor:
    """All states of ``num_units`` binary units, shape ``(2**num_units, num_units)``, first unit slowest."""
    codes = torch.arange(2**num_units, device=device)
    shifts = torch.arange(num_units - 1, -1, -1, device=device)
    return ((codes[:, None] >> shifts) & 1).to(dtype)


def enumerate_terms(
    log_term: Callable[[torch.Tensor], torch.Tensor], num_units: int, dtype: torch.dtype, device: Any = None
) -> torch.Tensor:
    """``log_term`` of every binary state, shape ``(..., 2**num_units)``, computed and differentiated chunk by chunk.

    :param log_term: maps states of shape ``(n, num_units)`` to log terms of shape ``(..., n)``.
    """
    states = binary_states(num_units, dtype, device)
    if num_units <= _CHUNK_UNITS:
        return log_term(states)
    return torch.cat([_recomputed(log_term, chunk) for chunk in states.split(2**_CHUNK_UNITS)], dim=-1)


def _recomputed(function: Callable[[torch.Tensor], torch.Tensor], argument: torch.Tensor) -> torch.Tensor:
    """Call ``function`` without keeping its intermediate results for the backward pass, where torch can do so."""
    if in_function_transform() or not torch.is_grad_enabled():
        return function(argument)
    result = checkpoint(function, argument, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, torch.Tensor)
    return result
