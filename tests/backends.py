"""One face for both backends, so that a test of mathematics is written once and runs in each."""

import importlib.util
import os

import numpy as np
import pytest

# Where Pyro's half of the tests keeps its arrays (`make test-gpu`: "cuda"); JAX takes the accelerator by itself.
DEVICE = os.environ.get("PPL_EBM_DEVICE", "cpu")


class NumPyroBackend:
    name = "numpyro"

    def __init__(self):
        import numpyro_ebm

        self.ebm = numpyro_ebm
        self.distributions = numpyro_ebm.distributions
        self.infer = numpyro_ebm.infer
        self.objectives = numpyro_ebm.objectives

    def array(self, value, dtype=np.float64):
        import jax.numpy as jnp

        return jnp.asarray(np.asarray(value, dtype))

    def numpy(self, value):
        return np.asarray(value)

    def sample(self, distribution, seed, shape=()):
        import jax

        return self.numpy(distribution.sample(jax.random.key(seed), shape))

    def compiled(self, function):
        import jax

        return jax.jit(function)

    def quantities(self, distribution, value, grid):
        """Everything that is a function of a value, in one compiled program, and derivatives by autodiff beside it."""
        import jax

        return {
            name: np.asarray(array) for name, array in jax.jit(_numpyro_quantities)(distribution, value, grid).items()
        }

    def grad(self, function, *arguments):
        """Gradients of a scalar function in every argument."""
        import jax

        return tuple(map(np.asarray, jax.grad(function, argnums=tuple(range(len(arguments))))(*arguments)))

    def hessian_trace(self, function, argument):
        import jax

        return float(np.trace(np.asarray(jax.hessian(function)(argument))))

    def run_chain(self, distribution, seed, num_samples, **options):
        import jax

        return self.numpy(self.infer.run_chain(jax.random.key(seed), distribution, num_samples, **options))

    def check_energy(self, distribution, seed=0, **options):
        import jax

        self.ebm.testing.check_energy(jax.random.key(seed), distribution, **options)

    def check_kernel(self, kernel, distribution, seed=0, **options):
        import jax

        self.ebm.testing.check_kernel(jax.random.key(seed), kernel, distribution, **options)

    def stochastic(self, criterion, *arguments, seed=0, **options):
        """A criterion that draws: NumPyro wants a key."""
        import jax

        return criterion(*arguments, rng_key=jax.random.key(seed), **options)

    def estimator(self, seed, **options):
        import jax

        return self.infer.AnnealedImportanceSampling(rng_key=jax.random.key(seed), **options)


class PyroBackend:
    name = "pyro"

    def __init__(self):
        import pyro_ebm

        self.ebm = pyro_ebm
        self.distributions = pyro_ebm.distributions
        self.infer = pyro_ebm.infer
        self.objectives = pyro_ebm.objectives

    def array(self, value, dtype=np.float64):
        import torch

        return torch.tensor(np.asarray(value, dtype), device=DEVICE)

    def numpy(self, value):
        return np.asarray(value.detach().cpu())

    def sample(self, distribution, seed, shape=()):
        import torch

        torch.manual_seed(seed)
        return self.numpy(distribution.sample(shape))

    def compiled(self, function):
        return function

    def quantities(self, distribution, value, grid):
        """Everything that is a function of a value, and derivatives by autodiff beside it."""
        import torch

        points = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(-distribution.energy(points).sum(), points, create_graph=True)
        units = [torch.autograd.grad(gradient[:, i].sum(), points, retain_graph=True)[0] for i in range(value.shape[1])]
        found = {name: getattr(distribution, name)(value) for name in _methods(distribution)}
        found |= {"gradient": gradient, "trace": sum(unit[:, i] for i, unit in enumerate(units))}
        found |= {"grid": distribution.unnormalized_log_prob(grid)}
        found |= {name: getattr(distribution, name) for name in _properties(distribution)}
        return {name: self.numpy(tensor) for name, tensor in found.items()}

    def grad(self, function, *arguments):
        import torch

        leaves = tuple(argument.detach().clone().requires_grad_() for argument in arguments)
        return tuple(map(self.numpy, torch.autograd.grad(function(*leaves), leaves)))

    def hessian_trace(self, function, argument):
        import torch

        return float(torch.trace(torch.autograd.functional.hessian(function, argument)))

    def run_chain(self, distribution, seed, num_samples, **options):
        import torch

        torch.manual_seed(seed)
        return self.numpy(self.infer.run_chain(distribution, num_samples, **options))

    def check_energy(self, distribution, seed=0, **options):
        import torch

        torch.manual_seed(seed)
        self.ebm.testing.check_energy(distribution, **options)

    def check_kernel(self, kernel, distribution, seed=0, **options):
        import torch

        torch.manual_seed(seed)
        self.ebm.testing.check_kernel(kernel, distribution, **options)

    def stochastic(self, criterion, *arguments, seed=0, **options):
        import torch

        torch.manual_seed(seed)
        return criterion(*arguments, **options)

    def estimator(self, seed, **options):
        import torch

        torch.manual_seed(seed)
        return self.infer.AnnealedImportanceSampling(**options)


def _methods(distribution):
    return [
        name
        for name in ("energy", "score", "laplacian", "field", "reconstruct", "encode")
        if hasattr(distribution, name)
    ]


def _properties(distribution):
    moments = ["mean", "variance", "covariance_matrix"] if hasattr(type(distribution), "covariance_matrix") else []
    return ["log_partition", *moments] if distribution.is_normalized else []


def _numpyro_quantities(distribution, value, grid):
    import jax
    import jax.numpy as jnp

    log_density = lambda point: -distribution.energy(point)
    trace = lambda point: jnp.trace(jax.hessian(log_density)(point))
    found = {name: getattr(distribution, name)(value) for name in _methods(distribution)}
    found |= {"gradient": jax.vmap(jax.grad(log_density))(value), "trace": jax.vmap(trace)(value)}
    found |= {"grid": distribution.unnormalized_log_prob(grid)}
    return found | {name: getattr(distribution, name) for name in _properties(distribution)}


_NEEDS = {"numpyro": ("numpyro", NumPyroBackend), "pyro": ("pyro", PyroBackend)}


def backends():
    """Parameters for ``pytest.mark.parametrize``: the backends that are installed."""
    return [
        pytest.param(name, marks=getattr(pytest.mark, name))
        for name, (module, _) in _NEEDS.items()
        if importlib.util.find_spec(module)
    ]


def slow_in(*names):
    """The fixture ``backend`` of a test that belongs to the slow suite in these, for ``pytest.mark.parametrize``."""
    return "backend", [_marked(parameter, names) for parameter in backends()]


def pairs(cases, slow=(), name="name", without=()):
    """The fixture ``backend`` and a case, for ``pytest.mark.parametrize(..., indirect=["backend"])``.

    :param slow: the pairs ``(backend, case)`` that belong to the slow suite.
    :param name: of the test's argument for the case.
    :param without: the pairs that are left out, because others run the same code of the backend.
    """
    return ("backend", name), [
        pytest.param(*backend.values, case, marks=[*backend.marks, *([pytest.mark.slow] if chosen else [])])
        for backend in backends()
        for case in cases
        if (backend.values[0], case) not in without
        for chosen in [(backend.values[0], case) in slow]
    ]


def siblings(cases, fast):
    """The cases of a test, of which all but those in ``fast`` belong to the slow suite."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def except_numpyro(cases, fast):
    """The pairs of NumPyro and the cases that are not in ``fast``: what it compiles anew for each."""
    return [("numpyro", case) for case in cases if case not in fast]


def _marked(parameter, names):
    slow = [pytest.mark.slow] if parameter.values[0] in names else []
    return pytest.param(*parameter.values, marks=[*parameter.marks, *slow])


def get_backend(name):
    return _NEEDS[name][1]()
