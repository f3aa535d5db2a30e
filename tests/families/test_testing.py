"""The test case that both packages ship: all families and kernels pass it, and what is wrong on purpose does not."""

import dataclasses
import importlib

import numpy as np
import pytest

from backends import except_numpyro, pairs, slow_in
from families.cases import FAMILIES, make, parameters
from families.test_doors import random_walk
from families.test_markov import make as markov_network
from families.test_networks import network
from families.test_own_family import STRENGTH, quartic
from families.zoo import ALL, binary_autoencoder
from oracles import energies as oracle

#: Autoencoders that differ from others by their activation alone, whose formulas ``test_energies.py`` holds against the
#: same references.
ACTIVATIONS_OF_ONE_KIND = {f"tied {name}" for name in oracle.ACTIVATIONS} - {
    f"tied {name}" for name in ("tanh", "relu", "step", "softmax")
}
CASES = {
    **{name: lambda backend, name=name: make(backend, name, parameters(name)) for name in FAMILIES},
    **{name: lambda backend, name=name: ALL[name].make(backend) for name in ALL if name not in ACTIVATIONS_OF_ONE_KIND},
    "on the unit square": binary_autoencoder,
    "relu on the unit square": lambda backend: binary_autoencoder(backend, "relu"),
    "network with a loop": lambda backend: markov_network(backend, "loop"),
    **{
        name: lambda backend, name=name: network(backend, name, sampler=backend.infer.Hamiltonian(40, num_leapfrog=4))
        for name in ("LineIntegralEnergy", "GradientStepEnergy")
    },
    "CausalAutoencoder": lambda backend: network(backend, "CausalAutoencoder"),
    "a function": lambda backend: backend.distributions.NeuralEnergy(lambda v: 0.25 * (v**4).sum(-1), (2,)),
    "a family of one's own": lambda backend: quartic(backend)(backend.array(STRENGTH)),
}
#: One case of every family; the others of ``zoo.py`` are in the slow suite.
FAST = [
    *(*FAMILIES, "PoT", "mPoT", "cRBM", "mcRBM", "gated RBM", "normalised cRBM", "tied tanh", "on the unit square"),
    *("gated tanh", "cAE sigmoid", "mcAE sigmoid", "network with a loop", "GradientStepEnergy"),
    *("CausalAutoencoder", "a function", "a family of one's own"),
]
#: One of every kind, of which NumPyro compiles some hundred programs each.
COMPILED = [
    *("GaussianBernoulliRBM", "CausalAutoencoder", "a function", "a family of one's own"),
]
#: What differs from another case by its activation, temperature, pooling or sizes alone: Pyro runs them; in NumPyro,
#: which compiles for minutes, parity and ``test_energies.py`` hold their functions against the same references.
VARIANTS = [
    *("pooled mPoT", "normalised cRBM", "tied relu", "tied step", "tied softmax", "tied sigmoid", "tempered tied tanh"),
    *("gated sigmoid", "gated softmax", "tempered gated tanh", "cAE tanh", "cAE relu", "cAE softmax", "mcAE relu"),
    *("tempered cAE sigmoid", "tempered mcAE softmax", "relu on the unit square"),
    *("cRBM of mixed signs", "mcRBM with few filters"),
]
SLOW = [*except_numpyro(CASES, COMPILED), *(("pyro", name) for name in CASES if name not in FAST)]


@pytest.mark.parametrize(*pairs(CASES, SLOW, without=except_numpyro(VARIANTS, [])), indirect=["backend"])
def test_every_family_passes(backend, name):
    backend.check_energy(CASES[name](backend))


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_single_precision(backend):
    p = parameters("GaussianBernoulliRBM", 2, 2).arguments("GaussianBernoulliRBM")
    arrays = {name: backend.array(value, np.float32) for name, value in p.items()}
    backend.check_energy(backend.distributions.GaussianBernoulliRBM(**arrays), num_draws=2_000)


# ---------------------------------------------------------------------------------------------------- wrong energies


def overridden(base, **methods):
    """A subclass of ``base``: each method is a function of the original one's result, or a value."""

    def wrap(name, change):
        original = getattr(base, name)
        if isinstance(original, property):
            return property(lambda self: change(original.fget(self)) if callable(change) else change)
        return lambda self, *arguments: change(original(self, *arguments))

    return type(f"Wrong{base.__name__}", (base,), {name: wrap(name, change) for name, change in methods.items()})


def of_one_copy(draws):
    return draws[:, :1] + 0 * draws


WRONG = {
    "score": (
        ("GaussianBernoulliRBM", {"_score": lambda score: 1.05 * score}),
        ["score against automatic differentiation", r"Stein's identity E\[x score'\]", "continuous score"],
    ),
    "laplacian": (
        ("GaussianRBM", {"_laplacian": lambda trace: trace + 0.3}),
        ["laplacian against automatic differentiation", r"E\[laplacian \+ \|score\|\^2\] = 0"],
    ),
    "normaliser": (
        ("GaussianRBM", {"_exact_log_partition": lambda total: total + 1e-6}),
        ["log_partition against quadrature"],
    ),
    "sum over states": (
        ("BernoulliRBM", {"_exact_log_partition": lambda total: total + 1e-6}),
        ["log_partition against a sum over all states"],
    ),
    "mean": (("GaussianRBM", {"mean": lambda mean: mean + 1e-6}), ["mean against quadrature"]),
    "variance": (("BernoulliRBM", {"variance": lambda variance: 1.001 * variance}), ["variance against a sum"]),
    "draws": (
        ("GaussianRBM", {"exact_sample": lambda draws: 1.05 * draws}),
        ["draws by sample: Stein's identity", "draws by sample: covariance", "gibbs_step, 4 of them"],
    ),
    "draws of binary units": (
        ("BernoulliRBM", {"exact_sample": lambda draws: 1 - draws}),
        [r"draws by sample: E\[\(x_i - P\(x_i = 1 \| rest\)\) x_j\]", "draws by sample: mean"],
    ),
    "copies that are one": (("GaussianRBM", {"exact_sample": of_one_copy}), ["covariance of two copies"]),
    "draws outside the support": (
        ("BernoulliRBM", {"exact_sample": lambda draws: draws + 2}),
        ["draws by sample: inside the support: expected True, got False"],
    ),
    "a sweep": (
        ("GaussianBernoulliRBM", {"gibbs_step": lambda value: 1.05 * value}),
        [r"gibbs_step, 2 of them: E\[energy\] drifts"],
    ),
    "conditional log odds": (("BernoulliRBM", {"conditional_logits": lambda odds: -odds}), ["conditional_logits: "]),
    "the end of the path": (
        ("BernoulliRBM", {"at_inverse_temperature": lambda path: path.replace(visible_bias=0.0)}),
        ["energy against that at inverse temperature 1"],
    ),
    "the path's base": (
        ("BernoulliRBM", {"base_log_partition": lambda total: total + 0.1}),
        ["base_log_partition: expected"],
    ),
    "starting points": (
        ("GaussianBernoulliRBM", {"initial": lambda start: 1.05 * start}),
        [r"initial\(\) as draws at inverse temperature 0: covariance"],
    ),
}


SHARED = [name for name in WRONG if name not in ("score", "draws", "a sweep")]


# what is compared with what is the same in both packages
@pytest.mark.parametrize(*pairs(WRONG, slow=[("numpyro", name) for name in SHARED]), indirect=["backend"])
def test_what_is_wrong_is_named(backend, name):
    (family, changes), messages = WRONG[name]
    cls = overridden(getattr(backend.distributions, family), **changes)
    p = parameters(family, 2, 2)
    distribution = cls(**{key: backend.array(value) for key, value in p.arguments(family).items()})
    with pytest.raises(AssertionError) as caught:
        backend.check_energy(distribution)
    for message in messages:
        assert caught.match(message)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_a_jump_that_is_not_declared(backend):
    """Units that are steps have a score with jumps, of which the Laplacian sees nothing."""
    cls = overridden(backend.distributions.TiedAutoencoder, has_continuous_score=True)
    distribution = cls(backend.array([[1.0], [0.5]]), activation="step")
    with pytest.raises(AssertionError, match=r"E\[laplacian \+ \|score\|\^2\] = 0, of a continuous score"):
        backend.check_energy(distribution)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_an_irreversible_sweep(backend):
    """Turning a normal distribution about its centre leaves it as it is, and is no reversible move."""
    turn = backend.array([[np.cos(1.0), np.sin(1.0)], [-np.sin(1.0), np.cos(1.0)]])
    cls = overridden(backend.distributions.GaussianBernoulliRBM, gibbs_step=lambda value: value)
    cls.gibbs_step = lambda self, *arguments: arguments[-1] @ turn
    with pytest.raises(AssertionError, match=r"WrongGaussianBernoulliRBM: 1 found wrong\n- gibbs_step: .*reversible"):
        backend.check_energy(cls(backend.array(np.zeros((2, 1)))))


@pytest.mark.pyro
def test_formulas_that_mix_the_models_of_a_batch():
    """In NumPyro the base maps formulas for one model, so that this cannot happen there."""
    from backends import get_backend

    backend = get_backend("pyro")
    cls = overridden(backend.distributions.GaussianRBM)
    cls._energy = lambda self, value: 0.5 * (value**2).sum(-1) + self.weights.sum()
    cls._score, cls._laplacian = lambda self, value: -value, lambda self, value: 0 * value.sum(-1) - 2
    with pytest.raises(AssertionError, match="energy of a batch of two models"):
        backend.check_energy(cls(backend.array([[0.5], [0.2]])), num_draws=0)


# ---------------------------------------------------------------------------------------------------- kernels


def machine(backend):
    return make(backend, "GaussianBernoulliRBM", parameters("GaussianBernoulliRBM", visible=2, hidden=3, seed=5))


def model_of(backend, distribution):
    """A model with the site ``v``."""
    host = importlib.import_module(backend.name)
    return lambda: host.sample("v", distribution)


KERNELS = {
    "MALA": {"step_size": 1.2},
    "UnderdampedLangevin": {"step_size": 1.0, "num_leapfrog": 2},
    "BlockGibbs": {},
    "HMC": {"step_size": 0.9},
    "NUTS": {"step_size": 0.9},
}
SAMPLERS = {
    "Gibbs": ({}, 0),
    "Hamiltonian": ({"step_size": 0.8, "num_leapfrog": 3}, 0),
    "Langevin": ({"step_size": 1.2}, 0),
    "tuned Hamiltonian": ({}, 30),
}


@pytest.mark.parametrize("family", ["GaussianBernoulliRBM", pytest.param("mcRBM", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_passes(backend, family, name):
    """At a step size that refuses many proposals; tempering's state is more than a position."""
    if name in ("HMC", "NUTS") and backend.name == "numpyro":
        pytest.skip("the host's")
    distribution = machine(backend) if family == "GaussianBernoulliRBM" else ALL[family].make(backend)
    model = model_of(backend, distribution.with_log_partition(None))
    backend.check_kernel(getattr(backend.infer, name)(model, **KERNELS[name]), distribution, site="v")


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
@pytest.mark.parametrize("preconditioner", ["gradients", pytest.param("variances", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["MALA", "UnderdampedLangevin"])
def test_kernels_pass_with_what_they_have_learned(backend, name, preconditioner):
    """A machine whose scales differ, so that a preconditioner matters."""
    p = parameters("GaussianBernoulliRBM", visible=2, hidden=3, seed=5)
    p.scale = np.array([0.2, 1.5])
    distribution = make(backend, "GaussianBernoulliRBM", p)
    kernel = getattr(backend.infer, name)(model_of(backend, distribution), preconditioner=preconditioner)
    backend.check_kernel(kernel, distribution, site="v", num_warmup=40)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_markov_chain_passes(backend, name):
    options, num_warmup = SAMPLERS[name]
    chain = getattr(backend.infer, name.split()[-1])(**options)
    backend.check_kernel(chain, machine(backend), num_warmup=num_warmup)


@pytest.mark.parametrize(*slow_in("numpyro"), indirect=True)
def test_sweeps_of_binary_units_and_of_networks(backend):
    for distribution in (make(backend, "BernoulliRBM", parameters("BernoulliRBM")), markov_network(backend, "loop")):
        backend.check_kernel(backend.infer.BlockGibbs(model_of(backend, distribution)), distribution, site="v")


def test_a_sweep_that_is_a_proposal(backend):
    """With an observation of the value, block Gibbs accepts with a ratio; the posterior is a machine again."""
    host, distribution = importlib.import_module(backend.name), machine(backend)
    dist = importlib.import_module(f"{backend.name}.distributions")
    observed = backend.array([1.0, -1.0])

    def model():
        value = host.sample("v", distribution)
        host.sample("y", dist.Normal(value, 1.5).to_event(1), obs=observed)

    kernel = backend.infer.BlockGibbs(model)
    backend.check_kernel(kernel, distribution.condition_on_noisy(observed, 1.5), site="v")
    with pytest.raises(AssertionError, match=r"BlockGibbs on .* found wrong\n- after 1 transition: E\[x_0\] drifts"):
        backend.check_kernel(kernel, distribution, site="v")


def test_a_chain_of_ones_own(backend):
    backend.check_kernel(random_walk(backend), machine(backend))


def accepting_all(steps, key, state, target, step_size):
    return steps.unadjusted_langevin_step(*key, state, target, step_size)


def with_a_factor_missing(steps, key, state, target, step_size):
    return steps.hamiltonian_step(
        *key, state, steps.Target(lambda x: 0.9 * target.unnormalized_log_prob(x)), step_size, 2
    )


def scaled_by_where_it_is(steps, key, state, target, step_size):
    return steps.hamiltonian_step(*key, state, target, step_size, 2, 0.0, 0.5 + abs(state.position))


def standing_still(steps, key, state, target, step_size):
    return state, None


@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (accepting_all, r"after 1 transition: E\[energy\] drifts"),
        (with_a_factor_missing, r"after 16 transitions: E\[energy\] drifts"),
        (scaled_by_where_it_is, r"after 1 transition: E\[x_0 x_0\] drifts"),
        (standing_still, "a chain that moves in 16 transitions: expected True, got False"),
    ],
)
def test_a_wrong_kernel_drifts(backend, transition, message):
    @dataclasses.dataclass(frozen=True)
    class Wrong(backend.infer.Hamiltonian):
        def _step(self, *arguments):
            *key, state, target, step_size = arguments
            return transition(backend.infer.steps, key, state, target, step_size)

    with pytest.raises(AssertionError, match=message):
        backend.check_kernel(Wrong(step_size=0.7), machine(backend))


# ---------------------------------------------------------------------------------------------------- bad arguments


def test_what_cannot_be_checked(backend):
    distribution = machine(backend)
    with pytest.raises(ValueError, match=r"distribution: check_energy expected no batch dimensions, got \(2,\)"):
        backend.check_energy(distribution.expand((2,)))
    with pytest.raises(ValueError, match="num_draws: expected a non-negative integer, got -1"):
        backend.check_energy(distribution, num_draws=-1)
    with pytest.raises(TypeError, match=r"kernel: check_kernel expected a kernel of .* or a Markov chain, got Exact"):
        backend.check_kernel(backend.infer.Exact(), distribution)
    with pytest.raises(TypeError, match="distribution: check_kernel expected one with an exact sampler, got NeuralEn"):
        backend.check_kernel(backend.infer.Gibbs(), CASES["a function"](backend))
    with pytest.raises(TypeError, match="Gibbs"):
        backend.check_kernel(backend.infer.Gibbs(), network(backend, "CausalAutoencoder"))
    with pytest.raises(ValueError, match="num_chains: expected a positive integer, got 0"):
        backend.check_kernel(backend.infer.Gibbs(), distribution, num_chains=0)


@pytest.mark.pyro
def test_a_kernel_of_sites_needs_the_name_of_one():
    from backends import get_backend

    backend = get_backend("pyro")
    with pytest.raises(TypeError, match="site: MALA moves the sites of a model; expected the name of one, got None"):
        backend.check_kernel(backend.infer.MALA(model_of(backend, machine(backend))), machine(backend))


@pytest.mark.numpyro
def test_a_potential_of_a_bare_value():
    from backends import get_backend

    backend = get_backend("numpyro")
    distribution = machine(backend)
    backend.check_kernel(backend.infer.MALA(potential_fn=distribution.energy, step_size=1.2), distribution)


def test_an_integral_that_does_not_settle(backend):
    """Nothing is compared with it, and a warning says so; the family's own is refused."""
    weights = backend.array(np.array([[400.0, 30.0], [-20.0, 900.0]]))
    distribution = backend.distributions.TiedAutoencoder(weights, activation="sin", gain=6.0)
    with pytest.warns(UserWarning, match="did not settle"):
        backend.check_energy(distribution, num_draws=0, tolerance=1e-6)
    with pytest.raises(
        backend.ebm.IntractablePartitionError, match="log_partition: expected a density that quadrature"
    ):
        _ = distribution.log_partition
