"""A small causal transformer as an exact density over digits, pixel after pixel.

::

    python examples/causal_transformer.py --backend numpyro        # or pyro; the pictures go to out/

A transformer that predicts every pixel of an 8x8 digit from the pixels before it is a ``CausalAutoencoder``: its
density is exact, learned by SVI as any likelihood, and its draws come from all pixels at once, in sweeps of the whole
network with frozen noise (Jacobi decoding) that end exactly where one-by-one ancestral sampling would. As an energy of
the field ``r(x) - x`` it is refused, because no causal field is a gradient. The rival is a Gaussian with the full
covariance.
"""

import pathlib
import time

import numpy as np

import command_line

NUM_TEST = 297
NOISE = 0.15  # standard deviation added to grey levels, which pile up at 0, as a fraction of the range


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits in [-1, 1] with a little noise: 1,500 to train on, 297 held out, float32."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    images = load_digits().data / 8 - 1
    images = (images + 2 * NOISE * rng.standard_normal(images.shape)).astype(np.float32)
    order = rng.permutation(len(images))
    return images[order[:-NUM_TEST]], images[order[-NUM_TEST:]]


def gaussian_log_likelihood(train: np.ndarray, test: np.ndarray) -> float:
    """Mean held-out log-density, in nats, of the Gaussian with the training mean and covariance."""
    centred = test - train.mean(0)
    covariance = np.cov(train.T.astype(float))
    solved = np.linalg.solve(covariance, centred.T).T
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return float(np.mean(-0.5 * (centred * solved).sum(-1) - 0.5 * log_det))


def plot(path: pathlib.Path, test: np.ndarray, draws: np.ndarray, gaps: np.ndarray, losses: np.ndarray) -> None:
    """Held-out digits, draws, how soon the sweeps reach the ancestral draw, and the learning curve."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    framed = lambda row: np.pad(row.reshape(8, 8), 1, constant_values=1.0)
    mosaic = lambda rows: np.block([[framed(rows[8 * i + j]) for j in range(8)] for i in range(5)])
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), width_ratios=[1.6, 1.6, 1, 1], constrained_layout=True)
    for axis, images, title in ((axes[0], test, "held-out digits"), (axes[1], draws, "draws, 64 pixels in parallel")):
        axis.imshow(mosaic(images), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title)
        axis.set_axis_off()
    axes[2].semilogy(np.arange(1, len(gaps) + 1), np.maximum(gaps, 1e-8))
    axes[2].set(title="distance to the\nancestral draw", xlabel="parallel sweeps")
    axes[3].plot(losses)
    axes[3].set(title="negative log-likelihood\nper digit, nats", xlabel="epoch")
    figure.savefig(path, dpi=130)


def main(arguments: list[str] | None = None) -> None:
    options, half = command_line.parse("causal_transformer", __doc__, arguments)
    train, test = digits(options.seed)
    start = time.perf_counter()
    model = half.learn(train, num_epochs=2 if options.quick else 40, seed=options.seed, progress=not options.quiet)
    draws, gaps = half.sample(model, 40, options.seed)
    rival = gaussian_log_likelihood(train, test)
    print(
        f"held-out log-likelihood, nats per digit: transformer {half.log_likelihood(model, test):.2f}, "
        f"Gaussian with full covariance {rival:.2f}"
    )
    settled = int(np.argmax(gaps < 1e-3)) + 1
    print(f"40 draws are within 1e-3 of their ancestral ones after {settled} parallel sweeps (ancestral: 64)")
    print(f"as an integrated energy: {half.refusal(model)}")
    plot(options.out / "causal_transformer.png", test, draws, gaps, model.losses)
    print(f"{time.perf_counter() - start:.0f} s; picture: {options.out / 'causal_transformer.png'}")


if __name__ == "__main__":
    main()
