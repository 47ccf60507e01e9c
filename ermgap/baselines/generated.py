"""Qwen2-Audio answering in its own words: the zero-shot chat model of the paper's first row.

    generated                   the run's own backbone
    generated=FOLDER            a Qwen2-Audio on disk
    generated=ORG/NAME[@REV]    one of the hub

transformers alone does the work: its processor, the model's chat template, greedy `generate`. The
audio tokens are expanded by the processor and counted here, never merged the legacy way.
`Answering` is the frame of every system that generates: order, batches, reading.
"""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ermgap.baselines import Context, System, check_modality, predictions_table
from ermgap.baselines.answers import parse_answer
from ermgap.baselines.arguments import named, place
from ermgap.config import SPEECH
from ermgap.corpora import audio
from ermgap.errors import UserError
from ermgap.model import prompts
from ermgap.model.backbones import BACKBONES
from ermgap.model.qwen2_audio import resolved
from ermgap.model.self_check import check_weights, placeholders

BATCH = 16  # the 7B model's tower over 16 windows of 30 s takes some 2 GB beside the weights
NEW_TOKENS = 16  # a label is at most 4 of Qwen's tokens; the rest is for "The speaker sounds ..."
NOTED = 20  # batches between two sentences of progress
HOP = 160  # samples of a log-mel frame
# The texts of the prompt `chat`, so that both ways of answering are asked the same.
QUESTION = "Which emotion does the speaker express? Answer with one word of: {labels}."
TRANSCRIPT = 'Transcript: "{transcript}"\n'


def make(argument: str | None, context: Context) -> System:
    """The model of `argument`, or the run's backbone; UserError when it cannot be loaded."""
    settings = resolved(context.config.backbone, torch.device(context.device))
    if argument is None:
        folder, revision = BACKBONES.find(settings.name)(settings), settings.revision
    else:
        folder, revision = place(argument)
    return Generated(
        folder,
        revision=revision,
        name=named("generated", argument),
        labels=context.labels,
        window_s=settings.window_s,
        dtype=getattr(torch, settings.dtype),
        device=context.device,
    )


@contextlib.contextmanager
def readable(folder: Path | str, *, system: str) -> Iterator[dict]:
    """Around `from_pretrained`: gives its common options, turns its errors into UserError.

    Never code that comes with a model: unless that is said, transformers asks at the terminal.
    """
    from safetensors import SafetensorError

    try:
        yield {"local_files_only": Path(folder).is_dir(), "trust_remote_code": False}
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        logging.getLogger(__name__).debug("%s from %s", system, folder, exc_info=True)
        said = " ".join(str(problem).split()).split(". ")[0].rstrip(".")
        raise UserError(
            f"{folder} cannot be loaded ({said}); download it where the hub can be reached, then "
            f"write {system}=FOLDER."
        ) from problem


def quoted(transcript: str, tokens: Iterable[str] = ()) -> str:
    """A transcript as one line that is data: no special token, no quotation mark.

    `tokens` are the tokenizer's added ones. A processor tokenises the whole text anew and would
    recognise them; one that appears when another is taken out is taken out too.
    """
    text = prompts.clean(transcript).replace('"', "'")
    text = text.replace("<|", "< |").replace("|>", "| >")
    tokens = [token for token in tokens if token.strip()]
    while found := [token for token in tokens if token in text]:
        for token in found:
            text = text.replace(token, " ")
    return " ".join(text.split())


def question(
    labels: Sequence[str], *, modality: str, transcript: str, tokens: Iterable[str] = ()
) -> str:
    """What is asked about the audio."""
    asked = QUESTION.format(labels=", ".join(labels))
    if modality == SPEECH:
        return asked
    return TRANSCRIPT.format(transcript=quoted(transcript, tokens)) + asked


def greedy(model, *, stops: Iterable[int | None], pad: int | None) -> None:
    """Make `generate` greedy whatever the checkpoint recommends, until one of `stops`."""
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {*stops, *(own if isinstance(own, list) else [own])} - {None}
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=sorted(ends),
        pad_token_id=min(ends) if pad is None else pad,
    )


class Answering(System):
    """A system that generates text: clips in batches of like lengths, answers read as labels."""

    def __init__(self, name: str, *, labels: Sequence[str], window_s: float) -> None:
        self.name, self.labels, self.window_s = name, tuple(labels), window_s

    @abstractmethod
    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """The model's texts, one a clip (float32 [n] at 16 kHz) and question."""

    def tokens(self) -> Iterable[str]:
        """Texts that the tokenizer would take for markup."""
        return ()

    def predict(
        self,
        utterances: pd.DataFrame,
        *,
        modality: str,
        note: Callable[[str], None] = lambda text: None,
    ) -> pd.DataFrame:
        """As `System.predict`; the texts are in the column `answer`."""
        check_modality(modality)
        answers: list[str] = [""] * len(utterances)
        seconds = (utterances["end_s"] - utterances["start_s"]).to_numpy()
        order = np.argsort(-seconds, kind="stable")  # the longest first: memory that lacks shows
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for row, text in zip(rows, self._answered(utterances, rows, modality), strict=True):
                answers[row] = text
            if start and start % (NOTED * BATCH) == 0:
                note(f"{self.name}: {start} of {len(order)} answered")
        return predictions_table(
            utterances,
            modality=modality,
            prediction=[parse_answer(text, self.labels) for text in answers],
            labels=self.labels,
            answers=answers,
        )

    def _answered(self, utterances: pd.DataFrame, rows: np.ndarray, modality: str) -> list[str]:
        clips, questions = [], []
        columns = ["utterance_id", "path", "start_s", "end_s", "transcript"]
        for name, *span, transcript in utterances[columns].iloc[rows].itertuples(index=False):
            clips.append(self._heard(name, *span))
            asked = {"modality": modality, "transcript": transcript, "tokens": self.tokens()}
            questions.append(question(self.labels, **asked))
        return self.answer(clips, questions)

    def _heard(self, name: str, path: str, start_s: float, end_s: float) -> np.ndarray:
        samples = audio.read(path, start_s, end_s, window_s=self.window_s)
        if placeholders(-(-len(samples) // HOP)) < 2:  # one alone would be merged the legacy way
            raise UserError(f"the clip {path} of utterance {name} is under 0.07 s; take it out.")
        return samples


class Generated(Answering):
    """A Qwen2-Audio with its processor; made by `make`."""

    def __init__(
        self,
        folder: Path | str,
        *,
        revision: str | None,
        name: str,
        labels: Sequence[str],
        window_s: float,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

        with readable(folder, system="generated") as known:
            known["revision"] = revision
            self.processor = Qwen2AudioProcessor.from_pretrained(folder, **known)
            model, told = Qwen2AudioForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **known,
            )
        check_weights(model, told["missing_keys"], name=str(folder))
        self.model, self.tokenizer = model.to(device).eval(), self.processor.tokenizer
        # transformers makes an empty tokenizer where its files are missing
        if self.tokenizer.convert_tokens_to_ids(prompts.AUDIO) != model.config.audio_token_id:
            raise UserError(f"{folder} has another model's tokenizer, or none; get its files anew.")
        self.tokenizer.padding_side = "left"
        ends = [self.tokenizer.convert_tokens_to_ids(prompts.END), self.tokenizer.eos_token_id]
        greedy(self.model, stops=ends, pad=self.tokenizer.pad_token_id)
        longest = self.processor.feature_extractor.chunk_length
        super().__init__(name, labels=labels, window_s=min(window_s, longest))

    def tokens(self) -> Iterable[str]:
        """The tokenizer's added tokens."""
        return self.tokenizer.get_added_vocab()

    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """One batch, padded on the left."""
        inputs = self.inputs(clips, questions)
        made = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(made, skip_special_tokens=True)

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """What `generate` takes, on the model's device; UserError for other audio tokens."""
        inputs = self.processor(
            text=[self.text(asked) for asked in questions],
            audio=clips,
            sampling_rate=audio.RATE,
            padding=True,
            return_tensors="pt",
        )
        held = (inputs["input_ids"] == self.model.config.audio_token_id).sum(1).tolist()
        wanted = [placeholders(-(-len(clip) // HOP)) for clip in clips]
        if held != wanted:
            raise UserError(
                f"{self.name} got {held[0]} audio tokens where the tower gives {wanted[0]}; take "
                "the transformers that constraints.txt names."
            )
        return inputs.to(self.model.device, self.model.dtype)

    def text(self, asked: str) -> str:
        """The chat up to the model's turn, with one audio token for the clip."""
        content = [{"type": "audio"}, {"type": "text", "text": asked}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
