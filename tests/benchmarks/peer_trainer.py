"""The plain path: transformers' own forward under its `Trainer`, with peft's LoRA.

The audio tower runs in every step over the model's whole window, the head at every position; the
loss is the model's own, over the answer's tokens. Evaluation is greedy `generate` on dev after each
epoch. Sensible settings throughout: sdpa, fused AdamW, no checkpointing of activations, nothing
saved, no logging, evaluation without gradients and with a key-value cache. The adapter, the
optimiser's settings, batch and dtype are those of ours.
"""

from __future__ import annotations

import gc
import tempfile
import time

import numpy as np
import torch
from machine import peak_memory_mb, synchronise

MICRO = (None, 32, 16, 8, 4, 2, 1)  # on a GPU: the largest that fits


def adapted(model, settings):
    """The model with peft's LoRA on the decoder and a trainable projector, as `config.Adapter`."""
    import peft

    wanted = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha or 2 * settings.r,
        lora_dropout=settings.dropout,
        target_modules=rf".*language_model\.layers\..*\.({'|'.join(settings.targets)})",
        modules_to_save=["multi_modal_projector"] if settings.train_projector else None,
    )
    return peft.get_peft_model(model, wanted)


def loaded(folder, *, device: str, dtype: str):
    """The model of a folder, frozen, with sdpa."""
    from transformers import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", local_files_only=True
    )
    return model.requires_grad_(False).to(device)


def run(model, train, dev, settings, *, device: str, epochs: int, within_s: float) -> dict:
    """Train for at most `epochs` epochs, ending after the one in which `within_s` seconds pass.

    Args:
        model: with its adapter; train, dev: see peer_data.py; settings: a `config.Train`.

    Returns:
        seconds of training and of evaluation of each epoch, and what the batches held.
    """
    for micro in MICRO if device == "cuda" else MICRO[:1]:
        if micro is not None and micro >= settings.batch:
            continue
        try:
            return _run(model, train, dev, settings, device=device, epochs=epochs,
                        within_s=within_s, micro=micro or settings.batch)  # fmt: skip
        except torch.OutOfMemoryError:
            print(f"plain path: out of memory at {micro or settings.batch} utterances", flush=True)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    raise RuntimeError("the plain path does not fit with one utterance")


def _run(model, train, dev, settings, *, device, epochs, within_s, micro) -> dict:
    from transformers import Trainer, TrainingArguments

    clock = _clock(dev, settings, device=device, within_s=within_s)
    train.batches.clear()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=settings.batch // micro,
            learning_rate=settings.lr,
            weight_decay=settings.weight_decay,
            lr_scheduler_type="cosine",
            max_grad_norm=settings.clip_norm,
            optim="adamw_torch_fused",
            bf16=False,  # the weights are in their dtype already, as ours are
            use_cpu=device == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=device == "cuda",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=settings.seed,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=train,
                          data_collator=train.train, callbacks=[clock])  # fmt: skip
        trainer.train()
    return {
        "train_seconds": clock.train_seconds,
        "eval_seconds": clock.eval_seconds,
        "accuracy": clock.accuracy,
        "micro_batch": micro,
        "batches": train.batches,
        "peak_memory_mb": peak_memory_mb(device),
    }


def _clock(dev, settings, *, device: str, within_s: float):
    """Times epochs and evaluations, and ends training in time; Trainer wants a TrainerCallback."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.train_seconds, self.eval_seconds, self.accuracy = [], [], []
            self.started = self.before = time.perf_counter()

        def on_epoch_begin(self, args, state, control, **others) -> None:
            synchronise(device)
            self.before = time.perf_counter()

        def on_epoch_end(self, args, state, control, model=None, **others) -> None:
            synchronise(device)
            now = time.perf_counter()
            self.train_seconds.append(now - self.before)
            self.accuracy.append(generated(model, dev, size=settings.eval_batch, device=device))
            self.eval_seconds.append(time.perf_counter() - now)
            control.should_training_stop = time.perf_counter() - self.started > within_s

    return Clock()


@torch.inference_mode()
def generated(model, data, *, size: int, device: str) -> float:
    """Accuracy of greedy generation over a split, as many tokens as the longest answer has."""
    model.eval()
    longest, right = max(map(len, data.answers)), 0
    for rows in np.array_split(np.arange(len(data)), -(-len(data) // size)):
        asked = {name: value.to(device) for name, value in data.ask(rows.tolist()).items()}
        made = model.generate(**asked, max_new_tokens=longest, do_sample=False)
        said = made[:, asked["input_ids"].shape[1] :].tolist()
        for row, tokens in zip(rows, said, strict=True):
            answer = list(data.answers[data.label[row]])
            right += tokens[: len(answer)] == answer
    synchronise(device)
    return right / len(data)
