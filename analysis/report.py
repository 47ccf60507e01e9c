"""Everything that is written about a sweep: tables, figures and one page of plain words.

    report.write(Path("results/demo"))
writes DIR/front.parquet, DIR/summary.json and, in analysis/plots/<name of DIR>/, report.html,
report.json, pareto.png, .svg, .pdf, .html and .csv, and front.tex. It works while the sweep runs
and says how far it is.
"""

from __future__ import annotations

import base64
import functools
import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import confirmed, doctor
from analysis.figures import attainment, family_picture, figures, pairs
from analysis.front import FrontInfo, choose, front
from analysis.page import explorer, front_table
from analysis.page import sentences as words
from analysis.statistics import Evidence, evidence, families, uncertainty
from analysis.tables import tables
from analysis.tables.markup import page
from analysis.tables.tables import PLOTS
from ermgap.errors import UserError
from ermgap.records import Records, to_json, write_atomically


def write(
    directory: Path | str,
    plots: Path | str = PLOTS,
    *,
    quiet: bool = False,
    with_text: bool = False,
) -> Path:
    """Write every file about a sweep and return the folder of its plots.

    Args:
        directory: a sweep's folder, finished or not, or its URI.
        plots: figures go to a folder in here that has the name of `directory`.
        quiet: print nothing; otherwise the front as a table, the choices and the paths.
        with_text: transcripts of the utterances behind a gap go into the page.

    Raises UserError for a folder that is no sweep, has no trial yet, or cannot be read or written.
    """
    records = Records.open(directory)
    story = _story(records, with_text=with_text)
    folder = Path(plots) / records.directory.resolve().name
    try:
        _write_records(story)
        _write_plots(story, folder)
    except OSError as problem:
        raise UserError(
            f"the report of {directory} cannot be written ({problem.strerror or problem}); "
            "make its folder writable or choose another with --plots."
        ) from problem
    if not quiet:
        print(text(story.info, story.bars, story.found))
        if story.groups:
            print("\n" + "\n".join(families.sentences(story.groups, story.info)))
        print("\n" + "\n".join(["What to mind:", *doctor.sentences(story.examined)]))
        print(f"\nwritten: {folder}/report.html, pareto.png and the rest; open report.html first")
    return folder


@dataclass(frozen=True, eq=False)
class _Story:
    """All that is found out before anything is written.

    `moved` is how the front moves with other speakers and `seeds` with other seeds, `again` what is
    left of it there, `block` the interactive part of the page, `table` every trial, and `numbers`
    summary.json.
    """

    records: Records
    info: FrontInfo
    bars: pd.DataFrame
    found: Evidence
    groups: list[families.Family]
    examined: dict[str, object]
    moved: attainment.Attainment | None
    seeds: attainment.Attainment | None
    again: pd.DataFrame | None
    block: str
    table: pd.DataFrame
    numbers: dict[str, object]


def _story(records: Records, *, with_text: bool) -> _Story:
    info = read(records)
    bars = uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])
    found, examined = evidence.collect(info, records), doctor.examine(info, records)
    return _Story(
        records,
        info,
        bars,
        found,
        groups=families.families(info, records),
        examined=examined,
        moved=attainment.over_speakers(info, records) if info.front else None,
        seeds=attainment.over_seeds(info, confirmed.runs(records)),
        again=confirmed.read(info, records),
        block=explorer.html(info, records, bars, found, with_text=with_text),
        table=tables.trials(info, bars),
        numbers=tables.summary(info, bars, found) | {"doctor": examined},
    )


def text(info: FrontInfo, bars: pd.DataFrame, found: Evidence | None = None) -> str:
    """The front as a compact table for a terminal, with progress and the choices below."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(info.counts.items()))
    shown = tables.display(info, bars, found, wide=False)
    lines = [f"{info.name}: {info.complete} of {info.planned} trials complete ({counts})"]
    lines.append(shown.to_string(index=False) if len(shown) else "the front is empty")
    lines.append(f"hypervolume {info.hypervolume:.4f} of 1")
    if found is not None:
        lines += ["", evidence.sentence(info, found)]
    lines += ["", *_choices(info, found, choose.BRIEF)]
    lines += ["", *words.caveats(info, bars)]
    return "\n".join(lines)


def read(records: Records) -> FrontInfo:
    """Freeze the rows and read the front; UserError for what cannot be read or has no trial."""
    try:
        records.freeze()
        info = front.info(records)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as problem:
        raise UserError(
            f"the records in {records.directory} cannot be read "
            f"({type(problem).__name__}: {problem}); restore sweep.yaml and trials.jsonl."
        ) from problem
    if not info.points:
        raise UserError(
            f"{records.directory} holds no trial yet; wait for the first epoch of the sweep to end."
        )
    return info


def _write_records(story: _Story) -> None:
    """front.parquet and summary.json in the sweep's own folder."""
    best = story.table[story.table["front"]].drop(columns="front").reset_index(drop=True)
    story.records.write_front(best)
    story.records.write_summary(story.numbers)


def _write_plots(story: _Story, folder: Path) -> None:
    info, bars, found = story.info, story.bars, story.found
    write_atomically(folder / "pareto.csv", lambda path: story.table.to_csv(path, index=False))
    whole = story.numbers | {"signed_gaps": evidence.signed_gaps(info, story.records)}
    _write_text(folder / "report.json", to_json(whole, indent=1))
    _write_text(folder / "front.tex", tables.to_latex(tables.display(info, bars, found)))
    figures.draw_files(info, folder, bars=bars, evidence=found)
    _write_text(folder / "report.html", _page(story, _sections(story, folder)))


def _write_text(path: Path, content: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def _sections(story: _Story, folder: Path) -> str:
    """What not every sweep has, with the pictures that it writes."""
    info, more = story.info, ""
    if len(info.objectives) == 3:
        write_atomically(folder / "pairs.png", functools.partial(pairs.draw, info, bars=story.bars))
        more += f"<h2>Three objectives</h2>{_picture(folder / 'pairs.png', 'Each pair of them')}"
    if story.again is not None:
        confirmed.pictures(info, story.again, folder)
        more += "<h2>Over fresh seeds, and on test</h2>"
        more += _picture(folder / "confirm-front.png", "From the search to test")
        more += _picture(folder / "confirm.png", "Each configuration over seeds")
        more += _items(confirmed.sentences(story.again))
    if story.seeds is not None:
        draw = functools.partial(attainment.draw, story.seeds, info)
        write_atomically(folder / "attainment-seeds.png", draw)
        more += _picture(folder / "attainment-seeds.png", "What seeds attain")
    if story.moved is not None:
        draw = functools.partial(attainment.draw, story.moved, info)
        write_atomically(folder / "attainment.png", draw)
        other = "The front with other speakers"
        more += f"<h2>{other}</h2>{_picture(folder / 'attainment.png', other)}"
    if story.groups:
        draw = functools.partial(family_picture.draw, story.groups, info)
        write_atomically(folder / "families.png", draw)
        more += f"<h2>Fronts by loss</h2>{_picture(folder / 'families.png', 'Fronts by loss')}"
        more += _items(families.sentences(story.groups, info))
    return more


def _picture(path: Path, words: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{words}' src='data:image/png;base64,{content}'>"


def _page(story: _Story, more: str) -> str:
    info, bars, found = story.info, story.bars, story.found
    on_test = functools.partial(confirmed.on_test, story.again)
    style = (explorer.STATIC / "front_table.css").read_text(encoding="utf-8")
    return page(
        f"Report: {info.name}",
        f"{_paragraphs(words.sentences(info, bars, found, on_test))}"
        f"{story.block}"
        f"<p class='soft'>The same as a <a href='pareto.png'>picture</a> and as a "
        f"<a href='pareto.csv'>table</a> of all trials.</p>"
        f"<h2>The front</h2><style>{style}</style>{front_table.html(info, bars, found)}"
        f"{_paragraphs(words.columns(info, found), soft=True)}"
        f"{more}"
        f"<h2>Choices by rule</h2>{_items(_choices(info, found, choose.RULES, story.again))}"
        f"<h2>What to mind in the next sweep</h2>{_items(doctor.sentences(story.examined))}"
        f"<h2>Caveats</h2>{_items(words.caveats(info, bars))}"
        f"{(explorer.STATIC / 'guide.html').read_text(encoding='utf-8')}",
    )


def _choices(
    info: FrontInfo, found: Evidence | None, names: Iterable[str], again: pd.DataFrame | None = None
) -> list[str]:
    """Each rule's answer once, with its value on test where that is known."""
    chosen = [choose.RULES[name](info, found) for name in names]
    said = [one.sentence + confirmed.on_test(again, one.trial_id) for one in chosen]
    return list(dict.fromkeys(said))


def _paragraphs(lines: list[str], *, soft: bool = False) -> str:
    look = " class='soft'" if soft else ""
    return "".join(f"<p{look}>{html.escape(line)}</p>" for line in lines)


def _items(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
