"""The embedded corpus `demo`: what it holds, that files and manifest agree, how it is made."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap import corpora
from ermgap.corpora import demo, demo_speech, make_demo
from ermgap.errors import UserError

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is absent")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return demo.load(None).table


@pytest.fixture(scope="module")
def manifest() -> pd.DataFrame:
    return pd.read_csv(demo.FOLDER / "manifest.csv", dtype=str)


def test_the_registry_loads_all_clips_and_calls_them_synthetic():
    corpus = corpora.load(["demo"])
    assert len(corpus.table) == 690 and corpus.excluded.empty
    assert corpus.table["synthetic"].all()
    assert any("planted in de" in note for note in corpus.notes)


def test_train_has_five_clips_per_language_gender_and_emotion(table):
    train = table[table["split"] == "train"]
    counts = train.groupby(["language", "gender", "emotion"]).size()
    assert len(counts) == 3 * 2 * 7 and (counts == 5).all()


def test_dev_has_eighty_clips_per_language_and_gender_in_the_same_classes(table):
    dev = table[table["split"] == "dev"]
    assert (dev.groupby(["language", "gender"]).size() == 80).all()
    counts = dev.groupby(["language", "emotion", "gender"]).size().unstack()
    assert counts["female"].equals(counts["male"])
    assert set(counts["female"]) == {11, 12}


def test_no_voice_or_espeak_variant_is_in_train_and_dev(table):
    voices = table.groupby("split")["speaker"].unique()
    variants = {split: {name.rsplit("_", 1)[1] for name in voices[split]} for split in voices.index}
    assert set(variants) == {"train", "dev"}
    assert not variants["train"] & variants["dev"]


def test_every_language_and_gender_has_three_voices_or_more_in_each_split(table):
    counts = table.groupby(["split", "language", "gender"])["speaker"].nunique()
    assert counts.min() >= 3
    assert table["speaker"].nunique() >= 12
    assert (table.groupby("speaker")["gender"].nunique() == 1).all()


def test_a_voice_speaks_every_emotion_often_enough_not_to_give_it_away(table):
    counts = table.groupby(["speaker", "emotion"]).size().unstack(fill_value=0)
    assert counts.min().min() >= 1


def test_every_file_decodes_at_16_khz_to_the_manifests_duration(manifest):
    for row in manifest.itertuples():
        samples, rate = soundfile.read(demo.FOLDER / row.path, dtype="float32")
        assert rate == 16000 and samples.ndim == 1
        assert len(samples) / rate == pytest.approx(float(row.duration_s), abs=1e-3)
        assert len(samples) / rate <= 2.0
        assert np.sqrt(np.mean(samples**2)) > 1e-3


def test_manifest_and_files_are_the_same_set_within_four_megabytes(manifest):
    files = {path.relative_to(demo.FOLDER).as_posix() for path in demo.FOLDER.glob("audio/*")}
    assert files == set(manifest["path"]) and len(files) == len(manifest)
    everything = sum(path.stat().st_size for path in demo.FOLDER.rglob("*") if path.is_file())
    assert everything <= 4_000_000


def test_only_the_planted_cell_has_weak_expression(manifest):
    weak = manifest.loc[manifest["expression"] == "weak", ["language", "gender"]]
    assert set(weak.itertuples(index=False, name=None)) == {demo.PLANTED}
    assert len(weak) == 35 + 80


def test_the_words_of_the_planted_cell_name_the_emotion_less_often(manifest):
    phrases = make_demo.read_phrases()
    said = [row.transcript not in phrases[row.language, "any"] for row in manifest.itertuples()]
    share = pd.Series(said).groupby(manifest["expression"]).mean()
    assert share["weak"] < 0.3 and share["full"] > 0.5


def test_the_style_says_whether_the_words_express_the_emotion_too(manifest, table):
    phrases = make_demo.read_phrases()
    for row, style in zip(manifest.itertuples(), manifest[demo.STYLE], strict=True):
        pool = row.emotion if style == "expressive" else "any"
        assert row.transcript in phrases[row.language, pool]
    assert table["style"].equals(manifest[demo.STYLE].astype(str).rename("style"))
    assert table.groupby(["split", "language", "style"])["speaker"].nunique().min() >= 6


def test_a_corpus_made_before_there_were_styles_is_read_without(tmp_path, manifest):
    manifest.drop(columns=demo.STYLE).head(3).to_csv(tmp_path / "manifest.csv", index=False)
    assert "style" not in demo.load(tmp_path).table


def test_a_phrase_stands_for_one_emotion_only():
    for language in demo.LANGUAGES:
        pools = [pool for (code, _), pool in make_demo.read_phrases().items() if code == language]
        phrases = [phrase for pool in pools for phrase in pool]
        assert len(pools) == 8 and len(set(phrases)) == len(phrases)


def test_the_plan_of_the_default_seed_is_the_shipped_manifest(manifest):
    rows = [clip.row(duration_s=0.0) for clip in make_demo.plan()]
    planned = pd.DataFrame(rows).drop(columns="duration_s")
    pd.testing.assert_frame_equal(planned, manifest.drop(columns="duration_s"), check_dtype=False)


def test_another_seed_gives_another_plan_of_the_same_shape():
    first, other = make_demo.plan(seed=2), make_demo.plan(seed=3)
    assert [clip.path for clip in first] == [clip.path for clip in other]
    assert [clip.transcript for clip in first] != [clip.transcript for clip in other]


@needs_espeak
def test_speaking_a_clip_again_gives_the_same_samples():
    for clip in make_demo.plan()[::150]:
        assert np.array_equal(clip.speak(), clip.speak())


@needs_espeak
def test_the_recorded_engine_speaks_the_shipped_durations(manifest):
    readme = (demo.FOLDER / "README.md").read_text(encoding="utf-8")
    if demo_speech.engine() not in readme:
        pytest.skip("another version of espeak-ng than the one that made the corpus")
    durations = dict(zip(manifest["path"], manifest["duration_s"].astype(float), strict=True))
    for clip in make_demo.plan()[::40]:
        assert len(clip.speak()) / 16000 == pytest.approx(durations[clip.path], abs=1e-3)


@needs_espeak
def test_a_clip_that_would_be_too_long_is_spoken_faster():
    slow = demo_speech.VoiceCues(rate=-1.0)
    sound = demo_speech.speak("We were at the station.", voice="en+m1", cues=slow, seed=0)
    assert 1.5 < len(sound) / 16000 <= 1.95


@needs_espeak
def test_faster_cues_shorten_a_clip_and_gain_makes_it_louder():
    def say(**cues: float) -> np.ndarray:
        settings = demo_speech.VoiceCues(**cues)
        return demo_speech.speak("The bus stops here.", voice="en+f2", cues=settings, seed=0)

    assert len(say(rate=0.5)) < 0.85 * len(say())
    louder = np.sqrt(np.mean(say(gain=6.0) ** 2)) / np.sqrt(np.mean(say() ** 2))
    assert 20 * np.log10(louder) == pytest.approx(6.0, abs=0.3)


def test_a_generator_without_espeak_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install the package espeak-ng"):
        demo_speech.engine()


def test_a_corpus_written_elsewhere_is_read_from_there(tmp_path, manifest):
    manifest.head(3).to_csv(tmp_path / "manifest.csv", index=False)
    table = demo.load(tmp_path).table
    assert len(table) == 3
    assert table["path"].str.startswith(str(tmp_path)).all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no manifest"),
        ("path,language\na,en\n", "lacks the columns gender"),
        (",".join(demo.FIELDS) + "\n" + ",".join(["x"] * len(demo.FIELDS)), "row 2: duration_s"),
    ],
)
def test_a_bad_folder_is_refused_in_one_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        demo.load(tmp_path)


def test_the_manifest_has_the_documented_columns(manifest):
    with open(demo.FOLDER / "manifest.csv", encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == (*demo.FIELDS, demo.STYLE)
    assert set(manifest["synthetic"]) == {"true"}
