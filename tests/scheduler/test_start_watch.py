"""A sweep whose worker groups never begin ends in one sentence, as soon as none can."""

from __future__ import annotations

import pytest

from ermgap.errors import UserError
from sweeps.scheduler import start_watch
from sweeps.scheduler.machines import autoscaler
from sweeps.scheduler.slots import Layout
from sweeps.scheduler.start_watch import StartWatch

NOTHING = {"notes": {}, "slots": {}, "ended": {}}


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(start_watch.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("ERMGAP_START_PATIENCE_S", raising=False)
    return now


def gives_up_after(clock, watch: StartWatch, *, room: int, limit: float = 1e5) -> tuple[float, str]:
    """The seconds after which it gives up, and what it says; `limit` if it does not."""
    while clock[0] < limit:
        try:
            watch.look(NOTHING, room=room)
        except UserError as mistake:
            return clock[0], str(mistake)
        clock[0] += 1.0
    return limit, ""


@pytest.mark.parametrize(
    ("alone", "asked", "grows", "room", "seconds"),
    [
        (True, False, False, 0, 61),  # no node fits, and none comes
        (False, False, False, 1, 61),
        (False, True, False, 0, 61),  # asked of a cluster that was started by hand
        (False, True, True, 1, 1801),
        (True, False, False, 2, 601),  # a node fits, and is ours alone
        (False, False, False, 2, 1e5),  # others may use it for hours
    ],
)
def test_it_gives_up_as_soon_as_nothing_can_come(
    clock, monkeypatch, alone, asked, grows, room, seconds
):
    monkeypatch.setattr(autoscaler, "grows", lambda: grows)
    watch = StartWatch(Layout(1, 2, 4, gpu=True), alone=alone, asked=asked)
    waited, said = gives_up_after(clock, watch, room=room)
    assert waited == seconds
    if said:
        assert "it takes 2 worker(s) with a CPU and a GPU each" in said
        assert "continue with --resume." in said and "\n" not in said


def test_the_patience_can_be_set(clock, monkeypatch):
    monkeypatch.setenv("ERMGAP_START_PATIENCE_S", "90")
    watch = StartWatch(Layout(1, 1, 4, gpu=False), alone=True, asked=False)
    assert gives_up_after(clock, watch, room=2)[0] == 91


def test_it_says_each_minute_what_it_waits_for(clock):
    watch = StartWatch(Layout(1, 2, 4, gpu=True), alone=False, asked=True)
    lines = []
    for second in range(50):
        clock[0] = 2.0 * second
        lines.append(watch.look(NOTHING, room=0))
    [line] = filter(None, lines)
    assert line.startswith("waiting for a worker group to begin") and "room for 0" in line


@pytest.mark.parametrize("key", NOTHING)
def test_a_group_that_has_begun_is_never_given_up(clock, key):
    watch = StartWatch(Layout(1, 1, 1, gpu=False), alone=True, asked=False)
    assert watch.look(NOTHING | {key: {"slot-0": "loading"}}, room=0) is None
    assert gives_up_after(clock, watch, room=0)[1] == ""
