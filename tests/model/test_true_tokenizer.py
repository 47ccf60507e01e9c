"""With Qwen's true vocabulary and structure, our scores are those of transformers' own forward.

The reference reads the prompts' file itself, tokenises whole texts by its own processor, and keeps
all logits of `Qwen2AudioForConditionalGeneration.forward`; ours come the way of a run: features
from the store, prompts cut at the audio, no padding, answer positions alone.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import true_structure
import yaml

from ermgap import config
from ermgap.config import MELD_LABELS
from ermgap.distributed import World
from ermgap.model import prompts, qwen2_audio, self_check
from ermgap.model.batches import IndexedUtterances, cells_of
from ermgap.model.features.audio_tower import log_mel
from ermgap.training.context import features_of
from ermgap.training.evaluation import label_log_probabilities, predictions

EXACT = 1e-5  # float32, absolute, on logits of size 1 to 5; measured: up to 3.4e-6
AUDIO, IM_START, IM_END = 151646, 151644, 151645
LABELS = "anger, disgust, fear, joy, neutral, sadness, surprise"
# One placeholder; ordinary ones; all of the window, so that no mel frame is padded; cut by it.
SECONDS = {4: (0.05, 0.3, 1.37, 4.0, 4.6), 30: (0.3, 30.0)}
SPOKEN = (
    "Oh my God, they killed it!",
    "Das will sie am Mittwoch abgeben.",
    "こっちへ来て、早く。",
    "I'm 32 - and \u201cfine\u201d.",
    "yes",
)
LANGUAGES = ("en", "de", "ja", "en", "fr")


class Reference:
    """transformers' processor and model, on texts and waveforms."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()

    def inputs(self, texts, clips, *, side: str = "right"):
        self.processor.tokenizer.padding_side = side
        return self.processor(
            text=texts, audio=clips, sampling_rate=16000, padding=True, return_tensors="pt"
        )

    @torch.no_grad()
    def at_answer(self, texts, clips, *, side: str = "right") -> torch.Tensor:
        """Logits [B, V] at the last token of each text."""
        inputs = self.inputs(texts, clips, side=side)
        last = inputs["attention_mask"].cumsum(1).argmax(1)
        return self.model(**inputs).logits[range(len(texts)), last]

    def first_tokens(self, question: str) -> list[int]:
        """Of each label, the token that stands behind this question."""
        words, asked = self.processor.tokenizer, len(self.processor.tokenizer(question).input_ids)
        return [words(question + label).input_ids[asked] for label in MELD_LABELS]


class Place:
    """The model of one window, loaded by us and by transformers, and some clips."""

    def __init__(self, folder: Path, window_s: int) -> None:
        model = true_structure.build(window_s=window_s)
        settings = config.Backbone(
            "qwen2-audio-7b", path=str(model), window_s=window_s, dtype="float32"
        )
        self.speech = qwen2_audio.load(settings, labels=MELD_LABELS, device=torch.device("cpu"))
        self.reference = Reference(model)
        self.table = clips(folder, SECONDS[window_s])
        self.waves = [soundfile.read(path, dtype="float32")[0] for path in self.table["path"]]
        self.store = features_of(self.speech, self.table, cache=folder / "features")

    def asked(self, prompt: str, modality: str) -> tuple[qwen2_audio.SpeechLLM, IndexedUtterances]:
        """Our model with another prompt, and the clips as examples of it in one modality."""
        one = self.speech
        made = prompts.build(one.tokenizer, prompts.find(prompt), MELD_LABELS)
        speech = qwen2_audio.SpeechLLM(one.model, one.tokenizer, one.extractor, made, one.settings)
        examples = IndexedUtterances(
            self.table,
            store=self.store,
            prompt=made,
            labels=MELD_LABELS,
            cells=cells_of(self.table, [modality]),
        )
        return speech, examples

    def questions(self, prompt: str, modality: str) -> list[str]:
        """The prompt's text for each clip, from the file, with one placeholder."""
        told = yaml.safe_load(prompts.FILE.read_text(encoding="utf-8"))["prompts"][prompt][modality]
        texts = told if isinstance(told, dict) else {"default": told}
        return [
            texts.get(row.language, texts["default"])
            .replace("{audio}", "<|AUDIO|>")
            .replace("{labels}", LABELS)
            .replace("{transcript}", row.transcript)
            for row in self.table.itertuples()
        ]


def clips(folder: Path, seconds) -> pd.DataFrame:
    """A table of noisy tones of these lengths."""
    random, rows = np.random.default_rng(3), []
    for i, length in enumerate(seconds):
        time = np.arange(round(16000 * length)) / 16000
        sound = np.sin(2 * np.pi * 200 * (i + 1) * time) + random.normal(size=len(time))
        soundfile.write(folder / f"{i}.wav", 0.1 * sound, 16000)
        rows.append({"utterance_id": f"clip/{i}", "path": str(folder / f"{i}.wav")})
        rows[-1] |= {"language": LANGUAGES[i], "transcript": SPOKEN[i], "speaker": str(i)}
        rows[-1] |= {"gender": ("female", "male")[i % 2], "emotion": MELD_LABELS[(i + 1) % 7]}
        rows[-1] |= {"start_s": 0.0, "end_s": length, "split": "dev", "group": str(i)}
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`Place` of a window in seconds, made once."""
    return functools.cache(lambda window_s: Place(tmp_path_factory.mktemp("clips"), window_s))


# The tokenizer ------------------------------------------------------------------------------------


def test_special_tokens_and_words_have_the_ids_of_qwen2_audio():
    """Of the words: the ids that the Qwen2 family publishes."""
    words = true_structure.words()
    known = {"<|endoftext|>": 151643, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
    known |= {"<|AUDIO|>": AUDIO, "<|audio_bos|>": 151647, "<|audio_eos|>": 151648}
    assert {token: words.convert_tokens_to_ids(token) for token in known} == known
    assert words("".join(known))["input_ids"] == list(known.values())
    assert words("Hello world")["input_ids"] == [9707, 1879]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    spelled = [IM_START, 8948, 198, 2610, 525, 264, 10950, 17847, 13, IM_END, 198]
    assert words(system)["input_ids"] == spelled


def test_the_chat_prompt_is_the_text_of_the_model_s_own_template(place):
    processor = place(4).reference.processor
    question = f"Which emotion does the speaker express? Answer with one word of: {LABELS}."
    said = [{"type": "audio", "audio_url": "x.wav"}, {"type": "text", "text": question}]
    wanted = processor.apply_chat_template(
        [{"role": "user", "content": said}], add_generation_prompt=True, tokenize=False
    )
    assert place(4).questions("chat", "speech")[0] == wanted


def test_placeholders_are_as_many_as_the_processor_s_for_every_length(place):
    """Ours from the extractor's frames, the reference's from `input_ids`; up to and over 4 s."""
    edges = [640 * k + d for k in (1, 2, 3, 24, 25, 99, 100, 101, 140) for d in (-161, -1, 0, 1)]
    lengths = [*edges, *np.random.default_rng(0).integers(500, 70000, 80).tolist()]
    reference, speech = place(4).reference, place(4).speech
    silence = [np.zeros(length, np.float32) for length in lengths]
    made = reference.inputs(["<|AUDIO|>"] * len(lengths), silence)
    wanted = (made["input_ids"] == AUDIO).sum(1).tolist()
    assert [log_mel(speech.extractor, clip)[1] // 2 for clip in silence] == wanted
    frames = made["feature_attention_mask"].sum(1).tolist()
    assert [self_check.placeholders(count) for count in frames] == wanted
    assert set(wanted) >= {1, 2, 24, 25, 100} and max(wanted) == 100


# The scores ---------------------------------------------------------------------------------------


def compare(place: Place, prompt: str, modality: str, batches) -> float:
    """The largest difference of logits and of log-probabilities over batches (rows, side)."""
    speech, examples = place.asked(prompt, modality)
    found = label_log_probabilities(speech, examples, world=World(), batch=3)[0]
    batch = examples.batch(range(len(examples)), answers=False, device="cpu", dtype=speech.dtype)
    with torch.no_grad():
        logits = speech.label_logits(batch)[0]
    texts, errors = place.questions(prompt, modality), []
    for rows, side in batches:
        taken = [texts[row] for row in rows], [place.waves[row] for row in rows]
        whole = place.reference.at_answer(*taken, side=side)
        for row, made in zip(rows, whole, strict=True):
            wanted = made[place.reference.first_tokens(texts[row])]
            errors.append(float((logits[row] - wanted).abs().max()))
            shares = wanted.double().log_softmax(-1).numpy()
            errors.append(float(np.abs(found[row] - shares).max()))
    assert np.ptp(found, axis=0).max() > 0.1, "the model does not listen"
    return max(errors)


@pytest.mark.parametrize("modality", config.MODALITIES)
@pytest.mark.parametrize("prompt", ["short", "chat", "chat-native"])
def test_scores_equal_the_forward_for_every_prompt_padded_left_and_right(place, prompt, modality):
    """Each batch has a short clip and one that fills the window."""
    batches = [((0, 1, 3), "left"), ((0, 2, 4), "right")]
    assert compare(place(4), prompt, modality, batches) < EXACT


@pytest.mark.parametrize("row", range(len(SECONDS[4])))
def test_scores_equal_the_forward_of_a_clip_alone(place, row):
    """No text is padded; the first clip's one placeholder is merged by transformers' old way."""
    assert compare(place(4), "chat-native", "speech+text", [([row], "right")]) < EXACT


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_forward_in_the_true_window_of_30_seconds(place, side):
    """A long clip that fills it and a short one: 743 and 7 placeholders in one batch."""
    assert compare(place(30), "short", "speech+text", [([0, 1], side)]) < EXACT


def test_a_long_clip_alone_in_the_true_window_has_the_forward_s_scores(place):
    assert compare(place(30), "chat", "speech", [([1], "right")]) < EXACT


@pytest.mark.parametrize("modality", config.MODALITIES)
def test_the_answer_s_loss_is_the_one_that_transformers_computes(place, modality):
    """Of one clip: the forward's own loss, with all but the answer and its end masked."""
    here, (speech, examples) = place(4), place(4).asked("chat", modality)
    batch = examples.batch(range(len(examples)), answers=True, device="cpu", dtype=speech.dtype)
    with torch.no_grad():
        found = speech.losses(batch, over="answer")[0]
        for row, question in enumerate(here.questions("chat", modality)):
            if row == 0:  # with one placeholder transformers merges as it once did, and raises
                continue
            text = f"{question}{here.table['emotion'][row]}<|im_end|>"
            inputs = here.reference.inputs([text], [here.waves[row]])
            asked = here.reference.inputs([question], [here.waves[row]])["input_ids"].shape[1]
            labels = inputs["input_ids"].clone()
            labels[:, :asked] = -100
            assert abs(here.reference.model(**inputs, labels=labels).loss - found[row]) < EXACT


def test_the_table_of_predictions_holds_the_forward_s_likeliest_labels(place):
    here = place(4)
    speech, examples = here.asked("short", "speech")
    scores = label_log_probabilities(speech, examples, world=World(), batch=2)[0]
    made = predictions(examples, scores, labels=MELD_LABELS)
    texts = here.questions("short", "speech")
    logits = here.reference.at_answer(texts, here.waves)[:, here.reference.first_tokens(texts[0])]
    assert made["prediction"].tolist() == [MELD_LABELS[i] for i in logits.argmax(1)]
    held = made[[f"logp_{label}" for label in MELD_LABELS]].to_numpy()
    assert np.abs(held - logits.log_softmax(-1).numpy()).max() < EXACT
