"""One Qwen2-Audio, whatever its size: load it, give it an adapter, read answers from it.

`small`, `random-tiny` and `qwen2-audio-7b` are the same class
(`Qwen2AudioForConditionalGeneration`) and pass through the same functions. The audio tower's
outputs come from the feature store; here the projector, the decoder and the head run, and the head
only at answer positions: for the 7B model's vocabulary of 156,032 the full logits of 16 utterances
would be 1.4 GB, these are 0.03 GB.

    speech = load(config.backbone, labels=config.data.labels, device=torch.device("cpu"))
    speech.reset_adapter(config.adapter, seed=0)
    loss = speech.losses(batch, over="labels")          # [B]
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ermgap import config
from ermgap.backbone import BACKBONES, prompts
from ermgap.errors import UserError
from ermgap.examples import Batch

IGNORE = -100


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that computes in it and float32 elsewhere."""
    if name == "auto":
        gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if gpu else torch.float32
    return getattr(torch, name)


def load(settings: config.Backbone, *, labels: Sequence[str], device: torch.device) -> SpeechLLM:
    """Load the configured backbone, frozen, in evaluation mode, without an adapter.

    Raises:
        UserError: unknown name, weights that cannot be found or read, labels that cannot be told
        apart.
    """
    from safetensors import SafetensorError
    from transformers import (
        AutoTokenizer,
        Qwen2AudioForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    folder = BACKBONES.find(settings.name)(settings)
    # A folder is complete: nothing is asked of a hub for it.
    known = {"revision": settings.revision, "local_files_only": Path(folder).is_dir()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **known)
        extractor = WhisperFeatureExtractor.from_pretrained(folder, **known)
        model = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=resolve_dtype(settings.dtype, device), attn_implementation="sdpa", **known
        )
    except (OSError, ValueError, SafetensorError) as problem:
        logging.getLogger(__name__).debug("backbone %s", folder, exc_info=True)
        raise UserError(
            f"the backbone {settings.name!r} cannot be loaded from {folder} "
            f"({str(problem).splitlines()[0]}); when offline, set backbone.path to a folder that "
            f"holds it."
        ) from problem
    prompt = prompts.build(tokenizer, prompts.PROMPTS.find(settings.prompt), labels)
    model.requires_grad_(False)
    return SpeechLLM(model.to(device).eval(), tokenizer, extractor, prompt, settings)


class SpeechLLM:
    """A frozen Qwen2-Audio with an exchangeable adapter.

    Attributes:
        model: the `Qwen2AudioForConditionalGeneration`; peft wraps its modules in place.
        tokenizer, extractor: its tokenizer and its log-mel feature extractor.
        prompt: token ids around the audio and of the answers.
    """

    def __init__(
        self, model, tokenizer, extractor, prompt: prompts.Prompt, settings: config.Backbone
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.extractor = extractor
        self.prompt = prompt
        self.settings = settings
        self.adapter = None
        self.first_tokens = torch.tensor(prompt.first_tokens, device=model.device)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights and of the features."""
        return self.model.lm_head.weight.dtype

    # Adapter ------------------------------------------------------------------------------------

    def reset_adapter(self, settings: config.Adapter, *, seed: int) -> None:
        """Replace the adapter by a fresh one; the same seed gives the same bits, on every worker.

        Raises:
            UserError: a target names no linear module of the decoder.
        """
        import peft

        self.remove_adapter()
        self._check_targets(settings.targets)
        torch.manual_seed(seed)
        wanted = peft.LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha or 2 * settings.r,
            lora_dropout=settings.dropout,
            # The audio tower has q_proj, k_proj and v_proj of its own: the decoder alone is meant.
            target_modules=rf".*language_model\.layers\..*\.({'|'.join(settings.targets)})",
            modules_to_save=["multi_modal_projector"] if settings.train_projector else None,
        )
        self.adapter = peft.get_peft_model(self.model, wanted)
        for _, parameter in self.trainable():
            # An optimiser step of 1e-5 vanishes in bfloat16's 8 bits: what is trained is float32.
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()

    def _check_targets(self, targets: Sequence[str]) -> None:
        """peft refuses targets only when all of them are wrong; each one is checked here."""
        modules = self.model.model.language_model.layers[0].named_modules()
        there = [name.split(".")[-1] for name, m in modules if isinstance(m, nn.Linear)]
        for target in targets:
            if target not in there:
                raise UserError(
                    f"adapter.targets holds {target!r}, which no linear module of the decoder is "
                    f"called; choose from {', '.join(there)}."
                )

    def remove_adapter(self) -> None:
        """Back to the pretrained model, bit for bit."""
        if self.adapter is not None:
            core = self.model.model
            pretrained = getattr(
                core.multi_modal_projector, "original_module", core.multi_modal_projector
            )
            self.adapter.unload()
            # peft's unload leaves the trained copy of a module to save where the original was.
            core.multi_modal_projector = pretrained
            self.adapter = None
            self.model.requires_grad_(False)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that training changes, in a fixed order."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter (safetensors and peft's configuration) into a folder."""
        self.adapter.save_pretrained(folder, save_embedding_layers=False)

    # Forward ------------------------------------------------------------------------------------

    def answer_states(self, batch: Batch) -> Tensor:
        """The decoder's states at the answer positions, [B, A, H], after the final norm."""
        core = self.model.model
        embeddings = core.language_model.embed_tokens(batch.ids)
        projector = core.multi_modal_projector
        audio = projector(batch.audio.to(_working_dtype(projector))).to(embeddings.dtype)
        embeddings = embeddings.masked_scatter(batch.audio_mask.unsqueeze(-1), audio)
        return decode_at(core.language_model, embeddings, batch.positions)

    def label_logits(self, batch: Batch) -> Tensor:
        """Logits of the labels' first tokens at the answer position, [B, labels] float32 or 64."""
        states = self.answer_states(batch)[:, 0]
        return _full(F.linear(states, self.model.lm_head.weight[self.first_tokens]))

    def losses(self, batch: Batch, *, over: str) -> Tensor:
        """Per-utterance loss, [B], nats.

        `labels`: cross-entropy of the softmax over the labels' first tokens. `answer`: mean
        cross-entropy over answer tokens and end token, full vocabulary (arXiv 2603.21050); the
        batch must then have been made with its answers.
        """
        if over == "labels":
            return F.cross_entropy(self.label_logits(batch), batch.label, reduction="none")
        logits = _full(self.model.lm_head(self.answer_states(batch)))
        tokens = F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(batch.targets)
        return tokens.sum(1) / (batch.targets != IGNORE).sum(1)


def decode_at(decoder: nn.Module, embeddings: Tensor, positions: Tensor) -> Tensor:
    """Run a `Qwen2Model`, its last layer at some positions only.

    Sequences are padded on the right, so causality alone keeps padding out of every real position:
    no mask is needed, and attention takes its fast causal path. Nothing after the last layer's
    keys and values depends on other positions, so its queries, its output projection and its MLP
    run at `positions` alone: exact, and half the work of a two-layer decoder.

    Args:
        embeddings: [B, T, H]. positions: [B, A] int64, positions in the sequence.

    Returns:
        [B, A, H] after the final norm.
    """
    places = torch.arange(embeddings.shape[1], device=embeddings.device).unsqueeze(0)
    rotary = decoder.rotary_emb(embeddings, places)
    *first, last = decoder.layers
    hidden = embeddings
    for layer in first:
        hidden = layer(hidden, attention_mask=None, position_ids=places, position_embeddings=rotary)
    return decoder.norm(_layer_at(last, hidden, rotary, positions))


def _layer_at(
    layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, Tensor], positions: Tensor
) -> Tensor:
    from transformers.models.qwen2.modeling_qwen2 import rotate_half

    attention = layer.self_attn
    batch, length, width = hidden.shape
    index = positions.unsqueeze(-1)
    chosen = hidden.gather(1, index.expand(-1, -1, width))
    normed = layer.input_layernorm(hidden)
    queried = normed.gather(1, index.expand(-1, -1, width))

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    cos, sin = rotary
    query, key = heads(attention.q_proj(queried)), heads(attention.k_proj(normed))
    at = positions.clamp(max=length - 1)
    query = query * cos[0][at].unsqueeze(1) + rotate_half(query) * sin[0][at].unsqueeze(1)
    key = key * cos.unsqueeze(1) + rotate_half(key) * sin.unsqueeze(1)
    seen = torch.arange(length, device=hidden.device) <= positions.unsqueeze(-1)
    mixed = F.scaled_dot_product_attention(
        query,
        key,
        heads(attention.v_proj(normed)),
        attn_mask=seen.unsqueeze(1),
        scale=attention.scaling,
        enable_gqa=True,
    )
    chosen = chosen + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return chosen + layer.mlp(layer.post_attention_layernorm(chosen))


def _working_dtype(projector: nn.Module) -> torch.dtype:
    """Of the copy that is trained, if there is one: peft keeps the frozen original beside it."""
    kinds = [p.dtype for p in projector.parameters() if p.requires_grad]
    return kinds[0] if kinds else next(projector.parameters()).dtype


def _full(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
