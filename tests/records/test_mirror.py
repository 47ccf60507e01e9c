"""Rows in a bucket: a sweep whose driver's disk is lost goes on from there."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import buckets
import pytest
from fake_sweep import write
from real_sweep import RealSweep, kill, options, rows_of

from analysis import __main__
from ermgap.errors import UserError
from ermgap.records import Mirror, Records, bucket_mirror
from ermgap.records.bucket_mirror import restore
from sweeps.search import warm_start

POINTS = [{"acc": 0.6, "max_gap": 0.2, "loss": "erm"}, {"acc": 0.5, "max_gap": 0.1}]


def sweep(tmp_path, bucket, name: str) -> Records:
    return write(tmp_path / name, POINTS, with_predictions=False, storage=f"{bucket.uri}/{name}")


def test_what_the_mirror_holds_is_a_sweep_elsewhere(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "one")
    with Mirror(records, every=0.05) as copied:
        for epoch in range(5, 9):
            records.append(records.rows()[-1] | {"epoch": epoch})
    assert copied.error is None
    there = Records.open(restore(f"{bucket.uri}/one", tmp_path / "elsewhere"))
    assert there.rows() == records.rows() and len(there.rows()) >= 6
    assert there.sweep == records.sweep
    assert there.table().equals(records.table())


def test_what_confirms_a_sweep_comes_back_with_it_each_fold_and_their_table(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "sure")
    names = {"sure-confirm": "confirm", "sure-confirm-fold-0": "confirm-folds/fold-0",
             "sure-confirm-fold-1": "confirm-folds/fold-1"}  # fmt: skip
    for name, folder in names.items():
        place = {"with_predictions": False, "storage": f"{bucket.uri}/{name}"}
        made = tmp_path / "sure" / folder
        made.parent.mkdir(exist_ok=True)
        with Mirror(write(made, POINTS, **place)):
            pass
    (tmp_path / "sure" / "confirm-folds" / "confirmed.parquet").write_bytes(b"rows")
    with Mirror(records):
        pass
    bucket_mirror.mark_done(records)
    there = restore(f"{bucket.uri}/sure", tmp_path / "elsewhere")
    assert (there / "confirm-folds" / "confirmed.parquet").read_bytes() == b"rows"
    for folder in names.values():
        assert (
            Records.open(there / folder).rows() == Records.open(tmp_path / "sure" / folder).rows()
        )


def test_a_second_session_begins_anew_and_the_first_one_stops(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "two")
    first = Mirror(records)
    first.take_over()
    other = Records.open(restore(f"{bucket.uri}/two", tmp_path / "other"))
    second = Mirror(other)
    second.take_over()
    records.append(records.rows()[-1] | {"epoch": 7})
    with pytest.raises(UserError, match="another driver has taken over"):
        first.upload_rows()
    other.append(other.rows()[-1] | {"epoch": 8})
    second.upload_rows()
    there = Records.open(restore(f"{bucket.uri}/two", tmp_path / "third"))
    assert there.rows() == other.rows() != records.rows()


@pytest.mark.parametrize("lag_s", [3600, -3600])
def test_a_replacement_whose_clock_lags_or_leads_is_read_and_not_the_driver_before_it(
    bucket, tmp_path, monkeypatch, lag_s
):
    """The first driver's last segment is put after the second has begun."""
    name = f"clock{lag_s}"
    records = sweep(tmp_path, bucket, name)
    first = Mirror(records)
    first.take_over()
    other = Records.open(restore(f"{bucket.uri}/{name}", tmp_path / "other"))
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() - lag_s)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() - lag_s * 10**9)
    second = Mirror(other)
    second.take_over()
    records.append(records.rows()[-1] | {"epoch": 7})
    monkeypatch.setattr(first, "_require_owner", lambda: None)  # it looked just before
    first.upload_rows()
    other.append(other.rows()[-1] | {"epoch": 8})
    second.upload_rows()
    there = Records.open(restore(f"{bucket.uri}/{name}", tmp_path / "third"))
    assert there.rows() == other.rows() != records.rows()
    assert bucket_mirror.number_of(second.session) > bucket_mirror.number_of(first.session)


def test_a_bucket_whose_sessions_were_named_by_the_clock_is_continued(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "named")
    with Mirror(records):
        pass
    client, old = bucket.client(), f"{time.time_ns():020d}-00c0ffee"
    (segment,) = [key for key in bucket.objects() if "/named/rows/" in key]
    renamed = segment.replace(segment.rsplit("/", 1)[1].rsplit("-", 1)[0], old)
    client.put_object(Bucket=bucket.name, Key=renamed, Body=bucket.objects()[segment])
    client.delete_object(Bucket=bucket.name, Key=segment)
    owner = json.dumps({"session": old, "time": 0.0}).encode()
    client.put_object(Bucket=bucket.name, Key=segment.split("rows/")[0] + "owner.json", Body=owner)
    there = Records.open(restore(f"{bucket.uri}/named", tmp_path / "there"))
    assert there.rows() == records.rows()
    there.append(there.rows()[-1] | {"epoch": 8})
    with Mirror(there):
        pass
    last = Records.open(restore(f"{bucket.uri}/named", tmp_path / "last"))
    assert last.rows() == there.rows() != records.rows()


def test_an_owner_that_was_lost_before_its_first_rows_leaves_those_before_it(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "lostowner")
    with Mirror(records):
        pass
    other = Records.open(restore(f"{bucket.uri}/lostowner", tmp_path / "other"))
    lost = Mirror(other)
    lost.upload_rows = lambda: None
    lost.take_over()
    there = Records.open(restore(f"{bucket.uri}/lostowner", tmp_path / "there"))
    assert there.rows() == records.rows()


def test_rows_that_the_bucket_never_had_are_kept_aside_where_another_driver_went_on(
    bucket, tmp_path, capsys
):
    records = sweep(tmp_path, bucket, "apart")
    with Mirror(records):
        pass
    other = Records.open(restore(f"{bucket.uri}/apart", tmp_path / "other"))
    for epoch in (7, 8, 9):  # never mirrored, and more than the other driver adds
        records.append(records.rows()[-1] | {"epoch": epoch})
    mine = records.rows()
    other.append(other.rows()[-1] | {"epoch": 5})
    with Mirror(other):
        pass
    restore(f"{bucket.uri}/apart", records.directory)
    assert records.rows() == other.rows()
    kept = (records.directory / "trials-1.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == mine
    assert "are kept as trials-1.jsonl" in capsys.readouterr().out


def test_a_half_written_row_is_not_mirrored_before_it_is_whole(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "three")
    copied = Mirror(records)
    copied.take_over()
    whole = records.rows()
    with open(records.directory / "trials.jsonl", "ab") as file:
        file.write(b'{"trial_id": "t00')
    copied.upload_rows()
    restored = restore(f"{bucket.uri}/three", tmp_path / "there")
    assert Records.open(restored).rows() == whole
    assert (restored / "trials.jsonl").read_bytes().endswith(b"\n")


def test_a_missing_segment_ends_the_rows_and_loses_none_before_it(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "four")
    copied = Mirror(records)
    copied.take_over()
    before = records.rows()
    for epoch in (5, 6):
        records.append(records.rows()[-1] | {"epoch": epoch})
        copied.upload_rows()
    segments = sorted(key for key in bucket.objects() if "/four/rows/" in key)
    assert len(segments) == 3
    bucket.client().delete_object(Bucket=bucket.name, Key=segments[1])
    there = Records.open(restore(f"{bucket.uri}/four", tmp_path / "there"))
    assert there.rows() == before


def test_restoring_keeps_the_longer_rows_and_refuses_another_sweeps_folder(bucket, tmp_path):
    records = sweep(tmp_path, bucket, "five")
    with Mirror(records):
        pass
    records.append(records.rows()[-1] | {"epoch": 9})  # after the last segment
    restore(f"{bucket.uri}/five", records.directory)
    assert records.rows()[-1]["epoch"] == 9
    other = write(tmp_path / "other", POINTS, with_predictions=False)
    with pytest.raises(UserError, match="holds another sweep"):
        restore(f"{bucket.uri}/five", other.directory)
    with pytest.raises(UserError, match="holds no sweep"):
        restore(f"{bucket.uri}/nothing", tmp_path / "none")


def test_a_folder_has_no_mirror(tmp_path):
    records = write(tmp_path / "plain", POINTS, with_predictions=False)
    with Mirror(records) as copied:
        bucket_mirror.upload(records)
    assert copied.error is None and not copied._thread.is_alive()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_in_a_bucket_survives_the_loss_of_its_drivers_disk(bucket, tmp_path):
    settings = options(plugin="slow_steps.py", settings=("sweep.slots=1",), epochs=3)
    place = f"{bucket.uri}/lost"
    (tmp_path / "slow").touch()
    with RealSweep(
        tmp_path, "pareto.py", "--smoke-test", "--out", "results/lost", "--storage", bucket.uri,
        *settings,
    ) as first:  # fmt: skip
        first.out = tmp_path / "results" / "lost"
        first.until(lambda: any("/rows/" in key for key in bucket.objects()))
        first.until(lambda: first.last_epoch("t0000") >= 2)
        first.until(lambda: len(_mirrored(bucket)) >= len(first.rows()))
        first.crash()
    before = _mirrored(bucket)
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "slow").unlink()
    with RealSweep(tmp_path, "pareto.py", "--resume", place) as second:
        second.out = tmp_path / "results" / "lost"
        assert second.ends() == 0, second.said
        rows = second.rows()
    assert rows[: len(before)] == before
    for trial_id in ("t0000", "t0001", "t0002"):
        epochs = [row["epoch"] for row in rows_of(rows, trial_id)]
        assert sorted(set(epochs)) == [1, 2, 3] and len(epochs) <= 4
    records = Records.open(second.out)
    assert records.finished and records.predictions("t0000") is not None
    objects = bucket.objects()
    assert not [name for name in objects if "/checkpoints/" in name]
    assert buckets.KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in b"".join(objects.values())
    for path in second.out.rglob("*"):
        if path.is_file():
            assert buckets.KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in path.read_bytes(), path
    kill()


def _mirrored(bucket) -> list[dict]:
    """The rows of the bucket's owner."""
    objects = bucket.objects()
    owner = json.loads(objects["sweeps/lost/owner.json"])["session"]
    newest = sorted(key for key in objects if key.startswith(f"sweeps/lost/rows/{owner}-"))
    return [json.loads(line) for key in newest for line in objects[key].splitlines()]


def test_a_sweep_in_a_bucket_is_read_like_a_folder(bucket, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    records = write(tmp_path / "six", POINTS, storage=f"{bucket.uri}/six", with_predictions=False)
    with Mirror(records):
        pass
    monkeypatch.chdir(tmp_path / "here")
    assert __main__.main([f"{bucket.uri}/six", "--plots", "plots", "--quiet"]) == 0
    assert Path("plots/six/report.html").stat().st_size > 10_000
    warm_start.copy([f"{bucket.uri}/six"], Path("new"))
    assert Records.open("new/earlier/0").rows() == records.rows()
    __main__.watch(f"{bucket.uri}/six", "watched", every=0.01, rounds=1)
    assert Path("watched/six/report.html").exists()
