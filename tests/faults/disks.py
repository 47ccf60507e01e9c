"""Storage that refuses, fills up, or gives back other bytes; each function is a row of the table.

The file systems are mounted for the run (tmpfs), which needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import buckets
import tiny_run
from scene import Scene, committed, environment

from ermgap.records import Records

REFUSES_S = 60.0


class Impossible(Exception):
    """A fault that cannot be made on this machine; the message says why."""


def storage_refuses(scene: Scene) -> None:
    """the storage's file system is read-only for a minute"""
    with mounted(scene.folder / "shared") as place:
        with scene.sweep("--storage", "shared") as run:
            scene.wait_for_its_moment(run)
            remount(place, "ro")
            time.sleep(REFUSES_S)
            remount(place, "rw")
            scene.ends(run)
        scene.more["kept"] = len(Records.open(scene.out).predictions("t0000"))


def bucket_refuses(scene: Scene) -> None:
    """the bucket's server answers nothing for a minute"""
    if reason := buckets.missing():
        raise Impossible(reason)
    with buckets.Bucket() as bucket, scene.sweep("--storage", bucket.uri) as run:
        scene.wait_for_its_moment(run)
        bucket.down()
        time.sleep(REFUSES_S)
        bucket.up()
        scene.ends(run)
        scene.more["kept"] = len(Records.open(scene.out).predictions("t0000"))


def disk_full(scene: Scene) -> None:
    """the disk of the records is full for 30 s"""
    with mounted(scene.out, keep=True), scene.sweep() as run:
        scene.wait_for_its_moment(run)
        ballast = fill(scene.out)
        time.sleep(30)
        ballast.unlink()
        scene.ends(run)


def disk_full_for_good(scene: Scene) -> None:
    """the disk of the records is full until somebody makes room"""
    with mounted(scene.out, keep=True):
        with environment(ERMGAP_STORAGE_PATIENCE_S="5"), scene.sweep() as run:
            scene.wait_for_its_moment(run)
            ballast = fill(scene.out)
            assert scene.ends(run, well=False) == 2, run.said
            scene.more["seconds_to_stop"] = round(time.monotonic() - scene.struck, 1)
            scene.before = committed(scene.out)
        ballast.unlink()
        scene.resume()


def corrupt_checkpoint(scene: Scene) -> None:
    """the last checkpoint of each running trial is damaged while nothing runs"""
    with scene.sweep() as run:
        scene.wait_for_its_moment(run, after=2)
        run.crash()
        scene.note()
    damaged = 0
    for folder in (scene.out / "checkpoints").iterdir():
        last = max(folder.glob("epoch-*.pt"), default=None)
        if last is not None:
            whole = bytearray(last.read_bytes())
            if scene.chance.random() < 0.5:
                last.write_bytes(whole[: len(whole) // 2])
            else:
                at = scene.chance.randrange(len(whole) // 2)
                whole[at : at + 4096] = os.urandom(4096)
                last.write_bytes(whole)
            damaged += 1
    scene.more["damaged"] = damaged
    scene.resume()


def corrupt_audio(scene: Scene) -> None:
    """audio files are damaged in the middle of training"""
    with tones(scene) as (paths, data), scene.sweep(*data) as run:
        scene.wait_for_its_moment(run, after=3)
        damage(scene, paths)
        scene.ends(run)


def corrupt_audio_killed(scene: Scene) -> None:
    """the same, and the driver is killed: the clips are read again"""
    with tones(scene) as (paths, data):
        with scene.sweep(*data) as run:
            scene.wait_for_its_moment(run, after=3, within=4.0)
            whole = damage(scene, paths)
            run.crash()
            scene.note()
        with scene.sweep() as run:
            if scene.ends(run, well=False):
                assert "is unreadable; replace or remove it" in run.said, run.said
        for path, content in whole.items():
            path.write_bytes(content)
        if not Records.open(scene.out).finished:
            scene.resume()


@contextmanager
def tones(scene: Scene):
    """Sixty clips in a folder: their paths, and the options of a sweep over them."""
    folder = scene.folder / "tones"
    table = tiny_run.tones(folder)
    kept = ["language", "emotion", "gender", "speaker", "split", "transcript"]
    paths = table["path"].map(Path)
    length = table["end_s"] - table["start_s"]
    manifest = table[kept].assign(path=[path.name for path in paths], duration_s=length)
    manifest.to_csv(folder / "manifest.csv", index=False)
    with environment(ERMGAP_CACHE=str(scene.folder / "cache")):
        yield sorted(paths), ("--data", f"manifest={folder}")


def damage(scene: Scene, paths: list[Path]) -> dict[Path, bytes]:
    """Other bytes in five of the files; what they held."""
    whole = {path: path.read_bytes() for path in scene.chance.sample(paths, 5)}
    for path in whole:
        path.write_bytes(os.urandom(2000))
    return whole


@contextmanager
def mounted(place: Path, *, size: str = "96m", keep: bool = False):
    """A file system of its own at a place, in memory; `keep`: leave there what it held."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "ermgap-fault", str(place)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise Impossible(f"mounting needs root ({done.stderr.strip()})")
    try:
        yield place
    finally:
        kept = place.with_name(f"{place.name}-kept")
        if keep:
            shutil.copytree(place, kept, ignore=shutil.ignore_patterns(".ray-*", ".ballast"))
        subprocess.run(["umount", "-l", str(place)], check=True)
        if keep:
            shutil.copytree(kept, place, dirs_exist_ok=True)


def remount(place: Path, how: str) -> None:
    """Read-only or not; a file that is being written at this moment is waited for."""
    for _ in range(200):
        if not subprocess.run(["mount", "-o", f"remount,{how}", str(place)],
                              capture_output=True).returncode:  # fmt: skip
            return
        time.sleep(0.05)
    raise AssertionError(f"{place} could not be made {how}")


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = folder / ".ballast"

    def keep_full() -> None:
        try:
            with open(ballast, "ab", buffering=0) as file:
                while True:
                    file.write(b"\0" * 4096)
        except OSError:
            return

    keep_full()
    threading.Timer(1.0, keep_full).start()  # what was given back meanwhile
    return ballast
