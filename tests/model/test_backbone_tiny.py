"""The random backbone has the true structure; a folder is built once, and again when damaged."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ermgap.errors import UserError
from ermgap.model import cached_folder
from ermgap.model.backbones import BACKBONES, random_tiny

MELD = "anger disgust fear joy neutral sadness surprise".split()


@dataclass(frozen=True)
class Settings:
    """What a backbone reads of `ermgap.config.Backbone`."""

    layers: int = 2
    window_s: int = 2
    path: str | None = None
    revision: str | None = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    random_tiny.save(path, layers=2, window_s=2)
    return path


def test_labels_have_first_tokens_that_differ(folder):
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    for prefix in ("", " "):
        assert len({words(prefix + label)["input_ids"][0] for label in MELD}) == 7
    assert words.decode(words(" joy, 42 ü 日本")["input_ids"]) == " joy, 42 ü 日本"


def test_it_is_a_qwen2_audio_that_listens(folder):
    import numpy as np
    import torch
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    noise = np.random.default_rng(0).normal(size=(2, 20000)).astype(np.float32)
    text = "<|audio_bos|><|AUDIO|><|audio_eos|>Emotion:"
    logits = []
    for samples in noise:
        inputs = processor(text=text, audio=samples, sampling_rate=16000, return_tensors="pt")
        mel_frames = 125  # 20,000 samples in hops of 160
        assert (inputs["input_ids"] == model.config.audio_token_id).sum() == (
            ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1
        )
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_both_builds_are_equal_whatever_the_random_state(tmp_path):
    import torch
    from safetensors.torch import load_file

    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random_tiny.save(tmp_path / str(seed), layers=1, window_s=2)
        made.append(load_file(tmp_path / str(seed) / "model.safetensors"))
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_windows_and_depths_have_folders_of_their_own(isolated_cache):
    build = BACKBONES.find("random-tiny")
    folders = {build(Settings()), build(Settings(window_s=4)), build(Settings(layers=1))}
    assert len(folders) == 3
    assert build(Settings()) in folders
    with pytest.raises(UserError, match="window_s"):
        build(Settings(window_s=31))


def test_the_paper_s_model_is_the_hub_s_id_or_a_folder_that_holds_a_model(folder, tmp_path):
    find = BACKBONES.find("qwen2-audio-7b")
    assert find(Settings()) == "Qwen/Qwen2-Audio-7B-Instruct"
    assert find(replace(Settings(), path=str(folder))) == folder
    with pytest.raises(UserError, match="holds no config.json"):
        find(replace(Settings(), path=str(tmp_path / "nothing")))


# -- built once ------------------------------------------------------------------------------


def _fake(path: Path, *, content: bytes = b"weights" * 1000) -> None:
    (path / "model.safetensors").write_bytes(content)
    (path / "config.json").write_text("{}")
    with (path.parent / "builds.log").open("a") as log:
        log.write("built\n")


def _builds(cache: Path) -> int:
    return len((cache / "backbones" / "builds.log").read_text().splitlines())


def test_an_intact_folder_is_not_built_again_and_not_hashed(isolated_cache, monkeypatch):
    folder = cached_folder.build_once("one", build=_fake)
    monkeypatch.setattr(cached_folder, "sha256", lambda path: pytest.fail("hashed for nothing"))
    assert cached_folder.build_once("one", build=_fake) == folder
    assert _builds(isolated_cache) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "no marker", "broken marker"])
def test_a_damaged_folder_is_noticed_and_built_again(isolated_cache, damage):
    folder = cached_folder.build_once("one", build=_fake)
    model, marker = folder / "model.safetensors", folder / cached_folder.MARKER
    whole = model.read_bytes()
    if damage == "truncated":
        model.write_bytes(whole[:100])
    elif damage == "flipped":
        model.write_bytes(b"W" + whole[1:])
        os.utime(model, ns=(0, 1))
    elif damage == "broken marker":
        marker.write_text("{")
    else:
        {"gone": model, "no marker": marker}[damage].unlink()
    with pytest.warns(UserWarning, match="damaged"):
        cached_folder.build_once("one", build=_fake)
    assert model.read_bytes() == whole and _builds(isolated_cache) == 2


def test_a_copied_folder_is_recognised_by_its_bytes(isolated_cache):
    folder = cached_folder.build_once("one", build=_fake)
    os.utime(folder / "model.safetensors", ns=(0, 1))
    cached_folder.build_once("one", build=_fake)
    assert _builds(isolated_cache) == 1


def test_a_folder_whose_marker_has_its_earlier_name_is_not_built_again(isolated_cache):
    folder = cached_folder.build_once("one", build=_fake)
    (folder / cached_folder.MARKER).rename(folder / cached_folder.OLD_MARKER)
    cached_folder.build_once("one", build=_fake)
    assert _builds(isolated_cache) == 1


def test_a_build_that_fails_leaves_nothing_behind(isolated_cache):
    def fail(path: Path) -> None:
        _fake(path)
        raise UserError("no weights")

    with pytest.raises(UserError, match="no weights"):
        cached_folder.build_once("one", build=fail)
    left = {path.name for path in (isolated_cache / "backbones").iterdir()}
    assert left == {"one.lock", "builds.log"}


def _slowly(path: Path) -> None:
    time.sleep(0.3)
    _fake(path)


def test_any_worker_of_a_group_may_build_it(tmp_path):
    """transformers writes on rank 0 alone; on a cluster each machine may have its own cache."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        random_tiny.save(tmp_path, layers=1, window_s=1)
    finally:
        dist.destroy_process_group()
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}


def test_processes_that_ask_at_once_build_once(isolated_cache):
    context = multiprocessing.get_context("fork")
    asking = [
        context.Process(target=cached_folder.build_once, args=("one",), kwargs={"build": _slowly})
        for _ in range(3)
    ]
    for process in asking:
        process.start()
    for process in asking:
        process.join(30)
    assert [process.exitcode for process in asking] == [0, 0, 0]
    assert _builds(isolated_cache) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ERMGAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set ERMGAP_CACHE"):
        cached_folder.build_once("one", build=_fake)
