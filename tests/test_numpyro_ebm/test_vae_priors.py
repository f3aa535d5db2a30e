"""Priors of NumPyro autoencoders against enumeration."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer import Trace_ELBO  # noqa: E402

from numpyro_ebm import (  # noqa: E402
    EnergyDistribution,
    GaussianBernoulliRBM,
    IntractablePartitionError,
    NeuralEnergy,
    infer,
)
from numpyro_ebm.objectives import ContrastiveDivergence, PersistentContrastiveDivergence  # noqa: E402
from numpyro_ebm.variational import (  # noqa: E402
    VAE,
    EnergyPrior,
    MixturePrior,
    VampPrior,
    elbo_decomposition,
    importance_weighted_log_likelihood,
)
from test_numpyro_ebm.vae_models import (  # noqa: E402
    CONSTANT,
    KEY,
    RBM,
    RNG,
    X,
    fit,
    linear,
    site_value,
)

pytestmark = pytest.mark.numpyro


@pytest.mark.slow
def test_mixture_and_vamp_priors_train():
    x = jnp.asarray(X)
    for prior in (MixturePrior(3, 2, rng_key=KEY), VampPrior(x[:4])):
        vae = VAE(linear(4, 4), linear(2, 4), 2, likelihood=0.5, prior=prior)
        with jax.numpy_rank_promotion("allow"):  # NumPyro's mixtures promote
            result = fit(vae.model, vae.guide, 100, x)
            learned = vae.with_parameters(result.params)
            assert np.isfinite(result.losses).all()
            assert result.losses[-10:].mean() < result.losses[:10].mean()
            z = learned.sample((3,), rng_key=KEY)
            if isinstance(prior, VampPrior):
                with learned_context(result.params):
                    parts = vae.encode(result.params["vae.prior.pseudo_inputs"])
                logs = np.stack([parts.log_prob(jnp.broadcast_to(point, (4, 2))) for point in z[:, :2]])
                expected = np.log(np.exp(logs).mean(1))
                np.testing.assert_allclose(learned.log_prior(z[:, :2]), expected, rtol=1e-8)
            z = z[:, :2]
            np.testing.assert_allclose(learned.prior.distribution().log_prob(z), learned.log_prior(z))
            assert (learned.log_prior(z) != vae.log_prior(z)).all()
            moved = [np.abs(result.params[name]).sum() for name in result.params if name.startswith("vae.prior.")]
            assert len(moved) == (1 if isinstance(prior, VampPrior) else 3)


def learned_context(params):
    return handlers.substitute(data=params)


def rbm_vae(log_partition="auto"):
    rbm = GaussianBernoulliRBM(
        jnp.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]]), hidden_bias=-0.5, log_partition=log_partition
    )
    return VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=EnergyPrior(rbm))


def test_rbm_prior_gradient_is_the_enumerated_one():
    """log p(z) as a mixture of 8 Gaussians, written out."""
    vae, x = rbm_vae(), jnp.ones((5, 3))
    weights = vae.prior.energy.weights
    z = site_value(vae, x)
    hidden = jnp.asarray(np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T)

    def log_prior(weights):
        means = hidden @ weights.T
        log_mass = hidden @ jnp.full(3, -0.5) + 0.5 * (means**2).sum(-1)
        logs = log_mass[None] - 0.5 * ((z[:, None] - means[None]) ** 2).sum(-1) - np.log(2 * np.pi)
        joint = jax.scipy.special.logsumexp(logs, axis=1) - jax.scipy.special.logsumexp(log_mass)
        return joint.sum()

    def objective(weights):
        return Trace_ELBO().loss(KEY, {"vae.prior.weights": weights}, vae.model, vae.guide, x)

    np.testing.assert_allclose(vae.log_prior(z).sum(), log_prior(weights), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(objective)(weights), -jax.grad(log_prior)(weights), rtol=1e-8)


def test_a_contrastive_prior_has_the_criterions_gradient():
    """Values are -F(z); gradients in z are the density's, those in the parameters contrastive divergence's."""
    z = jnp.asarray(RNG.normal(size=(40, 2)))
    three_steps = lambda base: ContrastiveDivergence(base, num_steps=3, rng_key=KEY)

    def log_prob(z, weights):
        return EnergyPrior(RBM.replace(weights=weights), criterion=three_steps).site().log_prob(z)

    np.testing.assert_allclose(log_prob(z, RBM.weights), -RBM.energy(z))
    by_z, by_weights = jax.grad(lambda *args: log_prob(*args).sum(), (0, 1))(z, RBM.weights)
    np.testing.assert_allclose(by_z, RBM.score(z))
    criterion = lambda weights: three_steps(RBM.replace(weights=weights)).log_prob(z).sum()
    np.testing.assert_allclose(by_weights, jax.grad(criterion)(RBM.weights))


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("CD", 1.0),
        pytest.param("CD", 0.5, marks=pytest.mark.slow),
        pytest.param("PCD", 1.0, marks=pytest.mark.slow),
        pytest.param("PCD", 0.5, marks=pytest.mark.slow),
    ],
)
def test_long_contrastive_chains_give_the_enumerated_gradient(kind, weight):
    """Negative samples from long chains: the ELBO's gradient, within Monte Carlo error."""
    count = 20_000
    exact = RBM.replace(log_partition="auto")
    with jax.numpy_rank_promotion("allow"):
        start = exact.sample(jax.random.key(3), (count,))
    if kind == "CD":
        criterion = lambda base: ContrastiveDivergence(base, num_steps=30)
    else:
        criterion = lambda base: PersistentContrastiveDivergence(
            base, numpyro.primitives.mutable("chains", {"value": start}), num_steps=5
        )
    prior = EnergyPrior(RBM, criterion=criterion)
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=prior, kl_weight=weight)
    x = jnp.zeros((count, 3))

    def objective(weights):
        params = {"vae.prior.weights": weights} | ({"chains": {"value": start}} if kind == "PCD" else {})
        return Trace_ELBO().loss_with_mutable_state(KEY, params, vae.model, vae.guide, x)["loss"] / count

    got = jax.jit(jax.grad(objective))(RBM.weights)
    z = site_value(vae, x)
    expected = jax.grad(lambda weights: -weight * exact.replace(weights=weights).log_prob(z).mean())(RBM.weights)
    hidden = exact.hidden_given_visible(start).mean
    error = weight * (start[:, :, None] * hidden[:, None]).std(0) / np.sqrt(count)
    assert (np.abs(got - expected) < 4.5 * error).all()
    assert (np.abs(expected) > 20 * 4.5 * error).any()
    assert np.isfinite(fit(vae.model, vae.guide, 2, x).losses).all()
    with pytest.raises(IntractablePartitionError):
        elbo_decomposition(vae, x[:10], rng_key=KEY)


def test_unknown_normaliser_of_a_prior_raises():
    vae, x = rbm_vae(None), jnp.ones((5, 3))
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        fit(vae.model, vae.guide, 2, x)
    for measure in (elbo_decomposition, importance_weighted_log_likelihood):
        with pytest.raises(IntractablePartitionError):
            measure(vae, x, rng_key=KEY)
    neural = VAE(linear(3, 4), linear(2, 3), 2, likelihood=0.7, prior=EnergyPrior(NeuralEnergy(Quadratic, (2,))))
    with pytest.raises(IntractablePartitionError):
        fit(neural.model, neural.guide, 2, x)
    fixed = VAE(linear(3, 4), linear(2, 3), 2, likelihood=0.7, prior=EnergyPrior(lambda: vae.prior.energy))
    assert np.isfinite(fit(fixed.model, fixed.guide, 2, x).losses).all()


Quadratic = jax.tree_util.Partial(lambda precision, z: 0.5 * precision * (z**2).sum(), jnp.array(2.0))


class QuadraticEnergy(EnergyDistribution):
    """A normal distribution that does not know it."""

    parameter_dims = {"precision": ("visible",)}
    arg_constraints = {"precision": dist.constraints.independent(dist.constraints.positive, 1)}
    support = dist.constraints.real_vector

    def __init__(self, precision, *, log_partition="auto", sampler=None, validate_args=None):
        options = {"log_partition": log_partition, "sampler": sampler, "validate_args": validate_args}
        super().__init__({"precision": precision}, **options)

    def _energy(self, value):
        return 0.5 * (self.precision * value**2).sum()


@pytest.mark.slow
def test_energy_prior_with_an_estimator():
    """The estimate's gradient is that of the normal density, N / 2p - sum z^2 / 2, for parameters that it learns."""
    estimator = infer.AnnealedImportanceSampling(num_chains=400, num_temperatures=30, rng_key=KEY)
    precision = jnp.array([2.0, 0.5])
    prior = EnergyPrior(QuadraticEnergy(precision, log_partition=estimator))
    vae = VAE(CONSTANT.encoder, CONSTANT.decoder, 2, likelihood=0.7, prior=prior)
    x = jnp.ones((5, 3))
    z = site_value(vae, x)
    objective = lambda p: Trace_ELBO().loss(KEY, {"vae.prior.precision": p}, vae.model, vae.guide, x)
    got = jax.jit(jax.grad(objective))(precision)
    np.testing.assert_allclose(got, -(5 / (2 * precision) - 0.5 * (z**2).sum(0)), atol=0.6)
    known = 0.5 * np.log(2 * np.pi / np.asarray(precision)).sum()
    exact = VAE(
        vae.encoder,
        vae.decoder,
        2,
        likelihood=0.7,
        prior=EnergyPrior(lambda: QuadraticEnergy(precision, log_partition=known)),
    )
    estimates = [importance_weighted_log_likelihood(model, x[:1], 50, rng_key=KEY) for model in (vae, exact)]
    np.testing.assert_allclose(*estimates, atol=0.1)
    assert np.isfinite(fit(vae.model, vae.guide, 2, x).losses).all()
