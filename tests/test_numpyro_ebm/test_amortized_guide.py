"""Encoders as guides of NumPyro models."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import autoguide  # noqa: E402
from scipy import stats  # noqa: E402

from numpyro_ebm.variational import (  # noqa: E402
    AmortizedGuide,
)
from test_numpyro_ebm.vae_models import (  # noqa: E402
    fit,
)

pytestmark = pytest.mark.numpyro


def factor_model(x, size=None, subsample_size=None):
    """A user's model with a global mean and local z: x = mean + z + noise."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(x), subsample_size=subsample_size) as index:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        numpyro.sample("x", dist.Normal(mean + z[:, 0], 0.5), obs=x[index])


@pytest.mark.slow
def test_amortized_guide_beside_an_autoguide():
    """The posterior of the local sites given the fitted mean is normal with gain 1 / 1.25."""
    x = jnp.asarray(3 + np.sqrt(1.25) * np.random.default_rng(2).normal(size=50))
    local = ["z", "data"]
    globals_only = handlers.block(factor_model, hide=local)
    guide = autoguide.AutoGuideList(globals_only)
    guide.append(autoguide.AutoNormal(globals_only))
    encoder = jax.tree_util.Partial(lambda w, b, x: x * w + b, jnp.array([0.1, 0.0]), jnp.zeros(2))
    guide.append(AmortizedGuide(encoder, {"z": 1}))
    result = fit(factor_model, guide, 3000, x, subsample_size=10)
    assert result.params["mean_auto_loc"] == pytest.approx(float(x.mean()), abs=0.1)
    weights, bias = (result.params["amortized.encoder"][key] for key in sorted(result.params["amortized.encoder"]))
    assert weights[0] == pytest.approx(0.8, abs=0.05)
    assert np.exp(bias[1] + 3 * weights[1]) == pytest.approx(np.sqrt(0.2), rel=0.1)


def test_amortized_guide_with_supports():
    guide = AmortizedGuide(lambda x: jnp.zeros(8), {"z": 3, "rate": ()}, supports={"rate": dist.constraints.positive})
    trace = handlers.trace(handlers.seed(guide, 0)).get_trace(jnp.ones((6, 2)), subsample_size=4)
    assert trace["z"]["value"].shape == (4, 3)
    assert trace["rate"]["value"].shape == (4,)
    assert (trace["rate"]["value"] > 0).all()
    assert trace["z"]["scale"] == 1.5
    np.testing.assert_allclose(
        trace["rate"]["fn"].log_prob(jnp.full(4, 2.0)), np.full(4, stats.lognorm(1).logpdf(2.0)), rtol=1e-10
    )
