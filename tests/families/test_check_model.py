"""What inference over a program's sites needs: dependence of energies on latent and learned sites, in both hosts."""

import contextlib
import importlib

import numpy as np
import pytest

from backends import get_backend

WEIGHTS = np.ones((3, 2))


class Program:
    """The same statements in both hosts."""

    def __init__(self, backend):
        self.backend = backend
        self.host = importlib.import_module(backend.name)
        self.dist = importlib.import_module(f"{backend.name}.distributions")
        handlers = {"numpyro": "numpyro.handlers", "pyro": "pyro.poutine"}[backend.name]
        self.handlers = importlib.import_module(handlers)
        self.where = importlib.import_module({"numpyro": "jax.numpy", "pyro": "torch"}[backend.name]).where
        self.weights, self.data = self(WEIGHTS), self(np.zeros(3))
        self.two = self(np.stack([WEIGHTS, -WEIGHTS]))

    def __call__(self, value):
        return self.backend.array(np.asarray(value, float))

    def machine(self, weights, **options):
        return self.backend.distributions.GaussianBernoulliRBM(weights, **{"log_partition": None, **options})

    def sample(self, name, distribution, obs=None):
        return self.host.sample(name, distribution, obs=obs)

    def normal(self, name):
        return self.sample(name, self.dist.Normal(self(0.0), self(1.0)))

    def category(self, name):
        return self.sample(name, self.dist.Categorical(self([0.5, 0.5])))

    def check(self, model, *args, **options):
        return self.backend.infer.check_model(model, *args, **options)


@pytest.fixture
def program(backend):
    return Program(backend)


def constant(p):
    p.sample("v", p.machine(p.weights), p.data)


def index(p):
    p.sample("v", p.machine(p.two[p.category("k")]), p.data)


def branch(p):
    v = p.sample("v", p.machine(p.where(p.normal("u") > 0, p(1.0), p(2.0)) * p.weights))
    p.sample("y", p.dist.Normal(v, p(1.0)).to_event(1), p.data)


def learned(p):
    p.sample("v", p.machine(p.host.param("w", p.weights)), p.data)


def number(p):
    p.sample("v", p.machine(p.normal("w") * p.weights, log_partition=3.0), p.data)


def exponent(p):
    with p.handlers.scale(scale=p.host.param("beta", p(0.5))):
        p.sample("v", p.machine(p.weights), p.data)


def captured(p):
    strength = p.normal("w") ** 2 + 1.0
    energy = p.backend.distributions.NeuralEnergy(lambda v: (strength * v**2).sum(-1), (3,), log_partition=None)
    p.sample("v", energy, p.data)


def belief_network(p):
    h = p.sample("h", p.machine(p.weights))
    p.sample("v", p.machine(p.weights, visible_bias=h), p.data)


def mixture(p):
    components = p.machine(p.two, independent=True)
    p.sample("v", p.dist.MixtureSameFamily(p.dist.Categorical(p([0.5, 0.5])), components), p.data)


def plates(p):
    with p.host.plate("n", 2):
        shifted = p.machine(p.weights, visible_bias=p.normal("b")[..., None] * p(np.ones((1, 3))))
        p.sample("v", shifted.expand((2,)).mask(True).expand((2,)), p(np.zeros((2, 3))))


def exact(p):
    p.sample("v", p.machine(p.where(p.normal("u") > 0, p(1.0), p(2.0)) * p.weights, log_partition="auto"), p.data)


def criterion(p):
    p.sample("v", p.backend.objectives.ScoreMatching(p.machine(p.host.param("w", p.weights))), p.data)


def subsample(p):
    data, biases = p(np.zeros((6, 3))), p(np.zeros((6, 3)))
    with p.host.plate("n", 6, subsample_size=2) as rows:
        p.sample("v", p.machine(p.weights, visible_bias=biases[rows]), data[rows])


REFUSED = {
    index: "parameters that depend on site 'k'",
    branch: "parameters that depend on site 'u'",
    learned: "parameters that depend on site 'w'",
    number: "a number that does not follow its parameters, and it has parameters that depend on site 'w'",
    exponent: "an exponent that depends on site 'beta'",
    captured: "NeuralEnergy is not known, and it has parameters that depend on site 'w'",
    belief_network: "parameters that depend on site 'h'",
    mixture: "compared with the other components of a mixture",
    plates: "parameters that depend on site 'b'",
}


@pytest.mark.parametrize("model", REFUSED, ids=lambda model: model.__name__)
def test_normalisers_that_inference_needs(program, model):
    error = program.backend.ebm.IntractablePartitionError
    with pytest.raises(error, match=REFUSED[model]) as caught:
        program.check(model, program)
    assert str(caught.value).startswith("site 'v': ")
    with pytest.warns(UserWarning, match=REFUSED[model]):
        program.check(model, program, on_unknown="warn")


@pytest.mark.parametrize("model", [constant, exact, criterion, subsample], ids=lambda model: model.__name__)
def test_normalisers_that_it_does_not_need(program, model):
    found = program.check(model, program)
    assert [site.name for site in found] == ([] if model is criterion else ["v"])
    assert [site.depends_on for site in found] == {criterion: [], exact: [("u",)]}.get(model, [()])


def test_guides(program):
    def guide(p):
        p.sample("h", p.machine(p.host.param("w", p.weights)))

    with pytest.raises(program.backend.ebm.IntractablePartitionError, match=r"site 'h'.*depend on site 'w'"):
        program.check(constant, program, guide=guide)


@pytest.mark.numpyro
def test_learned_energies_in_guides_need_another_loss():
    program = Program(get_backend("numpyro"))

    def guide(p):
        p.sample("h", p.machine(p.host.param("w", p.weights), log_partition="auto"))

    with pytest.warns(UserWarning, match=r"site 'h' of the guide: .* TraceGraph_ELBO"):
        found = program.check(constant, program, guide=guide)
    assert [site.name for site in found] == ["v", "h"]


def test_other_choices_are_refused(program):
    with pytest.raises(ValueError, match="on_unknown: expected 'error' or 'warn', got 'ignore'"):
        program.check(constant, program, on_unknown="ignore")


@pytest.mark.pyro
def test_nothing_is_drawn_or_learned():
    """Pyro's random state and parameter store are left as they were."""
    import pyro
    import torch

    program = Program(get_backend("pyro"))
    before = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="depend on site 'w'"):
        program.check(learned, program, on_unknown="warn")
    assert torch.equal(before, torch.random.get_rng_state())
    assert "w" not in pyro.get_param_store()


def kernels(backend):
    yield from ("MALA", "UnderdampedLangevin", "ParallelTempering")
    if backend == "pyro":
        yield from ("HMC", "NUTS")


KERNELS = [
    pytest.param(name, kernel, marks=getattr(pytest.mark, name))
    for name in ("numpyro", "pyro")
    for kernel in kernels(name)
]


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_our_kernels_refuse_at_the_start(name, kernel):
    """A branch through which no gradient flows: P(u > 0 | y) is .99997, and without the constants .31."""
    program = Program(get_backend(name))
    kernel = getattr(program.backend.infer, kernel)(lambda: branch(program))
    with pytest.raises(program.backend.ebm.IntractablePartitionError, match=r"site 'v'.* depend on site 'u'"):
        start(program, kernel)


def start(program, kernel):
    if program.backend.name == "numpyro":
        import jax

        return kernel.init(jax.random.key(0), 1, None, (), {})
    return kernel.prepare(1, 1, None, (), {})


def test_exchange_needs_no_normaliser_of_what_is_observed(program):
    start(program, program.backend.infer.Exchange(lambda: plain_number(program)))
    with pytest.raises(program.backend.ebm.IntractablePartitionError, match=r"site 'v'.* depend on site 'u'"):
        start(program, program.backend.infer.Exchange(lambda: (branch(program), plain_number(program, "x"))))


def plain_number(p, name="v"):
    p.sample(name, p.machine(p.normal(f"w_{name}") * p.weights), p.data)


@pytest.mark.pyro
def test_branches_of_python():
    """Which JAX cannot trace: Pyro."""
    program = Program(get_backend("pyro"))

    def model():
        program.sample("v", program.machine([program.weights, -program.weights][int(program.category("k"))]))

    def harmless():
        assert bool(program.normal("u") < 100)
        constant(program)

    with pytest.raises(program.backend.ebm.IntractablePartitionError, match="depend on site 'k'"):
        program.check(model)
    assert program.check(harmless)[0].depends_on == ()


@pytest.mark.pyro
def test_enumerated_indices_raise_by_themselves():
    """Pyro's enumeration, in which every distribution sees all its models at one value."""
    import pyro
    import torch
    from pyro.infer import SVI, TraceEnum_ELBO, config_enumerate, infer_discrete

    program = Program(get_backend("pyro"))
    error = program.backend.ebm.IntractablePartitionError
    match = "one value meets 2 different models"
    model, guide = config_enumerate(lambda: index(program)), lambda: None
    with pytest.raises(error, match=match):
        SVI(model, guide, pyro.optim.Adam({}), TraceEnum_ELBO(max_plate_nesting=0)).evaluate_loss()
    with pytest.raises(error, match=match):
        TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(model, guide)
    with pytest.raises(error, match=match):
        infer_discrete(model, first_available_dim=-1)()
    known = program(np.zeros(2))

    def complete():
        k = program.category("k")
        program.sample("v", program.machine(program.two[k], log_partition=known[k]), program.data)

    marginals = TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(config_enumerate(complete), guide)
    assert torch.isfinite(marginals["k"].logits).all()


@pytest.mark.numpyro
def test_indices_that_a_kernel_of_numpyro_draws():
    """Which the distribution cannot see."""
    program = Program(get_backend("numpyro"))

    def model():
        program.normal("w")
        index(program)

    with pytest.raises(program.backend.ebm.IntractablePartitionError, match="depend on site 'k'"):
        program.check(model)


# ---------------------------------------------------------------------------------------------------- masks


def masked(p, mask, value, num_rows=None):
    plate = p.host.plate("n", num_rows) if num_rows else contextlib.nullcontext()
    with plate, p.handlers.mask(mask=mask):
        p.sample("v", p.machine(p.weights), value)


@pytest.mark.parametrize("how", ["handler", "method"])
def test_a_mask_over_the_elements_of_a_value_is_refused(program, how):
    elements = program([1, 0, 1]) > 0
    asked = {
        "handler": lambda: program.check(masked, program, elements, program.data),
        "method": lambda: program.machine(program.weights).mask(elements).log_prob(program.data),
    }
    with pytest.raises(ValueError, match=r"mask: expected one truth value for each value .* of shape \(3,\)"):
        asked[how]()


def test_a_mask_over_values_is_not(program):
    """A value for each of three, in a plate or a batch; and masks that are one truth value."""
    machine, rows, data = program.machine(program.weights), program([1, 0, 1]) > 0, program(np.eye(3))
    expected = program.backend.numpy(machine.log_prob(data)) * np.array([1, 0, 1])
    program.check(masked, program, rows, data, 3)
    program.check(masked, program, True, program.data)
    for distribution in (machine.mask(rows), machine.expand((3,)).mask(rows), machine.mask(rows).expand((3,))):
        np.testing.assert_allclose(program.backend.numpy(distribution.log_prob(data)), expected)
    np.testing.assert_allclose(program.backend.numpy(machine.mask(True).log_prob(data)), machine.log_prob(data))
