"""Features over a Ray cluster: the same files as on one machine, whatever happens on the way."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
import torch

from ermgap import config
from ermgap.errors import UserError
from ermgap.model import qwen2_audio
from ermgap.model.features import store as features
from sweeps import extract
from sweeps.scheduler import extractor

CLIPS = 20
KILLER = """
# Kills the process that loads it when that begins its second chunk, once.
import os, signal
from pathlib import Path
from ermgap.model.features import audio_tower as tower

class FeatureEncoder(tower.FeatureEncoder):
    chunks = 0
    def __call__(self, clips):
        FeatureEncoder.chunks += 1
        killed = Path(__file__).with_suffix(".killed")
        if FeatureEncoder.chunks == 2 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(clips)

tower.FeatureEncoder = FeatureEncoder
"""


@pytest.fixture(scope="module")
def ray():
    """A Ray of two CPUs for all tests of this file."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(features, "SHARD", 4)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """Noise of 0.1 to 2.2 s; one row's end is not known."""
    folder, random, rows = tmp_path_factory.mktemp("wav"), np.random.default_rng(0), []
    for i in range(CLIPS):
        length = random.uniform(0.1, 2.2)
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * random.normal(size=int(16000 * length)), 16000)
        rows.append((f"u{i}", str(path), 0.0, length if i else np.nan))
    return pd.DataFrame(rows, columns=["utterance_id", "path", "start_s", "end_s"])


def _config(**changes) -> config.Config:
    backbone = {"name": "random-tiny", "window_s": 2, "dtype": "float32"}
    return config.from_dict({"backbone": backbone, "sweep": {"device": "cpu"}} | changes)


def _ensure(table: pd.DataFrame, cache: Path) -> features.FeatureStore:
    """What a sweep does with its table, in this process."""
    settings = _config()
    speech = qwen2_audio.load(
        settings.backbone, labels=settings.data.labels, device=torch.device("cpu")
    )
    revision = features.tower_revision(speech.model)
    told = {"revision": revision, "window_s": 2, "dtype": "float32", "device": "cpu"}
    return features.ensure(table, speech.model, speech.extractor, cache=cache, **told)


def _extract(
    table: pd.DataFrame, storage: Path, *, cpus: int = 2, plugins: tuple = ()
) -> extract.Extracted:
    """By one process of two CPUs, which starts sooner than two of one."""
    settings = _config(plugins=plugins)
    return extract.extract(settings, table, storage=storage, cpus=cpus, note=lambda line: None)


def _stamps(storage: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in storage.rglob("*.json")}


def test_a_sweep_finds_what_was_extracted_equal_to_the_bit(ray, table, tmp_path):
    lines = []
    made = extract.extract(_config(), table, storage=tmp_path / "shared", cpus=1, note=lines.append)
    assert (made.clips, made.computed) == (CLIPS, CLIPS)
    assert "2 processes with 1 CPU each" in lines[0] and "20/20" in lines[-1]
    here = _ensure(table, tmp_path / "here")
    store = _ensure(table, tmp_path / "shared")
    assert (here.computed, store.computed, store.folder) == (CLIPS, 0, made.folder)
    assert all(np.array_equal(store[name], here[name]) for name in table["utterance_id"])
    again = _extract(table, tmp_path / "shared")
    assert (again.computed, again.folder) == (0, made.folder)
    assert not list(tmp_path.rglob(".started-*"))


def test_a_process_killed_between_chunks_loses_only_the_one_in_flight(ray, table, tmp_path):
    storage = tmp_path / "shared"
    earlier = _ensure(table[:9], storage)  # 9 of the clips are there, in shards of their own
    kept = _stamps(storage)
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILLER)
    made = _extract(table, storage, plugins=(str(plugin),))
    assert plugin.with_suffix(".killed").exists(), "nobody was killed"
    assert (earlier.computed, made.computed) == (9, CLIPS - 9)
    assert kept.items() <= _stamps(storage).items()
    store, here = _ensure(table, storage), _ensure(table, tmp_path / "here")
    assert store.computed == 0
    assert all(np.array_equal(store[name], here[name]) for name in table["utterance_id"])


def test_a_clip_that_cannot_be_used_is_told_in_one_sentence(ray, table, tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(200, 0.1), 16000)
    bad = table.copy()
    bad.loc[7, "path"] = str(path)
    with pytest.raises(UserError, match=r"short\.wav of utterance u7 is under 0\.03 s"):
        _extract(bad, tmp_path / "shared")
    assert _ensure(table, tmp_path / "shared").computed >= 4, "its chunk was not written"


# -- without Ray -----------------------------------------------------------------------------


def test_an_actor_gives_torch_the_threads_that_it_holds(tmp_path):
    before = torch.get_num_threads()
    pool = extract.Pool(1, before + 2, gpu=False)
    extract.Extractor(config={}, storage=str(tmp_path), roll="", starts=1, pool=pool)
    held = torch.get_num_threads()
    torch.set_num_threads(before)
    assert held == before + 2


def _answer(table: pd.DataFrame, storage: Path, *, starts: int) -> str:
    """What an actor says of a chunk of one clip, whose storage holds a roll or does not."""
    actor = extract.Extractor(
        config=_config().to_dict(),
        storage=str(storage),
        roll=str(storage / "features" / ".started"),
        starts=starts,
        pool=extract.Pool(1, torch.get_num_threads(), gpu=False),
    )
    row = table.iloc[0]
    chunk = {name: [row[name]] for name in ("utterance_id", "path", "start_s", "end_s")}
    return actor(pa.Table.from_pylist([{"key": ["k"]} | chunk]))["mistake"][0]


def test_a_node_with_another_folder_refuses_to_fill_it(table, tmp_path):
    answer = _answer(table, tmp_path, starts=9)
    assert "does not see" in answer and "all nodes mount" in answer
    assert not (tmp_path / "features").exists()


def test_processes_that_start_again_and_again_give_up(table, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / ".started").touch()
    assert [_answer(table, tmp_path, starts=2) for _ in range(2)] == ["", ""]
    assert "killed again and again" in _answer(table, tmp_path, starts=2)


@pytest.mark.parametrize(
    ("nodes", "told", "expected"),
    [
        ([{"CPU": 2}], {}, (1, 2, False)),
        ([{"CPU": 2}], {"cpus": 1}, (2, 1, False)),
        ([{"CPU": 8}, {"CPU": 5}, {}], {}, (6, 2, False)),
        ([{"CPU": 1}, {"CPU": 1}], {}, (2, 1, False)),
        ([{"CPU": 64}], {"chunks": 3}, (3, 2, False)),
        ([{"CPU": 4}, {"CPU": 48, "GPU": 8}], {}, (8, 6, True)),
        ([{"CPU": 4}, {"CPU": 64, "GPU": 1}], {}, (1, 8, True)),
        ([{"CPU": 2, "GPU": 4}], {}, (4, 1, True)),
        ([{"CPU": 4}, {"CPU": 48, "GPU": 8}], {"device": "cpu"}, (26, 2, False)),
        ([{"CPU": 4}], {"device": "gpu", "asked": 3}, (3, 8, True)),
        ([{"CPU": 8, "GPU": 1}], {"device": "gpu", "asked": 3}, (1, 8, True)),
    ],
)
def test_the_pool_fills_the_nodes(nodes, told, expected):
    pool = extractor.plan_pool(nodes, **{"device": "auto", "chunks": 64} | told)
    assert (pool.actors, pool.cpus, pool.gpu) == expected


def test_a_cluster_that_cannot_do_it_is_refused():
    with pytest.raises(UserError, match="no GPU is here"):
        extractor.plan_pool([{"CPU": 2}], device="gpu", chunks=1)
    with pytest.raises(UserError, match="has a CPU"):
        extractor.plan_pool([{"GPU": 1}], device="auto", chunks=1)


def test_the_command_asks_for_a_storage_it_can_write_and_nothing_else(table, tmp_path):
    with pytest.raises(UserError, match="--storage"):
        extract.main([])
    with pytest.raises(UserError, match="omit --out and"):
        extract.main(["--storage", str(tmp_path), "--out", "x"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--storage .*file cannot be written"):
        extract._roll(tmp_path / "file")
