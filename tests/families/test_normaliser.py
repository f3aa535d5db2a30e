"""The normaliser of a distribution: one object, what it allows, and an exact value that is computed once."""

import copy
import importlib
import pickle

import numpy as np
import pytest

from families.cases import FAMILIES, make, parameters, values
from oracles import rbm as oracle

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def sums(backend, monkeypatch):
    """A list that grows by one with every sum over states."""
    module = importlib.import_module(f"{backend.ebm.__name__}.distributions.normaliser")
    counted = []
    if backend.name == "numpyro":
        compute = module._exact_log_partition
        monkeypatch.setattr(module, "_exact_log_partition", lambda d: (counted.append(d), compute(d))[1])
    else:
        module._COMPUTED.clear()
        base = backend.distributions.EnergyDistribution
        compute = base.exact_log_partition
        monkeypatch.setattr(base, "exact_log_partition", lambda d: (counted.append(d), compute(d))[1])
    return counted


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_value_is_computed_once(backend, family, sums):
    p = parameters(family)
    distribution, points = make(backend, family, p), backend.array(values(family, p))
    first = backend.numpy(distribution.log_prob(points))
    again = backend.numpy(distribution.log_prob(points))
    expanded = backend.numpy(distribution.expand((2, 1)).log_prob(points))
    assert len(sums) == 1
    np.testing.assert_array_equal(again, first)
    np.testing.assert_allclose(expanded, np.broadcast_to(first, (2, len(first))), **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_parameters_are_another_sum(backend, family, sums):
    p = parameters(family)
    distribution = make(backend, family, p)
    assert abs(float(distribution.log_partition) - oracle.log_partition(family, p)) < 1e-10
    p.hidden_bias = p.hidden_bias + 0.5
    other = distribution.replace(hidden_bias=backend.array(p.hidden_bias))
    assert abs(float(other.log_partition) - oracle.log_partition(family, p)) < 1e-10
    assert len(sums) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_with_another_parameter_is_another_sum(backend, family):
    """Copies share their normaliser, and criteria set parameters of copies."""
    p = parameters(family)
    distribution = make(backend, family, p)
    assert abs(float(distribution.log_partition) - oracle.log_partition(family, p)) < 1e-10
    p.hidden_bias = p.hidden_bias + 0.5
    other = copy.copy(distribution)
    other.hidden_bias = backend.array(p.hidden_bias)
    assert abs(float(other.log_partition) - oracle.log_partition(family, p)) < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_sum_also_after_it_is_known(backend, family):
    """<phi>_data - <phi>_model, here of log Z alone: the same with a fresh distribution and with one that was used."""
    p = parameters(family)
    array = backend.array(p.hidden_bias)

    def log_partition(bias):
        distribution = make(backend, family, p)
        distribution.log_prob(backend.array(values(family, p)))
        return distribution.replace(hidden_bias=bias).log_partition

    (used,) = backend.grad(log_partition, array)
    expected = oracle.finite_difference(
        lambda bias: oracle.log_partition(family, type(p)(p.weights, p.visible_bias, bias, p.scale)), p.hidden_bias
    )[0]
    np.testing.assert_allclose(used, expected, atol=1e-7)


def test_a_change_in_place_is_another_sum(backend, sums):
    """In torch, by an operation that autograd sees and by one that it does not."""
    if backend.name == "numpyro":
        pytest.skip("JAX's arrays do not change")
    p = parameters("BernoulliRBM")
    distribution = make(backend, "BernoulliRBM", p)
    for change in (lambda w: w.mul_(0.5), lambda w: w.data.mul_(0.5)):
        distribution.log_partition  # noqa: B018
        change(distribution.weights)
        p.weights = 0.5 * p.weights
        assert abs(float(distribution.log_partition) - oracle.log_partition("BernoulliRBM", p)) < 1e-10
    assert len(sums) == 3


def test_a_distribution_made_in_a_model_is_summed_once(backend, sums):
    """Hosts call a model at every step; NumPyro traces it, Pyro makes the distribution anew."""
    p = parameters("GaussianBernoulliRBM")
    points = backend.array(values("GaussianBernoulliRBM", p))
    arrays = {name: backend.array(value) for name, value in p.arguments("GaussianBernoulliRBM").items()}
    log_prob = lambda: backend.distributions.GaussianBernoulliRBM(**arrays).log_prob(points)
    run = backend.compiled(log_prob)
    found = [backend.numpy(run()) for _ in range(3)]
    assert len(sums) == 1
    np.testing.assert_allclose(found[2], backend.numpy(log_prob()), **TOLERANCE)


def test_traced_parameters_are_summed_where_they_are_traced(backend):
    """A distribution that crosses jit as an argument takes no value along: other parameters get their own sum."""
    if backend.name == "pyro":
        pytest.skip("torch's distributions are no pytrees")
    import jax

    p = parameters("BernoulliRBM")
    first = make(backend, "BernoulliRBM", p)
    log_partition = jax.jit(lambda d: d.log_partition)
    for scale in (1.0, 2.0):
        moved = jax.tree.map(lambda leaf, scale=scale: scale * leaf, first)
        q = type(p)(scale * p.weights, scale * p.visible_bias, scale * p.hidden_bias, p.scale)
        expected = oracle.log_partition("BernoulliRBM", q)
        np.testing.assert_allclose(log_partition(moved), expected, **TOLERANCE)
        np.testing.assert_allclose(moved.log_partition, expected, **TOLERANCE)
    gradient = jax.grad(lambda d: d.log_partition)(first)
    expected = oracle.finite_difference(
        lambda bias: oracle.log_partition("BernoulliRBM", type(p)(p.weights, bias, p.hidden_bias, p.scale)),
        p.visible_bias,
    )[0]
    np.testing.assert_allclose(gradient.visible_bias, expected, atol=1e-7)


def test_constants_are_checked_also_where_they_are_traced_over(backend):
    """NumPy arrays and JAX arrays in a compiled function are known when it is traced."""
    weights = backend.array([[1.0]])
    for scale in (-1.0, backend.array(-1.0), np.array(-1.0)):
        made = lambda scale=scale: backend.distributions.GaussianBernoulliRBM(weights, scale=scale).weights
        with pytest.raises(ValueError, match="scale"):
            backend.compiled(made)()


POLICIES = {
    "auto": ("auto", "Exact", True, False),
    "unknown": (None, "Unknown", False, True),
    "number": (1.5, "Constant", True, True),
}


@pytest.mark.parametrize("name", POLICIES)
def test_one_object_says_what_is_known(backend, name):
    given, kind, is_known, is_guarded = POLICIES[name]
    distribution = make(backend, "BernoulliRBM", parameters("BernoulliRBM"), log_partition=given)
    assert type(distribution.normaliser).__name__ == kind
    assert (distribution.normaliser.is_known, distribution.normaliser.is_guarded) == (is_known, is_guarded)
    assert distribution.is_normalized == is_known
    assert f"log_partition={kind}()" in repr(distribution)
    restored = pickle.loads(pickle.dumps(distribution))
    assert type(restored.normaliser).__name__ == kind


@pytest.mark.parametrize(("name", "after"), [("auto", "Exact"), ("unknown", "Unknown"), ("number", "Unknown")])
def test_what_carries_over_to_other_parameters(backend, name, after):
    """A constant does not: it belongs to the parameters that it was computed for."""
    distribution = make(backend, "BernoulliRBM", parameters("BernoulliRBM"), log_partition=POLICIES[name][0])
    assert type(distribution.replace(visible_bias=0.5).normaliser).__name__ == after
    assert type(distribution.condition([0], backend.array([1.0])).normaliser).__name__ == after


def test_a_smaller_machine_may_be_exact_again(backend):
    """Too large to sum, with 17 units in both layers, and not declared unknown: exact once a unit is known."""
    large = backend.distributions.BernoulliRBM(backend.array(np.full((17, 17), 0.1)))
    assert not large.is_normalized
    assert large.condition([0], backend.array([1.0])).is_normalized
    declared = large.with_log_partition(None)
    assert not declared.condition([0], backend.array([1.0])).is_normalized


@pytest.mark.parametrize("bad", ["exact", True, "3", [1.0], object()], ids=["word", "flag", "text", "list", "object"])
def test_what_is_no_normaliser(backend, bad):
    with pytest.raises(TypeError, match="log_partition: expected"):
        make(backend, "BernoulliRBM", parameters("BernoulliRBM"), log_partition=bad)


@pytest.mark.pyro
def test_what_the_caller_does_with_the_value_is_theirs():
    """Pyro's tensors can be changed in place, and made in inference mode."""
    import torch

    from backends import get_backend

    backend, p = get_backend("pyro"), parameters("BernoulliRBM", seed=11)
    with torch.inference_mode():
        right = float(make(backend, "BernoulliRBM", p).log_partition)
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    (factor * make(backend, "BernoulliRBM", p).log_partition).backward()
    make(backend, "BernoulliRBM", p).log_partition.add_(1.0)
    assert float(make(backend, "BernoulliRBM", p).log_partition) == float(factor.grad) == right
