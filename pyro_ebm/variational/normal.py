"""Normal distributions as networks give them, and their KL divergences in closed form."""

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch.distributions import kl_divergence as host_kl_divergence

from _ppl_ebm.normals import (
    Covariance,
    EncoderOutput,
    check_output,
    check_rows_of_output,
    not_normal,
    output_size,
)
from pyro_ebm.distributions.batching import is_concrete

__all__ = ["at", "kl_divergence", "kl_divergence_by_dimension", "loc_and_scale", "normal_from", "normal_of"]
__all__ += ["output_size"]


def normal_from(
    name: str,
    output: torch.Tensor,
    size: int,
    covariance: Covariance = "diagonal",
    *,
    encoder_output: EncoderOutput = "log_scale",
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> TorchDistribution:
    """The normal distribution whose parameters a network returned.

    :param name: the network's name in messages.
    :param output: shape ``(..., output_size(size, covariance))``, as :func:`output_size` describes it.
    :param size: dimensions.
    :param covariance: ``"diagonal"`` or ``"full"``.
    :param encoder_output: what the standard deviations, or the diagonal of the factor, are made of; where traced, NaN
        for scales and variances that are not positive.
    :param inputs: the network's arguments by name, of one row for each row of the output.
    :return: batch shape ``(...)``, event shape ``(size,)``.
    :raises TypeError: if the output is no tensor.
    :raises ValueError: for an output of another shape, and, unless it is traced, one that parametrises no distribution.

    >>> import torch
    >>> from pyro_ebm.variational.normal import normal_from
    >>> normal_from("encoder", torch.tensor([1.0, 2.0, 0.0, 0.5, 0.0]), 2, "full").covariance_matrix
    tensor([[1.0000, 0.5000],
            [0.5000, 1.2500]])
    """
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"{name}: expected a network that returns a tensor, got a {type(output).__name__}")
    check_output(name, output.shape, size, covariance)
    if inputs:
        check_rows_of_output(name, output.shape, len(next(iter(inputs.values()))))
    loc, rest = output[..., :size], output[..., size:]
    if covariance == "diagonal":
        scale = diagonal = _positive(rest, encoder_output)
    else:
        scale = _lower_triangular(rest, size, encoder_output)
        diagonal = scale.diagonal(dim1=-2, dim2=-1)
    is_wrong = ~(torch.isfinite(output).all(-1) & ((diagonal > 0) & torch.isfinite(diagonal)).all(-1))
    if is_concrete(is_wrong) and is_wrong.any():
        bad = [key for key, tensor in (inputs or {}).items() if not torch.isfinite(tensor).all()]
        raise not_normal(name, encoder_output, int(is_wrong.sum()), is_wrong.numel(), bad)
    return normal_of(loc, scale)


def _positive(raw: torch.Tensor, encoder_output: EncoderOutput) -> torch.Tensor:
    """Standard deviations from what a network says of them, NaN where it says what is not positive."""
    if encoder_output == "log_scale":
        return raw.exp()
    positive = torch.where(raw > 0, raw, torch.nan)
    return positive.sqrt() if encoder_output == "variance" else positive


def _lower_triangular(entries: torch.Tensor, size: int, encoder_output: EncoderOutput) -> torch.Tensor:
    """Lower-triangular matrices from their rows, the diagonal made positive."""
    rows, columns = torch.tril_indices(size, size, device=entries.device)
    matrix = entries.new_zeros((*entries.shape[:-1], size, size))
    matrix[..., rows, columns] = entries
    return matrix.tril(-1) + torch.diag_embed(_positive(matrix.diagonal(dim1=-2, dim2=-1), encoder_output))


def kl_divergence(posterior: TorchDistribution, prior: TorchDistribution) -> torch.Tensor:
    """KL(posterior | prior) of two normal distributions in closed form, shape ``batch_shape``.

    >>> import torch
    >>> from pyro_ebm.variational.normal import kl_divergence, normal_from
    >>> standard = normal_from("prior", torch.zeros(4), 2)
    >>> print(kl_divergence(normal_from("encoder", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]), 2, "full"), standard))
    tensor(0.5000)
    """
    if isinstance(posterior, dist.Independent) and isinstance(prior, dist.Independent):
        return kl_divergence_by_dimension(posterior, prior).sum(-1)
    return host_kl_divergence(_multivariate(posterior), _multivariate(prior))


def kl_divergence_by_dimension(posterior: TorchDistribution, prior: TorchDistribution) -> torch.Tensor:
    """The terms of :func:`kl_divergence`, one for each dimension, of two diagonal normal distributions.

    :return: shape ``(..., size)``.
    """
    return host_kl_divergence(_factors(posterior), _factors(prior))


def _factors(distribution: TorchDistribution) -> dist.Normal:
    """The independent normal variables of a diagonal normal distribution."""
    if not isinstance(distribution, dist.Independent):
        raise TypeError(f"expected a diagonal normal distribution, got {distribution!r}")
    return distribution.base_dist


def _multivariate(distribution: TorchDistribution) -> dist.MultivariateNormal:
    loc, scale = loc_and_scale(distribution)
    return dist.MultivariateNormal(loc, scale_tril=scale if scale.dim() > loc.dim() else torch.diag_embed(scale))


def loc_and_scale(posterior: TorchDistribution) -> tuple[torch.Tensor, torch.Tensor]:
    """Location, and standard deviations ``(..., size)`` or the triangular factor ``(..., size, size)``."""
    if isinstance(posterior, dist.Independent):
        base: dist.Normal = posterior.base_dist
        return base.loc, base.scale
    full: dist.MultivariateNormal = posterior
    return full.loc, full.scale_tril


def normal_of(loc: torch.Tensor, scale: torch.Tensor) -> TorchDistribution:
    """The distribution that :func:`loc_and_scale` took apart."""
    if scale.dim() > loc.dim():
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def at(noise: torch.Tensor, loc: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The values of normal variables whose standard normal parts are ``noise``, shape ``(..., *batch_shape, size)``."""
    if scale.dim() > loc.dim():
        return loc + (scale @ noise[..., None])[..., 0]
    return loc + scale * noise
