"""In which order a deterministic sweep learns: trial k knows how the trials up to k - lag ended.

What ends when depends on timing. So with one slot, and with `sweep.deterministic` for more, a
proposal, a decision to stop and a row's status use the ends of trials up to a fixed distance
before, and take no notice of whether later ones have ended already.
"""

from __future__ import annotations

from ermgap.config import Config


def lag_of(config: Config, *, slots: int) -> int | None:
    """The distance, at least 1; None where each end is learnt as it comes.

    It is the number of trials that run or wait for the next free slot at a time.
    """
    if slots > 1 and not config.sweep.deterministic:
        return None
    return concurrent(slots)


def concurrent(slots: int) -> int:
    """Trials at a time, in training or proposed for the next free slot.

    One ahead keeps a slot from waiting 0.2 s for each trial.
    """
    return slots + 1


def trial_id(number: int) -> str:
    """The id of a sweep's `number`-th trial, counted from 0: t0000."""
    return f"t{number:04d}"


def number_of(trial_id: str) -> int:
    """The number of a trial by its id."""
    return int(trial_id.removeprefix("t"))


def knows(trial_id: str, other: str, lag: int | None) -> bool:
    """Whether what is decided about a trial may depend on the other, or is about itself."""
    return other == trial_id or lag is None or number_of(other) <= number_of(trial_id) - lag
