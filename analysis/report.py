"""Writes everything about a sweep: tables, figures and a page of plain sentences.

    report.write(Path("results/demo"))
writes DIR/front.parquet, DIR/summary.json and, in analysis/plots/<name of DIR>/, report.html,
report.json, pareto.png, .svg, .pdf and .csv, offsets.csv and front.tex. It works while the sweep
runs and says how far it is.
"""

from __future__ import annotations

import base64
import functools
import html
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis import confirmed, doctor, offsets
from analysis.figures import attainment, family_picture, figures, pairs
from analysis.front import FrontInfo, choose, front
from analysis.page import dial_section, explorer, front_table
from analysis.page import sentences as page_sentences
from analysis.statistics import Evidence, dial, families, uncertainty
from analysis.statistics import evidence as gap_evidence
from analysis.statistics.uncertainty import classes_of, dev_predictions
from analysis.tables import by_attribute, by_speaker, tables
from analysis.tables.markup import page
from analysis.tables.tables import PLOTS
from ermgap.errors import UserError
from ermgap.records import Records, file_names, to_json, write_atomically


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
    content = ReportContent(records, with_text=with_text)
    folder = Path(plots) / records.directory.resolve().name
    try:
        _write_records(content)
        _write_plots(content, folder)
    except OSError as problem:
        raise UserError(
            f"the report of {directory} cannot be written ({problem.strerror or problem}); "
            "make its folder writable or choose another with --plots."
        ) from problem
    if not quiet:
        print(text(content.info, content.bars, content.evidence))
        if content.dial.lines:
            print("\n" + "\n".join(dial_section.sentences(content.dial)))
        if content.by_loss:
            print("\n" + "\n".join(families.sentences(content.by_loss, content.info)))
        if worse := by_attribute.warnings(content.info, content.by_attribute):
            print("\n" + "\n".join(worse))
        print("\n" + "\n".join(["What to mind:", *doctor.sentences(content.diagnosis)]))
        print(f"\nwritten: {folder}/report.html, pareto.png and the rest; open report.html first")
    return folder


class ReportContent:
    """All that a report shows, computed before anything is written.

    `trials` is the front of the trials alone, `info` that with the positions of the `dial`.
    `over_speakers` and `over_seeds` are how the front moves with other speakers and other seeds,
    `confirmation` its configurations over seeds, `explorer` the interactive part of the page,
    `table` every trial, `untrained` the baseline without training, and `numbers` summary.json.
    """

    def __init__(self, records: Records, *, with_text: bool):
        self.records = records
        self.trials = trials = read(records)
        self.dial = dial.read(trials, records)
        self.info = info = self.dial.info
        self.bars = uncertainty.standard_errors(records, [p.trial_id for p in info.highlighted])
        self.evidence = gap_evidence.collect(info, records, changes=self.dial.changes)
        self.by_loss = families.families(trials, records)
        self.diagnosis = doctor.examine(trials, records)
        self.over_speakers = attainment.over_speakers(trials, records) if trials.front else None
        self.over_seeds = attainment.over_seeds(trials, confirmed.runs(records))
        self.confirmation = confirmed.read(info, records)
        measured = (self.bars, self.evidence)
        self.explorer = explorer.html(info, records, *measured, with_text=with_text)
        self.table = tables.trials(info, self.bars)
        self.untrained = offsets.line(info, records)
        self.numbers = tables.summary(info, *measured) | {"doctor": self.diagnosis}
        self.numbers |= self.dial.plain()
        self._groups_and_speakers()

    def _groups_and_speakers(self) -> None:
        """Every attribute's gaps and how unequal speakers are, of the front, ERM and the choices.

        `by_attribute` is None where there is one attribute alone, `by_speaker` a table and a note.
        """
        info, asked = self.info, classes_of(self.records)
        choices = [rule(info, self.evidence).trial_id for rule in choose.rules(info).values()]
        erm = info.erm.trial_id if info.erm is not None else None
        names = dict.fromkeys([erm, *(point.trial_id for point in info.front), *choices])
        read = {name: dev_predictions(self.records, name) for name in names if name is not None}
        read = {name: table for name, table in read.items() if table is not None}
        self.by_attribute = by_attribute.table(info, read, **asked)
        self.by_speaker = by_speaker.table(info, read, least=asked["min_support"])
        if self.by_attribute is not None:
            self.numbers |= {"attributes": self.by_attribute.to_dict("records")}
        table, note = self.by_speaker
        self.numbers |= {"by_speaker": {"points": table.to_dict("records"), "note": note}}


def text(info: FrontInfo, bars: pd.DataFrame, evidence: Evidence | None = None) -> str:
    """The front as a compact table for a terminal, with progress and the choices below."""
    counts = ", ".join(f"{n} {kind}" for kind, n in sorted(info.counts.items()))
    shown = tables.display(info, bars, evidence, wide=False)
    lines = [f"{info.name}: {info.complete} of {info.planned} trials complete ({counts})"]
    lines.append(shown.to_string(index=False) if len(shown) else "the front is empty")
    lines.append(f"hypervolume {info.hypervolume:.4f} of 1")
    if info.dial:
        lines[-1] += f", with the dial {info.hypervolume_with_dial:.4f}"
    if evidence is not None:
        lines += ["", gap_evidence.sentence(info, evidence)]
    lines += ["", *_choices(info, evidence, choose.BRIEF)]
    lines += ["", *page_sentences.caveats(info, bars)]
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


def _write_records(content: ReportContent) -> None:
    """front.parquet and summary.json in the sweep's own folder."""
    best = content.table[content.table["front"]].drop(columns="front").reset_index(drop=True)
    content.records.write_table(file_names.FRONT, best)
    content.records.write_text(file_names.SUMMARY, to_json(content.numbers, indent=1))


def _write_plots(content: ReportContent, folder: Path) -> None:
    info, bars, evidence = content.info, content.bars, content.evidence
    write_atomically(folder / "pareto.csv", lambda path: content.table.to_csv(path, index=False))
    whole = content.numbers | {"signed_gaps": gap_evidence.signed_gaps(info, content.records)}
    _write_text(folder / "report.json", to_json(whole, indent=1))
    _write_text(folder / "front.tex", tables.to_latex(tables.display(info, bars, evidence)))
    untrained = content.untrained
    if untrained is not None:
        write_atomically(folder / "offsets.csv", lambda path: untrained.to_csv(path, index=False))
    for name, table in (("attributes", content.by_attribute), ("speakers", content.by_speaker[0])):
        if table is not None and len(table):
            write_atomically(folder / f"{name}.csv", lambda p, t=table: t.to_csv(p, index=False))
    figures.draw_files(info, folder, bars=bars, evidence=evidence, untrained=untrained)
    _write_text(folder / "report.html", _page(content, _sections(content, folder)))


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _sections(content: ReportContent, folder: Path) -> str:
    """What not every sweep has, with the pictures that it writes."""
    info, confirmation = content.info, content.confirmation
    picture = functools.partial(_picture, folder)
    more = []
    if len(info.objectives) == 3:
        more += ["<h2>Three objectives</h2>"]
        more += [picture("pairs.png", "Each pair of them", pairs.draw(info, bars=content.bars))]
    if confirmation is not None:
        confirmed.pictures(info, confirmation, folder)
        judges = "judged by every speaker" if "folds" in confirmation else "and on test"
        more += [f"<h2>Over fresh seeds, {judges}</h2>"]
        more += [picture("confirm-front.png", "From the search to fresh seeds")]
        more += [picture("confirm.png", "Each configuration over seeds")]
        more += [_items(confirmed.sentences(confirmation))]
    if content.over_seeds is not None:
        figure = attainment.draw(content.over_seeds, content.trials)
        more += [picture("attainment-seeds.png", "What seeds attain", figure)]
    if content.over_speakers is not None:
        title, figure = (
            "The front with other speakers",
            attainment.draw(content.over_speakers, content.trials),
        )
        more += [f"<h2>{title}</h2>", picture("attainment.png", title, figure)]
    if content.by_loss:
        title, figure = "Fronts by loss", family_picture.draw(content.by_loss, info)
        more += [f"<h2>{title}</h2>", picture("families.png", title, figure)]
        more += [_items(families.sentences(content.by_loss, info))]
    return "".join(more)


def _picture(folder: Path, name: str, title: str, figure=None) -> str:
    """The picture of a folder as part of a page; `figure` is written there first."""
    if figure is not None:
        figures.save(figure, folder / name)
    encoded = base64.b64encode((folder / name).read_bytes()).decode()
    return f"<img alt='{title}' src='data:image/png;base64,{encoded}'>"


def _page(content: ReportContent, more: str) -> str:
    info, bars, evidence = content.info, content.bars, content.evidence
    on_test = functools.partial(confirmed.on_test, content.confirmation)
    choices = _choices(info, evidence, choose.rules(info), content.confirmation)
    style = (explorer.STATIC / "front_table.css").read_text(encoding="utf-8")
    untrained = content.untrained
    beat = [] if untrained is None else [offsets.sentence(info, untrained)]
    return page(
        f"Report: {info.name}",
        f"{_paragraphs(page_sentences.sentences(info, bars, evidence, on_test))}"
        f"{_paragraphs(by_attribute.summary(info, content.by_attribute))}"
        f"{content.explorer}"
        f"<p class='soft'>The same as a <a href='pareto.png'>picture</a> and as a "
        f"<a href='pareto.csv'>table</a> of all trials.</p>"
        f"{dial_section.html(content.dial)}"
        f"<h2>The front</h2><style>{style}</style>{front_table.html(info, bars, evidence)}"
        f"{_paragraphs([*page_sentences.columns(info, evidence), *beat], soft=True)}"
        f"{by_attribute.html(info, content.by_attribute)}"
        f"{by_speaker.html(*content.by_speaker)}"
        f"{more}"
        f"<h2>Choices by rule</h2>{_items(choices)}"
        f"<h2>What to mind in the next sweep</h2>{_items(doctor.sentences(content.diagnosis))}"
        f"<h2>Caveats</h2>{_items(page_sentences.caveats(info, bars))}"
        f"{_guide(info)}",
    )


def _guide(info: FrontInfo) -> str:
    """What the page's words mean."""
    text = (explorer.STATIC / "guide.html").read_text(encoding="utf-8")
    return text.replace("{attribute}", html.escape(info.attribute.title))


def _choices(
    info: FrontInfo,
    evidence: Evidence | None,
    names: Iterable[str],
    confirmation: pd.DataFrame | None = None,
) -> list[str]:
    """Each rule's answer once, with its value on test where that is known."""
    rules = choose.rules(info)
    choices = [rules[name](info, evidence) for name in names]
    lines = [
        choice.sentence + confirmed.on_test(confirmation, choice.trial_id) for choice in choices
    ]
    return list(dict.fromkeys(lines))


def _paragraphs(lines: list[str], *, soft: bool = False) -> str:
    look = " class='soft'" if soft else ""
    return "".join(f"<p{look}>{html.escape(line)}</p>" for line in lines)


def _items(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
