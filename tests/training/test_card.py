"""An adapter's card says what it is and where it fails, and tells nothing of the machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from fake_sweep import LABELS, predictions, utterances

from ermgap import config, metrics
from ermgap.config import Config, losses
from ermgap.errors import UserError
from ermgap.training import model_card

SECRET = "/secret/home/me"
TEXTS = {"speech": {"": "<|audio|>{audio} Emotion?", "no": "<|audio|>{audio} Følelse?"}}


def table(**changes) -> pd.DataFrame:
    frame = utterances().assign(synthetic=False, path=f"{SECRET}/clip.wav", **changes)
    return frame.assign(split=["train", "train", "dev", "dev", "train"] * (len(frame) // 5))


def facts(changes: dict | None = None, *, utterances: pd.DataFrame | None = None, **given):
    frame = table() if utterances is None else utterances
    heard = predictions(frame, right=0.6, handicap=0.2, seed=0)
    dev = metrics.evaluate(heard[heard["split"] == "dev"], labels=LABELS, min_support=1)
    settings = {
        "data.corpora": [f"emodb={SECRET}/emodb", "demo"],
        "data.labels": list(LABELS),
        "backbone.path": f"{SECRET}/models/small",
        "objective.loss": "minmaxgap",
        "objective.lambda_max": 0.25,
        "plugins": [f"{SECRET}/mine.py"],
    }
    values = {
        "trial_id": "t0004",
        "config": Config().replace(settings | (changes or {})),
        "utterances": frame,
        "dev": dev,
        "epoch": 3,
        "base": f"{SECRET}/cache/small",
        "prompt": TEXTS,
    }
    return model_card.CardFacts(**(values | given))


def written(folder, one) -> tuple[str, dict]:
    model_card.write(folder, facts=one)
    return (folder / "README.md").read_text(encoding="utf-8"), model_card.read(folder)


def test_a_machine_can_rebuild_the_run_from_what_is_written(tmp_path):
    one = facts()
    _, values = written(tmp_path / "t0004", one)
    assert values["adapter"] == json.loads(json.dumps(one.config.to_dict()["adapter"]))
    assert values["backbone"] == one.config.to_dict()["backbone"] | {"path": None}
    assert values["objective"]["lambda_max"] == 0.25 and values["epoch"] == 3
    assert values["data"]["labels"] == list(LABELS) and values["data"]["modalities"] == ["speech"]
    assert values["prompt"]["texts"] == TEXTS and values["format"] == model_card.FORMAT
    assert values["dev"]["gaps"]["de/speech"]["avg"] == one.dev["gaps"]["de/speech"]["avg"]


def test_the_hub_reads_the_metadata(tmp_path):
    from huggingface_hub import ModelCard

    written(tmp_path, one := facts({"backbone.name": "qwen2-audio-7b"}))
    data = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False).data
    assert data.base_model == "Qwen/Qwen2-Audio-7B-Instruct"
    assert (data.library_name, data.pipeline_tag) == ("peft", "audio-classification")
    assert data.language == ["de", "en", "ja"] and "lora" in data.tags
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["accuracy"] == pytest.approx(one.dev["acc"], abs=1e-4)
    assert found["max_gender_gap"] == pytest.approx(one.dev["max_gap"], abs=1e-4)


def test_norwegian_is_a_language_and_an_unknown_score_is_left_out(tmp_path):
    frame = table(language="no", gender="female")
    page, values = written(tmp_path, facts(utterances=frame))
    front = yaml.safe_load(page.split("---")[1])
    assert front["language"] == ["no"]
    names = [metric["type"] for metric in front["model-index"][0]["results"][0]["metrics"]]
    assert names == ["accuracy", "f1"] and values["dev"]["max_gap"] is None
    assert "Largest gap – in –" in page and not re.search(r"\bnan\b", page)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone.name": "random-tiny", "backbone.prompt": f"{SECRET}/prompts.yaml"},
        {"backbone.name": "qwen2-audio-7b", "data.genders": f"{SECRET}/genders.csv"},
        {"data.corpora": [f"manifest={SECRET}/mine", f"hf={SECRET}/set"]},
    ],
)
def test_no_path_of_the_training_machine_is_told(tmp_path, changes):
    frame = table().assign(corpus=f"{SECRET}/odd")
    page, values = written(tmp_path, facts(changes, utterances=frame))
    for text in (page, json.dumps(values)):
        assert "secret" not in text and "/me" not in text
    one = facts(changes)
    assert "secret" not in one.base_name


def test_the_page_counts_utterances_and_shows_every_gap_with_both_genders_n(tmp_path):
    one = facts()
    twice = pd.concat([one.utterances.assign(modality=m) for m in ("speech", "speech+text")])
    page, _ = written(tmp_path, facts(utterances=twice, dev=one.dev))
    frame = one.utterances
    part = frame[(frame["split"] == "dev") & (frame["language"] == "ja")]
    part = part[part["gender"] == "male"]
    assert f"| dev | ja | male | {len(part)} | {part['speaker'].nunique()} |" in page
    for cell, gaps in one.dev["gaps"].items():
        assert f"| {cell} | {gaps['n_female']} | {gaps['n_male']} | {100 * gaps['tpr']:.1f}" in page
    assert f"Largest gap {100 * one.dev['max_gap']:.1f} in {one.dev['worst_cell']}" in page
    assert f"worst group {one.dev['worst_group']}" in page
    assert f"{frame['speaker'].nunique()} speakers are in both train and dev" in page
    assert "Epoch 3, the one with the best dev w_f1" in page and "optimistic" in page


@pytest.mark.parametrize("loss", ["erm", "minmaxgap", "vrex", "groupdro", "reweight"])
def test_the_objective_is_told_in_words_and_as_configured(tmp_path, loss):
    page, _ = written(tmp_path, facts({"objective.loss": loss, "objective.schedule": "linear"}))
    assert f"`{loss}`: {losses.LOSSES[loss].formula}" in page and "| `lambda_max` | 0.25 |" in page
    assert ("λ is 0 until the share" in page) == (loss in ("minmaxgap", "vrex"))


def test_caveats_name_acted_synthetic_and_inferred_and_a_constant_model(tmp_path):
    page, _ = written(tmp_path / "a", facts())
    assert "Speech of emodb is acted" in page and "ynthetic" not in page
    frame = table(corpus="demo").assign(synthetic=True)
    page, _ = written(tmp_path / "b", facts(utterances=frame))
    assert "**Synthetic, not human speech:** demo" in page and "no claim about people" in page
    page, _ = written(tmp_path / "c", facts({"data.corpora": [f"meld_st={SECRET}"]}))
    assert "inferred from the characters" in page
    page, _ = written(tmp_path / "d", facts(dev=facts().dev | {"acc": 0.1}))
    assert "its gaps mean nothing" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no ermgap.json; name an adapter's folder"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": "x"}', "is damaged"),
        ('{"format": 99, "ermgap": "9.0"}', "by ERM-GAP 9.0, in format 99.*update"),
        ('{"format": 1}', "is damaged .no backbone"),
        ('{"format": 1, "backbone": 3}', "is damaged"),
    ],
)
def test_a_folder_that_cannot_serve_is_refused_in_one_sentence(tmp_path, text, words):
    if text is not None:
        (tmp_path / "ermgap.json").write_text(text)
    with pytest.raises(UserError, match=words):
        model_card.read(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        model_card.read(tmp_path / "nowhere")


def test_equal_texts_have_equal_versions():
    assert model_card.text_version(TEXTS) == model_card.text_version(json.loads(json.dumps(TEXTS)))
    assert model_card.text_version(TEXTS) != model_card.text_version(
        {"speech": {"": "other {audio}"}}
    )


def test_writing_a_card_loads_neither_torch_nor_ray(root):
    program = "import sys, ermgap.training.model_card; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def blocks(page: str) -> dict[str, str]:
    """The code of a page by its language."""
    return {name: code for name, code in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)}


@pytest.mark.parametrize("projector", [True, False])
def test_the_card_s_own_words_load_the_adapter_with_transformers_and_peft(tmp_path, projector):
    import tiny_run
    from safetensors.torch import load_file

    speech = tiny_run.speech()
    speech.reset_adapter(config.Adapter(r=2, train_projector=projector), seed=3)
    one = facts({"backbone.name": "random-tiny", "backbone.window_s": tiny_run.WINDOW_S})
    page, _ = written(tmp_path, one)
    model_card.save(tmp_path, speech.adapters[0], facts=one)
    assert "not peft's `AutoPeftModel`" in page
    command = re.search(
        r"`python (-m ermgap.model.backbones .*)` prints the folder BACKBONE", page
    )[1]
    run = [sys.executable, *command.split()]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    folder = re.search(r"backbone: (.*)", said)[1]
    code = blocks(page)["python"].replace("BACKBONE", folder).replace("DIR", str(tmp_path))
    scope: dict = {}
    exec(code, scope)
    loaded = {
        name.replace(".modules_to_save.default", "").replace(".default", ""): value
        for name, value in scope["model"].state_dict().items()
    }
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert any("projector" in name for name in held) == projector
    assert [name for name, value in held.items() if not loaded[name].equal(value)] == []


def test_a_base_on_the_hub_is_loaded_by_auto_peft_model_at_its_revision(tmp_path):
    import tiny_run
    from peft import AutoPeftModel, PeftConfig
    from transformers import Qwen2AudioForConditionalGeneration as Base

    one = facts({"backbone.name": "qwen2-audio-7b", "backbone.revision": "0123abc"})
    page, _ = written(tmp_path, one)
    assert 'AutoPeftModel.from_pretrained("DIR")' in blocks(page)["python"]
    assert "BACKBONE" not in page
    speech = tiny_run.speech()
    speech.reset_adapter(config.Adapter(r=2), seed=3)
    model_card.save(tmp_path, speech.adapters[0], facts=one)
    held = PeftConfig.from_pretrained(tmp_path)
    assert (held.base_model_name_or_path, held.revision, held.task_type) == (
        "Qwen/Qwen2-Audio-7B-Instruct",
        "0123abc",
        None,
    )
    wanted = {}
    with pytest.MonkeyPatch.context() as patch:

        def stop(name, **given):
            wanted.update(given, name=name)
            raise InterruptedError

        patch.setattr(Base, "from_pretrained", stop)
        with pytest.raises(InterruptedError):
            AutoPeftModel.from_pretrained(str(tmp_path))
    assert (wanted["name"], wanted["revision"]) == (held.base_model_name_or_path, "0123abc")
