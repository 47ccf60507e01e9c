"""Sessions of a search without Ray: the searcher, Tune and slots, with trials that end at random.

session = Session(settings(trials=14), slots=2, timing=0)
session.proposals()
"""

from __future__ import annotations

import heapq
import random

from ray.tune.search import Searcher

from ermgap.config import Config
from ermgap.records import DegenerateRule, Trial, judge_trials
from sweeps.search import order
from sweeps.search.searcher import RecordsSearcher

MAJORITY = 0.2


def settings(**sweep) -> Config:
    given = {"trials": 14, "seed": 1, "deterministic": True} | sweep
    return Config().replace({f"sweep.{key}": value for key, value in given.items()})


def outcome(number: int, hyperparameters: dict) -> dict:
    """How a trial ends: some fail, some always say the same, ERM gets better and better."""
    draw = random.Random(repr((number, sorted(hyperparameters.items())))).random
    if draw() < 0.1:
        return {"status": "failed"}
    acc = 0.15 + 0.6 * draw()
    w_f1 = 0.1 + 0.04 * number if hyperparameters["loss"] == "erm" else draw()
    return {"status": "finished", "acc": acc, "w_f1": w_f1, "max_gap": 0.3 * draw(), "epoch": 1}


class Session:
    """Tune, broker and slots of one session, with trials that take a random time.

    Args:
        timing: seed of the durations.
        trials: of earlier sessions.
        ends: number of trials in all that have ended when it is killed.
    """

    def __init__(self, config: Config, *, slots: int, timing: int, trials=(), ends: int = 99):
        self.rng, self.slots = random.Random(timing), slots
        lag = order.lag_of(config, slots=slots)
        self.searcher = RecordsSearcher(config, trials, rule=DegenerateRule(MAJORITY), lag=lag)
        self.trials = {trial.trial_id: trial for trial in trials}
        self.remaining = config.sweep.trials - self.ended
        self.most = order.concurrent(slots)
        self.now, self.line, self.training = 0.0, [], []
        while self.ended < min(config.sweep.trials, ends):
            self.offer()
            self.train()

    @property
    def ended(self) -> int:
        return sum(trial.ended for trial in self.trials.values())

    def offer(self) -> None:
        while self.remaining and len(self.line) + len(self.training) < self.most:
            tune_id = f"tune-{self.rng.random()}"
            proposal = self.searcher.suggest(tune_id)
            if proposal is None or proposal == Searcher.FINISHED:
                break
            self.remaining -= 1
            self.note(proposal, "running", {})
            self.line.append((tune_id, proposal))
        while self.line and len(self.training) < self.slots:
            end = self.now + self.rng.choice([0.1, 1.0, 4.0]) * self.rng.random()
            heapq.heappush(self.training, (end, *self.line.pop(0)))

    def train(self) -> None:
        self.now, tune_id, proposal = heapq.heappop(self.training)
        number = order.number_of(proposal["trial_id"])
        ended = outcome(number, proposal["hyperparameters"])
        self.note(proposal, ended["status"], ended)
        self.searcher.on_trial_complete(tune_id, ended)

    def note(self, proposal: dict, status: str, selected: dict) -> None:
        name, hyperparameters = proposal["trial_id"], proposal["hyperparameters"]
        self.trials[name] = Trial(name, status, None, hyperparameters, 1, 1, selected, [])

    def proposals(self) -> dict[str, dict]:
        return {name: self.trials[name].hyperparameters for name in sorted(self.trials)}


def records(session: Session, *, lost: bool) -> list[Trial]:
    """What the next session reads: judged by all, in the order of their first rows."""
    trials = list(session.trials.values())
    if lost:  # the last that was offered had no row yet
        trials = [t for t in trials if t.ended or t is not trials[-1]]
    rule = DegenerateRule(MAJORITY)
    for trial in trials:
        rule.note(trial.trial_id, trial.status, trial.hyperparameters, trial.selected)
    return judge_trials(trials, rule)
