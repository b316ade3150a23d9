"""What captions cost a frozen language model behind a prompt in each frame, without an image.

    python third_party/prompt_nats.py --folder=weights/smollm2_135m --captions=DIR/test.jsonl

prints a Markdown table: nats a token of the captions' own tokens, of their first token alone, and
of the token that ends them. `eos` is how prompts were made before there were frames; `auto` is the
chat template of the folder. Captions are the first `reference` or `caption` of each line.
"""

import argparse
import json
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from omni_smola.data import framing, vocabulary
from omni_smola.models import backbones
from omni_smola.models.decoder_only import LanguageModel
from omni_smola.pretrained import backbones as pretrained
from omni_smola.pretrained import load

FRAMES = ("eos", "plain", "newline", "chatml", "auto")
PROMPTS = ("caption in en", "Describe the image in one sentence (en).")


def captions(file: pathlib.Path, count: int) -> list[str]:
    """The first caption of each of the first records."""
    found = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            for name in ("references", "captions", "caption", "answers", "answer"):
                if name in record:
                    value = record[name]
                    found.append(value if isinstance(value, str) else value[0])
                    break
            if len(found) == count:
                break
    return found


@nnx.jit
def nats(model: LanguageModel, batch: dict[str, jax.Array]) -> jax.Array:
    """(b, t): -log p of every token of the target."""
    log_p = jax.nn.log_softmax(model(batch))
    return -jnp.take_along_axis(log_p, batch["target"][..., None], axis=2)[..., 0]


def batch_of(framed: framing.Framing, prompt: str, texts: list[str]) -> dict[str, np.ndarray]:
    """A batch of one prompt and many answers."""
    ids = framed.prompt(prompt, image=False)
    targets = [framed.answer(text) for text in texts]
    width = max(map(len, targets))
    rows = len(texts)
    return {
        "prompt": np.tile(np.array(ids, np.int32), (rows, 1)),
        "prompt_mask": np.ones((rows, len(ids)), bool),
        "frame": np.tile(np.array(framed.spans(ids, image=False), np.int32), (rows, 1)),
        "target": np.array([t + [0] * (width - len(t)) for t in targets], np.int32),
        "target_mask": np.arange(width) < np.array([[len(t)] for t in targets]),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--captions", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    texts = captions(given.captions, given.count)
    config = pretrained.read_config(str(given.folder))
    model = nnx.eval_shape(lambda: LanguageModel(config, rngs=nnx.Rngs(0)))
    load.fill(model, given.folder, pretrained._family(config))
    words = vocabulary.load(given.folder)
    print(f"{len(texts)} captions, {time.strftime('%Y-%m-%d')}")
    print("| prompt | frame | nats a token | first token | end |\n|---|---|---|---|---|")
    for prompt in PROMPTS:
        for name in FRAMES:
            family, ids = backbones.frame(config)
            framed = framing.load(name, words, family, ids, given.folder)
            batch = batch_of(framed, prompt, texts)
            cost, length = np.asarray(nats(model, batch)), batch["target_mask"].sum(1)
            own = np.arange(cost.shape[1]) < length[:, None] - 1
            end = np.take_along_axis(cost, length[:, None] - 1, axis=1).mean()
            print(
                f"| {prompt} | {name} ({framed.name}) | {cost[own].mean():.2f} | "
                f"{cost[:, 0].mean():.2f} | {end:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
