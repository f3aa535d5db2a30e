"""Annealed importance sampling against exact partition functions: error beside time, in both packages.

    python benchmarks/partition.py [--quick]

A 12 x 8 Bernoulli and a 64 x 10 Gaussian-Bernoulli machine, 100 chains, more and more temperatures: root mean square
error of the forward and the reverse bound over 20 seeds (a batch of 20 equal models), the mean of the bounds minus the
truth, the mean standard error that the bounds state, and the time of one pair of bounds without compilation.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import pyro
import torch

import numpyro_ebm
import pyro_ebm

NUM_SEEDS = 20


def machines(package, array):
    """Machines that are small enough for their log Z."""
    rng = np.random.default_rng(0)
    binary = [array(rng.normal(size=shape)) for shape in ((12, 8), 12, 8)]
    real = [array(0.4 * rng.normal(size=(64, 10))), *(array(rng.normal(size=size)) for size in (64, 10))]
    for title, family, (weights, visible_bias, hidden_bias) in (
        ("BernoulliRBM 12 x 8", package.BernoulliRBM, binary),
        ("GaussianBernoulliRBM 64 x 10", package.GaussianBernoulliRBM, real),
    ):
        yield title, family(weights, visible_bias=visible_bias, hidden_bias=hidden_bias)


def seconds_of(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def print_table(title, package, array, bounds, lengths, repeats):
    """One row for each machine and number of temperatures."""
    names = ("rms lower", "rms upper", "bias lower", "bias upper", "stated error")
    print(f"{title:32s}{'log Z':>10s}{'temperatures':>14s}" + "".join(f"{n:>14s}" for n in names) + f"{'seconds':>10s}")
    for name, machine in machines(package, array):
        truth = float(machine.log_partition)
        for length in lengths:
            found = bounds(machine.expand((NUM_SEEDS,)), length)
            lower, upper, error = (np.asarray(x) - y for x, y in ((found[0], truth), (found[1], truth), (found[2], 0)))
            seconds = min(seconds_of(lambda m=machine, n=length: bounds(m, n)) for _ in range(repeats))
            row = [np.sqrt((lower**2).mean()), np.sqrt((upper**2).mean()), lower.mean(), upper.mean(), error.mean()]
            cells = "".join(f"{cell:14.4f}" for cell in row)
            print(f"{name:32s}{truth:10.3f}{length:14d}{cells}{seconds:10.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few temperatures: does it run?")
    lengths = (10, 30) if parser.parse_args().quick else (100, 300, 1000, 3000)
    torch.set_num_threads(1)

    def in_jax(machine, length):
        found = numpyro_ebm.infer.log_partition_bounds(jax.random.key(0), machine, num_temperatures=length)
        return jax.block_until_ready(found[:3])

    def in_torch(machine, length):
        pyro.set_rng_seed(0)
        return pyro_ebm.infer.log_partition_bounds(machine, num_temperatures=length)[:3]

    print("100 chains; errors in nats over 20 seeds, float32\n")
    print_table("NumPyro", numpyro_ebm, lambda x: jnp.asarray(x, jnp.float32), in_jax, lengths, repeats=3)
    print()
    print_table("Pyro", pyro_ebm, lambda x: torch.as_tensor(x, dtype=torch.float32), in_torch, lengths, repeats=2)


if __name__ == "__main__":
    main()
