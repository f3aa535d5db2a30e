"""An encoder as the guide of local latent variables of any model."""

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoGuide
from torch.distributions import biject_to, constraints

from _ppl_ebm.checks import check_positive_int
from pyro_ebm.variational import normal
from pyro_ebm.variational.latent import check_rows, data_plate, rows_of


class AmortizedGuide(AutoGuide):
    """An encoder as a guide for local latent sites of a model, with one value for each datum (Gershman & Goodman 2014).

    The guide is called as the model is, with the data first, of shape ``(N, ...)``. It draws the sites from one normal
    distribution for each datum, whose parameters the encoder gives. It stands alone, or beside autoguides for the
    global sites::

        guide = AutoGuideList(model)
        guide.append(AutoNormal(pyro.poutine.block(model, hide=["z"])))
        guide.append(AmortizedGuide(encoder, {"z": 2}))

    In such a list the plates are the list's. Alone, the guide makes the plate from ``size`` and ``subsample_size``.

    :param encoder: a module from x to ``(N, 2 * D)``: locations of all sites in the order of ``sites``, then log
        standard deviations, in unconstrained space, of D dimensions together.
    :param sites: the event shape of each site by name, a tuple or, for vectors, an integer.
    :param supports: the constraints of those sites that are not real, whose unconstrained shape is the site's.
    :param plate: name of the model's innermost plate over data.
    :param name: prefix of parameter names, where the guide stands alone.
    :raises TypeError: if the encoder is no module, or ``sites`` no mapping.
    :raises ValueError: for no sites, shapes that are none, or supports of other sites; on use, for an encoder's output
        of the wrong shape, or a plate that the list does not have.

    >>> import torch
    >>> from pyro_ebm.variational import AmortizedGuide
    >>> guide = AmortizedGuide(torch.nn.Linear(3, 6), {"z": 2, "u": ()})
    >>> {site: value.shape for site, value in guide(torch.zeros(10, 3), subsample_size=5).items()}
    {'z': torch.Size([5, 2]), 'u': torch.Size([5])}
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        sites: Mapping[str, int | tuple[int, ...]],
        supports: Mapping[str, constraints.Constraint] | None = None,
        *,
        plate: str = "data",
        name: str = "amortized",
    ) -> None:
        if not isinstance(encoder, torch.nn.Module):
            raise TypeError(f"encoder: expected a torch.nn.Module, got {type(encoder).__name__}")
        if not isinstance(sites, Mapping):
            raise TypeError(f"sites: expected a mapping from names to event shapes, got {type(sites).__name__}")
        if not sites:
            raise ValueError("sites: expected at least one site, got none")
        super().__init__(None)
        self._pyro_name = name
        self.sites = {site: _check_shape(site, shape) for site, shape in sites.items()}
        self.encoder, self.supports, self.plate = encoder, dict(supports or {}), plate
        if not self.supports.keys() <= self.sites.keys():
            raise ValueError(f"supports: expected some of the sites {list(self.sites)}, got {list(self.supports)}")

    def forward(
        self, x: torch.Tensor, *others: Any, size: int | None = None, subsample_size: int | None = None, **named: Any
    ) -> dict[str, torch.Tensor]:
        """Draw the sites.

        :param x: data, shape ``(N, ...)``.
        :param others: the model's other arguments, which are ignored, as those by name are.
        :param size: as in :meth:`VAE.model`, where the guide stands alone.
        :param subsample_size: likewise.
        :return: the value of each site by name.
        """
        options = {key: value for key, value in (("size", size), ("subsample_size", subsample_size)) if value}
        with self._plate(check_rows("x", x), others, options, named) as index:
            posteriors = self._posteriors(rows_of(x, index))
            return {site: pyro.sample(site, posterior) for site, posterior in posteriors.items()}

    def median(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Medians of the sites for all data, by name.

        :param x: data, shape ``(N, ...)``.
        """
        loc, _ = self._parameters_of(x)
        return {site: self._transform(site)(part) for site, part in loc.items()}

    def _plate(self, x: torch.Tensor, others: Any, options: dict[str, int], named: dict[str, Any]) -> Any:
        if self.master is None:
            return data_plate(len(x), options.get("size"), options.get("subsample_size"), x, self.plate)
        plates = self._create_plates(x, *others, **options, **named)
        if self.plate not in plates:
            raise ValueError(f"plate: AmortizedGuide expected one of {sorted(plates)}, got {self.plate!r}")
        return plates[self.plate]

    def _parameters_of(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Locations and standard deviations of the sites, in unconstrained space."""
        sizes = [math.prod(shape) for shape in self.sites.values()]
        joint: Any = normal.normal_from("encoder", self.encoder(x), sum(sizes))
        return [
            {
                site: part.reshape(*part.shape[:-1], *shape)
                for (site, shape), part in zip(self.sites.items(), whole.split(sizes, -1), strict=True)
            }
            for whole in (joint.mean, joint.stddev)
        ]

    def _posteriors(self, x: torch.Tensor) -> dict[str, Any]:
        """The distribution of each site."""
        loc, scale = self._parameters_of(x)
        posteriors = {}
        for site, shape in self.sites.items():
            made: Any = dist.Normal(loc[site], scale[site])
            if site in self.supports:
                made = dist.TransformedDistribution(made, [self._transform(site)])
            posteriors[site] = made.to_event(len(shape) - len(made.event_shape))
        return posteriors

    def _transform(self, site: str) -> Any:
        return biject_to(self.supports.get(site, constraints.real))


def _check_shape(site: str, shape: Any) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(shape, tuple):
        raise ValueError(f"sites[{site!r}]: expected an event shape, got {shape!r}")
    for size in shape:
        check_positive_int(f"sites[{site!r}]", size)
    return shape
