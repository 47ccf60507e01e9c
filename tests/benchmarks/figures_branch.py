"""The branch that figures-method suggests, and its dial, on ten seeds that did not suggest it.

    make figures-branch        # resumable; about ten minutes on two cores

Of eighteen systems and eight positions some look good by luck. So ERM, the best branch and the line
between them are run on the demo with seeds 10 to 19. Writes results/branch-demo.jsonl (a row a
run), results/branch-dial.jsonl (a row a seed) and results/branch.md.
"""

from __future__ import annotations

import figures_dial
import figures_method
from runs import RESULTS, Run, read, run_all

SEEDS = range(10, 20)
BRANCH = "worse side from 3/10, ema, p 1, 0.5"
FILES = RESULTS / "branch-demo.jsonl", RESULTS / "branch-dial.jsonl"


def main() -> None:
    """Run what is missing, then write the table."""
    ends = [
        Run(name, figures_method.SYSTEMS[name], seed, keep="branch")
        for seed in SEEDS
        for name in ("ERM", BRANCH)
    ]
    run_all("demo", ends, file=FILES[0])
    figures_dial.evaluate("demo", ends, file=FILES[1], common={}, measure=figures_dial.demo_values)
    text = figures_dial.demo_dial(read(FILES[1]))
    (RESULTS / "branch.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
