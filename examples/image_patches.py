"""mPoT and mcRBM on whitened patches of photographs: Gabor-like covariance filters, on a map, and mean filters.

::

    python examples/image_patches.py --backend numpyro        # or pyro; the pictures go to out/

1. Cut 12x12 patches out of eleven grey photographs that come with scikit-image and scikit-learn, subtract its mean from
   each and divide it by its standard deviation, and whiten them to their first 100 principal components. A little noise
   in every component (fresh in each update) gives them a smooth density. Their standard deviation is set to 0.8:
   covariance units only narrow the models' ``Normal(0, 1)``, and heavy tails need room.
2. Learn a MeanProductOfStudentT and a MeanCovarianceRBM of the whitened patches, with 144 covariance filters on a torus
   of 12x12, pooled over neighbourhoods of 3x3, and 64 mean filters. The criterion is score matching with one random
   probe for the trace (``estimator="hutchinson"``), the quickest way to good filters. It hardly sees how much
   mass lies far from the data, so some updates by persistent contrastive divergence with Gibbs chains follow.
3. Show the filters in pixels, as what a filter adds to a patch: dewhitening matrix times filter. How Gabor-like are
   they? Match every one with 46,080 Gabor functions, and do the same to principal components and random filters. Mean
   filters of the mcRBM become edges and bars; those of the mPoT stay noise, for together they only widen its Gaussian.
4. Draw patches, by Gibbs sampling from noise and by Hamiltonian Monte Carlo from held-out patches, which must agree.
   The rival is the Gaussian model with the full covariance, in the exact score matching objective of held-out patches.

What depends on the backend is in ``image_patches_numpyro.py`` and ``image_patches_pyro.py``, which mirror each other.
"""

import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

import command_line
import datasets
import image_patches_plots as plots
from stages import Stages

SIDE = 12  # of a patch
MAP = 12  # side of the torus of covariance filters
SCALE = 0.8  # standard deviation of every whitened component
NOISE = 0.3 * SCALE
FAMILIES = ("mPoT", "mcRBM")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    num_train: int = 40_000
    num_test: int = 3_000
    num_matching: int = 3_000
    num_contrastive: int = 700
    num_warmup: int = 300
    num_draws: int = 10


QUICK = Settings(num_train=3_000, num_test=500, num_matching=200, num_contrastive=10, num_warmup=10, num_draws=2)
NUM_COMPONENTS, NUM_MEAN, NUM_CHAINS, THINNING = 100, 64, 100, 10


# ---------------------------------------------------------------------------------------- whitened patches


@dataclasses.dataclass(frozen=True)
class Whitening:
    """Principal components of patches at standard deviation SCALE: ``values = (patches - mean) @ whiten``."""

    mean: np.ndarray
    whiten: np.ndarray
    dewhiten: np.ndarray
    share: float

    @classmethod
    def fit(cls, patches: np.ndarray, num_components: int) -> "Whitening":
        """The components of largest variance; ``share`` is how much of the total variance they have."""
        variances, vectors = np.linalg.eigh(np.cov(patches.T.astype(float)))
        share = variances[-num_components:].sum() / variances.sum()
        variances, vectors = variances[: -num_components - 1 : -1], vectors[:, : -num_components - 1 : -1]
        scale = np.sqrt(variances) / SCALE
        return cls(patches.mean(0), vectors / scale, (vectors * scale).T, float(share))

    def values(self, patches: np.ndarray) -> np.ndarray:
        """Whitened components of patches."""
        return ((patches - self.mean) @ self.whiten).astype(np.float32)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """What rows of whitened components add to a patch."""
        return np.asarray(values) @ self.dewhiten


def gaussian_objective(train: np.ndarray, test: np.ndarray) -> float:
    """The score matching objective of ``test`` under the normal distribution with the moments of noisy ``train``.

    It is in units of whitened components of standard deviation 1, as all objectives that are printed.
    """
    precision = np.linalg.inv(np.cov(train.T.astype(float)) + NOISE**2 * np.eye(train.shape[1]))
    score = (train.mean(0) - test) @ precision
    return float(SCALE**2 * (0.5 * (score**2).sum(1).mean() - np.trace(precision)))


def kurtosis(values: np.ndarray, filters: np.ndarray) -> float:
    """Kurtosis of filter outputs (3 for a normal distribution), mean over filters."""
    outputs = values.reshape(-1, len(filters)).astype(float) @ filters
    return float(np.mean((outputs**4).mean(0) / (outputs**2).mean(0) ** 2))


# -------------------------------------------------------------------------------------------- the models


def neighbourhoods(side: int) -> np.ndarray:
    """Which filters each hidden unit pools on a torus: itself and its eight neighbours, shape (side^2, side^2)."""
    steps = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    near = np.minimum(steps, side - steps) <= 1
    return np.kron(near, near).astype(np.float32)


def initial_parameters(seed: int) -> dict[str, np.ndarray]:
    """Where learning starts: small random filters. ``units`` are log-concentrations (mPoT) or biases (mcRBM)."""
    rng = np.random.default_rng(seed)
    normal = lambda scale, *shape: scale * rng.standard_normal(shape, np.float32)
    return {
        "filters": normal(0.1, NUM_COMPONENTS, MAP**2),
        "weights": normal(0.05, NUM_COMPONENTS, NUM_MEAN),
        "units": np.zeros(MAP**2, np.float32),
        "hidden_bias": np.full(NUM_MEAN, -2, np.float32),
    }


# ---------------------------------------------------------------------------------------- Gabor functions


class GaborBank:
    """Gabor functions of all orientations at all places of a patch; each comes in two phases that span a plane."""

    WAVELENGTHS, ORIENTATIONS, WIDTHS, ASPECTS = (3.0, 4.0, 5.5, 8.0, 12.0), 16, (0.35, 0.55), (1.0, 1.7)

    def __init__(self, side: int) -> None:
        rows, columns = np.mgrid[:side, :side].reshape(2, -1).astype(np.float32)
        angles = np.arange(self.ORIENTATIONS, dtype=np.float32) * np.float32(np.pi / self.ORIENTATIONS)
        planes = [
            self._plane(columns - columns[:, None], rows - rows[:, None], *shape)
            for shape in itertools.product(self.WAVELENGTHS, angles, self.WIDTHS, self.ASPECTS)
        ]
        self.even, self.odd = (np.concatenate(phase) for phase in zip(*planes, strict=True))

    @staticmethod
    def _plane(x: Any, y: Any, wavelength: float, angle: float, width: float, aspect: float) -> tuple[Any, Any]:
        """An orthonormal basis of the two phases without their mean, at all places: two arrays (places, pixels)."""
        across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        envelope = np.exp(-0.5 * (across**2 + (along / aspect) ** 2) / (width * wavelength) ** 2)
        waves = [envelope * wave(2 * np.pi / wavelength * across) for wave in (np.cos, np.sin)]
        even, odd = (wave - wave.mean(1, keepdims=True) for wave in waves)
        even = even / np.linalg.norm(even, axis=1, keepdims=True)
        odd = odd - (odd * even).sum(1, keepdims=True) * even
        return even, odd / np.linalg.norm(odd, axis=1, keepdims=True)

    def match(self, filters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of each row's energy that its best Gabor function explains, and that function."""
        filters = filters - filters.mean(1, keepdims=True)
        even, odd = filters @ self.even.T, filters @ self.odd.T
        best = (even**2 + odd**2).argmax(1)
        pick = np.arange(len(filters)), best
        fits = even[pick][:, None] * self.even[best] + odd[pick][:, None] * self.odd[best]
        return (fits**2).sum(1) / (filters**2).sum(1), fits


# ------------------------------------------------------------------------------------------- the program


@dataclasses.dataclass
class Result:
    """What one family came to; filters and draws are rows of pixels."""

    covariance_filters: np.ndarray
    mean_filters: np.ndarray
    draws: np.ndarray
    objective: float
    kurtoses: dict[str, float]
    shares: np.ndarray
    fits: np.ndarray


class Program:
    """The steps of the program on one backend."""

    def __init__(self, backend: Any, settings: Settings, out: pathlib.Path, seed: int, progress: bool) -> None:
        self.backend, self.settings, self.out, self.seed, self.progress = backend, settings, out, seed, progress
        patches = datasets.picture_patches(SIDE, settings.num_train, settings.num_test)
        self.whitening = Whitening.fit(patches.train, NUM_COMPONENTS)
        self.train, clean = self.whitening.values(patches.train), self.whitening.values(patches.test)
        rng = np.random.default_rng(seed)
        self.test = clean + NOISE * rng.standard_normal(clean.shape, np.float32)
        self.random = self.whitening.pixels(rng.standard_normal((MAP**2, NUM_COMPONENTS)))
        self.bank = GaborBank(SIDE)
        self.stages = Stages(announce=progress)
        self.results: dict[str, Result] = {}

    def run(self) -> None:
        """Both families, then the pictures, then the table."""
        for family in FAMILIES:
            self.results[family] = self.study(family)
        self.controls = {
            "principal components": self.bank.match(self.whitening.dewhiten)[0],
            "random filters": self.bank.match(self.random)[0],
        }
        self.draw()
        self.print_table()

    def study(self, family: str) -> Result:
        """Learn one family, draw from it and compare it with patches it has not seen."""
        with self.stages.timed(f"{family}: learning"):
            model = self.backend.train(
                family,
                self.train,
                initial_parameters(self.seed),
                neighbourhoods(MAP),
                noise=NOISE,
                num_matching=self.settings.num_matching,
                num_contrastive=self.settings.num_contrastive,
                seed=self.seed,
                progress=self.progress,
            )
        with self.stages.timed(f"{family}: sampling"):
            sizes = {"num_samples": self.settings.num_draws, "num_warmup": self.settings.num_warmup}
            sizes |= {"thinning": THINNING, "num_chains": NUM_CHAINS, "seed": self.seed}
            gibbs = self.backend.gibbs(model, **sizes)
            hamiltonian = self.backend.hamiltonian(model, self.test[:NUM_CHAINS], **sizes)
        filters = np.asarray(model.filters)
        pixels = self.whitening.pixels(filters.T)
        sets = {"held-out patches": self.test, "Gibbs from noise": gibbs, "HMC from patches": hamiltonian}
        return Result(
            pixels,
            self.whitening.pixels(np.asarray(model.weights).T),
            self.whitening.pixels(gibbs[:, -1]),
            SCALE**2 * self.backend.objective(model, self.test),
            {name: kurtosis(values, filters) for name, values in sets.items()},
            *self.bank.match(pixels),
        )

    def draw(self) -> None:
        """The pictures."""
        results = self.results
        maps = [(name, result.covariance_filters, result.mean_filters) for name, result in results.items()]
        plots.save(self.out / "image_patches_filters.png", (10.4, 13), plots.draw_filters, maps)
        shares = {name: result.shares for name, result in results.items()} | self.controls
        fits = [(name, result.covariance_filters, result.fits, result.shares) for name, result in results.items()]
        plots.save(self.out / "image_patches_gabors.png", (10, 7.4), plots.draw_gabors, fits, shares)
        normal = np.random.default_rng(self.seed + 1).standard_normal((NUM_CHAINS, NUM_COMPONENTS))
        draws = {"held-out patches": self.whitening.pixels(self.test[:NUM_CHAINS])}
        draws |= {f"draws of the {name}": result.draws for name, result in results.items()}
        draws["draws of the Gaussian model"] = self.whitening.pixels(normal * np.hypot(SCALE, NOISE))
        plots.save(self.out / "image_patches_samples.png", (10, 10.6), plots.draw_samples, draws)

    def print_table(self) -> None:
        """What came out, and how long it took."""
        share = 100 * self.whitening.share
        print(f"\n{len(self.train):,} patches to learn from, {NUM_COMPONENTS} components: {share:.1f}% of the variance")
        print(f"{f'score matching, {len(self.test):,} held-out patches':36}{'objective':>10}   (lower is better)")
        print(f"{'Gaussian model, full covariance':36}{gaussian_objective(self.train, self.test):10.1f}")
        for family, result in self.results.items():
            print(f"{family:36}{result.objective:10.1f}")
        print(f"\n{'energy share of the best Gabor':36}{'median':>10}{'above 0.6':>12}")
        shares = {f"{name}, covariance filters": result.shares for name, result in self.results.items()}
        for name, values in (shares | self.controls).items():
            print(f"{name:36}{np.median(values):10.2f}{100 * np.mean(values > 0.6):11.0f}%")
        columns = list(next(iter(self.results.values())).kurtoses)
        print(f"\n{'kurtosis of filter outputs':36}{''.join(f'{name:>20}' for name in columns)}{'Gaussian':>12}")
        for family, result in self.results.items():
            print(f"{family:36}{''.join(f'{result.kurtoses[name]:20.2f}' for name in columns)}{3:12.2f}")
        print(f"\n{'':36}{'seconds':>10}")
        for stage, seconds in self.stages.seconds.items():
            print(f"{stage:36}{seconds:10.1f}")
        print(f"\npictures: {', '.join(str(path) for path in sorted(self.out.glob('image_patches*.png')))}")


def main(arguments: list[str] | None = None) -> Program:
    """Parse the command line and run the program."""
    options, backend = command_line.parse("image_patches", __doc__, arguments)
    settings = QUICK if options.quick else Settings()
    program = Program(backend, settings, options.out, options.seed, progress=not options.quiet)
    program.run()
    return program


if __name__ == "__main__":
    main()
