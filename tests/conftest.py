"""Every test runs in float64; JAX refuses implicit rank promotion and keeps its compiled programs between runs."""

import importlib.util
import pathlib

import pytest

if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    cache = pathlib.Path(__file__).parent.parent / ".jax_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)


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


# Cases of parametrised tests that take long on a machine that has compiled nothing yet, beside siblings of the same
# formulas: `make test-slow` and CI run them.
LONG_CASES = (
    "test_batches_are_the_models_in_them[numpyro-mPoT]",
    "test_batches_are_the_models_in_them[numpyro-pooled",
    "test_batches_are_the_models_in_them[numpyro-mcRBM]",
    "test_batches_are_the_models_in_them[numpyro-cAE",
    "test_batches_are_the_models_in_them[numpyro-cRBM]",
    "test_batches_are_the_models_in_them[numpyro-gated",
    "test_batches_of_tables[numpyro]",
    "test_bounds_and_estimates_of_network_energies",
    "test_bounds_of_machines_with_known_values[numpyro-GaussianBernoulliRBM",
    "test_bounds_of_machines_with_known_values[pyro-GaussianBernoulliRBM",
    "test_bounds_on_the_unit_square[numpyro]",
    "test_chunked_enumeration_equals_brute_force",
    "test_gibbs_sampler[numpyro-mPoT]",
    "test_gibbs_sampler[numpyro-pooled",
    "test_hamiltonian_sampler[numpyro-LineIntegralEnergy]",
    "test_hamiltonian_sampler[pyro-LineIntegralEnergy]",
    "test_hmc_and_nuts_over_the_value[NUTS-2]",
    "test_hmc_and_nuts_over_the_value[nuts]",
    "test_host_nuts_over_a_latent_value[numpyro-mPoT]",
    "test_inference_gaps_against_closed_forms[diagonal]",
    "test_long_contrastive_chains_give_the_enumerated_gradient[CD-0.5]",
    "test_long_contrastive_chains_give_the_enumerated_gradient[PCD-1.0]",
    "test_networks_as_energies[equinox]",
    "test_progress_changes_nothing[numpyro]",
    "test_score_matching_training_reaches_the_pca_solution[numpyro]",
    "test_unadjusted_bias_shrinks_linearly_with_half_the_square_of_the_step[numpyro]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.startswith(LONG_CASES):
            item.add_marker(pytest.mark.slow)
    skip = pytest.mark.skip(reason="no accelerator on this machine")
    for item in items:
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(skip)
