"""Markov chains on a Gaussian-Bernoulli machine, rivals side by side in one run on one core.

    python benchmarks/sampling.py [--visible 64] [--hidden 128] [--chains 64] [--quick]

For every sampler: gradients per second over all chains (compilation left out), and bulk effective samples per second of
the slowest coordinate (ArviZ). Every step size is tuned to the usual acceptance probability (0.574 of Langevin
proposals, 0.8 of trajectories) by its own warm-up; the rivals from blackjax have no tuning of their own for batches
and get the same Robbins-Monro rule as ours. Hosts: NumPyro's HMC and NUTS with vectorised chains; Pyro's HMC, which
runs one chain at a time, with the same number of leapfrog steps.
"""

import argparse
import os
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import torch
from jax import lax

import numpyro_ebm
import pyro_ebm

torch.set_num_threads(1)
NUM_LEAPFROG = 10


def parameters(visible, hidden):
    """An asymmetric machine with structure on several scales, that chains can still cross."""
    rng = np.random.default_rng(0)
    weights = 1.2 * rng.normal(size=(visible, hidden)) / np.sqrt(hidden)
    scale = np.exp(rng.uniform(-0.7, 0.7, size=visible))
    return [x.astype(np.float32) for x in (weights, rng.normal(size=visible), rng.normal(size=hidden), scale)]


def effective_samples(draws):
    """Smallest bulk effective sample size over coordinates; draws have the shape (chains, draws, visible)."""
    return min(float(arviz.ess(np.asarray(draws[..., i], np.float64))) for i in range(draws.shape[-1]))


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


# ------------------------------------------------------------------------------------------------- NumPyro


def jax_chain(transition, init, key, position, target_accept, step_size, num_warmup, num_samples):
    """Warm up and draw by a transition ``(key, state, step_size) -> (state, acceptance)``, in compiled loops."""

    @jax.jit
    def warm_up(key, position):
        def body(carry, inputs):
            state, log_step = carry
            key, count = inputs
            state, accept = transition(key, state, jnp.exp(log_step))
            return (state, log_step + 2.0 * count**-0.5 * (accept.mean() - target_accept)), log_step

        counts = jnp.arange(1.0, num_warmup + 1)
        start = (init(position), jnp.log(step_size))
        (state, _), path = lax.scan(body, start, (jax.random.split(key, num_warmup), counts))
        return state, jnp.exp(path[num_warmup // 2 :].mean())

    @jax.jit
    def draw(key, state, step_size):
        def body(state, key):
            state, accept = transition(key, state, step_size)
            return state, (state.position, accept.mean())

        return lax.scan(body, state, jax.random.split(key, num_samples))[1]

    state, tuned = warm_up(key, position)
    jax.block_until_ready(draw(key, state, tuned))
    times = []
    for seed in range(5):
        key = jax.random.key(seed)
        (draws, accept), seconds = timed(lambda key=key: jax.block_until_ready(draw(key, state, tuned)))
        times.append(seconds)
    return jnp.moveaxis(draws, 0, 1), min(times), float(accept.mean())


def functional(model, kind, key, position, num_warmup, num_samples):
    """Our transitions, and blackjax's on the same log-density, vectorised over chains."""
    steps = numpyro_ebm.infer.steps
    log_density = lambda x: model.unnormalized_log_prob(x)
    if kind == "ours MALA":
        transition = lambda key, state, size: steps.adjusted_langevin_step(key, state, model, size)
    elif kind == "ours HMC (jittered)":
        transition = lambda key, state, size: steps.hamiltonian_step(key, state, model, size, NUM_LEAPFROG)
    elif kind == "ours underdamped":
        transition = lambda key, state, size: steps.underdamped_step(key, state, model, size, 0.5)
    else:
        make = {
            "blackjax MALA": lambda size: blackjax.mala(log_density, 0.5 * size**2),
            "blackjax HMC": lambda size: blackjax.hmc(log_density, size, jnp.ones(position.shape[1]), NUM_LEAPFROG),
        }[kind]

        def transition(key, state, size):
            state, info = jax.vmap(make(size).step)(jax.random.split(key, len(position)), state)
            return state, info.acceptance_rate

        init = jax.vmap(make(0.1).init)
        target = 0.574 if "MALA" in kind else 0.8
        return jax_chain(transition, init, key, position, target, 0.1, num_warmup, num_samples)
    wrapped = lambda key, state, size: (lambda state, info: (state, info.accept_prob))(*transition(key, state, size))
    init = lambda position: steps.init(model, position)
    if "underdamped" in kind:
        init = lambda position: steps.init_underdamped(jax.random.key(5), model, position)
    target = {"ours MALA": 0.574, "ours underdamped": 0.9}.get(kind, 0.8)
    return jax_chain(wrapped, init, key, position, target, 0.1, num_warmup, num_samples)


def numpyro_host(model, kind, num_chains, num_warmup, num_samples):
    """A kernel in NumPyro's MCMC; the time of compilation is the difference of two runs."""
    program = lambda: numpyro.sample("v", model)
    make = {
        "NumPyro HMC": lambda: numpyro.infer.HMC(program, num_steps=NUM_LEAPFROG, trajectory_length=None),
        "NumPyro NUTS": lambda: numpyro.infer.NUTS(program),
        "ours MALA kernel": lambda: numpyro_ebm.infer.MALA(program),
    }[kind]

    # of our kernels, one transition is one gradient
    counted = ("num_steps",) if kind.startswith("NumPyro") else ()

    def run(count):
        mcmc = numpyro.infer.MCMC(
            make(),
            num_warmup=num_warmup,
            num_samples=count,
            num_chains=num_chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.warmup(jax.random.key(0))
        _, seconds = timed(lambda: mcmc.run(jax.random.key(1), extra_fields=("accept_prob", *counted)))
        return mcmc, seconds

    _, short = run(1)
    mcmc, seconds = run(num_samples)
    fields = mcmc.get_extra_fields()
    draws = mcmc.get_samples(group_by_chain=True)["v"]
    seconds = max(seconds - short, 0.02 * seconds)  # in the quick run compilation is nearly all
    return (
        draws,
        seconds,
        float(np.mean(fields["accept_prob"])),
        float(np.sum(fields.get("num_steps", np.ones(draws.shape[:2])))),
    )


# ---------------------------------------------------------------------------------------------------- Pyro


def pyro_host(model, num_warmup, num_samples):
    """Pyro's own HMC: one chain at a time, so one chain."""
    program = lambda: pyro.sample("v", model)
    kernel = pyro.infer.HMC(program, num_steps=NUM_LEAPFROG, adapt_mass_matrix=False, target_accept_prob=0.8)
    mcmc = pyro.infer.MCMC(kernel, num_samples, num_warmup, disable_progbar=True)
    start = time.perf_counter()
    mcmc.run()
    seconds = (time.perf_counter() - start) * num_samples / (num_samples + num_warmup)
    accept = mcmc.diagnostics()["acceptance rate"]["chain 0"]
    return mcmc.get_samples(group_by_chain=True)["v"].numpy(), seconds, accept


def pyro_ours(model, kind, num_chains, num_warmup, num_samples):
    """Batched kernels on a Pyro program, by differentiation or by the family's score; and the bare chain."""
    if kind == "ours HMC, chain alone":
        sampler = pyro_ebm.infer.Hamiltonian(num_leapfrog=NUM_LEAPFROG)
        options = {"num_chains": num_chains, "sampler": sampler}
        _, state = pyro_ebm.infer.run_chain(model, 1, num_warmup=num_warmup, return_state=True, **options)
        draws, seconds = timed(lambda: pyro_ebm.infer.run_chain(model, num_samples, resume=state, **options))
        return draws.numpy(), seconds, float("nan"), NUM_LEAPFROG * num_chains * num_samples
    program = lambda: pyro.sample("v", model)
    score = {"score": lambda z: {"v": model.score(z["v"])}} if "score" in kind else {}
    infer = pyro_ebm.infer
    kernel = {
        "ours MALA": lambda: infer.MALA(program, **score),
        "ours HMC": lambda: infer.HMC(program, num_leapfrog=NUM_LEAPFROG, **score),
        "ours NUTS": lambda: infer.NUTS(program, **score),
    }[kind.removesuffix(", score")]()
    mcmc = infer.BatchedMCMC(kernel, num_samples, num_warmup, num_chains, disable_progbar=True)
    clock = []
    advance = kernel.advance
    kernel.advance = lambda: (clock.append(time.perf_counter()), advance())[1]
    mcmc.run()
    seconds = time.perf_counter() - clock[num_warmup]
    accept = float(mcmc.get_extra_fields()["accept_prob"].mean())
    per_draw = {"ours MALA": 1, "ours HMC": NUM_LEAPFROG}.get(kind.removesuffix(", score"))
    gradients = float("nan") if per_draw is None else per_draw * num_chains * num_samples
    return mcmc.get_samples(group_by_chain=True)["v"].numpy(), seconds, accept, gradients


# --------------------------------------------------------------------------------------------------- table


def print_row(name, draws, seconds, accept, gradients, reference=None):
    rate = effective_samples(draws) / seconds
    ratio = f"{rate / reference:9.2f}" if reference else f"{'':9s}"
    print(f"{name:28s}{gradients / seconds:14,.0f}{rate:14,.1f}{ratio}{accept:9.2f}{draws.shape[1]:8d}", flush=True)
    return rate, gradients / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("visible", 64), ("hidden", 128), ("chains", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--quick", action="store_true", help="a few draws: does it run?")
    options = parser.parse_args()
    warm, long, short = (20, 20, 10) if options.quick else (1000, 2000, 400)
    arguments = parameters(options.visible, options.hidden)
    weights, visible_bias, hidden_bias, scale = map(jnp.asarray, arguments)
    biases = {"visible_bias": visible_bias, "hidden_bias": hidden_bias, "scale": scale}
    machine = numpyro_ebm.GaussianBernoulliRBM(weights, **biases, log_partition=None, validate_args=False)
    position = machine.initial(jax.random.key(0), (options.chains,))
    print(f"{options.chains} chains, {options.visible} visible and {options.hidden} hidden units, one core, float32")
    columns = "".join(f"{name:>14s}" for name in ("gradients/s", "min ESS/s"))
    print(f"{'NumPyro':28s}{columns}{'ratio':>9s}{'accept':>9s}{'draws':>8s}")
    rates, speeds = {}, {}
    for kind, leapfrog in (
        ("blackjax MALA", 1),
        ("blackjax HMC", NUM_LEAPFROG),
        ("NumPyro HMC", None),
        ("NumPyro NUTS", None),
        ("ours MALA", 1),
        ("ours HMC (jittered)", NUM_LEAPFROG),
        ("ours underdamped", 1),
        ("ours MALA kernel", None),
    ):
        count = short if leapfrog == NUM_LEAPFROG else long
        if leapfrog is None:
            draws, seconds, accept, gradients = numpyro_host(machine, kind, options.chains, warm, count)
        else:
            draws, seconds, accept = functional(machine, kind, jax.random.key(1), position, warm, count)
            gradients = leapfrog * options.chains * count
        reference = max(rate for name, rate in rates.items() if "ours" not in name) if "ours" in kind else None
        rates[kind], speeds[kind] = print_row(kind, draws, seconds, accept, gradients, reference)
    for own, rival in (("ours MALA", "blackjax MALA"), ("ours HMC (jittered)", "blackjax HMC")):
        ratio = speeds[own] / speeds[rival]
        print(f"{f'{own} / {rival}, gradients per second':58s}{ratio:6.2f}")
    best = max(rate for kind, rate in rates.items() if "ours" in kind)
    rival = max(rate for kind, rate in rates.items() if "ours" not in kind)
    print(f"{'our best / the best rival, effective samples per second':58s}{best / rival:6.2f}")

    print(f"\n{'Pyro':28s}{columns}{'ratio':>9s}{'accept':>9s}{'draws':>8s}")
    weights, visible_bias, hidden_bias, scale = map(torch.as_tensor, arguments)
    biases = {"visible_bias": visible_bias, "hidden_bias": hidden_bias, "scale": scale}
    machine = pyro_ebm.GaussianBernoulliRBM(weights, **biases, log_partition=None, validate_args=False)
    pyro.set_rng_seed(0)
    draws, seconds, accept = pyro_host(machine, warm // 5, long // 5)
    reference, _ = print_row("Pyro HMC (one chain)", draws, seconds, accept, NUM_LEAPFROG * draws.shape[1])
    for kind in ("ours MALA", "ours HMC", "ours HMC, score", "ours NUTS", "ours HMC, chain alone"):
        count = long if "MALA" in kind else short
        print_row(kind, *pyro_ours(machine, kind, options.chains, warm // 2, count), reference)


if __name__ == "__main__":
    main()
