"""Energies given by any function or network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_ebm.distributions.normaliser import LogPartition
from numpyro_ebm.distributions.parts.networks import CallableEnergy
from numpyro_ebm.sampling.protocols import Sampler


class NeuralEnergy(CallableEnergy):
    r"""A distribution with density proportional to ``exp(-energy_fn(v))`` for any JAX function or network.

    The partition function is unknown unless one is given, so ``log_prob`` is guarded: it may be differentiated in the
    value, and differentiating it in the network's parameters, or in anything that ``energy_fn`` closes over, raises.
    Whether ``exp(-energy_fn)`` can be normalised at all is the caller's business.

    A function is compiled once, and a new one anew: make it once, outside of loops, and give arrays that change as a
    ``jax.tree_util.Partial(function, arrays)`` or in a network. The thirtieth function of one place in the program that
    is about to be compiled is warned of.

    :param energy_fn: maps **one** value of shape ``event_shape`` to a scalar (a function of batches ``(..., D)`` does
        so too): a plain function, a flax.nnx or equinox module, or any callable pytree. Its arrays become data leaves
        of the distribution, the rest static structure, so it crosses ``jit``, ``vmap``, ``scan`` and pickle.
    :param event_shape: shape of one value, a tuple of positive integers.
    :param log_partition: normaliser policy: ``"auto"`` and ``None`` mean unknown; a constant or an estimator.
    :param independent: that the models of a batch are never compared, whatever is known of their normalisers.
    :param sampler: ``Hamiltonian()`` (default) or ``Langevin()``.
    :raises TypeError: if ``energy_fn`` is not callable or ``event_shape`` is not a tuple of positive integers.
    :raises ValueError: on first use, if ``energy_fn`` does not return a scalar.

    >>> import jax, jax.numpy as jnp
    >>> from numpyro_ebm import NeuralEnergy
    >>> ring = NeuralEnergy(lambda v: 4 * (jnp.sum(v**2) - 1) ** 2, (2,))
    >>> ring.sample(jax.random.key(0), (3,)).shape
    (3, 2)
    >>> print(ring.score(jnp.array([1.0, 1.0])))
    [-16. -16.]
    """

    def __init__(
        self,
        energy_fn: Callable[[jax.Array], jax.Array],
        event_shape: tuple[int, ...],
        *,
        log_partition: LogPartition = "auto",
        independent: bool = False,
        sampler: Sampler | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._store_callable(energy_fn, event_shape)
        super().__init__(
            {},
            event_shape=event_shape,
            log_partition=log_partition,
            independent=independent,
            sampler=sampler,
            validate_args=validate_args,
        )

    @property
    def energy_fn(self) -> Callable[[jax.Array], jax.Array]:
        """The function or network."""
        return self._callable

    def _energy(self, value: jax.Array) -> jax.Array:
        energy = self.energy_fn(value)
        if jnp.shape(energy) != ():
            raise ValueError(
                f"energy_fn: expected a scalar for a value of shape {value.shape}, got shape {jnp.shape(energy)}"
            )
        return energy
