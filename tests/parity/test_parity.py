"""The two packages against each other: the same numbers to 1e-10 in float64, the same names and the same defaults."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("torch")

from backends import NumPyroBackend, PyroBackend
from families.cases import CONTINUOUS, FAMILIES, make, parameters, values

pytestmark = [pytest.mark.numpyro, pytest.mark.pyro]

BACKENDS = (NumPyroBackend(), PyroBackend())
TOLERANCE = {np.float64: {"rtol": 1e-10, "atol": 1e-10}, np.float32: {"rtol": 1e-4, "atol": 1e-4}}


def _both(compute):
    return [backend.numpy(compute(backend)) for backend in BACKENDS]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["energy", "unnormalized_log_prob", "log_prob", "score", "laplacian"])
def test_functions_of_a_value(family, method, dtype):
    p = parameters(family, 5, 4)
    points = values(family, p)

    def compute(backend):
        arguments = {name: backend.array(value, dtype) for name, value in p.arguments(family).items()}
        return getattr(getattr(backend.distributions, family)(**arguments), method)(backend.array(points, dtype))

    first, second = _both(compute)
    assert first.dtype == second.dtype == dtype
    np.testing.assert_allclose(first, second, **TOLERANCE[dtype])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["log_partition", "mean", "variance", "base_log_partition"])
def test_properties(family, name):
    p = parameters(family, 5, 4)
    first, second = _both(lambda backend: getattr(make(backend, family, p), name))
    np.testing.assert_allclose(first, second, **TOLERANCE[np.float64])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_likelihood(family):
    p = parameters(family, 5, 4)
    points = values(family, p)
    arguments = p.arguments(family)

    def gradients(backend):
        cls = getattr(backend.distributions, family)
        objective = lambda *leaves: (
            cls(**dict(zip(arguments, leaves, strict=True))).log_prob(backend.array(points)).mean()
        )
        return backend.grad(objective, *map(backend.array, arguments.values()))

    for first, second in zip(*map(gradients, BACKENDS), strict=True):
        np.testing.assert_allclose(first, second, **TOLERANCE[np.float64])


@pytest.mark.parametrize("family", CONTINUOUS)
def test_score_matching(family):
    p = parameters(family, 5, 4)
    points = values(family, p)

    def compute(backend):
        return backend.objectives.ScoreMatching(make(backend, family, p)).log_prob(backend.array(points))

    np.testing.assert_allclose(*_both(compute), **TOLERANCE[np.float64])


@pytest.mark.parametrize("family", FAMILIES)
def test_condition(family):
    p = parameters(family, 5, 4)
    points = values(family, p)

    def compute(backend):
        conditional = make(backend, family, p).condition([3, 0], backend.array(points[:, [3, 0]]))
        return conditional.log_prob(backend.array(points[:, [1, 2, 4]]))

    np.testing.assert_allclose(*_both(compute), **TOLERANCE[np.float64])


def test_both_packages_have_the_same_public_names():
    first, second = (backend.ebm for backend in BACKENDS)
    assert sorted(first.__all__) == sorted(second.__all__)
    assert first.__version__ == second.__version__
    for name in ("diagnostics", "distributions", "infer", "objectives", "testing", "variational"):
        batched = {"HMC", "NUTS", "BatchedMCMC"} if name == "infer" else set()  # NumPyro's own run batches of chains
        assert set(getattr(first, name).__all__) == set(getattr(second, name).__all__) - batched
    # random numbers are NumPyro's alone
    only_numpyro = {"sampling.keys"}
    # NumPyro has kernels of its own, and its MCMC runs batches of chains
    only_pyro = {"infer.mcmc", "infer.hamiltonian"}

    def modules(package):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        return {module.name.removeprefix(f"{package.__name__}.") for module in found}

    assert modules(first) - only_numpyro == modules(second) - only_pyro


HOST_ARGUMENTS = {"rng_key", "key", "intermediates", "_instance", "init_strategy", "devices", "group", "seed"}
HOST_ARGUMENTS |= {"key_data", "generator_states"}  # of a ChainState
KERNELS = {"MALA", "ULA", "UnderdampedLangevin", "BlockGibbs", "ParallelTempering", "Exchange"}
HOST_MEMBERS = {
    *("key_data", "generator_states", "seed"),
    *("forward", "median", "extra_repr", "pseudo_inputs"),  # a torch.nn.Module is called, bound, learned in place
    *("tree_flatten", "tree_unflatten", "gather_pytree_data_fields", "gather_pytree_aux_fields", "rng_key"),
    *("pytree_data_fields", "pytree_aux_fields", "validate_args", "has_rsample", "has_enumerate_support"),
    *(
        "energy_fn",
        "device",
        "is_discrete",
        "dtype",
        "support",
        "arg_constraints",
        "sample",
        "seeded",
        "check",
        "run",
        "tune",
    ),
}

#: Of energies in torch alone, which keeps a graph unless it is told not to: never there in NumPyro.
ONLY_TORCH = {"frozen", "needs_graph", "parameter_gradient"}


def _signatures(package, name, others=frozenset()):
    """Argument names and defaults of a public object and its public methods, without what only one host has.

    :param others: methods that the other package's class defines, and this one may inherit.
    """
    owner = getattr(package, name)
    members = {"": owner}
    if inspect.isclass(owner) and name not in KERNELS:  # whose methods are the hosts' contracts
        own = {key for key in vars(owner) if not key.startswith("_")}
        members |= {key: getattr(owner, key) for key in own | others if hasattr(owner, key)}
    signatures = {}
    for key, member in members.items():
        if callable(member):
            arguments = inspect.signature(member).parameters.values()
            signatures[key] = [(a.name, repr(a.default), a.kind) for a in arguments if a.name not in HOST_ARGUMENTS]
        else:
            signatures[key] = type(member).__name__
    return signatures


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module in ("distributions", "objectives", "infer", "diagnostics", "testing", "variational")
        for name in getattr(BACKENDS[0].ebm, module).__all__
        if not name.endswith("Error")
    ],
)
def test_both_packages_have_the_same_arguments_and_defaults(module, name):
    packages = [importlib.import_module(f"{backend.ebm.__name__}.{module}") for backend in BACKENDS]
    defined = {key for package in packages for key in _signatures(package, name)} - {""}
    first, second = (_signatures(package, name, defined) for package in packages)
    assert not ONLY_TORCH & first.keys()
    for key in (first.keys() | second.keys()) - HOST_MEMBERS - ONLY_TORCH:
        assert first.get(key) == second.get(key), key
