"""Which trials begin as branches: with the epochs that another trial has trained already.

While the fairness weight is 0 a penalised objective is ERM's, to the bit. So a trial whose schedule
is 0 until some epoch is an ERM trial until then, if all else that has an influence before is equal:
utterances, backbone, adapter, optimiser, seed, plugins. It goes on from that trial's checkpoint (as
in linear mode connectivity's shared start, Frankle et al., arXiv 1912.05671) and the two differ by
the penalty alone.
"""

from __future__ import annotations

import json
from contextlib import suppress

from optuna.distributions import FloatDistribution

from ermgap.config import Config, losses
from ermgap.errors import UserError
from sweeps.search import space


def silent_epochs(config: Config) -> int:
    """Whole epochs that a trial begins with at a fairness weight of 0; 0 if its loss has none.

    Those of schedules with a `start` alone: an adaptive weight depends on what dev says. One epoch
    at least is the trial's own.
    """
    settings = config.objective
    loss, schedule = losses.LOSSES.get(settings.loss), losses.SCHEDULES.get(settings.schedule)
    known = loss and schedule  # a plugin's may be anything at a weight of 0
    if not known or not loss.has_fairness_weight or "start" not in schedule.hyperparameters:
        return 0
    return whole_epochs(settings.start, config.train.epochs)


def whole_epochs(start: float, epochs: int) -> int:
    """Epochs of training that end by the share `start` of it, without the last one."""
    return min(int(start * epochs + 1e-9), epochs - 1)


def key(config: Config) -> str:
    """All that has an influence on training while the fairness weight is 0, as a text."""
    sections = config.to_dict()
    objective = sections.pop("objective")
    del sections["sweep"]
    sections["objective"] = {name: objective[name] for name in ("attribute", "loss_over", "ema")}
    return json.dumps(sections, sort_keys=True, default=str)


class Trunks:
    """The checkpoints of ERM trials that others may begin from.

    A sweep over named points keeps what its points need; with `sweep.trunks` an ERM trial keeps all
    epochs in which a schedule of the space may start.

    Args:
        config: of the sweep.

    Attributes:
        stored: last epoch whose checkpoint is stored, by the id of the trial.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keys: dict[str, str] = {}
        self.last: dict[str, int] = {}  # epoch that each of them keeps
        self.stored: dict[str, int] = {}

    def keep(self, trial_id: str, config: Config) -> int:
        """The last epoch whose checkpoint this trial keeps; 0: none."""
        if trial_id not in self.last:
            self.last[trial_id], self.keys[trial_id] = self._needed(config), key(config)
        return self.last[trial_id]

    def _needed(self, config: Config) -> int:
        if config.objective.loss != "erm":
            return 0
        sweep = self.config.sweep
        if sweep.points:
            mine, epochs = key(config), [0]
            for point in sweep.points.values():
                with suppress(UserError):  # one that is not possible fails when it is offered
                    other = space.apply(point, self.config)
                    epochs += [silent_epochs(other)] * (key(other) == mine)
            return max(epochs)
        start = sweep.trunks and space.distributions(self.config).get("start")
        if not isinstance(start, FloatDistribution):
            return 0
        return whole_epochs(start.high, config.train.epochs)

    def note(self, trial_id: str, epoch: int) -> None:
        """A trial has committed an epoch, whose checkpoint is stored."""
        if last := self.last.get(trial_id, 0):
            self.stored[trial_id] = min(epoch, last)

    def find(self, config: Config) -> dict | None:
        """The `trial` and the `epoch` that a trial with this configuration begins from, or None."""
        if not (epoch := silent_epochs(config)):
            return None
        wanted = key(config)
        for trial_id, last in self.stored.items():
            if last >= epoch and self.keys[trial_id] == wanted:
                return {"trial": trial_id, "epoch": epoch}
        return None

    def lost(self, trial_id: str) -> None:
        """A checkpoint of a trunk cannot be read: nothing begins from it any more."""
        self.stored.pop(trial_id, None)
