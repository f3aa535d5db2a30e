"""Gates for Monte Carlo results.

Every gate is |z| < 4.5 on the Monte Carlo standard error: a false alarm happens once in 150,000 gated numbers, and the
seeds are fixed, so a pass stays a pass until code changes.
"""

import numpy as np

MAX_Z = 4.5


def assert_mean(draws, expected, effective=None):
    """The mean of independent draws (axis 0), or of dependent ones with ``effective`` of them, equals ``expected``."""
    count = len(draws) if effective is None else effective
    error = draws.std(0) / np.sqrt(count)
    z = (draws.mean(0) - expected) / np.maximum(error, 1e-300)
    assert np.all(np.abs(z) < MAX_Z), f"z = {z}"


def assert_moments(draws, mean, covariance, power=0.05):
    """First and second moments of independent draws equal the exact ones, and the test could see ``power`` of error."""
    centred = draws - mean
    products = centred[:, :, None] * centred[:, None, :]
    variance = np.diagonal(covariance)
    resolution = MAX_Z * products.diagonal(axis1=1, axis2=2).std(0) / np.sqrt(len(draws))
    assert np.all(resolution < power * variance), "too few draws to see the error this test is for"
    assert_mean(draws, mean)
    assert_mean(products, covariance)
