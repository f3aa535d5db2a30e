"""A posterior over the parameters of an energy-based model: with its normaliser, by exchange, and (wrongly) without.

::

    python examples/doubly_intractable.py --backend numpyro        # or pyro; the picture goes to out/

The weight ``w`` of a Gaussian-Bernoulli machine with one visible and one hidden unit has the prior ``Normal(0, 2)``,
and 30 observations come from the machine at ``w = 1.8``. The likelihood is ``exp(-F_w(v)) / Z(w)``, and Z depends on
what is to be inferred: the posterior is doubly intractable wherever Z is.

1. The truth, on a grid: this machine is small enough for its Z.
2. Exchange (Murray, Ghahramani & MacKay 2006): Metropolis over ``w`` with fictitious data in place of Z.
3. NUTS of the host, with the exact normaliser that small machines have by default.
4. The same without Z. As a distribution of the library it raises; as ``factor(-energy)``, which both hosts accept
   without a word, it drifts away by orders of magnitude.

What depends on the backend is in ``doubly_intractable_numpyro.py`` and ``doubly_intractable_pyro.py``.
"""

import pathlib
import time
from typing import NamedTuple

import numpy as np

import command_line

WEIGHT, HIDDEN_BIAS, PRIOR_SCALE, NUM_OBSERVATIONS = 1.8, -1.0, 2.0, 30


class Summary(NamedTuple):
    """Mean and standard deviation, with the Monte Carlo standard error of the mean (0 for a grid)."""

    mean: float
    deviation: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:12.4f}{self.deviation:12.4f}{self.error:12.4f}"


def grid_posterior(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and posterior density on a fine grid, from formulas that have nothing to do with the library."""
    grid = np.linspace(-3.0, 6.0, 9001)
    energy = 0.5 * data**2 - np.logaddexp(0.0, HIDDEN_BIAS + data * grid)  # (observations, grid) after broadcasting
    log_partition = 0.5 * np.log(2 * np.pi) + np.logaddexp(0.0, HIDDEN_BIAS + 0.5 * grid**2)
    log_density = -0.5 * (grid / PRIOR_SCALE) ** 2 - energy.sum(0) - len(data) * log_partition
    density = np.exp(log_density - log_density.max())
    return grid, density / (density.sum() * (grid[1] - grid[0]))


def summarise(chains: np.ndarray) -> Summary:
    """Of draws with the shape (chains, draws); the chains are independent."""
    return Summary(chains.mean(), chains.std(), chains.mean(1).std(ddof=1) / np.sqrt(len(chains)))


def draw(path: pathlib.Path, grid: np.ndarray, density: np.ndarray, draws: dict[str, np.ndarray]) -> None:
    """Histograms over the exact density, and traces on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    for name, chains in draws.items():
        if "factor" not in name:
            left.hist(chains.ravel(), np.linspace(0.5, 3.0, 80), density=True, histtype="step", label=name)
        right.plot(np.abs(chains[0]) + 1e-2, lw=0.6, label=name)
    left.plot(grid, density, "k", lw=1, label="grid")
    left.axvline(WEIGHT, color="0.6", lw=1, ls=":")
    left.set(xlim=(0.5, 3.0), xlabel="w", title="posterior density")
    left.legend(frameon=False)
    right.set(yscale="log", xlabel="draw after warm-up", title="|w| of one chain")
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, Summary]:
    """Parse the command line and run the program."""
    options, backend = command_line.parse("doubly_intractable", __doc__, arguments)
    sizes = {"num_chains": 20, "num_warmup": 200, "num_samples": 200} if options.quick else {}
    sizes = {"num_chains": 100, "num_warmup": 500, "num_samples": 1000} | sizes

    rng = np.random.default_rng(options.seed)
    active = rng.random((NUM_OBSERVATIONS, 1)) < 1 / (1 + np.exp(-HIDDEN_BIAS - 0.5 * WEIGHT**2))
    data = WEIGHT * active + rng.normal(size=active.shape)
    grid, density = grid_posterior(data)
    step = grid[1] - grid[0]
    mean = float((grid * density).sum() * step)
    found = {"grid": Summary(mean, float(np.sqrt(((grid - mean) ** 2 * density).sum() * step)), 0.0)}

    draws, seconds = {}, {}
    for name, run in backend.SAMPLERS.items():
        start = time.perf_counter()
        draws[name] = run(data, seed=options.seed, progress=not options.quiet, **sizes)
        seconds[name] = time.perf_counter() - start
        found[name] = summarise(draws[name])
    print(f"\n{'posterior of w':34}{'mean':>12}{'deviation':>12}{'error':>12}{'z':>8}{'seconds':>9}")
    for name, summary in found.items():
        z = "" if name == "grid" else f"{(summary.mean - mean) / summary.error:.1f}"
        print(f"{name:34}{summary}{z:>8}{'' if name == 'grid' else f'{seconds[name]:.1f}':>9}")
    print(f"\nwithout a normaliser, as a distribution: {backend.refusal(data)}")
    path = options.out / "doubly_intractable.png"
    draw(path, grid, density, draws)
    print(f"picture: {path}")
    return found


if __name__ == "__main__":
    main()
