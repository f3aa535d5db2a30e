"""Normal distributions out of what networks return, and their divergences in closed form."""

from typing import Any

import torch
from pyro import distributions as dist
from torch.distributions import Distribution, kl_divergence

COVARIANCES = ("diagonal", "full")


def check_covariance(covariance: Any) -> None:
    """Refuse whatever is not the name of a covariance."""
    if covariance not in COVARIANCES:
        raise ValueError(f'covariance: expected "diagonal" or "full", got {covariance!r}')


def output_size(size: int, covariance: str = "diagonal") -> int:
    """How many numbers parametrise a normal distribution.

    :param size: its dimensions.
    :param covariance: ``"diagonal"`` or ``"full"``.

    >>> from pyro_ebm.variational.normal import output_size
    >>> output_size(3), output_size(3, "full")
    (6, 9)
    """
    return 2 * size if covariance == "diagonal" else size + size * (size + 1) // 2


def normal_from(name: str, output: Any, size: int, covariance: str = "diagonal") -> dist.TorchDistribution:
    """The normal distribution whose parameters a network returned.

    :param name: the network's name in messages.
    :param output: shape ``(..., 2 * size)``, location and log standard deviation, for ``"diagonal"``; for ``"full"``
        ``(..., size + size * (size + 1) // 2)``, the location, then the rows of a lower-triangular factor of the
        covariance, of whose diagonal this is the logarithm.
    :param size: dimensions.
    :param covariance: ``"diagonal"`` or ``"full"``.
    :return: batch shape ``(...)``, event shape ``(size,)``.
    :raises TypeError: if the output is no tensor.
    :raises ValueError: for an output of another size.

    >>> import torch
    >>> from pyro_ebm.variational.normal import normal_from
    >>> normal_from("encoder", torch.tensor([1.0, 2.0, 0.0, 0.5, 0.0]), 2, "full").covariance_matrix
    tensor([[1.0000, 0.5000],
            [0.5000, 1.2500]])
    """
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"{name}: expected a network that returns a tensor, got a {type(output).__name__}")
    expected = output_size(size, covariance)
    if output.shape[-1:] != (expected,):
        raise ValueError(
            f"{name}: expected an output of shape (..., {expected}), which parametrises a normal distribution of "
            f"{size} dimensions with {covariance} covariance, got {tuple(output.shape)}"
        )
    loc, rest = output[..., :size], output[..., size:]
    if covariance == "diagonal":
        return dist.Normal(loc, rest.exp()).to_event(1)
    return dist.MultivariateNormal(loc, scale_tril=_factor(rest, size))


def _factor(entries: torch.Tensor, size: int) -> torch.Tensor:
    """Lower-triangular matrices from their rows, the diagonal through exp."""
    rows, columns = torch.tril_indices(size, size, device=entries.device)
    matrix = entries.new_zeros((*entries.shape[:-1], size, size))
    matrix[..., rows, columns] = entries
    return matrix.tril(-1) + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1).exp())


def is_factorised(distribution: Distribution) -> bool:
    """Whether this is a vector of independent normal variables."""
    return (
        isinstance(distribution, dist.Independent)
        and isinstance(distribution.base_dist, torch.distributions.Normal)
        and len(distribution.event_shape) == 1
    )


def divergence(posterior: Distribution, prior: Distribution) -> torch.Tensor:
    """KL(posterior | prior) of two normal distributions in closed form, shape ``batch_shape``.

    >>> import torch
    >>> from pyro_ebm.variational.normal import divergence, normal_from
    >>> standard = normal_from("prior", torch.zeros(4), 2)
    >>> print(divergence(normal_from("encoder", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]), 2, "full"), standard))
    tensor(0.5000)
    """
    if is_factorised(posterior) and is_factorised(prior):
        return divergence_by_dimension(posterior, prior).sum(-1)
    return kl_divergence(_multivariate(posterior), _multivariate(prior))


def divergence_by_dimension(posterior: Any, prior: Any) -> torch.Tensor:
    """The terms of :func:`divergence`, one for each dimension, of two factorised normal distributions.

    :return: shape ``(..., size)``.
    """
    return kl_divergence(posterior.base_dist, prior.base_dist)


def _multivariate(distribution: Any) -> Distribution:
    if not is_factorised(distribution):
        return distribution
    return dist.MultivariateNormal(distribution.mean, scale_tril=torch.diag_embed(distribution.stddev))


def parameters_of(posterior: Any) -> torch.Tensor:
    """Location and scale of normal distributions side by side, one row for each."""
    if is_factorised(posterior):
        return torch.cat([posterior.mean, posterior.stddev], -1)
    return torch.cat([posterior.loc, posterior.scale_tril.flatten(-2)], -1)


def from_parameters(parameters: torch.Tensor, size: int) -> Any:
    """The distributions that :func:`parameters_of` took apart."""
    loc, rest = parameters[..., :size], parameters[..., size:]
    if rest.shape[-1] == size and size > 1:
        return dist.Normal(loc, rest).to_event(1)
    return dist.MultivariateNormal(loc, scale_tril=rest.unflatten(-1, (size, size)))


def at(distribution: Any, noise: torch.Tensor) -> torch.Tensor:
    """The values of normal variables whose standard normal parts are ``noise``, shape ``(..., *batch_shape, size)``."""
    if is_factorised(distribution):
        return distribution.mean + distribution.stddev * noise
    return distribution.loc + (distribution.scale_tril @ noise[..., None])[..., 0]
