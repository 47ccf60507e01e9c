"""The light Tune trials of a sweep: each offers a configuration to the broker and waits.

Every trial runs in a process of its own that imports this module: no torch here, which would cost
each of them two seconds and 150 MB.
"""

from __future__ import annotations

from pathlib import Path

import ray
from ray import tune

NAMESPACE = "ermgap"
TRIAL_CPUS = 0.02


def serve(offered: dict, *, broker: str) -> None:
    """A Tune trial: offer the configuration, wait for its outcome, report it.

    `TUNE` sees one result a trial; epochs are the records' business.
    """
    desk = ray.get_actor(broker, namespace=NAMESPACE)
    ray.get(desk.offer.remote(offered["trial_id"], offered["chosen"]))
    outcome = None
    while outcome is None:
        outcome = ray.get(desk.outcome.remote(offered["trial_id"], 30.0))
    tune.report(outcome)


def tuner(searcher, *, trials: int, concurrent: int, broker: str, folder: Path) -> tune.Tuner:
    """The Tuner of a session; always a new one, since the records are what is resumed."""
    here = f"node:{ray.util.get_node_ip_address()}"
    trainable = tune.with_resources(
        tune.with_parameters(serve, broker=broker),
        tune.PlacementGroupFactory([{"CPU": TRIAL_CPUS, here: 0.001}]),
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    )
