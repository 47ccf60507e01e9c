"""Qwen2-Audio of any size: loading it, its adapters, losses and the logits of the labels.

`small`, `random-tiny` and `qwen2-audio-7b` are the same class
(`Qwen2AudioForConditionalGeneration`) and are run by the same functions. The audio tower's outputs
come from the feature store; here the projector, the decoder and the head run, the head only at
answer positions: with the 7B model's vocabulary of 156,032 the full logits of 16 utterances would
be 1.4 GB, these are 0.03 GB.

    speech = load(config.backbone, labels=config.data.labels, device=torch.device("cpu"))
    speech.reset_adapter(config.adapter, seed=0)        # or set_adapters, several in one pass
    loss = speech.losses(batch, over="labels")          # [K, B], K = 1 adapter
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ermgap import config
from ermgap.distributed import World
from ermgap.errors import UserError, in_shell
from ermgap.model import fsdp, prompts
from ermgap.model.backbones import BACKBONES
from ermgap.model.batches import Batch
from ermgap.model.decoder import LAYERS, decode_at
from ermgap.model.lora import Adapter, StackedAdapters
from ermgap.model.self_check import check

IGNORE = -100


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The named dtype; `auto` is bfloat16 where it speeds up matrix products, else float32.

    It does on a GPU that supports it, and on a CPU with AMX tiles, where they are eight times as
    fast.
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _has_amx() else torch.float32


def _has_amx() -> bool:
    try:
        return torch.backends.mkldnn.is_available() and torch.cpu._is_amx_tile_supported()
    except AttributeError:  # a torch without this function
        return False


def resolved(settings: config.Backbone, device: torch.device) -> config.Backbone:
    """The settings with the dtype that `auto` stands for on this device."""
    dtype = resolve_dtype(settings.dtype, device)
    return dataclasses.replace(settings, dtype=str(dtype).removeprefix("torch."))


def load(
    settings: config.Backbone,
    *,
    labels: Sequence[str],
    device: torch.device,
    shards: World | None = None,
) -> SpeechLLM:
    """Load the configured backbone, frozen, in evaluation mode, without an adapter.

    Args:
        labels: the possible answers.
        device: of the model.
        shards: the workers over which the decoder is sharded (ermgap.model.fsdp).

    Raises:
        UserError: unknown name, weights that cannot be found or read, labels that begin with the
        same token.
    """
    from safetensors import SafetensorError
    from transformers import (
        AutoTokenizer,
        Qwen2AudioForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    settings = resolved(settings, device)
    folder = BACKBONES.find(settings.name)(settings)
    # A folder is complete: the hub is not asked for it.
    options = {"revision": settings.revision, "local_files_only": Path(folder).is_dir()}
    no_code = {"trust_remote_code": False}  # without it, transformers asks at the terminal
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options, **no_code)
        extractor = WhisperFeatureExtractor.from_pretrained(folder, **options)
        model, report = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder,
            dtype=getattr(torch, settings.dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            **options,
            **no_code,
        )
    except (OSError, ValueError, SafetensorError) as problem:
        logging.getLogger(__name__).debug("backbone %s", folder, exc_info=True)
        raise UserError(
            f"the backbone {settings.name!r} cannot be loaded from {folder} "
            f"({str(problem).splitlines()[0].rstrip('.')}); {_remedy(folder)}."
        ) from problem
    prompt = prompts.build(tokenizer, prompts.find(settings.prompt), labels)
    model.requires_grad_(False)
    if shards is None:
        model = model.to(device)
    speech = SpeechLLM(model.eval(), tokenizer, extractor, prompt, settings)
    check(speech, missing=report["missing_keys"])
    if shards is not None:
        speech.shard(shards)
    return speech


def _remedy(folder: Path | str) -> str:
    if Path(folder).is_dir():
        return "fix the folder, or name another with --set backbone.path=DIR"
    return (
        f"where the hub can be reached, run `hf download {in_shell(folder)} --local-dir DIR`, "
        "then add --set backbone.path=DIR"
    )


class SpeechLLM:
    """A frozen Qwen2-Audio with exchangeable adapters.

    Attributes:
        model: the `Qwen2AudioForConditionalGeneration`; nothing in it ever changes.
        tokenizer, extractor: its tokenizer and its log-mel feature extractor.
        prompt: token ids around the audio and of the answers.
        adapters: the K adapters of a pass; K = 1 in training, empty for the pretrained model.
        training: whether dropout applies.
        sharded: whether the decoder is (ermgap.model.fsdp): all workers must run it equally often.
        recompute: keep only the layers' inputs for the backward pass (less memory, a third slower).
    """

    def __init__(
        self, model, tokenizer, extractor, prompt: prompts.Prompt, settings: config.Backbone
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.extractor = extractor
        self.prompt = prompt
        self.settings = settings
        self.adapters: list[Adapter] = []
        self.training = self.recompute = self.sharded = False
        self.first_tokens = torch.tensor(prompt.first_tokens, device=model.device)

    def shard(self, workers: World) -> None:
        """Shard the decoder's layers over the workers, and move everything to their devices.

        Layer by layer, so that no device ever holds the whole decoder.
        """
        fsdp.shard(self.model, workers)
        self.model.to(workers.device)
        self.first_tokens = self.first_tokens.to(workers.device)
        self.sharded = True

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights and of the features."""
        return self.model.lm_head.weight.dtype

    # Adapters -----------------------------------------------------------------------------------

    def reset_adapter(self, settings: config.Adapter, *, seed: int) -> None:
        """Replace the adapters by a fresh one; the same seed gives the same bits on every worker.

        Raises:
            UserError: a target names no linear module of the decoder.
        """
        self.set_adapters([settings], seeds=[seed])

    def set_adapters(self, settings: Sequence[config.Adapter], *, seeds: Sequence[int]) -> None:
        """Replace the adapters by K fresh ones with the same targets, for one pass over all."""
        self.adapters = []  # their memory is free before the new ones are made
        modules = self._targeted(settings[0].targets)
        projector = self.model.model.multi_modal_projector.linear
        self.adapters = [
            Adapter(adapter, modules, projector, seed=seed)
            for adapter, seed in zip(settings, seeds, strict=True)
        ]

    def _targeted(self, targets: Sequence[str]) -> dict[str, nn.Linear]:
        """The decoder's linear modules of these names, by path; UserError for one that is none."""
        modules: dict[str, list] = {}
        for i, layer in enumerate(self.model.model.language_model.layers):
            for name, module in layer.named_modules():
                if isinstance(module, nn.Linear):
                    modules.setdefault(name.split(".")[-1], []).append((i, name, module))
        for target in targets:
            if target not in modules:
                raise UserError(
                    f"adapter.targets holds {target!r}, which is no linear module of the decoder; "
                    f"choose from {', '.join(modules)}."
                )
        targeted = [entry for target in set(targets) for entry in modules[target]]
        targeted.sort(key=itemgetter(0, 1))
        return {f"{LAYERS}.{i}.{name}": module for i, name, module in targeted}

    def trainable(self, member: int = 0) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that training changes in one of the adapters, in a fixed order."""
        return list(self.adapters[member].parameters.items()) if self.adapters else []

    def random_state(self) -> list[Tensor]:
        """State of the random numbers that a training pass draws (dropout), per adapter."""
        return [adapter.generator.get_state() for adapter in self.adapters]

    def set_random_state(self, states: Sequence[Tensor]) -> None:
        """Restore what `random_state` returned."""
        for adapter, state in zip(self.adapters, states, strict=True):
            adapter.generator.set_state(state)

    # Forward ------------------------------------------------------------------------------------

    def answer_states(self, batch: Batch) -> Tensor:
        """The decoder's states at the answer positions, [K, B, A, H], after the final norm."""
        core = self.model.model
        stack = None
        if self.adapters:
            stack = StackedAdapters(self.adapters, dtype=self.dtype, training=self.training)
        embeddings = core.language_model.embed_tokens(batch.ids).unsqueeze(0)
        if stack is None:
            audio = core.multi_modal_projector(batch.audio).unsqueeze(0)
        else:
            audio = stack.project(batch.audio, core.multi_modal_projector.linear)
        embeddings = embeddings.expand(len(audio), -1, -1)
        audio = audio[:, : len(batch.audio_places)]
        embeddings = embeddings.index_copy(1, batch.audio_places, audio)
        return decode_at(
            core.language_model,
            embeddings,
            batch.packing,
            batch.positions,
            stack=stack,
            recompute=self.recompute,
        )

    def label_logits(self, batch: Batch) -> Tensor:
        """Logits of the labels' first tokens at the answer, [K, B, labels] float32 or 64."""
        states = self.answer_states(batch)[:, :, 0]
        return _full(F.linear(states, self.model.lm_head.weight[self.first_tokens]))

    def losses(self, batch: Batch, *, over: str) -> Tensor:
        """Per-utterance loss for each adapter, [K, B], nats.

        `labels`: cross-entropy of the softmax over the labels' first tokens. `answer`: mean
        cross-entropy over answer tokens and end token, full vocabulary (arXiv 2603.21050); the
        batch must then have been made with its answers.
        """
        if over == "labels":
            logits, targets = self.label_logits(batch), batch.label
        else:
            logits, targets = _full(self.model.lm_head(self.answer_states(batch))), batch.targets
        members = len(logits)
        tokens = F.cross_entropy(
            logits.flatten(0, -2),
            targets.flatten().repeat(members),
            ignore_index=IGNORE,
            reduction="none",
        ).view(members, *targets.shape)
        if over == "labels":
            return tokens
        return tokens.sum(-1) / (targets != IGNORE).sum(-1)


def _full(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
