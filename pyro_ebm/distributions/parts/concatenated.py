"""One host distribution over a vector whose parts have different distributions."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import constraints


class Concatenated(TorchDistribution):
    """Independent distributions over vectors, side by side in one vector.

    :param parts: distributions of one event dimension each and of the same batch shape.

    >>> import torch, pyro.distributions as dist
    >>> from pyro_ebm.distributions.parts.concatenated import Concatenated
    >>> parts = dist.Gamma(torch.ones(2), 1.0).to_event(1), dist.Bernoulli(0.5 * torch.ones(3)).to_event(1)
    >>> Concatenated(*parts).sample().shape
    torch.Size([5])
    """

    arg_constraints: dict[str, Any] = {}  # type: ignore[misc]

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self._sizes = [part.event_shape[0] for part in parts]
        batch_shape = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        super().__init__(batch_shape, torch.Size((sum(self._sizes),)), validate_args=False)

    @property
    def support(self) -> Any:
        supports = [part.base_dist.support for part in self.parts]
        return constraints.independent(constraints.cat(supports, -1, self._sizes), 1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return torch.cat([part.sample(torch.Size(sample_shape)) for part in self.parts], -1)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        pieces = value.split(self._sizes, -1)
        return sum(part.log_prob(piece) for part, piece in zip(self.parts, pieces, strict=True))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Concatenated":
        return Concatenated(*(part.expand(torch.Size(batch_shape)) for part in self.parts))

    @property
    def mean(self) -> torch.Tensor:
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    def variance(self) -> torch.Tensor:
        return torch.cat([part.variance for part in self.parts], -1)
