"""Qwen2-Audio answering in its own words: the zero-shot chat model of the paper's first row.

    generated                   the run's own backbone
    generated=FOLDER            a Qwen2-Audio on disk
    generated=ORG/NAME[@REV]    one of the hub

transformers does the work: its processor, the model's chat template, greedy `generate`. The
audio tokens are expanded by the processor and their number is checked here.
`GeneratingSystem` is the frame of every system that generates: order, batches, reading.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ermgap.baselines import Context, System, check_modality, predictions_table, silent
from ermgap.baselines.answers import parse_answer
from ermgap.baselines.arguments import model_location
from ermgap.config import SPEECH, Backbone
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


class GeneratingSystem(System):
    """A system that generates text: clips in batches of similar length, answers read as labels.

    Args:
        argument: a model's folder, or its hub id and revision; None: `own_location`.
        context: has labels, device, window and dtype.

    Raises UserError when the model cannot be loaded.
    """

    system: str  # its name in SYSTEMS
    classes: tuple[str, str]  # of transformers: the model's and its processor's

    def __init__(self, argument: str | None, context: Context) -> None:
        import transformers
        from safetensors import SafetensorError

        settings = resolved(context.config.backbone, torch.device(context.device))
        self.labels, self.window_s = tuple(context.labels), settings.window_s
        if argument is None:
            self.name, (folder, revision) = self.system, self.own_location(settings)
        else:
            folder, revision = model_location(argument)
            shown = folder.name if isinstance(folder, Path) else argument
            self.name = f"{self.system}={shown}"
        model_class, processor_class = (getattr(transformers, name) for name in self.classes)
        # Code that comes with a model is never run; without the option transformers would ask.
        options = {"local_files_only": Path(folder).is_dir(), "trust_remote_code": False}
        options["revision"] = revision or "main"
        try:
            self.processor = processor_class.from_pretrained(folder, **options)
            model, report = model_class.from_pretrained(
                folder,
                dtype=getattr(torch, settings.dtype),
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, KeyError, SafetensorError) as problem:
            logging.getLogger(__name__).debug("%s from %s", self.system, folder, exc_info=True)
            reason = " ".join(str(problem).split()).split(". ")[0].rstrip(".")
            raise UserError(
                f"{folder} cannot be loaded ({reason}); download it where the hub can be reached, "
                f"then write {self.system}=FOLDER."
            ) from problem
        check_weights(model, report["missing_keys"], name=str(folder))
        self.model, self.tokenizer = model.to(context.device).eval(), self.processor.tokenizer
        self.tokenizer.padding_side = "left"

    @abstractmethod
    def own_location(self, settings: Backbone) -> tuple[Path | str, str | None]:
        """Folder or hub id, and revision, of the model that is asked without an argument."""

    @abstractmethod
    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """The inputs of `generate` for clips (float32 [n] at 16 kHz) and their questions.

        On the model's device, padded on the left; UserError if the audio tokens are off.
        """

    def checked(self, inputs, expected: list[int], remedy: str):
        """Inputs on the model's device; UserError if their audio tokens are not so many each."""
        counts = (inputs["input_ids"] == self.model.config.audio_token_id).sum(1).tolist()
        if counts != expected:
            raise UserError(
                f"{self.name} got {counts[0]} audio tokens where the model gives {expected[0]}; "
                f"{remedy}."
            )
        return inputs.to(self.model.device, self.model.dtype)

    def make_greedy(self, *ends: int | None) -> None:
        """Make `generate` greedy, whatever the checkpoint recommends; it stops at its ends, too."""
        from transformers import GenerationConfig

        own = self.model.generation_config.eos_token_id
        stops = {*ends, *(own if isinstance(own, list) else [own])} - {None}
        pad = self.tokenizer.pad_token_id
        self.model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=sorted(stops),
            pad_token_id=min(stops) if pad is None else pad,
        )

    def answer(self, clips: list[np.ndarray], questions: list[str]) -> list[str]:
        """The generated texts, one for each clip and its question."""
        inputs = self.inputs(clips, questions)
        generated = self.model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(generated.tolist(), skip_special_tokens=True)

    def tokens(self) -> Iterable[str]:
        """Texts that the tokenizer reads as special tokens."""
        return ()

    def predict(self, utterances: pd.DataFrame, *, modality: str, note=silent) -> pd.DataFrame:
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
            clips.append(audio.read(*span, window_s=self.window_s))
            if placeholders(-(-len(clips[-1]) // HOP)) < 2:  # one would be merged the legacy way
                path = span[0]
                raise UserError(f"the clip {path} of utterance {name} is under 0.07 s; remove it.")
            about = {"modality": modality, "transcript": transcript, "tokens": self.tokens()}
            questions.append(question(self.labels, **about))
        return self.answer(clips, questions)


class GeneratingQwen2Audio(GeneratingSystem):
    """A Qwen2-Audio with its processor."""

    system = "generated"
    classes = "Qwen2AudioForConditionalGeneration", "Qwen2AudioProcessor"

    def __init__(self, argument: str | None, context: Context) -> None:
        super().__init__(argument, context)
        tokenizer, audio_token = self.tokenizer, self.model.config.audio_token_id
        # transformers makes an empty tokenizer where its files are missing
        if tokenizer.convert_tokens_to_ids(prompts.AUDIO) != audio_token:
            folder = self.model.name_or_path
            raise UserError(f"{folder} has another model's tokenizer, or none; get its files anew.")
        self.make_greedy(tokenizer.convert_tokens_to_ids(prompts.END), tokenizer.eos_token_id)
        self.window_s = min(self.window_s, self.processor.feature_extractor.chunk_length)

    def own_location(self, settings: Backbone) -> tuple[Path | str, str | None]:
        """The run's own backbone."""
        return BACKBONES.find(settings.name)(settings), settings.revision

    def tokens(self) -> Iterable[str]:
        """The tokenizer's added tokens."""
        return self.tokenizer.get_added_vocab()

    def inputs(self, clips: list[np.ndarray], questions: list[str]):
        """See `GeneratingSystem.inputs`."""
        inputs = self.processor(
            text=[self.chat(text) for text in questions],
            audio=clips,
            sampling_rate=audio.RATE,
            padding=True,
            return_tensors="pt",
        )
        expected = [placeholders(-(-len(clip) // HOP)) for clip in clips]
        return self.checked(inputs, expected, "install the transformers of constraints.txt")

    def chat(self, text: str) -> str:
        """The chat up to the model's turn, with one audio token for the clip."""
        content = [{"type": "audio"}, {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
