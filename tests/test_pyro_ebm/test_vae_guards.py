"""What Pyro autoencoders refuse, warn of, and keep apart from what they learn."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

from pyro.infer import SVI, Predictive, Trace_ELBO  # noqa: E402

from pyro_ebm.variational import (  # noqa: E402
    VAE,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)

pytestmark = pytest.mark.pyro

DATA = 2 + 3 * torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
DRAWS = torch.randn(9, 8, 2, generator=torch.Generator().manual_seed(1))


def _normed(num_in, num_out):
    return torch.nn.Sequential(torch.nn.BatchNorm1d(num_in), torch.nn.Linear(num_in, num_out), torch.nn.Dropout(0.1))


@pytest.fixture
def normed():
    """An autoencoder after three steps, in training mode but for a part of its encoder."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    vae = VAE(_normed(6, 4), _normed(2, 6), 2, likelihood=1.0)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(3):
        svi.step(DATA)
    vae.encoder[2].eval()
    return vae


def _pictures(vae):
    pytest.importorskip("matplotlib")
    plot_traversal(vae, (2, 3), num_points=2)
    plot_latent(vae, DATA, num_draws=3)
    return torch.as_tensor(np.asarray(plot_reconstructions(vae, DATA, (2, 3)).images[0].get_array()))


MEASURES = {
    "decomposition": lambda vae: elbo_decomposition(vae, DATA, batch_size=3).elbo,
    "likelihood": lambda vae: importance_weighted_log_likelihood(vae, DATA, 5, 3),
    "gap": lambda vae: inference_gap(vae, DATA, DRAWS, 5).elbo,
    "refined": lambda vae: refine_posterior(vae, DATA, 3).latent,
    "units": lambda vae: active_units(vae, DATA),
    "pictures": _pictures,
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_measures_use_the_statistics_and_leave_them(name, normed):
    """As an evaluated copy has them; afterwards each module is in its mode, with its buffers."""
    buffers = {key: buffer.clone() for key, buffer in normed.named_buffers()}
    modes = [module.training for module in normed.modules()]
    pyro.set_rng_seed(1)
    training = MEASURES[name](normed)
    pyro.set_rng_seed(1)
    torch.testing.assert_close(training, MEASURES[name](copy.deepcopy(normed).eval()), rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in normed.named_buffers())
    assert [module.training for module in normed.modules()] == modes
    assert True in modes[3:]
    assert False in modes


def test_a_measure_that_fails_restores_the_mode(normed):
    with pytest.raises(ValueError, match="num_samples"):
        elbo_decomposition(normed, DATA, 0)
    assert normed.training
    with pytest.raises(TypeError, match="vae: elbo_decomposition expected a VAE"):
        elbo_decomposition(3, DATA)


def test_statistics_in_prediction_follow_the_mode(normed):
    """As in any module: Pyro's own inference evaluates the model as it is."""
    normed.eval()
    buffers = {key: buffer.clone() for key, buffer in normed.named_buffers()}
    Predictive(normed.model, num_samples=2)(size=5)
    normed.encode(DATA[:1])
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in normed.named_buffers())
    assert [name for name in pyro.get_param_store() if "running" in name] == []
