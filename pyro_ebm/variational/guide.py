"""An encoder as the guide of local latent variables of any model."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.infer.autoguide import AutoGuide
from torch.distributions import Transform, biject_to, constraints

from _ppl_ebm.autoencoders import check_supports, event_shapes
from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.normals import EncoderOutput, check_encoder_output
from _ppl_ebm.plates import plan_plate, rows_of
from pyro_ebm.variational.latent import check_tensor, data_plate
from pyro_ebm.variational.networks import check_network
from pyro_ebm.variational.normal import loc_and_scale, normal_from


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
    :param encoder_output: what the second half of the encoder's outputs are: ``"log_scale"`` as above, or ``"scale"``
        or ``"variance"``, standard deviations or variances in unconstrained space, positive.
    :param plate: name of the model's innermost plate over data.
    :param name: prefix of parameter names, where the guide stands alone.
    :raises TypeError: if the encoder is no module, or ``sites`` no mapping.
    :raises ValueError: for no sites, shapes that are none, or supports of other sites; on use, for an encoder's output
        of the wrong shape, or that parametrises no normal distribution, or a plate that the list does not have.

    >>> import torch
    >>> from pyro_ebm.variational import AmortizedGuide
    >>> guide = AmortizedGuide(torch.nn.Linear(3, 6), {"z": 2, "u": ()})
    >>> {site: value.shape for site, value in guide(torch.zeros(10, 3), subsample_size=5).items()}
    {'z': torch.Size([5, 2]), 'u': torch.Size([5])}
    """

    @shows_its_call
    def __init__(
        self,
        encoder: torch.nn.Module,
        sites: Mapping[str, int | tuple[int, ...]],
        *,
        supports: Mapping[str, constraints.Constraint] | None = None,
        encoder_output: EncoderOutput = "log_scale",
        plate: str = "data",
        name: str = "amortized",
    ) -> None:
        check_network("encoder", encoder)
        shapes = event_shapes(sites)
        super().__init__(None)
        self._pyro_name = name
        self.encoder, self.sites = encoder, shapes
        self.supports, self.plate = dict(supports or {}), plate
        check_supports(self.supports, self.sites)
        check_encoder_output("AmortizedGuide", encoder_output)
        self.encoder_output = encoder_output

    def forward(
        self,
        x: torch.Tensor,
        *others: Any,
        size: int | None = None,
        subsample_size: int | None = None,
        **named: Any,
    ) -> dict[str, torch.Tensor]:
        """Draw the sites.

        :param x: data, shape ``(N, ...)``.
        :param others: the model's other arguments, which are ignored, as those by name are.
        :param size: as in :meth:`VAE.model`, where the guide stands alone.
        :param subsample_size: likewise.
        :return: the value of each site by name.
        """
        data = check_tensor("x", x)
        if self.master is None:
            plate = data_plate(self.plate, plan_plate(len(data), size, subsample_size), data)
        else:
            sizes = {"size": size, "subsample_size": subsample_size}
            options = {key: number for key, number in sizes.items() if number is not None}
            plate = self._plate_of_list(x, *others, **options, **named)
        with plate as index:
            posteriors = self._posteriors(rows_of(data, index))
            return {site: pyro.sample(site, posterior) for site, posterior in posteriors.items()}

    def median(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Medians of the sites for all data, by name.

        :param x: data, shape ``(N, ...)``.
        """
        del args, kwargs
        loc, _ = self._parameters_of(x)
        return {site: self._transform(site)(part) for site, part in loc.items()}

    def extra_repr(self) -> str:
        encoder = "" if self.encoder_output == "log_scale" else f"encoder_output={self.encoder_output!r}, "
        options = f"{encoder}plate={self.plate!r}, name={self._pyro_name!r}"
        return f"sites={self.sites!r}, supports={self.supports!r}, {options}"

    def _plate_of_list(self, *arguments: Any, **named: Any) -> contextlib.AbstractContextManager[torch.Tensor]:
        """The plate that the guides of an ``AutoGuideList`` share."""
        plates = self._create_plates(*arguments, **named)
        if self.plate not in plates:
            raise ValueError(f"plate: AmortizedGuide expected one of {sorted(plates)}, got {self.plate!r}")
        return plates[self.plate]

    def _parameters_of(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Locations and standard deviations of the sites, in unconstrained space."""
        sizes = [math.prod(shape) for shape in self.sites.values()]
        joint = normal_from("encoder", self.encoder(x), sum(sizes), encoder_output=self.encoder_output, inputs={"x": x})
        return [
            {
                site: part.reshape(*part.shape[:-1], *shape)
                for (site, shape), part in zip(self.sites.items(), whole.split(sizes, -1), strict=True)
            }
            for whole in loc_and_scale(joint)
        ]

    def _posteriors(self, x: torch.Tensor) -> dict[str, TorchDistribution]:
        """The distribution of each site."""
        loc, scale = self._parameters_of(x)
        posteriors = {}
        for site, shape in self.sites.items():
            made: TorchDistribution = dist.Normal(loc[site], scale[site])
            if site in self.supports:
                made = dist.TransformedDistribution(made, [self._transform(site)])
            posteriors[site] = made.to_event(len(shape) - len(made.event_shape))
        return posteriors

    def _transform(self, site: str) -> Transform:
        return biject_to(self.supports.get(site, constraints.real))
