"""The built-in losses, estimators of the gap and schedules: their names and what is said of them.

`ermgap.objective` implements them and registers each under its name here; the search, the model
card and the pictures read these tables. A plugin's loss has its facts in its class.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LossFacts:
    """A loss: title in pictures, formula for the model card, and the searched settings it reads."""

    title: str
    formula: str
    hyperparameters: tuple[str, ...] = ()  # under `objective` in the configuration

    @property
    def has_fairness_weight(self) -> bool:
        """Whether it has a penalty, and so a fairness weight with a schedule."""
        return "schedule" in self.hyperparameters

    @property
    def estimates_gap(self) -> bool:
        """Whether its penalty is an estimate of the largest gap."""
        return "estimator" in self.hyperparameters


@dataclass(frozen=True)
class ScheduleFacts:
    """A schedule: a sentence for the model card, and the searched settings it reads."""

    description: str
    hyperparameters: tuple[str, ...] = ()


LOSSES = {  # in the order in which pictures and the search list them
    "erm": LossFacts("ERM", "L, the mean loss over utterances (empirical risk minimisation)"),
    "minmaxgap": LossFacts(
        "MinMaxGAP",
        "L + λ · R, R = (the largest difference, over cells of a language and a modality, between "
        "the mean losses of two sides) to the power p",
        ("schedule", "lambda_max", "relative", "estimator", "sides", "p"),
    ),
    "groupdro": LossFacts(
        "GroupDRO",
        "the groups' mean losses, weighted by q, which grows where the loss is large",
        ("dro_eta",),
    ),
    "reweight": LossFacts(
        "Reweighting",
        "the mean loss, each utterance weighted inversely to its group's size in training",
    ),
    "vrex": LossFacts(
        "V-REx",
        "L + λ · the variance of the groups' mean losses",
        ("schedule", "lambda_max", "relative", "sides"),
    ),
}
ESTIMATORS = {
    "batch": "R is taken from the batch as it is",
    "ema": "which cell and sides are worst, and by how much, comes from running means of groups",
    "unbiased": "the squared difference less the sampling variance of both means; the worst cell "
    "and its sides are chosen by running means",
}
SIDES = {  # of `objective.sides`
    "both": "the penalty lowers the losses of the worst side and may raise those of the best",
    "worse": "the penalty lowers the losses of the worst side alone",
}
SCHEDULES = {
    "constant": ScheduleFacts("λ is lambda_max throughout"),
    "linear": ScheduleFacts(
        "λ is 0 until the share `start` of training, then rises in a straight line to lambda_max "
        "over the share `ramp`",
        ("start", "ramp"),
    ),
    "cosine": ScheduleFacts(
        "λ rises to lambda_max along half a cosine, from `start` over `ramp`", ("start", "ramp")
    ),
    "exponential": ScheduleFacts(
        "λ rises to lambda_max exponentially, from `start` over `ramp`", ("start", "ramp")
    ),
    "step": ScheduleFacts(
        "λ is 0 until the share `start` of training, then lambda_max", ("start",)
    ),
    "adaptive": ScheduleFacts(
        "after an evaluation λ grows by eta · (dev gap - epsilon), between 0 and lambda_max, from "
        "lambda_0",
        ("eta", "epsilon"),
    ),
}
