"""What Pyro demands of a distribution: SVI, MCMC, plates, masks, initialisation, copies."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import HMC, MCMC, NUTS, SVI, JitTrace_ELBO, Predictive, Trace_ELBO, autoguide  # noqa: E402
from pyro.infer.autoguide import initialization  # noqa: E402
from pyro.ops.stats import effective_sample_size  # noqa: E402

from backends import siblings  # noqa: E402
from oracles.rbm import Parameters, moments  # noqa: E402
from oracles.statistics import MAX_Z, assert_mean  # noqa: E402
from pyro_ebm import (  # noqa: E402
    BernoulliRBM,
    GaussianBernoulliRBM,
    GaussianRBM,
    IntractablePartitionError,
    LineIntegralEnergy,
    NeuralEnergy,
    infer,
    objectives,
)
from pyro_ebm.diagnostics.fields import circulation  # noqa: E402

pytestmark = pytest.mark.pyro

DOUBLE = torch.float64
P = Parameters.random(3, 2, seed=0, strength=0.8)
ARGUMENTS = {name: torch.as_tensor(value) for name, value in P.arguments("GaussianBernoulliRBM").items()}
RBM = GaussianBernoulliRBM(**ARGUMENTS)
OBSERVED, NOISE = torch.tensor([1.0, 0.0, -1.0], dtype=DOUBLE), 0.6


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    return RBM.sample((400,))


def ones(*shape):
    return torch.ones(shape, dtype=DOUBLE)


def zeros(*shape):
    return torch.zeros(shape, dtype=DOUBLE)


def latent_model(rbm=RBM, observed=OBSERVED):
    value = pyro.sample("v", rbm)
    pyro.sample("y", dist.Normal(value, NOISE).to_event(1), obs=observed)


def learning_model(data, log_partition="auto", criterion=None):
    """All parameters learned, data in a subsampling plate."""
    rbm = GaussianBernoulliRBM(
        pyro.param("weights", lambda: 0.1 * ones(3, 2)),
        visible_bias=pyro.param("visible_bias", lambda: zeros(3)),
        hidden_bias=pyro.param("hidden_bias", lambda: zeros(2)),
        scale=pyro.param("scale", lambda: ones(3), constraint=dist.constraints.positive),
        log_partition=log_partition,
    )
    observed = rbm if criterion is None else criterion(rbm)
    with pyro.plate("data", len(data), subsample_size=100) as index:
        pyro.sample("v", observed, obs=data[index])


def bayesian_model(data, log_partition):
    weights = pyro.sample("weights", dist.Normal(zeros(3, 2), 1.0).to_event(2))
    with pyro.plate("data", len(data)):
        pyro.sample("v", GaussianBernoulliRBM(weights, log_partition=log_partition), obs=data)


def no_guide(*args, **kwargs):
    pass


def run_svi(model, *args, num_steps=300, guide=no_guide, elbo=Trace_ELBO, **kwargs):
    decay = 0.01 ** (1 / num_steps)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": decay}), elbo())
    return [svi.step(*args, **kwargs) for _ in range(num_steps)]


def run_mcmc(kernel, *args, **options):
    options = {"num_samples": 1500, "warmup_steps": 300, "disable_progbar": True, **options}
    mcmc = MCMC(kernel, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run(*args)
    return mcmc


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(NUTS, id="nuts", marks=pytest.mark.slow),
        pytest.param(lambda model: HMC(model, trajectory_length=2.0), id="hmc"),
    ],
)
def test_hmc_and_nuts_over_the_value(kernel):
    """The posterior under a Gaussian likelihood is known exactly."""
    draws = run_mcmc(kernel(latent_model)).get_samples(group_by_chain=True)["v"]
    exact = RBM.condition_on_noisy(OBSERVED, NOISE)
    assert_mean(draws[0].numpy(), exact.mean.numpy(), effective_sample_size(draws).numpy())
    squares = (draws - exact.mean) ** 2
    assert_mean(squares[0].numpy(), exact.variance.numpy(), effective_sample_size(squares).numpy())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nuts_over_the_value_of_an_unnormalised_model(jit_compile):
    unknown = GaussianBernoulliRBM(**ARGUMENTS, log_partition=None)
    kernel = NUTS(latent_model, jit_compile=jit_compile, ignore_jit_warnings=True)
    draws = run_mcmc(kernel, unknown, num_samples=20, warmup_steps=10).get_samples()["v"]
    assert torch.isfinite(draws).all()


@pytest.mark.parametrize("num_hidden", [4, 64])
def test_traced_models_decide_as_eager_ones(num_hidden):
    """torch.jit.trace turns shapes into tensors: 2 ** 64 must not overflow to an empty, "exact" enumeration."""
    rbm = GaussianBernoulliRBM(0.1 * ones(3, num_hidden))
    assert rbm.is_normalized == (num_hidden == 4)
    values = torch.randn(2, 3, dtype=DOUBLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make = lambda weights, v: GaussianBernoulliRBM(weights).log_prob(v)
        traced = torch.jit.trace(make, (rbm.weights, values), check_trace=False)
    torch.testing.assert_close(traced(rbm.weights, values + 1), rbm.log_prob(values + 1))


@pytest.mark.parametrize("family", [GaussianRBM, pytest.param(NeuralEnergy, marks=pytest.mark.slow)])
def test_nuts_runs_on_other_continuous_families(family):
    rbm = NeuralEnergy(lambda v: (v**4).sum(-1), (2,))
    if family is GaussianRBM:
        rbm = GaussianRBM(torch.tensor([[0.5], [-0.3]], dtype=DOUBLE))
    observed = torch.tensor([0.5, -0.5], dtype=DOUBLE)
    draws = run_mcmc(NUTS(latent_model), rbm, observed, num_samples=500).get_samples(group_by_chain=True)["v"]
    assert torch.isfinite(draws).all()
    if family is GaussianRBM:  # conjugate: precision (I - WW') + I / noise^2
        precision = np.eye(2) - (rbm.weights @ rbm.weights.T).numpy() + np.eye(2) / NOISE**2
        mean = np.linalg.solve(precision, observed.numpy() / NOISE**2)
        assert_mean(draws[0].numpy(), mean, effective_sample_size(draws).numpy())


@pytest.mark.parametrize("elbo", [Trace_ELBO, JitTrace_ELBO])
@pytest.mark.parametrize("log_partition", [None, 4.0])
def test_svi_over_parameters_of_an_unnormalised_model_raises(data, log_partition, elbo):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(IntractablePartitionError, match="PersistentContrastiveDivergence"):
            run_svi(learning_model, data, log_partition=log_partition, elbo=elbo)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_mcmc_over_parameters_of_an_unnormalised_model_raises(data, kernel, jit_compile):
    kernel = kernel(bayesian_model, jit_compile=jit_compile, ignore_jit_warnings=True)
    with pytest.raises(IntractablePartitionError, match="AnnealedImportanceSampling"):
        run_mcmc(kernel, data, None, warmup_steps=2, num_samples=2)


def test_mcmc_over_parameters_of_a_small_model_runs(data):
    mcmc = run_mcmc(NUTS(bayesian_model), data[:50], "auto", warmup_steps=5, num_samples=5)
    assert torch.isfinite(mcmc.get_samples()["weights"]).all()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own forward mode
def test_guard_survives_transformations():
    weights = zeros(3, 2)

    def log_prob(weights):
        return GaussianBernoulliRBM(weights, log_partition=None).log_prob(zeros(3))

    batch = torch.func.vmap(log_prob)(zeros(2, 3, 2))
    assert batch.shape == (2,)
    with pytest.raises(IntractablePartitionError):
        torch.func.grad(log_prob)(weights)
    with pytest.raises(IntractablePartitionError):
        torch.func.vmap(torch.func.grad(log_prob))(zeros(2, 3, 2))
    with pytest.raises(IntractablePartitionError):
        torch.func.jvp(log_prob, (weights,), (ones(3, 2),))
    with pytest.raises(IntractablePartitionError):
        log_prob(weights.clone().requires_grad_()).backward()


def test_detached_parameters_pass_the_guard():
    weights, value = ones(3, 2).requires_grad_(), ones(3).requires_grad_()
    GaussianBernoulliRBM(weights.detach(), log_partition=None).log_prob(value).backward()
    assert weights.grad is None
    assert value.grad.abs().min() > 0


def test_value_gradient_passes_while_parameters_require_one():
    weights, value = ones(3, 2).requires_grad_(), ones(3).requires_grad_()
    rbm = GaussianBernoulliRBM(weights, log_partition=None)
    (gradient,) = torch.autograd.grad(rbm.log_prob(value), value, create_graph=True)
    torch.testing.assert_close(gradient, rbm.score(value))
    (curvature,) = torch.autograd.grad(
        gradient.sum(), weights
    )  # a second derivative loses nothing: log Z has none in v
    assert curvature.abs().max() > 0


def test_neural_energy_guards_module_parameters():
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.Softplus(), torch.nn.Linear(4, 1), torch.nn.Flatten(0)
    )
    energy = NeuralEnergy(network, (2,))
    value = torch.randn(5, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(energy.log_prob(value).sum(), value)
    torch.testing.assert_close(gradient, energy.score(value))
    with pytest.raises(IntractablePartitionError):
        energy.log_prob(value).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_svi_is_exact_maximum_likelihood_for_a_small_model(data):
    run_svi(learning_model, data, num_steps=1500)
    fitted = GaussianBernoulliRBM(**{name: pyro.param(name).detach() for name in ARGUMENTS})
    assert float(fitted.log_prob(data).mean()) > float(RBM.log_prob(data).mean()) - 0.02
    np.testing.assert_allclose(fitted.mean, data.mean(0), atol=0.03)


def test_svi_gradient_is_the_enumerated_one(data):
    leaves = {name: value.clone().requires_grad_() for name, value in ARGUMENTS.items()}

    def model():
        with pyro.plate("data", len(data)):
            pyro.sample("v", GaussianBernoulliRBM(**leaves), obs=data)

    loss = Trace_ELBO().differentiable_loss(model, no_guide)
    got = torch.autograd.grad(loss, list(leaves.values()))
    expected = torch.autograd.grad(-GaussianBernoulliRBM(**leaves).log_prob(data).sum(), list(leaves.values()))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_svi_with_an_estimated_partition_function_follows_exact_likelihood(data):
    exact = run_svi(learning_model, data)
    pyro.clear_param_store()
    estimator = infer.AnnealedImportanceSampling(num_chains=20, num_temperatures=15)
    estimated = run_svi(learning_model, data, log_partition=estimator)
    np.testing.assert_allclose(np.mean(estimated[-20:]), np.mean(exact[-20:]), rtol=0.02)


@pytest.mark.parametrize("name", siblings(["pcd", "cd", "score-matching", "hutchinson"], ["pcd", "score-matching"]))
def test_learning_criteria_train_in_svi(data, name):
    """Each criterion reaches the scales of the data's own model within 15 %, from scales of one."""
    chains = zeros(100, 3)
    criterion = {
        "pcd": lambda rbm: objectives.PersistentContrastiveDivergence(rbm, chains, num_steps=5),
        "cd": lambda rbm: objectives.ContrastiveDivergence(rbm, num_steps=10),
        "score-matching": objectives.ScoreMatching,
        "hutchinson": lambda rbm: objectives.ScoreMatching(rbm, estimator="hutchinson"),
    }[name]
    run_svi(learning_model, data, log_partition=None, criterion=criterion, num_steps=1500)
    np.testing.assert_allclose(pyro.param("scale").detach(), P.scale, rtol=0.15)
    fitted = GaussianBernoulliRBM(**{name: pyro.param(name).detach() for name in ARGUMENTS})
    assert float(fitted.log_prob(data).mean()) > float(RBM.log_prob(data).mean()) - 0.1


def test_persistent_chains_are_updated_in_place():
    chains = zeros(10, 3)
    criterion = objectives.PersistentContrastiveDivergence(RBM, chains)
    first = chains.clone()
    torch.testing.assert_close(criterion.negative, first)
    again = objectives.PersistentContrastiveDivergence(RBM, chains)
    torch.testing.assert_close(chains, first)  # under the same parameters
    torch.testing.assert_close(again.negative, first)
    objectives.PersistentContrastiveDivergence(RBM.replace(scale=2.0), chains)
    assert not torch.allclose(chains, first)
    with pytest.raises(ValueError, match=r"^chains: "):
        objectives.PersistentContrastiveDivergence(RBM, zeros(10, 3).requires_grad_())


def test_persistent_chains_advance_once_for_the_same_parameters(data):
    """Losses, predictions and further particles leave them alone; another step, or setting them, does not."""
    chains = zeros(10, 3)

    def model():
        scale = pyro.param("scale", torch.ones(3), constraint=dist.constraints.positive)
        criterion = objectives.PersistentContrastiveDivergence(RBM.replace(scale=scale), chains)
        with pyro.plate("data", len(data)):
            pyro.sample("v", criterion, obs=data)

    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(num_particles=3))
    svi.step()
    before = chains.clone()
    svi.evaluate_loss()  # under what the step has made of the parameters
    after = chains.clone()
    assert not torch.equal(after, before)
    svi.evaluate_loss()
    Predictive(model, num_samples=2)()
    torch.testing.assert_close(chains, after, rtol=0, atol=0)
    svi.step()  # its gradient is at the same parameters
    torch.testing.assert_close(chains, after, rtol=0, atol=0)
    svi.step()
    assert not torch.equal(chains, after)
    chains.zero_()
    svi.evaluate_loss()
    assert chains.abs().min() > 0


@pytest.mark.parametrize("guide", [autoguide.AutoNormal, autoguide.AutoDelta])
@pytest.mark.parametrize(
    "strategy",
    [
        initialization.init_to_uniform,
        initialization.init_to_feasible,
        initialization.init_to_median,
        initialization.init_to_mean,
        initialization.init_to_sample,
        initialization.init_to_value(values={"v": zeros(3)}),
        initialization.init_to_generated(generate=lambda: initialization.init_to_mean),
    ],
    ids=["uniform", "feasible", "median", "mean", "sample", "value", "generated"],
)
def test_autoguides_and_initialisation(guide, strategy):
    unknown = GaussianBernoulliRBM(**ARGUMENTS, log_partition=None)
    losses = run_svi(latent_model, unknown, guide=guide(latent_model, init_loc_fn=strategy), num_steps=3)
    assert np.isfinite(losses).all()


def test_auto_delta_finds_the_mode():
    guide = autoguide.AutoDelta(latent_model)
    run_svi(latent_model, guide=guide, num_steps=1000)
    score = RBM.condition_on_noisy(OBSERVED, NOISE).score(guide.median()["v"].detach())
    np.testing.assert_allclose(score, 0, atol=0.05)


def test_plates_masks_events_and_predictive():
    def model():
        with pyro.plate("outer", 4):
            pyro.sample("binary", BernoulliRBM(ones(3, 2)))
            pyro.sample("masked", RBM.mask(torch.tensor([True, False, True, True])))
        pyro.sample("event", RBM.expand((4,)).to_event(1))

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["binary"]["value"].shape == (4, 3)
    masked = trace.nodes["masked"]
    mask = torch.tensor([1.0, 0, 1, 1], dtype=DOUBLE)
    torch.testing.assert_close(masked["log_prob"], RBM.log_prob(masked["value"]) * mask)
    event = trace.nodes["event"]
    torch.testing.assert_close(event["log_prob"], RBM.log_prob(event["value"]).sum())
    draws = Predictive(model, num_samples=5)()
    assert draws["binary"].shape == (5, 4, 3)
    assert len(np.unique(draws["event"].numpy().reshape(-1, 3), axis=0)) == 20
    assert Predictive(model, num_samples=5, parallel=True)()["binary"].shape == (5, 4, 3)


def test_expand_leaves_the_original_alone():
    expanded = RBM.expand((4,))
    assert (RBM.batch_shape, expanded.batch_shape) == ((), (4,))
    assert type(expanded) is GaussianBernoulliRBM
    assert expanded.expand((2, 4)).sample((3,)).shape == (3, 2, 4, 3)
    criterion = objectives.ScoreMatching(RBM)
    assert criterion.expand((4,)).batch_shape == (4,)
    assert criterion.batch_shape == ()


def test_conditioning_handler():
    trace = poutine.trace(poutine.condition(latent_model, data={"v": ones(3)})).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["v"]["is_observed"]
    torch.testing.assert_close(trace.nodes["v"]["log_prob"], RBM.log_prob(ones(3)))


DISTRIBUTIONS = {
    "bernoulli": BernoulliRBM(ones(3, 2)),
    "gaussian-bernoulli": RBM,
    "gaussian": GaussianRBM(0.2 * ones(3, 2)),
    "batched": GaussianBernoulliRBM(ones(4, 1, 3, 2), visible_bias=ones(5, 3), sampler=infer.Gibbs(3)),
    "unknown": GaussianBernoulliRBM(**ARGUMENTS, log_partition=None),
    "constant": GaussianBernoulliRBM(**ARGUMENTS, log_partition=1.5),
    "neural": NeuralEnergy(torch.nn.Flatten(0), (1,)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_copy_and_pickle(name):
    distribution = DISTRIBUTIONS[name]
    value = torch.ones((7,) + (1,) * len(distribution.batch_shape) + tuple(distribution.event_shape), dtype=DOUBLE)
    expected = distribution.log_prob(value)
    buffer = io.BytesIO()
    torch.save(distribution, buffer)
    buffer.seek(0)
    copies = [pickle.loads(pickle.dumps(distribution)), copy.deepcopy(distribution)]
    for other in [*copies, torch.load(buffer, weights_only=False)]:
        assert type(other) is type(distribution)
        assert (other.batch_shape, other.event_shape) == (distribution.batch_shape, distribution.event_shape)
        assert other.sampler == distribution.sampler
        torch.testing.assert_close(other.log_prob(value), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_parameters(dtype):
    for cls in (BernoulliRBM, GaussianBernoulliRBM, GaussianRBM):
        rbm = cls(torch.full((3, 2), 0.1, dtype=dtype), visible_bias=0.5)
        assert rbm.sample((2,)).dtype == dtype
        value = torch.ones(3, dtype=dtype)
        results = [rbm.log_prob(value), rbm.score(value), rbm.laplacian(value)]
        results += [rbm.mean, rbm.variance, rbm.log_partition]
        assert {result.dtype for result in results} == {dtype}
        assert cls(torch.full((3, 2), 0.1, dtype=dtype), log_partition=None).log_prob(value).dtype == dtype


def test_samples_are_detached():
    weights = ARGUMENTS["weights"].clone().requires_grad_()
    for sampler in (infer.Exact(), infer.Gibbs(5), infer.Hamiltonian(num_steps=4)):
        rbm = GaussianBernoulliRBM(weights, sampler=sampler)
        assert not rbm.sample((2,)).requires_grad
        assert not rbm.has_rsample
        assert rbm.sample().grad_fn is None


def test_seeds_reproduce_draws():
    for sampler in (infer.Exact(), infer.Gibbs(5), infer.Hamiltonian(num_steps=4)):
        rbm = GaussianBernoulliRBM(**ARGUMENTS, sampler=sampler)
        first, second = (torch.manual_seed(3) and rbm.sample((5,)) for _ in range(2))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_pyro_can_switch_validation_off():
    bad = torch.tensor([[float("nan")]])
    with pytest.raises(ValueError, match="weights"):
        BernoulliRBM(bad)
    with pyro.validation_enabled(False):
        assert torch.isnan(BernoulliRBM(bad).log_partition)


def test_parameters_on_different_devices_are_refused():
    with pytest.raises(ValueError, match=r"^visible_bias: .*device"):
        GaussianBernoulliRBM(ones(3, 2), visible_bias=torch.ones(3, dtype=DOUBLE, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_draws(dtype):
    """Marginals at ordinary and extreme logits, independence of neighbours, edges; small and large tensors."""
    from pyro_ebm.sampling.random import bernoulli_from_logits

    logits = torch.tensor([-9.0, -3.0, -0.1, 0.0, 0.7, 3.0, 9.0], dtype=dtype)
    prob = torch.sigmoid(logits.double()).numpy()
    for count, repeats in ((300_000, 1), (1000, 300)):  # one large call, many small ones
        draws = torch.cat([bernoulli_from_logits(logits.expand(count, 7)) for _ in range(repeats)])
        assert draws.dtype == dtype
        draws = draws.double().numpy()
        z = (draws.mean(0) - prob) / np.sqrt(prob * (1 - prob) / len(draws))
        assert np.all(np.abs(z) < MAX_Z)
        centred = (draws - prob) / np.sqrt(prob * (1 - prob))
        for shifted in (centred[:, 1:-2] * centred[:, 2:-1], centred[1:, 1:-1] * centred[:-1, 1:-1]):
            assert_mean(shifted, 0.0)
    edges = torch.tensor([np.inf, -np.inf, np.nan, 800.0, -800.0], dtype=dtype)
    for count in (2, 20_000):
        got = bernoulli_from_logits(edges.expand(count, 5)).numpy()
        np.testing.assert_array_equal(got, np.tile([1, 0, np.nan, 1, 0], (count, 1)))


@pytest.mark.parametrize("gradients", [True, False])
def test_forward_mode_meets_the_guard_with_and_without_gradients(gradients):
    weights, points = torch.tensor([0.5, -1.0]), torch.randn(3, 2)

    def log_prob(weights, points):
        return NeuralEnergy(lambda v: (v @ weights) ** 2, (2,)).log_prob(points).sum()

    with torch.set_grad_enabled(gradients):
        with pytest.raises(IntractablePartitionError):
            torch.func.jvp(lambda w: log_prob(w, points), (weights,), (weights,))
        _, slope = torch.func.jvp(lambda v: log_prob(weights, v), (points,), (points,))
        with torch.autograd.forward_ad.dual_level(), pytest.raises(IntractablePartitionError):
            log_prob(torch.autograd.forward_ad.make_dual(weights, weights), points)
    torch.testing.assert_close(slope, -2 * ((points @ weights) ** 2).sum())


def test_networks_whose_weights_are_drawn_anew_are_refused():
    drawn = pyro.nn.PyroModule[torch.nn.Linear](2, 2)
    drawn.weight = pyro.nn.PyroSample(dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
    nested = torch.nn.Sequential(torch.nn.Tanh(), drawn)

    class Declared(pyro.nn.PyroModule):
        @pyro.nn.PyroSample
        def weight(self):
            return dist.Normal(0.0, 1.0).expand([2]).to_event(1)

        def forward(self, value):
            return value * self.weight

    for network in (drawn, nested, lambda v: drawn(v), Declared()):
        with pytest.raises(TypeError, match="reconstruct: expected a network whose weights stay"):
            LineIntegralEnergy(network, (2,))
    with pytest.raises(TypeError, match=r"energy_fn: .* PyroSample 'weight'"):
        NeuralEnergy(lambda v: drawn(v).sum(-1), (2,))
    LineIntegralEnergy(pyro.nn.PyroModule[torch.nn.Linear](2, 2), (2,))


def test_points_that_are_no_tensors_go_where_the_energy_is():
    machine = GaussianBernoulliRBM(torch.ones(2, 1, device="meta"), log_partition=None, validate_args=False)
    assert circulation(machine, np.zeros(2)).device.type == "meta"


def test_functions_without_parameters_are_at_home_on_every_device():
    elsewhere = torch.ones(3, 2, device="meta")
    energy = NeuralEnergy(lambda v: (v**2).sum(-1), (2,), validate_args=False)
    assert energy.energy(elsewhere).device.type == energy.score(elsewhere).device.type == "meta"
    scaled = NeuralEnergy(torch.nn.Linear(2, 1), (2,), validate_args=False)
    with pytest.raises(ValueError, match="value: expected a tensor on device cpu, got one on meta"):
        scaled.energy(elsewhere)


@pytest.mark.gpu
def test_sampling_stays_on_the_accelerator():
    rbm = GaussianBernoulliRBM(ARGUMENTS["weights"].cuda(), sampler=infer.Gibbs(20))
    draws = rbm.sample((60_000,))
    assert draws.is_cuda
    p = Parameters(P.weights, 0 * P.visible_bias, 0 * P.hidden_bias, np.ones(3))
    assert_mean(draws.cpu().numpy(), moments("GaussianBernoulliRBM", p)[0])
