"""What somebody else's file must not do here: run code, read other files, or learn a key.

Every test makes a real attempt. A payload would write a file (`Payload`), and the tests look
whether it is there. Keys are tried in test_systems_endpoint.py too; what no module may call is in
test_forbidden_calls.py.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
import torch
import yaml
from misbehaving_server import Misbehaving, says, status

from ermgap import config, corpora
from ermgap.adapters import saved_adapter
from ermgap.corpora import demo, manifest, own_audio
from ermgap.errors import RunFailed, UserError
from ermgap.records import Records, Storage
from ermgap.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
HEADER = "path,language,emotion,gender,speaker"
CARD = {
    "format": 1, "backbone": {"name": "random-tiny"}, "adapter": {"r": 2}, "objective": {},
    "data": {"labels": ["joy", "fear"], "modalities": ["speech"], "min_support": 1}, "dev": {},
    "prompt": {"name": "p", "version": "1", "texts": {"speech": {"": "{audio} Answer:"}}},
}  # fmt: skip


class Payload:
    """An object whose unpickling writes a file, as an attacker's would."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.fixture
def mark(tmp_path) -> Iterator[Path]:
    """Where a payload leaves its mark; it never may."""
    path = tmp_path / "was here"
    yield path
    assert not path.exists()


def pickled(mark: Path) -> dict[str, bytes]:
    """The payload as pickle, as what torch.save writes, and as a numpy array of objects."""
    plain = pickle.dumps({"weight": Payload(mark)}, protocol=2)
    path = mark.with_name("attack.pt")
    torch.save({"weight": Payload(mark)}, path)
    array = mark.with_name("attack.npy")
    np.save(array, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return {"pickle": plain, "torch": path.read_bytes(), "numpy": array.read_bytes()}


def test_the_payload_works_where_pickles_are_read(tmp_path):
    pickle.loads(pickled(tmp_path / "was here")["pickle"])
    assert (tmp_path / "was here").exists()


# Pickles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_a_checkpoint_with_a_payload_is_refused_and_does_not_run(tmp_path, mark, kind):
    storage = Storage(tmp_path / "s")
    path = tmp_path / "s" / checkpoint.name_of("t0000", 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(pickled(mark)[kind])
    with pytest.raises(RunFailed, match="damaged"):
        checkpoint.load(storage, "t0000", 1)


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_an_adapter_with_a_payload_is_refused_and_does_not_run(tmp_path, mark, kind):
    class Speech:
        adapters = ()

        def reset_adapter(self, settings, *, seed: int) -> None:
            """Nothing is trained here."""

    content = pickled(mark)[kind]
    (tmp_path / "ermgap.json").write_text(json.dumps(CARD))
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        saved_adapter.load_adapter(Speech(), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").write_bytes(content)  # as peft reads where the other is absent
    with pytest.raises(UserError, match="adapter_model.safetensors cannot be read"):
        saved_adapter.load_adapter(Speech(), tmp_path)


def test_no_file_of_a_sweep_is_unpickled(tmp_path, mark):
    """Neither predictions, nor a parquet that says that its column is a pickled type."""
    column = pa.field("prediction", pa.binary(), metadata=extension(mark))
    table = pa.table([pa.array([b"joy"])], schema=pa.schema([column]))
    attack = tmp_path / "attack.parquet"
    pd.DataFrame({"prediction": ["joy"]}).to_parquet(attack)
    pa.parquet.write_table(table, attack)
    records = Records.create(
        tmp_path / "s", sweep={"config": {}}, table=pd.DataFrame({"utterance_id": ["a"]})
    )
    place = records.directory / "predictions" / "t0000.parquet"
    place.parent.mkdir()
    for content in (*pickled(mark).values(), attack.read_bytes()):
        place.write_bytes(content)
        (records.directory / "table.parquet").write_bytes(content)
        for read in (lambda: records.predictions("t0000"), records.table):
            try:
                read()
            except (UserError, pa.ArrowException, ValueError):
                continue


def extension(mark: Path) -> dict[str, bytes]:
    """How Arrow files named types that pyarrow up to 14 unpickled (CVE-2023-47248)."""
    payload = pickle.dumps(Payload(mark), protocol=2)
    return {
        "ARROW:extension:name": b"arrow.py_extension_type",
        "ARROW:extension:metadata": payload,
    }


@pytest.mark.parametrize("read", ["a preset", "a setting", "a sweep"])
def test_yaml_that_names_python_objects_is_refused(tmp_path, mark, read):
    text = f"!!python/object/apply:os.system [\"touch '{mark}'\"]"
    path = tmp_path / "sweep.yaml"
    path.write_text(f"config: {text}\n")
    with pytest.raises(UserError):
        if read == "a preset":
            config.load(path)
        elif read == "a setting":
            config.apply_settings({}, [f"train.lr={text}"])
        else:
            Records.open(tmp_path)


# Code that comes with weights ---------------------------------------------------------------------


def test_a_models_own_code_and_pickled_weights_are_never_loaded(tmp_path, mark, monkeypatch):
    from ermgap.baselines import generated
    from ermgap.model import qwen2_audio
    from ermgap.model.backbones import BACKBONES

    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a hasty user, were they asked
    kind = "Qwen2AudioForConditionalGeneration"
    names = ("AutoConfig", "AutoTokenizer", "AutoProcessor", "AutoFeatureExtractor", "AutoModel")
    remote = {"auto_map": {name: "evil.Evil" for name in names}, "tokenizer_class": "Evil"}
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config", "tokenizer_config", "preprocessor_config", "processor_config"):
        told = remote | {"model_type": "qwen2_audio" if name != "config" else "evil"}
        (tmp_path / f"{name}.json").write_text(json.dumps(told | {"architectures": [kind]}))
    (tmp_path / "pytorch_model.bin").write_bytes(pickled(mark)["torch"])
    monkeypatch.setitem(BACKBONES, "attack", lambda settings: tmp_path)
    settings = config.Backbone(name="attack", dtype="float32")
    made = config.Config(backbone=settings)
    with pytest.raises(UserError):
        qwen2_audio.load(settings, labels=["joy", "fear"], device=torch.device("cpu"))
    with pytest.raises(UserError):
        context = generated.Context(("joy", "fear"), config=made, device="cpu", folder=tmp_path)
        generated.GeneratingQwen2Audio(str(tmp_path), context)


# Files elsewhere ----------------------------------------------------------------------------------


@pytest.fixture
def voices(tmp_path) -> Path:
    """A corpus with one clip, beside a clip that is no part of it."""
    folder = tmp_path / "voices"
    folder.mkdir()
    for seed, path in enumerate((folder / "a.wav", tmp_path / "private.wav")):
        noise = np.random.default_rng(seed).normal(0, 0.1, 8000)
        soundfile.write(path, noise, 16000)
    return folder


def write(folder: Path, *paths: str) -> Path:
    rows = [f"{path},en,joy,female,0{i}" for i, path in enumerate(paths)]
    (folder / "manifest.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def links(folder: Path) -> None:
    private = folder.parent / "private.wav"
    (folder / "link.wav").symlink_to(private)
    (folder / "far").symlink_to(folder.parent)
    (folder / "near.wav").symlink_to("a.wav")
    (folder / "chain.wav").symlink_to("far/private.wav")
    (folder / "here").symlink_to(folder)


OUTSIDE = [
    "../private.wav",
    "ABSOLUTE",
    "link.wav",
    "far/private.wav",
    "chain.wav",
    "here/link.wav",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_manifest_reads_nothing_outside_of_its_folder_unless_asked(voices, path):
    links(voices)
    path = str(voices.parent / "private.wav") if path == "ABSOLUTE" else path
    write(voices, "a.wav", path)
    with pytest.raises(UserError) as refused:
        corpora.load([f"manifest={voices}"])
    said = str(refused.value)
    assert f"{voices / 'manifest.csv'}, row 3: " in said and "data.outside=true" in said
    table = corpora.load([f"manifest={voices}"], outside=True).table
    assert [Path(path).resolve().name for path in table["path"]] == ["a.wav", "private.wav"]


def test_links_within_the_folder_and_to_the_folder_are_fine(voices, tmp_path):
    links(voices)
    (tmp_path / "elsewhere").symlink_to(voices)
    write(voices, "a.wav", "near.wav", "here/a.wav", "gone.wav")
    for name in ("voices", "elsewhere"):
        assert len(manifest.load(tmp_path / name).table) == 4


def test_the_manifest_of_demo_reads_nothing_outside_either(voices):
    row = ["../private.wav", "en", "female", "joy", "s", "train", "", "0.5", "1", "true"]
    (voices / "manifest.csv").write_text("\n".join([",".join(demo.FIELDS), ",".join(row)]) + "\n")
    with pytest.raises(UserError, match="row 2: .*leads out of the corpus"):
        demo.load(voices)
    assert len(demo.load(voices, outside=True).table) == 1


def test_the_option_is_one_of_the_configuration():
    assert config.Config().data.outside is False
    assert config.Config().replace({"data.outside": True}).data.outside is True


@pytest.mark.parametrize("trial_id", ["../../private", "/private", "..", ".", "a/b", ""])
def test_no_row_of_a_sweep_makes_it_touch_what_lies_elsewhere(tmp_path, trial_id):
    (tmp_path / "private" / "checkpoints").mkdir(parents=True)
    records = Records.create(
        tmp_path / "s", sweep={"config": {}}, table=pd.DataFrame({"utterance_id": ["a"]})
    )
    row = {"attempt": 1, "epoch": 1, "status": "finished", "config": {}, "trial_id": trial_id}
    (records.directory / "trials.jsonl").write_text(json.dumps(row) + "\n")
    assert records.trials() == [] and records.half_written


def test_a_clip_that_claims_a_rate_no_recorder_has_costs_no_memory(voices):
    content = bytearray((voices / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", 2_000_003)
    content += bytes(500_000)
    content[4:8], content[40:44] = (struct.pack("<I", len(content) - n) for n in (8, 44))
    (voices / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match="more than 768,000 samples a second"):
        corpora.load([f"manifest={write(voices, 'a.wav')}"])


# Keys ---------------------------------------------------------------------------------------------

SECRET = "sk-test-abcdefghijklmnop-0123456789"
OWN_KEY = "A_KEY_OF_MY_OWN"
CHILD = """
import logging, sys
import pandas
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
from ermgap.errors import command_line
from ermgap.baselines import SYSTEMS, Context
folder, argument = Path(sys.argv[1]), sys.argv[2]
def main():
    context = Context(labels=("joy", "fear"), config=None, device="cpu", folder=folder)
    system = SYSTEMS.find("openai")(argument, context)
    table = pandas.read_parquet(folder / "table.parquet")
    made = system.predict(table, modality="speech", note=print)
    made.to_parquet(folder / "predictions.parquet", compression=None)
command_line(main)
"""


@pytest.mark.parametrize("ending", ["answered", "refused", "failed"])
def test_a_key_is_in_no_log_no_file_and_no_list_of_processes(voices, ending):
    """In a process of its own, with every library's debug log switched on."""
    table = corpora.load([f"manifest={write(voices, 'a.wav')}"]).table
    table.to_parquet(voices / "table.parquet")
    echo = f"your key is {SECRET}"
    behaviour = {
        "answered": says(echo),
        "refused": status(401, message=echo),
        "failed": status(400, {"X-Echo": SECRET}, message=echo),
    }[ending]
    with Misbehaving([behaviour]) as server:
        argument = f"model@{server.base},key={OWN_KEY}"
        command = [sys.executable, "-c", CHILD, str(voices), argument]
        run = subprocess.run(
            command, cwd=ROOT, env=os.environ | {OWN_KEY: SECRET}, capture_output=True, timeout=120
        )
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert run.returncode == (0 if ending == "answered" else 2)
    assert b"127.0.0.1" in run.stderr  # the logs were on
    told = [run.stdout, run.stderr, *(p.read_bytes() for p in voices.rglob("*") if p.is_file())]
    assert not any(SECRET.encode() in text for text in told)
    assert SECRET not in " ".join(command)


# Archives, aliases --------------------------------------------------------------------------------


def test_archives_are_only_what_they_are_called(tmp_path, voices):
    """A zip where a corpus, an adapter or a preset is expected is refused, not unpacked."""
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.csv", HEADER)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(UserError):
        manifest.load(archive)
    with pytest.raises(UserError):
        config.load(archive)
    with pytest.raises(UserError):
        own_audio.table([], config.Config(), transcripts=archive)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_written_sweep_needs_no_alias_and_is_read_again(tmp_path):
    shared = {"lr": [0.1, 0.2]}
    records = Records.create(
        tmp_path / "s",
        sweep={"config": {"space": shared}, "points": {"a": shared, "b": shared}},
        table=pd.DataFrame({"utterance_id": ["a"]}),
    )
    assert "*" not in (records.directory / "sweep.yaml").read_text()
    assert Records.open(records.directory).sweep == yaml.safe_load(
        (records.directory / "sweep.yaml").read_text()
    )
