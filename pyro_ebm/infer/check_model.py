"""A test of whole programs, before inference: does it need normalisers that are not known?

A distribution sees from inside that it is differentiated in a parameter, or that one value meets several models. It
does not see a mixture of separate objects, an index that a kernel draws, a branch through which no gradient flows,
importance weights, or an exponent that is learned. :func:`check_model` follows what every energy depends on.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

from _ppl_ebm.dependence import EnergySite, OnUnknown, check_choice, contained, judge
from _ppl_ebm.shapes import check_masked
from pyro_ebm.distributions.capabilities import WithoutPartition
from pyro_ebm.distributions.energy import EnergyDistribution
from pyro_ebm.sampling.types import Model, ModelArgs, ModelKwargs, PyTree, Site

_NUM_REDRAWS = 20
_Names = frozenset[str]
_NONE: _Names = frozenset()


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
    its parameters depend on? Dependence is followed through every torch function, discrete values and ``torch.where``
    included, not only through gradients; and through branches of Python, where another draw of the site from its
    distribution changes the energy (20 are tried). Learning criteria need no normaliser and are not looked into.

    :param model: a Pyro model.
    :param args: its arguments.
    :param guide: a guide with the same arguments, whose energies are looked at too.
    :param on_unknown: ``"error"``, or ``"warn"`` for a warning at every such site.
    :param kwargs: keyword arguments of the model.
    :return: what was found, site by site; those of the guide last.
    :raises IntractablePartitionError: naming the first site whose parameters depend on a latent or learned one, that is
        compared with others in a mixture, or whose exponent is learned, while its normaliser is not known.
    :raises ValueError: for another ``on_unknown``; where a mask would count one value of an energy several times.

    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro_ebm import BernoulliRBM
    >>> from pyro_ebm.infer import check_model
    >>> weights = torch.stack([torch.zeros(20, 17), 0.5 * torch.ones(20, 17)])
    >>> def model(x):
    ...     k = pyro.sample("k", dist.Categorical(torch.full((2,), 0.5)))
    ...     pyro.sample("v", BernoulliRBM(weights[k], log_partition=None), obs=x)
    >>> check_model(model, torch.zeros(20))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    _ppl_ebm.errors.IntractablePartitionError: site 'v': the partition function of BernoulliRBM is not known, and it ...
    """
    check_choice(on_unknown)
    found = energy_sites(model, args, kwargs)
    if guide is not None:
        found += energy_sites(guide, args, kwargs)
    judge(found, "pyro_ebm", on_unknown)
    return found


def check_sampled(model: Model, args: ModelArgs, kwargs: ModelKwargs, *, cancels: bool = False) -> None:
    """Refuse a model in whose posterior a kernel would need normalisers that are not known.

    :param cancels: whether those of observed energies cancel in the kernel.
    :raises IntractablePartitionError: as :func:`check_model` does, of dependence on latent sites.
    """
    judge(energy_sites(model, args, kwargs, is_learned=False), "pyro_ebm", "error", cancels)


def energy_sites(model: Model, args: ModelArgs, kwargs: ModelKwargs, is_learned: bool = True) -> tuple[EnergySite, ...]:
    """The energies at the sites of a program.

    :param is_learned: whether parameters are learned, and not constants.
    """
    with _without_traces():
        origins = Origins()
        with _Labels(origins, is_learned), origins:
            nodes = poutine.trace(model).get_trace(*args, **kwargs).nodes
            found = [
                _describe(node, energy, is_compared, origins)
                for node in nodes.values()
                for energy, is_compared in _energies(node)
            ]
        suspects = origins.decided if found else _NONE
        moved = _moved_by_branches(model, args, kwargs, nodes, suspects)
    return tuple(
        site._replace(depends_on=tuple(sorted({*site.depends_on, *moved.get(site.name, _NONE)}))) for site in found
    )


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """Leaves random numbers, parameters and outer handlers as they were; nothing is checked or differentiated."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    parameters = pyro.get_param_store()
    with (
        torch.random.fork_rng(devices),
        parameters.scope(parameters.get_state()),
        pyro.validation_enabled(False),
        poutine.block(),
        torch.no_grad(),
    ):
        yield


def _describe(node: Site, energy: EnergyDistribution, is_compared: bool, origins: "Origins") -> EnergySite:
    name, normaliser, fn = node["name"], energy.normaliser, node["fn"]
    if isinstance(node["mask"], torch.Tensor):  # which the host puts on log_prob, where no distribution sees it
        lead = tuple(node["value"].shape)[: node["value"].dim() - fn.event_dim]
        check_masked(f"{energy.description} at site {name!r}", tuple(node["mask"].shape), lead, tuple(fn.batch_shape))
    return EnergySite(
        name=name,
        family=energy.description,
        is_observed=node["is_observed"],
        is_normalized=normaliser.is_known,
        is_guarded=normaliser.is_guarded,
        depends_on=tuple(sorted(origins.of(_density(energy)) - {name})),
        is_compared=is_compared,
        scaled_by=tuple(sorted(origins.of(node["scale"]))),
    )


def _energies(node: Site) -> list[tuple[EnergyDistribution, bool]]:
    if node["type"] != "sample":
        return []
    return list(contained(node["fn"], Distribution, EnergyDistribution, WithoutPartition))


def _density(energy: EnergyDistribution) -> torch.Tensor:
    """The energy of a point of its own, which depends on all that the energy is made of and on nothing else."""
    return energy.energy(energy.initial(tuple(energy.batch_shape)))


# ---------------------------------------------------------------------- what depends on what


class Origins(TorchFunctionMode):
    """Follows names from tensors to all that is computed of them, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[
            int, tuple[torch.Tensor, _Names]
        ] = {}  # by identity; the tensor is kept, so that it is unique
        #: Names of what became a Python number, and may have decided a branch.
        self.decided: _Names = _NONE

    def label(self, tensor: torch.Tensor, names: _Names) -> None:
        """Add names to those of a tensor."""
        self._names[id(tensor)] = (tensor, self.of(tensor) | names)

    def of(self, value: PyTree) -> _Names:
        """The names of all tensors in nested containers."""
        return frozenset().union(*(self._names.get(id(tensor), (None, _NONE))[1] for tensor in _tensors(value)))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        if func is torch.broadcast_tensors:
            for before, after in zip(_tensors(args), _tensors(output), strict=True):
                self.label(after, self.of(before))
            return output
        names = self.of((args, kwargs))
        if not names:
            return output
        changed = [*_tensors(output)]
        if (
            getattr(func, "__name__", "").rstrip("_") != getattr(func, "__name__", "")
            or func is torch.Tensor.__setitem__
        ):
            changed.append(args[0])  # in place
        for tensor in changed:
            self.label(tensor, names)
        if isinstance(output, bool | int | float) or func is torch.Tensor.tolist:
            self.decided |= names
        return output


class _Labels(Messenger):
    """Labels the values of latent and learned sites with the names of their sites."""

    def __init__(self, origins: Origins, is_learned: bool) -> None:
        super().__init__()
        self._origins, self._is_learned = origins, is_learned

    def _pyro_post_sample(self, msg: Site) -> None:
        if _is_drawn(msg):
            self._label(msg)

    def _pyro_post_param(self, msg: Site) -> None:
        if self._is_learned:
            self._label(msg)

    def _label(self, msg: Site) -> None:
        for tensor in _tensors(msg["value"]):
            self._origins.label(tensor, frozenset([msg["name"]]))


def _tensors(value: PyTree) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _moved_by_branches(
    model: Model, args: ModelArgs, kwargs: ModelKwargs, nodes: Mapping[str, Site], suspects: _Names
) -> dict[str, _Names]:
    """By energy site, the latent sites of which other draws change the energy, all other values held."""
    values = {name: node["value"] for name, node in nodes.items() if _is_drawn(node)}
    held = _held(model, args, kwargs, values) if suspects else {}
    moved: dict[str, _Names] = {}
    for suspect in suspects & set(values):
        for value in nodes[suspect]["fn"].sample((_NUM_REDRAWS,)):
            changed = _held(model, args, kwargs, {**values, suspect: value})
            for name, energies in held.items():
                if not _equal(energies, changed.get(name, [])):
                    moved[name] = moved.get(name, _NONE) | {suspect}
    return moved


def _is_drawn(node: Site) -> bool:
    return node["type"] == "sample" and not node["is_observed"] and not site_is_subsample(node)


def _held(
    model: Model, args: ModelArgs, kwargs: ModelKwargs, values: Mapping[str, torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """The energies of the program at given values, with the same random numbers at every call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        nodes = poutine.trace(poutine.condition(model, data=dict(values))).get_trace(*args, **kwargs).nodes
    found = {}
    for name, node in nodes.items():
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            if energies := [_density(energy) for energy, _ in _energies(node)]:
                found[name] = energies
    return found


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))
