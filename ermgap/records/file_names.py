"""Names of the files and folders in a sweep's folder, and in an adapter's."""

SWEEP = "sweep.yaml"  # what was asked for
TABLE = "table.parquet"  # the utterances
TRIALS = "trials.jsonl"  # a row per trial and epoch
DIAL = "dial.jsonl"  # a row per position on a line between two adapters
FLAT_TRIALS = "trials.parquet"  # the same as one table
FRONT = "front.parquet"
SUMMARY = "summary.json"
SESSIONS = "sessions.jsonl"  # where the time of each run of the command went
STOPPING = "stopping.json"  # what early stopping did
STUDY = "optuna.journal"  # a copy for optuna-dashboard
DONE = "DONE"  # written last
CONFIRM = "confirm"  # folder: the sweep that trains the front again over seeds
CONFIRMED = "confirmed.parquet"
CONFIRM_FOLDS = "confirm-folds"  # folder: the same on speaker folds, a sweep each
CROSS_FITTED = f"{CONFIRM_FOLDS}/{CONFIRMED}"
EARLIER = "earlier"  # folder: sweeps that this one learnt from

ADAPTER_SETTINGS = "ermgap.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_DIAL = "dial.json"  # in the folder of a line's upper end
