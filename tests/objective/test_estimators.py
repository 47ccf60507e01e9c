"""Estimators of the worst gap, `relative`, and the rivals' losses, against other computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ermgap import config, objective
from ermgap.errors import UserError
from ermgap.objective import ESTIMATORS, LOSSES, Objective, group_sums
from ermgap.objective.losses import mean_loss, value_and_gradient

EVEN = torch.full((3, 2), 50.0, dtype=torch.float64)


def drawn(random: np.random.Generator, means, *, size: int) -> torch.Tensor:
    """Sums of a batch with `size` utterances a side and cell; gamma losses of means [C, S]."""
    cells, sides = np.shape(means)
    losses = random.gamma(2.0, np.repeat(np.asarray(means, dtype=float).ravel() / 2.0, size))
    cell, side = np.repeat(np.indices((cells, sides)).reshape(2, -1), size, axis=1)
    return group_sums(*map(torch.from_numpy, (losses, cell, side)), cells=cells, sides=sides)


def estimate(name: str, sums: torch.Tensor, **settings) -> float:
    made = ESTIMATORS[name](config.Objective(estimator=name, **settings))
    made.observe(sums)
    return float(made(sums))


@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_over_random_batches_unbiased_averages_to_the_squared_gap_and_batch_is_off_by_the_variance(
    gap,
):
    size, batches, random = 4, 6_000, np.random.default_rng(0)
    means = np.array([[1.5 + gap, 1.5]])
    batch = [drawn(random, means, size=size) for _ in range(batches)]
    unbiased = np.array([estimate("unbiased", sums) for sums in batch])
    plain = np.array([estimate("batch", sums) for sums in batch])
    error = unbiased.std(ddof=1) / math.sqrt(batches)
    assert abs(unbiased.mean() - gap**2) < 3 * error
    excess = float((means**2 / 2.0).sum()) / size  # a gamma of shape 2 has variance mean^2 / 2
    assert abs(plain.mean() - gap**2 - excess) < 3 * plain.std(ddof=1) / math.sqrt(batches)
    assert excess > 20 * error


def test_running_means_find_the_worst_cell_where_a_single_batch_does_so_barely_above_chance():
    random = np.random.default_rng(1)
    means = np.array([[1.5, 1.5], [1.9, 1.5], [1.5, 1.5]])  # the second cell is the worst
    running = ESTIMATORS["ema"](config.Objective(estimator="ema", ema=0.95))
    hits = {"batch": 0, "ema": 0}
    for step in range(1200):
        sums = drawn(random, means, size=4)
        running.observe(sums)
        if step >= 200:
            gaps = (sums[0] / sums[2]).diff(dim=1).abs()
            hits["batch"] += int(gaps.argmax()) == 1
            hits["ema"] += int(running.running_gaps(sums[2] >= 1)[2]) == 1
    assert hits["ema"] / 1000 > 0.8 > 0.55 > hits["batch"] / 1000


def test_ema_has_the_size_of_the_running_gap_and_the_gradient_of_the_batch():
    random = np.random.default_rng(2)
    made = ESTIMATORS["ema"](config.Objective(estimator="ema", p=2.0, ema=0.5))
    total, count = np.zeros((3, 2)), np.zeros((3, 2))
    for _ in range(7):
        sums = drawn(random, np.array([[2, 1], [1, 1.2], [3, 1]]), size=3)
        made.observe(sums)
        total, count = 0.5 * total + sums[0].numpy(), 0.5 * count + sums[2].numpy()
    gaps = np.subtract(*(total / count).T)
    worst = int(np.abs(gaps).argmax())
    leaf = sums.clone().requires_grad_(True)
    value = made(leaf)
    value.backward()
    assert float(value.detach()) == pytest.approx(gaps[worst] ** 2, rel=1e-12)
    wanted = np.zeros((3, 2))
    wanted[worst] = 2 * gaps[worst] * np.array([1, -1]) / 3
    assert leaf.grad[0].numpy() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_cell_with_too_few_of_a_side_makes_no_penalty_whatever_it_was_before(name):
    random = np.random.default_rng(3)
    made = ESTIMATORS[name](config.Objective(estimator=name))
    made.observe(drawn(random, np.array([[9, 1], [2, 1.0]]), size=5))
    sums = drawn(random, np.array([[9, 1], [2, 1.0]]), size=2)
    sums[:, 0, 1] = torch.tensor([0.0, 0, 0] if name != "unbiased" else [1.0, 1, 1])
    made.observe(sums)
    leaf = sums.clone().requires_grad_(True)
    made(leaf).backward()
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad[:2, 0].abs().max() == 0 and leaf.grad[0, 1].abs().min() > 0
    sums[2, :, 0] = sums[0, :, 0] = 0
    leaf = sums.clone().requires_grad_(True)
    value = made(leaf)
    value.backward()
    assert float(value.detach()) == 0 and leaf.grad.abs().max() == 0


@pytest.mark.parametrize("loss", ["minmaxgap", "vrex"])
@pytest.mark.parametrize(
    ("estimator", "p"),
    [(name, p) for name in ESTIMATORS for p in (1.0, 2.0) if (name, p) != ("unbiased", 1.0)],
)
def test_a_relative_penalty_scales_with_the_losses_and_at_p_1_is_the_plain_one(loss, estimator, p):
    random = np.random.default_rng(4)
    sums = drawn(random, np.array([[2, 1], [1, 1.2], [3, 1.5]]), size=6)

    def j(c: float, relative: bool) -> tuple[float, torch.Tensor]:
        scaled = sums * torch.tensor([c, c * c, 1.0], dtype=torch.float64)[:, None, None]
        settings = config.Objective(loss=loss, estimator=estimator, p=p, relative=relative)
        made = Objective(settings, cells=[("x", str(i)) for i in range(3)], counts=EVEN)
        value, gradient = made(scaled, progress=0.5)
        return float(value), gradient

    plain, seven = j(1.0, True), j(7.0, True)
    assert seven[0] == pytest.approx(7 * plain[0], rel=1e-12)
    assert seven[1][0].numpy() == pytest.approx(plain[1][0].numpy(), rel=1e-9)
    if p == 1 and loss == "minmaxgap":
        assert plain[0] == j(1.0, False)[0]


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize(
    ("estimator", "p"),
    [(name, p) for name in ESTIMATORS for p in (1.0, 1.5, 2.0, 3.0)
     if name != "unbiased" or p == 2],
)  # fmt: skip
@pytest.mark.parametrize("relative", [True, False])
def test_where_every_loss_is_0_value_and_gradient_are_finite(loss, estimator, p, relative):
    settings = config.Objective(loss=loss, estimator=estimator, p=p, relative=relative)
    made = Objective(settings, cells=[("x", str(i)) for i in range(3)], counts=EVEN)
    zero = torch.zeros(3, 3, 2, dtype=torch.float64)
    zero[2] = 5
    lacking = zero.clone()
    lacking[2, 1:, 0] = 0
    before = drawn(np.random.default_rng(8), np.full((3, 2), 2.0), size=5)
    for sums in (zero, lacking, before, zero, lacking, 0 * zero):
        value, gradient = made(sums, progress=0.5)
        assert value.isfinite() and gradient.isfinite().all(), sums
        if relative and sums is not before:
            assert float(value) == 0


def test_losses_whose_power_overflows_make_no_relative_penalty():
    groups = torch.tensor([1e-320, 3e-320], dtype=torch.float64)
    sums = torch.stack([5 * groups, 5 * groups.square(), torch.full((2,), 5.0)]).unsqueeze(1)
    settings = config.Objective(loss="minmaxgap", relative=True, lambda_max=1.0)
    value, gradient = value_and_gradient(LOSSES["minmaxgap"](settings, sums[2]), sums, 1.0)
    assert value.isfinite() and gradient.isfinite().all()


def reference_dro(batches: list[dict], *, groups: list, sizes: dict, eta: float, c: float):
    """Group weights and objectives of arXiv 1911.08731, algorithm 1, in plain Python."""
    q = dict.fromkeys(groups, 1 / len(groups))
    values = []
    for batch in batches:
        risks = {g: sum(losses) / len(losses) for g, losses in batch.items()}
        for g, risk in risks.items():
            q[g] *= math.exp(eta * (risk + c / math.sqrt(sizes[g])))
        whole = sum(q.values())
        q = {g: value / whole for g, value in q.items()}
        values.append(sum(q[g] * risk for g, risk in risks.items()))
    return q, values


@pytest.mark.parametrize("c", [0.0, 2.0])
def test_groupdro_follows_algorithm_1_over_many_batches_and_resumes(c):
    random = np.random.default_rng(5)
    counts = torch.tensor([[40.0, 9.0], [100.0, 3.0]], dtype=torch.float64)
    groups = [(cell, side) for cell in (0, 1) for side in (0, 1)]
    settings = config.Objective(loss="groupdro", dro_eta=0.2, dro_c=c)
    made = Objective(settings, cells=[("de", "speech"), ("en", "speech")], counts=counts)
    batches, values = [], []
    for step in range(60):
        sizes = {g: int(random.integers(0 if step % 3 else 1, 5)) for g in groups}
        batch = {
            g: random.gamma(2, 1 + 0.5 * g[0] + 0.3 * g[1], n).tolist()
            for g, n in sizes.items()
            if n
        }
        batches.append(batch)
        flat = [(loss, *g) for g, losses in batch.items() for loss in losses]
        tensors = (torch.from_numpy(np.array(x)) for x in zip(*flat, strict=True))
        value, gradient = made(group_sums(*tensors, cells=2, sides=2), progress=0.0)
        values.append(float(value))
        if step == 30:  # what a checkpoint keeps is all there is
            state = made.state_dict()
            made = Objective(settings, cells=made.cells, counts=counts)
            made.load_state_dict(state)
    sizes = {g: float(counts[g]) for g in groups}
    q, wanted = reference_dro(batches, groups=groups, sizes=sizes, eta=0.2, c=c)
    assert values == pytest.approx(wanted, rel=1e-12)
    group_weights = made.loss.log_q.exp()
    assert [float(group_weights[g]) for g in groups] == pytest.approx(
        [q[g] for g in groups], rel=1e-12
    )


def test_reweight_makes_the_groups_alike_over_an_epoch_whatever_their_sizes():
    random, counts = np.random.default_rng(6), np.array([[30, 6], [90, 2]])
    losses = {(c, g): random.gamma(2, 1 + c + g, counts[c, g]) for c in (0, 1) for g in (0, 1)}
    flat = [(loss, *g) for g, values in losses.items() for loss in values]
    tensors = (torch.from_numpy(np.array(x)) for x in zip(*flat, strict=True))
    sums = group_sums(*tensors, cells=2, sides=2)
    made = LOSSES["reweight"](config.Objective(loss="reweight"), torch.tensor(counts).double())
    value, _ = value_and_gradient(made, sums, 0.0)
    assert float(value) == pytest.approx(np.mean([v.mean() for v in losses.values()]), rel=1e-12)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_where_all_losses_are_alike_every_objective_pulls_as_erm_does_or_evenly(loss):
    sums = drawn(np.random.default_rng(7), np.ones((3, 2)), size=5)
    sums[0], sums[1] = 2 * sums[2], 4 * sums[2]
    made = Objective(config.Objective(loss=loss), cells=[("x", str(i)) for i in range(3)],
                     counts=EVEN)  # fmt: skip
    value, gradient = made(sums, progress=0.5)
    assert float(value) == pytest.approx(2.0) == float(mean_loss(sums))
    assert gradient[0].numpy() == pytest.approx(np.full((3, 2), 1 / 30), rel=1e-12)


def test_an_estimator_of_a_plugin_needs_a_registry_line_and_an_unknown_one_is_refused_by_name():
    settings = config.Objective(loss="minmaxgap", estimator="median")
    with pytest.raises(
        UserError, match="estimator called .median.*choose one of batch, ema, unbiased"
    ) as problem:
        objective.check_registered(settings)
    assert "\n" not in str(problem.value)

    class Median(ESTIMATORS["batch"]):
        def __call__(self, sums):
            return super().__call__(sums) / 2

    ESTIMATORS["median"] = Median
    try:
        objective.check_registered(settings)
        objectives = [
            Objective(
                config.Objective(loss="minmaxgap", estimator=name, schedule="constant", p=1.0),
                cells=[("en", "speech")],
                counts=[[9, 9]],
            )
            for name in ("batch", "median")
        ]
        sums = drawn(np.random.default_rng(0), np.array([[1.5, 1.0]]), size=4)
        plain, halved = (made.loss(sums, torch.tensor(1.0)) for made in objectives)
        base = sums[0].sum() / sums[2].sum()
        assert float(halved - base) == pytest.approx(float(plain - base) / 2)
    finally:
        del ESTIMATORS["median"]
