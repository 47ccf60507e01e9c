"""SmolLM2 from a GGUF file: dequantized tensors, dimensions and vocabulary.

    decoder = smollm2()
    decoder.tensor("layers.0.self_attn.q_proj.weight")     # float32 [576, 576]

The `gguf` package reads and dequantizes; this module maps the names and undoes llama.cpp's
reordering of the rows of q and k.
"""

from __future__ import annotations

import numpy as np

from ermgap.errors import UserError
from ermgap.model.backbones.small_from_wheels import INSTALL, SMOLLM2, Decoder, Tokens

# llama.cpp's names for the pieces of a layer (gguf-py, `tensor_mapping.py`)
PIECES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL


def smollm2() -> Decoder:
    """SmolLM2-135M-Instruct from the pinned wheel; UserError when absent or different."""
    path = SMOLLM2.checked()
    try:
        import gguf
    except ImportError as problem:
        raise UserError(
            "the package gguf is not installed; run `make setup` or `pip install gguf`."
        ) from problem
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        raise UserError(f"{path} is not a Llama model in GGUF format; {INSTALL}.")
    config = _config(fields)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def tensor(name: str) -> np.ndarray:
        stored = tensors[gguf_name(name)]
        array = gguf.dequantize(stored.data, stored.tensor_type).astype(np.float32, copy=False)
        heads = {"q": "num_attention_heads", "k": "num_key_value_heads"}
        for letter, key in heads.items():
            if f"{letter}_proj" in name:
                return undo_rotary_order(array, heads=config[key])
        return array

    return Decoder(config=config, tokens=_tokens(fields), tensor=tensor)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of transformers' decoder.

    >>> gguf_name("layers.3.mlp.up_proj.weight")
    'blk.3.ffn_up.weight'
    """
    whole = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, layer, piece = name.removesuffix(".weight").split(".", 2)
    return f"blk.{layer}.{PIECES[piece]}.weight"


def undo_rotary_order(weight: np.ndarray, *, heads: int) -> np.ndarray:
    """Rows of q or k [heads * d, n] in the order of transformers.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), ...; transformers rotates row i of a head
    with row i + d/2. The inverse of `LlamaModel.permute` in llama.cpp's `convert_hf_to_gguf.py`.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _config(fields: dict) -> dict:
    theta = float(fields["llama.rope.freq_base"])
    return {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 12),
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def _tokens(fields: dict) -> Tokens:
    names, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    return Tokens(
        names=names,
        merges=fields["tokenizer.ggml.merges"],
        special=[name for name, kind in zip(names, kinds, strict=True) if kind == CONTROL_TOKEN],
        bos=fields["tokenizer.ggml.bos_token_id"],
        eos=fields["tokenizer.ggml.eos_token_id"],
        pad=fields["tokenizer.ggml.padding_token_id"],
        unknown=fields["tokenizer.ggml.unknown_token_id"],
    )
