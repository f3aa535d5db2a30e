"""An encoder as the guide of local latent variables of any model."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import biject_to, constraints

from _ppl_ebm.checks import check_positive_int
from numpyro_ebm.variational.latent import plan_plate
from numpyro_ebm.variational.networks import check_network, register_network
from numpyro_ebm.variational.normal import normal_from


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
    :param plate: name of the model's plate over data.
    :param name: start of the names of parameter sites.
    :raises TypeError: for an ``encoder`` that is not callable or ``sites`` that are no mapping.
    :raises ValueError: for no sites, shapes that are none, or supports of other sites.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro import handlers
    >>> from numpyro_ebm.variational import AmortizedGuide
    >>> guide = AmortizedGuide(lambda x: jnp.stack([x, 0 * x]), {"z": 1})
    >>> with handlers.seed(rng_seed=0):
    ...     print(guide(jnp.array([1.0, 2.0, 3.0]))["z"].shape)
    (3, 1)
    """

    def __init__(
        self,
        encoder: Any,
        sites: Mapping[str, int | tuple[int, ...]],
        supports: Mapping[str, constraints.Constraint] | None = None,
        *,
        plate: str = "data",
        name: str = "amortized",
    ) -> None:
        self.encoder = check_network("encoder", encoder)
        if not isinstance(sites, Mapping):
            raise TypeError(f"sites: expected a mapping from names to event shapes, got {type(sites).__name__}")
        if not sites:
            raise ValueError("sites: expected at least one site, got none")
        self.sites = {site: _check_shape(site, shape) for site, shape in sites.items()}
        self.supports, self.plate, self.name = dict(supports or {}), plate, name
        if not self.supports.keys() <= self.sites.keys():
            raise ValueError(f"supports: expected some of the sites {list(self.sites)}, got {list(self.supports)}")

    def __call__(
        self, x: Any, *others: Any, size: int | None = None, subsample_size: int | None = None, **named: Any
    ) -> dict[str, jax.Array]:
        """Draw the sites.

        :param x: data, shape ``(N, ...)``.
        :param others: the model's other arguments, which are ignored, as those by name are.
        :param size: as in :meth:`VAE.model`.
        :param subsample_size: as in :meth:`VAE.model`.
        :return: the value of each site by name.
        """
        del others, named
        x = jnp.asarray(x)
        if x.ndim == 0:
            raise ValueError("x: AmortizedGuide expected data of shape (N, ...), got shape ()")
        plan = plan_plate(x, None, size, subsample_size)
        network = register_network(f"{self.name}.encoder", self.encoder)
        with numpyro.plate(self.plate, plan.size, plan.subsample_size) as index:
            raw = jax.vmap(lambda one: network(one))(plan.select(x, index))
            joint: Any = normal_from("encoder", raw, sum(map(math.prod, self.sites.values())))
            return self._draw(joint.base_dist.loc, joint.base_dist.scale)

    def _draw(self, loc: jax.Array, scale: jax.Array) -> dict[str, jax.Array]:
        draws: dict[str, Any] = {}
        start = 0
        for site, shape in self.sites.items():
            stop = start + math.prod(shape)
            loc_part, scale_part = (array[:, start:stop].reshape(-1, *shape) for array in (loc, scale))
            draws[site] = numpyro.sample(site, self._posterior(site, loc_part, scale_part))
            start = stop
        return draws

    def _posterior(self, site: str, loc: jax.Array, scale: jax.Array) -> dist.Distribution:
        made: Any = dist.Normal(loc, scale)
        if site in self.supports:
            made = dist.TransformedDistribution(made, biject_to(self.supports[site]))
        return made.to_event(len(self.sites[site]) - made.event_dim)


def _check_shape(site: str, shape: Any) -> tuple[int, ...]:
    shape = (shape,) if isinstance(shape, int) else shape
    if not isinstance(shape, tuple):
        raise ValueError(f"sites[{site!r}]: expected an event shape, got {shape!r}")
    for size in shape:
        check_positive_int(f"sites[{site!r}]", size)
    return shape
