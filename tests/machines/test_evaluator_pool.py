"""Evaluators that never begin, die or are interrupted: who gets work, and that each is ended."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ermgap.config import from_dict
from ermgap.errors import UserError
from sweeps.scheduler import evaluation, extractor
from sweeps.scheduler.evaluation import EvaluatorPool, Request
from sweeps.scheduler.extractor import Pool


class Ray:
    """Stands for Ray: actors that answer at once, but for those named in `never` and `dying`.

    Args:
        never: numbers of actors that never begin.
        dying: how often each spec's process dies before it answers.
    """

    def __init__(self, *, never=(), dying=None) -> None:
        self.never, self.dying, self.killed, self.asked = never, dict(dying or {}), [], []
        self.made: list[Actor] = []
        base = type("RayError", (Exception,), {})
        self.exceptions = SimpleNamespace(RayError=base, RayTaskError=type("Task", (base,), {}))

    def remote(self, _):
        return SimpleNamespace(options=lambda **held: SimpleNamespace(remote=self._make))

    def _make(self, **given):
        self.made.append(Actor(self, len(self.made)))
        return self.made[-1]

    def wait(self, references, *, timeout, num_returns=1):
        ready = [one for one in references if one.value is not None]
        return ready[:num_returns], []

    def get(self, reference):
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def kill(self, actor):
        self.killed.append(actor.number)


class Actor:
    def __init__(self, ray: Ray, number: int) -> None:
        self.ray, self.number = ray, number
        self.noted = SimpleNamespace(remote=self._noted)
        self.evaluate = SimpleNamespace(remote=self._evaluate)

    def _noted(self):
        begun = self.number not in self.ray.never
        return Reference([f"hello {self.number}"] if begun else None)

    def _evaluate(self, spec, utterances, name, files):
        self.ray.asked.append((self.number, spec))
        if self.ray.dying.get(spec, 0):
            self.ray.dying[spec] -= 1
            return Reference(self.ray.exceptions.RayError("killed"))
        mistake = "no such model." if spec == "generated" else ""
        return Reference({"table": spec, "mistake": mistake, "notes": [f"hello {self.number}"]})


class Reference:
    """To an answer; None: it has not come."""

    def __init__(self, value) -> None:
        self.value = value


def pool(ray: Ray, monkeypatch, *, actors: int) -> EvaluatorPool:
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(evaluation, "LOOK_S", 0.0)
    return EvaluatorPool(Pool(actors, 1, gpu=False), {}, ship=False, note=[].append)


def requests(*specs: str) -> list[Request]:
    return [Request(spec, pd.DataFrame(), Path(f"{i}.parquet")) for i, spec in enumerate(specs)]


def test_one_that_never_begins_is_given_nothing_and_is_ended_with_the_others(monkeypatch):
    ray, done = Ray(never={1}), []
    team = pool(ray, monkeypatch, actors=3)
    wanted = requests(*["zero-shot=small"] * 5)
    team.work(wanted, attempts=2, done=lambda request, table: done.append(request))
    team.end()
    assert set(done) == set(wanted)
    assert {number for number, _ in ray.asked} <= {0, 2} and sorted(ray.killed) == [0, 1, 2]


def test_what_a_dead_process_was_asked_is_asked_again_up_to_the_attempts(monkeypatch):
    ray, done = Ray(dying={"zero-shot": 1}), []
    team = pool(ray, monkeypatch, actors=1)
    team.work(requests("zero-shot"), attempts=2, done=lambda _, table: done.append(table))
    assert done == ["zero-shot"] and ray.asked == [(0, "zero-shot"), (1, "zero-shot")]
    ray = Ray(dying={"zero-shot": 9})
    team = pool(ray, monkeypatch, actors=2)
    with pytest.raises(UserError, match="evaluated zero-shot died 2 times.*--resume"):
        team.work(requests("zero-shot"), attempts=2, done=lambda *_: None)
    team.end()
    assert {actor.number for actor in ray.made} == set(ray.killed)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, UserError])
def test_every_evaluator_is_ended_whatever_ends_the_work(problem, monkeypatch):
    ray = Ray()
    team = pool(ray, monkeypatch, actors=2)

    def done(request, table):
        raise problem("stop")

    with pytest.raises(problem):
        team.work(requests("zero-shot", "zero-shot=small"), attempts=2, done=done)
    team.end()
    assert sorted(ray.killed) == [actor.number for actor in ray.made] != []


def test_a_mistake_on_a_worker_is_the_user_s_sentence(monkeypatch):
    team = pool(Ray(), monkeypatch, actors=1)
    with pytest.raises(UserError, match=r"^no such model\.$"):
        team.work(requests("generated"), attempts=2, done=lambda *_: None)


def test_a_user_is_told_when_no_evaluator_begins(monkeypatch):
    said, ray = [], Ray(never={0})
    team = pool(ray, monkeypatch, actors=1)
    monkeypatch.setattr(evaluation, "WAITING_S", 0.0)

    def note(text):
        said.append(text)
        raise KeyboardInterrupt

    team.note = note
    with pytest.raises(KeyboardInterrupt):
        team.work(requests("zero-shot"), attempts=2, done=lambda *_: None)
    assert said == ["waiting until there is room for 1 process with 1 CPU each"]


@pytest.mark.parametrize("grows", [True, False])
def test_a_gpu_that_never_comes_is_not_waited_for(monkeypatch, grows):
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(extractor.autoscaler, "grows", lambda: grows)
    config = from_dict({"sweep": {"device": "gpu", "slots": 2}})
    if grows:
        assert evaluation._pool(3, config, "auto").actors == 2
        return
    with pytest.raises(UserError, match="no GPU is here"):
        evaluation._pool(3, config, "auto")
