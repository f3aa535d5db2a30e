"""Export to ArviZ from both hosts."""

import importlib.util
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("arviz") is None, reason="ArviZ is not installed")


def _arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {"v": rng.normal(size=(2, 40, 3)), "temperature": rng.normal(size=(2, 40))}


def test_arrays_keep_their_shapes_and_values(backend):
    arrays = _arrays()
    idata = backend.ebm.diagnostics.to_arviz(
        posterior={name: backend.array(value) for name, value in arrays.items()},
        posterior_predictive={"y": backend.array(arrays["v"])},
        prior={"v": backend.array(arrays["v"])},
        observed_data={"y": backend.array(np.ones(3))},
        sample_stats={"diverging": np.zeros((2, 40), bool)},
        coords={"pixel": ["a", "b", "c"]},
        dims={"v": ["pixel"]},
    )
    for name, value in arrays.items():
        np.testing.assert_array_equal(idata["posterior"][name].values, value)
    assert idata["posterior"]["v"].dims == ("chain", "draw", "pixel")
    assert list(idata["posterior"]["v"].coords["pixel"].values) == ["a", "b", "c"]
    assert idata["posterior_predictive"]["y"].shape == (2, 40, 3)
    assert idata["prior"]["v"].shape == (2, 40, 3)
    assert idata["observed_data"]["y"].shape == (3,)
    assert not idata["sample_stats"]["diverging"].values.any()


def test_arviz_computes_on_what_it_is_given(backend):
    import arviz

    idata = backend.ebm.diagnostics.to_arviz(posterior={"v": backend.array(_arrays()["v"])})
    assert 0.9 < float(arviz.rhat(idata)["v"].max()) < 1.1
    assert float(arviz.ess(idata)["v"].min()) > 20


def test_samples_and_statistics_of_the_hosts_mcmc(backend):
    p = _HOSTS[backend.name](backend)
    idata = backend.ebm.diagnostics.to_arviz(p, observed_data={"y": np.zeros(2)})
    assert idata["posterior"]["v"].shape == (1, 30, 2)
    assert idata["sample_stats"]["diverging"].shape == (1, 30)
    assert idata["sample_stats"]["diverging"].dtype == bool
    if backend.name == "numpyro":
        rate = idata["sample_stats"]["acceptance_rate"].values
        assert np.all((rate > 0) & (rate <= 1))
        assert idata["sample_stats"]["lp"].values.max() < 5


def _numpyro_run(backend):
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    rbm = backend.distributions.GaussianBernoulliRBM(backend.array([[1.0], [-1.0]]))
    mcmc = MCMC(NUTS(lambda: numpyro.sample("v", rbm)), num_warmup=20, num_samples=30, progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("potential_energy", "accept_prob", "diverging"))
    return mcmc


def _pyro_run(backend):
    import pyro
    from pyro.infer import MCMC, NUTS

    rbm = backend.distributions.GaussianBernoulliRBM(backend.array([[1.0], [-1.0]]))
    mcmc = MCMC(NUTS(lambda: pyro.sample("v", rbm)), warmup_steps=20, num_samples=30, disable_progbar=True)
    mcmc.run()
    return mcmc


_HOSTS = {"numpyro": _numpyro_run, "pyro": _pyro_run}


def test_bad_input(backend, monkeypatch):
    to_arviz = backend.ebm.diagnostics.to_arviz
    with pytest.raises(ValueError, match="exactly one"):
        to_arviz()
    with pytest.raises(ValueError, match="mcmc"):
        to_arviz(3.0)
    with pytest.raises(ValueError, match="posterior: expected 'v'"):
        to_arviz(posterior={"v": backend.array(np.ones(4))})
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"ppl-ebm\[arviz\]"):
        to_arviz(posterior={"v": backend.array(np.ones((1, 4)))})
