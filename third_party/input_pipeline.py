"""Where the input pipeline's time goes: examples per CPU second of each stage, side by side.

    python third_party/input_pipeline.py --resolution=224

Makes a folder of 640 x 480 JPEGs with questions, as a user would bring, and reads it through the
project's own pipeline. All threads' CPU time is counted, so that a busy machine changes little.
"""

import argparse
import itertools
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from omni_smola.data import images, pipeline, tasks
from omni_smola.data.features import decode_image

SIZE = (640, 480)


def make_folder(folder: pathlib.Path, examples: int) -> None:
    """Photo-like images: smooth colours with some noise, about 100 kB at quality 90."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(examples):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + rng.normal(0, 12, smooth.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(
            folder / f"{i}.jpg", quality=90
        )
        question = f"what is the colour of the {i}th large object on the left side?"
        lines.append(json.dumps({"image": f"{i}.jpg", "question": question, "answers": ["red"]}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")


def rate(run: Callable[[int], None], examples: int) -> tuple[float, float]:
    """Examples per CPU second and per second, after a first round that is not counted."""
    run(examples // 4)
    wall, cpu = time.perf_counter(), time.process_time()
    run(examples)
    return examples / (time.process_time() - cpu), examples / (time.perf_counter() - wall)


def stages(name: str, resolution: int, batch: int) -> dict[str, Callable[[int], None]]:
    """What is measured: each stage alone, then all of it."""
    task = tasks.get(name)
    size = task.source.num_input_examples("train")

    def indices(count: int) -> np.ndarray:
        return np.arange(count) % size

    # As the pipeline does: parallel over examples, not inside of an image.
    how = tf.data.Options()
    how.threading.max_intra_op_parallelism = 1

    def through(function: Callable) -> Callable[[int], None]:
        def run(count: int) -> None:
            records = task.source.dataset_at("train", indices(count))
            for _ in records.map(lambda record: function(record["image"][0])).with_options(how):
                pass

        return run

    def decode(image: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(images.decode, [image], tf.uint8)

    def tokenise(count: int) -> None:
        lengths = {"prompt": 32, "target": 32, "image": 1}
        records = task.source.dataset_at("train", indices(count))
        made = task.preprocess_postcache(task.preprocess_precache(records), lengths)
        for _ in made:
            pass

    def everything(count: int) -> None:
        batches = pipeline.train_batches(
            {name: 1.0},
            seed=0,
            batch_size=batch,
            prompt_length=32,
            target_length=32,
            resolution=resolution,
        )
        for _ in itertools.islice(batches, count // batch):
            pass

    return {
        "read": through(tf.strings.length),
        "read, decode": through(decode),
        "read, decode, resize": through(lambda image: decode_image(image, resolution)),
        "read, prompt, tokenise": tokenise,
        "all, in batches": everything,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "photos"
        folder.mkdir()
        make_folder(folder, min(options.examples, 256))
        tasks.register({"photos": str(folder)})
        print(f"{'stage':<24}{'examples per CPU second':>26}{'per second':>14}")
        for stage, run in stages("photos", options.resolution, options.batch).items():
            per_cpu, per_second = rate(run, options.examples)
            print(f"{stage:<24}{per_cpu:>26.0f}{per_second:>14.0f}", flush=True)


if __name__ == "__main__":
    main()
