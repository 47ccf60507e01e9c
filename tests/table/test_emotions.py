"""The words of public corpora become labels, a user's map comes first, and one emotion is none."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from ermgap import corpora
from ermgap.config import MELD_LABELS, Config
from ermgap.corpora import table as tables
from ermgap.corpora.labels import FILE, canonical_emotion, keep_labels, normalize
from ermgap.errors import UserError
from sweeps import pareto
from sweeps.setup import command_line, folders
from sweeps.setup.plan import describe_sweep, make_plan

KEYS = {  # of corpora, in the order of anger, disgust, fear, joy, neutral, sadness, surprise
    "CREMA-D": ("en", "ANG DIS FEA HAP NEU SAD -"),
    "IEMOCAP": ("en", "ang dis fea hap neu sad sur"),
    "MELD": ("en", "anger disgust fear joy neutral sadness surprise"),
    "TESS": ("en", "angry disgust fear happy neutral sad ps"),
    "TESS's folders": ("en", "Angry Disgust Fear Happy Neutral Sad Pleasant_surprised"),
    "ESD": ("en", "Angry - - Happy Neutral Sad Surprise"),
    "ESD in Chinese": ("zh", "生气 - - 快乐 中立 伤心 惊喜"),
    "ASED": ("am", "angry - fearful happy neutral sad -"),
    "nEMO": ("pl", "anger - fear happiness neutral sadness surprised"),
    "Polish": ("pl", "złość wstręt strach radość neutralny smutek zaskoczenie"),
    "EmoDB": ("de", "Wut Ekel Angst Freude neutral Trauer -"),
    "EmoDB, Ärger": ("de", "Ärger Ekel Angst Freude Neutral Traurigkeit Überraschung"),
    "German without umlauts": ("de", "Aerger Ekel Angst gluecklich neutral traurig Ueberraschung"),
    "EMOVO": ("it", "rab dis pau gio neu tri sor"),
    "Italian": ("it", "rabbia disgusto paura gioia neutrale tristezza sorpresa"),
    "CaFE": ("fr", "Colère Dégoût Peur Joie Neutre Tristesse Surprise"),
    "Spanish": ("es", "Enojo Asco Miedo Alegría Neutro Tristeza Sorpresa"),
    "VERBO": ("pt", "raiva desgosto medo alegria neutro tristeza surpresa"),
    "Russian": ("ru", "гнев отвращение страх радость нейтрально грусть удивление"),
    "Greek": ("el", "θυμός αηδία φόβος χαρά ουδέτερο λύπη έκπληξη"),
    "JTES": ("ja", "ang - - joy neu sad -"),
    "Japanese": ("ja", "怒り 嫌悪 恐れ 喜び 平静 悲しみ 驚き"),
    "EmotionTTS": ("ko", "화남 혐오 공포 기쁨 일반 슬픔 놀람"),
}


def table(*words: str, language: str = "en") -> pd.DataFrame:
    rows = [
        {"utterance_id": f"u{i}", "corpus": "made", "language": language, "gender": "female",
         "emotion": word, "speaker": "s", "path": f"/{i}.wav"}
        for i, word in enumerate(words)
    ]  # fmt: skip
    return tables.frame(rows)


def read(*words: str, language: str = "en", labels=MELD_LABELS, **given) -> list[str]:
    """The label of each word, "" for one that is excluded."""
    kept = keep_labels(table(*words, language=language), labels, **given).table
    found = dict(zip(kept["utterance_id"], kept["emotion"], strict=True))
    return [found.get(f"u{i}", "") for i in range(len(words))]


def config(folder, emotions: list[str], **changes) -> Config:
    """A configuration of eight speakers who say every emotion once, in noise."""
    rows, random = ["path,language,emotion,gender,speaker"], np.random.default_rng(0)
    for speaker in range(8):
        for emotion in emotions:
            name = f"{speaker}_{len(rows)}.wav"
            soundfile.write(folder / name, random.normal(0, 0.1, 4000), 16000)
            rows.append(f"{name},en,{emotion},{('female', 'male')[speaker % 2]},s{speaker}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Config().replace({"data.corpora": [f"manifest={folder}"]} | changes)


@pytest.mark.parametrize("corpus", KEYS)
def test_the_keys_of_public_corpora_are_understood(corpus):
    language, line = KEYS[corpus]
    pairs = [(w, e) for w, e in zip(line.split(), MELD_LABELS, strict=True) if w != "-"]
    words, expected = zip(*pairs, strict=True)
    for form in ("NFC", "NFD", "NFKC"):
        for change in (str, str.lower, str.upper):
            written = [unicodedata.normalize(form, change(word)) for word in words]
            assert read(*written, language=language) == list(expected)


def test_no_word_means_two_emotions_and_no_code_is_shorter_than_two_letters():
    for language, emotions in yaml.safe_load(FILE.read_text(encoding="utf-8")).items():
        words = [normalize(word) for listed in emotions.values() for word in listed]
        assert sorted(set(words)) == sorted(words), language
        assert all(len(word) > 1 or not word.isascii() for word in words)


def test_what_is_ambiguous_or_another_emotion_is_left_out():
    letters = ["A", "W", "F", "N", "S", "01", "3", "fe", "su", "xxx", "other", "Joy?"]
    others = ["excited", "exc", "frustration", "calm", "boredom", "contempt", "anxiety"]
    assert set(read(*letters, *others)) == {""}
    assert (canonical_emotion("平静", language="ja"), canonical_emotion("平静", language="zh")) == (
        "neutral",
        "calm",
    )
    assert read("平静", "tri", "Freude", language="en") == ["", "", "joy"]


def test_labels_in_other_words_take_what_means_the_same():
    assert read("ANG", "happiness", "sad", labels=["angry", "happy"]) == ["angry", "happy", ""]
    assert read("anger", "joy", labels=["Wut", "Freude"], language="de") == ["Wut", "Freude"]
    assert read("JOY", "happy", "hap", labels=["happy", "joy"]) == ["joy", "happy", "joy"]
    assert read("hap", "glad", labels=["happy", "joyful"]) == ["", ""]  # which of the two?
    assert read("L", "bored", labels=["boredom", "joy"]) == ["", "boredom"]


def test_a_map_decides_first_and_null_leaves_a_word_out():
    found = read("exc", "EXC", "W", "ps", "joy", emotions={"Exc": "joy", "w": "anger", "ps": None})
    assert found == ["joy", "joy", "anger", "", "joy"]


def test_codes_and_foreign_words_that_were_read_are_noted_and_usual_words_are_not():
    (note,) = keep_labels(table("ANG", "ANG", "happy", "Wut", "joy"), MELD_LABELS).notes
    assert note == "emotions of made were read as labels: ANG as anger, Wut as anger"
    assert keep_labels(table("angry", "Joy", "sad", "calm"), MELD_LABELS).notes == ()


def test_where_most_are_left_out_the_words_are_counted_with_what_to_write():
    found = keep_labels(table(*"WWWLLE", "joy"), MELD_LABELS)
    assert len(found.excluded) == 6 and len(found.table) == 1
    (note,) = found.notes
    assert "6 of 7 utterances of made" in note and "W 3, L 2, E 1" in note
    assert keep_labels(table("W", "joy", "fear"), MELD_LABELS).notes == ()
    assert "data.labels" in note and """--set 'data.emotions={"W": LABEL}'""" in note


def test_one_emotion_is_refused_before_training_with_the_words_that_are_none(tmp_path):
    with pytest.raises(UserError) as refused:
        make_plan(config(tmp_path, ["W", "L", "sad"]))
    text = str(refused.value)
    assert text.startswith("fewer than two emotions are in both train and dev (train: sadness 6")
    assert "16 utterances were excluded" in text and "w 8, l 8" in text and "data.emotions" in text
    assert "\n" not in text and text.endswith(".")
    words = ["--data", f"manifest={tmp_path}", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="fewer than two emotions"):
        pareto.main([*words, "--dry-run"])
    with pytest.raises(UserError, match="fewer than two emotions"):
        given = command_line.parse(command_line.options("", many=True), words)
        folders.prepare(given, kind="sweep", check=lambda config: None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"\(train: joy 6; dev: joy 2\), .* utterances of two"):
        make_plan(config(tmp_path, ["happy"]))


def test_emotions_that_train_and_dev_do_not_share_are_refused(tmp_path):
    made = config(tmp_path, ["joy", "anger", "fear"])
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    split = {"s0": "dev", "s1": "dev"}
    rows = [
        row + "," + split.get(row.split(",")[-1], "train")
        for row in lines[1:]
        if ("anger" in row) <= (row[-2:] not in split) and ("fear" in row) <= (row[-2:] in split)
    ]
    (tmp_path / "manifest.csv").write_text("\n".join([lines[0] + ",split", *rows]) + "\n")
    with pytest.raises(UserError, match=r"train: .*anger 6.*; dev: .*fear 2.*two emotions or more"):
        make_plan(made)


def test_a_corpus_of_which_no_word_is_a_label_says_which_words(tmp_path):
    with pytest.raises(UserError, match=r"nothing remains of .* w 8, l 8; .*data\.emotions"):
        make_plan(config(tmp_path, ["W", "L"]))


def test_a_map_works_in_a_plan_and_is_recorded(tmp_path):
    made = config(tmp_path, ["W", "exc"], **{"data.emotions": {"w": "anger", "exc": "joy"}})
    plan = make_plan(made)
    assert plan.utterances["emotion"].value_counts().to_dict() == {"anger": 8, "joy": 8}
    assert "emotions of" in plan.description and "w as anger" in plan.description
    told = describe_sweep(made, preset="demo", utterances=plan.utterances, storage=None)
    assert told["config"]["data"]["emotions"] == {"w": "anger", "exc": "joy"}


def test_a_map_works_for_loaders_that_read_file_names(tmp_path):
    for i, name in enumerate(["03a01La", "08a01Na"]):
        noise = np.random.default_rng(i).normal(0, 0.1, 4000)
        soundfile.write(tmp_path / f"{name}.wav", noise, 16000)
    given = {"boredom": "sadness"}
    found = corpora.load([f"emodb={tmp_path}"], emotions=given).table
    assert found["emotion"].to_list() == ["sadness", "neutral"]
