"""Variational autoencoders of MNIST digits: decodings, prior samples, ELBO and IWAE, and two priors in the plane.

::

    python examples/vae_digits.py --backend numpyro        # or pyro; the pictures go to out/

4,500 digits of 28x28 pixels to learn from, 500 held out. Grey levels are probabilities of ink: training draws zeros and
ones anew in every epoch, the held-out digits are binarised once. Encoder and decoder have three layers each.

1. Learn four autoencoders by SVI: of 8 latent variables, and of 2, which can be looked at; each under N(0, I) and under
   a learned mixture of 20 normal distributions as the prior. The weight of the KL term rises to 1 in the first epochs.
2. Judge them by held-out digits: the ELBO, what it is made of (with N digits the mutual information of digit and z is
   at most log N), the importance-weighted log-likelihood, and how many latent variables are used.
3. Where does the bound lose? Langevin chains from the encoder to the posterior of a few digits tell what the encoder
   loses by being shared by all digits (amortisation), and what the diagonal normal distribution loses (approximation).
4. Pictures: reconstructions; ten decodings of one input, for inputs about whose looks the posterior is unsure; samples
   under both priors; and the aggregated posterior of the 2-D models over the prior's density.

What depends on the backend is in ``vae_digits_numpyro.py`` and ``vae_digits_pyro.py``, which mirror each other.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

import command_line
import datasets
import vae_digits_plots as plots
from stages import Stages

SHAPE = (28, 28)
MODELS = {"8-D, N(0, I)": (8, 0), "8-D, mixture": (8, 20), "2-D, N(0, I)": (2, 0), "2-D, mixture": (2, 20)}
MAIN, RIVAL, *PLANES = MODELS
NUM_SHOWN, NUM_INPUTS, NUM_DECODINGS, NUM_SAMPLES = 10, 5, 10, 66


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    num_train: int = 4_500
    num_test: int = 500
    num_epochs: int = 30
    num_annealed: int = 4
    num_draws: int = 5
    num_importance: int = 1_000
    num_refined: int = 20
    num_steps: int = 150
    num_chains: int = 100


QUICK = Settings(
    num_train=1_000, num_test=100, num_epochs=3, num_draws=1, num_importance=50, num_refined=4, num_steps=5
)


class Program:
    """The steps of the program on one backend."""

    def __init__(self, backend: Any, settings: Settings, out: pathlib.Path, seed: int, progress: bool) -> None:
        self.backend, self.settings, self.out, self.seed, self.progress = backend, settings, out, seed, progress
        digits = datasets.mnist28()
        self.train, self.labels = digits.train[: settings.num_train], digits.train_labels[: settings.num_train]
        self.test = datasets.binarised(digits.test[: settings.num_test])
        self.test_labels = digits.test_labels[: settings.num_test]
        self.models: dict[str, Any] = {}
        self.measures: dict[str, dict[str, float]] = {}
        self.stages = Stages(announce=progress)

    def run(self) -> None:
        """Learn, judge, draw the pictures, print the tables."""
        with self.stages.timed("learning"):
            self.models = {name: self.learn(name) for name in MODELS}
        with self.stages.timed("judging"):
            self.measures = {name: self.judge(model) for name, model in self.models.items()}
        with self.stages.timed("inference gaps"):
            self.gaps = self.backend.gaps(
                self.models[MAIN],
                self.test[: self.settings.num_refined],
                self.settings.num_steps,
                self.settings.num_chains,
                seed=self.seed,
            )
        with self.stages.timed("pictures"):
            self.draw()
        self.print_tables()

    def learn(self, name: str) -> Any:
        """One autoencoder."""
        return self.backend.train(
            self.train,
            *MODELS[name],
            name=name,
            num_epochs=self.settings.num_epochs,
            num_annealed=self.settings.num_annealed,
            seed=self.seed,
            progress=self.progress,
        )

    def judge(self, model: Any) -> dict[str, float]:
        """The measures of one autoencoder."""
        return self.backend.judge(
            model, self.test, self.settings.num_draws, self.settings.num_importance, seed=self.seed
        )

    # ------------------------------------------------------------------ pictures

    def draw(self) -> None:
        """The pictures."""
        parts = plots.Parts(
            self.draw_reconstructions,
            *self.decodings(),
            {name: self.backend.decode_prior(self.models[name], NUM_SAMPLES, seed=self.seed) for name in (MAIN, RIVAL)},
            [self.plane(name) for name in PLANES],
        )
        plots.save(self.out / "vae_digits.png", (11.4, 11.4), plots.draw_summary, parts)
        plots.save(
            self.out / "vae_digits_latent.png", (11, 5.2), plots.draw_details, self.draw_traversal, self.draw_latent
        )

    def draw_reconstructions(self, axis: Any) -> None:
        """One held-out digit of each class, and what becomes of it."""
        first = [int(np.argmax(self.test_labels == label)) for label in range(NUM_SHOWN)]
        self.backend.draw_reconstructions(self.models[MAIN], self.test[first], SHAPE, axis, seed=self.seed)

    def draw_traversal(self, axis: Any) -> None:
        """Decodings along the latent dimensions through a held-out three."""
        three = self.test[np.argmax(self.test_labels == 3)]
        self.backend.draw_traversal(self.models[MAIN], three, SHAPE, axis)

    def draw_latent(self, axis: Any) -> None:
        """Latent variables of held-out digits, in two principal components."""
        self.backend.draw_latent(self.models[MAIN], self.test, self.test_labels, axis, seed=self.seed)

    def decodings(self) -> tuple[np.ndarray, np.ndarray]:
        """Digits of different labels whose decodings vary most, of those that are decoded well, and their decodings."""
        draws = self.backend.decode_posterior(self.models[MAIN], self.test, NUM_DECODINGS, seed=self.seed)
        errors = ((draws - self.test) ** 2).mean((0, -1))
        order = np.argsort(-np.where(errors <= np.quantile(errors, 0.9), draws.var(0).mean(-1), 0))
        first = np.unique(self.test_labels[order], return_index=True)[1]
        chosen = order[np.sort(first)[:NUM_INPUTS]]
        return self.test[chosen], draws[:, chosen].swapaxes(0, 1)

    def plane(self, name: str) -> plots.Plane:
        """What is drawn of a 2-D model."""
        model = self.models[name]
        latent = self.backend.sample_posterior(model, datasets.binarised(self.train), seed=self.seed)
        prior = self.backend.sample_prior(model, 2_000, seed=self.seed)
        density = lambda points: self.backend.prior_density(model, points.astype(np.float32))
        return plots.Plane(name, latent, self.labels, prior, density)

    # ------------------------------------------------------------------ tables

    def print_tables(self) -> None:
        """What came out, and how long it took."""
        count = len(self.test)
        columns = ("ELBO", "reconstruction", "mutual inf.", "marginal KL", "IWAE", "active")
        print(f"\n{len(self.train):,} digits to learn from; nats per held-out digit, mean of {count}")
        print(f"{'':16}{''.join(f'{column:>16}' for column in columns)}")
        for name, found in self.measures.items():
            *measures, active = found.values()
            print(f"{name:16}{''.join(f'{value:16.2f}' for value in measures)}{active:>11} of {MODELS[name][0]}")
        print(f"(mutual information is at most log {count} = {np.log(count):.2f}; IWAE with", end=" ")
        print(f"{self.settings.num_importance:,} draws per digit)")
        gaps = self.gaps
        print(f"\n{MAIN}, {self.settings.num_refined} digits: amortisation gap {gaps['amortization']:.2f},", end=" ")
        print(f"approximation gap {gaps['approximation']:.2f} (Langevin moves accepted: {gaps['accepted']:.0%})")
        print(f"\n{'':16}{'seconds':>16}")
        for stage, seconds in self.stages.seconds.items():
            print(f"{stage:16}{seconds:16.1f}")
        print(f"\npictures: {', '.join(str(path) for path in sorted(self.out.glob('vae_digits*.png')))}")


def main(arguments: list[str] | None = None) -> Program:
    """Parse the command line and run the program."""
    options, backend = command_line.parse("vae_digits", __doc__, arguments)
    settings = QUICK if options.quick else Settings()
    program = Program(backend, settings, options.out, options.seed, progress=not options.quiet)
    program.run()
    return program


if __name__ == "__main__":
    main()
