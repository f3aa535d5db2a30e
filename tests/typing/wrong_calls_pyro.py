"""Wrong calls, each of which a type checker must report: misspelt, missing, surplus and positional arguments.

``tests/test_typing.py`` holds mypy to it. Nothing here is ever run.
"""

from collections.abc import Callable
from typing import Any

import torch

import pyro_ebm as ebm
from pyro_ebm import infer, objectives, variational

x: torch.Tensor
f: Callable[..., torch.Tensor]
model: Callable[..., Any]
rbm: ebm.GaussianBernoulliRBM

ebm.BernoulliRBM(x, hiden_bias=x)  # E
ebm.BernoulliRBM()  # E
ebm.BernoulliRBM(x, log_partition=None, extra=1)  # E
ebm.BernoulliRBM(x, x)  # E
ebm.GaussianBernoulliRBM(x, sigma=x)  # E
ebm.GaussianBernoulliRBM()  # E
ebm.GaussianBernoulliRBM(x, log_partition=None, extra=1)  # E
ebm.GaussianBernoulliRBM(x, x)  # E
ebm.GaussianRBM(x, bias=x)  # E
ebm.GaussianRBM()  # E
ebm.GaussianRBM(x, log_partition=None, extra=1)  # E
ebm.GaussianRBM(x, x)  # E
ebm.ProductOfStudentT(x, concentration=x, pool=x)  # E
ebm.ProductOfStudentT(concentration=x)  # E
ebm.ProductOfStudentT(x, concentration=x, log_partition=None, extra=1)  # E
ebm.ProductOfStudentT(x, x, concentration=x)  # E
ebm.MeanProductOfStudentT(x, x, concentration=x, pool=x)  # E
ebm.MeanProductOfStudentT(x, concentration=x)  # E
ebm.MeanProductOfStudentT(x, x, concentration=x, log_partition=None, extra=1)  # E
ebm.MeanProductOfStudentT(x, x, x, concentration=x)  # E
ebm.CovarianceRBM(x, covariance_biases=x)  # E
ebm.CovarianceRBM()  # E
ebm.CovarianceRBM(x, log_partition=None, extra=1)  # E
ebm.CovarianceRBM(x, x)  # E
ebm.MeanCovarianceRBM(x, x, mean_bias=x)  # E
ebm.MeanCovarianceRBM(x)  # E
ebm.MeanCovarianceRBM(x, x, log_partition=None, extra=1)  # E
ebm.MeanCovarianceRBM(x, x, x)  # E
ebm.GatedRBM(x, x, x, x, biases=x)  # E
ebm.GatedRBM(x, x, x)  # E
ebm.GatedRBM(x, x, x, x, log_partition=None, extra=1)  # E
ebm.GatedRBM(x, x, x, x, x)  # E
ebm.TiedAutoencoder(x, activations=x)  # E
ebm.TiedAutoencoder()  # E
ebm.TiedAutoencoder(x, log_partition=None, extra=1)  # E
ebm.TiedAutoencoder(x, x)  # E
ebm.BinaryAutoencoder(x, act=x)  # E
ebm.BinaryAutoencoder()  # E
ebm.BinaryAutoencoder(x, log_partition=None, extra=1)  # E
ebm.BinaryAutoencoder(x, x)  # E
ebm.GatedAutoencoder(x, x, x, x, temp=x)  # E
ebm.GatedAutoencoder(x, x, x)  # E
ebm.GatedAutoencoder(x, x, x, x, log_partition=None, extra=1)  # E
ebm.GatedAutoencoder(x, x, x, x, x)  # E
ebm.CovarianceAutoencoder(x, hidden_bias=x)  # E
ebm.CovarianceAutoencoder()  # E
ebm.CovarianceAutoencoder(x, log_partition=None, extra=1)  # E
ebm.CovarianceAutoencoder(x, x)  # E
ebm.MeanCovarianceAutoencoder(x, x, bias=x)  # E
ebm.MeanCovarianceAutoencoder(x)  # E
ebm.MeanCovarianceAutoencoder(x, x, log_partition=None, extra=1)  # E
ebm.MeanCovarianceAutoencoder(x, x, x)  # E
ebm.NeuralEnergy(f, (2,), shape=x)  # E
ebm.NeuralEnergy(f)  # E
ebm.NeuralEnergy(f, (2,), log_partition=None, extra=1)  # E
ebm.NeuralEnergy(f, (2,), x)  # E
ebm.LineIntegralEnergy(f, (2,), nodes=x)  # E
ebm.LineIntegralEnergy(f)  # E
ebm.LineIntegralEnergy(f, (2,), log_partition=None, extra=1)  # E
ebm.LineIntegralEnergy(f, (2,), x)  # E
ebm.GradientStepEnergy(f, (2,), sigma=x)  # E
ebm.GradientStepEnergy(f)  # E
ebm.GradientStepEnergy(f, (2,), log_partition=None, extra=1)  # E
ebm.GradientStepEnergy(f, (2,), x)  # E
ebm.CausalAutoencoder(f, (2,), sigma=x)  # E
ebm.CausalAutoencoder(f)  # E
ebm.CausalAutoencoder(f, (2,), log_partition=None, extra=1)  # E
ebm.CausalAutoencoder(f, (2,), x)  # E
ebm.MarkovNetwork([2, 2], {(0, 1): x}, tables=x)  # E
ebm.MarkovNetwork([2, 2])  # E
ebm.MarkovNetwork([2, 2], {(0, 1): x}, log_partition=None, extra=1)  # E
ebm.MarkovNetwork([2, 2], {(0, 1): x}, x)  # E
infer.MALA(model, stepsize=1.0)  # E
infer.MALA(model=None, extra=2)  # E
infer.MALA(model, None, 0.1)  # E
infer.ULA(model, step_size=0.1, scale=1.0)  # E
infer.ULA(model, None, 0.1)  # E
infer.UnderdampedLangevin(model, frictions=1.0)  # E
infer.UnderdampedLangevin(model, None, 1.0)  # E
infer.ParallelTempering(model, temperatures=[1.0])  # E
infer.ParallelTempering(model, None, [1.0, 0.5])  # E
infer.Exchange(model, stepsize=1.0)  # E
infer.Exchange(model, 1.0)  # E
infer.BlockGibbs(model, num_steps=1)  # E
infer.BlockGibbs(model, 3)  # E
infer.HMC(model, num_step=1)  # E
infer.HMC(model, None, 0.1)  # E
infer.NUTS(model, max_depth=3)  # E
infer.NUTS(model, None, 0.1)  # E
infer.ULA(model)  # E
infer.Exchange()  # E
infer.BlockGibbs()  # E
infer.AnnealedImportanceSampling(100, 1000)  # E
infer.AnnealedImportanceSampling(chains=100)  # E
infer.Gibbs(num_sweeps=3)  # E
infer.Hamiltonian(100, 10)  # E
infer.Langevin(stepsize=1.0)  # E
infer.run_chain(rbm)  # E
infer.run_chain(rbm, 10, chains=2)  # E
infer.run_chain(10, rbm)  # E
infer.log_partition_bounds(rbm, 100)  # E
objectives.ContrastiveDivergence(rbm, 1)  # E
objectives.ContrastiveDivergence(rbm, steps=1)  # E
objectives.ContrastiveDivergence()  # E
objectives.PersistentContrastiveDivergence(rbm)  # E
objectives.PersistentContrastiveDivergence(rbm, x, 1)  # E
objectives.PersistentContrastiveDivergence(rbm, x, steps=1)  # E
objectives.ScoreMatching(rbm, "exact")  # E
objectives.ScoreMatching(rbm, estimate="exact")  # E
objectives.ScoreMatching()  # E
objectives.PseudoLikelihood(rbm, 1)  # E
objectives.PseudoLikelihood(machine=rbm)  # E
variational.VAE(f, f)  # E
variational.VAE(f, f, 2, 1.0)  # E
variational.VAE(f, f, 2, beta=1.0)  # E
variational.VAE(f, latent_size=2)  # E
variational.CVAE(f, f)  # E
variational.CVAE(f, f, 2, None, 1.0)  # E
variational.CVAE(f, f, 2, beta=1.0)  # E
variational.EnergyPrior()  # E
variational.EnergyPrior(rbm, None)  # E
variational.EnergyPrior(rbm, criteria=None)  # E
variational.MixturePrior(2, components=3)  # E
variational.VampPrior()  # E
variational.AmortizedGuide(f)  # E
variational.AmortizedGuide(f, encoders=f)  # E
rbm.nonsense  # E
rbm.condition([0])  # E
rbm.joint_energy(x)  # E
rbm.from_krizhevsky(x, x)  # E
