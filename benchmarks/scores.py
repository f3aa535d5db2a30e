"""Analytic scores beside automatic differentiation of the same energies, in one run, as ratios.

    python benchmarks/scores.py [--visible 64] [--hidden 128] [--chains 64] [--device cpu]

Both sides are what a Markov chain calls at every step: the family's own ``_score``, and the base's fallback, which
differentiates the family's ``_energy``. torch runs eagerly on one thread, JAX compiled. Best of several interleaved
rounds, so that a busy moment of the machine hits both sides. ``--device cuda`` moves torch's half to an accelerator;
JAX takes one by itself where it is built for it.
"""

import argparse
import time

import numpy as np

ROUNDS, CALLS = 15, 40


def cases(visible, hidden):
    """Arguments of every family with an analytic score, as NumPy arrays, and its options."""
    rng = np.random.default_rng(0)
    matrix = lambda *shape: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
    filters, weights, square = matrix(visible, hidden), matrix(visible, hidden), matrix(visible, visible)
    pooling = -np.abs(matrix(hidden, hidden // 4))
    gates = {
        "input": matrix(1, visible)[0],
        "input_weights": matrix(visible, hidden),
        "output_weights": matrix(visible, hidden),
        "mapping_weights": matrix(hidden, hidden // 2),
    }
    half, weak = (0.4 * weights).astype(np.float32), (0.1 * pooling).astype(np.float32)
    concentration = {"concentration": np.float32(2.0)}
    mean_covariance = {"filters": filters, "pooling": pooling, "weights": weights}
    yield "BernoulliRBM", {"weights": weights}, {}
    yield "GaussianBernoulliRBM", {"weights": weights}, {}
    yield "GaussianRBM", {"weights": half}, {}
    yield "ProductOfStudentT", {"filters": square, **concentration}, {}
    yield "MeanProductOfStudentT", {"filters": filters, "weights": weights, **concentration}, {}
    yield "CovarianceRBM", {"filters": filters, "pooling": pooling}, {}
    yield "MeanCovarianceRBM", mean_covariance, {}
    yield "MeanCovarianceRBM", mean_covariance, {"normalize_visible": True}
    yield "GatedRBM", gates, {}
    for activation in ("sigmoid", "tanh", "relu", "softplus", "softmax"):
        yield "TiedAutoencoder", {"weights": half}, {"activation": activation}
    yield "GatedAutoencoder", gates, {"activation": "tanh"}
    yield "CovarianceAutoencoder", {"filters": filters, "pooling": weak}, {}
    yield "MeanCovarianceAutoencoder", {"filters": filters, "pooling": weak, "weights": half}, {}
    yield "BinaryAutoencoder", {"weights": weights}, {}


def best_times(functions):
    """Best seconds per call of each function, over interleaved rounds."""
    times = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                function()
            kept.append((time.perf_counter() - start) / CALLS)
    return [min(kept) for kept in times]


def torch_times(family, arguments, options, value, device):
    """Seconds of the analytic score and of automatic differentiation in torch."""
    import torch

    from pyro_ebm import distributions

    torch.set_num_threads(1)
    model = getattr(distributions, family)(
        **{name: torch.tensor(array, device=device) for name, array in arguments.items()},
        **options,
        validate_args=False,
    )
    points = torch.tensor(value, device=device)

    def automatic():
        return distributions.EnergyDistribution._score(model, points)

    def finished(function):
        result = function()
        if device != "cpu":
            torch.cuda.synchronize()
        return result

    with torch.no_grad():
        torch.testing.assert_close(model._score(points), automatic(), rtol=2e-3, atol=2e-3)
        return best_times([lambda: finished(lambda: model._score(points)), lambda: finished(automatic)])


def jax_times(family, arguments, options, value):
    """Seconds of the analytic score and of automatic differentiation in JAX, compiled."""
    import jax
    import jax.numpy as jnp

    from numpyro_ebm import distributions

    model = getattr(distributions, family)(
        **{name: jnp.asarray(array) for name, array in arguments.items()}, **options, validate_args=False
    )
    points = jnp.asarray(value)
    analytic, automatic = (
        jax.jit(lambda model, points, method=method: model._map(method, points))
        for method in (type(model)._score, distributions.EnergyDistribution._score)
    )
    np.testing.assert_allclose(analytic(model, points), automatic(model, points), rtol=2e-3, atol=2e-3)
    return best_times([lambda f=f: f(model, points).block_until_ready() for f in (analytic, automatic)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("visible", 64), ("hidden", 128), ("chains", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu", help="of torch's half: cpu or cuda")
    options = parser.parse_args()
    shape = (options.chains, options.visible)
    print(
        f"{options.chains} chains, {options.visible} visible and {options.hidden} hidden units, float32, microseconds"
    )
    print(f"{'':44s}{'torch':>8s}{'autograd':>10s}{'ratio':>7s}{'JAX':>10s}{'autodiff':>10s}{'ratio':>7s}")
    for family, arguments, settings in cases(options.visible, options.hidden):
        value = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        if family == "BinaryAutoencoder":
            value = (1 / (1 + np.exp(-value))).astype(np.float32)
        row = []
        for timer, where in ((torch_times, (options.device,)), (jax_times, ())):
            analytic, automatic = timer(family, arguments, settings, value, *where)
            row += [1e6 * analytic, 1e6 * automatic, automatic / analytic]
        label = f"{family} {' '.join(str(setting) for setting in settings.values())}"
        print(f"{label:44s}{row[0]:8.0f}{row[1]:10.0f}{row[2]:7.2f}{row[3]:10.0f}{row[4]:10.0f}{row[5]:7.2f}")


if __name__ == "__main__":
    main()
