"""ERM against MinMaxGAP on the synthetic demo over five seeds: where is the gap, does it fall?

    make figures-demo          # resumable; about five minutes on two cores

Writes results/demo.jsonl (a row a run) and results/demo.md (means, 95 % t-intervals over seeds).
"""

from __future__ import annotations

import numpy as np
from runs import figure_on_demo, points

from ermgap.corpora.demo import PLANTED

SEEDS = range(5)
SYSTEMS = {
    "ERM": {"objective.loss": "erm"},
    "MinMaxGAP, linear": {
        "objective.loss": "minmaxgap", "objective.schedule": "linear", "objective.p": 2.0,
        "objective.lambda_max": 0.3,
    },
    "MinMaxGAP, adaptive": {
        "objective.loss": "minmaxgap", "objective.schedule": "adaptive", "objective.p": 2.0,
        "objective.lambda_max": 10.0, "objective.eta": 0.1,
    },
}  # fmt: skip


def main() -> None:
    """Run what is missing, then write the table."""
    figure_on_demo("demo", SYSTEMS, SEEDS, table)


def table(rows: list[dict]) -> str:
    """Markdown: per system the mean AVG gap of each language and accuracy; differences to ERM."""
    cells = sorted(cell for cell in rows[0]["gaps"] if not cell.startswith("overall"))
    planted = f"{PLANTED[0]}/speech"
    lines = [
        "| system | " + " | ".join(f"{cell.split('/')[0]} gap" for cell in cells)
        + f" | accuracy | {planted.split('/')[0]} gap less ERM's | accuracy less ERM's |",
        "|---" * (len(cells) + 4) + "|",
    ]  # fmt: skip
    for name in SYSTEMS:
        mine = [row for row in rows if row["name"] == name]
        base = [row for row in rows if row["name"] == "ERM"]
        values = [[row["gaps"][cell]["avg"] for row in mine] for cell in cells]
        values.append([row["selected"]["acc"] for row in mine])
        shown = [points(column) for column in values]
        paired = [
            np.subtract([value(row) for row in mine], [value(row) for row in base])
            for value in (lambda r: r["gaps"][planted]["avg"], lambda r: r["selected"]["acc"])
        ]
        shown += ["" if name == "ERM" else points(column) for column in paired]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    note = (
        f"Percent points, mean and 95 % t-interval over {len(SEEDS)} seeds; dev, the epoch of the "
        f"best W-F1, {rows[0]['n']} synthetic utterances. The gap is planted in {planted}."
    )
    return "\n".join([*lines, "", note, ""])


if __name__ == "__main__":
    main()
