"""A restricted Boltzmann machine of digits, learned and then used as the prior of two probabilistic programs.

::

    python examples/digits_rbm.py --backend numpyro        # or pyro; the pictures go to out/

1. Train a Gaussian-Bernoulli RBM on 4,500 MNIST digits at 14x14 pixels by SVI under persistent contrastive divergence.
2. Draw fantasy digits by long Gibbs chains.
3. Denoise 200 held-out digits, ``v ~ RBM; y ~ Normal(v, 0.4)``, by Gibbs sampling; a few of them also by the host's own
   NUTS. The rival is the best Gaussian prior: the Wiener solution with the full covariance of the same training digits.
4. Inpaint the lower half of digits from the upper half, in the same two ways.

What depends on the backend is in ``digits_rbm_numpyro.py`` and ``digits_rbm_pyro.py``, which mirror each other.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

import command_line
import datasets
import digits_rbm_plots as plots
from stages import Stages

NOISE_SCALE = 0.4
UPPER, LOWER = np.arange(98), np.arange(98, 196)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    nuts: dict[str, int]
    num_train: int = 4500
    num_hidden: int = 512
    num_epochs: int = 200
    fantasy_sweeps: int = 5000
    num_digits: int = 200
    num_nuts_digits: int = 4
    gibbs: dict[str, int] = dataclasses.field(default_factory=lambda: _chains(100, 100, 4))
    long_gibbs: dict[str, int] = dataclasses.field(default_factory=lambda: _chains(500, 2000, 4))


def _chains(num_warmup: int, num_samples: int, num_chains: int) -> dict[str, int]:
    return {"num_warmup": num_warmup, "num_samples": num_samples, "num_chains": num_chains}


FULL = {"numpyro": Settings(nuts=_chains(300, 500, 4)), "pyro": Settings(nuts=_chains(200, 300, 2))}
QUICK = Settings(
    nuts=_chains(20, 20, 2),
    num_train=1000,
    num_hidden=64,
    num_epochs=5,
    fantasy_sweeps=100,
    num_digits=10,
    num_nuts_digits=10,
    gibbs=_chains(20, 20, 2),
    long_gibbs=_chains(20, 20, 2),
)


# ------------------------------------------------------------------------------------------- the rival


@dataclasses.dataclass(frozen=True)
class GaussianPrior:
    """The multivariate normal distribution of digits, whose posterior means are linear."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fit(cls, digits: np.ndarray, ridge: float) -> "GaussianPrior":
        """Mean and full covariance of ``digits``, with ``ridge`` added to every variance."""
        digits = digits.astype(float)
        return cls(digits.mean(0), np.cov(digits.T) + ridge * np.eye(digits.shape[1]))

    @classmethod
    def best(cls, digits: np.ndarray) -> "GaussianPrior":
        """The fit whose ridge denoises a held-out ninth of the training digits best."""
        fit_part, held_out = np.split(digits, [len(digits) * 8 // 9])
        noisy = add_noise(held_out, seed=1)
        loss = lambda ridge: -psnr(held_out, cls.fit(fit_part, ridge).denoise(noisy))
        return cls.fit(digits, min((1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), key=loss))

    def denoise(self, noisy: np.ndarray) -> np.ndarray:
        """Posterior means given rows of ``y ~ Normal(v, NOISE_SCALE)``."""
        total = self.covariance + NOISE_SCALE**2 * np.eye(len(self.mean))
        return self.mean + (noisy - self.mean) @ np.linalg.solve(total, self.covariance)

    def inpaint(self, values: np.ndarray) -> np.ndarray:
        """Posterior means of the lower half given rows of upper halves."""
        gain = np.linalg.solve(self.covariance[np.ix_(UPPER, UPPER)], self.covariance[np.ix_(UPPER, LOWER)])
        return self.mean[LOWER] + (values - self.mean[UPPER]) @ gain


def add_noise(digits: np.ndarray, seed: int) -> np.ndarray:
    """What is observed of ``digits``."""
    return digits + NOISE_SCALE * np.random.default_rng(seed).standard_normal(digits.shape, np.float32)


def psnr(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels together; the peak is 1."""
    return float(-10 * np.log10(np.mean((estimate - clean) ** 2)))


# ----------------------------------------------------------------------------------------- diagnostics


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well NUTS converged, and how far its posterior means are from those of Gibbs sampling.

    ``difference`` is the root mean square over pixels in posterior standard deviations; ``expected`` is what Monte
    Carlo error alone would give, from the effective sample sizes of both.
    """

    r_hat: np.ndarray
    ess: np.ndarray
    difference: float
    expected: float

    def __str__(self) -> str:
        sizes = (self.ess.min(), np.median(self.ess))
        return (
            f"{self.r_hat.max():13.3f}{np.median(self.r_hat):13.3f}{sizes[0]:13.0f}{sizes[1]:13.0f}"
            f"{self.difference:13.3f}{self.expected:13.3f}"
        )


def compare(idata: Any, gibbs_idata: Any) -> Agreement:
    """Diagnostics of a NUTS run beside a long Gibbs run on the same posterior."""
    import arviz

    draws, reference = (data["posterior"]["v"].to_dataset(name="v") for data in (idata, gibbs_idata))
    r_hat, ess, reference_ess = (
        function(data)["v"].values
        for function, data in ((arviz.rhat, draws), (arviz.ess, draws), (arviz.ess, reference))
    )
    values, gibbs = draws["v"].values, reference["v"].values
    error = (values.mean((0, 1)) - gibbs.mean((0, 1))) / gibbs.std((0, 1))
    rms = lambda squares: float(np.sqrt(np.mean(squares)))
    return Agreement(r_hat, ess, rms(error**2), rms(1 / ess + 1 / reference_ess))


def traces(idata: Any, gibbs: np.ndarray, r_hat: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Chains of the most uncertain pixel of up to three digits and of the pixel of largest R-hat."""
    chains = idata["posterior"]["v"].values
    pixels = list(enumerate(gibbs.std((0, 1)).argmax(1)))[:3]
    pixels.append(np.unravel_index(r_hat.argmax(), r_hat.shape))
    names = [f"image {digit},\npixel ({pixel // 14}, {pixel % 14})" for digit, pixel in pixels]
    pick = lambda draws: [draws[:, :, digit, pixel] for digit, pixel in pixels]
    return names, np.stack(pick(chains)), np.stack(pick(gibbs)).reshape(len(pixels), -1)


# ----------------------------------------------------------------------------------------- the program


class Program:
    """The steps of the program on one backend; what is printed at the end collects in dictionaries."""

    def __init__(self, backend: Any, settings: Settings, out: pathlib.Path, seed: int, progress: bool) -> None:
        self.backend, self.settings, self.out, self.seed, self.progress = backend, settings, out, seed, progress
        data = datasets.mnist14()
        self.train_digits = data.train[: settings.num_train]
        self.clean = data.test[: settings.num_digits]
        self.noisy = add_noise(self.clean, seed=0)
        self.shown = np.unique(data.test_labels[: settings.num_digits], return_index=True)[1]  # one digit per class
        self.gaussian = GaussianPrior.best(self.train_digits)
        self.stages = Stages(announce=progress)
        self.scores: dict[str, float] = {}
        self.agreements: dict[str, Agreement] = {}

    def run(self) -> None:
        """All steps, then the pictures that need several of them, then the table."""
        with self.stages.timed("training"):
            self.rbm = self.backend.train(
                self.train_digits,
                num_hidden=self.settings.num_hidden,
                num_epochs=self.settings.num_epochs,
                seed=self.seed,
                progress=self.progress,
            )
        panels = [self.dream(), self.denoise(), self.inpaint()]
        self.nuts_denoise()
        self.nuts_inpaint()
        plots.save(self.out / "digits_rbm.png", (15.6, 8), plots.draw_summary, *panels)
        self.print_table()

    def dream(self) -> tuple[Any, ...]:
        """Fantasy digits, and the filters that the training digits use most."""
        with self.stages.timed("fantasies"):
            sweeps = self.settings.fantasy_sweeps
            fantasies = self.backend.fantasies(self.rbm, num_chains=100, num_sweeps=sweeps, seed=self.seed)
        usage = self.backend.hidden_probabilities(self.rbm, self.train_digits).mean(0)
        filters = np.asarray(self.rbm.weights).T[np.argsort(-usage)[:64]]
        plots.save(self.out / "fantasies.png", (7, 7), plots.draw_fantasies, fantasies, sweeps)
        plots.save(self.out / "filters.png", (7, 7), plots.draw_filters, filters)
        return fantasies, sweeps

    def denoise(self) -> tuple[Any, ...]:
        """Posterior means of noisy digits under the RBM and under the Gaussian prior."""
        with self.stages.timed("denoising by Gibbs"):
            draws = self.backend.denoise(self.rbm, self.noisy, NOISE_SCALE, seed=self.seed, **self.settings.gibbs)
        mean, deviation, wiener = draws.mean((0, 1)), draws.std((0, 1)), self.gaussian.denoise(self.noisy)
        self.scores["noisy digits"] = psnr(self.clean, self.noisy)
        self.scores["denoised, Gaussian prior (Wiener)"] = psnr(self.clean, wiener)
        self.scores["denoised, RBM prior"] = psnr(self.clean, mean)
        panel = tuple(images[self.shown] for images in (self.clean, self.noisy, wiener, mean, deviation))
        plots.save(self.out / "denoising.png", (8, 4.6), plots.draw_denoising, *panel)
        return panel

    def inpaint(self) -> tuple[Any, ...]:
        """Lower halves given upper halves."""
        with self.stages.timed("inpainting by Gibbs"):
            upper = self.clean[:, UPPER]
            draws = self.backend.inpaint(self.rbm, UPPER, upper, seed=self.seed, **self.settings.gibbs)
        lower = self.clean[:, LOWER]
        self.scores["lower half, Gaussian prior"] = psnr(lower, self.gaussian.inpaint(upper))
        self.scores["lower half, RBM prior"] = psnr(lower, draws.mean((0, 1)))
        shown = self.clean[self.shown]
        draws = draws[:, :, self.shown].reshape(-1, len(shown), len(LOWER))
        known = np.broadcast_to(shown[:, UPPER], (len(draws), len(shown), len(UPPER)))
        masked = np.concatenate([shown[:, UPPER], np.full_like(shown[:, LOWER], np.nan)], -1)
        panel = (shown, masked, np.concatenate([known, draws], -1))
        plots.save(self.out / "inpainting.png", (8, 6.2), plots.draw_inpainting, *panel)
        return panel

    def nuts_denoise(self) -> None:
        """The host's NUTS on the denoising program, beside long Gibbs chains."""
        few = (self.rbm, self.noisy[: self.settings.num_nuts_digits], NOISE_SCALE)
        gibbs = self.backend.denoise(*few, seed=self.seed + 1, **self.settings.long_gibbs)
        idata = self.nuts("denoising by NUTS", self.backend.denoising_model, *few, gibbs=gibbs)
        panel = traces(idata, gibbs, self.agreements["denoising by NUTS"].r_hat)
        plots.save(self.out / "trace.png", (10, 7), plots.draw_traces, *panel)

    def nuts_inpaint(self) -> None:
        """The host's NUTS on the inpainting program, beside long Gibbs chains."""
        few = (self.rbm, UPPER, self.clean[: self.settings.num_nuts_digits, UPPER])
        gibbs = self.backend.inpaint(*few, seed=self.seed + 1, **self.settings.long_gibbs)
        self.nuts("inpainting by NUTS", self.backend.inpainting_model, *few, gibbs=gibbs)

    def nuts(self, stage: str, model: Any, *args: Any, gibbs: np.ndarray) -> Any:
        """Run NUTS on ``model(*args)`` and compare it with the Gibbs draws."""
        with self.stages.timed(stage):
            idata = self.backend.nuts(model, *args, seed=self.seed, progress=self.progress, **self.settings.nuts)
        self.agreements[stage] = compare(idata, self.backend.to_arviz(posterior={"v": gibbs}))
        return idata

    def print_table(self) -> None:
        """What came out, how far to trust it, and how long it took."""
        gain = self.scores["denoised, RBM prior"] - self.scores["denoised, Gaussian prior (Wiener)"]
        print(f"\n{f'{len(self.clean)} held-out digits':36}{'PSNR (dB)':>10}")
        for name, score in self.scores.items():
            print(f"{name:36}{score:10.2f}" + (f"   {gain:+.2f} over Wiener" if name == "denoised, RBM prior" else ""))
        size = self.settings.nuts
        columns = ("R-hat max", "median", "ESS min", "median", "NUTS - Gibbs", "expected")
        print(f"\n{size['num_chains']} NUTS chains of {size['num_samples']} draws".ljust(37), end="")
        print("".join(f"{column:>13}" for column in columns))
        for stage, agreement in self.agreements.items():
            print(f"{f'{stage}, {self.settings.num_nuts_digits} digits':36}{agreement}")
        print("NUTS - Gibbs: difference of the posterior means in posterior standard deviations, root mean square over")
        print("pixels; expected: the same from Monte Carlo error alone.")
        print(f"\n{'':36}{'seconds':>10}")
        for stage, seconds in self.stages.seconds.items():
            print(f"{stage:36}{seconds:10.1f}")
        print(f"\npictures: {', '.join(str(path) for path in sorted(self.out.glob('*.png')))}")


def main(arguments: list[str] | None = None) -> Program:
    """Parse the command line and run the program."""
    add = lambda parser: parser.add_argument("--epochs", type=int, help="passes over the training digits")
    options, backend = command_line.parse("digits_rbm", __doc__, arguments, add)
    settings = QUICK if options.quick else FULL[options.backend]
    if options.epochs is not None:
        settings = dataclasses.replace(settings, num_epochs=options.epochs)
    program = Program(backend, settings, options.out, options.seed, progress=not options.quiet)
    program.run()
    return program


if __name__ == "__main__":
    main()
