"""The dial of a finished sweep: what lies between ERM's adapter and those of its fair trials.

    python sweeps/dial.py --sweep results/small                          # the lines of most use
    python sweeps/dial.py --sweep results/small --ends t0000 t0007 t0009     # t0000 to each other
    python sweeps/dial.py --sweep results/small --ends t0000 t0007 --export 0.7 --out FOLDER

A position on a line is (1 - a) times the update of its lower end and a times that of its upper end:
evaluated, not trained. Writes rows to DIR/dial.jsonl, and predictions; what is there is not made
again. `--export` writes one position as a plain PEFT adapter with its card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # not the folder of the command, which would shadow others' modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ermgap.adapters import position_of
from ermgap.config import from_dict
from ermgap.errors import UserError, command_line, in_shell
from ermgap.records import POSITIONS, Records, file_names
from ermgap.registry import load_plugins
from sweeps.scoring import dial, dial_export
from sweeps.setup import command_line as cli


def options() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False, usage="%(prog)s --sweep DIR ..."
    )
    add = parser.add_argument
    add("--sweep", metavar="DIR", required=True, help="folder or URI of a sweep")
    add("--ends", nargs="+", metavar="TRIAL", help="the lower end, then one upper end or more")
    add("--address", help="a running Ray cluster, such as auto, whose workers evaluate")
    add("--export", metavar="POSITION", help="write this position of one line as an adapter")
    add("--out", type=Path, metavar="FOLDER", help="of the adapter that --export writes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, raises UserError for mistakes."""
    given = cli.parse(options(), arguments)
    if (given.export is None) != (given.out is None):
        raise UserError("--export POSITION and --out FOLDER belong together; give both or neither.")
    if given.ends and len(given.ends) < 2:
        raise UserError("--ends needs the lower end and an upper one, such as t0000 t0007.")
    records = Records.open(given.sweep)
    where = records.directory / file_names.SWEEP
    config = from_dict(records.sweep["config"], where=str(where))
    load_plugins(config.plugins)
    lines = dial.default_lines(records)
    if given.ends:
        lines = [(given.ends[0], upper) for upper in given.ends[1:]]
    if not lines:
        raise UserError(
            f"{records.directory} has no line: it needs an ERM and a fairness trial with saved "
            "adapters; name two trials with --ends."
        )
    dial.require(records, lines)
    positions = POSITIONS
    if given.export is not None:
        positions = [position_of(given.export)]
        dial_export.require(lines, given.out)
    records.lock()
    try:
        dial.make(records, config, lines, address=given.address, positions=positions)
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the positions that are missing")
        raise
    if given.export is not None:
        dial_export.write(records, config, lines[0], positions[0], given.out)
        print(f"written: {given.out}")
    else:
        print(f"draw it: python -m analysis {in_shell(records.directory)}")
    return 0


if __name__ == "__main__":
    command_line(main)
