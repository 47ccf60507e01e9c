"""A small corpus, and command lines about it with one mistake each, for test_bad_input.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import yaml

from sweeps.setup import command_line, folders

HEADER = "path,language,emotion,gender,speaker"
GOOD = "0_joy.wav,en,joy,male,s0"


class Place:
    """A folder with a small sound corpus in it, and room for mistakes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.corpus = root / "voices"
        self.corpus.mkdir()
        self.out = root / "out"
        rng = np.random.default_rng(0)
        self.rows = []
        for speaker in range(8):
            for emotion in ("joy", "anger"):
                name = f"{speaker}_{emotion}.wav"
                soundfile.write(self.corpus / name, rng.normal(0, 0.1, 4000), 16000)
                gender = "female" if speaker % 2 else "male"
                self.rows.append(f"{name},en,{emotion},{gender},s{speaker}")
        self.manifest(*self.rows)

    def manifest(self, *rows: str, header: str = HEADER) -> None:
        text = "\n".join([header, *rows]) + "\n"
        (self.corpus / "manifest.csv").write_text(text, encoding="utf-8")

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def fine(self, *more: object) -> list[str]:
        """Arguments without a mistake, and `more`."""
        few = ("--set", "data.cell_support=1")  # it is a small corpus
        given = ["--data", f"manifest={self.corpus}", "--out", self.out, *few, *more]
        return [str(argument) for argument in given]

    def sweep(self) -> Path:
        """A folder in which a sweep of this corpus has begun."""
        given = command_line.parse(command_line.options("", many=True), self.fine("--trials", "5"))
        folders.prepare(given, kind="sweep", check=lambda *_: None)
        return self.out

    def preset(self, content: str | bytes) -> list[str]:
        return ["--preset", str(self.file("mine.yaml", content)), *self.fine()]

    def rows_but(self, number: int, row: str) -> list[str]:
        """Arguments for the corpus with row `number` (1 is the header) replaced."""
        rows = list(self.rows)
        rows[number - 2] = row
        self.manifest(*rows)
        return self.fine()


def under_another_name(place: Place) -> list[str]:
    place.manifest(GOOD, header=HEADER.replace("gender", "Sex"))
    return place.fine()


def one_folder_twice(place: Place) -> list[str]:
    return ["--out", str(place.out), "--data", f"a={place.corpus}", f"b={place.corpus}"]


def unreadable_audio(place: Place) -> list[str]:
    for wav in place.corpus.glob("*.wav"):
        wav.write_bytes(b"not a sound")
    return place.fine()


def without_manifest(place: Place) -> list[str]:
    (place.corpus / "manifest.csv").unlink()
    return place.fine()


def lacking_a_column(place: Place) -> list[str]:
    place.manifest("0_joy.wav,en,joy,s0", header="path,language,emotion,speaker")
    return place.fine()


def manifest_of(*rows: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.manifest(*rows)
        return place.fine()

    return make


def one_speaker(place: Place) -> list[str]:
    place.manifest(*(row.rpartition(",")[0] + ",only" for row in place.rows))
    return place.fine()


def out_with(name: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        place.file(f"out/{name}", "mine")
        return place.fine()

    return make


def out_is_a_file(place: Place) -> list[str]:
    place.out.write_text("mine")
    return place.fine()


def out_below_a_file(place: Place) -> list[str]:
    return [*place.fine()[:2], "--out", str(place.file("file", "mine") / "deeper")]


def unfinished(place: Place) -> list[str]:
    place.sweep()
    return place.fine()


def resume(*more: str) -> Callable[[Place], list[str]]:
    return lambda place: ["--resume", str(place.sweep()), *more]


def resume_damaged(name: str, content: str | bytes) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        folder = place.sweep()
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ["--resume", str(folder)]

    return make


def resume_with_a_value(section: str, key: str, value) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        path = place.sweep() / "sweep.yaml"
        sweep = yaml.safe_load(path.read_text())
        sweep["config"][section][key] = value
        path.write_text(yaml.safe_dump(sweep))
        return ["--resume", str(path.parent)]

    return make


def resume_another_preset(place: Place) -> list[str]:
    folder, preset = place.sweep(), place.file("mine.yaml", "train: {epochs: 99, batch: 7}")
    return ["--preset", str(preset), "--resume", str(folder), *place.fine()[:2]]


def data(*names: str) -> Callable[[Place], list[str]]:
    return lambda place: ["--out", str(place.out), "--data", *names]


def fine(*more: str) -> Callable[[Place], list[str]]:
    return lambda place: place.fine(*more)


def preset(content: str | bytes) -> Callable[[Place], list[str]]:
    return lambda place: place.preset(content)


def plugin(content: str) -> Callable[[Place], list[str]]:
    return lambda place: place.preset(f"plugins: [{place.file('plug_in.py', content)}]")
