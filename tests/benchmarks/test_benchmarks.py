"""The benchmarks measure what they say: counted FLOP, one model on both sides, and they run."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCH = Path(__file__).parent
sys.path.insert(0, str(BENCH))

import flops  # noqa: E402
import peer_data  # noqa: E402
import peer_trainer  # noqa: E402
import report  # noqa: E402
import shapes  # noqa: E402
import tiny_run  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from ermgap import config  # noqa: E402
from ermgap.model import prompts, qwen2_audio  # noqa: E402
from ermgap.model.batches import IndexedUtterances  # noqa: E402
from ermgap.model.features.audio_tower import tower_output  # noqa: E402

WINDOW = 200  # log-mel frames: 2 s
ADAPTER = config.Adapter(r=4, dropout=0.0)
ABSENT = ("ray", "optuna", "datasets", "scipy", "soundfile", "gguf", "matplotlib", "moocore")


@pytest.fixture
def shape() -> shapes.Shape:
    """The tiny shape with a window of two seconds."""
    tiny = shapes.SHAPES["tiny"]
    audio = tiny.audio | {"max_source_positions": WINDOW // 2}
    return dataclasses.replace(tiny, audio=audio, prefix=4, suffix=5)


@pytest.fixture
def data(shape) -> peer_data.RandomData:
    """Six utterances whose answers have two to four tokens, the end token included."""
    frames = np.array([60, 200, 121, 35, 90, 90])
    label = np.array([0, 1, 2, 3, 4, 5])
    return peer_data.RandomData(
        frames, label, prompt=shape.prompt(), mel=shape.audio["num_mel_bins"], window=WINDOW
    )


def ours(shape, data, *, dtype: str):
    """Our side of `data`: the model with an adapter, and the examples over its own features."""
    model = shapes.random_model(shape, device="cpu", dtype=dtype)
    asked = data.train(list(range(len(data))))
    with torch.no_grad():
        output, valid = tower_output(
            model.model.audio_tower, asked["input_features"], asked["feature_attention_mask"]
        )
    table = shapes.random_table(len(data), 0)
    table["emotion"] = [shapes.LABELS[i] for i in data.label]
    names = table["utterance_id"].tolist()
    store = shapes.RandomStore(
        {name: int(n) for name, n in zip(names, valid, strict=True)}, dim=32, dtype=dtype
    )
    held = {n: out[:count] for n, out, count in zip(names, output, valid.tolist(), strict=True)}
    store.tensor = held.__getitem__
    settings = config.Backbone(name="random-tiny", dtype=dtype)
    speech = qwen2_audio.SpeechLLM(model, None, None, shape.prompt(), settings)
    speech.reset_adapter(ADAPTER, seed=0)
    cells = [("de", "speech"), ("en", "speech")]
    examples = IndexedUtterances(
        table, store=store, prompt=shape.prompt(), labels=shapes.LABELS, cells=cells
    )
    return speech, examples


def counted(work) -> int:
    """Operations of every matrix product and convolution that torch sees."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_the_plain_paths_count_is_torchs_own_to_the_operation(shape, data):
    model = shapes.random_model(shape, device="cpu", dtype="float32")
    # Fused attention on a CPU is a kernel that torch's counter does not know.
    for part in (model.model.audio_tower, model.model.language_model):
        part.set_attn_implementation("eager")
    model = peer_trainer.adapted(model, ADAPTER).train()
    batch = data.train(list(range(len(data))))
    seen = counted(lambda: model(**batch, use_cache=False).loss.backward())
    sizes = flops.Sizes.of(shape.config())
    parts = flops.plain(sizes, [data.batches[-1]], rank=4, targets=flops.TARGETS)
    assert sum(parts.values()) == seen


@pytest.mark.parametrize("over", ["answer", "labels"])
def test_no_operation_is_claimed_for_ours_that_is_not_performed(shape, data, over):
    speech, examples = ours(shape, data, dtype="float32")
    speech.training = True
    answers = over == "answer"
    batch = examples.batch(range(len(data)), answers=answers, device="cpu", dtype=torch.float32)
    seen = counted(lambda: speech.losses(batch, over=over).sum().backward())
    sizes = flops.Sizes.of(shape.config())
    work = flops.Work.of(shape.prompt(), examples.audio_length, examples.label, answers=answers)
    head = sizes.vocab if answers else len(shapes.LABELS)
    parts = flops.needed(sizes, work, rank=4, targets=flops.TARGETS, head=head)
    # Attention may be a kernel that the counter does not know; it is left out of the claim.
    assert sum(parts.values()) - parts["attention"] <= 1.001 * seen
    assert sum(parts.values()) > 0.5 * seen


def test_tokens_of_the_arithmetic_are_those_of_the_batch(shape, data):
    _, examples = ours(shape, data, dtype="float32")
    work = flops.Work.of(shape.prompt(), examples.audio_length, examples.label, answers=True)
    asked = data.train(list(range(len(data))))
    # The plain path also reads the end token, which nothing follows.
    assert (np.array(work.tokens) == asked["attention_mask"].sum(1).numpy() - 1).all()
    assert list(work.answers) == (asked["labels"] != peer_data.IGNORE).sum(1).tolist()


def test_both_sides_have_the_same_loss_and_the_same_gradient_of_the_projector(shape, data):
    speech, examples = ours(shape, data, dtype="float64")
    peer = peer_trainer.adapted(shapes.random_model(shape, device="cpu", dtype="float64"), ADAPTER)
    for row in range(len(data)):
        theirs = peer(**data.train([row])).loss
        batch = examples.batch([row], answers=True, device="cpu", dtype=torch.float64)
        mine = speech.losses(batch, over="answer").flatten()
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-6)
        mine.sum().backward()
        theirs.backward()
    named = [
        (n, p.grad) for n, p in peer.named_parameters() if "projector" in n and p.grad is not None
    ]
    for (name, wanted), kind in zip(named, ("weight", "bias"), strict=True):
        found = [p.grad for n, p in speech.trainable() if "projector" in n and n.endswith(kind)]
        assert name.endswith(kind)
        # transformers computes rotary angles and norms in float32 whatever the model's dtype
        scale = wanted.abs().max().item()
        torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-5 * scale)


def test_the_plain_path_reads_the_prompt_that_ours_reads(tmp_path):
    from transformers import Qwen2AudioProcessor

    table = tiny_run.tones(tmp_path, train=1, dev=1)
    speech = tiny_run.speech()
    folder = speech.model.name_or_path
    data = peer_data.SpeechData(
        table, Qwen2AudioProcessor.from_pretrained(folder),
        template=prompts.PROMPTS["short"]["speech"][""],
        labels=tiny_run.LABELS, window_s=tiny_run.WINDOW_S,
    )  # fmt: skip
    made = data.train(list(range(6)))
    for row in range(6):
        ids = made["input_ids"][row][made["attention_mask"][row] == 1].tolist()
        answer = list(speech.prompt.answers[data.label[row]])
        audio = ids.count(speech.prompt.audio)
        wanted = [*speech.prompt.prefix, *[speech.prompt.audio] * audio, *speech.prompt.suffix]
        assert audio > 0 and ids == wanted + answer
        kept = made["labels"][row]
        assert kept[kept != peer_data.IGNORE].tolist() == answer
    asked = data.ask([0, 1])["input_ids"]
    assert asked[:, -1].tolist() == [speech.prompt.suffix[-1]] * 2


def test_lengths_have_the_stated_mean_and_tail():
    length = shapes.seconds(200_000, seed=0)
    assert length.mean() == pytest.approx(3.6, rel=0.01)
    assert (length > 9).mean() == pytest.approx(0.05, rel=0.05)


def test_a_run_that_ended_early_counts_as_five_of_its_epochs():
    one = {
        "train_seconds": [10.0, 12.0, 11.0], "eval_seconds": [4.0, 4.0, 4.0], "load_seconds": 5.0,
        "utterances": 100, "dev": 50, "flop": {"head": 1000}, "flop_utterances": 100,
        "padded_tokens": 7.0, "peak_memory_mb": 1.0,
    }  # fmt: skip
    rates = report.rates(one, {"float32": 1000.0}, dtype="float32", skip_first=False)
    assert rates["run_seconds"] == 5 + 5 * (10 + 4)
    assert rates["run_utterances_per_second"] == 500 / 75
    assert rates["train_tokens_per_second"] == pytest.approx(700 / 10)
    assert rates["share_of_peak"] == pytest.approx(1000 / 10 / 1000)
    assert report.rates(one, {}, dtype="float32", skip_first=True)["run_seconds"] == 5 + 5 * 15


@pytest.mark.slow
def test_the_bench_runs_with_torch_transformers_and_peft_alone(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.machinery as machinery\n"
        "real = machinery.PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        f"    absent = name.split('.')[0] in {ABSENT!r}\n"
        "    return None if absent else real(name, path, target)\n"
        "machinery.PathFinder.find_spec = staticmethod(find_spec)\n"
    )
    out = tmp_path / "out.json"
    ended = subprocess.run(
        [sys.executable, str(BENCH / "bench_step.py"), "--shape", "tiny", "--threads", "1",
         "--only", "peak", "plain", "ladder", "ours", "--epochs", "1",
         "--train", "16", "--dev", "8", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "ERMGAP_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    content = json.loads(out.read_text())
    for name in ("plain", "ours"):
        run = content["summary"]["runs"][name]
        assert run["train_utterances_per_second"] > 0 and 0 < run["share_of_peak"]
        assert run["peak_memory_mb"] > 50
    assert [f["rung"] for f in content["summary"]["factors"]][:2] == [
        "plain path", "without Trainer and processor",
    ]  # fmt: skip
    assert content["machine"]["versions"]["torch"] == torch.__version__
    assert "float32" in content["measured"]["peak"]
