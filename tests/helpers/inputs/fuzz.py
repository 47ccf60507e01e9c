"""What the readers of files that somebody else may have written are tried on, for test_fuzz.py.

A `Reader` takes the bytes of one file, has ERM-GAP read it, and returns what was read. `inputs`
gives a strategy for such bytes: a valid file with a few edits, a valid table with odd cells,
nested values under the real keys, text, or bytes alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from hypothesis import strategies as st

from ermgap import config
from ermgap.adapters import saved_adapter
from ermgap.baselines.endpoint import answer_file
from ermgap.corpora import demo, jvnv, manifest, meld_st, meld_st_rows, table
from ermgap.records import Records

ODD = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b'""', b"'", b"\r", b"\r\n", b"\n", b"\n\n", b",",
    b";", b"\t", b"|", b"#", b": ", b"- ", b"nan", b"-inf", b"-1", b"1e999", b"1_0", b"0", b"1.5",
    b"null", b"true", b"{}", b"[]", b"[1, {a: b}]", b"9" * 5000, b"0x" + b"f" * 5000, b"1" * 25,
    b"1:" * 3000 + b"1", b"[" * 2000, b"{" * 2000, b"- " * 500, b'{"a":' * 3000, b"&a [*a]", b"*a",
    b"&a ", b"<<: *a", b"<<: 1", b"? [1]\n: 2", b"!!python/object/apply:os.getpid []",
    b"!!timestamp x", b"!!bool maybe", b"!!int ''", b"!!float x", b"!!binary =", b"!!set {a}",
    b"!!omap [a: 1]", b"!!null x", b"2020-13-45", b"0001-01-01 00:00:00+99:99", b"2020-01-01",
    b"../", b"..", b".", b"./", b"/", b"/etc/passwd", b"~", b"~nobody/x", b"C:\\", b"a" * 5000,
    "\u2028".encode(), "\x85".encode(), "\u202e".encode(), "\u0661".encode(), "\u0130".encode(),
    "\U0001f600".encode(), b"\x1b[31m", b"train.", b"extends: ", b"---\n", b"%s{0}{x}",
]  # fmt: skip
WORDS = [text.decode("utf-8", "replace") for text in ODD]


@dataclass(frozen=True)
class Reader:
    """One reader: `read(folder, content)`, valid files to start from, and what may be in them.

    `tables` are valid CSVs as rows of fields, `values` a strategy for nested values that `render`
    makes a file of. `never_refuses`: there is no input that it may call a mistake.
    """

    read: Callable[[Path, bytes], object]
    valid: list[bytes]
    tables: list[list[list[str]]] = field(default_factory=list)
    values: st.SearchStrategy | None = None
    render: Callable[[object], str] = json.dumps
    never_refuses: bool = False


# Inputs -----------------------------------------------------------------------------------------

_tokens = st.one_of(st.sampled_from(ODD), st.binary(max_size=8))
_edits = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1 << 14), st.integers(0, 60), _tokens),
    min_size=1,
    max_size=5,
)
_cells = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(0, 40),
        st.one_of(st.sampled_from(WORDS), st.text(max_size=6)),
    ),
    min_size=1,
    max_size=4,
)


def inputs(reader: Reader) -> st.SearchStrategy[bytes]:
    """Bytes for a reader; most of them nearly valid, since others end at the first check."""
    edited = st.builds(_edit, st.sampled_from(reader.valid), _edits)
    kinds = [edited, edited]
    if reader.tables:
        kinds += [st.builds(_with_cells, st.sampled_from(reader.tables), _cells)] * 2
    if reader.values is not None:
        kinds += [reader.values.map(lambda value: _bytes(reader.render(value)))] * 2
    text = st.text(max_size=200).map(_bytes)
    return st.one_of(*kinds, text, st.binary(max_size=200))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _edit(content: bytes, edits: list[tuple[int, int, int, bytes]]) -> bytes:
    for kind, where, length, token in edits:
        start = where % (len(content) + 1)
        before, middle, after = content[:start], content[start : start + length], content[start:]
        rest = content[start + length :]
        content = (
            before + token + after,
            before + token + rest,
            before + rest,
            before + middle + middle + rest,
            before,
        )[kind]
    return content


def _with_cells(rows: list[list[str]], cells: list[tuple[int, int, str]]) -> bytes:
    rows = [list(row) for row in rows]
    for row, column, text in cells:
        hyperparameters = rows[row % len(rows)]
        hyperparameters[column % len(hyperparameters)] = text
    return csv_of(rows)


def csv_of(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return _bytes(file.getvalue())


# Readers ----------------------------------------------------------------------------------------


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _checked(corpus, folder: Path):
    """As `corpora.load` goes on: the table's checks, which may refuse it too."""
    assert all(Path(path).is_relative_to(folder) for path in corpus.table["path"])
    if len(corpus.table):
        table.check(corpus.table)
    return corpus


def _read_manifest(folder: Path, content: bytes):
    _file(folder, "manifest.csv", content)
    return _checked(manifest.load(folder), folder)


def _read_demo(folder: Path, content: bytes):
    _file(folder, "manifest.csv", content)
    return _checked(demo.load(folder), folder)


def _read_genders(folder: Path, content: bytes):
    found = meld_st_rows.read_genders(_file(folder, "genders.csv", content))
    assert set(found.values()) <= {"female", "male", ""}
    return found


def _read_meld_st(folder: Path, content: bytes):
    for split in ("train", "valid", "test"):
        _file(folder, f"ENG_DEU/deu_{split}.csv", csv_of(MELD))
    _file(folder, "ENG_DEU/deu_train.csv", content)
    return _checked(meld_st.load(folder), folder)


def _read_jvnv(folder: Path, content: bytes):
    _file(folder, "transcription.csv", content)
    texts, problem = jvnv._transcripts(folder)  # the rest of `load` reads names of files alone
    assert problem.isprintable() and all(map(jvnv.ROW.fullmatch, texts))
    return texts


def _read_preset(folder: Path, content: bytes):
    return _round_trip(config.load(_file(folder, "mine.yaml", content)))


def _read_setting(folder: Path, content: bytes):
    values: dict = {}
    config.apply_settings(values, [content.decode("utf-8", "surrogateescape")])
    return _round_trip(config.from_dict(values))


def _round_trip(found: config.Config) -> config.Config:
    assert config.from_dict(found.to_dict()) == found
    return found


def _read_rows(folder: Path, content: bytes):
    _file(folder, "sweep.yaml", b"config: {}\n")
    _file(folder, "trials.jsonl", content)
    return Records.open(folder).trials()


def _read_sweep(folder: Path, content: bytes):
    _file(folder, "sweep.yaml", content)
    return Records.open(folder).sweep


def _read_adapter(folder: Path, content: bytes):
    _file(folder, "ermgap.json", content)
    return saved_adapter.config_of(folder)


def _read_answers(folder: Path, content: bytes):
    return answer_file.parse(content)


MANIFEST = [
    "path language emotion gender speaker split transcript start_s end_s synthetic".split(),
    ["a.wav", "en", "joy", "female", "01", "train", "Well, no", "0", "1.5", "0"],
    ["sub/b.wav", "de", "anger", "male", "02", "dev", "", "", "", "1"],
    ["c.wav", "ja", "fear", "unknown", "03", "", "ha", "1", "2", ""],
]
DEMO = [
    list(demo.FIELDS),
    ["a.wav", "en", "female", "joy", "s1", "train", "words", "1.5", "0.9", "true"],
    ["b.wav", "de", "male", "anger", "s2", "dev", "words", "0.5", "0.9", "true"],
]
MELD = [
    "id English German emotion speaker season episode dia_id utt_id".split(),
    ["0", "Hi.", "Hallo.", "joy", "Ross", "1", "2", "3", "4"],
    ["1", "No!", "Nein!", "anger", "Rachel", "1.0", "2", "3", "5"],
    ["1", "No!", "Nein!", "anger", "Nobody", "1", "2", "3", "6"],
]
GENDERS = [["speaker", "gender"], ["Ross", "male"], ["All", "unknown"], ["Rachel", "f"]]
JVNV = [b"anger_free_01|ha|text\n", b"name,text\nF1_anger_free_01.wav,words\n", b"a\tb\n"]
PRESET = yaml.safe_dump(config.Config().to_dict(), sort_keys=False).encode()
ROW = {
    "trial_id": "t0000", "attempt": 1, "epoch": 1, "status": "finished", "reason": None,
    "config": {"lr": 0.01}, "selected": {"acc": 0.5, "max_gap": None}, "losses": {},
}  # fmt: skip
CARD = {
    "format": 1, "ermgap": "0.1.0", "trial_id": "t0", "backbone": {"name": "small"},
    "adapter": {"r": 8}, "objective": {},
    "data": {"labels": ["joy", "fear"], "modalities": ["speech"], "min_support": 1},
    "prompt": {"name": "short", "version": "1", "texts": {"speech": {"": "{audio} is"}}}, "dev": {},
}  # fmt: skip
ANSWER = dict.fromkeys((*answer_file.KEY, "answer"), "x")

_SECTIONS = {name: list(part or {}) for name, part in yaml.safe_load(PRESET).items()}
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.dates(),
    st.sampled_from(WORDS), st.sampled_from(["speech", "joy", "acc", "max_gap", "erm"]),
)  # fmt: skip
_keys = st.one_of(st.sampled_from(["acc", "lr", "loss"]), st.text(max_size=3), st.integers())
_nested = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3)
)
_sections = st.fixed_dictionaries(
    {},
    optional={
        name: st.dictionaries(st.sampled_from(keys), _nested, max_size=3) if keys else _nested
        for name, keys in _SECTIONS.items()
    },
)
_settings = st.builds(
    lambda section, value: f"{section}={value}",
    st.sampled_from([f"{name}.{key}" for name, keys in _SECTIONS.items() for key in keys]),
    st.one_of(st.text(max_size=8), st.sampled_from(["1", "0.5", "2e-4"]), _nested.map(repr)),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)


def _changed(whole: dict) -> st.SearchStrategy[dict]:
    """`whole` with some of its values replaced."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(whole, _json)).map(
        lambda other: whole | other
    )


def _yaml(values) -> str:
    return yaml.safe_dump(values, allow_unicode=True)


def _lines(rows: list[dict]) -> str:
    return "\n".join(map(json.dumps, rows))


def _json_lines(row: dict) -> bytes:
    return _lines([row, row | {"epoch": 2}, row | {"trial_id": "t0001"}]).encode() + b"\n"


READERS = {
    "manifest": Reader(
        _read_manifest, [csv_of(MANIFEST), csv_of(MANIFEST).replace(b",", b";")], [MANIFEST]
    ),
    "demo's manifest": Reader(_read_demo, [csv_of(DEMO)], [DEMO]),
    "MELD-ST": Reader(_read_meld_st, [csv_of(MELD)], [MELD]),
    "genders": Reader(_read_genders, [csv_of(GENDERS)], [GENDERS]),
    "JVNV's transcripts": Reader(_read_jvnv, JVNV, never_refuses=True),
    "preset": Reader(_read_preset, [PRESET], values=_sections, render=_yaml),
    "--set": Reader(_read_setting, [b"train.lr=0.1", b"a.b=c"], values=_settings, render=str),
    "trials.jsonl": Reader(
        _read_rows,
        [_json_lines(ROW)],
        values=st.lists(_changed(ROW), max_size=2),
        render=_lines,
        never_refuses=True,
    ),
    "sweep.yaml": Reader(
        _read_sweep,
        [yaml.safe_dump({"format": 1, "config": yaml.safe_load(PRESET)}).encode()],
        values=_sections.map(lambda values: {"config": values}),
        render=_yaml,
    ),
    "adapter's card": Reader(_read_adapter, [json.dumps(CARD).encode()], values=_changed(CARD)),
    "kept answers": Reader(
        _read_answers, [_json_lines(ANSWER)], values=_changed(ANSWER), never_refuses=True
    ),
}
