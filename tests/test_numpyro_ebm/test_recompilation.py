"""Functions that are made anew for every call are compiled anew for every call, and say so."""

import functools
import gc
import threading
import warnings
import weakref

import jax
import jax.numpy as jnp
import pytest

from _ppl_ebm.functions import MAX_FUNCTIONS, count_functions
from numpyro_ebm import CausalAutoencoder, NeuralEnergy

pytestmark = pytest.mark.numpyro

MESSAGE = rf"expected one function for all calls, got the {MAX_FUNCTIONS}th that .*test_recompilation.py:\d+ made"


def _cross(distribution):
    """What every compiled function does with its arguments first."""
    return jax.tree.flatten(distribution)[1]


def test_every_new_function_is_compiled_anew():
    """The oracle: the same function is traced once, new ones every time."""
    traced = []

    @jax.jit
    def energy(distribution):
        traced.append(1)
        return distribution.energy(jnp.ones(2))

    same = lambda v: jnp.sum(v**2)
    for _ in range(3):
        energy(NeuralEnergy(same, (2,)))
        energy(NeuralEnergy(jax.tree_util.Partial(lambda a, v: a * jnp.sum(v), jnp.ones(())), (2,)))
    assert len(traced) == 1 + 3


def _lambda(k):
    return lambda v: k * jnp.sum(v**2)


def _partial(k):
    return functools.partial(lambda a, v: a * jnp.sum(v**2), k)


def _tree_partial(k):
    return jax.tree_util.Partial(lambda a, v: a * jnp.sum(v**2), jnp.asarray(float(k)))


@pytest.mark.parametrize("make", [_lambda, _partial, _tree_partial])
def test_a_place_that_makes_many_functions_is_told_once(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in range(MAX_FUNCTIONS - 1):
            _cross(NeuralEnergy(make(k), (2,)))
        for _ in range(3):
            NeuralEnergy(make(0), (2,))  # made, not compiled
    with pytest.warns(UserWarning, match="energy_fn: " + MESSAGE):
        _cross(NeuralEnergy(make(0), (2,)))
    for k in range(MAX_FUNCTIONS):
        _cross(NeuralEnergy(make(k), (2,)))


def test_networks_that_reconstruct_are_counted_too():
    make = lambda: lambda v: jnp.concatenate([jnp.zeros(1), v[:-1]])
    for _ in range(MAX_FUNCTIONS - 1):
        _cross(CausalAutoencoder(make(), (2,)))
    with pytest.warns(UserWarning, match="reconstruct: " + MESSAGE):
        _cross(CausalAutoencoder(make(), (2,)))


def test_functions_that_are_made_once_are_not_told():
    """However often they are compiled, with whatever arrays, or as a method."""

    def scaled(scale, v):
        return scale * jnp.sum(v**2)

    class Model:
        def energy(self, v):
            return jnp.sum(v**2)

    same, model = (lambda v: jnp.sum(v**2)), Model()
    for k in range(2 * MAX_FUNCTIONS):
        _cross(NeuralEnergy(same, (2,)))
        _cross(NeuralEnergy(jax.tree_util.Partial(scaled, jnp.asarray(float(k))), (2,)))
        _cross(NeuralEnergy(model.energy, (2,)))


def test_counting_keeps_no_function_alive():
    make = lambda: lambda v: v
    function = make()
    seen = weakref.ref(function)
    count_functions("energy_fn", [function], stacklevel=1)
    del function
    gc.collect()
    assert seen() is None
    for _ in range(MAX_FUNCTIONS - 2):  # whose addresses come back
        count_functions("energy_fn", [make()], stacklevel=1)
    with pytest.warns(UserWarning, match=MESSAGE):
        count_functions("energy_fn", [make()], stacklevel=1)


def test_threads_count_together():
    make = lambda: lambda v: v

    def count():
        for _ in range(MAX_FUNCTIONS // 5):
            count_functions("energy_fn", [make()], stacklevel=1)

    with warnings.catch_warnings(record=True, action="always") as found:
        threads = [threading.Thread(target=count) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 1
