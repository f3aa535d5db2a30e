"""Encoders as guides of Pyro models."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import (  # noqa: E402
    SVI,
    Trace_ELBO,
)
from pyro.infer.autoguide import AutoGuideList, AutoNormal  # noqa: E402

from pyro_ebm.variational import (  # noqa: E402
    AmortizedGuide,
)
from test_pyro_ebm.vae_models import (  # noqa: E402
    DOUBLE,
    draw,
    linear,
)

pytestmark = pytest.mark.pyro


def hierarchical_model(x, size=None, subsample_size=None):
    """A global location and local normal variables: everything is normal."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
    with pyro.plate("data", len(x) if size is None else size, subsample_size, dim=-1) as index:
        z = pyro.sample("z", dist.Normal(loc.expand(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x[index])


def local_guide():
    encoder = linear(1, 2)
    return AmortizedGuide(encoder, {"z": 1}), encoder


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_amortised_guide_beside_an_autoguide(listed):
    x = 1.5 + draw(40, 1)
    local, encoder = local_guide()
    others = AutoNormal(poutine.block(hierarchical_model, hide=["z"]), init_scale=0.1)
    if listed:
        guide = AutoGuideList(hierarchical_model)
        guide.append(others)
        guide.append(local)
    else:

        def guide(*args, **kwargs):
            return {**others(*args, **kwargs), **local(*args, **kwargs)}

    svi = SVI(hierarchical_model, guide, pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.998}), Trace_ELBO())
    for _ in range(1500):
        svi.step(x, subsample_size=20)
    exact = (x / 1.25).sum() / (1 / 4 + 40 / 1.25)  # the posterior mean of loc
    assert abs(others.median()["loc"] - exact) < 0.15
    np.testing.assert_allclose(encoder.weight[0].item(), 0.8, atol=0.1)  # E[z | x, loc] = loc + 0.8 (x - loc)
    median = local.median(x)["z"].detach()
    torch.testing.assert_close(median, exact + 0.8 * (x - exact), rtol=0, atol=0.2)


def test_an_amortised_guide_of_several_sites():
    encoder = linear(3, 6)
    guide = AmortizedGuide(encoder, {"a": 2, "b": 1}, plate="rows")
    x = draw(6, 3)
    trace = poutine.trace(guide).get_trace(x, size=12)
    trace.compute_log_prob()
    output = encoder(x)
    for site, columns in (("a", slice(0, 2)), ("b", slice(2, 3))):
        expected = dist.Normal(output[:, :3][:, columns], output[:, 3:][:, columns].exp())
        node = trace.nodes[site]
        torch.testing.assert_close(node["log_prob"], 2 * expected.log_prob(node["value"]).sum(-1))


def test_an_amortised_guide_of_constrained_sites():
    """A log-normal site without event dimensions and a site of matrices."""
    encoder = linear(3, 14)
    guide = AmortizedGuide(encoder, {"rate": (), "m": (2, 3)}, supports={"rate": dist.constraints.positive})
    x = draw(6, 3)
    trace = poutine.trace(guide).get_trace(x, "ignored", subsample_size=4)
    trace.compute_log_prob()
    output = encoder(x[trace.nodes["data"]["value"]])
    rate, matrix = trace.nodes["rate"], trace.nodes["m"]
    expected = dist.LogNormal(output[:, 0], output[:, 7].exp()).log_prob(rate["value"])
    torch.testing.assert_close(rate["log_prob"], 1.5 * expected)
    assert matrix["value"].shape == (4, 2, 3)
    expected = dist.Normal(output[:, 1:7], output[:, 8:].exp()).log_prob(matrix["value"].flatten(1)).sum(-1)
    torch.testing.assert_close(matrix["log_prob"], 1.5 * expected)
    torch.testing.assert_close(guide.median(x)["rate"], encoder(x)[:, 0].exp())
