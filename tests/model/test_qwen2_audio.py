"""Our answers, losses and gradients are those of Qwen2-Audio's own forward; adapters come and go.

The reference is `Qwen2AudioForConditionalGeneration.forward` on waveforms, texts tokenised whole by
its processor, all logits kept; ours runs on cached features and at answer positions alone.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_run
import torch
from tiny_run import LABELS

from ermgap import config
from ermgap.errors import UserError
from ermgap.model import attention, layer_operations, prompts
from ermgap.model.backbones import BACKBONES
from ermgap.model.batches import IndexedUtterances


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight clips of different lengths, with every label, language and gender."""
    table = tiny_run.tones(tmp_path_factory.mktemp("tones"), train=1, dev=0)
    return table.iloc[[0, 4, 8, 3, 7, 11, 2, 6]].reset_index(drop=True)


@pytest.fixture(scope="module", params=["random-tiny", "small"])
def speech(request):
    """Both models that run here, in float64, without an adapter."""
    try:
        return tiny_run.speech("float64", name=request.param, layers=2)
    except UserError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def examples(speech, table, tmp_path_factory) -> IndexedUtterances:
    return tiny_run.splits(table, speech, cache=tmp_path_factory.mktemp("features"))[0]


@pytest.fixture(scope="module")
def processor(speech):
    from transformers import AutoProcessor

    made = AutoProcessor.from_pretrained(BACKBONES.find(speech.settings.name)(speech.settings))
    made.tokenizer.padding_side = "right"
    return made


@pytest.fixture
def adapted(speech):
    """With an adapter that does something; without it again afterwards."""
    speech.reset_adapter(config.Adapter(r=3, dropout=0.0), seed=1)
    shake(speech)
    yield speech
    speech.adapters = []


@pytest.fixture(scope="module")
def peft_model(speech):
    """peft's own adapter on a model of its own, for `adapted`'s settings."""
    import peft
    from transformers import Qwen2AudioForConditionalGeneration

    folder = BACKBONES.find(speech.settings.name)(speech.settings)
    base = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float64)
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=6,
        lora_dropout=0.0,
        target_modules=r".*language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj)",
        modules_to_save=["multi_modal_projector"],
    )
    in_float64(base)
    return peft.get_peft_model(base, settings, autocast_adapter_dtype=False).eval()


def in_float64(model) -> None:
    """transformers' RMSNorm computes in float32 whatever it is given; here it shall not."""
    for module in model.modules():
        if type(module).__name__ == "Qwen2RMSNorm":
            module.forward = functools.partial(rms_norm, module)


def rms_norm(module, x):
    return module.weight * x * torch.rsqrt(x.square().mean(-1, True) + module.variance_epsilon)


def like(peft_model, speech, member: int = 0) -> list[torch.nn.Parameter]:
    """Give peft's adapter the values of ours; its parameters, in the order of ours."""
    theirs = dict(peft_model.named_parameters())
    found = []
    for name, value in speech.trainable(member):
        name = name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
        name = name.replace("projector.", "projector.modules_to_save.default.")
        found.append(theirs[f"base_model.model.{name}"])
        with torch.no_grad():
            found[-1].copy_(value)
    assert len(found) == sum(p.requires_grad for p in theirs.values())
    return found


def shake(speech, member: int = 0) -> None:
    torch.manual_seed(5 + member)
    with torch.no_grad():
        for _, parameter in speech.trainable(member):
            parameter += (
                0.1 * parameter.std().nan_to_num().clamp(min=0.1) * torch.randn_like(parameter)
            )


def inputs(processor, table, texts):
    audio = [soundfile.read(path)[0].astype(np.float32) for path in table["path"]]
    made = processor(
        text=texts, audio=audio, sampling_rate=16000, padding=True, return_tensors="pt"
    )
    made["input_features"] = made["input_features"].double()
    return made


def plain(model, processor, table, *, template: str = "short"):
    """Per utterance: logits [A, V] before each answer token, and those tokens [A], by forward."""
    labels = ", ".join(LABELS)
    question = prompts.PROMPTS[template]["speech"][""].format(audio="<|AUDIO|>", labels=labels)
    answered = [f"{question}{label}<|im_end|>" for label in table["emotion"]]
    asked = inputs(processor, table, [question] * len(table))["attention_mask"].sum(1)
    whole = inputs(processor, table, answered)
    logits = model(**whole).logits
    ends = whole["attention_mask"].sum(1)
    return [
        (logits[i, asked[i] - 1 : ends[i] - 1], whole["input_ids"][i, asked[i] : ends[i]])
        for i in range(len(table))
    ]


def batch_of(speech, examples, *, answers: bool, rows=None):
    rows = range(len(examples)) if rows is None else rows
    return examples.batch(rows, answers=answers, device="cpu", dtype=speech.dtype)


def close(found, wanted) -> bool:
    return float((found - wanted).abs().max()) < 1e-9 * float(wanted.abs().max())


@pytest.mark.parametrize("over", ["labels", "answer"])
def test_logits_and_losses_equal_the_plain_forward(
    adapted, peft_model, examples, processor, table, over
):
    like(peft_model, adapted)
    with torch.no_grad():
        reference = plain(peft_model, processor, table)
        batch = batch_of(adapted, examples, answers=over == "answer")
        logits = adapted.model.lm_head(adapted.answer_states(batch))[0]
        losses = adapted.losses(batch, over=over)[0]
        scores = adapted.label_logits(batch)[0]
    first = [adapted.tokenizer(label)["input_ids"][0] for label in LABELS]
    for i, (wanted, tokens) in enumerate(reference):
        asked = len(tokens) if over == "answer" else 1
        assert close(logits[i, :asked], wanted[:asked])
        assert close(scores[i], wanted[0][first])
        chosen = -wanted.log_softmax(-1)[range(len(tokens)), tokens].mean()
        label = -wanted[0][first].log_softmax(-1)[LABELS.index(table["emotion"][i])]
        assert close(losses[i], chosen if over == "answer" else label)
    assert len({len(tokens) for _, tokens in reference}) > 1, "answers of one length test less"
    assert float((scores[0] - scores[1]).abs().max()) > 1e-3, "the model does not listen"


@pytest.mark.parametrize("over", ["labels", "answer"])
def test_gradients_equal_those_of_the_plain_forward(
    adapted, peft_model, examples, processor, table, over
):
    weights = torch.linspace(-1, 2, len(table), dtype=torch.float64)
    names, parameters = zip(*adapted.trainable(), strict=True)
    theirs = like(peft_model, adapted)
    first = [adapted.tokenizer(label)["input_ids"][0] for label in LABELS]
    by_hand = []
    for (logits, tokens), emotion in zip(
        plain(peft_model, processor, table), table["emotion"], strict=True
    ):
        if over == "answer":
            by_hand.append(-logits.log_softmax(-1)[range(len(tokens)), tokens].mean())
        else:
            by_hand.append(-logits[0][first].log_softmax(-1)[LABELS.index(emotion)])
    wanted = torch.autograd.grad((weights * torch.stack(by_hand)).sum(), theirs)
    batch = batch_of(adapted, examples, answers=over == "answer")
    found = torch.autograd.grad((weights * adapted.losses(batch, over=over)[0]).sum(), parameters)
    scale = max(float(w.abs().max()) for w in wanted)
    for name, ours, theirs in zip(names, found, wanted, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-9 * scale, name
        assert float(theirs.abs().max()) > 0, name


def test_an_utterance_has_the_same_loss_alone_and_in_any_company(adapted, examples):
    with torch.no_grad():
        for over in ("labels", "answer"):
            together = adapted.losses(
                batch_of(adapted, examples, answers=over == "answer"), over=over
            )
            for i in (0, 3, 6):
                one = batch_of(adapted, examples, answers=over == "answer", rows=[i])
                assert close(adapted.losses(one, over=over)[0, 0], together[0, i])


def test_a_batch_with_answers_gives_the_same_label_scores_as_one_without(adapted, examples):
    with torch.no_grad():
        found = [
            adapted.label_logits(batch_of(adapted, examples, answers=answers))
            for answers in (True, False)
        ]
    assert close(*found)


@pytest.mark.parametrize("short", [attention.SHORT, 4])
def test_a_shared_prefix_and_longer_rows_change_no_score_and_no_gradient(
    adapted, examples, monkeypatch, short
):
    """Whether attention keeps its scores or runs the fused kernel, the prefix once or often."""
    parameters = [p for _, p in adapted.trainable()]

    def scores(shared: bool):
        batch = examples.batch(
            range(8), answers=True, device="cpu", dtype=adapted.dtype, shared=shared
        )
        losses = adapted.losses(batch, over="answer")
        weights = torch.linspace(-1, 2, 8, dtype=torch.float64)
        assert batch.packing.prefix == shared * len(adapted.prompt.prefix)
        return [losses, *torch.autograd.grad((weights * losses).sum(), parameters)]

    wanted = scores(False)
    monkeypatch.setattr(attention, "SHORT", short)
    for shared in (True, False):
        pairs = zip(scores(shared), wanted, strict=True)
        assert all(close(a.detach(), b.detach()) for a, b in pairs)


def test_a_dropout_mask_keeps_its_share_of_places_independently():
    generator = torch.Generator().manual_seed(0)
    for rate in (0.05, 0.3, 0.9):
        mask = layer_operations.keep_mask((301, 500), rate, generator)
        assert mask.shape == (301, 500) and mask.dtype == torch.bool
        error = (rate * (1 - rate) / mask.numel()) ** 0.5
        assert abs(float(mask.double().mean()) - (1 - rate)) < 5 * error
        for one, other in ((mask[:, :-1], mask[:, 1:]), (mask[:-1], mask[1:])):  # neighbours
            both = float((one & other).double().mean())
            assert abs(both - (1 - rate) ** 2) < 10 * error
    assert not torch.equal(mask, layer_operations.keep_mask((301, 500), 0.9, generator))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_weights_in_their_own_dtype_are_the_pages_of_the_file():
    """So that all slots of a machine share them: nothing of the model is copied into memory."""
    speech = tiny_run.speech("float32")
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("model.safetensors"):
            spans.append([int(number, 16) for number in line.split()[0].split("-")])
    for name, parameter in speech.model.named_parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in spans), name


# Adapters -----------------------------------------------------------------------------------------


def bits(speech) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in speech.model.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


@pytest.mark.parametrize("projector", [True, False])
def test_removing_an_adapter_leaves_the_pretrained_model_bit_for_bit(speech, projector):
    before, modules = bits(speech), [name for name, _ in speech.model.named_modules()]
    for r in (2, 5):
        speech.reset_adapter(config.Adapter(r=r, train_projector=projector), seed=r)
        shake(speech)
    speech.adapters = []
    assert same(before, bits(speech))
    assert [name for name, _ in speech.model.named_modules()] == modules
    assert not speech.trainable()


def test_an_adapter_is_a_function_of_its_settings_and_seed(speech):
    def fresh(r: int, seed: int):
        torch.rand(7)
        speech.reset_adapter(config.Adapter(r=r), seed=seed)
        return {name: p.detach().clone() for name, p in speech.trainable()}

    first, other = fresh(4, 3), fresh(4, 2)
    shake(speech)
    fresh(7, 3)
    shake(speech)
    assert same(first, fresh(4, 3)) and not same(first, other)
    speech.adapters = []


@pytest.mark.parametrize("projector", [True, False])
def test_lora_and_projector_are_all_that_is_trained(speech, projector):
    targets = ("q_proj", "down_proj")
    settings = config.Adapter(r=3, targets=targets, train_projector=projector)
    speech.reset_adapter(settings, seed=0)
    owners = {name.partition(".lora_")[0] for name, _ in speech.trainable() if "lora_" in name}
    rest = [(name, p) for name, p in speech.trainable() if "lora_" not in name]
    layer = "model.language_model.layers.{}.{}"
    assert owners == {
        layer.format(i, name) for i in (0, 1) for name in ("self_attn.q_proj", "mlp.down_proj")
    }
    assert all("multi_modal_projector" in name for name, _ in rest)
    assert len(rest) == (2 if projector else 0)
    assert all(3 in p.shape for name, p in speech.trainable() if "lora_" in name)
    speech.adapters = []


def test_a_fresh_adapter_changes_no_score(speech, examples):
    batch = batch_of(speech, examples, answers=False)
    with torch.no_grad():
        before = speech.label_logits(batch)
        speech.reset_adapter(config.Adapter(r=2), seed=0)
        assert close(speech.label_logits(batch), before)
    speech.adapters = []


def test_a_saved_adapter_read_by_peft_gives_the_same_logits(
    adapted, examples, processor, table, tmp_path
):
    import peft
    from transformers import Qwen2AudioForConditionalGeneration

    with torch.no_grad():
        ours = adapted.label_logits(batch_of(adapted, examples, answers=False))[0]
    adapted.adapters[0].save(tmp_path, base=adapted.model.name_or_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 8e6
    folder = BACKBONES.find(adapted.settings.name)(adapted.settings)
    base = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float64)
    in_float64(base)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        theirs = torch.stack([logits[0] for logits, _ in plain(loaded, processor, table)])
    assert close(ours, theirs[:, list(adapted.prompt.first_tokens)])


def test_auto_peft_model_finds_base_and_class_by_the_adapter_s_own_config(
    adapted, examples, processor, table, tmp_path
):
    import peft

    with torch.no_grad():
        ours = adapted.label_logits(batch_of(adapted, examples, answers=False))[0]
    folder = BACKBONES.find(adapted.settings.name)(adapted.settings)
    adapted.adapters[0].save(tmp_path, base=str(folder))
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    in_float64(loaded)
    with torch.no_grad():
        theirs = torch.stack([logits[0] for logits, _ in plain(loaded, processor, table)])
    assert close(ours, theirs[:, list(adapted.prompt.first_tokens)])
    projector = dict(adapted.trainable())["model.multi_modal_projector.linear.weight"]
    held = loaded.base_model.model.model.multi_modal_projector.modules_to_save["default"]
    assert torch.equal(held.linear.weight, projector)


# What is refused ----------------------------------------------------------------------------------


def sentence(problem) -> str:
    text = str(problem.value)
    assert "\n" not in text and text.endswith(".") and text.count(". ") == 0, text
    return text


def test_labels_that_begin_with_the_same_token_are_refused_in_one_sentence():
    with pytest.raises(UserError) as problem:
        tiny_run.speech(labels=("joy", "xenial", "anger", "xeric"))
    assert "'xenial' and 'xeric'" in sentence(problem) and "data.labels" in str(problem.value)


def test_an_unknown_prompt_is_refused_with_the_names_there_are():
    with pytest.raises(UserError) as problem:
        tiny_run.speech(prompt="shirt")
    assert "'shirt'" in str(problem.value) and "'short'" in str(problem.value)


@pytest.mark.parametrize("targets", [("q_prj",), ("q_proj", "q_prj"), ("self_attn",)])
def test_an_adapter_target_that_is_no_module_is_refused_and_nothing_is_left_behind(targets):
    speech = tiny_run.speech()
    before = bits(speech)
    with pytest.raises(UserError) as problem:
        speech.reset_adapter(config.Adapter(targets=targets), seed=0)
    assert targets[-1] in sentence(problem) and "adapter.targets" in str(problem.value)
    speech.reset_adapter(config.Adapter(), seed=0)
    speech.adapters = []
    assert same(before, bits(speech))


@pytest.mark.parametrize("damage", ["truncated", "no tokenizer", "not JSON"])
def test_a_damaged_backbone_is_refused_in_one_sentence(damage, tmp_path):
    source = BACKBONES.find("random-tiny")(config.Backbone(name="random-tiny", window_s=2))
    shutil.copytree(source, tmp_path / "model")
    if damage == "truncated":
        weights = tmp_path / "model" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "no tokenizer":
        for path in (tmp_path / "model").glob("*token*"):
            path.unlink()
    else:
        (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(UserError) as problem:
        tiny_run.speech(name="qwen2-audio-7b", path=str(tmp_path / "model"))
    assert "backbone" in str(problem.value) and "\n" not in str(problem.value)


def test_in_bfloat16_what_is_trained_is_float32_and_learns(table, tmp_path):
    exact, rough = tiny_run.speech("float64"), tiny_run.speech("bfloat16")
    losses = {}
    for speech in (exact, rough):
        examples = tiny_run.splits(table, speech, cache=tmp_path)[0]
        speech.reset_adapter(config.Adapter(r=3, dropout=0.0), seed=1)
        found = speech.losses(batch_of(speech, examples, answers=False), over="labels")[0]
        found.sum().backward()
        losses[speech] = found.detach().double()
    assert {p.dtype for _, p in rough.trainable()} == {torch.float32}
    assert all(p.grad.isfinite().all() for _, p in rough.trainable())
    moved = [name for name, p in rough.trainable() if p.grad.abs().max() > 0]
    assert sum("projector" in name for name in moved) == 2
    assert sum("lora_B" in name for name in moved) == 8
    assert torch.allclose(losses[rough], losses[exact], rtol=0.05, atol=0.05)
