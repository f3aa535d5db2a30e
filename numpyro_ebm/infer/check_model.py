"""A test of whole programs, before inference: does it need normalisers that are not known?

A distribution sees from inside that it is differentiated in a parameter, or that one value meets several models. It
does not see a mixture of separate objects, an index that a kernel draws, a branch through which no gradient flows,
importance weights, or an exponent that is learned. :func:`check_model` follows what every energy depends on.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from numpyro.distributions import Distribution
from numpyro.handlers import seed, substitute, trace

from _ppl_ebm.dependence import EnergySite, OnUnknown, check_choice, contained, judge
from numpyro_ebm.distributions.capabilities import WithoutPartition
from numpyro_ebm.distributions.energy import EnergyDistribution
from numpyro_ebm.distributions.masked import MaskedEnergy
from numpyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs, PyTree, Site

_LOOPS = ("scan", "while")
_Names = frozenset[str]


def check_model(
    model: Model,
    *args: object,
    guide: Model | None = None,
    on_unknown: OnUnknown = "error",
    **kwargs: object,
) -> tuple[EnergySite, ...]:
    """Find the energies in a model whose unknown normalisers inference would need; once, before inference.

    For every energy distribution at a sample site, also inside ``to_event``, ``expand``, ``mask``, mixtures and
    transformed distributions: is its normaliser known, and which latent (``sample``) and learned (``param``) sites do
    its parameters depend on? Dependence is followed through everything that JAX traces, discrete values and branches
    included, not only through gradients. Learning criteria need no normaliser and are not looked into.

    :param model: a NumPyro model.
    :param args: its arguments.
    :param guide: a guide with the same arguments, whose energies are looked at too.
    :param on_unknown: ``"error"``, or ``"warn"`` for a warning at every such site.
    :param kwargs: keyword arguments of the model.
    :return: what was found, site by site; those of the guide last. A warning says where a learned energy in the guide
        needs another loss than ``Trace_ELBO``.
    :raises IntractablePartitionError: naming the first site whose parameters depend on a latent or learned one, that is
        compared with others in a mixture, or whose exponent is learned, while its normaliser is not known.
    :raises ValueError: where a mask would count one value of an energy several times; for another ``on_unknown``.

    >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro_ebm import BernoulliRBM
    >>> from numpyro_ebm.infer import check_model
    >>> weights = jnp.stack([jnp.zeros((20, 17)), 0.5 * jnp.ones((20, 17))])
    >>> def model(x):
    ...     k = numpyro.sample("k", dist.Categorical(jnp.full(2, 0.5)))
    ...     numpyro.sample("v", BernoulliRBM(weights[k], log_partition=None), obs=x)
    >>> check_model(model, jnp.zeros(20))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    _ppl_ebm.errors.IntractablePartitionError: site 'v': the partition function of BernoulliRBM is not known, and it ...
    """
    check_choice(on_unknown)
    found = energy_sites(model, args, kwargs)
    guided = () if guide is None else energy_sites(guide, args, kwargs)
    judge(found + guided, "numpyro_ebm", on_unknown)
    for site in guided:
        if site.depends_on:
            warnings.warn(
                f"site {site.name!r} of the guide: draws of {site.family} carry no gradient, and Trace_ELBO puts "
                "nothing in its place, so that SVI would learn its parameters wrongly; TraceGraph_ELBO learns them",
                stacklevel=2,
            )
    return found + guided


def check_sampled(model: Model, args: ModelArgs, kwargs: ModelKwargs, *, cancels: bool = False) -> None:
    """Refuse a model in whose posterior a kernel would need normalisers that are not known.

    :param cancels: whether those of observed energies cancel in the kernel.
    :raises IntractablePartitionError: as :func:`check_model` does, of dependence on latent sites.
    """
    judge(energy_sites(model, args, kwargs, is_learned=False), "numpyro_ebm", "error", cancels)


def energy_sites(model: Model, args: ModelArgs, kwargs: ModelKwargs, is_learned: bool = True) -> tuple[EnergySite, ...]:
    """The energies at the sites of a program, which is traced and not run.

    :param is_learned: whether parameters are learned, and not constants.
    """
    values = _Values()
    shapes = jax.eval_shape(lambda: values.split(_inferred(_trace(model, {}, args, kwargs), is_learned)))
    found: list[EnergySite] = []

    def run(arrays: Sequence[jax.Array]) -> list[tuple[jax.Array, PyTree]]:
        sites = _trace(model, values.merge(arrays), args, kwargs)
        energies = [(site, *energy) for site in sites.values() for energy in _energies(site)]
        found.extend(_describe(site, energy, is_compared) for site, energy, is_compared in energies)
        return [(_density(energy), site["scale"]) for site, energy, _ in energies]

    closed, outputs = jax.make_jaxpr(run, return_shape=True)(shapes)
    names = iter(_origins(closed.jaxpr, [frozenset([name]) for name in values.names]))
    origins = [[_join(next(names) for _ in jax.tree.leaves(part)) for part in pair] for pair in outputs]
    return tuple(
        site._replace(depends_on=tuple(sorted(energy - {site.name})), scaled_by=tuple(sorted(scale)))
        for site, (energy, scale) in zip(found, origins, strict=True)
    )


class _Values:
    """Splits values of sites, which may be any pytrees, into their arrays and the rest, and puts them together."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def split(self, values: Mapping[str, PyTree]) -> list[jax.Array]:
        """The arrays, whose sites are ``names`` from now on."""
        self._leaves, self._structure = jax.tree.flatten(values)
        sites = jax.tree.leaves({name: jax.tree.map(lambda _, name=name: name, each) for name, each in values.items()})
        self._is_array = [isinstance(leaf, jax.Array | np.ndarray | float | int) for leaf in self._leaves]
        self.names = [name for name, is_array in zip(sites, self._is_array, strict=True) if is_array]
        arrays = [leaf for leaf, is_array in zip(self._leaves, self._is_array, strict=True) if is_array]
        self._leaves = [None if is_array else leaf for leaf, is_array in zip(self._leaves, self._is_array, strict=True)]
        return arrays

    def merge(self, arrays: Sequence[jax.Array]) -> dict[str, PyTree]:
        """The values with other arrays."""
        rest = iter(arrays)
        leaves = [next(rest) if is_array else leaf for leaf, is_array in zip(self._leaves, self._is_array, strict=True)]
        return jax.tree.unflatten(self._structure, leaves)


def _inferred(sites: Mapping[str, Site], is_learned: bool) -> dict[str, PyTree]:
    """The values of latent and, maybe, learned sites."""
    return {name: site["value"] for name, site in sites.items() if _is_inferred(site, is_learned)}


def _is_inferred(site: Site, is_learned: bool) -> bool:
    return (site["type"] == "sample" and not site["is_observed"]) or (is_learned and site["type"] == "param")


def _describe(site: Site, energy: EnergyDistribution, is_compared: bool) -> EnergySite:
    if isinstance(site["fn"], MaskedEnergy):
        site["fn"].check_mask(site["value"])
    return EnergySite(
        name=site["name"],
        family=energy.description,
        is_observed=site["is_observed"],
        is_normalized=energy.normaliser.is_known,
        is_guarded=energy.normaliser.is_guarded,
        is_compared=is_compared,
    )


def _density(energy: EnergyDistribution) -> jax.Array:
    """The energy of a point of its own, which depends on all that the energy is made of and on nothing else."""
    return energy.energy(energy.initial(jax.random.key(0), energy.batch_shape))


def _trace(model: Model, values: Mapping[str, PyTree], args: ModelArgs, kwargs: ModelKwargs) -> dict[str, Site]:
    return trace(substitute(seed(model, jax.random.key(0)), data=dict(values))).get_trace(*args, **kwargs)


def _energies(site: Site) -> list[tuple[EnergyDistribution, bool]]:
    if site["type"] != "sample":
        return []
    return list(contained(site["fn"], Distribution, EnergyDistribution, WithoutPartition))


# ---------------------------------------------------------------------- what depends on what


def _origins(jaxpr: Jaxpr, inputs: Sequence[_Names]) -> list[_Names]:
    """The names that every output of a traced function depends on, given those of its inputs."""
    known: dict[Var, _Names] = dict(zip(jaxpr.invars, inputs, strict=True))
    of: Callable[[Var | Literal], _Names] = lambda var: (
        frozenset() if isinstance(var, Literal) else known.get(var, frozenset())
    )
    for equation in jaxpr.eqns:
        outputs = _equation_origins(equation, [of(var) for var in equation.invars])
        known.update(zip(equation.outvars, outputs, strict=True))
    return [of(var) for var in jaxpr.outvars]


def _equation_origins(equation: JaxprEqn, inputs: Sequence[_Names]) -> list[_Names]:
    """Of a call of one function, input by input; of anything else, loops and branches included, all of them."""
    functions = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in equation.params.values()]
    functions = [function for function in functions if isinstance(function, Jaxpr)]
    if len(functions) == 1 and equation.primitive.name not in _LOOPS:
        function = functions[0]
        if (len(function.invars), len(function.outvars)) == (len(inputs), len(equation.outvars)):
            return _origins(function, inputs)
    return [_join(inputs)] * len(equation.outvars)


def _join(names: Iterable[_Names]) -> _Names:
    return frozenset().union(*names)
