"""The files of a sweep: what a trial commits goes in, and is read from here.

A folder of this machine, or a bucket with a folder for its copies; what is written is whole or
absent. The row of an epoch is its commit. The records, not Optuna's or Ray's own files, are the
source of truth.
"""

from ermgap.records.bucket_mirror import Mirror, catch_up
from ermgap.records.dial import POSITIONS, dial_id, parse_id
from ermgap.records.files import append_line, claim, make_folder, plain, to_json, write_atomically
from ermgap.records.storage import Retry, Storage, StorageError, is_uri
from ermgap.records.sweep_records import Records
from ermgap.records.trial import (
    COMPLETE,
    ENDED,
    FLOOR_SHARE,
    DegenerateRule,
    Trial,
    is_degenerate,
    judge_trials,
    parse_rows,
)
