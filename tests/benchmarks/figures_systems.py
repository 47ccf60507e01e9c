"""Real speech: every system over five speaker folds, the ablation's grid, a search over all losses.

    make figures-systems ARGS="--data emodb=PATH ravdess=PATH"    # resumable; 1.5 hours on 2 cores
    make figures-systems ARGS="--data emodb=PATH ravdess=PATH --only folds"

Each part is a command of the README, run in `results/systems-PART` and continued there when
stopped. Writes results/systems.md and .csv (the table over folds), results/ablation.md (the grid's
table, one fold) and the report of the search with its fronts by loss
(analysis/plots/systems-losses).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from runs import RESULTS

ROOT = Path(__file__).parents[2]
COMMON = ("--preset", "small", "--set", "backbone.dtype=bfloat16")
# The command, and what it writes in its folder that is kept, by its name in results/.
PARTS = {
    "folds": (
        ["sweeps/benchmark.py", *COMMON, "--folds", "5", "--models", "zero-shot", "all"],
        {"benchmark.md": "systems.md", "benchmark.csv": "systems.csv"},
    ),
    "losses": (["sweeps/pareto.py", *COMMON, "--trials", "60"], {}),
    "ablation": (
        ["sweeps/pareto.py", "--preset", "ablation-small", *COMMON[2:]],
        {"benchmark.md": "ablation.md"},
    ),
}


def main() -> int:
    """Run or continue each part; its exit status is that of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    for part in given.only:
        (script, *options), kept = PARTS[part]
        folder = ROOT / "results" / f"systems-{part}"
        if (folder / "sweep.yaml").exists():
            command = [script, "--resume", str(folder)]
        else:
            command = [script, *options, "--data", *given.data, "--out", str(folder)]
        if status := subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
            return status
        for source, name in kept.items():
            shutil.copy(folder / source, RESULTS / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
