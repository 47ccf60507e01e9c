"""Qwen2-Audio answering in its own words: the zero-shot chat model of the paper's first row.

    generated                   the run's own backbone
    generated=FOLDER            a Qwen2-Audio on disk
    generated=ORG/NAME[@REV]    one of the hub

transformers does the work: its processor, the model's chat template, greedy `generate`. The
audio tokens are expanded by the processor and their number is checked here.
`GeneratingSystem` is the frame of every system that generates: order, batches, reading.
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
from ermgap.baselines.arguments import model_location, row_name
from ermgap.config import SPEECH
from ermgap.corpora import audio
from ermgap.errors import UserError
from ermgap.model import prompts
from ermgap.model.backbones import BACKBONES
from ermgap.model.qwen2_audio import resolved
from ermgap.model.self_check import check_weights, placeholders

BATCH = 16  # the 7B model's tower over 16 windows of 30 s takes some 2 GB beside the weights
NEW_TOKENS = 16  # a label is at most 4 of Qwen's tokens; the rest is for "The speaker sounds ..."
NOTE_EVERY = 20  # batches between two notes on the progress
HOP = 160  # samples of a log-mel frame


def make(argument: str | None, context: Context) -> System:
    """The model of `argument`, or the run's backbone; UserError when it cannot be loaded."""
    settings = resolved(context.config.backbone, torch.device(context.device))
    if argument is None:
        folder, revision = BACKBONES.find(settings.name)(settings), settings.revision
    else:
        folder, revision = model_location(argument)
    return GeneratingQwen2Audio(
        folder,
        revision=revision,
        name=row_name("generated", argument),
        labels=context.labels,
        window_s=settings.window_s,
        dtype=getattr(torch, settings.dtype),
        device=context.device,
    )


@contextlib.contextmanager
def loading(folder: Path | str, *, system: str) -> Iterator[dict]:
    """Around `from_pretrained`: yields its common options and turns its errors into UserError.

    Code that comes with a model is never run; without the option transformers would ask a user.
    """
    from safetensors import SafetensorError

    try:
        yield {"local_files_only": Path(folder).is_dir(), "trust_remote_code": False}
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        logging.getLogger(__name__).debug("%s from %s", system, folder, exc_info=True)
        reason = " ".join(str(problem).split()).split(". ")[0].rstrip(".")
        raise UserError(
            f"{folder} cannot be loaded ({reason}); download it where the hub can be reached, then "
            f"write {system}=FOLDER."
        ) from problem


def quoted(transcript: str, tokens: Iterable[str] = ()) -> str:
    """A transcript as one line without special tokens and double quotation marks.

    `tokens` are the tokenizer's added ones: a processor tokenises the whole text again and would
    recognise them. One that appears when another is removed is removed too.
    """
    text = prompts.clean(transcript).replace('"', "'")
    text = text.replace("<|", "< |").replace("|>", "| >")
    tokens = [token for token in tokens if token.strip()]
    while present := [token for token in tokens if token in text]:
        for token in present:
            text = text.replace(token, " ")
    return " ".join(text.split())


def question(
    labels: Sequence[str], *, modality: str, transcript: str, tokens: Iterable[str] = ()
) -> str:
    """The text of the question about a clip, with the transcript unless the modality is speech."""
    transcript = "" if modality == SPEECH else quoted(transcript, tokens)
    return prompts.question(modality).format(labels=", ".join(labels), transcript=transcript)


def make_greedy(model, *, stops: Iterable[int | None], pad: int | None) -> None:
    """Make `generate` greedy, whatever the checkpoint recommends, and end at one of `stops`."""
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {*stops, *(own if isinstance(own, list) else [own])} - {None}
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=sorted(ends),
        pad_token_id=min(ends) if pad is None else pad,
    )


class GeneratingSystem(System):
    """A system that generates text: clips in batches of similar length, answers read as labels."""

    def __init__(self, name: str, *, labels: Sequence[str], window_s: float) -> None:
        self.name, self.labels, self.window_s = name, tuple(labels), window_s

    @abstractmethod
    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """The generated texts, one for each clip (float32 [n] at 16 kHz) and its question."""

    def tokens(self) -> Iterable[str]:
        """Texts that the tokenizer reads as special tokens."""
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
        order = np.argsort(-seconds, kind="stable")  # longest first: too little memory shows
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for row, text in zip(rows, self._answered(utterances, rows, modality), strict=True):
                answers[row] = text
            if start and start % (NOTE_EVERY * BATCH) == 0:
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
            clips.append(self._samples(name, *span))
            about = {"modality": modality, "transcript": transcript, "tokens": self.tokens()}
            questions.append(question(self.labels, **about))
        return self.answer(clips, questions)

    def _samples(self, name: str, path: str, start_s: float, end_s: float) -> np.ndarray:
        samples = audio.read(path, start_s, end_s, window_s=self.window_s)
        if placeholders(-(-len(samples) // HOP)) < 2:  # a single one would be merged the legacy way
            raise UserError(f"the clip {path} of utterance {name} is under 0.07 s; take it out.")
        return samples


class GeneratingQwen2Audio(GeneratingSystem):
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

        with loading(folder, system="generated") as options:
            options["revision"] = revision
            self.processor = Qwen2AudioProcessor.from_pretrained(folder, **options)
            model, report = Qwen2AudioForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        check_weights(model, report["missing_keys"], name=str(folder))
        self.model, self.tokenizer = model.to(device).eval(), self.processor.tokenizer
        # transformers makes an empty tokenizer where its files are missing
        if self.tokenizer.convert_tokens_to_ids(prompts.AUDIO) != model.config.audio_token_id:
            raise UserError(f"{folder} has another model's tokenizer, or none; get its files anew.")
        self.tokenizer.padding_side = "left"
        ends = [self.tokenizer.convert_tokens_to_ids(prompts.END), self.tokenizer.eos_token_id]
        make_greedy(self.model, stops=ends, pad=self.tokenizer.pad_token_id)
        longest = self.processor.feature_extractor.chunk_length
        super().__init__(name, labels=labels, window_s=min(window_s, longest))

    def tokens(self) -> Iterable[str]:
        """The tokenizer's added tokens."""
        return self.tokenizer.get_added_vocab()

    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """One batch, padded on the left."""
        inputs = self.inputs(clips, questions)
        generated = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(generated, skip_special_tokens=True)

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """The inputs of `generate`, on the model's device; UserError if audio tokens are off."""
        inputs = self.processor(
            text=[self.chat(text) for text in questions],
            audio=clips,
            sampling_rate=audio.RATE,
            padding=True,
            return_tensors="pt",
        )
        counts = (inputs["input_ids"] == self.model.config.audio_token_id).sum(1).tolist()
        expected = [placeholders(-(-len(clip) // HOP)) for clip in clips]
        if counts != expected:
            raise UserError(
                f"{self.name} got {counts[0]} audio tokens where the tower gives {expected[0]}; "
                "install the transformers of constraints.txt."
            )
        return inputs.to(self.model.device, self.model.dtype)

    def chat(self, text: str) -> str:
        """The chat up to the model's turn, with one audio token for the clip."""
        content = [{"type": "audio"}, {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
