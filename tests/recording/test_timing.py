"""The accounting of a session's time, against sessions that are made up second by second."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sweeps.recording import timing
from sweeps.recording.timing import Session


class World:
    """A session that is played: what each slot does, for how long, and the rows it leaves."""

    def __init__(self, seed: int, *, slots: int, begun: float = 5e8) -> None:
        self.rng = np.random.default_rng(seed)
        self.session = Session(begun=begun, slots=slots)
        self.rows: list[dict] = []
        self.truth = dict.fromkeys(("steps", *timing.TITLES), 0.0)
        self.moments: list[tuple[str, str, float]] = []
        ends = [self.play(f"slot-{n}") for n in range(slots)]
        last = max(ends)
        self.truth["idle"] = sum(last - end for end in ends)
        for name in self.truth:
            self.truth[name] /= slots
        self.session.closed = last + self.spend("close")
        self.session.dial = self.spend("dial")
        self.now = self.session.closed + self.session.dial + self.spend("report")
        self.session.moments = self.moments
        self.rows.sort(key=lambda row: row["time"])

    def spend(self, part: str) -> float:
        seconds = float(self.rng.uniform(0.1, 3.0))
        self.truth[part] += seconds
        return seconds

    def play(self, slot: str) -> float:
        now = self.session.begun + self.spend("start")
        self.moments += [(slot, "loading the backbone", now), (slot, "audio features", now)]
        now += self.spend("features")
        self.moments.append((slot, "ready", now))
        for number in range(int(self.rng.integers(1, 4))):
            now += self.spend("start" if not number else "between")
            for epoch in range(1, 4):
                train, evaluate, files = (self.spend(p) for p in ("steps", "steps", "files"))
                now += train + evaluate + files
                row = {"trial_id": f"{slot}-{number}", "slot": slot, "epoch": epoch, "time": now}
                row |= {"train_seconds": train, "eval_seconds": evaluate}
                self.rows.append(row | {"seconds": train + evaluate + files})
                end = now
                now += self.spend("between") if epoch < 3 else 0.0
        return end


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slots", [1, 3])
def test_each_part_is_found_as_it_was_played(seed, slots):
    world = World(seed, slots=slots)
    parts = timing.account(world.rows, world.session, now=world.now)
    assert parts == pytest.approx(world.truth, abs=1e-5)
    assert sum(parts.values()) == pytest.approx(world.now - world.session.begun)


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_add_up_whatever_the_clocks_and_the_rows_say(seed):
    world, rng = World(seed, slots=2), np.random.default_rng(seed)
    rows = [row | {"time": row["time"] + rng.normal(0, 2)} for row in world.rows]
    rows = [row for row in rows if rng.random() < 0.7]
    for removed in ("train_seconds", "slot", "seconds"):
        rows[rng.integers(len(rows))].pop(removed, None)
    parts = timing.account(rows, world.session, now=world.now)
    assert sum(parts.values()) == pytest.approx(world.now - world.session.begun)
    assert min(parts["steps"], parts["files"]) >= 0


def test_a_slot_that_never_trained_is_idle_and_a_session_without_epochs_is_all_start_up():
    row = {"slot": "slot-0", "epoch": 1, "seconds": 4.0, "train_seconds": 2.0, "eval_seconds": 2.0}
    session = Session(begun=0.0, slots=2, closed=12.0)
    parts = timing.account([row | {"trial_id": "t", "time": 10.0}], session, now=13.0)
    assert parts["steps"] == pytest.approx(2.0) and parts["start"] == pytest.approx(3.0)
    assert parts["idle"] == pytest.approx(5.0)
    nothing = timing.account([], session, now=13.0)
    assert (nothing["start"], nothing["report"]) == (12.0, 1.0) and sum(nothing.values()) == 13.0


class Folder:
    """What `timing.tell` needs of the records."""

    def __init__(self, directory, rows):
        self.directory, self.kept = directory, rows

    def rows(self):
        return self.kept


def test_only_the_rows_of_this_session_count_and_each_session_adds_its_line(tmp_path, capsys):
    first, second = World(1, slots=1), World(2, slots=2, begun=5e8 + 1000)
    folder = Folder(tmp_path, first.rows)
    timing.tell(folder, first.session)
    (tmp_path / "sessions.jsonl").open("a").write('{"half a li')
    folder.kept = [*first.rows, *second.rows]
    second.session.rows = len(first.rows)
    timing.tell(folder, second.session)
    timing.tell(folder, Session())  # nothing was run
    lines = (tmp_path / "sessions.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in (lines[0], lines[2])]
    assert len(lines) == 3
    for world, line in zip((first, second), told, strict=True):
        assert line["parts"]["steps"] == pytest.approx(world.truth["steps"])
        assert sum(line["parts"].values()) == pytest.approx(line["ended"] - line["begun"])
    assert capsys.readouterr().out.count("time: ") == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (252, "4 min 12 s")]
    + [(3599.7, "1 h 0 min"), (7300, "2 h 1 min")],
)
def test_spans_are_said_as_a_person_would(seconds, said):
    assert timing.span(seconds) == said


def test_the_line_names_the_share_and_the_parts_that_are_not_nothing():
    parts = {"steps": 70.0, "start": 20.0, "features": 0.0, "close": 10.0, "report": 0.01}
    said = timing.sentence(dict.fromkeys(timing.TITLES, 0.0) | parts)
    assert said.startswith("time: 1 min 40 s, 70% of it inside training and evaluation steps")
    assert "20 s start-up" in said and "10 s closing" in said
    assert "features" not in said and "report" not in said
