"""Our backbones in the table: what they answer there is what training and the records hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_run
from saved_adapters import saved
from tiny_run import LABELS, WINDOW_S, Trained, job

from ermgap.baselines import SYSTEMS, Context, ours, parse
from ermgap.config import Config
from ermgap.distributed import World
from ermgap.errors import UserError
from ermgap.model import prompts
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features import store as features
from ermgap.records import Storage
from ermgap.training import model_card
from ermgap.training.context import TrainingContext
from ermgap.training.evaluation import label_log_probabilities

LOGP = [f"logp_{label}" for label in LABELS]
BACKBONE = {"backbone.name": "random-tiny", "backbone.window_s": WINDOW_S}
BACKBONE |= {"backbone.dtype": "float32"}
BOTH = ["speech", "speech+text"]


def context(folder: Path, **changes) -> Context:
    """Of a benchmark over the tones; keys of the configuration with __ for the dot."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    made = Config().replace(
        {"data.labels": list(LABELS), "data.modalities": BOTH} | BACKBONE | given
    )
    return Context(made.data.labels, made, "cpu", folder)


def system(spec: str, given: Context):
    word, argument = parse(spec)
    return SYSTEMS.find(word)(argument, given)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A feature store of this module's own; the backbone is found in the user's cache."""
    original, folder = features.ensure, tmp_path_factory.mktemp("features")

    def ensure(*given, **options):
        return original(*given, **options | {"cache": folder})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "ensure", ensure)
        yield folder


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    tones = tiny_run.tones(tmp_path_factory.mktemp("tones"), train=2, dev=1)
    return tones.assign(transcript=[f"clip, number {i}" for i in range(len(tones))])


@pytest.fixture(scope="module")
def dev(table) -> pd.DataFrame:
    return table[table["split"] == "dev"].reset_index(drop=True)


def examples(part: pd.DataFrame, speech, modalities, *, cells=None) -> IndexedUtterances:
    store = ours.features_of(speech, part)
    cells = cells or cells_of(part, modalities)
    return IndexedUtterances(part, store=store, prompt=speech.prompt, labels=LABELS, cells=cells)


def trained(table: pd.DataFrame, place: Path, modalities: list[str]) -> tuple[Path, Trained]:
    """A tiny run with its card: the adapter's folder, and what the run left."""
    speech = tiny_run.speech("float32")
    cells = cells_of(table, modalities)
    splits = [
        examples(table[table["split"] == split], speech, modalities, cells=cells)
        for split in ("train", "dev")
    ]
    one = job(BACKBONE | {"data.modalities": modalities, "train.epochs": 2})
    run = Trained((speech, TrainingContext(*splits, cells, Storage(place))), one, place)
    return tiny_run.with_card(run, one, table, place), run


@pytest.fixture(scope="module")
def of_both(table, tmp_path_factory):
    return trained(table, tmp_path_factory.mktemp("both"), BOTH)


@pytest.fixture(scope="module")
def of_speech(table, tmp_path_factory):
    return trained(table, tmp_path_factory.mktemp("speech"), ["speech"])


# zero-shot ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", BOTH)
def test_zero_shot_is_the_backbone_s_own_probabilities(dev, tmp_path, modality):
    made = system("zero-shot", context(tmp_path)).predict(dev, modality=modality)
    speech = tiny_run.speech("float32")
    given = examples(dev, speech, [modality])
    wanted = label_log_probabilities(speech, given, world=World(), batch=3)[0]
    np.testing.assert_allclose(made[LOGP], wanted, atol=1e-5)
    assert list(made["utterance_id"]) == list(dev["utterance_id"])
    assert list(made["prediction"]) == [LABELS[i] for i in wanted.argmax(1)]
    assert set(made["modality"]) == {modality}
    assert np.abs(np.exp(made[LOGP]).sum(axis=1) - 1).max() < 1e-5


def test_the_transcript_counts_in_speech_and_text_alone(dev, tmp_path):
    one = system("zero-shot", context(tmp_path))
    other = dev.assign(transcript="quite another sentence")
    heard = [one.predict(part, modality="speech")[LOGP] for part in (dev, other)]
    read = [one.predict(part, modality="speech+text")[LOGP] for part in (dev, other)]
    pd.testing.assert_frame_equal(*heard)
    assert np.abs(read[0] - read[1]).to_numpy().max() > 1e-3


def test_zero_shot_of_another_backbone_is_named_by_it(dev, tmp_path):
    given = context(tmp_path, backbone__name="qwen2-audio-7b")
    assert system("zero-shot=random-tiny", given).name == "random-tiny, zero-shot"
    with pytest.raises(UserError, match="random-tiny"):
        system("zero-shot=random-tinny", given)


def test_it_says_what_it_is_about_to_do(dev, tmp_path):
    said: list[str] = []
    system("zero-shot", context(tmp_path)).predict(dev, modality="speech", note=said.append)
    assert f"random-tiny, zero-shot: {len(dev)} utterances, speech" in said


# adapter=DIR --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", BOTH)
def test_an_adapter_answers_as_its_run_recorded(of_both, dev, tmp_path, modality):
    folder, run = of_both
    made = system(f"adapter={folder}", context(tmp_path)).predict(dev, modality=modality)
    stored = run.predictions[run.predictions["modality"] == modality].set_index("utterance_id")
    stored = stored.loc[made["utterance_id"]].reset_index()
    np.testing.assert_allclose(made[LOGP], stored[LOGP], atol=1e-5)
    same = ["utterance_id", "language", "modality", "gender", "speaker", "group", "split", "label"]
    pd.testing.assert_frame_equal(made[same], stored[same])
    assert (made["prediction"] == stored["prediction"]).all()
    zero = system("zero-shot", context(tmp_path)).predict(dev, modality=modality)
    assert np.abs(made[LOGP] - zero[LOGP]).to_numpy().max() > 1e-2, "nothing was learnt"


def test_the_backbone_and_the_prompt_are_the_adapter_s_own(of_both, dev, tmp_path, monkeypatch):
    folder, _ = of_both
    plain = system(f"adapter={folder}", context(tmp_path)).predict(dev, modality="speech")
    monkeypatch.setitem(prompts.PROMPTS, "short", {"speech": {"": "Other {audio}"}})
    other = context(tmp_path, backbone__name="small", backbone__window_s=4)
    again = system(f"adapter={folder}", other).predict(dev, modality="speech")
    pd.testing.assert_frame_equal(plain, again)


def test_labels_in_another_order_give_the_same_answers(of_both, dev, tmp_path):
    folder, _ = of_both
    turned = context(tmp_path, data__labels=list(LABELS[::-1]))
    made = [
        system(f"adapter={folder}", given).predict(dev, modality="speech")
        for given in (context(tmp_path), turned)
    ]
    pd.testing.assert_frame_equal(*made)


@pytest.mark.parametrize("labels", [["anger", "joy"], ["anger", "joy", "fear"]])
def test_an_adapter_of_other_labels_is_refused(of_both, tmp_path, labels):
    with pytest.raises(UserError, match=r"anger, joy, bored.*data\.labels"):
        system(f"adapter={of_both[0]}", context(tmp_path, data__labels=labels))


def test_an_adapter_of_speech_alone_is_asked_in_speech_alone(of_speech, tmp_path):
    one = system(f"adapter={of_speech[0]}", context(tmp_path))
    assert one.modalities == ("speech",)
    with pytest.raises(UserError, match=r"trained on speech and .*data\.modalities"):
        system(f"adapter={of_speech[0]}", context(tmp_path, data__modalities=["speech+text"]))


def test_an_adapter_needs_its_folder(of_both, tmp_path):
    with pytest.raises(UserError, match="adapter=DIR"):
        system("adapter", context(tmp_path))
    with pytest.raises(UserError, match="gone"):
        system(f"adapter={tmp_path / 'gone'}", context(tmp_path))


def test_a_copy_of_the_weights_on_disk_is_used_instead_of_the_hub_s(of_both, tmp_path, monkeypatch):
    told = model_card.read(of_both[0])
    as_paper = told | {"backbone": told["backbone"] | {"name": "qwen2-audio-7b", "revision": None}}
    monkeypatch.setattr(model_card, "read", lambda folder: as_paper)
    given = context(tmp_path, backbone__name="qwen2-audio-7b", backbone__path=str(tmp_path))
    assert ours.adapter_config(str(of_both[0]), given).backbone.path == str(tmp_path)
    hub = dataclasses.replace(given, config=given.config.replace({"backbone.path": None}))
    assert ours.adapter_config(str(of_both[0]), hub).backbone.path is None


# dial=POSITION:LOWER:UPPER ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    place = tmp_path_factory.mktemp("ends")
    made = context(place, adapter__r=3).config
    return [saved(place / f"t{number:04d}", made, seed=number) for number in (0, 7)]


def test_positions_of_a_line_are_answered_together_and_its_ends_are_the_adapters(
    ends, dev, tmp_path
):
    line = ":".join(map(str, ends))
    together = system(f"dial=0,0.7,1:{line}", context(tmp_path)).predict(dev, modality="speech")
    parts = {position: part for position, part in together.groupby("position")}
    assert list(parts) == [0.0, 0.7, 1.0]
    one = system(f"dial=0.7:{line}", context(tmp_path))
    assert one.name == "t0000-t0007@0.7"
    alone = {0.7: one.predict(dev, modality="speech").drop(columns="position")}
    for position, folder in zip((0.0, 1.0), ends, strict=True):
        given = context(tmp_path)
        alone[position] = system(f"adapter={folder}", given).predict(dev, modality="speech")
    for position, table in alone.items():
        assert list(table) == list(parts[position].drop(columns="position"))
        np.testing.assert_allclose(parts[position][LOGP], table[LOGP], atol=1e-5)


@pytest.mark.parametrize("argument", ["", "=0.7", "=0.7:a", "=0.7:a:b:c", "=:a:"])
def test_a_dial_needs_a_position_and_two_folders(argument, tmp_path):
    with pytest.raises(UserError, match=r"dial=0\.7:DIR"):
        system(f"dial{argument}", context(tmp_path))


def test_a_position_beyond_the_dial_is_a_mistake(ends, tmp_path):
    with pytest.raises(UserError, match="position 2 is not possible"):
        system(f"dial=2:{ends[0]}:{ends[1]}", context(tmp_path))
