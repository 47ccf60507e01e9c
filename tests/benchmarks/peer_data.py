"""What the plain path reads: the processor's output in its collator, as Hugging Face users do it.

`SpeechData` decodes the clip and computes the log-mel features for every batch anew, padded to the
model's window by `Qwen2AudioProcessor`; `RandomData` takes random ones from memory. Both count what
they give: `batches` lists (utterances, padded length).
"""

from __future__ import annotations

import numpy as np
import torch

from ermgap.model.prompts import AUDIO, END

IGNORE = -100


class Questions(torch.utils.data.Dataset):
    """Items are row numbers, `train` and `ask` collate them.

    A subclass has `label` (per row), `answers` (token ids, per label) and `_answered`.
    """

    label: list[int]
    answers: list

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> int:
        return row

    def train(self, rows: list[int]) -> dict:
        """Question and answer, padded on the right; labels are -100 but on the answer."""
        made = self._answered(rows)
        labels = torch.full_like(made["input_ids"], IGNORE)
        for i, row in enumerate(rows):
            end, answer = int(made["attention_mask"][i].sum()), self._answer(row)
            labels[i, end - len(answer) : end] = torch.tensor(answer)
        return made | {"labels": labels}

    def _answer(self, row: int) -> list[int]:
        return list(self.answers[self.label[row]])


class SpeechData(Questions):
    """Real clips."""

    def __init__(self, table, processor, *, template: str, labels, window_s: int) -> None:
        self.processor, self.labels, self.window_s = processor, list(labels), window_s
        self.clips = table[["path", "start_s", "end_s"]].to_records(index=False).tolist()
        self.label = [self.labels.index(emotion) for emotion in table["emotion"]]
        self.question = template.format(audio=AUDIO, labels=", ".join(self.labels))
        self.answers = [processor.tokenizer(label + END)["input_ids"] for label in self.labels]
        self.batches: list[tuple[int, int]] = []

    def ask(self, rows: list[int]) -> dict:
        """The question alone, padded on the left, as generation wants it."""
        return self._process([self.question] * len(rows), rows, side="left")

    def _answered(self, rows: list[int]) -> dict:
        texts = [self.question + self.labels[self.label[row]] + END for row in rows]
        return self._process(texts, rows, side="right")

    def _process(self, texts: list[str], rows: list[int], *, side: str) -> dict:
        from ermgap.corpora import audio

        heard = [audio.read(*self.clips[row], window_s=self.window_s) for row in rows]
        made = self.processor(
            text=texts, audio=heard, sampling_rate=audio.RATE, padding=True, padding_side=side,
            return_tensors="pt",
        )  # fmt: skip
        self.batches.append(tuple(made["input_ids"].shape))
        return dict(made)


class RandomData(Questions):
    """Utterances of given lengths with random features; as `SpeechData`.

    Eight clips' features are made once and used in turn, so that the plain path is not slowed by
    drawing numbers.
    """

    def __init__(self, frames: np.ndarray, label: np.ndarray, *, prompt, mel: int, window: int):
        from shapes import audio_tokens

        self.frames, self.prompt, self.window = frames, prompt, window
        self.label, self.answers = [int(i) for i in label], list(prompt.answers)
        self.audio = audio_tokens(frames)
        self.pool = torch.randn(8, mel, window, generator=torch.Generator().manual_seed(0))
        self.batches: list[tuple[int, int]] = []

    def ask(self, rows: list[int]) -> dict:
        """Prompt and audio, padded on the left."""
        return self._pad([self._question(row) for row in rows], rows, left=True)

    def _question(self, row: int) -> list[int]:
        audio = [self.prompt.audio] * int(self.audio[row])
        return [*self.prompt.prefix, *audio, *self.prompt.suffix]

    def _answered(self, rows: list[int]) -> dict:
        return self._pad([[*self._question(row), *self._answer(row)] for row in rows], rows)

    def _pad(self, sequences: list[list[int]], rows: list[int], *, left: bool = False) -> dict:
        longest = max(map(len, sequences))
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            place = slice(longest - len(sequence), None) if left else slice(len(sequence))
            ids[i, place], mask[i, place] = torch.tensor(sequence), 1
        heard = torch.arange(self.window) < torch.from_numpy(self.frames[rows])[:, None]
        self.batches.append(tuple(ids.shape))
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "input_features": self.pool[torch.tensor(rows) % len(self.pool)],
            "feature_attention_mask": heard.long(),
        }
