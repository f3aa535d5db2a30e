"""Every test runs in float64; JAX refuses implicit rank promotion and keeps its compiled programs between runs."""

import importlib.util
import os
import pathlib

import pytest

if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    cache = pathlib.Path(__file__).parent.parent / ".jax_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)

    torch.set_default_device(os.environ.get("PPL_EBM_DEFAULT_DEVICE", "cpu"))
    if torch.cuda.is_available():  # NumPy, which compares, reads what lies elsewhere
        _numpy, _array = torch.Tensor.numpy, torch.Tensor.__array__
        torch.Tensor.numpy = lambda tensor, **options: _numpy(tensor.cpu(), **options)
        torch.Tensor.__array__ = lambda tensor, *dtype, **options: _array(tensor.cpu(), *dtype, **options)


@pytest.fixture(autouse=True)
def _fresh_pyro():
    """Pyro's parameter store, generators and validation flag are global: start every test from the same ones."""
    if importlib.util.find_spec("pyro"):
        import pyro

        pyro.clear_param_store()
        pyro.set_rng_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """Compiled programs live as long as the process: forget those of a finished file of tests."""
    yield
    if importlib.util.find_spec("jax"):
        import jax

        jax.clear_caches()


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return True
    if importlib.util.find_spec("jax"):
        import jax

        return jax.default_backend() == "gpu"
    return False


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="no accelerator on this machine")
    for item in items:
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(skip)
    # Programs first: a worker is busy with them for a third of the slow suite's time, and nobody should wait for it.
    items.sort(key=lambda item: item.path.name != "test_examples.py")
