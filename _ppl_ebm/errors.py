"""The errors of both packages, once, so that a handler written for one catches those of the other."""


class IntractablePartitionError(RuntimeError):
    """A partition function, or its gradient, is needed and is not known."""


def intractable_message(name: str, package: str, detach: str) -> str:
    """The text of the error that a guarded density raises, with its remedies.

    :param name: the density.
    :param package: where the remedies are.
    :param detach: how parameters are kept fixed in its host.
    """
    return (
        f"{name}: the partition function is not known as a function of the parameters, so the gradient of log_prob in "
        "a parameter would silently miss the term -grad log Z. Remedies: (1) an estimator, "
        f"log_partition={package}.infer.AnnealedImportanceSampling(...); (2) observe the data under a learning "
        f"criterion of {package}.objectives (ContrastiveDivergence, PersistentContrastiveDivergence, ScoreMatching, "
        f"PseudoLikelihood); (3) detach the parameters {detach} if they are meant to stay fixed; (4) for "
        "derivatives of the score, which need no log Z: score(value), or reverse mode. "
        'Small models (at most 2^16 enumerated terms) are exact under log_partition="auto".'
    )


def incomparable_message(name: str, package: str, axis: int, size: int) -> str:
    """The text of the error of a guarded density that would compare different models at one value.

    :param name: the density.
    :param package: where the remedies are.
    :param axis: the batch dimension along which there are models, counted from the end.
    :param size: how many.
    """
    return (
        f"{name}: one value meets {size} different models along batch dimension {axis}, whose partition functions are "
        "not known, so that their values of log_prob miss different constants and cannot be compared: a mixture's "
        "weights, a class posterior or an enumerated index would be silently wrong. Remedies: (1) an estimator, "
        f"log_partition={package}.infer.AnnealedImportanceSampling(...), or one constant for each model; (2) a value "
        "for each model; (3) independent=True, where nothing but sums over the models is meant"
    )


def unresolved_message(name: str) -> str:
    """The text of the error where quadrature does not find log Z to its accuracy.

    :param name: the density.
    """
    return (
        f"{name}: log_partition: expected a density that quadrature resolves, got one with peaks that would fit "
        "between its nodes, or steeper than they can follow (large weights or gains, a low temperature). Remedies: "
        "an estimator or a constant as log_partition, or log_partition=None"
    )


#: Of a network that is another function at every call.
DRAWS = (
    "expected the same outputs for equal inputs, got others at another call: the network draws random numbers "
    "(dropout, a sampling encoder), so that it has another density each time"
)

#: Of a network whose outputs for a value change with its neighbours in the batch.
MIXES = (
    "expected outputs that depend on their own value alone, got others in another batch: the network mixes the values "
    "of a batch (batch normalisation in training mode), so that there is no density of one value"
)

#: Of a network that stopped being causal, or never was.
NOT_CAUSAL = (
    "reconstruct: CausalAutoencoder expected output i to depend on inputs before i only, got outputs that move with "
    "inputs at or after their own place, at the parameters in use: training filled the network's mask, its layers are "
    "not masked, or it draws random numbers (a module with dropout belongs in evaluation mode)"
)


#: Of a prior whose support an encoder's normal distribution leaves.
NOT_ON_THE_LINE = (
    "energy: EnergyPrior expected a density over all vectors of real numbers, where q(z | x) draws, got {}, which has "
    "none outside its support"
)


def no_entropy(name: str) -> NotImplementedError:
    """The error of an entropy that has no closed form."""
    return NotImplementedError(
        f"entropy: {name} has none in closed form; where is_normalized, estimate it by the mean of -log_prob(draws)"
    )


def no_reparametrised_draws(name: str) -> NotImplementedError:
    """The error of draws that would have to follow the parameters."""
    return NotImplementedError(
        f"rsample: draws of {name} do not follow its parameters, and carry no gradient; use sample, and a criterion or "
        "log_prob for gradients in the parameters"
    )


class ImproperDensityError(ValueError):
    """The parameters give an energy whose ``exp(-energy)`` cannot be normalised."""
