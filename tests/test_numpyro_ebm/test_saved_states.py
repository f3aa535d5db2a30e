"""States of chains from a file; those of another sampler, size or type are refused."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_ebm import GaussianBernoulliRBM
from numpyro_ebm.infer import Gibbs, Langevin, run_chain

pytestmark = pytest.mark.numpyro

KEY = jax.random.key(0)


def machine(sampler=None, dtype=jnp.float64):
    weights = jnp.array([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.4]], dtype)
    return GaussianBernoulliRBM(weights, sampler=sampler)


@pytest.mark.parametrize("sampler", [Gibbs(), Langevin()])
def test_chains_resume_from_a_file(sampler):
    whole = run_chain(KEY, machine(sampler), 8, num_warmup=5, num_chains=3)
    first, state = run_chain(KEY, machine(sampler), 3, num_warmup=5, num_chains=3, return_state=True)
    rest = run_chain(None, machine(sampler), 5, resume=pickle.loads(pickle.dumps(state)))
    np.testing.assert_array_equal(jnp.concatenate([first, rest], 1), whole)


def test_chains_of_another_sampler_size_or_type_do_not_go_on():
    _, gibbs = run_chain(KEY, machine(), 2, num_chains=3, return_state=True)
    _, langevin = run_chain(KEY, machine(Langevin()), 2, num_warmup=2, num_chains=3, return_state=True)
    with pytest.raises(TypeError, match="resume: run_chain expected the state of a Langevin chain"):
        run_chain(None, machine(Langevin()), 2, resume=gibbs)
    with pytest.raises(TypeError, match="resume: run_chain expected the state of a Gibbs chain"):
        run_chain(None, machine(), 2, resume=langevin)
    for state, sampler in ((gibbs, None), (langevin, Langevin())):
        with pytest.raises(ValueError, match="resume: expected positions of float32, got float64"):
            run_chain(None, machine(sampler, jnp.float32), 2, resume=state)
        with pytest.raises(ValueError, match="resume: expected key_data of shape"):
            run_chain(None, machine(sampler), 2, resume=state._replace(key_data=np.zeros(7, np.uint32)))
    short = langevin._replace(carry=langevin.carry._replace(log_density=np.zeros(1)))
    with pytest.raises(ValueError, match=r"resume: expected log_density of shape \(3,\)"):
        run_chain(None, machine(Langevin()), 2, resume=short)
