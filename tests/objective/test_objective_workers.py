"""Gradients of every objective are exact, however a batch is spread over workers and passes.

The reference is the formula on the whole batch, in one process, in float64, by autograd; with two,
three and seven sides, with and without utterances of unknown side.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product

import pytest
import tiny_run
import torch
from torch.nn import functional as F

from ermgap import config
from ermgap.distributed import World
from ermgap.model.batches import Batch, IndexedUtterances
from ermgap.objective import LOSSES, Loss, Objective
from ermgap.training.gradients import accumulate_gradients

CELLS = [("de", "speech"), ("en", "speech"), ("ja", "speech")]
PROGRESS = 0.4
# settings of the objective, dev gaps it is given, and the fairness weight that follows by hand
OBJECTIVES = {
    "erm": ({"loss": "erm"}, [], 0.0),
    "p1-constant": ({"loss": "minmaxgap", "p": 1.0, "lambda_max": 2.5}, [], 2.5),
    "p2-linear": (
        {"loss": "minmaxgap", "schedule": "linear", "lambda_max": 2.5, "start": 0.1, "ramp": 0.5},
        [],
        1.5,
    ),
    "p1.5-adaptive": (
        {"loss": "minmaxgap", "p": 1.5, "schedule": "adaptive", "lambda_0": 0.5, "eta": 10.0},
        [0.3],
        3.3,
    ),
    "spread": ({"loss": "spread", "lambda_max": 0.7}, [], 0.7),
    "ema": ({"loss": "minmaxgap", "estimator": "ema", "p": 1.5, "lambda_max": 2.5}, [], 2.5),
    "unbiased": ({"loss": "minmaxgap", "estimator": "unbiased", "lambda_max": 2.5}, [], 2.5),
    "relative": ({"loss": "minmaxgap", "relative": True, "lambda_max": 2.5}, [], 2.5),
    "unbiased-relative": (
        {"loss": "minmaxgap", "estimator": "unbiased", "relative": True, "lambda_max": 2.5},
        [],
        2.5,
    ),
    "vrex": ({"loss": "vrex", "lambda_max": 0.7}, [], 0.7),
    "worse p1": ({"loss": "minmaxgap", "sides": "worse", "p": 1.0, "lambda_max": 2.5}, [], 2.5),
    "worse ema": (
        {
            "loss": "minmaxgap",
            "sides": "worse",
            "estimator": "ema",
            "relative": True,
            "lambda_max": 2.5,
        },
        [],
        2.5,
    ),
    "worse vrex": ({"loss": "vrex", "sides": "worse", "lambda_max": 0.7}, [], 0.7),
    "groupdro": ({"loss": "groupdro", "dro_eta": 0.3, "dro_c": 1.0}, [], 0.0),
    "reweight": ({"loss": "reweight"}, [], 0.0),
}
SIDES = {  # number of sides, whether some are unknown: training utterances per cell and side
    (2, False): [[40, 55], [30, 5], [90, 0]],
    (2, True): [[40, 55], [30, 5], [90, 0]],
    (3, True): [[40, 55, 7], [30, 5, 60], [90, 0, 0]],
    (7, True): [[40, 55, 7, 21, 33, 12, 9], [30, 5, 60, 4, 8, 15, 6], [90, 0, 0, 0, 0, 0, 0]],
}
COUNTS = SIDES[2, False]
SHARDS = {  # of 24 utterances each worker's, by number of workers
    1: {"whole": (24,)},
    2: {"uneven": (17, 7), "empty": (24, 0)},
    4: {"uneven": (11, 6, 6, 1), "empty": (12, 0, 9, 3)},
}


class Spread(Loss):
    """A loss of sums of squares: mean + fairness_weight * sum of variances in two cells."""

    def __call__(self, sums, fairness_weight):
        total, square, count = self.known(sums)[:, :2]
        present = count > 0
        count = count.clamp(min=1)
        variance = torch.where(present, square / count - (total / count) ** 2, 0.0)
        return sums[0].sum() / sums[2].sum() + fairness_weight * variance.sum()


@dataclass(frozen=True)
class Case:
    objective: str
    workers: int
    shards: str
    pieces: int
    dropout: float = 0.0
    real: bool = False
    sides: int = 2
    unknown: bool = False

    def __str__(self) -> str:
        model = "qwen2-audio" if self.real else "stand-in"
        sides = f"{self.sides}-sides" + "-and-unknown" * self.unknown
        where = f"{self.workers}-workers-{self.shards}-{self.pieces}-passes"
        return f"{model}-{self.objective}-{sides}-{where}"

    @property
    def data(self) -> dict[str, torch.Tensor]:
        return data(self.sides, self.unknown)

    def rows(self) -> list[list[torch.Tensor]]:
        """Rows of each worker's micro-batches; `empty` sorts by side: workers see few only."""
        side = self.data["side"]
        sizes = [len(side) * share // 24 for share in SHARDS[self.workers][self.shards]]
        order = torch.randperm(len(side), generator=torch.Generator().manual_seed(5))
        if self.shards == "empty":
            order = order[side[order].argsort(stable=True)]
        return [
            [rows for rows in shard.tensor_split(self.pieces) if len(rows)]
            for shard in order.split(sizes)
        ]


CASES = (
    [
        Case(objective, workers, shards, pieces, dropout)
        for workers in SHARDS
        for objective, shards, pieces, dropout in product(
            OBJECTIVES, SHARDS[workers], (1, 3), (0.0, 0.05)
        )
    ]
    + [
        Case("p2-linear", workers, shards, pieces, dropout, real=True)
        for workers, shards in ((1, "whole"), (2, "uneven"))
        for pieces, dropout in ((1, 0.0), (3, 0.0), (3, 0.05))
    ]
    + [
        Case(objective, workers, shards, pieces, sides=sides, unknown=unknown)
        for sides, unknown in list(SIDES)[1:]
        for workers, shards, pieces in ((1, "whole", 1), (2, "empty", 3), (4, "uneven", 3))
        for objective in OBJECTIVES
    ]
)


@functools.cache
def data(sides: int = 2, unknown: bool = False) -> dict[str, torch.Tensor]:
    """24 utterances, or 72; the third cell has the first side alone, with the largest losses."""
    random = torch.Generator().manual_seed(3)
    n = 24 if sides == 2 else 72
    both = 2 * n // 3  # are of the cells that have several sides
    side = torch.arange(both) % 2
    if sides > 2:
        side = torch.randint(sides, (both,), generator=random)
    side = torch.cat([side, torch.zeros(n - both, dtype=torch.int64)])
    cell = [0, 0, 1, 1, 0, 1] * (n // 6)
    cell = torch.tensor([*cell[:both], *[2] * (n - both)])
    x = torch.randn(n, 6, dtype=torch.float64, generator=random) + side.unsqueeze(1)
    x[both:] *= 9
    label = torch.randint(4, (n,), generator=random)
    if unknown:
        side[::5] = sides
    return {"x": x, "label": label, "cell": cell, "side": side}


class StandIn(torch.nn.Module):
    """What the step knows of a model: losses of a batch."""

    def __init__(self, dropout: float, dtype=torch.float64, held=None) -> None:
        super().__init__()
        self.held = held or data()
        torch.manual_seed(11)
        layers = (torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout))
        self.body = torch.nn.Sequential(*layers, torch.nn.Linear(8, 4)).to(dtype)

    def losses(self, batch, *, over):
        return F.cross_entropy(self.body(batch.audio), batch.label, reduction="none")[None]

    def random_state(self):
        return torch.get_rng_state()

    def set_random_state(self, state):
        torch.set_rng_state(state)

    def batch(self, rows) -> Batch:
        d, no = self.held, torch.zeros(len(rows))
        x = d["x"][rows].to(self.body[0].weight.dtype)
        groups = d["label"][rows], d["cell"][rows], d["side"][rows]
        return Batch(no, None, x, no, no, no, *groups, rows)

    def trained(self):
        return list(self.body.parameters())


class Real:
    """The same utterances, heard by the random Qwen2-Audio in float64; LoRA is trained."""

    def __init__(self, dropout: float) -> None:
        import pandas as pd

        labels = ("anger", "joy", "fear", "neutral")
        self.speech = tiny_run.speech("float64", labels=labels)
        self.speech.reset_adapter(config.Adapter(r=2, dropout=dropout), seed=1)
        torch.manual_seed(2)
        for (
            _,
            parameter,
        ) in self.speech.trainable():  # lora_B starts at 0, and lora_A's gradient too
            parameter.data += 0.2 * torch.randn_like(parameter)
        self.speech.training = True
        self.random_state, self.set_random_state = (
            self.speech.random_state,
            self.speech.set_random_state,
        )
        d = data()
        table = pd.DataFrame(
            {
                "utterance_id": [str(i) for i in range(24)],
                "emotion": [labels[i] for i in d["label"]],
                "gender": [("female", "male")[s] for s in d["side"]],
                "language": [CELLS[c][0] for c in d["cell"]],
                "transcript": "",
            }
        )
        store = _Store({str(i): torch.randn(2 + i % 5, 32).double() for i in range(24)})
        self.examples = IndexedUtterances(
            table, store=store, prompt=self.speech.prompt, labels=labels, cells=CELLS
        )

    def losses(self, batch, *, over):
        return self.speech.losses(batch, over=over)

    def batch(self, rows) -> Batch:
        return self.examples.batch(
            rows.numpy(), answers=False, device="cpu", dtype=self.speech.dtype
        )

    def trained(self):
        return [parameter for _, parameter in self.speech.trainable()]


class _Store(dict):
    tensor = dict.__getitem__


def objective_of(name: str, sides: int = 2, unknown: bool = False) -> Objective:
    LOSSES["spread"] = Spread
    settings, gaps, _ = OBJECTIVES[name]
    given = {"counts": SIDES[sides, unknown], "unknown": unknown}
    objective = Objective(config.Objective(**settings), cells=CELLS, **given)
    del LOSSES["spread"]
    for gap in gaps:
        objective.evaluated({"max_gap": gap})
    return objective


def model_of(case: Case):
    return Real(case.dropout) if case.real else StandIn(case.dropout, held=case.data)


def ours(case: Case, world: World) -> dict[str, torch.Tensor]:
    """Gradient (flat), sums and value as one worker of `world` gets them."""
    model = model_of(case)
    batches = [model.batch(rows) for rows in case.rows()[world.rank]]
    seeded(model, world.rank)
    sums, value, raised = accumulate_gradients(
        model,
        objective_of(case.objective, case.sides, case.unknown),
        batches=batches,
        progress=PROGRESS,
        world=world,
        over="labels",
    )
    world.all_reduce_gradients(model.trained())
    world.all_reduce(raised)
    gradient = torch.cat([p.grad.flatten() for p in model.trained()])
    return {"gradient": gradient, "sums": sums, "value": value, "raised": raised}


def seeded(model, rank: int) -> None:
    """The random numbers of a worker: dropout's."""
    if isinstance(model, Real):
        model.speech.adapters[0].generator.manual_seed(100 + rank)
    else:
        torch.manual_seed(100 + rank)


def reference(case: Case) -> dict[str, torch.Tensor]:
    """One process, one autograd graph over the global batch; masks, if any, as the workers drew."""
    model, pieces, losses = model_of(case), case.rows(), []
    if not case.dropout:
        order = torch.cat([rows for worker in pieces for rows in worker])
        losses = model.losses(model.batch(order), over="labels")[0]
    else:
        for rank, worker in enumerate(pieces):
            seeded(model, rank)
            losses += [model.losses(model.batch(rows), over="labels")[0] for rows in worker]
        losses = torch.cat(losses)
    order = torch.cat([rows for worker in pieces for rows in worker])
    value = formula(case, losses, case.data["cell"][order], case.data["side"][order])
    gradient = torch.autograd.grad(value, model.trained(), retain_graph=True)
    (by_loss,) = torch.autograd.grad(value, losses)
    return {
        "gradient": torch.cat([g.flatten() for g in gradient]),
        "value": value.detach(),
        "raised": (by_loss < 0).sum(),
    }


def formula(case: Case, losses, cell, side):
    """The formulas of ermgap/objective by plain means over the whole batch, seen once.

    A first batch's running means are its own, so that `ema` differs in its gradient alone.
    """
    settings, _, fairness_weight = OBJECTIVES[case.objective]
    counts = SIDES[case.sides, case.unknown]
    groups = {
        (c, s): losses[(cell == c) & (side == s)]
        for c in range(len(CELLS))
        for s in range(case.sides)
    }
    present = {key: group for key, group in groups.items() if len(group)}
    mean, p, known = losses.mean(), settings.get("p", 2.0), side < case.sides
    if settings["loss"] == "erm":
        return mean
    if settings["loss"] == "spread":
        cells = {key: group for key, group in present.items() if key[0] < 2}
        return mean + fairness_weight * sum(group.var(correction=0) for group in cells.values())
    if settings["loss"] == "vrex":
        risks = torch.stack([group.mean() for group in present.values()])
        if settings.get("sides") == "worse":
            above = [risk - risks.mean().detach() for risk in risks if risk > risks.mean()]
            return mean + fairness_weight * sum(gap**2 for gap in above) / len(risks)
        return mean + fairness_weight * risks.var(correction=0)
    if settings["loss"] == "reweight":
        each = 1 / torch.tensor(counts, dtype=torch.float64)[cell[known], side[known]]
        value = (each / each.sum() * losses[known]).sum()
    elif settings["loss"] == "groupdro":  # all groups that exist start alike
        raw = {
            (c, s): torch.exp(0.3 * (group.mean().detach() + 1.0 / counts[c][s] ** 0.5))
            for (c, s), group in present.items()
        }
        existing = sum(n > 0 for row in counts for n in row)
        absent = existing - len(present)
        value = sum(raw[key] * present[key].mean() for key in present)
        value = value / (sum(raw.values()) + absent)
    if settings["loss"] in ("reweight", "groupdro"):
        return (known.sum() * value + losses[~known].sum()) / len(losses)
    least = 2 if settings.get("estimator") == "unbiased" else 1
    ends = {}
    for c in range(len(CELLS)):
        held = [group for (at, _), group in groups.items() if at == c and len(group) >= least]
        held.sort(key=lambda group: group.mean().item())
        if len(held) > 1:
            ends[c] = held[-1], held[0]
    higher, lower = max(ends.values(), key=lambda pair: (pair[0].mean() - pair[1].mean()).item())
    below = lower.mean()
    penalty = (higher.mean() - (below.detach() if settings.get("sides") == "worse" else below)) ** p
    if settings.get("estimator") == "unbiased":
        penalty = penalty - sum(group.var() / len(group) for group in (higher, lower))
    if settings.get("relative"):
        penalty = penalty / mean.detach() ** (p - 1)
    return mean + fairness_weight * penalty


def work(rank: int, size: int, folder: str) -> None:
    """A real worker: every case of this number of workers, results to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size
    )
    world = World(rank, size)
    made = {case: ours(case, world) for case in CASES if case.workers == size}
    torch.save(list(made.values()), f"{folder}/{size}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Per case what each worker got, from one group of processes per number of workers."""
    folder = tmp_path_factory.mktemp("workers")
    made = {case: [ours(case, World())] for case in CASES if case.workers == 1}
    for size in (2, 4):
        tiny_run.in_processes(work, size, str(folder))
        workers = [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)]
        here = [case for case in CASES if case.workers == size]
        made |= dict(zip(here, map(list, zip(*workers, strict=True)), strict=True))
    return made


def _relative(value, wanted) -> float:
    return float((value - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", [c for c in CASES if not c.dropout], ids=str)
def test_gradients_equal_the_formula_on_the_whole_batch(results, case):
    wanted = reference(case)
    for worker in results[case]:
        assert _relative(worker["gradient"], wanted["gradient"]) < 1e-10
        assert float(worker["value"]) == pytest.approx(float(wanted["value"]), rel=1e-12)
        assert int(worker["raised"]) == int(wanted["raised"])


@pytest.mark.parametrize("case", [c for c in CASES if c.dropout], ids=str)
def test_with_dropout_the_passes_equal_autograd_through_one_pass(results, case):
    wanted = reference(case)
    assert _relative(results[case][0]["gradient"], wanted["gradient"]) < 1e-10
    plain = reference(Case(**(case.__dict__ | {"dropout": 0.0})))
    assert _relative(plain["gradient"], wanted["gradient"]) > 1e-4, "no mask was drawn"


def test_workers_agree_to_the_bit_and_count_every_utterance_once(results):
    for case, workers in results.items():
        counts = torch.zeros(3, case.sides + case.unknown, dtype=torch.float64)
        for cell, side in zip(case.data["cell"], case.data["side"], strict=True):
            counts[cell, side] += 1
        assert torch.equal(workers[0]["sums"][2], counts), case
        for worker in workers[1:]:
            assert all(torch.equal(worker[key], workers[0][key]) for key in worker), case


def test_a_fairness_weight_of_zero_equals_erm_bit_for_bit():
    gradients = []
    for settings in ({"loss": "erm"}, {"loss": "minmaxgap", "lambda_max": 0.0}):
        model = StandIn(0.3, torch.float32)
        objective = Objective(config.Objective(**settings), cells=CELLS, counts=COUNTS)
        batches = [model.batch(rows) for rows in torch.arange(24).split(7)]
        torch.manual_seed(0)
        accumulate_gradients(
            model, objective, batches=batches, progress=0.5, world=World(), over="labels"
        )
        gradients.append([parameter.grad for parameter in model.trained()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


class Certain(StandIn):
    """A model whose losses are exactly 0, as where it has learnt its training set by heart."""

    def losses(self, batch, *, over):
        return 0 * super().losses(batch, over=over)


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "spread"])
def test_a_batch_of_losses_of_0_trains_nothing_and_breaks_nothing(name, pieces):
    model = Certain(0.0)
    batches = [model.batch(rows) for rows in torch.arange(24).tensor_split(pieces)]
    _, value, _ = accumulate_gradients(
        model, objective_of(name), batches=batches, progress=0.5, world=World(), over="labels"
    )
    assert value == 0.0
    assert all((parameter.grad == 0).all() for parameter in model.trained())
