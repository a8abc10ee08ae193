"""A trained model in the layout of Hugging Face: Llama, or Qwen3 where queries and keys are
normalised.

Only models that are one of the two, weight for weight: RMSNorm with gains, rotations, SwiGLU, no
biases, no muP, no experts. `transformers` then computes the same logits up to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling.config import ModelConfig, RunConfig
from scaling.errors import ScalingError

if TYPE_CHECKING:
    import numpy as np

NORM_EPS, ROPE_BASE = 1e-6, 10_000.0  # of scaling.train.model, which imports jax
NEEDED = {"norm": "rmsnorm", "pos": "rope", "ffn": "swiglu", "bias": False, "gains": True}


def check_exportable(model: ModelConfig) -> None:
    """Raises ScalingError, which names each choice that neither Llama nor Qwen3 has."""
    chosen = model.model_dump()
    wrong = [
        f"{name} = {json.dumps(chosen[name])}"
        for name, value in {**NEEDED, "transfer": None, "n_experts": 1}.items()
        if chosen[name] != value
    ]
    if wrong:
        needed = ", ".join(f"{name} = {json.dumps(value)}" for name, value in NEEDED.items())
        needed += " and n_experts = 1" if model.n_experts > 1 else ""
        raise ScalingError(
            f"neither a Llama nor a Qwen3: {', '.join(wrong)}",
            where="--format hf",
            remedy=f"train with {needed}",
        )


def texts(
    run: RunConfig, tokenizer: Mapping[str, Any], tokenizer_json: str | None
) -> dict[str, str]:
    """The text files by name, for a run whose corpus has a `tokenizer`, with its tokenizer.json
    unless it is one of bytes.
    """
    separator = tokenizer.get("separator")
    if tokenizer.get("kind") == "bytes":
        tokenizer_json = byte_tokenizer(separator)
    tokenizer_config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.task.seq_len,
    }
    if tokenizer_json is not None and separator is not None:
        from tokenizers import Tokenizer

        token = Tokenizer.from_str(tokenizer_json).id_to_token(separator)
        tokenizer_config |= {"bos_token": token, "eos_token": token}
    documents = {
        "config.json": config(run, separator),
        "tokenizer_config.json": tokenizer_config,
    }
    named = {name: json.dumps(document, indent=1) + "\n" for name, document in documents.items()}
    return named | ({} if tokenizer_json is None else {"tokenizer.json": tokenizer_json})


def config(run: RunConfig, separator: int | None = None) -> dict[str, Any]:
    """config.json; `separator` is the token that ends a document."""
    model = run.model
    architecture = ("Qwen3ForCausalLM", "qwen3") if model.qk_norm else ("LlamaForCausalLM", "llama")
    return {
        "architectures": [architecture[0]],
        "model_type": architecture[1],
        "hidden_size": model.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads,
        "head_dim": model.d_head,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": run.task.seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": separator,
        "eos_token_id": separator,
        "torch_dtype": "float32",
    }


def tensors(
    model: ModelConfig, named: Mapping[str, np.ndarray], axes: Mapping[str, tuple[str, ...]]
) -> dict[str, np.ndarray]:
    """Arrays under their names in `transformers`; matrices are (outputs, inputs) there."""
    import numpy as np

    def matrix(name: str) -> np.ndarray:
        return named[name] if axes[name] == ("d_out", "d_in") else named[name].T

    renamed = {
        "model.embed_tokens.weight": named["embedding"],
        "model.norm.weight": named["final_norm.gain"],
    }
    if not model.tie_embeddings:
        renamed["lm_head.weight"] = named["unembedding"].T
    n_q, n_kv = model.n_heads * model.d_head, model.n_kv_heads * model.d_head
    for i in range(model.n_layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        q, k, v = np.split(matrix(f"{ours}.attention.qkv.kernel"), [n_q, n_q + n_kv])
        gate, up = np.split(matrix(f"{ours}.ffn.up.kernel"), 2)
        renamed |= {
            f"{theirs}.self_attn.q_proj.weight": q,
            f"{theirs}.self_attn.k_proj.weight": k,
            f"{theirs}.self_attn.v_proj.weight": v,
            f"{theirs}.self_attn.o_proj.weight": matrix(f"{ours}.attention.out.kernel"),
            f"{theirs}.mlp.gate_proj.weight": gate,
            f"{theirs}.mlp.up_proj.weight": up,
            f"{theirs}.mlp.down_proj.weight": matrix(f"{ours}.ffn.down.kernel"),
            f"{theirs}.input_layernorm.weight": named[f"{ours}.attention_norm.gain"],
            f"{theirs}.post_attention_layernorm.weight": named[f"{ours}.ffn_norm.gain"],
        }
        if model.qk_norm:
            for ours_name, theirs_name in (("q_gain", "q_norm"), ("k_gain", "k_norm")):
                gain = named[f"{ours}.attention.qk_norm.{ours_name}"]
                renamed[f"{theirs}.self_attn.{theirs_name}.weight"] = gain
    return {name: np.ascontiguousarray(array) for name, array in renamed.items()}


def byte_tokenizer(separator: int | None = None) -> str:
    """tokenizer.json of the bytes: the id of a byte is its value.

    An ASCII `separator` is a special token, spelled as it stands in the text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    symbols |= {chr(256 + i): byte for i, byte in enumerate(others)}  # as GPT-2 spells bytes
    special = [] if separator is None or separator > 127 else [chr(separator)]
    if special:
        symbols = {name: byte for name, byte in symbols.items() if byte != separator}
        symbols[special[0]] = ord(special[0])
    tokenizer = Tokenizer(models.BPE(vocab=symbols, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()
