"""An encoder as the guide of local latent variables of any model."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, biject_to, constraints

from _ppl_ebm.autoencoders import check_supports, event_shapes
from _ppl_ebm.calls import shows_its_call
from _ppl_ebm.normals import EncoderOutput, check_encoder_output
from _ppl_ebm.plates import check_rows, plan_plate, rows_of
from numpyro_ebm.variational.networks import Network, apply_network, check_network, describe
from numpyro_ebm.variational.normal import loc_and_scale, normal_from


class AmortizedGuide:
    """An encoder as a guide for local latent sites of a model, with one value for each datum (Gershman & Goodman 2014).

    The guide is called as the model is, with the data first, of shape ``(N, ...)``. It draws the sites, inside a plate
    of the same name and sizes as the model's, from one normal distribution for each datum, whose parameters the encoder
    gives. It returns a dictionary of the draws, so it can be a part of an ``AutoGuideList``. There, hide the local
    sites **and their plate** from the other parts and from the list itself: only this guide must draw the minibatch::

        local = ["z", "data"]
        guide = AutoGuideList(handlers.block(model, hide=local))
        guide.append(AutoNormal(handlers.block(model, hide=local)))
        guide.append(AmortizedGuide(encoder, {"z": 2}))

    :param encoder: a network that maps one datum to ``2 * D`` numbers: locations of all sites in the order of
        ``sites``, then log standard deviations, in unconstrained space, of D dimensions together; its arrays are the
        parameter site ``<name>.encoder``.
    :param sites: the event shape of each site by name, a tuple or, for vectors, an integer.
    :param supports: the constraints of those sites that are not real, whose unconstrained shape is the site's.
    :param encoder_output: what the second half of the encoder's outputs are: ``"log_scale"`` as above, or ``"scale"``
        or ``"variance"``, standard deviations or variances in unconstrained space, positive.
    :param plate: name of the model's plate over data.
    :param name: start of the names of parameter sites.
    :raises TypeError: for an ``encoder`` that is not callable or ``sites`` that are no mapping.
    :raises ValueError: for no sites, shapes that are none, or supports of other sites; on use, for an encoder's output
        of the wrong shape, or that parametrises no normal distribution.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro import handlers
    >>> from numpyro_ebm.variational import AmortizedGuide
    >>> guide = AmortizedGuide(lambda x: jnp.tile(x, 2), {"z": 2, "u": ()})
    >>> with handlers.seed(rng_seed=0):
    ...     {site: value.shape for site, value in guide(jnp.zeros((10, 3)), subsample_size=5).items()}
    {'z': (5, 2), 'u': (5,)}
    """

    @shows_its_call
    def __init__(
        self,
        encoder: Network,
        sites: Mapping[str, int | tuple[int, ...]],
        *,
        supports: Mapping[str, constraints.Constraint] | None = None,
        encoder_output: EncoderOutput = "log_scale",
        plate: str = "data",
        name: str = "amortized",
    ) -> None:
        self.encoder, self.sites = check_network("encoder", encoder), event_shapes(sites)
        self.supports, self.plate, self.name = dict(supports or {}), plate, name
        check_supports(self.supports, self.sites)
        check_encoder_output("AmortizedGuide", encoder_output)
        self.encoder_output = encoder_output

    def __call__(
        self,
        x: ArrayLike,
        *others: object,
        size: int | None = None,
        subsample_size: int | None = None,
        **named: object,
    ) -> dict[str, jax.Array]:
        """Draw the sites.

        :param x: data, shape ``(N, ...)``.
        :param others: the model's other arguments, which are ignored, as those by name are.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :return: the value of each site by name.
        """
        del others, named
        data = check_rows("x", jnp.asarray(x))
        plan = plan_plate(len(data), size, subsample_size)
        with numpyro.plate(self.plate, plan.size, plan.subsample_size) as index:
            posteriors = self._posteriors(rows_of(data, index))
            return {site: numpyro.sample(site, posterior) for site, posterior in posteriors.items()}

    def __repr__(self) -> str:
        encoder = "" if self.encoder_output == "log_scale" else f"encoder_output={self.encoder_output!r}, "
        options = f"supports={self.supports!r}, {encoder}plate={self.plate!r}, name={self.name!r}"
        return f"AmortizedGuide(encoder: {describe(self.encoder)}, sites={self.sites!r}, {options})"

    def _parameters_of(self, x: jax.Array) -> list[dict[str, jax.Array]]:
        """Locations and standard deviations of the sites, in unconstrained space."""
        raw = apply_network(f"{self.name}.encoder", self.encoder, x)
        sizes = [math.prod(shape) for shape in self.sites.values()]
        joint = normal_from("encoder", raw, sum(sizes), encoder_output=self.encoder_output, inputs={"x": x})
        starts = [sum(sizes[:index]) for index in range(1, len(sizes))]
        return [
            {
                site: part.reshape(*part.shape[:-1], *shape)
                for (site, shape), part in zip(self.sites.items(), jnp.split(whole, starts, -1), strict=True)
            }
            for whole in loc_and_scale(joint)
        ]

    def _posteriors(self, x: jax.Array) -> dict[str, Distribution]:
        """The distribution of each site."""
        loc, scale = self._parameters_of(x)
        posteriors = {}
        for site, shape in self.sites.items():
            made: Distribution = dist.Normal(loc[site], scale[site])
            if site in self.supports:
                made = dist.TransformedDistribution(made, biject_to(self.supports[site]))
            posteriors[site] = made.to_event(len(shape) - made.event_dim)
        return posteriors
