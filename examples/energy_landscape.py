"""Autoencoders as energies of the plane: six of them learn a spiral, and Markov chains draw it from their energies.

::

    python examples/energy_landscape.py --backend numpyro        # or pyro; the picture goes to out/

1. Train a tied autoencoder in three ways: denoising, contractive (of the reconstruction), by score matching.
2. Train an untied deep network as a denoiser. Its field r(x) - x is no gradient: measure its asymmetry and circulation,
   integrate it along rays all the same, and see what the energy is worth. Beside it the two remedies: a penalty on the
   asymmetry, and an energy whose gradient step is the autoencoder.
3. Draw from every energy by Hamiltonian Monte Carlo, and from one by the host's own NUTS; compare the draws with
   held-out data, and the normalised log-densities with those of a Gaussian and of what a perfect denoiser would learn:
   the training points blurred by the noise.

What depends on the backend is in ``energy_landscape_numpyro.py`` and ``energy_landscape_pyro.py``, which mirror each
other.
"""

import dataclasses
import pathlib
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

import command_line
import datasets
import energy_landscape_plots as plots
from stages import Stages

BOUNDS = (-2.6, 2.6)  # of the picture
REACH = 4.0  # of the grid that draws are taken from
CEILING = 10.0  # of the energies in the picture
RADIUS = 0.1  # of the circles of circulation
KERNEL = 0.25  # standard deviation of the discrepancy's kernel

FITS_NOTE = f"""\
log-density: mean, normalised. MMD: maximum mean discrepancy, with a Gaussian kernel of sd {KERNEL}, between held-out
points and independent draws from the density on a grid; of chains: and Markov chains from standard normal starts."""
FIELDS_NOTE = f"""\
circulation: mean absolute one around circles of radius {RADIUS}. force: the temperature times the score, which is the
field itself where that is a gradient; off by this fraction of the field where it is not."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    num_steps: int = 3000
    num_starts: int = 200
    left_out: tuple[str, ...] = ()
    chains: dict[str, int] = dataclasses.field(default_factory=lambda: _chains(200, 200, 40))
    nuts: dict[str, int] = dataclasses.field(default_factory=lambda: _chains(300, 500, 4))


def _chains(num_warmup: int, num_samples: int, num_chains: int) -> dict[str, int]:
    return {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains}


FULL = {"numpyro": Settings(), "pyro": Settings(nuts=_chains(150, 150, 4))}
QUICK = Settings(
    num_steps=150,
    num_starts=20,
    left_out=("tied, score matching", "untied, denoising"),
    chains=_chains(20, 20, 40),
    nuts=_chains(10, 10, 2),
)


# ------------------------------------------------------------------------------------------ the scores


def discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).

    It is 0 for equal distributions. A kernel as narrow as ``KERNEL`` sees whether points lie on the curve.
    """
    kernel = lambda x, y: np.exp(-0.5 * cdist(x, y, "sqeuclidean") / KERNEL**2)
    within = [(kernel(x, x).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (first, second)]
    return float(sum(within) - 2 * kernel(first, second).mean())


def r_hat(draws: np.ndarray) -> float:
    """The larger of both coordinates' R-hat; draws have the shape (chains, draws, 2)."""
    import arviz

    return max(float(arviz.rhat(draws[..., axis])) for axis in range(2))


def gaussian_fit(points: np.ndarray, values: np.ndarray) -> float:
    """Mean log-density of ``values`` under the normal distribution with the moments of ``points``."""
    residual, covariance = values - points.mean(0), np.cov(points.T)
    squares = (residual * np.linalg.solve(covariance, residual.T).T).sum(1).mean()
    return float(-0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def blurred(points: np.ndarray, values: np.ndarray, scale: float) -> float:
    """Mean log-density of ``values`` under ``points`` with Gaussian noise, which a perfect denoiser would learn."""
    squares = ((values[:, None] - points[None]) ** 2).sum(-1) / scale**2
    return float(np.log(np.exp(-0.5 * squares).mean(1) / (2 * np.pi * scale**2)).mean())


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well a density and draws from it agree with held-out points: a row of the first table."""

    log_density: float | None = None
    discrepancy: float | None = None
    chain_discrepancy: float | None = None
    r_hat: float | None = None

    def __str__(self) -> str:
        cells = (self.log_density, self.discrepancy, self.chain_discrepancy, self.r_hat)
        return "".join(f"{'' if cell is None else f'{cell:.4f}':>14}" for cell in cells)


class Field(NamedTuple):
    """How far a field is from a gradient: a row of the second table."""

    asymmetry: float
    largest: float
    circulation: float
    gap: float

    def __str__(self) -> str:
        return "".join(f"{number:14.1e}" for number in self)


# ----------------------------------------------------------------------------------------- the program


class Program:
    """The steps of the program on one backend; what is printed at the end collects in dictionaries."""

    def __init__(self, backend: Any, settings: Settings, out: pathlib.Path, seed: int, progress: bool) -> None:
        self.backend, self.settings, self.out, self.seed, self.progress = backend, settings, out, seed, progress
        self.data = datasets.spiral()
        self.models: dict[str, Any] = {}
        self.fits: dict[str, Fit] = {}
        self.fields: dict[str, Field] = {}
        self.kinds: dict[str, list[str]] = {}
        self.stages = Stages(announce=progress)

    def run(self) -> None:
        """All steps, then the picture, then the tables."""
        self.references()
        with self.stages.timed("training"):
            for name in self.backend.MODELS:
                if name not in self.settings.left_out:
                    self.models[name] = self.train(name)
        with self.stages.timed("Hamiltonian Monte Carlo"):
            draws = {name: self.sample(name) for name in self.models}
        with self.stages.timed("NUTS"):
            self.nuts("tied, denoising")
        with self.stages.timed("fields and picture"):
            self.draw([self.panel(name, draws[name]) for name in self.models])
        self.print_tables()

    def references(self) -> None:
        """The fits that the models' are to be seen beside."""
        (train, test), rng, noise = self.data, np.random.default_rng(self.seed), self.backend.NOISE
        gaussian = rng.multivariate_normal(train.mean(0), np.cov(train.T), 2000)
        noisy = train + noise * rng.standard_normal(train.shape)
        self.fits["training points"] = Fit(None, discrepancy(train, test))
        self.fits["Gaussian of the same moments"] = Fit(gaussian_fit(train, test), discrepancy(gaussian, test))
        self.fits[f"training points blurred by {noise}"] = Fit(blurred(*self.data, noise), discrepancy(noisy, test))

    def train(self, name: str) -> Any:
        """A trained model."""
        num_steps, progress = self.settings.num_steps, self.progress
        return self.backend.train(name, self.data.train, num_steps=num_steps, seed=self.seed, progress=progress)

    def sample(self, name: str) -> np.ndarray:
        """Draws from a model's energy by Hamiltonian Monte Carlo, beside independent ones from a grid."""
        model, test = self.models[name], self.data.test
        chains = self.backend.hamiltonian(model, seed=self.seed, progress=self.progress, **self.settings.chains)
        draws = np.random.default_rng(self.seed).permutation(chains.reshape(-1, 2))[:2000]
        self.fits[name] = Fit(
            float(np.asarray(self.backend.log_density(model, test)).mean()),
            discrepancy(self.grid_draws(model, 2000), test),
            discrepancy(draws, test),
            r_hat(chains),
        )
        return draws

    def grid_draws(self, model: Any, count: int) -> np.ndarray:
        """Independent draws: a cell of a fine grid by its density, and a uniform point in it."""
        rng, axis = np.random.default_rng(self.seed), np.linspace(-REACH, REACH, 201, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        log_density = np.asarray(self.backend.log_density(model, grid), float)
        density = np.exp(log_density - log_density.max())
        cells = rng.choice(len(grid), count, p=density / density.sum())
        return grid[cells] + rng.uniform(-0.5, 0.5, (count, 2)) * (axis[1] - axis[0])

    def nuts(self, name: str) -> None:
        """The host's NUTS, with a model as the distribution of a latent variable."""
        chains = self.backend.nuts(self.models[name], seed=self.seed, progress=self.progress, **self.settings.nuts)
        found = discrepancy(chains.reshape(-1, 2)[:2000], self.data.test)
        self.fits[f"{name}, by NUTS"] = Fit(None, None, found, r_hat(chains))

    def panel(self, name: str, draws: np.ndarray) -> plots.Panel:
        """A model's column of the picture."""
        model, axis = self.models[name], np.linspace(*BOUNDS, 131, dtype=np.float32)
        asymmetry = np.asarray(self.backend.field_asymmetry(model, np.stack(np.meshgrid(axis, axis), -1)))
        field, fit = self.measure(name), self.fits[name]
        field_note = f"mean {field.asymmetry:.0e}, force off by {field.gap:.0%}"
        draws_note = f"log-density {fit.log_density:.2f}, MMD² {fit.chain_discrepancy:.4f}"
        return plots.Panel(name, partial(self.draw_landscape, name), asymmetry, draws, field_note, draws_note)

    def measure(self, name: str) -> Field:
        """How far a model's field is from a gradient, at the held-out points."""
        model, test = self.models[name], self.data.test
        asymmetry = np.asarray(self.backend.field_asymmetry(model, test))
        circulation = np.abs(np.asarray(self.backend.field_circulation(model, test, RADIUS)))
        field, force = map(np.asarray, self.backend.field_and_force(model, test))
        gap = np.linalg.norm(force - field) / np.linalg.norm(field)
        self.fields[name] = Field(asymmetry.mean(), asymmetry.max(), circulation.mean(), gap)
        return self.fields[name]

    def draw_landscape(self, name: str, ax: Any) -> None:
        """Field, energy and fixed points of a model."""
        starts = self.data.test[: self.settings.num_starts]
        self.kinds[name] = self.backend.draw_landscape(ax, self.models[name], starts, BOUNDS, CEILING)

    def draw(self, panels: list[plots.Panel]) -> None:
        """The picture, with the references in its caption."""
        texts = [
            f"{name}: log-density {fit.log_density:.2f}, MMD² {fit.discrepancy:.4f}"
            for name, fit in self.fits.items()
            if name not in self.models and fit.log_density is not None
        ]
        plots.save(self.out / "energy_landscape.png", panels, self.data.test, BOUNDS, ".     ".join(texts))

    def print_tables(self) -> None:
        """What came out, how far to trust it, and how long it took."""
        columns = ("log-density", "MMD^2", "... of chains", "R-hat")
        print(f"\n{f'{len(self.data.test)} held-out points':34}" + "".join(f"{column:>14}" for column in columns))
        for name, fit in self.fits.items():
            print(f"{name:34}{fit}")
        print(FITS_NOTE)
        columns = "".join(f"{column:>14}" for column in ("asymmetry", "largest", "circulation", "force off by"))
        print(f"\n{'fields at the held-out points':34}{columns}{'sinks':>9}{'saddles':>9}{'sources':>9}")
        for name, field in self.fields.items():
            counts = (self.kinds[name].count(kind) for kind in ("sink", "saddle", "source"))
            print(f"{name:34}{field}" + "".join(f"{count:9}" for count in counts))
        print(FIELDS_NOTE)
        print(f"\n{'':34}{'seconds':>14}")
        for stage, seconds in self.stages.seconds.items():
            print(f"{stage:34}{seconds:14.1f}")
        print(f"\npictures: {self.out / 'energy_landscape.png'}")


def main(arguments: list[str] | None = None) -> Program:
    """Parse the command line and run the program."""
    parsed, backend = command_line.parse("energy_landscape", __doc__, arguments)
    settings = QUICK if parsed.quick else FULL[parsed.backend]
    program = Program(backend, settings, parsed.out, parsed.seed, not parsed.quiet)
    program.run()
    return program


if __name__ == "__main__":
    main()
