"""Cells of more than two sides: which pair is compared, and what becomes of unknown sides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ermgap import config
from ermgap.objective import ESTIMATORS, LOSSES, Objective, group_sums, utterance_weights
from ermgap.objective.losses import mean_loss, value_and_gradient

CELLS = [("de", "speech"), ("en", "speech")]


def sums_of(groups: dict[tuple[int, int], list[float]], sides: int) -> torch.Tensor:
    """[3, 2, sides] from the losses of each (cell, side), added up in plain Python."""
    sums = torch.zeros(3, 2, sides, dtype=torch.float64)
    for (cell, side), values in groups.items():
        wanted = (math.fsum(values), math.fsum(v * v for v in values), len(values))
        sums[:, cell, side] = torch.tensor(wanted, dtype=torch.float64)
    return sums


def penalty_of(estimator, sums: torch.Tensor) -> tuple[float, np.ndarray]:
    """The penalty and its slope by the sums of losses, [2, sides]."""
    leaf = sums.clone().requires_grad_(True)
    value = estimator(leaf)
    return float(value.detach()), torch.autograd.grad(value, leaf)[0][0].numpy()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("sides", ["both", "worse"])
def test_the_gap_of_a_cell_is_its_highest_mean_less_its_lowest(p, sides):
    groups = {(0, 0): [2.0, 4.0], (0, 1): [1.0], (0, 2): [9.0, 7.0], (0, 3): [5.0]}
    sums = sums_of(groups | {(1, 0): [3.0], (1, 2): [9.5]}, 4)  # 8 - 1 = 7 and 9.5 - 3 = 6.5
    value, slope = penalty_of(ESTIMATORS["batch"](config.Objective(p=p, sides=sides)), sums)
    assert value == pytest.approx(7**p)
    pull = p * 7 ** (p - 1)
    lowest = -pull if sides == "both" else 0
    assert slope.tolist() == [pytest.approx([0, lowest, pull / 2, 0]), [0, 0, 0, 0]]


def test_of_sides_that_tie_for_an_extreme_one_alone_is_pulled():
    groups = {(0, 0): [5.0], (0, 1): [1.0], (0, 2): [5.0], (0, 3): [1.0], (1, 1): [9.0]}
    _, slope = penalty_of(ESTIMATORS["batch"](config.Objective(p=1.0)), sums_of(groups, 4))
    assert slope.tolist() == [[1, 0, 0, -1], [0, 0, 0, 0]]
    groups = {(0, 0): [5.0], (0, 1): [5.0], (0, 2): [5.0]}
    for name in ("batch", "ema"):
        for sides in ("both", "worse"):
            made = ESTIMATORS[name](config.Objective(p=1.0, sides=sides))
            made.observe(sums_of(groups, 3))
            value, slope = penalty_of(made, sums_of(groups, 3))
            assert value == 0 and not slope.any(), "a gap of 0 pulls nobody"


def test_running_means_choose_among_the_sides_that_the_batch_holds():
    made = ESTIMATORS["ema"](config.Objective(p=2.0, ema=0.5))
    made.observe(sums_of({(0, 0): [8.0], (0, 1): [2.0], (0, 2): [1.0], (1, 0): [3.0]}, 3))
    sums = sums_of({(0, 0): [6.0], (0, 1): [4.0, 4.0], (1, 0): [9.0], (1, 1): [2.0]}, 3)
    made.observe(sums)
    # Running: (4 + 6) / 1.5 and (1 + 8) / 2.5; the third side, lowest of all, is not in the batch.
    # The other cell: (1.5 + 9) / 1.5 less 2, the larger gap.
    value, slope = penalty_of(made, sums)
    assert value == pytest.approx(5.0**2)
    assert slope.tolist() == [[0, 0, 0], pytest.approx([10, -10, 0])]
    held = sums.clone()
    held[:, 1, 1] = 0  # then that cell has one side alone
    gap = 10 / 1.5 - 9 / 2.5
    value, slope = penalty_of(made, held)
    assert value == pytest.approx(gap**2)
    assert slope[0] == pytest.approx([2 * gap, -gap, 0]) and not slope[1].any()


def test_unbiased_averages_to_the_squared_gap_of_the_pair_that_running_means_chose():
    """Were pair and cell those of the batch, the mean would be far above every pair's gap."""
    random, size, steps = np.random.default_rng(0), 4, 8_000
    means = np.array([[1.5, 1.5, 1.5], [1.4, 1.8, 1.4]])
    made = ESTIMATORS["unbiased"](config.Objective(estimator="unbiased", ema=0.99))
    cell, side = np.repeat(np.indices((2, 3)).reshape(2, -1), size, axis=1)
    losses = random.gamma(2.0, np.repeat(means.ravel() / 2, size), (steps, cell.size))
    estimates, errors, largest = [], [], []
    for row in losses:
        tensors = map(torch.from_numpy, (row, cell, side))
        sums = group_sums(*tensors, cells=2, sides=3)
        made.observe(sums)
        _, pairs, worst = made.running_gaps(sums[2] >= 2)
        high, low = pairs[worst].flatten().tolist()
        truth = (means[int(worst), high] - means[int(worst), low]) ** 2
        estimates.append(float(made(sums)))
        errors.append(estimates[-1] - truth)
        group = row.reshape(2, 3, size)
        spread = group.var(-1, ddof=1) / size
        squares = (group.mean(-1)[:, :, None] - group.mean(-1)[:, None]) ** 2
        largest.append((squares - spread[:, :, None] - spread[:, None]).max())
    error = np.std(errors) / math.sqrt(steps)
    assert abs(np.mean(errors)) < 4 * error
    assert np.mean(largest) - 0.4**2 > 20 * error


@pytest.mark.parametrize("estimator", ["batch", "ema", "unbiased"])
def test_the_order_of_the_sides_does_not_matter(estimator):
    random, order = np.random.default_rng(1), [3, 0, 4, 2, 1]
    told = config.Objective(loss="minmaxgap", estimator=estimator)
    ours, other = (Objective(told, cells=CELLS, counts=np.full((2, 5), 9)) for _ in range(2))
    for _ in range(20):
        groups = {
            (c, s): random.gamma(2, size=random.integers(6)) for c in (0, 1) for s in range(5)
        }
        sums = sums_of(groups, 5)
        value, gradient = ours(sums, progress=0.5)
        turned, slope = other(sums[..., order], progress=0.5)
        assert float(value) == pytest.approx(float(turned), rel=1e-12)
        assert gradient[0][:, order].numpy() == pytest.approx(slope[0].numpy(), rel=1e-10)


# Utterances of unknown side ----------------------------------------------------------------------

COUNTS = torch.tensor([[40.0, 9, 20], [100, 3, 50]], dtype=torch.float64)
SOME = {(0, 0): [1.0, 2.0], (0, 1): [3.0], (0, 2): [1.5], (1, 0): [2.0], (1, 1): [0.5]}


def both(loss: str) -> tuple[Objective, Objective]:
    """The objective with and without a column for unknown sides."""
    told = config.Objective(loss=loss, estimator="ema", p=2.0, lambda_max=0.5)
    return tuple(
        Objective(told, cells=CELLS, counts=COUNTS, unknown=unknown) for unknown in (True, False)
    )


@pytest.mark.parametrize("loss", list(LOSSES))
def test_an_utterance_of_unknown_side_has_its_weight_in_the_mean_loss_and_no_other(loss):
    wider, known = both(loss)
    sums = sums_of(SOME | {(0, 3): [4.0, 1.0], (1, 3): [7.0]}, 4)
    value, gradient = wider(sums, progress=0.5)
    plain, slope = known(sums[..., :3], progress=0.5)
    mean, of_known = float(mean_loss(sums)), float(mean_loss(sums[..., :3]))
    if loss in ("groupdro", "reweight"):
        assert float(value) == pytest.approx(6 / 9 * float(plain) + 12 / 9)
        assert gradient[0, :, :3].numpy() == pytest.approx(6 / 9 * slope[0].numpy())
    else:  # the mean changes, the penalty does not
        assert float(value) - mean == pytest.approx(float(plain) - of_known)
        change = 1 / 9 - 1 / 6
        assert gradient[0, :, :3].numpy() == pytest.approx(slope[0].numpy() + change)
    assert gradient[0, :, 3].tolist() == pytest.approx([1 / 9, 1 / 9])
    weights = utterance_weights(gradient, torch.tensor([7.0]), torch.tensor([1]), torch.tensor([3]))
    assert float(weights[0]) == pytest.approx(1 / 9)
    assert str(wider.state_dict()) == str(known.state_dict()), "they are in no running mean, no q"


@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_batch_of_unknown_sides_alone_is_erm_and_an_empty_one_is_0(loss):
    wider, _ = both(loss)
    value, gradient = wider(sums_of({(1, 3): [3.0, 1.0]}, 4), progress=0.5)
    assert float(value) == 2.0
    assert gradient[0, 1, 3] == 0.5 and gradient[:2].isfinite().all()
    erm = value_and_gradient(wider.loss, torch.zeros(3, 2, 4, dtype=torch.float64), 0.5)
    assert float(erm[0]) == 0 and not erm[1][:2].any()


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_no_step_asks_the_device_for_a_number(loss, estimator):
    """A tensor of device `meta` has none: asking raises an error."""
    told = config.Objective(loss=loss, estimator=estimator, relative=True)
    made = Objective(told, cells=CELLS, counts=COUNTS, unknown=True)
    losses, index = torch.empty(9, device="meta"), torch.empty(9, device="meta", dtype=torch.int64)
    for _ in range(2):
        sums = group_sums(losses, index, index, cells=2, sides=made.columns)
        value, gradient = made(sums, progress=0.5)
        utterance_weights(gradient, losses, index, index)
    assert value.is_meta and gradient.shape == (3, 2, 4)
