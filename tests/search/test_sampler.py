"""The default sampler: its acquisition, its model of learning curves, what it proposes."""

from __future__ import annotations

import moocore
import numpy as np
import optuna
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from ermgap.config import Config
from ermgap.config.losses import LOSSES
from sweeps.search import space
from sweeps.search.sampling.encoding import Encoding
from sweeps.search.sampling.improvement import expected_improvement
from sweeps.search.sampling.sampler import FrontSampler
from sweeps.search.sampling.surrogate import START, Observations, Surrogate
from sweeps.search.searcher import RecordsSearcher
from sweeps.search.stopping import ranks


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("points", [0, 1, 2, 7])
def test_the_expected_improvement_is_the_mean_of_moocores_improvements(objectives, points):
    rng = np.random.default_rng(points + 10 * objectives)
    front = rng.random((points, objectives))
    front = front[ranks(front) == 0] if points else front
    reference = np.full(objectives, 1.1)
    mean, sd = rng.random((4, objectives)), 0.05 + 0.3 * rng.random((4, objectives))
    expected = expected_improvement(mean, sd, front=front, reference=reference)
    before = moocore.hypervolume(front, ref=reference) if len(front) else 0.0
    for i in range(len(mean)):
        draws = mean[i] + sd[i] * rng.standard_normal((4000, objectives))
        gains = [
            moocore.hypervolume(np.vstack([front, draw]), ref=reference) - before
            if (draw < reference).all()
            else 0.0
            for draw in draws
        ]
        error = np.std(gains) / np.sqrt(len(gains))
        assert abs(expected[i] - np.mean(gains)) < 4 * error + 1e-9


def test_without_variance_it_is_the_improvement_itself_and_nothing_behind_the_front():
    front, reference = np.array([[0.2, 0.8], [0.6, 0.3]]), np.array([1.0, 1.0])
    mean = np.array([[0.7, 0.9], [0.4, 0.5], [0.1, 0.1], [1.2, 0.0]])
    expected = expected_improvement(mean, np.full((4, 2), 1e-9), front=front, reference=reference)
    before = moocore.hypervolume(front, ref=reference)
    wanted = [moocore.hypervolume(np.vstack([front, m]), ref=reference) - before for m in mean[:3]]
    np.testing.assert_allclose(expected, [*wanted, 0.0], atol=1e-8)


def seen(n: int, seed: int = 0, *, rungs: bool) -> tuple[Observations, np.ndarray]:
    """A smooth function of two variables, with or without two rungs that are biased; and x."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2))
    values = truth(x) + rng.normal(0, 0.02, n)
    parts = [(x, np.zeros(n), np.arange(n), values)]
    for share in (0.8, 0.4) if rungs else ():
        parts.append((x, np.full(n, share), np.arange(n), values + share * (1 + 0.2 * x[:, 0])))
    return Observations(*(np.concatenate(column) for column in zip(*parts, strict=True))), x


def truth(x: np.ndarray) -> np.ndarray:
    return np.sin(3 * x[:, 0]) + (x[:, 1] - 0.4) ** 2


def test_at_full_budget_alone_the_model_is_scikit_learns_with_the_same_kernel():
    observations, x = seen(20, rungs=False)
    model = Surrogate(observations, groups=np.arange(2))
    scale = np.exp(model.settings[:2])
    part = dict(zip(START, np.exp(model.settings[2:]), strict=True))
    kernel = (
        ConstantKernel(part["signal"]) * Matern(scale, nu=2.5)
        + ConstantKernel(1.0)
        + WhiteKernel(part["trial"] + part["noise"] + 1e-6)
    )
    peer = GaussianProcessRegressor(kernel, optimizer=None)
    peer.fit(x, (observations.values - model.centre) / model.spread)
    at = np.random.default_rng(1).random((15, 2))
    mean, sd = model.predict(at)
    wanted, width = peer.predict(at, return_std=True)
    np.testing.assert_allclose((mean - model.centre) / model.spread, wanted, atol=1e-4)
    latent = width**2 - (part["trial"] + part["noise"] + 1e-6)  # scikit-learn's has the noise
    np.testing.assert_allclose((sd / model.spread) ** 2, latent, atol=1e-4)


def test_what_was_stopped_early_improves_the_prediction_at_full_budget():
    few, _ = seen(6, rungs=False)
    stopped, _ = seen(30, seed=1, rungs=True)
    early = stopped.remaining > 0
    both = Observations(
        np.concatenate([few.features, stopped.features[early]]),
        np.concatenate([few.remaining, stopped.remaining[early]]),
        np.concatenate([few.trial, stopped.trial[early] + 100]),
        np.concatenate([few.values, stopped.values[early]]),
    )
    # The finished trials' own rungs tell how far an early value is from a late one.
    own, _ = seen(6, rungs=True)
    both = Observations(*(np.concatenate([getattr(both, f), getattr(own, f)[6:]])
                          for f in ("features", "remaining", "trial", "values")))  # fmt: skip
    at = np.random.default_rng(2).random((200, 2))
    errors = [np.abs(Surrogate(data, groups=np.arange(2)).predict(at)[0] - truth(at)).mean()
              for data in (few, both)]  # fmt: skip
    assert errors[1] < 0.6 * errors[0]


def test_a_running_configuration_narrows_the_model_and_does_not_move_it():
    observations, _ = seen(12, rungs=False)
    model, at = Surrogate(observations, groups=np.arange(2)), np.array([[0.95, 0.05]])
    mean, sd = model.predict(at)
    model.believe(at)
    again, narrower = model.predict(at)
    assert abs(again[0] - mean[0]) < 0.02 * model.spread and narrower[0] < 0.9 * sd[0]


@pytest.mark.parametrize("changes", [{}, {"sweep.space": {"loss": ["minmaxgap"]}}])
def test_encoding_and_decoding_are_inverse_and_inside_the_conditional_space(changes):
    config = Config().replace(changes)
    encoding, rng = Encoding(config), np.random.default_rng(0)
    for _ in range(100):
        hyperparameters = encoding.decode(rng.random(len(encoding.distributions)))
        assert space.inside(hyperparameters, config)
        again = encoding.decode(encoding.encode(hyperparameters))
        assert again.keys() == hyperparameters.keys()
        for name, value in hyperparameters.items():
            assert again[name] == (pytest.approx(value) if isinstance(value, float) else value)
        moved = encoding.near(encoding.encode(hyperparameters), rng, scale=0.1)
        assert space.inside(encoding.decode(moved), config) and (moved >= 0).all()


def test_two_options_of_a_choice_are_as_far_apart_as_the_ends_of_a_range():
    encoding = Encoding(Config())
    made = encoding.features([{"loss": loss} for loss in ("minmaxgap", "vrex", "erm")])
    far = np.linalg.norm(made[:, None] - made[None], axis=-1)
    np.testing.assert_allclose(far, 1 - np.eye(3))
    assert len(set(encoding.groups)) == len(encoding.distributions)


def bowl(hyperparameters: dict) -> dict:
    """Accuracy grows towards lr 5e-3, the gap towards lr 2e-3: the front lies between."""
    place = np.log(hyperparameters["lr"])
    return {
        "status": "finished",
        "w_f1": 0.8,
        "acc": float(0.9 - (place - np.log(5e-3)) ** 2 / 10),
        "max_gap": float(0.1 + (place - np.log(2e-3)) ** 2 / 10),
    }


def search(n: int, *, measured=bowl, **sweep) -> list[dict]:
    config = Config().replace({f"sweep.{k}": v for k, v in {"trials": 40, **sweep}.items()})
    searcher, found = RecordsSearcher(config, points=()), []
    for number in range(n):
        hyperparameters = searcher.suggest(str(number))["hyperparameters"]
        searcher.on_trial_complete(str(number), measured(hyperparameters))
        found.append(hyperparameters)
    return found


def test_it_finds_where_the_front_lies_and_goes_on_along_it():
    late = [hyperparameters["lr"] for hyperparameters in search(24, sampler="front")][10:]
    inside = np.mean([1.8e-3 < lr < 5.5e-3 for lr in late])
    assert inside >= 0.8  # 51 % of the range
    assert np.std(np.log(late)) > 0.1  # and not at one point of it


def test_a_constraint_of_the_users_keeps_proposals_where_it_holds():
    def measured(hyperparameters: dict) -> dict:
        return bowl(hyperparameters) | {"w_f1": 0.8 if hyperparameters["lr"] < 3e-3 else 0.4}

    free = [hyperparameters["lr"] for hyperparameters in search(24, measured=measured)][12:]
    bound = [c["lr"] for c in search(24, measured=measured, constraints={"w_f1": 0.5})][12:]
    assert np.mean([lr < 3.1e-3 for lr in bound]) >= 0.8 > np.mean([lr < 3.1e-3 for lr in free])


def test_the_same_seed_proposes_the_same_and_another_does_not():
    first, second, other = search(9, seed=1), search(9, seed=1), search(9, seed=2)
    assert first == second != other


def test_losses_are_dealt_in_turn_whatever_the_model_thinks():
    losses = [hyperparameters["loss"] for hyperparameters in search(20)]
    assert {losses.count(loss) for loss in LOSSES} == {4}


def test_optunas_own_study_accepts_what_it_proposes():
    config = Config().replace({"sweep.trials": 40})
    searcher = RecordsSearcher(config, points=())
    for number in range(8):
        hyperparameters = searcher.suggest(str(number))["hyperparameters"]
        searcher.on_trial_complete(str(number), bowl(hyperparameters))
    trials = searcher.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(trials) == 8 and searcher.study.best_trials
    assert all(space.inside(trial.params, config) for trial in trials)


def test_proposals_take_turns_between_trusting_doubting_and_tpe(monkeypatch):
    """Of every four after the start: two by means, one by the whole model, one by TPE."""
    turns = []
    density, score = FrontSampler._by_density, FrontSampler._score

    def by_density(self, *given):
        turns.append((self.number, "tpe"))
        return density(self, *given)

    def by_model(self, *given):
        turns.append((self.number, "means" if self.number % 2 else "whole"))
        return score(self, *given)

    monkeypatch.setattr(FrontSampler, "_by_density", by_density)
    monkeypatch.setattr(FrontSampler, "_score", by_model)
    search(17)
    wanted = {0: "tpe", 1: "means", 2: "whole", 3: "means"}
    assert turns == [(number, wanted[number % 4]) for number in range(5, 17)]


def test_what_tpe_draws_is_a_configuration_of_the_space():
    config = Config().replace({"sweep.trials": 40})
    searcher = RecordsSearcher(config, points=())
    for number in range(21):
        hyperparameters = searcher.suggest(str(number))["hyperparameters"]
        assert space.inside(hyperparameters, config)
        searcher.on_trial_complete(str(number), bowl(hyperparameters))


def test_a_configuration_is_not_proposed_twice_where_there_are_few():
    others = {name: False for name in space.SPACE if name not in ("lora_r", "loss", "lr")}
    few = {"space": others | {"loss": False, "lr": [1e-3, 1.001e-3], "lora_r": [8, 16, 32]}}
    found = search(12, **few)
    assert len({tuple(sorted(hyperparameters.items())) for hyperparameters in found}) == 12
