"""`python -m ermgap.corpora describe`, the file of genders, and corpora of all kinds in one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import meld_st_tree as tree
import pytest

from ermgap import corpora
from ermgap.corpora import __main__, meld_st_rows, split, table
from ermgap.errors import UserError

NAMES = ("Rachel", "Ross", "Monica", "Chandler", "Phoebe", "Joey")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """MELD-ST, EmoDB, RAVDESS, JVNV and a manifest in small, by name."""
    root = tmp_path_factory.mktemp("corpora")
    tree.write(root / "meld_st", tree.tidy())
    names = {
        "emodb": ["03a01Fa", "10b02Wb", "08a01Na", "09a05Ta"],
        "ravdess": ["03-01-03-02-01-01-01", "03-01-06-01-02-01-12"],
        "jvnv": ["F1_anger_free_01", "F2_sad_free_01", "M1_happy_free_01", "M2_fear_free_01"],
        "manifest": ["a", "b"],
    }
    number = 10**6
    for corpus, stems in names.items():
        (root / corpus).mkdir()
        for stem in stems:
            (root / corpus / f"{stem}.wav").write_bytes(tree.noise(number := number + 1))
    rows = "a.wav,en,joy,female,1\nb.wav,en,anger,male,2\n"
    header = "path,language,emotion,gender,speaker\n"
    (root / "manifest" / "manifest.csv").write_text(header + rows, encoding="utf-8")
    return {name: root / name for name in ("meld_st", *names)}


def write_genders(file: Path, *rows: str, header: str = "speaker,gender") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def describe(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "ermgap.corpora", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


def test_all_corpora_are_joined_in_one_run(places):
    names = ["demo", *(f"{name}={place}" for name, place in places.items())]
    corpus = corpora.load(names)
    sizes = corpus.table["corpus"].value_counts(sort=False).to_dict()
    assert sizes == {
        "demo": 690, "meld_st": 144, "emodb": 4, "ravdess": 2, "jvnv": 4, "manifest": 2,
    }  # fmt: skip
    whole = split.assign(corpus.table, seed=0)
    table.check(whole)
    assert (whole["split"] != "").all() and set(whole["language"]) == {"en", "de", "ja"}
    official = corpus.table["split"] != ""
    assert whole["split"][official].equals(corpus.table["split"][official])


def test_describe_prints_counts_exclusions_notes_and_the_papers_numbers(places):
    run = describe("describe", f"meld_st={places['meld_st']}", "demo")
    assert run.returncode == 0 and run.stderr == ""
    lines = run.stdout.splitlines()
    assert lines[0].split()[:3] == ["split", "language", "gender"]
    assert "excluded from meld_st: 48 (48 x the same English utterance" in run.stdout
    assert "note: meld_st's genders are inferred from the characters" in run.stdout
    compared = [line.split() for line in lines]
    assert ["utterances", "144", "29,252", "the", "paper"] in compared  # demo is not counted in
    assert ["male", "72", "15,008", "the", "paper"] in compared
    assert ["rows", "of", "jpn_valid.csv", "8", "1,008", "the", "release"] in compared


def test_describe_needs_neither_torch_nor_ray_and_says_nothing_of_the_paper_elsewhere(places):
    code = (
        "import sys; from ermgap.corpora.__main__ import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'ray', 'datasets'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, "describe", f"emodb={places['emodb']}"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[-1] == "[]" and "paper" not in run.stdout
    assert lines[1].split()[:3] == ["-", "de", "female"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["emobd"], "did you mean 'emodb'?"),
        (["meld_st"], "write meld_st=PATH."),
        (["demo", "--window", "0"], "--window is 0; write seconds above 0"),
        (["demo", "--window", "nan"], "--window is nan"),
        (["demo", "--window", "0.5", "--strict"], "which --strict refuses"),
        (["demo", "--attributes", "acent"], "there is no attribute 'acent' in demo, only gender"),
        (["demo", "--genders", "mine.csv"], "mine.csv is of no use: demo reads none"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence):
    with pytest.raises(UserError) as caught:
        __main__.main(["describe", *arguments])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_mistake_ends_the_command_with_one_line_and_status_2(tmp_path):
    run = describe("describe", f"meld_st={tmp_path}")
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: ") and len(run.stderr.splitlines()) == 1


def test_the_attribute_named_first_divides_the_counts(capsys):
    __main__.main(["describe", "demo", "--attributes", "style, gender"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["split", "language", "style"]
    assert "gender: female (345 of 21 speakers), male (345 of 21 speakers)" in lines


def test_the_window_is_counted(capsys):
    __main__.main(["describe", "demo", "--window", "0.5"])
    assert "longer than the window and are cut to their first 0.5 s" in capsys.readouterr().out


def test_the_papers_numbers_add_up():
    paper = __main__.PAPER
    assert paper["female"] + paper["male"] == paper["utterances"]
    assert paper["train"] + paper["dev"] + paper["test"] == paper["utterances"]


def test_the_shipped_genders_are_those_of_the_data_beside_the_project(shared_data):
    theirs = shared_data / "meld_speaker_gender.csv"
    assert meld_st_rows.GENDERS_FILE.read_bytes() == theirs.read_bytes()
    found = list(meld_st_rows.read_genders(meld_st_rows.GENDERS_FILE).values())
    assert set(found) == {"female", "male", ""} and len(found) == 304
    assert "not\nself-reported" in (meld_st_rows.GENDERS_FILE.parent / "README.md").read_text(
        encoding="utf-8"
    )


def test_a_users_own_genders_replace_the_shipped_ones(places, tmp_path, capsys):
    rows = ["Rachel,male", " ROSS ,F", "Monica,unknown", "Chandler,", "Joey,m"]
    file = write_genders(tmp_path / "mine.csv", *rows)
    name = f"meld_st={places['meld_st']}"
    corpus = corpora.load([name, "demo"], genders=file, drop=["gender"])
    found = corpus.table[corpus.table["corpus"] == "meld_st"]
    assert found.groupby("speaker")["gender"].unique().map(list).to_dict() == {
        "meld_st_Joey": ["male"], "meld_st_Rachel": ["male"], "meld_st_Ross": ["female"],
    }  # fmt: skip
    reasons = corpus.excluded["reason"]
    assert (reasons == "the speaker's gender is unknown").sum() == 64
    assert (reasons == "the speaker 'Phoebe' is not in the file of genders").sum() == 32
    notes = " ".join(corpus.notes)
    assert f"genders are those of {file}" in notes and "inferred" not in notes
    assert "32 clips are of speakers whose gender is not given there at all: Phoebe" in notes
    __main__.main(["describe", name, "--genders", str(file)])
    assert "note: 72 of 144 utterances of meld_st are of unknown gender" in capsys.readouterr().out


def test_names_match_whatever_their_case_spaces_and_apostrophes(tmp_path):
    file = write_genders(tmp_path / "g.csv", "Joey’s  Hand Twin,male", "joey's hand twin,man")
    assert meld_st_rows.read_genders(file) == {
        meld_st_rows.normalized_name(" JOEY'S HAND  TWIN"): "male"
    }
    assert meld_st_rows.normalized_name("Rene\u0301") == meld_st_rows.normalized_name("Ren\u00e9")


BAD = {
    "absent": (None, "there is no file of genders"),
    "no column": (["x,female"], "lacks the column speaker; it has name, gender"),
    "bad gender": (["Ross,male", "Joey,mail"], "row 3: the gender is 'mail'; write female or"),
    "two genders": (["Ross,male", " ross,female"], "row 3: 'ross' is female here and male in row"),
    "empty speaker": (["Ross,male", " ,female"], "row 3: the speaker is empty"),
    "too few fields": (["Ross"], "row 2: it has 1 fields"),
    "no rows": ([], "has a header and no rows"),
}


@pytest.mark.parametrize(("rows", "sentence"), BAD.values(), ids=BAD)
def test_a_damaged_file_of_genders_is_one_sentence_with_file_and_row(
    places, tmp_path, rows, sentence
):
    file = tmp_path / "mine.csv"
    if rows is not None:
        header = "name,gender" if "lacks" in sentence else "speaker,gender"
        write_genders(file, *rows, header=header)
    with pytest.raises(UserError) as caught:
        corpora.load([f"meld_st={places['meld_st']}"], genders=file)
    text = str(caught.value)
    assert str(file) in text and sentence in text and "\n" not in text and text.endswith(".")


def test_a_plugins_loader_goes_on_working_and_may_take_genders_too(places, tmp_path):
    file = write_genders(tmp_path / "mine.csv", *(f"{name},female" for name in NAMES))
    told = []
    plain = corpora.CORPORA["emodb"]
    corpora.CORPORA["plain"] = lambda path: plain(path)
    corpora.CORPORA["taking"] = lambda path, *, genders=None: told.append(genders) or plain(path)
    try:
        with pytest.raises(UserError, match="is of no use: plain, demo read none"):
            corpora.load([f"plain={places['emodb']}", "demo"], genders=file)
        names = [f"plain={places['emodb']}", f"meld_st={places['meld_st']}"]
        assert len(corpora.load(names, genders=file).table) == 148
        corpora.load([f"taking={places['emodb']}"], genders=file)
        corpora.load([f"taking={places['emodb']}"])
        assert told == [file, None]
    finally:
        del corpora.CORPORA["plain"], corpora.CORPORA["taking"]
