"""The light Tune trials of a sweep: each offers its hyperparameters to the broker and waits.

Every trial runs in a process of its own that imports this module: no torch here, which would cost
each of them two seconds and 150 MB.
"""

from __future__ import annotations

from pathlib import Path

import ray
from ray import tune

NAMESPACE = "ermgap"
TRIAL_CPUS = 0.02
RESTARTS = 5  # of a trial's process


def serve(proposal: dict, *, broker: str) -> None:
    """A Tune trial: offer a proposal, wait for its outcome, report it.

    Tune sees one result a trial; epochs are the records' business.
    """
    actor = ray.get_actor(broker, namespace=NAMESPACE)
    trial_id, outcome = proposal["trial_id"], None
    ray.get(actor.offer.remote(trial_id, proposal["hyperparameters"]))
    while outcome is None:
        outcome = ray.get(actor.outcome.remote(trial_id, 30.0))
    tune.report({"outcomes": [outcome]})  # a list: Tune gives a dict in it to searchers flattened


def tuner(searcher, *, trials: int, concurrent: int, broker: str, folder: Path) -> tune.Tuner:
    """The Tuner of a session; always a new one, since the records are what is resumed.

    Args:
        searcher: makes the proposals (proposals.LimitedStart).
        trials: how many in all.
        concurrent: trials at a time, in training or proposed for the next free slot.
        broker: name of the broker actor.
        folder: scratch space.
    """
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
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            # A trial's process that dies loses nothing: the next one asks the broker the same.
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    )
