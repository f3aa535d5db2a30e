"""Learning that goes wrong says so: data without a density, chains that drift, batches without rows."""

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
    assert backend.objectives.ScoreMatching(many).log_prob(backend.array(data[0])).shape == (100,)


def test_batches_of_the_same_data_are_told_with_one_text(backend):
    """So that the filter of warnings shows it once, whichever columns a batch has without a second value."""
    rows = np.random.default_rng(2).normal(size=(600, 4)) * np.array([1.0, 0.0, 1.0, 1.0])
    rows[:, 3] = np.random.default_rng(3).random(600) < 0.02
    criterion = _score_matching(backend, "GaussianBernoulliRBM", 4)
    with pytest.warns(UserWarning, match="expected data with a density") as found:
        for start in range(0, 600, 60):
            criterion.log_prob(backend.array(rows[start : start + 60]))
    texts = [str(warning.message) for warning in found]
    assert len(texts) == 10
    assert len(set(texts[5:])) == 1
    assert "in column 1, 3;" in texts[-1]
