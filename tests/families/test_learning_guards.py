"""Learning that goes wrong says so: data without a density, chains that drift, batches without rows."""

import copy
import importlib
import warnings

import numpy as np
import pytest

SCORE_MATCHED = {
    "GaussianBernoulliRBM": lambda backend, size: {"weights": backend.array(0.1 * np.ones((size, 2)))},
    "ProductOfStudentT": lambda backend, size: {"filters": backend.array(np.eye(size)), "concentration": 3.0},
}


def _score_matching(backend, family, size, estimator="exact"):
    cls = getattr(backend.distributions, family)
    base = cls(**SCORE_MATCHED[family](backend, size))
    criterion = backend.objectives.ScoreMatching
    return criterion(base) if estimator == "exact" else backend.stochastic(criterion, base, estimator=estimator)


def _spoilt(rows, kind):
    rows = rows.copy()
    rows[:, 1] = {
        "constant": np.full(len(rows), 0.25),
        "binary": rows[:, 1] > 0,
        "levels": np.floor(2 * rows[:, 1]),
        "atom": np.maximum(rows[:, 1], 0),
    }[kind]
    return rows


@pytest.mark.parametrize("kind", ["constant", "binary", "levels", "atom"])
@pytest.mark.parametrize(
    ("family", "estimator"), [("GaussianBernoulliRBM", "exact"), ("ProductOfStudentT", "hutchinson")]
)
def test_score_matching_warns_of_data_without_a_density(backend, family, estimator, kind):
    """Swap a column for what has no density: it is named; the other columns are not."""
    rows = np.random.default_rng(0).normal(size=(200, 3))
    criterion = _score_matching(backend, family, 3, estimator)
    criterion.log_prob(backend.array(rows))
    word = "constant or repeated values in column 1;"
    with pytest.warns(UserWarning, match=rf"value: ScoreMatching expected .* {word}.*PseudoLikelihood"):
        criterion.log_prob(backend.array(_spoilt(rows, kind)))
    with pytest.warns(UserWarning, match=word):
        criterion.gradient(backend.array(_spoilt(rows, kind)))


def test_the_criterion_falls_without_bound_where_it_warns(backend):
    """The oracle of the warning: a narrower model is better and better of the column, and of no sample of a density."""
    rows = np.random.default_rng(0).normal(size=(200, 2))
    spoilt = _spoilt(rows, "binary")
    found = {}
    for name, data in (("density", rows), ("binary", spoilt)):
        losses = []
        for narrow in (1.0, 1e-1, 1e-2):
            # two sharp wells, at 0 and 1, in the second column
            weights, scale = np.array([[0.0], [1.0]]), np.array([1.0, narrow])
            bias, hidden = np.zeros(2), np.array([-0.5 / narrow**2])
            model = backend.distributions.GaussianBernoulliRBM(
                *map(backend.array, (weights,)),
                visible_bias=backend.array(bias),
                hidden_bias=backend.array(hidden),
                scale=backend.array(scale),
                log_partition=None,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                losses.append(-float(backend.objectives.ScoreMatching(model).log_prob(backend.array(data)).mean()))
        found[name] = losses
    assert found["binary"][2] < 10 * found["binary"][1] < 0
    assert found["density"][2] > found["density"][1] > found["density"][0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [50, 64, 10_000])
def test_score_matching_of_continuous_data_warns_of_nothing(backend, dtype, rows):
    """Also of a few binary rows, which tell nothing, and of one value under many models."""
    rng = np.random.default_rng(1)
    data = np.stack([rng.normal(size=rows), rng.random(rows), 1e4 + rng.normal(size=rows)], 1)
    criterion = _score_matching(backend, "GaussianBernoulliRBM", 3)
    criterion.log_prob(backend.array(data, dtype))
    criterion.log_prob(backend.array(data[:49] > 0))
    many = backend.distributions.GaussianBernoulliRBM(backend.array(np.zeros((100, 3, 2))))
    for value in (data[0], np.tile(data[0], (100, 1))):
        assert backend.objectives.ScoreMatching(many).log_prob(backend.array(value)).shape == (100,)


def test_batches_of_the_same_data_are_told_with_one_text(backend):
    """So that the filter of warnings shows it once, whichever columns a batch has without a second value."""
    rows = np.random.default_rng(2).normal(size=(600, 4)) * np.array([1.0, 0.0, 1.0, 1.0])
    rows[:, 3] = np.random.default_rng(3).random(600) < 0.02
    criterion = _score_matching(backend, "GaussianBernoulliRBM", 4)
    with warnings.catch_warnings(record=True, action="always") as found:
        for start in range(0, 600, 60):
            criterion.log_prob(backend.array(rows[start : start + 60]))
    texts = [str(warning.message) for warning in found]
    assert len(texts) == 10
    assert len(set(texts[5:])) == 1
    assert "in column 1, 3;" in texts[-1]


# ---------------------------------------------------------------------- persistent chains


def _machine(backend, weights=None, **options):
    """Two wells, at -6 and 6 in each of four units, or other couplings."""
    weights = np.full((4, 1), 12.0) if weights is None else weights
    bias = [-6.0] * 4 if weights.shape[1] == 1 else [0.0] * 4
    return backend.distributions.GaussianBernoulliRBM(
        backend.array(weights), visible_bias=backend.array(bias), log_partition=None, **options
    )


def _persistent(backend, model, chains, seed=0):
    return backend.stochastic(
        backend.objectives.PersistentContrastiveDivergence, model, backend.array(chains), seed=seed
    )


def _slow(backend, step_size):
    return backend.infer.Langevin(step_size=step_size)


@pytest.mark.parametrize("sampler", ["gibbs", "slow", "stuck"])
def test_monitor_compares_energies_of_data_and_chains(backend, sampler):
    """Against NumPy's moments of the energies at both, and the chains that are elsewhere."""
    rng = np.random.default_rng(0)
    data, chains = rng.normal(size=(60, 4)), rng.normal(size=(40, 4)) + 3
    options = {} if sampler == "gibbs" else {"sampler": _slow(backend, {"slow": 0.1, "stuck": 1e3}[sampler])}
    model = _machine(backend, 0.3 * rng.normal(size=(4, 2)), **options)
    criterion = _persistent(backend, model, chains)
    report = type(criterion.monitor(backend.array(data)))(*map(backend.numpy, criterion.monitor(backend.array(data))))
    after = backend.numpy(criterion.negative)
    energies = [backend.numpy(model.energy(backend.array(rows))) for rows in (data, after)]
    gap = energies[0].mean() - energies[1].mean()
    error = np.sqrt(sum(side.var(ddof=1) / len(side) for side in energies))
    np.testing.assert_allclose(report.energy_gap, gap, rtol=1e-10)
    np.testing.assert_allclose(report.z_score, gap / error, rtol=1e-10)
    np.testing.assert_allclose(report.spread, energies[1].std(), rtol=1e-10)
    np.testing.assert_allclose(report.drift, max(abs(gap) - 4.5 * error, energies[1].std()) / 4, rtol=1e-10)
    np.testing.assert_allclose(report.moved, (after != chains).any(1).mean())
    assert (report.moved == 0) == (sampler == "stuck")
    assert report.is_finite
    assert report.drift.shape == ()


def test_monitor_of_a_batch_of_models(backend):
    """One report each, of which the worst is told."""
    rng = np.random.default_rng(0)
    model = _machine(backend, 0.1 * rng.normal(size=(3, 4, 2)), sampler=_slow(backend, 1e-3))
    chains = np.stack([np.zeros((20, 4)), 40.0 + rng.normal(size=(20, 4)), np.zeros((20, 4))], 1)
    criterion = _persistent(backend, model, chains)
    with pytest.warns(UserWarning, match="chains: expected chains that follow the model, got a drift of"):
        report = criterion.monitor(backend.array(rng.normal(size=(30, 1, 4))))
    assert report.drift.shape == (3,)
    assert ((backend.numpy(report.drift) > 10) == [False, True, False]).all()


@pytest.mark.parametrize(("far", "warns"), [(0.0, False), (3.0, False), (30.0, True)])
def test_chains_that_the_model_has_left_behind_are_told(backend, far, warns):
    """Chains above the data, of a sampler that cannot follow: where the drift grows, not where it shrinks."""
    rng = np.random.default_rng(1)
    data = np.where(rng.random((200, 1)) < 0.5, -6, 6) + rng.normal(size=(200, 4))
    model = _machine(backend, sampler=_slow(backend, 1e-3))
    criterion = _persistent(backend, model, data[:50] + far)
    report = None
    if warns:
        with pytest.warns(UserWarning, match="chains: .* nats a unit .* learning rate"):
            report = criterion.monitor(backend.array(data))
        criterion.monitor(backend.array(data), report._replace(drift=report.drift * 1.01))
        with pytest.warns(UserWarning, match="chains: .* nats a unit"):
            criterion.monitor(backend.array(data), report._replace(drift=report.drift * 0.99))
        return
    criterion.monitor(backend.array(data), criterion.monitor(backend.array(data)))


def test_data_that_are_not_learned_yet_are_no_drift(backend):
    """Far from the chains of a model without couplings: told only where that grows by a quarter."""
    data = np.where(np.random.default_rng(1).random((200, 1)) < 0.5, -6, 6) + np.zeros((200, 4))
    criterion = _persistent(backend, _machine(backend, np.zeros((4, 2))), np.zeros((50, 4)))
    report = criterion.monitor(backend.array(data))
    assert backend.numpy(report.drift) > 10
    criterion.monitor(backend.array(data), report._replace(drift=report.drift * 0.9))
    with pytest.warns(UserWarning, match="chains: .* nats a unit"):
        criterion.monitor(backend.array(data), report._replace(drift=report.drift * 0.7))


def _train(backend, data, rate, num_updates, sizes=(4, 3)):
    """Reports of a run of PCD, one in 25 updates."""
    rng = np.random.default_rng(5)
    family = "BernoulliRBM" if set(np.unique(data)) <= {0, 1} else "GaussianBernoulliRBM"
    cls = getattr(backend.distributions, family)
    criterion = backend.objectives.PersistentContrastiveDivergence
    make = lambda weights, visible, hidden: cls(weights, visible_bias=visible, hidden_bias=hidden, log_partition=None)

    def update(weights, visible, hidden, chains, batch, seed):
        found = backend.stochastic(criterion, make(weights, visible, hidden), chains + 0, seed=seed)
        gradient = found.gradient(batch)
        names = ("weights", "visible_bias", "hidden_bias")
        new = [array - rate * gradient[name] for name, array in zip(names, (weights, visible, hidden), strict=True)]
        return *new, found.negative

    update = backend.compiled(update)
    state = [backend.array(0.1 * rng.normal(size=sizes)), *(backend.array(np.zeros(size)) for size in sizes)]
    state.append(backend.array(data[:100]))
    reports = []
    for count in range(num_updates):
        state = update(*state, backend.array(data[rng.integers(len(data), size=100)]), count)
        if count % 25 == 24:
            found = backend.stochastic(criterion, make(*state[:3]), state[3] + 0, seed=count)
            reports.append(found.monitor(backend.array(data), reports[-1] if reports else None))
    return reports


def test_training_that_diverges_is_told(backend):
    """Two modes that block Gibbs sweeps do not join, at too large a learning rate: the chains fall behind."""
    rng = np.random.default_rng(2)
    data = np.where(rng.random((1000, 1)) < 0.5, -6, 6) + rng.normal(size=(1000, 4))
    with pytest.warns(UserWarning, match="chains: expected chains that follow the model"):
        reports = _train(backend, data, 0.1, 400)
    assert backend.numpy(reports[-1].drift) > 10


@pytest.mark.parametrize("kind", ["normal", "stripes"])
def test_training_that_goes_well_is_left_alone(backend, kind):
    rng = np.random.default_rng(3)
    if kind == "normal":
        data = rng.normal(size=(1000, 4)) @ (0.5 * rng.normal(size=(4, 4)))
    else:
        rows = (rng.random((1000, 4, 1)) < 0.5) * np.ones((1, 1, 4))
        data = np.where(rng.random((1000, 1, 1)) < 0.5, rows, rows.swapaxes(1, 2)).reshape(1000, 16)
    reports = _train(backend, data, 0.05, 400, (data.shape[1], 8))
    assert max(backend.numpy(report.drift) for report in reports) < 1


def test_chains_that_are_not_finite_are_refused(backend):
    """After their transitions, or of infinite energy, also in the closed-form gradient; before, nothing is stored."""
    data = backend.array(np.ones((3, 4)))
    model = _machine(backend, sampler=_slow(backend, 1e-3), validate_args=False)
    with pytest.raises(ValueError, match="chains: expected finite values after their transitions, got 4 of 8 NaN or"):
        _persistent(backend, model, np.array([[0.0] * 4, [np.nan] * 4]))
    lost = _persistent(backend, model, np.full((2, 4), 1e200))
    for measure in (lost.log_prob, lost.gradient, lost.monitor):
        with pytest.raises(ValueError, match=r"chains: expected finite energies.* got \d of \d NaN or infinite"):
            measure(data)


@pytest.mark.parametrize("name", ["ContrastiveDivergence", "PersistentContrastiveDivergence", "ScoreMatching"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_batches_without_rows(backend, name, batch):
    """No densities of no values, as other distributions; no gradient of a mean over none."""
    model = _machine(backend, np.zeros((*batch, 4, 2)))
    criterion = getattr(backend.objectives, name)
    if name != "ScoreMatching":
        chains = (backend.array(np.zeros((5, *batch, 4))),) if name.startswith("P") else ()
        criterion = backend.stochastic(criterion, model, *chains)
    else:
        criterion = criterion(model)
    empty = backend.array(np.zeros((0, *batch, 4)))
    assert criterion.log_prob(empty).shape == (0, *batch)
    with pytest.raises(ValueError, match=r"value: gradient expected at least one datum, got shape \(0, "):
        criterion.gradient(empty)
    if name.startswith("P"):
        with pytest.raises(ValueError, match=r"value: monitor expected at least one datum, got shape \(0, "):
            criterion.monitor(empty)


def test_pseudo_likelihood_without_rows(backend):
    rbm = backend.distributions.BernoulliRBM(backend.array(np.zeros((4, 2))))
    criterion = backend.objectives.PseudoLikelihood(rbm)
    assert criterion.log_prob(backend.array(np.zeros((0, 4)))).shape == (0,)
    with pytest.raises(ValueError, match="value: gradient expected at least one datum"):
        criterion.gradient(backend.array(np.zeros((0, 4))))


def test_traced_chains_that_are_not_finite_are_nan(backend):
    """Where nothing can be raised: densities and their derivatives; the monitor tells by ``is_finite``."""
    data = backend.array(np.ones((3, 4)))
    model = _machine(backend, sampler=_slow(backend, 1e-3), validate_args=False)
    for place, is_lost in ((1e200, True), (1.0, False)):
        criterion = _persistent(backend, model, np.full((2, 4), place))
        found = (_traced_in_numpyro if backend.name == "numpyro" else _traced_in_pyro)(criterion, data)
        assert all(np.isnan(backend.numpy(array)).all() == is_lost for array in found)
        if backend.name == "numpyro":
            assert bool(backend.compiled(criterion.monitor)(data).is_finite) != is_lost


def _traced_in_numpyro(criterion, data):
    import jax

    def log_prob(weights):
        base = criterion.base.replace(weights=weights)
        return type(criterion)(base, criterion.negative, rng_key=jax.random.key(0)).log_prob(data).sum()

    return jax.jit(log_prob)(criterion.base.weights), jax.jit(jax.grad(log_prob))(criterion.base.weights)


def _traced_in_pyro(criterion, data):
    import torch

    def log_prob(weights):
        traced = copy.copy(criterion)
        traced.base = criterion.base.replace(weights=weights)
        return traced.log_prob(data).sum()

    return torch.func.vmap(log_prob)(criterion.base.weights[None]), torch.func.grad(log_prob)(criterion.base.weights)


# ---------------------------------------------------------------------- normalisers


def _rounded(array):
    """To numbers that bfloat16 and float16 have, both."""
    bits = np.asarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float16).astype(float)


def _random(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: _rounded(rng.normal(size=shape)) for name, shape in shapes.items()}


HALVES = {
    "BernoulliRBM": _random(0, weights=(20, 11), visible_bias=20, hidden_bias=11),
    "GaussianBernoulliRBM": _random(1, weights=(3, 11), visible_bias=3, hidden_bias=11),
    "GaussianRBM": {"weights": _rounded(0.3 * np.eye(4, 3)), "hidden_bias": _rounded(np.full(3, 0.7))},
    "ProductOfStudentT": {"filters": _rounded(np.eye(3) + 0.2), "concentration": np.full(3, 4.0)},
    "CovarianceRBM": _random(2, filters=(3, 4), visible_bias=3)
    | {"pooling": -np.eye(4), "covariance_bias": np.ones(4)},
    "TiedAutoencoder": _random(3, weights=(4, 2), hidden_bias=2, visible_bias=4),
    "MarkovNetwork": _random(4, table=(7, 7)),
}


def _in_type(backend, array, dtype):
    array = backend.array(array)
    if backend.name == "numpyro":
        return array.astype(dtype)
    import torch

    return array.to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", HALVES)
def test_normalisers_in_half_precision(backend, family, dtype):
    """Half a unit in the last place from that of the same parameters in float64: one rounding, at the end."""

    def log_partition(dtype):
        arrays = {name: _in_type(backend, array, dtype) for name, array in HALVES[family].items()}
        if family == "MarkovNetwork":
            pairs = [((i, i + 1), arrays["table"]) for i in range(30)]
            return backend.distributions.MarkovNetwork([7] * 31, dict(pairs)).log_partition
        options = {"activation": "tanh"} if family == "TiedAutoencoder" else {}
        return getattr(backend.distributions, family)(**arrays, **options).log_partition

    found, expected = log_partition(dtype), float(log_partition("float64"))
    assert str(found.dtype).endswith(dtype)
    precision = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    assert abs(float(found) - expected) <= (0.51 * 2 * precision + 1e-6) * abs(expected)


def test_chunks_are_smaller_where_terms_are_larger(backend):
    """Sums in chunks of any size are the same; their size follows the numbers of all models together."""
    import _ppl_ebm.limits as limits

    assert [limits.chunk_units(cost) for cost in (1, 2**14, 2**15, 2**24, 2**30)] == [10, 10, 9, 0, 0]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 40_000, 3)) / 100
    expected = [_small_log_partition(one) for one in weights]
    rbm = backend.distributions.BernoulliRBM
    found = [rbm(backend.array(weights)), *(rbm(backend.array(one)) for one in weights)]
    np.testing.assert_allclose(backend.numpy(found[0].log_partition), expected, rtol=1e-10)
    for one, other in zip(found[1:], expected, strict=True):
        np.testing.assert_allclose(backend.numpy(one.log_partition), other, rtol=1e-10)


def _small_log_partition(weights):
    states = np.array([[code >> unit & 1 for unit in range(weights.shape[1])] for code in range(2 ** weights.shape[1])])
    terms = np.logaddexp(0, states @ weights.T).sum(1)
    return np.logaddexp.reduce(terms)


@pytest.mark.parametrize("num_models", [1, 50])
def test_sums_over_states_stay_within_memory(backend, monkeypatch, num_models):
    """The chunks that a term is computed for, of all models together, have at most 2^24 numbers."""
    seen = []
    module = importlib.import_module(f"{backend.ebm.__name__}.distributions.families.bernoulli_rbm")
    softplus = module.softplus
    monkeypatch.setattr(module, "softplus", lambda array: (seen.append(array.shape), softplus(array))[1])
    weights = backend.array(np.zeros((num_models, 20_000, 9)))
    rbm = backend.distributions.BernoulliRBM(weights, validate_args=False)
    if backend.name == "numpyro":
        import jax

        jax.eval_shape(rbm.exact_log_partition)
    else:
        rbm = backend.distributions.BernoulliRBM(weights.to("meta"), validate_args=False, log_partition=None)
        rbm.exact_log_partition()
    sizes = [np.prod(shape) * (num_models if backend.name == "numpyro" else 1) for shape in seen]
    assert 2**22 < max(sizes) <= 2**24
