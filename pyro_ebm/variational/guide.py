"""An encoder as the guide of local latent variables in any model."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoGuide

from pyro_ebm.infer.samplers import check_positive_int
from pyro_ebm.variational import normal
from pyro_ebm.variational.vae import data_plate, rows_of


class AmortizedGuide(AutoGuide):
    """An encoder as a guide for local latent sites of a model, with one value for each datum (Gershman & Goodman 2014).

    Given x, all sites together are one normal variable. The guide is called as the model is, with the data first; it
    stands alone, or beside autoguides for the global sites::

        guide = AutoGuideList(model)
        guide.append(AutoNormal(pyro.poutine.block(model, hide=["z"])))
        guide.append(AmortizedGuide(encoder, {"z": 2}))

    In such a list the plates are the list's. Alone, the guide makes the plate from ``size`` and ``subsample_size``, by
    name or as second and third argument, which mean what they do in :meth:`VAE.model`; all other arguments by name are
    the model's.

    :param encoder: a module from x, shape ``(N, *event_shape)``, to the parameters of a normal distribution over all
        sites in the order of ``sites``, as in :class:`VAE`.
    :param sites: from the name of each site to its number of real variables: the site has event shape ``(number,)`` in
        the model, and support all of it. Transform inside the model where a variable is constrained.
    :param plate: name of the innermost plate that holds them.
    :param covariance: ``"diagonal"``, or ``"full"`` for one site.
    :param name: prefix of parameter names, where the guide stands alone.
    :raises TypeError: if the encoder is no module, or ``sites`` no mapping.
    :raises ValueError: for no sites, sizes that are not positive integers, ``"full"`` with several sites; on use, for
        an encoder's output of the wrong shape, or a plate that the list does not have.

    >>> import torch
    >>> from pyro_ebm.variational import AmortizedGuide
    >>> guide = AmortizedGuide(torch.nn.Linear(3, 6), {"z": 2, "u": 1})
    >>> {site: value.shape for site, value in guide(torch.zeros(10, 3), subsample_size=5).items()}
    {'z': torch.Size([5, 2]), 'u': torch.Size([5, 1])}
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        sites: Mapping[str, int],
        *,
        plate: str = "data",
        covariance: str = "diagonal",
        name: str = "amortized",
    ) -> None:
        if not isinstance(encoder, torch.nn.Module):
            raise TypeError(f"encoder: AmortizedGuide expected a torch.nn.Module, got {type(encoder).__name__}")
        super().__init__(None)
        self._pyro_name = name
        normal.check_covariance(covariance)
        self.encoder, self.plate, self.covariance, self.sites = encoder, plate, covariance, _check_sites(sites)
        if covariance == "full" and len(sites) > 1:
            raise ValueError(f'covariance: expected "diagonal" with several sites, got "full" with {len(sites)}')

    def forward(
        self, x: torch.Tensor, size: int | None = None, subsample_size: int | None = None, **others: Any
    ) -> dict[str, torch.Tensor]:
        """Draw the sites.

        :param x: data, shape ``(N, *event_shape)``.
        :param size: as in :meth:`VAE.model`, where the guide stands alone.
        :param subsample_size: likewise.
        :return: the value of each site by name.
        """
        with self._plate(x, size, subsample_size, others) as index:
            posteriors = self._posteriors(rows_of(x, index))
            return {site: pyro.sample(site, posterior) for site, posterior in posteriors.items()}

    def median(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Medians of the sites for all data, by name.

        :param x: data, shape ``(N, *event_shape)``.
        """
        return {site: posterior.mean for site, posterior in self._posteriors(x).items()}

    def _plate(self, x: Any, size: int | None, subsample_size: int | None, others: dict[str, Any]) -> Any:
        if self.master is None:
            return data_plate(len(x), size, subsample_size, x, self.plate)
        plates = self._create_plates(x, size=size, subsample_size=subsample_size, **others)
        if self.plate not in plates:
            raise ValueError(f"plate: AmortizedGuide expected one of {sorted(plates)}, got {self.plate!r}")
        return plates[self.plate]

    def _posteriors(self, x: torch.Tensor) -> dict[str, Any]:
        """The distribution of each site."""
        joint: Any = normal.normal_from("encoder", self.encoder(x), sum(self.sites.values()), self.covariance)
        if self.covariance == "full":
            return dict.fromkeys(self.sites, joint)
        sizes = list(self.sites.values())
        parts = zip(self.sites, joint.mean.split(sizes, -1), joint.stddev.split(sizes, -1), strict=True)
        return {site: dist.Normal(loc, scale).to_event(1) for site, loc, scale in parts}


def _check_sites(sites: Any) -> dict[str, int]:
    if not isinstance(sites, Mapping):
        raise TypeError(f"sites: expected a mapping from names to numbers of variables, got {type(sites).__name__}")
    if not sites:
        raise ValueError("sites: expected at least one site, got none")
    for site, size in sites.items():
        check_positive_int(f"sites[{site!r}]", size)
    return dict(sites)
