"""A plugin for tests: about one trial in twenty kills its worker; the driver tells what it leaves.

A death leaves a file under $ERMGAP_TEST/deaths. When the driver leaves Ray, $ERMGAP_TEST/left.txt
gets the numbers of living actors and of placement groups that are not removed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from ermgap.objective.losses import LOSSES

PER_STEP = 0.05 / 4  # a trial has about four, when most are stopped early
FOLDER = Path(os.environ["ERMGAP_TEST"])
RAYS_OWN = "_AutoscalingCoordinatorActor"  # one a cluster, which Ray Train keeps
CHANCE = random.SystemRandom()

(FOLDER / "deaths").mkdir(exist_ok=True)


def mortal(loss: type) -> type:
    """The loss, at whose every step the process may die."""

    class Mortal(loss):
        def __call__(self, sums, fairness_weight):
            if CHANCE.random() < PER_STEP:
                (FOLDER / "deaths" / f"{os.getpid()}-{time.time_ns()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(sums, fairness_weight)

    return Mortal


def telling(leave):
    """The driver's `leave`, after a look at Ray's tables."""

    def told() -> None:
        import ray
        from ray._private import state

        end = time.monotonic() + 5  # what was killed a moment ago is still being taken down
        while time.monotonic() < end:
            actors = [one for one in state.actors().values() if one["State"] != "DEAD"]
            groups = [one for one in ray.util.placement_group_table().values()
                      if one["state"] != "REMOVED"]  # fmt: skip
            actors = [one for one in actors if one["ActorClassName"] != RAYS_OWN]
            if not actors and not groups:
                break
            time.sleep(0.2)
        names = [f"actor {one.get('ActorClassName')} {one['State']}" for one in actors]
        names += [f"group {one['name']} {one['state']}" for one in groups]
        (FOLDER / "left.txt").write_text("\n".join(names))
        leave()

    return told


for name in ("erm", "minmaxgap", "groupdro", "reweight", "vrex"):
    LOSSES[name] = mortal(LOSSES[name])
if os.environ.get("ERMGAP_TEST"):
    from sweeps.scheduler.machines import machine

    machine.leave = telling(machine.leave)
