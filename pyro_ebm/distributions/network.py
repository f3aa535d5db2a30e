"""Energies of autoencoders given by any network: integrated, gradient-step and causal ones."""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributions import constraints

from pyro_ebm.distributions.neural import CallableEnergy, captured
from pyro_ebm.distributions.tensors import as_tensor, in_function_transform, is_concrete, pullback
from pyro_ebm.infer.checks import check_positive_int
from pyro_ebm.infer.samplers import Sampler
from pyro_ebm.infer.steps import sum_event

_Network = Callable[[torch.Tensor], torch.Tensor]
_NUM_PROBES = 3
_PROBED: weakref.WeakKeyDictionary[Any, dict[Any, np.ndarray]] = weakref.WeakKeyDictionary()


class NetworkAutoencoder(CallableEnergy):
    """The family's base: a network that reconstructs, called on batches of values of shape ``event_shape``."""

    callable_name = "reconstruct"

    def _network(self, value: torch.Tensor) -> torch.Tensor:
        output = self._callable(value)
        shape = getattr(output, "shape", None)
        if shape != value.shape:
            got = type(output).__name__ if shape is None else tuple(shape)
            raise ValueError(f"reconstruct: expected an output of shape {tuple(value.shape)}, got {got}")
        return output

    _evaluate = _network

    def _pullback(self, value: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """The network's output and its vector-Jacobian product, with a graph only where it may be needed."""
        graph = in_function_transform() or self._needs_graph(value)
        output, product = pullback(self._network, value, graph)
        return output if graph else output.detach(), product

    def _store_parameters(self, parameters: Mapping[str, Any], sizes: dict[str, int]) -> torch.Size:
        cast = {name: self._cast(name, parameters[name]) for name in self.parameter_dims}
        return super()._store_parameters({**parameters, **cast}, sizes)

    def _cast(self, name: str, parameter: Any) -> Any:
        """A parameter of the network's type, on its device; the base refuses what is not real."""
        value = self.parameter_defaults[name] if parameter is None else parameter
        is_whole_number = isinstance(value, int) and not isinstance(value, bool)
        tensor = as_tensor(name, float(value) if is_whole_number else value, self.device, self.dtype)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _over_event(self, parameter: torch.Tensor) -> torch.Tensor:
        """A number for each batch element, as a factor of values."""
        return parameter.reshape(parameter.shape + (1,) * self.event_dim)

    def reconstruct(self, value: Any) -> torch.Tensor:
        """The reconstruction r(x), shape of ``value``.

        :param value: shape ``(..., *event_shape)``.
        """
        return self._reconstruct(self._check_value(value))

    def field(self, value: Any) -> torch.Tensor:
        """``reconstruct(value) - value``."""
        value = self._check_value(value)
        return self._reconstruct(value) - value

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return self._network(value)


class LineIntegralEnergy(NetworkAutoencoder):
    r"""The potential of any autoencoder, integrated along rays (Kamyshanska & Memisevic 2013).

    .. math::

        F(x) = -\frac1T \int_0^1 V(x_0 + t (x - x_0))^\top (x - x_0) \, dt, \qquad V(x) = r(x) - x

    by Gauss-Legendre quadrature. **If and only if V is a gradient field is its potential this energy**, and then
    ``field = T score``. For any other V this is still a density, whose score is not V, and nothing along the rays can
    show the difference: measure :func:`pyro_ebm.diagnostics.asymmetry` and
    :func:`pyro_ebm.diagnostics.circulation` first. A causal network is refused, because a strictly triangular
    Jacobian is never symmetric: see :class:`CausalAutoencoder`. Whether the density is proper is the caller's business.

    :param reconstruct: r, maps a **batch** of values of shape ``(..., *event_shape)`` to the same shape (in NumPyro:
        one value): a plain function or any ``torch.nn.Module``. Its type and device are taken as in
        :class:`NeuralEnergy`.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param origin: x_0, where the energy is zero, shape ``event_shape``; default 0.
    :param num_nodes: quadrature nodes: 8 to 16 for smooth networks, 64 or more for piecewise linear ones.
    :param temperature: T, shape ``(...,)``; for a denoising autoencoder the noise **variance**; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises ValueError: if the network is causal (see :func:`dependence`; not with ``validate_args=False``), and on
        first use if its output has another shape.

    >>> import torch
    >>> from pyro_ebm import LineIntegralEnergy
    >>> energy = LineIntegralEnergy(lambda x: torch.tanh(2 * x), (2,))
    >>> print(energy.score(torch.tensor([1.0, 0.5])), energy.field(torch.tensor([1.0, 0.5])))
    tensor([-0.0360,  0.2616]) tensor([-0.0360,  0.2616])
    """

    parameter_dims = {"temperature": ()}
    parameter_defaults = {"temperature": 1.0}
    arg_constraints = {"temperature": constraints.positive}
    temperature: torch.Tensor

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        origin: Any = None,
        num_nodes: int = 16,
        temperature: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        check_positive_int("num_nodes", num_nodes)
        self.num_nodes = num_nodes
        self.origin = self._check_origin(origin, event_shape)
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(temperature, event_shape=event_shape, **options)
        if self._validate_args:
            self._refuse_causal()

    def _check_origin(self, origin: Any, event_shape: tuple[int, ...]) -> torch.Tensor:
        if origin is None:
            return torch.zeros(event_shape, dtype=self.dtype, device=self.device)
        tensor = as_tensor("origin", origin, self.device, self.dtype)
        if not tensor.is_floating_point():
            raise TypeError(f"origin: expected a real floating-point tensor, got dtype {tensor.dtype}")
        if tensor.shape != event_shape:
            raise ValueError(f"origin: expected shape {event_shape}, got {tuple(tensor.shape)}")
        return tensor.to(self.dtype)

    def _refuse_causal(self) -> None:
        depends = dependence(self._callable, self.event_shape, self._reference())
        if depends is not None and depends.any() and not (np.tril(depends).any() and np.triu(depends).any()):
            raise ValueError(
                "reconstruct: LineIntegralEnergy expected a network that may have a symmetric Jacobian, got a causal "
                "one (its Jacobian is strictly triangular), whose field has no potential; use CausalAutoencoder"
            )

    def _guarded(self, value: torch.Tensor) -> list[torch.Tensor]:
        return [*super()._guarded(value), self.origin]

    def _frozen(self) -> Any:
        frozen = super()._frozen()
        frozen.origin = self.origin.detach()
        return frozen

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        nodes, weights = (torch.as_tensor(part).to(value) for part in np.polynomial.legendre.leggauss(self.num_nodes))
        ray = value - self.origin
        points = value - 0.5 * (1 - nodes).reshape(-1, *[1] * value.dim()) * ray
        along = sum_event((self._network(points) - points) * ray, self.event_dim)
        return -0.5 * torch.tensordot(weights, along, 1) / self.temperature


class GradientStepEnergy(NetworkAutoencoder):
    r"""An energy from the residual of any network (Salimans & Ho 2021; Hurault, Leclaire & Papadakis 2022).

    .. math::

        F(x) = \frac{1}{2 \sigma^2} |x - f(x)|^2, \qquad r(x) = x - \sigma^2 \nabla F(x)

    Conservative by construction, whatever the network: the default for deep ones. ``reconstruct`` is the gradient step
    ``r``, not ``f``, so that ``field = sigma^2 score``. Whether the density is proper is the caller's business.

    :param reconstruct: f, maps a **batch** of values of shape ``(..., *event_shape)`` to the same shape.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param scale: sigma, a standard deviation, shape ``(...,)``; default 1.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.

    >>> import torch
    >>> from pyro_ebm import GradientStepEnergy
    >>> energy = GradientStepEnergy(lambda x: torch.tanh(2 * x), (2,), scale=0.5)
    >>> print(energy.energy(torch.tensor([1.0, 0.0])), energy.field(torch.zeros(2)))
    tensor(0.0026) tensor([0., 0.])
    """

    parameter_dims = {"scale": ()}
    parameter_defaults = {"scale": 1.0}
    arg_constraints = {"scale": constraints.positive}
    scale: torch.Tensor

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        scale: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(scale, event_shape=event_shape, **options)

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * sum_event((value - self._network(value)) ** 2, self.event_dim) / self.scale**2

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        output, product = self._pullback(value)
        residual = output - value
        return (residual - product(residual)) / self._over_event(self.scale) ** 2

    def _reconstruct(self, value: torch.Tensor) -> torch.Tensor:
        return value + self._over_event(self.scale) ** 2 * self._score(value)


class CausalAutoencoder(NetworkAutoencoder):
    r"""An autoregressive Gaussian model, written as the autoencoder that predicts each coordinate from those before it.

    .. math::

        F(x) = \sum_i \frac{(x_i - r_i(x_{<i}))^2}{2 \sigma_i^2}, \qquad
        \log Z = \tfrac D2 \log 2 \pi + \sum_i \log \sigma_i

    The sum of the conditionals ``Normal(r_i(x_<i), sigma_i)``: exact density, and exact draws, by default in parallel:
    with frozen noise, ``x <- r(x) + sigma noise`` reaches the ancestral draw in at most D sweeps (Jacobi decoding, Song
    et al. 2021); ``sampler=Ancestral()`` draws one coordinate after the other. ``r(x) - x`` is no gradient field.

    :param reconstruct: r, maps a **batch** of values of shape ``(..., D)`` to the same shape; output i depends on
        inputs before i only. A module with dropout belongs in evaluation mode while it draws.
    :param event_shape: ``(D,)``.
    :param scale: sigma, standard deviations, shape ``(..., D)`` or a scalar; default 1.
    :param log_partition: normaliser policy; ``"auto"`` is exact.
    :param sampler: ``Exact()`` (default), ``Ancestral()``, ``Hamiltonian()`` or ``Langevin()``.
    :raises ValueError: if the network is not causal (see :func:`dependence`; not with ``validate_args=False``), and
        on first use if its output has another shape.

    >>> import torch
    >>> from pyro_ebm import CausalAutoencoder
    >>> walk = CausalAutoencoder(lambda x: torch.nn.functional.pad(x[..., :-1], (1, 0)), (3,), scale=0.5)
    >>> walk.sample((4,)).shape
    torch.Size([4, 3])
    >>> print(f"{walk.log_prob(torch.ones(3)):.4f}")
    -2.6774
    """

    parameter_dims = {"scale": ("visible",)}
    parameter_defaults = {"scale": 1.0}
    arg_constraints = {"scale": constraints.independent(constraints.positive, 1)}
    scale: torch.Tensor

    def __init__(
        self,
        reconstruct: _Network,
        event_shape: tuple[int, ...],
        scale: Any = 1.0,
        *,
        log_partition: Any = "auto",
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(reconstruct, event_shape)
        if len(event_shape) != 1:
            raise ValueError(f"event_shape: CausalAutoencoder expected one dimension, got {event_shape}")
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__(scale, event_shape=event_shape, **options)
        if self._validate_args:
            self._check_causal()

    def _check_causal(self) -> None:
        depends = dependence(self._callable, self.event_shape, self._reference())
        if depends is not None and np.triu(depends).any():
            output, source = np.argwhere(np.triu(depends))[0]
            raise ValueError(
                "reconstruct: CausalAutoencoder expected output i to depend on inputs before i only, got output "
                f"{output} that depends on input {source}"
            )

    @property
    def has_exact_partition(self) -> bool:
        return True

    @property
    def has_exact_sampler(self) -> bool:
        return True

    def _energy(self, value: torch.Tensor) -> torch.Tensor:
        return 0.5 * (((value - self._network(value)) / self.scale) ** 2).sum(-1)

    def _score(self, value: torch.Tensor) -> torch.Tensor:
        output, product = self._pullback(value)
        residual = (output - value) / self.scale**2
        return residual - product(residual)

    def _exact_log_partition(self) -> torch.Tensor:
        return 0.5 * self.event_shape[0] * math.log(2 * math.pi) + torch.log(self.scale).sum(-1)

    def _exact_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._decode(self._noise(shape))

    def _ancestral_sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._decode_in_order(self._noise(shape))

    def _noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self.scale * torch.randn((*shape, *self.event_shape), dtype=self.dtype, device=self.device)

    def _decode(self, noise: torch.Tensor) -> torch.Tensor:
        """Sweeps ``x <- r(x) + noise`` until nothing changes, at most one for each coordinate."""
        value = self._network(torch.zeros_like(noise)) + noise
        for _ in range(noise.shape[-1] - 1):
            previous, value = value, self._network(value) + noise
            if torch.equal(value, previous):
                break
        return value

    def _decode_in_order(self, noise: torch.Tensor) -> torch.Tensor:
        """Each coordinate from those before it."""
        value = torch.zeros_like(noise)
        for i in range(noise.shape[-1]):
            drawn = self._network(value)[..., i] + noise[..., i]
            value = torch.cat([value[..., :i], drawn.unsqueeze(-1), value[..., i + 1 :]], -1)
        return value


def dependence(network: _Network, event_shape: tuple[int, ...], like: torch.Tensor) -> np.ndarray | None:
    """Which outputs change with which inputs, shape ``(D, D)`` by (output, input), at three random points.

    Modules (also those that a function closes over) are probed in evaluation mode, when they are met for the first time
    with some dependence, and changes within rounding are no change. ``None`` where the outputs cannot be looked at
    because they are traced, or tell nothing because they differ for equal inputs.

    :param like: a tensor of the network's type and device.
    """
    known = _PROBED.get(network, {})
    if event_shape not in known:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _evaluation_mode(network):
            found = _probe(network, event_shape, like)
        if found is None or not found.any():
            return found
        known[event_shape] = found
        _PROBED[network] = known
    return known[event_shape]


def _probe(network: _Network, event_shape: tuple[int, ...], like: torch.Tensor) -> np.ndarray | None:
    size = math.prod(event_shape)
    rng = np.random.default_rng(0)
    found = np.zeros((size, size), bool)
    for point, other in rng.normal(size=(_NUM_PROBES, 2, size)):
        changed = np.where(np.eye(size, dtype=bool), other, point)
        inputs = torch.as_tensor(np.stack([point, point, *changed])).to(like).reshape(-1, *event_shape)
        outputs = network(inputs)
        if not is_concrete(outputs):
            return None
        array = outputs.reshape(size + 2, size).double().cpu().numpy()
        tolerance = 100 * torch.finfo(like.dtype).eps * np.abs(array).max()
        if (np.abs(array[1] - array[0]) > tolerance).any():
            return None
        found |= (np.abs(array[2:] - array[0]) > tolerance).T
    return found


@contextlib.contextmanager
def _evaluation_mode(network: _Network) -> Iterator[None]:
    """A network's modules in evaluation mode, without the hooks of ``Module.train``."""
    modules = [module for part in captured(network) if isinstance(part, torch.nn.Module) for module in part.modules()]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
