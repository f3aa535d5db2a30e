"""Objectives of Pyro autoencoders against closed forms and values computed by hand."""

import copy
import gc
import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import (  # noqa: E402
    SVI,
    JitTrace_ELBO,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)

from pyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
)
from pyro_ebm.variational import (  # noqa: E402
    CVAE,
    VAE,
    AmortizedGuide,
    EnergyPrior,
    MixturePrior,
    NormalPrior,
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
from pyro_ebm.variational import normal as normals  # noqa: E402
from pyro_ebm.variational.priors import Prior  # noqa: E402
from test_pyro_ebm.vae_models import (  # noqa: E402
    COUNT,
    DOUBLE,
    LATENT,
    SIZE,
    Joint,
    draw,
    linear,
    make,
    make_conditional,
    marginal,
    parts,
    single_loss,
    train,
)

pytestmark = pytest.mark.pyro


@pytest.mark.parametrize("covariances", [("diagonal", "diagonal"), ("full", "diagonal"), ("full", "full")])
def test_divergences_are_those_of_gaussians(covariances):
    posterior, prior = (
        normals.normal_from("encoder", 0.5 * draw(4, normals.output_size(3, covariance)), 3, covariance)
        for covariance in covariances
    )
    got = normals.kl_divergence(posterior, prior)
    for i in range(4):
        means, matrices = zip(*((p.mean[i], _covariance(p, i)) for p in (posterior, prior)), strict=True)
        inverse, gap = torch.linalg.inv(matrices[1]), means[1] - means[0]
        expected = torch.trace(inverse @ matrices[0]) + gap @ inverse @ gap - 3
        expected = 0.5 * (expected + torch.logdet(matrices[1]) - torch.logdet(matrices[0]))
        torch.testing.assert_close(got[i], expected)


def _covariance(distribution, i):
    found = getattr(distribution, "covariance_matrix", None)
    return torch.diag(distribution.variance[i]) if found is None else found[i]


@pytest.mark.parametrize(
    ("likelihood", "decoded", "data"),
    [
        ("bernoulli", SIZE, torch.ones(COUNT, SIZE, dtype=DOUBLE)),
        ("continuous_bernoulli", SIZE, torch.full((COUNT, SIZE), 0.3, dtype=DOUBLE)),
        (0.4, SIZE, torch.full((COUNT, SIZE), 0.3, dtype=DOUBLE)),
        ("normal", SIZE, torch.full((COUNT, SIZE), 0.3, dtype=DOUBLE)),
        (lambda raw: dist.Poisson(raw.exp()), SIZE, torch.ones(COUNT, SIZE, dtype=DOUBLE)),
    ],
    ids=["bernoulli", "continuous", "fixed", "learned", "custom"],
)
def test_likelihoods_against_their_formulas(likelihood, decoded, data):
    vae = make(decoded=decoded, likelihood=likelihood)
    z = draw(COUNT, LATENT)
    raw = vae.decoder(z).detach()
    if likelihood == "bernoulli":
        expected = torch.nn.functional.logsigmoid(raw)
    elif likelihood == "continuous_bernoulli":
        p = torch.sigmoid(raw)
        expected = 0.3 * p.log() + 0.7 * (1 - p).log() + (2 * torch.atanh(1 - 2 * p) / (1 - 2 * p)).log()
    elif callable(likelihood):
        expected = raw - raw.exp()
    else:
        scale = torch.tensor(0.4) if likelihood == 0.4 else torch.tensor(1.0)
        expected = -0.5 * ((0.3 - raw) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(vae.decode(z).log_prob(data).detach(), expected.sum(-1), rtol=1e-5, atol=1e-6)
    losses = train(vae, data, num_steps=3)
    assert np.isfinite(losses).all()
    assert vae.reconstruct(data).shape == vae.sample((COUNT,)).shape == data.shape


class Pair(torch.nn.Module):
    """Locations and log standard deviations of the data."""

    def __init__(self):
        super().__init__()
        self.loc, self.log_scale = linear(LATENT, SIZE), linear(LATENT, SIZE)

    def forward(self, z):
        return self.loc(z), self.log_scale(z)


def test_a_decoder_may_give_the_scale():
    decoder = Pair()
    vae = VAE(linear(SIZE, 2 * LATENT), decoder, LATENT, likelihood="normal")
    z, x = draw(3, COUNT, LATENT), draw(COUNT, SIZE)
    expected = dist.Normal(decoder.loc(z), decoder.log_scale(z).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(vae.decode(z).log_prob(x), expected)
    assert np.isfinite(train(vae, x, num_steps=3)).all()


@pytest.mark.slow
def test_a_linear_vae_is_probabilistic_pca():
    """The optimum of Tipping & Bishop (1999), in the noise, the covariance and the bound, which is tight there."""
    data = 0.7 * draw(100, LATENT) @ draw(LATENT, SIZE) + 0.5 * draw(100, SIZE) + 0.3 * draw(SIZE)
    vae = make(normals.output_size(LATENT, "full"), covariance="full", likelihood="normal")
    train(vae, data, num_steps=1500, lr=0.15)
    train(vae, data, num_steps=1000, lr=0.02, num_particles=20)
    values, vectors = torch.linalg.eigh(torch.cov(data.T, correction=0))
    noise = values[:-LATENT].mean()
    weights = vectors[:, -LATENT:] * (values[-LATENT:] - noise).sqrt()
    expected = dist.MultivariateNormal(data.mean(0), weights @ weights.T + noise * torch.eye(SIZE, dtype=DOUBLE))
    fitted = marginal(vae.decoder, vae.likelihood.log_scale.detach().exp())
    torch.testing.assert_close(fitted.covariance_matrix, expected.covariance_matrix, rtol=0, atol=0.03)
    torch.testing.assert_close(fitted.loc, expected.loc, rtol=0, atol=0.02)
    with torch.no_grad():
        z = vae.encode(data).sample((500,))
        log_likelihood, log_prior, log_posterior = parts(vae, data, z)
    elbo = (log_likelihood + log_prior - log_posterior).mean()  # hardly varies where q is exact
    assert abs(elbo - expected.log_prob(data).mean()) < 1e-3


# ---------------------------------------------------------------------- the objective


def test_the_default_objective_is_the_elbo():
    vae, x = make(), draw(COUNT, SIZE)
    loss, trace = single_loss(vae, x)
    log_likelihood, log_prior, log_posterior = parts(vae, x, trace.nodes["z"]["value"])
    np.testing.assert_allclose(loss, -(log_likelihood + log_prior - log_posterior).sum().item())
    assert [name for name in trace.stochastic_nodes if name != "data"] == ["z"]
    loss, trace = single_loss(vae, x, elbo=TraceMeanField_ELBO)
    log_likelihood = parts(vae, x, trace.nodes["z"]["value"])[0]
    kl = normals.kl_divergence(vae.encode(x), vae.prior.distribution())
    np.testing.assert_allclose(loss, -(log_likelihood - kl).sum().item())


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize(("weight", "free"), [(0.3, 0.0), (0.0, 0.0), (2.5, 0.0), (1.0, 0.4), (0.3, 0.4)])
def test_kl_weight_and_free_bits_by_hand(weight, free, subsampled):
    vae, x = make(kl_weight=weight, free_bits=free), draw(COUNT, SIZE)
    loss, trace = single_loss(vae, x, subsample_size=20 if subsampled else None)
    x = x[trace.nodes["data"]["value"]]
    q, z = vae.encode(x), trace.nodes["z"]["value"]
    kl = 0.5 * (q.mean**2 + q.variance - 1 - q.variance.log())
    kl = kl.mean(0).clamp(min=free).sum() * len(x)
    expected = vae.decode(z).log_prob(x).sum() - weight * kl
    np.testing.assert_allclose(loss, -(COUNT / len(x)) * expected.item())


def test_gradients_of_a_weighted_objective_by_hand():
    """Pathwise, through encoder and decoder: the guide's factor cancels both densities of z."""
    vae, x = make(kl_weight=0.3, free_bits=0.2), draw(COUNT, SIZE)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    got = torch.autograd.grad(loss, list(vae.parameters()))
    pyro.set_rng_seed(1)
    q = vae.encode(x)
    z = q.mean + q.stddev * torch.randn(COUNT, LATENT, dtype=DOUBLE)
    kl = normals.kl_divergence_by_dimension(q, vae.prior.distribution()).mean(0).clamp(min=0.2).sum() * COUNT
    by_hand = torch.autograd.grad(0.3 * kl - vae.decode(z).log_prob(x).sum(), list(vae.parameters()))
    for mine, theirs in zip(got, by_hand, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("prior", ["mixture", "full"])
def test_weighted_kl_with_other_distributions(prior):
    """Monte Carlo with a mixture, the closed form with a full covariance."""
    outputs, options = (2 * LATENT, {"prior": MixturePrior(3, LATENT).double()}), {"kl_weight": 0.3}
    if prior == "full":
        outputs = (normals.output_size(LATENT, "full"), {"covariance": "full"})
    vae, x = make(outputs[0], **outputs[1], **options), draw(COUNT, SIZE)
    loss, trace = single_loss(vae, x)
    log_likelihood, log_prior, log_posterior = parts(vae, x, trace.nodes["z"]["value"])
    kl = log_posterior - log_prior
    if prior == "full":
        kl = normals.kl_divergence(vae.encode(x), vae.prior.distribution())
    np.testing.assert_allclose(loss, -(log_likelihood - 0.3 * kl).sum().item())


def test_annealing_changes_the_next_step():
    """An argument of model and guide, in place of the constructor's; in closed form."""
    vae, x = make(kl_weight=0.7), draw(COUNT, SIZE)
    for weight in (0.0, 0.25, 2.0):
        loss, trace = single_loss(vae, x, kl_weight=weight)
        kl = normals.kl_divergence(vae.encode(x), vae.prior.distribution())
        expected = parts(vae, x, trace.nodes["z"]["value"])[0] - weight * kl
        np.testing.assert_allclose(loss, -expected.sum().item())


def test_the_model_alone_is_generative_under_a_kl_weight():
    vae, x, z = make(kl_weight=0.1), draw(COUNT, SIZE), draw(COUNT, LATENT)
    trace = poutine.trace(poutine.condition(vae.model, {"z": z})).get_trace(x)
    log_likelihood, log_prior, _ = parts(vae, x, z)
    torch.testing.assert_close(trace.log_prob_sum(), (log_likelihood + log_prior).sum())


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_minibatches_scale(weight):
    """Over all disjoint minibatches, and over random subsamples, losses average to the loss of all data."""
    vae = make(kl_weight=weight)
    with torch.no_grad():
        vae.encoder.weight[LATENT:] = 0
        vae.encoder.bias[LATENT:] = -30  # a posterior without spread makes every loss exact
    x = draw(COUNT, SIZE)
    elbo = TraceMeanField_ELBO if weight == 1 else Trace_ELBO  # where the KL is in closed form
    whole = single_loss(vae, x, elbo=elbo)[0]
    batches = [single_loss(vae, batch, elbo=elbo, size=COUNT)[0] for batch in x.split(20)]
    np.testing.assert_allclose(np.mean(batches), whole, rtol=1e-6)
    loss, trace = single_loss(vae, x, elbo=elbo, subsample_size=20)
    index = trace.nodes["data"]["value"]
    assert len(index.unique()) == 20
    np.testing.assert_allclose(loss, single_loss(vae, x[index], elbo=elbo, size=COUNT)[0], rtol=1e-6)


def test_vectorised_particles_and_predictive():
    vae, x = make(kl_weight=0.5, free_bits=0.1), draw(COUNT, SIZE)
    loss = Trace_ELBO(num_particles=4, vectorize_particles=True).loss(vae.model, vae.guide, x)
    assert math.isfinite(loss)
    for parallel in (False, True):
        posterior = Predictive(vae.model, guide=vae.guide, num_samples=6, parallel=parallel, return_sites=("z",))
        assert posterior(x)["z"].shape == (6, COUNT, LATENT)
        prior = Predictive(vae.model, num_samples=6, parallel=parallel)(size=7)
        assert prior["x"].shape == (6, 7, SIZE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
@pytest.mark.parametrize(
    "elbo", [JitTrace_ELBO(ignore_jit_warnings=True), RenyiELBO(num_particles=3), TraceMeanField_ELBO()]
)
def test_other_objectives_of_pyro(elbo):
    """Compiled, importance-weighted and with closed divergences: all learn the data's mean."""
    data = torch.bernoulli(torch.tensor([0.9, 0.1, 0.5, 0.9, 0.1], dtype=DOUBLE).expand(200, SIZE))
    vae = make(likelihood="bernoulli")
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    losses = [svi.step(data) for _ in range(150)]
    assert np.mean(losses[-20:]) < np.mean(losses[:5])
    torch.testing.assert_close(vae.reconstruct(data).mean(0).detach(), data.mean(0), rtol=0, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("prior", ["standard", "mixture", "rbm"])
def test_training_and_measures_on_an_accelerator(prior):
    made = {
        "standard": lambda: "standard",
        "mixture": lambda: MixturePrior(3, LATENT).double(),
        "rbm": lambda: EnergyPrior(GaussianBernoulliRBM(draw(LATENT, 3))),
    }[prior]()
    vae = make(prior=made).to("cuda")
    x = draw(COUNT, SIZE).to("cuda")
    assert np.isfinite(train(vae, x, num_steps=3, subsample_size=20)).all()
    assert vae.sample((2,)).device == vae.reconstruct(x).device == x.device
    assert math.isfinite(elbo_decomposition(vae, x).elbo)
    assert importance_weighted_log_likelihood(vae, x, 10).device == x.device


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))])
def test_copies_are_bound_to_their_own_encoders(copier):
    vae = make(prior=VampPrior(draw(3, SIZE)))
    copied, z = copier(vae), draw(4, LATENT)
    torch.testing.assert_close(copied.log_prior(z), vae.log_prior(z))
    with torch.no_grad():
        copied.encoder.bias += 1
    assert (copied.log_prior(z) != vae.log_prior(z)).all()


def test_models_with_one_prior_have_encoders_of_their_own():
    prior, z = VampPrior(draw(3, SIZE)), draw(4, LATENT)
    first = make(prior=prior)
    before = first.log_prior(z)
    second = make(prior=prior)
    torch.testing.assert_close(first.log_prior(z), before)
    assert (second.log_prior(z) != before).all()


def test_models_of_one_name_do_not_share_parameters_unnoticed():
    x = draw(COUNT, SIZE)
    first, second = make(), make()
    train(first, x, num_steps=1)
    with pytest.raises(ValueError, match=r"^name: another VAE named 'vae' keeps its parameters"):
        train(second, x, num_steps=1)
    before = [parameter.detach().clone() for parameter in second.parameters()]
    assert all((a == b).all() for a, b in zip(before, second.parameters(), strict=True))
    shared = VAE(first.encoder, first.decoder, LATENT, likelihood=0.5)
    train(shared, x, num_steps=1)  # the same networks: meant
    pyro.clear_param_store()
    train(second, x, num_steps=1)
    saved = pyro.get_param_store().get_state()
    pyro.clear_param_store()
    pyro.get_param_store().set_state(saved)
    del second, first, shared
    gc.collect()
    restored = make()
    restored.model(x)  # takes over what was saved
    assert {id(parameter) for parameter in restored.decoder.parameters()} <= {
        id(parameter) for parameter in pyro.get_param_store().values()
    }


def test_parameters_are_pyros():
    vae = make(name="one", prior=MixturePrior(3, LATENT).double(), likelihood="normal")
    train(vae, draw(COUNT, SIZE), num_steps=2)
    store = pyro.get_param_store()
    assert {name.split("$$$")[0] for name in store.keys()} == {  # noqa: SIM118
        "one.encoder",
        "one.decoder",
        "one.prior",
        "one.likelihood",
    }
    assert {id(value) for value in store.values()} == {id(value) for value in vae.parameters()}


def test_images_through_convolutions():
    encoder = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Unflatten(1, (2, 2, 2)))
    vae = VAE(encoder, torch.nn.Sequential(decoder, torch.nn.ConvTranspose2d(2, 1, 3)), 2)
    data = torch.bernoulli(torch.full((10, 1, 4, 4), 0.3))
    train(vae, data, num_steps=2)
    assert vae.sample((2, 3)).shape == (2, 3, 1, 4, 4)
    assert importance_weighted_log_likelihood(vae, data, 7).shape == (10,)


class Doubled(likelihoods.Likelihood):
    """A likelihood of a user's own: normal around twice the decoder's output."""

    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.ones((), dtype=DOUBLE))

    def distribution(self, raw):
        return dist.Normal(2 * raw, self.width)

    def check(self, value):
        if (value < 0).any():
            raise ValueError("x: expected no negative values")


def test_a_likelihood_of_a_users_own():
    vae = make(likelihood=Doubled())
    z, x = draw(COUNT, LATENT), draw(COUNT, SIZE).abs()
    expected = dist.Normal(2 * vae.decoder(z), 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(vae.decode(z).log_prob(x), expected)
    train(vae, x, num_steps=1)
    assert vae.likelihood.width != 1
    with pytest.raises(ValueError, match=r"^x: expected no negative values"):
        vae.model(-x)


def test_what_models_and_priors_are_made_of():
    vae = make(prior=MixturePrior(3, LATENT), kl_weight=0.5)
    assert repr(vae) == (
        "VAE(\n"
        "  latent_size=2, covariance='diagonal', kl_weight=0.5, free_bits=0.0, name='vae'\n"
        "  (encoder): Linear(in_features=5, out_features=4, bias=True)\n"
        "  (decoder): Linear(in_features=2, out_features=5, bias=True)\n"
        "  (likelihood): Normal(0.7)\n"
        "  (prior): MixturePrior(num_components=3, latent_size=2)\n"
        ")"
    )
    cvae = repr(make_conditional(prior=linear(3, 2 * LATENT), likelihood="bernoulli"))
    assert cvae.startswith("CVAE(\n  latent_size=2")
    assert "(prior): NormalPrior(\n    latent_size=2\n    (network): Linear(in_features=3" in cvae
    rbm = GaussianBernoulliRBM(torch.ones(2, 3))
    assert f"{rbm!r}" in repr(EnergyPrior(rbm))
    assert repr(VampPrior(torch.ones(5, 3))).startswith("VampPrior(pseudo_inputs: (5, 3), constraint=")
    assert "sites={'z': (2,)}, supports={}, plate='data', name='amortized'" in repr(
        AmortizedGuide(linear(3, 4), {"z": 2})
    )


# ---------------------------------------------------------------------- conditions


class Shifted(Prior):
    """A prior of a user's own, around the condition."""

    latent_size = LATENT
    is_conditional = True

    def distribution(self, condition=None):
        return dist.Normal(condition[:, :LATENT], 0.7).to_event(1)


class SameAsShifted(torch.nn.Module):
    """The network that returns the same."""

    def forward(self, condition):
        loc = condition[:, :LATENT]
        return torch.cat([loc, torch.full_like(loc, math.log(0.7))], -1)


def test_a_conditional_prior_of_a_users_own():
    """The same estimates as with a network that returns the same."""
    networks, x, c = (linear(SIZE + 3, 4, Joint), linear(LATENT + 3, SIZE, Joint)), draw(COUNT, SIZE), draw(COUNT, 3)
    models = [CVAE(*networks, LATENT, likelihood=0.5, prior=prior) for prior in (Shifted(), SameAsShifted())]
    measured = []
    for cvae in models:
        pyro.set_rng_seed(0)
        measured.append(importance_weighted_log_likelihood(cvae, (x, c), 20))
    torch.testing.assert_close(*measured)
    torch.testing.assert_close(*(cvae.log_prior(torch.zeros(COUNT, LATENT, dtype=DOUBLE), c) for cvae in models))
    assert math.isfinite(Trace_ELBO().loss(models[0].model, models[0].guide, x, c, kl_weight=0.5))


@pytest.mark.slow
def test_a_linear_cvae_recovers_the_exact_conditional():
    """x = A c + B z + noise: p(x | c) is normal, and the bound becomes its log-density."""
    condition = draw(100, 3)
    x = 0.7 * (condition @ draw(3, SIZE) + draw(100, LATENT) @ draw(LATENT, SIZE)) + 0.5 * draw(100, SIZE)
    encoder = linear(SIZE + 3, normals.output_size(LATENT, "full"), Joint)
    cvae = CVAE(
        encoder,
        linear(LATENT + 3, SIZE, Joint),
        LATENT,
        likelihood="normal",
        covariance="full",
    )
    train(cvae, x, condition, num_steps=1500, lr=0.15)
    train(cvae, x, condition, num_steps=1000, lr=0.02, num_particles=20)
    inputs = torch.cat([condition, torch.ones(100, 1, dtype=DOUBLE)], -1)
    residual = x - inputs @ torch.linalg.lstsq(inputs, x).solution
    values, vectors = torch.linalg.eigh(residual.T @ residual / 100)
    noise = values[:-LATENT].mean()
    directions = vectors[:, -LATENT:] * (values[-LATENT:] - noise).sqrt()
    best = dist.MultivariateNormal(
        torch.zeros(SIZE, dtype=DOUBLE), directions @ directions.T + noise * torch.eye(SIZE, dtype=DOUBLE)
    )
    got = importance_weighted_log_likelihood(cvae, (x, condition), 200)
    torch.testing.assert_close(got.detach(), best.log_prob(residual), rtol=0, atol=0.1)
    weights = cvae.decoder.weight.detach()
    regression = torch.linalg.lstsq(inputs, x).solution[:-1].T
    torch.testing.assert_close(weights[:, LATENT:], regression, rtol=0, atol=0.02)


def test_a_cvae_with_a_learned_prior():
    cvae = make_conditional(prior=linear(3, 2 * LATENT), kl_weight=0.5, free_bits=0.05)
    x, condition = draw(COUNT, SIZE), draw(COUNT, 3)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().loss(cvae.model, cvae.guide, x, condition, subsample_size=20)
    pyro.set_rng_seed(1)
    trace = poutine.trace(cvae.guide).get_trace(x, condition, subsample_size=20)
    index = trace.nodes["data"]["value"]
    q, p = cvae.encode(x[index], condition[index]), cvae.prior.distribution(condition[index])
    kl = ((q.variance + (q.mean - p.mean) ** 2) / p.variance - 1 + (p.variance / q.variance).log()) / 2
    log_likelihood = cvae.decode(trace.nodes["z"]["value"], condition[index]).log_prob(x[index])
    expected = log_likelihood.sum() - 0.5 * 20 * kl.mean(0).clamp(min=0.05).sum()
    np.testing.assert_allclose(loss, -3 * expected.item())
    assert cvae.sample(condition, (4,)).shape == (4, COUNT, SIZE)
    assert cvae.reconstruct(x, condition).shape == x.shape
    assert cvae.log_prior(draw(4, COUNT, LATENT), condition).shape == (4, COUNT)
    assert active_units(cvae, (x, condition)).shape == (LATENT,)
    assert Predictive(cvae.model, num_samples=3, parallel=True)(None, condition)["x"].shape == (3, COUNT, SIZE)
    before = cvae.prior.network.weight.detach().clone()
    train(cvae, x, condition, num_steps=2)
    assert (cvae.prior.network.weight != before).all()


# ---------------------------------------------------------------------- errors


def wide():
    """One datum has one number, and the decoder speaks of five."""
    encoder = torch.nn.Linear(1, 2, dtype=DOUBLE)
    return VAE(encoder, torch.nn.Linear(1, 5, dtype=DOUBLE), 1, likelihood=0.5)


ERRORS = {
    "encoder": (lambda: VAE(lambda x: x, linear(2, 5), 2), TypeError),
    "decoder": (lambda: VAE(linear(5, 4), "decoder", 2), TypeError),
    "latent_size": (lambda: VAE(linear(5, 4), linear(2, 5), 0), ValueError),
    "covariance": (lambda: make(covariance="low-rank"), ValueError),
    "prior": (lambda: make(prior="normal"), TypeError),
    "likelihood": (lambda: make(likelihood="gaussian"), ValueError),
    "likelihood:": (lambda: make(likelihood=-1.0), ValueError),
    "likelihood: ": (lambda: make(likelihood=None), TypeError),
    "kl_weight": (lambda: make(kl_weight=-1.0), ValueError),
    "kl_weight:": (lambda: make(kl_weight=math.nan), ValueError),
    "free_bits": (lambda: make(free_bits=-0.1), ValueError),
    "free_bits: expected 0": (lambda: make(7, covariance="full", free_bits=0.1), ValueError),
    "free_bits: expected 0 ": (lambda: make(prior=MixturePrior(2, 2), free_bits=0.1), ValueError),
    "name": (lambda: make(name=""), ValueError),
    "network": (lambda: NormalPrior(2, "normal"), TypeError),
    "pseudo_inputs": (lambda: VampPrior([1.0]), TypeError),
    "pseudo_inputs:": (lambda: VampPrior(torch.zeros(2, 3), constraint=dist.constraints.positive), ValueError),
    "energy": (lambda: EnergyPrior(3), TypeError),
    "energy: EnergyPrior expected a continuous": (lambda: EnergyPrior(BernoulliRBM(torch.ones(2, 3))), ValueError),
    "criterion": (lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3)), criterion=3), TypeError),
    "criterion: EnergyPrior expected a function to": (
        lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3)), criterion=lambda base: base).site(),
        TypeError,
    ),
    "prior: CVAE": (lambda: make_conditional(prior=VampPrior(torch.zeros(2, 3))), TypeError),
    "prior: VampPrior": (lambda: VampPrior(torch.zeros(2, 3)).distribution(), ValueError),
    "condition": (lambda: make(prior=NormalPrior(2, linear(3, 4))).sample(), ValueError),
    "prior: expected one over 2": (lambda: make(prior=MixturePrior(2, 3)), ValueError),
    "encoder: expected an output": (lambda: make(5).encode(draw(3, SIZE)), ValueError),
    "z": (lambda: make().decode(draw(3, 4)), ValueError),
    "z:": (lambda: make().log_prior(draw(3, 4)), ValueError),
    "x: the guide": (lambda: make().guide(None, size=3), ValueError),
    "size": (lambda: make().model(None), ValueError),
    "size: expected at least": (lambda: make().model(draw(3, SIZE), size=2), ValueError),
    "subsample_size": (lambda: make().model(draw(3, SIZE), subsample_size=4), ValueError),
    "subsample_size: expected None": (lambda: make().model(draw(3, SIZE), size=10, subsample_size=2), ValueError),
    "x": (lambda: make().model(torch.zeros(3, SIZE, dtype=torch.int64)), TypeError),
    "x: the decoder": (lambda: make().model(draw(3, SIZE + 1)), ValueError),
    'x: likelihood="bernoulli" expected': (
        lambda: make(likelihood="bernoulli").model(torch.full((3, SIZE), 0.5, dtype=DOUBLE)),
        ValueError,
    ),
    'x: likelihood="continuous_bernoulli" expected': (
        lambda: make(likelihood="continuous_bernoulli").model(2 + draw(3, SIZE) ** 2),
        ValueError,
    ),
    "x: a normal": (lambda: make().model(math.nan * draw(3, SIZE)), ValueError),
    "condition: expected one row for each": (lambda: make_conditional().model(draw(3, SIZE), draw(4, 3)), ValueError),
    "condition: expected a tensor": (lambda: make_conditional().sample(None), TypeError),
    "condition: expected shape": (lambda: make_conditional().decode(draw(3, LATENT), draw(4, 3)), ValueError),
    "vae": (lambda: elbo_decomposition(make_conditional(), draw(3, SIZE)), TypeError),
    "vae:": (lambda: active_units(None, draw(3, SIZE)), TypeError),
    "data": (lambda: importance_weighted_log_likelihood(make_conditional(), draw(3, SIZE)), TypeError),
    "num_samples": (lambda: elbo_decomposition(make(), draw(3, SIZE), 0), ValueError),
    "batch_size": (lambda: importance_weighted_log_likelihood(make(), draw(3, SIZE), 1, 0), ValueError),
    "draws": (lambda: inference_gap(make(), draw(3, SIZE), draw(2, 3, LATENT)), ValueError),
    "step_size": (lambda: refine_posterior(make(), draw(3, SIZE), 5, -1.0), ValueError),
    "num_steps": (lambda: refine_posterior(make(), draw(3, SIZE), -1), ValueError),
    "x: the decoder's output": (lambda: refine_posterior(wide(), draw(3, 1), 2), ValueError),
    "image_shape": (lambda: plot_reconstructions(make(), draw(3, SIZE)), ValueError),
    "condition: expected one for a CVAE": (lambda: plot_traversal(make_conditional(), (5, 1)), TypeError),
    "labels": (lambda: plot_latent(make(), draw(3, SIZE), labels=[1]), ValueError),
    "threshold": (lambda: active_units(make(), draw(3, SIZE), -1.0), ValueError),
    "sites": (lambda: AmortizedGuide(linear(3, 4), ["z"]), TypeError),
    "sites:": (lambda: AmortizedGuide(linear(3, 4), {}), ValueError),
    "supports": (lambda: AmortizedGuide(linear(3, 4), {"z": 1}, supports={"y": dist.constraints.real}), ValueError),
    "sites\\['z'\\]": (lambda: AmortizedGuide(linear(3, 4), {"z": 0}), ValueError),
    "encoder: expected a torch": (lambda: AmortizedGuide(None, {"z": 1}), TypeError),
    "x: expected shape": (lambda: make().model(draw(0, SIZE)), ValueError),
    "condition: expected shape \\(N, ...\\), got \\(\\)": (
        lambda: make_conditional().sample(torch.ones(())),
        ValueError,
    ),
    "likelihood: expected a function to": (
        lambda: make(likelihood=lambda raw: raw).decode(draw(1, LATENT)),
        TypeError,
    ),
    "VAE: expected 3 positional arguments, got 4; write VAE\\(encoder, decoder, latent_size, \\*, prior='standard'": (
        lambda: VAE(linear(5, 4), linear(2, 5), 2, "standard"),
        TypeError,
    ),
    "CVAE: expected 3 .*got 5": (lambda: CVAE(linear(5, 4), linear(2, 5), 2, None, 1.0), TypeError),
    "EnergyPrior: .*write EnergyPrior\\(energy, \\*, criterion=None\\)": (
        lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3)), None),
        TypeError,
    ),
    "MixturePrior: expected 2": (lambda: MixturePrior(3, 2, 1.0), TypeError),
    "AmortizedGuide: expected 2": (lambda: AmortizedGuide(linear(3, 4), {"z": 1}, {}), TypeError),
    "VAE.model: expected 1 .*size=None": (lambda: make().model(draw(3, SIZE), 4), TypeError),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_the_argument(message):
    call, error = ERRORS[message]
    with pytest.raises(error, match=rf"^{message.strip()}"):
        call()
