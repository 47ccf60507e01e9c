"""Files in a folder and in a bucket, against a real S3-compatible server."""

from __future__ import annotations

import os
import threading
import time

import pytest

from ermgap.errors import UserError
from ermgap.records import Storage, StorageError


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    if request.param == "folder":
        return Storage(tmp_path / "storage")
    uri = request.getfixturevalue("bucket").uri
    return Storage(f"{uri}/{tmp_path.name}", folder=tmp_path / "fetched")


def text(content: str):
    return lambda path: path.write_text(content)


def test_what_is_written_is_fetched_replaced_listed_and_removed(store):
    store.write("a/one.txt", text("first"))
    store.write("a/two.txt", text("second"))
    assert store.fetch("a/one.txt").read_text() == "first"
    store.write("a/one.txt", text("other"))  # as long, and within the same second
    assert store.fetch("a/one.txt").read_text() == "other"
    assert store.names("a") == ["one.txt", "two.txt"] and store.names("none") == []
    assert {p.name for p in store.fetch_folder("a").iterdir()} == {"one.txt", "two.txt"}
    store.remove("a/one.txt")
    assert store.names("a") == ["two.txt"] and not store.fetch("a/one.txt").exists()
    store.remove("a")
    store.remove("a")
    assert store.names("a") == [] and not store.fetch("none").exists()


def test_a_folder_is_written_file_by_file(store):
    def write(folder):
        (folder / "x.json").write_text("{}")
        (folder / "y.bin").write_bytes(b"\0" * 10)

    store.write_folder("adapters/t0", write)
    assert store.names("adapters/t0") == ["x.json", "y.bin"]
    assert store.fetch("adapters/t0/y.bin").read_bytes() == b"\0" * 10


def test_the_bucket_holds_the_objects_and_the_writer_keeps_no_copy(bucket, tmp_path):
    store = Storage(f"{bucket.uri}/plain", folder=tmp_path / "here")
    store.write("predictions/t0000.parquet", lambda path: path.write_bytes(b"abc"))
    assert bucket.objects()["sweeps/plain/predictions/t0000.parquet"] == b"abc"
    assert not [path for path in (tmp_path / "here").rglob("*") if path.is_file()]


def test_a_copy_that_is_the_buckets_is_not_fetched_again(bucket, tmp_path):
    store = Storage(f"{bucket.uri}/again", folder=tmp_path / "here")
    store.write("x", text("content"))
    time.sleep(2.5)  # buckets tell whole seconds
    path = store.fetch("x")
    before = path.stat().st_ino
    assert store.fetch("x").stat().st_ino == before
    store.write("x", text("changed"))
    assert store.fetch("x").read_text() == "changed"


def test_a_storage_that_refuses_for_a_while_is_waited_for(bucket, tmp_path):
    """The server answers nothing for some seconds while a write is asked of it."""
    store = Storage(f"{bucket.uri}/slow", folder=tmp_path)
    bucket.down()
    threading.Timer(2.0, bucket.up).start()
    store.write("x", text("late"))
    assert store.fetch("x").read_text() == "late"


def test_one_that_refuses_for_long_is_an_error_that_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ERMGAP_STORAGE_PATIENCE_S", "0.6")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="x.txt cannot be written .*--resume"):
        Storage(tmp_path / "file").write("x.txt", text("never"))  # a file is no folder


@pytest.mark.parametrize("uri", ["http://a/b", "s3://", "ftp://x", "abfs://a/b"])
def test_what_is_no_bucket_is_refused_by_its_name(uri):
    with pytest.raises(UserError, match="s3://BUCKET/PREFIX"):
        Storage(uri)


def test_two_writers_of_one_name_leave_one_of_the_two_whole(store):
    contents = [bytes([65 + n]) * 300_000 for n in range(4)]
    threads = [
        threading.Thread(
            target=lambda c=c: [store.write("same", lambda p: p.write_bytes(c)) for _ in range(3)]
        )
        for c in contents
    ]
    if store.uri:  # each process has a folder of its own there
        stores = [Storage(store.uri) for _ in contents]
        threads = [
            threading.Thread(target=lambda s=s, c=c: s.write("same", lambda p: p.write_bytes(c)))
            for s, c in zip(stores, contents, strict=True)
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.fetch("same").read_bytes() in contents


def test_without_patience_there_is_one_try(tmp_path, monkeypatch):
    monkeypatch.setenv("ERMGAP_STORAGE_PATIENCE_S", "0")
    tries = []

    def refuse(path):
        tries.append(path)
        raise OSError(28, os.strerror(28))

    with pytest.raises(StorageError, match="No space left"):
        Storage(tmp_path).write("x", refuse)
    assert len(tries) <= 2
