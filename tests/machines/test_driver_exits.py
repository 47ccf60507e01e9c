"""However a sweep ends, GPUs are asked for after every check, and the request is taken back.

The driver is real; Ray, the broker, the slots and the autoscaler are made up, and at each place
that the driver passes a test may raise an error or send the process a signal.
"""

from __future__ import annotations

import signal
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import ray.autoscaler.sdk

import ermgap.records
from ermgap import config
from ermgap.errors import UserError
from sweeps.recording import progress
from sweeps.scheduler import driver, slots, trials
from sweeps.scheduler.interrupts import Interrupts
from sweeps.scheduler.machines import autoscaler, machine
from sweeps.search import proposals, searcher, warm_start

GPU = {"CPU": 0.9, "GPU": 1.0}
NODES = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}, "Labels": {}}]
# In the order in which the driver passes them.
PLACES = ("broker", "ask", "grow", "search", "tuner", "status", "clear", "close", "join", "history",
          "kill", "mirror")  # fmt: skip
FIRST_CLEARED = PLACES.index("ask")


class Scene:
    """What happened, and what shall happen at a place."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.requests: list[list[dict]] = []
        self.at: dict[str, Callable[[], None]] = {}
        self.running = {"t0000": 1}
        self.ends_after = 3

    def passes(self, place: str) -> None:
        """The driver comes by."""
        self.passed.append(place)
        if self.passed.count(place) == 1 and place in self.at:
            self.at[place]()

    def request(self, *, bundles: list[dict]) -> None:
        """What the autoscaler is told."""
        self.requests.append(bundles)
        self.passes("ask" if bundles else "clear")

    @property
    def asks_for(self) -> list[dict]:
        """What the cluster still keeps for the sweep."""
        return self.requests[-1] if self.requests else []


def passing(scene: Scene, place: str, answer: object = None) -> object:
    def method(*given: object, **more: object) -> object:
        scene.passes(place)
        return answer() if callable(answer) else answer

    return method


@pytest.fixture
def scene(monkeypatch) -> Scene:
    """The driver's surroundings, made up."""
    scene = Scene()
    ended = threading.Event()

    def status() -> dict:
        if scene.passed.count("status") >= scene.ends_after:
            ended.set()
        return {"running": scene.running, "slots": {"slot-0": "t0000"}, "notes": {}, "ended": {},
                "fatal": None}  # fmt: skip

    answers = {"status": status, "close": None, "history": [], "interrupt": None}
    broker = types.SimpleNamespace(
        **{
            name: types.SimpleNamespace(remote=passing(scene, name, answer))
            for name, answer in answers.items()
        }
    )
    held = types.SimpleNamespace(
        layout=slots.Layout(2, 1, 4, gpu=True),
        alone=False,
        threads=[],
        errors=[],
        room=2,
        alive=False,
    )
    held.grow = passing(scene, "grow")
    held.join = passing(scene, "join")
    fit = types.SimpleNamespace(fit=ended.wait)
    patches = [
        (ray, "get", lambda answer, timeout=None: answer),
        (ray, "nodes", lambda: NODES),
        (ray, "is_initialized", lambda: True),
        (ray, "kill", passing(scene, "kill")),
        (ray.autoscaler.sdk, "request_resources", scene.request),
        (driver, "LOOK_S", 0.01),
        (machine, "join_ray", lambda address: None),
        (machine, "watch_head", lambda sentence: None),
        (slots, "start_broker", passing(scene, "broker", broker)),
        (slots, "Slots", lambda *given, **more: held),
        (searcher, "searcher", passing(scene, "search", types.SimpleNamespace(interrupted=False))),
        (warm_start, "trials", lambda records, config: []),
        (
            proposals,
            "LimitedStart",
            lambda searcher, **more: types.SimpleNamespace(source=searcher, started=False),
        ),
        (trials, "tuner", passing(scene, "tuner", fit)),
        (progress, "Progress", lambda *given, **more: Silent()),
        (ermgap.records, "Mirror", lambda records: Mirrored(scene)),
    ]
    for module, name, made in patches:
        monkeypatch.setattr(module, name, made)
    return scene


class Silent:
    """A progress that says nothing."""

    def update(self, status: dict) -> None: ...

    def finish(self) -> None: ...


class Mirrored:
    """A mirror that says when it is closed."""

    error = None

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def start(self) -> None: ...

    def close(self) -> None:
        self.scene.passes("mirror")


def records(folder: Path, *, storage: str | None = "s3://b/x") -> types.SimpleNamespace:
    return types.SimpleNamespace(
        rule=lambda trials: None,
        directory=folder,
        sweep={"storage": storage},
        rows=lambda: [],
        trials=lambda: [],
    )


def run(folder: Path, **more: object) -> driver.Session:
    asked = config.from_dict({"sweep": {"device": "gpu", "trials": 4}})
    return driver.run(asked, records(folder, **more), address="auto")


def died() -> None:
    raise ray.exceptions.RayActorError


def broken() -> None:
    raise RuntimeError("broken")


def mistaken() -> None:
    raise UserError("a mistake.")


def twice(number: int) -> Callable[[], None]:
    def send() -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)

    return send


ENDINGS = {
    "an error": broken,
    "a user's mistake": mistaken,
    "the death of the broker": died,
    "Ctrl-C": lambda: signal.raise_signal(signal.SIGINT),
    "SIGTERM": lambda: signal.raise_signal(signal.SIGTERM),
    "SIGTERM twice": twice(signal.SIGTERM),
    "Ctrl-C twice": twice(signal.SIGINT),
    "a terminal that is closed": lambda: signal.raise_signal(signal.SIGHUP),
}


@pytest.fixture(autouse=True)
def handlers():
    """The signals' handlers are afterwards as before, whatever the driver meets."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_is_asked_for_any_more_whatever_happens_wherever(scene, tmp_path, name, place):
    scene.at[place] = ENDINGS[name]
    try:
        run(tmp_path)
    except (UserError, RuntimeError, ray.exceptions.RayActorError):
        pass
    assert place in scene.passed
    assert scene.asks_for == []
    assert list(tmp_path.glob(".ray-*")) == []
    if PLACES.index(place) >= FIRST_CLEARED:
        assert scene.requests[0] == [GPU, GPU]
        assert {"clear", "close", "mirror"} <= set(scene.passed)


def test_a_sweep_that_ends_by_itself_asks_once_and_clears_before_it_closes(scene, tmp_path):
    session = run(tmp_path)
    assert scene.requests == [[GPU, GPU], []]
    assert not session.interrupted and session.closed
    order = [scene.passed.index(place) for place in ("broker", "ask", "clear", "close", "mirror")]
    assert order == sorted(order)


@pytest.mark.parametrize("hurried", [False, True])
def test_a_broker_that_removes_checkpoints_for_long_is_waited_for_unless_one_hurries(
    scene, tmp_path, monkeypatch, hurried
):
    def get(answer: object, timeout: float | None = None) -> object:
        if scene.passed[-1] == "close" and timeout and timeout < 30:
            raise ray.exceptions.GetTimeoutError
        return answer

    monkeypatch.setattr(ray, "get", get)
    if hurried:
        scene.at["grow"] = twice(signal.SIGINT)
    assert run(tmp_path).hurried is hurried
    assert ("history" in scene.passed) is not hurried


def test_ctrl_c_while_the_broker_closes_ends_the_waiting_and_keeps_its_history(scene, tmp_path):
    scene.at["close"] = ENDINGS["Ctrl-C"]
    run(tmp_path)
    assert "history" in scene.passed


def test_a_refused_command_asks_for_nothing_and_leaves_nothing(scene, tmp_path):
    with pytest.raises(UserError, match="give --storage a folder"):
        run(tmp_path, storage=None)
    assert scene.passed == [] and list(tmp_path.iterdir()) == []


def test_a_request_that_cannot_be_cleared_is_reported(scene, tmp_path, monkeypatch, capsys):
    def refuse(*, bundles: list[dict]) -> None:
        if not bundles:
            raise ConnectionError("no head")

    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", refuse)
    run(tmp_path)
    assert "could not be taken back (no head); end it with 'ray down'" in capsys.readouterr().err


def test_the_first_ctrl_c_lets_the_epochs_in_flight_end(scene, tmp_path, capsys):
    scene.at["status"] = lambda: None
    passed = []

    def interrupt() -> None:
        passed.append(1)
        signal.raise_signal(signal.SIGINT)

    original = scene.passes

    def passes(place: str) -> None:
        original(place)
        if place == "status" and scene.passed.count("status") == 2:
            interrupt()

    scene.passes = passes
    session = run(tmp_path)
    assert passed and session.interrupted and not session.hurried
    assert "interrupt" in scene.passed and "epochs in flight" in capsys.readouterr().out


def test_ctrl_c_before_an_epoch_has_begun_ends_the_sweep_at_once(scene, tmp_path, capsys):
    scene.running, scene.ends_after = {}, 1000
    scene.at["status"] = ENDINGS["Ctrl-C"]
    session = run(tmp_path)
    assert session.interrupted and session.hurried and scene.passed.count("status") == 1
    assert "epochs in flight" not in capsys.readouterr().out


def test_a_signal_outside_of_what_it_may_break_is_kept_for_the_next(handlers):
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 1
        with pytest.raises(KeyboardInterrupt), interrupts.raised():
            raise AssertionError("the signal was lost")
        with interrupts.raised():
            pass


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
        assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("told", "labels", "grows"),
    [
        (b'{"autoscaler_report": {"active_nodes": {"node_1f": 1}, "pending_nodes": [], '
         b'"pending_launches": {}}}', {}, False),
        (b'{"autoscaler_report": {"active_nodes": {"gpu.spot": 1}, "pending_nodes": [], '
         b'"pending_launches": {}}}', {}, True),
        (b'{"autoscaler_report": {"active_nodes": {"node_1f": 1}, "pending_nodes": [], '
         b'"pending_launches": {"gpu": 2}}}', {}, True),
        (b'{"load_metrics_report": {}}', {}, True),
        (None, {"ray.io/node-group": "head"}, True),
        (None, {}, False),
    ],
)  # fmt: skip
def test_a_cluster_that_was_started_by_hand_does_not_grow(monkeypatch, told, labels, grows):
    from ray.experimental import internal_kv

    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key: told)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Labels": labels}])
    assert autoscaler.grows() is grows


def test_a_gpu_that_cannot_come_is_refused_before_anything_begins(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(autoscaler, "grows", lambda: False)
    monkeypatch.setattr(ray, "nodes", lambda: [NODES[0] | {"Resources": {"CPU": 8.0}}])
    with pytest.raises(UserError, match="no GPU is here"):
        run(tmp_path)
    assert scene.passed == []
