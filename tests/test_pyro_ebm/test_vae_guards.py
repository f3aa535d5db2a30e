"""What Pyro autoencoders refuse, warn of, and keep apart from what they learn."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro.infer import SVI, Predictive, Trace_ELBO  # noqa: E402

from pyro_ebm import GaussianBernoulliRBM  # noqa: E402
from pyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    AmortizedGuide,
    EnergyPrior,
    MixturePrior,
    VampPrior,
    active_units,
    elbo_decomposition,
    importance_weighted_log_likelihood,
    inference_gap,
    likelihoods,
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)
from pyro_ebm.variational.normal import normal_from  # noqa: E402

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


# ------------------------------------------------------------------ shapes


class _Of(torch.nn.Module):
    """A network's output through a function."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *inputs):
        return self.function(self.network(torch.cat(inputs, -1)))


def _loss(vae, *args, **kwargs):
    pyro.clear_param_store()
    return Trace_ELBO().loss(vae.model, vae.guide, *args, **kwargs)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
BINARY = (X > 0).float()
NARROW = r"the decoder's output is a distribution over shape \({},?\) for each datum, got data of shape \(5, 6\)"


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "normal", 0.5])
@pytest.mark.parametrize("width", [1, 5, 7])
def test_a_decoder_of_another_width_is_refused(likelihood, width):
    vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, width), 2, likelihood=likelihood)
    uses = [
        lambda: _loss(vae, BINARY),
        lambda: vae.decode(torch.zeros(5, 2)).log_prob(BINARY),
        lambda: vae.reconstruct(BINARY),
        lambda: elbo_decomposition(vae, BINARY),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=NARROW.format(width)):
            use()
    assert vae.decode(torch.zeros(5, 2)).log_prob(torch.ones(width)).shape == (5,)


def test_a_conditional_decoder_of_another_width_is_refused():
    cvae = CVAE(_Of(torch.nn.Linear(9, 4), lambda y: y), _Of(torch.nn.Linear(5, 1), lambda y: y), 2, likelihood=0.5)
    for use in (lambda: _loss(cvae, X, X[:, :3]), lambda: cvae.reconstruct(X, X[:, :3])):
        with pytest.raises(ValueError, match=NARROW.format(1)):
            use()


WRONG_ROWS = {
    "no batch": lambda y: y[0],
    "one row": lambda y: y[:1],
    "fewer": lambda y: y[:2],
    "more dimensions": lambda y: y[:, None],
    "twice": lambda y: torch.stack([y, y]),
}


@pytest.mark.parametrize("wrong", list(WRONG_ROWS))
def test_networks_give_one_vector_for_each_datum(wrong):
    function = WRONG_ROWS[wrong]
    encoder = _Of(torch.nn.Linear(6, 4), function)
    with pytest.raises(ValueError, match=r"encoder: expected one vector for each of 5 rows, shape \(5, 4\), got"):
        VAE(encoder, torch.nn.Linear(2, 6), 2, likelihood=0.5).encode(X)
    with pytest.raises(ValueError, match=r"encoder: expected one vector for each of 5 rows, shape \(5, 4\), got"):
        AmortizedGuide(encoder, {"z": 2})(X)
    prior = _Of(torch.nn.Linear(3, 4), function)
    cvae = CVAE(_Of(torch.nn.Linear(9, 4), lambda y: y), _Of(torch.nn.Linear(5, 6), lambda y: y), 2, prior=prior)
    with pytest.raises(ValueError, match=r"prior: expected one vector for each of 5 rows, shape \(5, 4\), got"):
        cvae.latent_prior(X[:, :3])


# ------------------------------------------------------------------ what networks' outputs are


def test_outputs_that_look_like_probabilities_warn_once():
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Sigmoid())
    data = BINARY.repeat(4, 1)
    for likelihood in ("bernoulli", "continuous_bernoulli"):
        vae = VAE(torch.nn.Linear(6, 4), decoder, 2, likelihood=likelihood)
        with pytest.warns(
            UserWarning, match=r"decoder: expected logits, got 20 x 6 outputs all from 0\..* decoder_output"
        ):
            _loss(vae, data)
        _loss(vae, data)
        said = VAE(torch.nn.Linear(6, 4), decoder, 2, likelihood=likelihood, decoder_output="probabilities")
        _loss(said, data)


def test_what_does_not_look_like_probabilities():
    """Zeros, logits of both signs, a few entries by chance, and likelihoods of no logits."""
    zero = torch.nn.Linear(2, 6)
    torch.nn.init.zeros_(zero.weight)
    torch.nn.init.zeros_(zero.bias)
    bounded = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Sigmoid())
    few = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sigmoid())
    pyro.set_rng_seed(0)
    data = BINARY.repeat(20, 1)
    for _ in range(20):
        _loss(VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2), data)
    _loss(VAE(torch.nn.Linear(6, 4), zero, 2), data)
    _loss(VAE(torch.nn.Linear(3, 4), few, 2), data[:, :3])
    _loss(VAE(torch.nn.Linear(6, 4), bounded, 2, likelihood=0.5), data)


def test_probabilities_and_logits_are_one_model():
    """Gradients too; grey values under the density of the unit interval."""
    logits = torch.linspace(-4, 4, 12).reshape(2, 6).requires_grad_()
    probabilities = torch.sigmoid(logits)
    for kind, x in ((likelihoods.Bernoulli, BINARY[:2]), (likelihoods.ContinuousBernoulli, torch.sigmoid(X[:2]))):
        expected = kind().distribution(logits).log_prob(x).sum()
        got = kind("probabilities").distribution(probabilities).log_prob(x).sum()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, decoder_output="probabilities")
    with pytest.raises(ValueError, match=r'decoder: decoder_output="probabilities" expected outputs from 0 to 1, got'):
        vae.decode(10 * torch.ones(5, 2))
    traced = torch.vmap(lambda p: likelihoods.Bernoulli("probabilities").distribution(p).logits)
    with pyro.validation_enabled(False):  # the host's raises there
        assert torch.isnan(traced(torch.tensor([0.5, 1.5, -0.1]))).tolist() == [False, True, True]


@pytest.mark.parametrize(("kind", "function"), [("scale", torch.exp), ("variance", lambda raw: torch.exp(2 * raw))])
def test_an_encoder_may_give_scales_or_variances(kind, function):
    linear = torch.nn.Linear(6, 4)
    positive = _Of(linear, lambda y: torch.cat([y[:, :2], function(y[:, 2:])], -1))
    logs, others = (
        VAE(net, torch.nn.Linear(2, 6), 2, likelihood=0.5, encoder_output=output)
        for net, output in ((linear, "log_scale"), (positive, kind))
    )
    torch.testing.assert_close(others.encode(X).variance, logs.encode(X).variance)
    guides = [AmortizedGuide(net, {"z": 2}, encoder_output=o) for net, o in ((linear, "log_scale"), (positive, kind))]
    drawn = []
    for guide in guides:
        pyro.set_rng_seed(0)
        drawn.append(guide(X)["z"])
    torch.testing.assert_close(*drawn)
    wrong = VAE(linear, torch.nn.Linear(2, 6), 2, likelihood=0.5, encoder_output=kind)
    noun = {"scale": "standard deviations", "variance": "variances"}[kind]
    with pytest.raises(
        ValueError, match=rf"encoder: expected finite locations and positive, finite {noun}, got .* rows"
    ):
        wrong.encode(X)
    traced = torch.vmap(lambda raw: normal_from("encoder", raw, 1, encoder_output=kind).variance)
    with pyro.validation_enabled(False):
        got = traced(torch.tensor([[0.0, 4.0], [0.0, -1.0], [0.0, 0.0]]))
    assert torch.isnan(got).flatten().tolist() == [False, True, True]


def test_a_full_covariance_with_a_positive_diagonal():
    raw = torch.tensor([[1.0, 2.0, 3.0, 5.0, 4.0]])
    posterior = normal_from("encoder", raw, 2, "full", encoder_output="scale")
    torch.testing.assert_close(posterior.scale_tril[0], torch.tensor([[3.0, 0.0], [5.0, 4.0]]))


REFUSED = {
    'decoder_output: VAE expected "logits" unless': lambda: _options(likelihood=0.5, decoder_output="probabilities"),
    'decoder_output: VAE expected "logits" or': lambda: _options(decoder_output="odds"),
    'encoder_output: VAE expected "log_scale", "scale" or': lambda: _options(encoder_output="precision"),
    'encoder_output: VAE expected "log_scale" or "scale", of': lambda: _options(
        encoder_output="variance", covariance="full"
    ),
    "encoder_output: AmortizedGuide expected": lambda: AmortizedGuide(
        torch.nn.Linear(6, 4), {"z": 2}, encoder_output="std"
    ),
}


def _options(**options):
    return VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, **options)


@pytest.mark.parametrize("message", list(REFUSED))
def test_outputs_of_no_such_name(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        REFUSED[message]()


# ------------------------------------------------------------------ what is not finite


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", 0.5, lambda raw: dist.Poisson(raw.exp())])
def test_a_pixel_that_is_nan_is_said_to_be_x(likelihood):
    vae = VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), 2, likelihood=likelihood)
    broken = BINARY.clone()
    broken[1, 2] = torch.nan
    for use in (lambda: _loss(vae, broken), lambda: vae.encode(broken), lambda: active_units(vae, broken)):
        with pytest.raises(ValueError, match=r"^x: .*NaN"):
            use()


@pytest.mark.parametrize("part", ["locations", "scales", "both"])
def test_networks_that_explode_are_named(part):
    factors = {"locations": [torch.inf, 1.0], "scales": [1.0, 1e6], "both": [torch.nan, torch.nan]}[part]
    factor = torch.tensor(factors).repeat_interleave(2)
    explode = lambda size: _Of(torch.nn.Linear(size, 4), lambda y: y * factor)
    vae = VAE(explode(6), torch.nn.Linear(2, 6), 2, likelihood=0.5)
    for use in (lambda: _loss(vae, X), lambda: importance_weighted_log_likelihood(vae, X)):
        with pytest.raises(ValueError, match=r"^encoder: expected finite locations .* got others for 5 of 5 rows"):
            use()
    with pytest.raises(ValueError, match=r"^encoder: expected finite locations"):
        AmortizedGuide(explode(6), {"z": 2})(X)
    cvae = CVAE(_Of(torch.nn.Linear(9, 4), lambda y: y), _Of(torch.nn.Linear(5, 6), lambda y: y), 2, prior=explode(3))
    with pytest.raises(ValueError, match=r"^prior: expected finite locations"):
        cvae.latent_prior(X[:, :3])
    decoder = VAE(torch.nn.Linear(6, 4), _Of(torch.nn.Linear(2, 6), lambda y: y * torch.nan), 2, likelihood=0.5)
    with pytest.raises(ValueError, match=r"^decoder: expected finite outputs for finite z, got NaN"):
        _loss(decoder, X)


# ------------------------------------------------------------------ a prior that nothing trains


PRIORS = {
    "mixture": lambda: MixturePrior(3, 2),
    "vamp": lambda: VampPrior(X[:2]),
    "energy": lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 1))),
}


@pytest.mark.parametrize("name", list(PRIORS))
def test_a_weight_of_zero_leaves_a_learned_prior_untrained(name):
    vae = _options(likelihood=0.5, prior=PRIORS[name](), kl_weight=0.0)
    with pytest.warns(UserWarning, match=r"kl_weight: kl_weight=0 leaves the learned prior where it was"):
        _loss(vae, X)
    _loss(vae, X)
    scheduled = _options(likelihood=0.5, prior=PRIORS[name]())
    _loss(scheduled, X, kl_weight=0.0)
    with pytest.warns(UserWarning, match=r"kl_weight: kl_weight was 0 in every step so far"):
        scheduled.log_prior(torch.zeros(2))
    annealed = _options(likelihood=0.5, prior=PRIORS[name]())
    for weight in (0.0, 0.5):
        _loss(annealed, X, kl_weight=weight)
    annealed.log_prior(torch.zeros(2))
    importance_weighted_log_likelihood(annealed, X, 2)


def test_a_weight_of_zero_is_no_matter_of_a_fixed_prior():
    _loss(_options(likelihood=0.5, kl_weight=0.0), X)
    cvae = CVAE(_Of(torch.nn.Linear(9, 4), lambda y: y), _Of(torch.nn.Linear(5, 6), lambda y: y), 2, likelihood=0.5)
    _loss(cvae, X, X[:, :3], kl_weight=0.0)
    cvae.sample(X[:, :3])
