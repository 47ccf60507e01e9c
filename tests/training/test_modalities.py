"""One run over speech and speech+text: a cell for each with each language, one audio for both.

The training context is prepared as a sweep's worker does it, on `random-tiny` and 60 tones of which
six have no transcript.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_run
import torch
from tiny_run import LABELS, WINDOW_S, Trained, job

from ermgap.config import Config
from ermgap.distributed import World
from ermgap.errors import UserError
from ermgap.model.batches import cells_of, in_modalities
from ermgap.objective import Objective
from ermgap.training.context import prepare
from ermgap.training.evaluation import label_log_probabilities
from sweeps.setup.plan import make_plan

SPEECH, BOTH = "speech", "speech+text"
SETTINGS = {"data.modalities": [SPEECH, BOTH], "data.labels": list(LABELS)}
SETTINGS |= {"backbone.name": "random-tiny", "backbone.window_s": WINDOW_S}
SETTINGS |= {"backbone.dtype": "float32"}
UNSAID = {0: "", 7: "  ", 20: None, 31: "", 32: np.nan, 59: "\n"}  # row of the table: no transcript


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"))
    said = [f"this is what number {i} says" for i in range(len(table))]
    return table.assign(transcript=[UNSAID.get(i, text) for i, text in enumerate(said)])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


def prepared(table: pd.DataFrame, cache, **changes):
    """Backbone and context of a run over this table; `changes` to `SETTINGS`, `__` for a dot."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    given = {"config": Config().replace(SETTINGS | changed).to_dict(), "table": table}
    return prepare(given | {"storage": "", "features": cache}, World(), lambda text: None)


@pytest.fixture(scope="module")
def room(table, cache):
    return prepared(table, cache)


def split(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["split"] == name]


def unsaid(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.index.isin(UNSAID)]


# Rows and cells -----------------------------------------------------------------------------------


def test_cells_are_languages_by_modalities_and_utterances_come_twice(room, table):
    _, context = room
    pairs = [(language, modality) for modality in (SPEECH, BOTH) for language in ("de", "en")]
    assert context.cells == pairs
    for name, examples in (("train", context.train), ("dev", context.dev)):
        part = split(table, name)
        assert len(unsaid(part)) > 0
        assert len(examples) == 2 * len(part) - len(unsaid(part))
        held = examples.table
        assert not held.duplicated(["utterance_id", "modality"]).any()
        by = {
            modality: set(held.loc[held["modality"] == modality, "utterance_id"])
            for _, modality in pairs
        }
        assert by[SPEECH] == set(part["utterance_id"])
        assert by[SPEECH] - by[BOTH] == set(unsaid(part)["utterance_id"])
        for row in held.reset_index(drop=True).itertuples():
            assert pairs[examples.cell[row.Index]] == (row.language, row.modality)


def test_group_counts_are_those_of_each_cell_and_side(room):
    _, context = room
    held, counts = context.train.table, context.train.group_counts()
    for c, (language, modality) in enumerate(context.cells):
        cell = held[(held["language"] == language) & (held["modality"] == modality)]
        assert counts[c].tolist() == [(cell["gender"] == g).sum() for g in ("female", "male")]
    assert counts.min() > 0 and counts.sum() == len(context.train)


def test_both_rows_of_an_utterance_hear_the_same_and_read_another_text(room):
    speech, context = room
    examples = context.train
    table = examples.table.assign(row=range(len(examples)))
    rows = table.pivot(index="utterance_id", columns="modality", values="row").dropna().astype(int)
    said = dict(zip(table["utterance_id"], table["transcript"], strict=True))
    assert len(rows) > 30
    for name, pair in rows.iterrows():
        heard, read = (
            examples.batch([pair[modality]], answers=False, device="cpu", dtype=speech.dtype)
            for modality in (SPEECH, BOTH)
        )
        frames = int(examples.audio_length[pair[SPEECH]])
        assert len(heard.audio_places) == len(read.audio_places) == frames
        assert torch.equal(heard.audio[:frames], read.audio[:frames])
        assert torch.equal(heard.audio_places, read.audio_places), "the texts begin alike"
        assert said[name] in words(speech, read) and said[name] not in words(speech, heard)
        assert (heard.label, heard.side) == (read.label, read.side)
        assert read.cell - heard.cell == 2


def words(speech, batch) -> str:
    return speech.tokenizer.decode(batch.ids)


def test_each_clip_is_heard_once_for_both(table, tmp_path):
    _, context = prepared(table, tmp_path)
    assert context.train.store is context.dev.store
    assert context.train.store.computed == len(table)


def test_speech_is_scored_as_in_a_run_of_speech_alone_and_text_by_what_it_says(room, table, cache):
    speech, context = room
    speech.adapters = []
    alone = prepared(table, cache, data__modalities=[SPEECH])[1]
    other = prepared(table.assign(transcript="quite another thing"), cache)[1]
    scores = [scored(speech, one.dev) for one in (context, alone, other)]
    shared = scores[1].index
    assert {modality for _, modality in shared} == {SPEECH}
    for one in (scores[0], scores[2]):
        assert np.abs(one.loc[shared] - scores[1]).to_numpy().max() < 1e-5
    read = [row for row in scores[0].index if row[1] == BOTH]
    difference = np.abs(scores[0].loc[read] - scores[2].loc[read]).max(axis=1)
    assert len(read) > 15 and difference.min() > 1e-3


def scored(speech, examples) -> pd.DataFrame:
    """Log-probabilities by utterance and modality."""
    found = label_log_probabilities(speech, examples, world=World(), batch=5)[0]
    index = pd.MultiIndex.from_frame(examples.table[["utterance_id", "modality"]])
    return pd.DataFrame(found, index=index)


# Training and evaluation --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(room, tmp_path_factory):
    """A run, and of each of its steps: weight, sums [3, C, 2] and the objective's value."""
    steps, plain = [], Objective.__call__

    def watched(self, sums, *, progress):
        value, gradient = plain(self, sums, progress=progress)
        steps.append((self.fairness_weight(progress), sums.clone(), float(value)))
        return value, gradient

    changes = {"objective.schedule": "linear", "objective.p": 2, "train.micro_batch": 16}
    one = job(SETTINGS | changes | {"train.epochs": 2, "train.batch": 18})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "__call__", watched)
        made = Trained(room, one, tmp_path_factory.mktemp("run"))
    assert made.failure is None
    return made, steps


def test_the_objective_sees_a_female_and_a_male_loss_in_every_cell(run, room):
    made, steps = run
    cells = {f"{a}/{b}/{g}" for a, b in room[1].cells for g in ("female", "male")}
    assert len(cells) == 8
    for row in made.rows:
        assert set(row["losses"]) == cells
        assert all(np.isfinite(loss) for loss in row["losses"].values())
    epoch = sum(sums for _, sums, _ in steps[: len(steps) // 2])
    assert epoch[2].tolist() == room[1].train.group_counts().tolist()


def test_the_penalty_is_the_largest_gap_over_languages_and_modalities(run):
    worst = set()
    for weight, (total, _, count), value in run[1]:
        means = total / count
        gaps = (means[:, 0] - means[:, 1]).abs()
        assert value == pytest.approx(float(total.sum() / count.sum() + weight * gaps.max() ** 2))
        worst.add(int(gaps.argmax()))
    assert run[1][-1][0] > 0.5 and {i // 2 for i in worst} == {0, 1}, "one modality is never worst"


def test_predictions_and_dev_metrics_hold_both_modalities(run, room):
    made, _ = run
    wanted = room[1].dev.table
    found = made.predictions
    assert found[["utterance_id", "modality"]].equals(wanted[["utterance_id", "modality"]])
    assert set(found["modality"]) == {SPEECH, BOTH}
    names = {"/".join(cell) for cell in room[1].cells} | {f"overall/{SPEECH}", f"overall/{BOTH}"}
    dev = made.rows[-1]["dev"]
    assert set(dev["gaps"]) == names and dev["n"] == len(found) == len(wanted)
    logp = found.set_index(["utterance_id", "modality"])[[f"logp_{label}" for label in LABELS]]
    both = logp.xs(BOTH, level=1)
    assert np.abs(logp.xs(SPEECH, level=1).loc[both.index] - both).to_numpy().max() > 1e-3


# Without transcripts ------------------------------------------------------------------------------


def corpus(folder, transcripts: list[str]) -> Config:
    """A configuration of eight noises with these transcripts."""
    rows, random = ["path,language,emotion,gender,speaker,transcript"], np.random.default_rng(0)
    for i, text in enumerate(transcripts):
        soundfile.write(folder / f"{i}.wav", random.normal(0, 0.1, 4000), 16000)
        gender, emotion = ("female", "male")[i % 2], ("joy", "anger")[i // 2 % 2]
        rows.append(f"{i}.wav,en,{emotion},{gender},s{i},{text}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return Config().replace(SETTINGS | {"data.corpora": [f"manifest={folder}"]})


def test_missing_and_overlong_transcripts_are_counted_in_words(tmp_path):
    config = corpus(tmp_path, ["one", "", "three", " ", "five", "six", "seven " * 300, ""])
    said = make_plan(config).description
    assert "3 utterances have no transcript and are left out of speech+text" in said
    assert "1 transcripts are cut to their first 1000 characters" in said
    alone = make_plan(config.replace({"data.modalities": [SPEECH]})).description
    assert "transcript" not in alone


def test_no_transcript_at_all_is_refused_with_what_to_write(tmp_path):
    with pytest.raises(UserError, match="no utterance has a transcript") as problem:
        make_plan(corpus(tmp_path, [""] * 8))
    text = str(problem.value)
    assert "data.modalities: [speech]" in text and "\n" not in text and text.endswith(".")


def test_a_language_that_the_prompt_has_no_text_for_is_refused_before_anything_trains(tmp_path):
    prompt = tmp_path / "own.yaml"
    prompt.write_text("prompts: {own: {speech: {de: '{audio} {labels}?'}}}")
    config = corpus(tmp_path, ["one"] * 8).replace({"data.modalities": [SPEECH]})
    with pytest.raises(UserError, match="no text for speech in en; add one") as problem:
        make_plan(config.replace({"backbone.prompt": str(prompt)}))
    assert "\n" not in str(problem.value)
    prompt.write_text("prompts: {own: {speech: '{audio} {labels}?'}}")
    assert "8 utterances" in make_plan(config.replace({"backbone.prompt": str(prompt)})).description


def test_a_language_without_transcripts_has_no_cell_with_text(table):
    mute = table.assign(transcript=table["transcript"].where(table["language"] == "en", None))
    assert cells_of(mute, [SPEECH, BOTH]) == [("de", SPEECH), ("en", SPEECH), ("en", BOTH)]
    held = in_modalities(mute, [SPEECH, BOTH])
    assert set(held.loc[held["modality"] == BOTH, "language"]) == {"en"}
