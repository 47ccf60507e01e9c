"""Features come out of the store as the tower gives them, whatever happened to the store before."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from ermgap.errors import UserError
from ermgap.model.backbones import random_tiny
from ermgap.model.features import store as features
from ermgap.model.features.audio_tower import FeatureEncoder, tower_output

WINDOW_S = 2


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """A folder with `random-tiny`, its model and its feature extractor."""
    from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

    folder = tmp_path_factory.mktemp("tiny")
    random_tiny.save(folder, layers=1, window_s=WINDOW_S)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    return folder, model, WhisperFeatureExtractor.from_pretrained(folder)


def _clips(folder: Path, count: int, *, seed: int = 0) -> pd.DataFrame:
    """A table of `count` noise clips of 0.1 to 2.4 s; the first is longer than the window."""
    random, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        length = random.uniform(0.1, 2.4) if i else 2.4
        path = folder / f"{seed}-{i}.wav"
        soundfile.write(path, 0.1 * random.normal(size=int(16000 * length)), 16000)
        rows.append((f"u{seed}-{i}", str(path), 0.0, length))
    return pd.DataFrame(rows, columns=["utterance_id", "path", "start_s", "end_s"])


def _ensure(tower, table, cache, **changes):
    _, model, extractor = tower
    told = {"revision": "r1", "window_s": WINDOW_S, "dtype": "float32", "device": "cpu"} | changes
    return features.ensure(table, model, extractor, cache=cache, **told)


def _same(first, second) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def _projected(tower, samples: list[np.ndarray]):
    """What transformers' own forward hands its projector for a padded batch, and frame counts."""
    import torch
    from transformers import AutoProcessor

    folder, model, _ = tower
    processor, seen = AutoProcessor.from_pretrained(folder), []
    inputs = processor(
        text=["<|audio_bos|><|AUDIO|><|audio_eos|>"] * len(samples), audio=samples,
        sampling_rate=16000, padding=True, return_tensors="pt",
    )  # fmt: skip
    projector = model.model.multi_modal_projector
    hook = projector.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    counts = (inputs["input_ids"] == model.config.audio_token_id).sum(1)
    return seen[0], counts.tolist()


def test_features_are_what_the_model_s_own_forward_projects(tower, tmp_path):
    table = _clips(tmp_path / "wav", 12)
    store = _ensure(tower, table, tmp_path)
    samples = [soundfile.read(path, dtype="float32")[0] for path in table["path"]]
    expected, counts = _projected(tower, samples)
    assert len(set(counts)) > 3 and max(counts) == 50
    assert [len(store[name]) for name in table["utterance_id"]] == counts
    for i, name in enumerate(table["utterance_id"]):
        np.testing.assert_allclose(store[name], expected[i, : counts[i]].numpy(), rtol=0, atol=1e-5)
        assert np.array_equal(store.tensor(name).numpy(), store[name])


@pytest.mark.parametrize("batch", [2, 5])
def test_batches_of_a_gpu_give_what_single_clips_give(tower, tmp_path, batch):
    _, model, extractor = tower
    clips = list(_clips(tmp_path, 7).itertuples(index=False, name=None))
    extract = FeatureEncoder(
        model.model.audio_tower, extractor, window_s=WINDOW_S, dtype="float32", device="cpu"
    )
    alone = list(extract(clips))
    extract.batch = batch
    for one, other in zip(alone, extract(clips), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_padding_of_other_lengths_does_not_reach_a_clip(tower):
    import torch

    _, model, extractor = tower
    audio = np.random.default_rng(1).normal(size=9000).astype(np.float32)
    heard = extractor([audio], sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
    mel, mask = heard["input_features"], heard["attention_mask"]
    with torch.no_grad():
        plain, valid = tower_output(model.model.audio_tower, mel, mask)
        noisy = mel.clone()
        noisy[..., int(mask.sum()) + 3 :] = 5.0  # beyond the reach of the convolutions
        other, _ = tower_output(model.model.audio_tower, noisy, mask)
    last = int(valid[0])
    torch.testing.assert_close(plain[:, :last], other[:, :last], rtol=0, atol=1e-6)
    assert (plain - other).abs().max() > 0.01


def test_a_second_sweep_computes_only_its_new_clips(tower, tmp_path):
    first, second = _clips(tmp_path / "wav", 70), _clips(tmp_path / "wav", 9, seed=1)
    assert _ensure(tower, first, tmp_path).computed == 70
    counted = []
    both = pd.concat([first[40:], second])
    store = _ensure(tower, both, tmp_path, progress=lambda *told: counted.append(told))
    assert store.computed == 9 and counted[-1] == (39, 39) and len(store) == 39
    again = _ensure(tower, first, tmp_path, progress=lambda *_: pytest.fail("nothing was missing"))
    assert again.computed == 0 and _same(again, _ensure(tower, first, tmp_path / "other"))


def test_equal_audio_under_two_names_is_computed_once(tower, tmp_path):
    table = _clips(tmp_path / "wav", 3)
    copy = table.assign(utterance_id=table["utterance_id"] + "-copy")
    store = _ensure(tower, pd.concat([table, copy]), tmp_path)
    assert store.computed == 3 and len(store) == 6
    assert np.shares_memory(store["u0-1"], store["u0-1-copy"])


def test_other_audio_window_type_or_revision_is_another_key(tower, tmp_path):
    table = _clips(tmp_path / "wav", 4)
    folder = _ensure(tower, table, tmp_path).folder
    assert _ensure(tower, table, tmp_path, dtype="float64").folder != folder
    assert _ensure(tower, table, tmp_path, revision="r2").folder != folder
    samples, rate = soundfile.read(table["path"][2])
    soundfile.write(table["path"][2], samples[::-1], rate)
    changed = _ensure(tower, table, tmp_path)
    assert changed.computed == 1 and changed.folder == folder
    assert _ensure(tower, table.assign(start_s=0.01), tmp_path).computed == 4


def test_another_window_is_another_key(tower, tmp_path):
    from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

    table = _clips(tmp_path / "wav", 3)
    folder = _ensure(tower, table, tmp_path).folder
    random_tiny.save(tmp_path / "tiny", layers=1, window_s=1)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "tiny")
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path / "tiny")
    store = _ensure((None, model, extractor), table, tmp_path, window_s=1)
    assert store.folder != folder and store.computed == 3
    assert max(map(len, store.values())) == 25
    assert features.tower_revision(model) != features.tower_revision(tower[1])


def test_the_revision_names_the_tower_s_weights_and_nothing_else(tower):
    import copy

    import torch

    model = copy.deepcopy(tower[1])
    told = features.tower_revision(tower[1])
    with torch.no_grad():
        model.lm_head.weight.add_(1)
        assert features.tower_revision(model) == told
        model.model.audio_tower.layers[0].fc1.weight[0, 0] += 1e-3
        assert features.tower_revision(model) != told


def test_bfloat16_is_kept_as_its_bits(tower, tmp_path):
    import torch

    table = _clips(tmp_path / "wav", 3)
    full, half = _ensure(tower, table, tmp_path), _ensure(tower, table, tmp_path, dtype="bfloat16")
    for name in half:
        assert half[name].dtype == np.uint16 and half.tensor(name).dtype == torch.bfloat16
        assert torch.equal(half.tensor(name), full.tensor(name).to(torch.bfloat16))


def test_a_store_that_was_pickled_reads_the_same_files(tower, tmp_path):
    store = _ensure(tower, _clips(tmp_path / "wav", 5), tmp_path)
    sent = pickle.dumps(store)
    assert len(sent) < 3000 and _same(store, pickle.loads(sent))


# -- damage ----------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    """One bit of the last clip, size and time of the file unchanged."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[-3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _break_index(path: Path) -> None:
    path.with_suffix(".json").write_text('{"clips": ')


def _shift_index(path: Path) -> None:
    told = json.loads(path.with_suffix(".json").read_text())
    told["clips"] = {key: [first + 1, *rest] for key, (first, *rest) in told["clips"].items()}
    path.with_suffix(".json").write_text(json.dumps(told))


def _lose_data(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _break_index, _shift_index, _lose_data])
def test_a_damaged_shard_is_noticed_and_computed_again(tower, tmp_path, damage):
    table = _clips(tmp_path / "wav", 70)
    before = {name: view.copy() for name, view in _ensure(tower, table, tmp_path).items()}
    victim = min(tmp_path.rglob("*.bin"), key=lambda path: path.stat().st_size)
    lost = len(json.loads(victim.with_suffix(".json").read_text())["clips"])
    assert lost == 6
    damage(victim)
    with pytest.warns(UserWarning, match="damaged"):
        store = _ensure(tower, table, tmp_path)
    assert store.computed == lost and _same(before, store)
    assert _ensure(tower, table, tmp_path).computed == 0


def test_an_index_without_its_data_after_a_crash_is_harmless(tower, tmp_path):
    table = _clips(tmp_path / "wav", 3)
    folder = _ensure(tower, table, tmp_path).folder
    (folder / ".half.bin.tmp").write_bytes(b"half a shard")
    (folder / "orphan.bin").write_bytes(b"no index yet")
    assert _ensure(tower, table, tmp_path).computed == 0


def test_what_a_reader_has_mapped_outlives_a_rebuild(tower, tmp_path):
    table = _clips(tmp_path / "wav", 3)
    store = _ensure(tower, table, tmp_path)
    before = {name: view.copy() for name, view in store.items()}
    victim = next(tmp_path.rglob("*.bin"))
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content[:8])
    with pytest.warns(UserWarning, match="damaged"):
        _ensure(tower, table, tmp_path)
    assert _same(before, store)


def test_a_view_is_private_memory_that_never_reaches_the_file(tower, tmp_path):
    table = _clips(tmp_path / "wav", 2)
    store = _ensure(tower, table, tmp_path)
    before = store["u0-0"].copy()
    store.tensor("u0-0").zero_()
    assert np.array_equal(_ensure(tower, table, tmp_path)["u0-0"], before)


# -- bad clips -------------------------------------------------------------------------------


def test_a_clip_that_is_gone_unreadable_or_too_short_is_named(tower, tmp_path):
    table = _clips(tmp_path / "wav", 3)
    path = Path(table["path"][1])
    soundfile.write(path, np.full(200, 0.1), 16000)
    with pytest.raises(UserError, match=r"0-1\.wav of utterance u0-1 is under 0\.03 s"):
        _ensure(tower, table, tmp_path)
    path.write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"0-1\.wav"):
        _ensure(tower, table, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"0-1\.wav of utterance u0-1 cannot be read"):
        _ensure(tower, table, tmp_path)


def test_output_that_is_not_finite_is_named_and_not_stored(tower, tmp_path):
    import copy

    import torch

    broken = copy.deepcopy(tower[1])
    with torch.no_grad():
        broken.model.audio_tower.layer_norm.weight[3] = torch.nan
    table = _clips(tmp_path / "wav", 3)
    with pytest.raises(UserError, match=r"utterance u0-\d .*is not finite.*float32"):
        _ensure((None, broken, tower[2]), table, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_a_cache_that_cannot_be_written_is_named(tower, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="ERMGAP_CACHE"):
        _ensure(tower, _clips(tmp_path / "wav", 1), tmp_path / "file")
    with pytest.raises(UserError, match="choose one of float32"):
        _ensure(tower, _clips(tmp_path / "wav", 1), tmp_path, dtype="int8")


# -- several processes -----------------------------------------------------------------------

REAL = """
    from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor
    model = Qwen2AudioForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
    extractor = WhisperFeatureExtractor.from_pretrained(sys.argv[1])
"""
STAND_IN = """
    import numpy as np
    from types import SimpleNamespace
    model = extractor = None
    features.audio_tower = lambda model: SimpleNamespace(config=SimpleNamespace(d_model=4))
    class FeatureEncoder:
        def __init__(self, *_, **__): pass
        def __call__(self, clips):
            for name, *_ in clips:
                yield np.full((3, 4), float(name.split("-")[1]), np.float32)
    features.FeatureEncoder = FeatureEncoder
"""
ENSURE = """
    store = features.ensure(
        pd.read_json(sys.argv[2]), model, extractor, revision="r1", window_s=2, dtype="float32",
        device="cpu", cache=Path(sys.argv[3]),
        progress=lambda done, total: time.sleep(float(sys.argv[4])),
    )
    print("computed", store.computed, len(store), flush=True)
"""


def _child(
    tower, table: pd.DataFrame, cache: Path, *, pause: float, model: str = STAND_IN
) -> subprocess.Popen:
    """A process that calls `ensure`; its tower is a stand-in unless `model` is REAL."""
    path = cache.with_suffix(".json")
    table.to_json(path)
    start = "import sys, time\nimport pandas as pd\nfrom pathlib import Path\n"
    code = (
        start
        + "from ermgap.model.features import store as features\n"
        + textwrap.dedent(model + ENSURE)
    )
    command = [sys.executable, "-c", code, str(tower[0]), str(path), str(cache), str(pause)]
    here = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=os.environ | here, stdout=subprocess.PIPE, text=True)


def _shards(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.json"))


def _wait(condition, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_an_extraction_killed_in_the_middle_continues_where_it_was(tower, tmp_path):
    table, cache = _clips(tmp_path / "wav", 192), tmp_path / "cache"
    child = _child(tower, table, cache, pause=0.01, model=REAL)
    _wait(lambda: len(_shards(cache)) == 1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = {path: path.stat().st_mtime_ns for path in _shards(cache)}
    store = _ensure(tower, table, cache)
    assert store.computed == 192 - 64 * len(kept)
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in _shards(cache)}.items()
    assert _same(store, _ensure(tower, table, tmp_path / "fresh"))


def test_processes_at_once_share_the_work_and_each_ends_with_all(tower, tmp_path):
    table, cache = _clips(tmp_path / "wav", 256), tmp_path / "cache"
    children = [_child(tower, table, cache, pause=0.02) for _ in range(2)]
    ends = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert [end[2] for end in ends] == ["256", "256"]
    assert sum(int(end[1]) for end in ends) == 256, "no clip is computed twice"
    assert all(int(end[1]) > 0 for end in ends), "both had a part"


def test_the_shard_of_a_killed_process_is_taken_by_one_that_waits_for_it(tower, tmp_path):
    table, cache = _clips(tmp_path / "wav", 20), tmp_path / "cache"
    holder = _child(tower, table, cache, pause=60)
    _wait(lambda: list(cache.rglob("locks/*")))
    waiter = _child(tower, table, cache, pause=0)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.communicate(timeout=2)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert waiter.communicate(timeout=60)[0].split() == ["computed", "20", "20"]


def test_many_clips_make_few_files(tower, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD", 2)
    monkeypatch.setattr(features, "MOST_SHARDS", 5)
    _ensure(tower, _clips(tmp_path / "wav", 23), tmp_path)
    assert len(list(tmp_path.rglob("*.bin"))) == 5


def test_importing_the_store_imports_no_torch():
    code = "import sys, ermgap.model.features.store; print('torch' in sys.modules)"
    here = {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-c", code]
    assert subprocess.check_output(run, env=os.environ | here, text=True) == "False\n"
