"""Densities of unknown normaliser are not compared with one another: one value under several of them raises."""

import importlib

import numpy as np
import pytest

MATCH = "one value meets 2 different models along batch dimension -1"
WEIGHTS = np.stack([np.zeros((20, 17)), 0.5 * np.ones((20, 17))])
VALUE = np.array([1.0] * 5 + [0.0] * 15)


def machines(backend, log_partition=None, **options):
    return backend.distributions.BernoulliRBM(backend.array(WEIGHTS), log_partition=log_partition, **options)


def normal_machines(backend, **options):
    weights = backend.array(np.stack([np.ones((2, 3)), -0.5 * np.ones((2, 3))]))
    return backend.distributions.GaussianBernoulliRBM(weights, **{"log_partition": None, **options})


def error(backend):
    return pytest.raises(backend.ebm.IntractablePartitionError, match=MATCH)


def log_partitions():
    """Of both machines: log 2^37, and a sum over the number of visible units that are on."""
    from scipy.special import gammaln, logsumexp

    on = np.arange(21)
    log_binomial = gammaln(21) - gammaln(on + 1) - gammaln(21 - on)
    return np.array([37 * np.log(2), logsumexp(log_binomial + 17 * np.logaddexp(0, 0.5 * on))])


def test_the_class_of_a_value(backend):
    """Class posteriors of two machines whose log Z is 25.6 and 170.0: (1, 0), and (0, 1) without them."""
    np.testing.assert_allclose(log_partitions(), [25.646, 170.0], atol=0.05)
    value = backend.array(VALUE)
    for values in (value, value[None], value[None, None]):
        with error(backend):
            machines(backend).log_prob(values)
    known = machines(backend, backend.array(log_partitions()))
    odds = np.diff(backend.numpy(known.log_prob(value)))
    assert odds < -30


def test_one_constant_for_several_models(backend):
    for constant in (3.0, backend.array(np.full(1, 3.0))):
        with error(backend):
            machines(backend, constant).log_prob(backend.array(VALUE))
    machines(backend, 3.0).log_prob(backend.array(np.stack([VALUE, VALUE])))


def test_models_along_some_dimensions(backend):
    """Two by three models, the constants known along the threes alone."""
    weights = backend.array(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    family = backend.distributions.GaussianBernoulliRBM
    value = backend.array(np.zeros((2, 1, 4)))
    with pytest.raises(
        backend.ebm.IntractablePartitionError, match="meets 3 different models along batch dimension -1"
    ):
        family(weights, log_partition=None).log_prob(value)
    family(weights, log_partition=backend.array(np.zeros(3))).log_prob(value)
    with pytest.raises(
        backend.ebm.IntractablePartitionError, match="meets 2 different models along batch dimension -2"
    ):
        family(weights, log_partition=backend.array(np.zeros(3))).log_prob(value[0])


def test_mixtures(backend):
    host = importlib.import_module(f"{backend.name}.distributions")
    probs = backend.array(np.array([0.5, 0.5]))
    value = backend.array(np.array([0.5, -0.5]))
    mixture = host.MixtureSameFamily(host.Categorical(probs=probs), normal_machines(backend))
    for values in (value, value[None]):
        with error(backend):
            mixture.log_prob(values)
    exact = host.MixtureSameFamily(host.Categorical(probs=probs), normal_machines(backend, log_partition="auto"))
    separate = normal_machines(backend, log_partition="auto").log_prob(value)
    np.testing.assert_allclose(
        backend.numpy(exact.log_prob(value)), np.log(0.5 * np.exp(backend.numpy(separate)).sum()), atol=1e-10
    )


def test_independent_models(backend):
    """What a sum over machines means does not change with their constants."""
    value = backend.array(VALUE)
    machine = machines(backend, independent=True)
    np.testing.assert_array_equal(backend.numpy(machine.log_prob(value)), -backend.numpy(machine.energy(value)))
    for other in (machine.replace(visible_bias=0.5), machine.with_log_partition(None), machine.expand((3, 2))):
        other.log_prob(value)
    with error(backend):
        machine.with_log_partition(None, independent=False).log_prob(value)
    with pytest.raises(TypeError, match="independent: expected True or False, got 1"):
        machines(backend, independent=1)


def test_what_compares_nothing(backend):
    """Plates, draws of the same models, batches of inputs and of conditions."""
    machine = normal_machines(backend)
    value = backend.array(np.zeros((2, 2)))
    for values in (value, value[None], backend.array(np.zeros((7, 2, 2)))):
        machine.log_prob(values)
    machine.log_prob(backend.array(backend.sample(machine, 0, (10,))))
    single = backend.distributions.GaussianBernoulliRBM(backend.array(np.ones((2, 3))), log_partition=None)
    single.log_prob(backend.array(np.zeros(2)))
    single.expand((4,)).log_prob(backend.array(np.zeros(2)))
    noisy = single.condition_on_noisy(backend.array(np.zeros((5, 2))), 1.0)
    noisy.log_prob(backend.array(np.zeros((5, 2))))
    held = single.condition([0], backend.array(np.zeros((5, 1))))
    held.log_prob(backend.array(np.zeros((5, 1))))
    gated = backend.distributions.GatedRBM(
        backend.array(np.ones((6, 3))),
        backend.array(np.ones((3, 2))),
        backend.array(np.ones((2, 2))),
        backend.array(np.ones((2, 4))),
        log_partition=None,
    )
    gated.log_prob(backend.array(np.zeros((6, 2))))
