"""Variational autoencoders for Pyro, against closed forms, enumeration and values computed by hand."""

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
    HMC,
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoGuideList, AutoNormal  # noqa: E402

from pyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
    IntractablePartitionError,
    NeuralEnergy,
    infer,
)
from pyro_ebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence  # noqa: E402
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
    plot_latent,
    plot_reconstructions,
    plot_traversal,
    refine_posterior,
)
from pyro_ebm.variational import normal as normals  # noqa: E402

pytestmark = pytest.mark.pyro

DOUBLE = torch.float64
SIZE, LATENT, COUNT = 5, 2, 60


class Joint(torch.nn.Linear):
    """A linear map of two arguments."""

    def forward(self, value, condition):
        return super().forward(torch.cat([value, condition], -1))


def linear(inputs, outputs, kind=torch.nn.Linear):
    return kind(inputs, outputs, dtype=DOUBLE)


def draw(*shape):
    return torch.randn(*shape, dtype=DOUBLE)


def make(outputs=2 * LATENT, decoded=SIZE, **options):
    return VAE(linear(SIZE, outputs), linear(LATENT, decoded), LATENT, **{"likelihood": 0.7, **options})


def make_conditional(**options):
    encoder, decoder = linear(SIZE + 3, 2 * LATENT, Joint), linear(LATENT + 3, SIZE, Joint)
    return CVAE(encoder, decoder, LATENT, **{"likelihood": 0.7, **options})


def parts(vae, x, z):
    """log p(x | z), log p(z) and log q(z | x)."""
    return vae.decode(z).log_prob(x), vae.log_prior(z), vae.encode(x).log_prob(z)


def single_loss(vae, *args, elbo=Trace_ELBO, **kwargs):
    """One loss of SVI, and the z that it drew."""
    pyro.set_rng_seed(1)
    loss = elbo().loss(vae.model, vae.guide, *args, **kwargs)
    pyro.set_rng_seed(1)
    return loss, poutine.trace(vae.guide).get_trace(*args, **kwargs)


def train(vae, *args, num_steps, lr=0.05, num_particles=1, **kwargs):
    options = {"lr": lr, "lrd": 0.01 ** (1 / num_steps)}
    elbo = Trace_ELBO(num_particles=num_particles, vectorize_particles=num_particles > 1)
    svi = SVI(vae.model, vae.guide, pyro.optim.ClippedAdam(options), elbo)
    return [svi.step(*args, **kwargs) for _ in range(num_steps)]


def marginal(decoder, scale):
    """p(x) of a linear decoder with normal noise."""
    weights, offset = decoder.weight.detach(), decoder.bias.detach()
    covariance = weights @ weights.T + scale**2 * torch.eye(len(weights), dtype=DOUBLE)
    return dist.MultivariateNormal(offset, covariance)


@torch.no_grad()
def set_exact_encoder(vae, scale):
    """Make q(z | x) the posterior of the linear decoder: needs full covariance."""
    weights, offset = vae.decoder.weight, vae.decoder.bias
    covariance = torch.linalg.inv(torch.eye(LATENT, dtype=DOUBLE) + weights.T @ weights / scale**2)
    factor = torch.linalg.cholesky(covariance)
    gain = covariance @ weights.T / scale**2
    rows, columns = np.tril_indices(LATENT)
    entries = [factor[i, j].log() if i == j else factor[i, j] for i, j in zip(rows, columns, strict=True)]
    vae.encoder.weight.zero_()[:LATENT] = gain
    vae.encoder.bias.copy_(torch.cat([-gain @ offset, torch.stack(entries)]))


def exact_linear(scale=0.7):
    vae = make(normals.output_size(LATENT, "full"), covariance="full", likelihood=scale)
    set_exact_encoder(vae, scale)
    return vae


# ---------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("covariances", [("diagonal", "diagonal"), ("full", "diagonal"), ("full", "full")])
def test_divergences_are_those_of_gaussians(covariances):
    posterior, prior = (
        normals.normal_from("encoder", 0.5 * draw(4, normals.output_size(3, covariance)), 3, covariance)
        for covariance in covariances
    )
    got = normals.divergence(posterior, prior)
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
    kl = normals.divergence(vae.encode(x), vae.prior.distribution())
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
    kl = normals.divergence_by_dimension(q, vae.prior.distribution()).mean(0).clamp(min=0.2).sum() * COUNT
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
        kl = normals.divergence(vae.encode(x), vae.prior.distribution())
    np.testing.assert_allclose(loss, -(log_likelihood - 0.3 * kl).sum().item())


def test_annealing_changes_the_next_step():
    """An argument of model and guide, in place of the constructor's; in closed form."""
    vae, x = make(kl_weight=0.7), draw(COUNT, SIZE)
    for weight in (0.0, 0.25, 2.0):
        loss, trace = single_loss(vae, x, kl_weight=weight)
        kl = normals.divergence(vae.encode(x), vae.prior.distribution())
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


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))])
def test_copies_are_bound_to_their_own_encoders(copier):
    vae = make(prior=VampPrior(draw(3, SIZE)))
    copied, z = copier(vae), draw(4, LATENT)
    torch.testing.assert_close(copied.log_prior(z), vae.log_prior(z))
    with torch.no_grad():
        copied.encoder.bias += 1
    assert (copied.log_prior(z) != vae.log_prior(z)).all()


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


# ---------------------------------------------------------------------- what the bound is made of


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("kind", ["standard", "mixture", "rbm"])
def test_the_decomposition_sums_and_keeps_its_bounds(kind, covariance):
    prior = {
        "standard": "standard",
        "mixture": MixturePrior(3, LATENT).double(),
        "rbm": EnergyPrior(GaussianBernoulliRBM(draw(LATENT, 3))),
    }[kind]
    vae, data = make(normals.output_size(LATENT, covariance), covariance=covariance, prior=prior), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight.mul_(3)
    terms = elbo_decomposition(vae, data, num_samples=100, batch_size=17)
    total = terms.reconstruction - terms.mutual_information - terms.marginal_kl
    assert abs(total - terms.elbo) < 1e-6
    assert -0.05 < terms.mutual_information <= math.log(COUNT)
    assert terms.marginal_kl > -0.05
    with torch.no_grad():
        z = vae.encode(data).sample((2000,))
        reference = sum(sign * part for sign, part in zip((1, 1, -1), parts(vae, data, z), strict=True)).mean()
    assert abs(terms.elbo - reference) < 0.05 * abs(reference)


def test_mutual_information_at_both_ends():
    """No information where the encoder ignores its input; log N where posteriors are far apart."""
    vae, data = make(), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight.zero_()
        vae.encoder.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    terms = elbo_decomposition(vae, data, num_samples=2000)
    assert abs(terms.mutual_information) < 0.02
    assert abs(terms.marginal_kl - 0.5) < 0.02
    with torch.no_grad():
        vae.encoder.weight[:LATENT].copy_(1e3 * torch.eye(LATENT, SIZE))
    terms = elbo_decomposition(vae, data, num_samples=2000)
    assert abs(terms.mutual_information - math.log(COUNT)) < 0.02


def test_importance_weighting_against_the_exact_likelihood():
    data = draw(COUNT, SIZE)
    vae = exact_linear()
    exact = marginal(vae.decoder, 0.7).log_prob(data)
    got = importance_weighted_log_likelihood(vae, data, 3, batch_size=17)
    torch.testing.assert_close(got, exact)  # without variance where the encoder is exact
    with torch.no_grad():
        vae.encoder.bias[:LATENT] += 0.3
    loose, tight = (importance_weighted_log_likelihood(vae, data, count) for count in (1, 5000))
    assert loose.mean() < exact.mean() - 0.05
    torch.testing.assert_close(tight, exact, rtol=0, atol=0.05)


def test_the_elbo_of_exact_inference_is_the_likelihood():
    vae, data = exact_linear(), draw(COUNT, SIZE)
    exact = marginal(vae.decoder, 0.7).log_prob(data)
    np.testing.assert_allclose(-single_loss(vae, data)[0], exact.sum().item())


def test_active_units_are_those_that_vary():
    vae, data = make(), draw(COUNT, SIZE)
    with torch.no_grad():
        vae.encoder.weight[1] = 0
    assert active_units(vae, data).tolist() == [True, False]
    variance = vae.encode(data).mean[:, 0].var(correction=0).item()
    assert active_units(vae, data, threshold=1.01 * variance).sum() == 0
    assert active_units(vae, data, threshold=0.99 * variance).sum() == 1


# ---------------------------------------------------------------------- the posterior


def wrong_encoder(covariance):
    """The exact linear model of a correlated posterior, and one with its decoder whose encoder misses both moments."""
    exact = exact_linear()
    with torch.no_grad():
        exact.decoder.weight[:, 1] = 0.8 * exact.decoder.weight[:, 0] + 0.4 * exact.decoder.weight[:, 1]
    set_exact_encoder(exact, 0.7)
    encoder = linear(SIZE, normals.output_size(LATENT, covariance))
    vae = VAE(encoder, exact.decoder, LATENT, likelihood=0.7, covariance=covariance)
    with torch.no_grad():
        encoder.weight.zero_()[:LATENT] = exact.encoder.weight[:LATENT]
        encoder.bias.zero_()[:LATENT] = exact.encoder.bias[:LATENT] + 0.4
    return vae, exact


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_inference_gaps_against_closed_forms(covariance):
    """KL(encoder | posterior) is the sum of both gaps, and that of the best diagonal normal is the second."""
    vae, exact = wrong_encoder(covariance)
    x = draw(10, SIZE)
    posterior = exact.encode(x)
    gap = inference_gap(vae, x, posterior.sample((40_000,)), 20_000, batch_size=3)
    log_likelihood = marginal(vae.decoder, 0.7).log_prob(x)
    torch.testing.assert_close(gap.log_likelihood, log_likelihood, rtol=0, atol=1e-3)
    precision = torch.linalg.inv(posterior.covariance_matrix).diagonal(dim1=-2, dim2=-1)
    best = dist.Normal(posterior.mean, precision.rsqrt()).to_event(1)
    second = normals.divergence(best, posterior) if covariance == "diagonal" else torch.zeros(10, dtype=DOUBLE)
    total = normals.divergence(vae.encode(x), posterior)
    assert total.min() > 0.2
    torch.testing.assert_close(gap.approximation, second.detach(), rtol=0.05, atol=0.02)
    torch.testing.assert_close(gap.amortization, (total - second).detach(), rtol=0.05, atol=0.03)


@pytest.mark.parametrize(
    "sampler",
    ["refine", *(pytest.param(name, marks=pytest.mark.slow) for name in ("HMC", "NUTS", "batched NUTS"))],
)
def test_draws_of_the_posterior_from_the_encoders_proposal(sampler):
    """Mean and variance of the exact posterior, whose encoder is wrong; then what that encoder loses."""
    vae, exact = wrong_encoder("diagonal")
    x = draw(3, SIZE)
    posterior = exact.encode(x)
    if sampler == "refine":
        draws, accept_prob = refine_posterior(vae, x, 200, 0.8, 4000)
        assert accept_prob.shape == (4000, 3)
        assert 0.3 < accept_prob.mean() < 0.95
    elif sampler == "batched NUTS":
        mcmc = infer.BatchedMCMC(infer.NUTS(vae.model), 1000, 200, num_chains=4, disable_progbar=True)
        mcmc.run(x)
        draws = mcmc.get_samples()["z"]
    else:
        kernel = HMC(vae.model, trajectory_length=1.5) if sampler == "HMC" else NUTS(vae.model)
        mcmc = MCMC(kernel, 2000, 200, initial_params={"z": vae.encode(x).sample()}, disable_progbar=True)
        mcmc.run(x)
        draws = mcmc.get_samples()["z"]
    count = len(draws) / (1 if sampler == "refine" else 4)
    spread = posterior.variance.sqrt()
    assert ((draws.mean(0) - posterior.mean).abs() < 4.5 * spread / math.sqrt(count)).all()
    torch.testing.assert_close(draws.var(0), posterior.variance.detach(), rtol=4.5 * math.sqrt(2 / count), atol=0)
    gap = inference_gap(vae, x, draws, 100_000)
    total = normals.divergence(vae.encode(x), posterior).detach()
    torch.testing.assert_close(gap.log_likelihood - gap.elbo, total, rtol=0.05, atol=0.05)


def test_refinement_of_a_conditional_model_under_an_energy_prior():
    """No normaliser is needed; the posterior is that on a grid."""
    rbm = GaussianBernoulliRBM(draw(LATENT, 2), log_partition=None)
    cvae = make_conditional(prior=EnergyPrior(lambda: rbm))
    x, condition = draw(2, SIZE), draw(2, 3)
    refined = refine_posterior(cvae, (x, condition), 300, 0.5, 4000)
    grid = torch.linspace(-8, 8, 161, dtype=DOUBLE)
    z = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        rows = zip(x, condition, strict=True)
        logs = [cvae.decode(z[:, None], c[None]).log_prob(row[None])[:, 0] - rbm.energy(z) for row, c in rows]
    weights = torch.softmax(torch.stack(logs), -1)
    mean, square = weights @ z, weights @ z**2
    assert ((refined.latent.mean(0) - mean).abs() < 4.5 * ((square - mean**2) / 1000).sqrt()).all()


@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_show_the_decodings(conditional):
    """The pixels are those of the data and of the decoder's means."""
    vae = make_conditional() if conditional else make()
    x, condition = draw(4, SIZE), draw(4, 3)
    arguments = (condition,) if conditional else ()
    picture = plot_reconstructions(vae, (x, condition) if conditional else x, (1, SIZE), 2).get_images()[0].get_array()
    assert picture.shape == (4 * 2, 4 * (SIZE + 1))
    np.testing.assert_allclose(picture[0].reshape(4, SIZE + 1)[:, :SIZE], x)
    reconstructed = vae.reconstruct(x, *arguments).detach()
    np.testing.assert_allclose(picture[2].reshape(4, SIZE + 1)[:, :SIZE], reconstructed, rtol=1e-6)
    axes = plot_traversal(vae, (1, SIZE), [0.5, -0.5], condition[0] if conditional else None, 2.0, 3)
    picture = axes.get_images()[0].get_array()
    z = torch.tensor([[[-1.5, -0.5], [0.5, -0.5], [2.5, -0.5]], [[0.5, -2.5], [0.5, -0.5], [0.5, 1.5]]], dtype=DOUBLE)
    given = (condition[:1].expand(3, 3),) if conditional else ()
    expected = vae.decode(z, *given).mean.detach()
    np.testing.assert_allclose(picture[::2].reshape(2, 3, SIZE + 1)[..., :SIZE], expected, rtol=1e-6)
    if not conditional:
        shown = plot_latent(vae, x, labels=[0, 1, 2, 3], num_draws=7).collections
        assert [len(dots.get_offsets()) for dots in shown] == [7, 4]


# ---------------------------------------------------------------------- conditions


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


# ---------------------------------------------------------------------- priors


def test_a_mixture_prior_by_hand():
    prior = MixturePrior(3, LATENT).double()
    with torch.no_grad():
        prior.logits.copy_(draw(3))
        prior.log_scale.copy_(draw(3, LATENT))
    z = draw(7, LATENT)
    terms = dist.Normal(prior.loc, prior.log_scale.exp()).log_prob(z[:, None]).sum(-1)
    expected = torch.logsumexp(terms + torch.log_softmax(prior.logits, 0), -1)
    torch.testing.assert_close(make(prior=prior).log_prior(z), expected)


def test_a_vamp_prior_is_the_aggregated_posterior_at_its_inputs():
    data = torch.rand(COUNT, SIZE, dtype=DOUBLE)
    prior = VampPrior(data, constraint=dist.constraints.unit_interval)
    vae = make(prior=prior)
    z = draw(7, LATENT)
    expected = torch.logsumexp(vae.encode(data).log_prob(z[:, None]), -1) - math.log(COUNT)
    torch.testing.assert_close(vae.log_prior(z), expected)
    terms = elbo_decomposition(vae, data, 50)
    assert abs(terms.marginal_kl) < 1e-6  # its estimate is log q(z) - log p(z) at each draw
    before = prior.pseudo_inputs.detach().clone()
    train(vae, data, num_steps=2)
    after = prior.pseudo_inputs.detach()
    assert (after != before).all()
    assert ((after > 0) & (after < 1)).all()


def rbm_model(log_partition="auto", **parameters):
    prior = EnergyPrior(GaussianBernoulliRBM(**parameters, log_partition=log_partition))
    return make(prior=prior), prior


def test_the_elbos_gradient_in_an_rbm_prior_is_the_enumerated_one():
    weights, bias = draw(LATENT, 3), draw(3)
    vae, prior = rbm_model(weights=weights, hidden_bias=bias)
    x = draw(COUNT, SIZE)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    got = torch.autograd.grad(loss, [prior.weights, prior.hidden_bias])
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    leaves = [weights.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = torch.autograd.grad(-_mixture_of_states(z, *leaves).sum(), leaves)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def _mixture_of_states(z, weights, bias):
    """log p(z) of a Gaussian-Bernoulli RBM with unit scales: normal variables around every state's mean."""
    states = torch.tensor([[i >> k & 1 for k in range(3)] for i in range(8)], dtype=DOUBLE)
    means = states @ weights.T
    log_weights = torch.log_softmax(states @ bias + 0.5 * (means**2).sum(-1), 0)
    return torch.logsumexp(dist.Normal(means, 1.0).log_prob(z[:, None]).sum(-1) + log_weights, -1)


def test_an_unknown_partition_function_raises():
    vae, _ = rbm_model(weights=draw(LATENT, 3), log_partition=None)
    x = draw(COUNT, SIZE)
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        train(vae, x, num_steps=1)
    for function in (elbo_decomposition, importance_weighted_log_likelihood):
        with pytest.raises(IntractablePartitionError):
            function(vae, x, 2)
    pyro.clear_param_store()
    constant, _ = rbm_model(weights=draw(LATENT, 3), log_partition=3.0)
    with pytest.raises(IntractablePartitionError):
        train(constant, x, num_steps=1)


def test_a_contrastive_prior_has_the_criterions_gradient():
    """Values are -F(z); gradients in z are the density's, those in the parameters contrastive divergence's."""
    rbm = GaussianBernoulliRBM(draw(LATENT, 3), draw(LATENT), draw(3), log_partition=None)
    prior = EnergyPrior(rbm, lambda base: ContrastiveDivergence(base, 3))
    z = draw(COUNT, LATENT).requires_grad_()
    pyro.set_rng_seed(2)
    log_prob = prior.site().log_prob(z)
    torch.testing.assert_close(log_prob, -rbm.energy(z))
    leaves = [z, prior.weights, prior.hidden_bias]
    got = torch.autograd.grad(log_prob.sum(), leaves)
    pyro.set_rng_seed(2)
    criterion = ContrastiveDivergence(prior.distribution(), 3).log_prob(z.detach())
    expected = [rbm.score(z.detach()), *torch.autograd.grad(criterion.sum(), leaves[1:])]
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["CD", "PCD"])
def test_long_contrastive_chains_give_the_enumerated_gradient(kind, weight):
    """Negative samples from long chains: the ELBO's gradient, within Monte Carlo error."""
    count = 20_000
    weights, bias = draw(LATENT, 3), draw(3)
    rbm = GaussianBernoulliRBM(weights, hidden_bias=bias)
    chains = rbm.sample((count,))
    criteria = {
        "CD": lambda base: ContrastiveDivergence(base, 30),
        "PCD": lambda base: PersistentContrastiveDivergence(base, chains, 5),
    }
    prior = EnergyPrior(rbm._with(log_partition=None), criteria[kind])
    vae, x = make(prior=prior, kl_weight=weight), draw(count, SIZE)
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x) / count
    got = torch.autograd.grad(loss, [prior.weights, prior.hidden_bias])
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    leaves = [weights.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = torch.autograd.grad(-weight * _mixture_of_states(z, *leaves).mean(), leaves)
    draws = rbm.sample((count,))
    hidden = torch.sigmoid(bias + draws @ weights)
    spreads = (draws[..., None] * hidden[:, None]).std(0), hidden.std(0)
    for mine, theirs, spread in zip(got, expected, spreads, strict=True):
        error = weight * spread / math.sqrt(count)
        assert ((mine - theirs).abs() < 4.5 * error).all()
        assert (theirs.abs() > 20 * 4.5 * error).any()
    assert np.isfinite(train(vae, x, num_steps=2)).all()
    with pytest.raises(IntractablePartitionError):
        elbo_decomposition(vae, x[:10])


def test_a_fixed_unnormalised_prior_trains_the_networks():
    rbm = GaussianBernoulliRBM(draw(LATENT, 3), log_partition=None)
    vae = make(prior=EnergyPrior(lambda: rbm))
    assert np.isfinite(train(vae, draw(COUNT, SIZE), num_steps=3)).all()
    assert not list(vae.prior.parameters())


class Quadratic(torch.nn.Module):
    """The energy of a normal variable, whose partition function is known."""

    def __init__(self):
        super().__init__()
        self.precision = torch.nn.Parameter(torch.tensor(2.0, dtype=DOUBLE))

    def forward(self, z):
        return 0.5 * self.precision * (z**2).sum(-1)


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_network_prior_with_an_estimator(as_function, weight):
    """The ELBO's gradient in the precision a: N d/da [log Z] + E z^2 / 2, with log Z = -log(a) + const here."""
    network, estimator = Quadratic(), infer.AnnealedImportanceSampling(num_chains=400, num_temperatures=100)
    energy = lambda: NeuralEnergy(network, (LATENT,), log_partition=estimator)
    vae = make(prior=EnergyPrior(energy if as_function else energy()), kl_weight=weight)
    x = draw(COUNT, SIZE)
    assert any(parameter is network.precision for parameter in vae.parameters())
    pyro.set_rng_seed(1)
    z = poutine.trace(vae.guide).get_trace(x).nodes["z"]["value"].detach()
    pyro.set_rng_seed(1)
    loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    (got,) = torch.autograd.grad(loss, [network.precision])
    expected = weight * (0.5 * (z**2).sum() - COUNT * LATENT / 2 / 2.0)
    assert abs(got - expected) < 4 * COUNT * 0.5 / math.sqrt(300)  # where the normaliser contributes 60 or 30
    train(vae, x, num_steps=1, lr=0.01)
    assert network.precision != 2.0


# ---------------------------------------------------------------------- encoders as guides


def hierarchical_model(x, size=None, subsample_size=None):
    """A global location and local normal variables: everything is normal."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=DOUBLE), 2.0))
    with pyro.plate("data", len(x) if size is None else size, subsample_size, dim=-1) as index:
        z = pyro.sample("z", dist.Normal(loc.expand(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x[index])


def local_guide():
    encoder = linear(1, 2)
    return AmortizedGuide(encoder, {"z": 1}), encoder


@pytest.mark.parametrize("listed", [False, True])
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
    guide = AmortizedGuide(encoder, {"rate": (), "m": (2, 3)}, {"rate": dist.constraints.positive})
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


# ---------------------------------------------------------------------- errors

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
    "criterion": (lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3)), 3), TypeError),
    "criterion: EnergyPrior expected a function to": (
        lambda: EnergyPrior(GaussianBernoulliRBM(torch.ones(2, 3)), lambda base: base).site(),
        TypeError,
    ),
    "prior: CVAE": (lambda: make_conditional(prior=VampPrior(torch.zeros(2, 3))), TypeError),
    "prior: VampPrior": (lambda: VampPrior(torch.zeros(2, 3)).distribution(), ValueError),
    "condition": (lambda: make(prior=NormalPrior(2, linear(3, 4))).sample(), ValueError),
    "prior: expected one over 2": (lambda: make(prior=MixturePrior(2, 3)), ValueError),
    "encoder: expected an output": (lambda: make(5).encode(draw(3, SIZE)), ValueError),
    "z": (lambda: make().decode(draw(3, 4)), ValueError),
    "z:": (lambda: make().log_prior(draw(3, 4)), ValueError),
    "x: the guide": (lambda: make().guide(None, 3), ValueError),
    "size": (lambda: make().model(None), ValueError),
    "size: expected at least": (lambda: make().model(draw(3, SIZE), size=2), ValueError),
    "subsample_size": (lambda: make().model(draw(3, SIZE), subsample_size=4), ValueError),
    "subsample_size: expected None": (lambda: make().model(draw(3, SIZE), 10, subsample_size=2), ValueError),
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
    "image_shape": (lambda: plot_reconstructions(make(), draw(3, SIZE)), ValueError),
    "condition: expected one for a CVAE": (lambda: plot_traversal(make_conditional(), (5, 1)), TypeError),
    "labels": (lambda: plot_latent(make(), draw(3, SIZE), labels=[1]), ValueError),
    "threshold": (lambda: active_units(make(), draw(3, SIZE), -1.0), ValueError),
    "sites": (lambda: AmortizedGuide(linear(3, 4), ["z"]), TypeError),
    "sites:": (lambda: AmortizedGuide(linear(3, 4), {}), ValueError),
    "supports": (lambda: AmortizedGuide(linear(3, 4), {"z": 1}, {"y": dist.constraints.real}), ValueError),
    "sites\\['z'\\]": (lambda: AmortizedGuide(linear(3, 4), {"z": 0}), ValueError),
    "encoder: expected a torch": (lambda: AmortizedGuide(None, {"z": 1}), TypeError),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_the_argument(message):
    call, error = ERRORS[message]
    with pytest.raises(error, match=rf"^{message.strip()}"):
        call()
