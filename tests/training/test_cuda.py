"""On a GPU, what a step computes is what it computes on a CPU; skipped where there is none."""

from __future__ import annotations

import pytest
import tiny_run
import torch

from ermgap import config
from ermgap.model import qwen2_audio

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SETTINGS = [config.Adapter(r=3, dropout=0.0), config.Adapter(r=5, dropout=0.0)]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """A backbone on each device, and the same examples for both."""
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"))
    cache = tmp_path_factory.mktemp("features")

    def of(dtype: str):
        settings = config.Backbone(name="random-tiny", window_s=tiny_run.WINDOW_S, dtype=dtype)
        models = [
            qwen2_audio.load(settings, labels=tiny_run.LABELS, device=torch.device(name))
            for name in ("cpu", "cuda")
        ]
        return models, tiny_run.splits(table, models[0], cache=cache)[0]

    return of


# transformers computes a position's angles in float32 whatever the dtype, and each device rounds in
# its own way: 1.3e-9 of the losses on an H200.
@pytest.mark.parametrize("over", ["labels", "answer"])
@pytest.mark.parametrize(
    ("dtype", "close"), [("float64", 1e-7), ("float32", 1e-4), ("bfloat16", 0.05)]
)
def test_losses_and_gradients_equal_those_of_the_cpu(splits, dtype, close, over):
    models, examples = splits(dtype)
    found = []
    for model, device in zip(models, ("cpu", "cuda"), strict=True):
        model.set_adapters(SETTINGS, seeds=[1, 2])
        for member in (0, 1):
            for i, (_, parameter) in enumerate(model.trainable(member)):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.data += 0.1 * noise.to(parameter)
        batch = examples.batch(
            range(12), answers=over == "answer", device=device, dtype=model.dtype
        )
        losses = model.losses(batch, over=over)
        losses.sum().backward()
        gradients = [p.grad for member in (0, 1) for _, p in model.trainable(member)]
        found.append([losses.detach().cpu(), *(g.cpu() for g in gradients)])
    for here, there in zip(*found, strict=True):
        assert float((here - there).norm()) <= close * float(here.norm())


@pytest.mark.parametrize("shared", [False, True])
def test_a_shared_prefix_changes_no_score_and_dropout_is_repeatable(splits, shared):
    (_, model), examples = splits("float64")
    model.reset_adapter(config.Adapter(r=3, dropout=0.3), seed=1)
    batch = examples.batch(range(9), answers=False, device="cuda", dtype=model.dtype, shared=shared)
    plain = examples.batch(range(9), answers=False, device="cuda", dtype=model.dtype)
    with torch.no_grad():
        assert torch.allclose(model.label_logits(batch), model.label_logits(plain), rtol=1e-9)
        model.training, state = True, model.random_state()
        first = model.label_logits(plain)
        model.set_random_state(state)
        assert torch.equal(first, model.label_logits(plain))
    model.training = False
