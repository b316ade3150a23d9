"""What a checkpoint weighs: computed of any config, and measured against the backbone's size.

    python third_party/checkpoint_size.py \\
        --config=configs/pali_smola.py:backbone=palix,res=756,experts=16-16-16

prints one line of JSON from shapes alone, nothing is drawn: parameters and bytes that are frozen
(in no checkpoint), and those of a checkpoint, parameters and optimiser.

    python third_party/checkpoint_size.py --measure=/tmp/sizes

writes checkpoints of the same experts on a small backbone and on one with four times its frozen
weights, in turn, and prints their bytes on disk and the seconds that writing took (median of 7,
least and most). Exits with status 1 if a frozen weight is among what is saved, or if the bytes
differ by more than 1%.
"""

import argparse
import json
import pathlib
import runpy
import shutil
import statistics
import time

import jax
import jax.numpy as jnp

from omni_smola import config as configs
from omni_smola.models import shapes
from omni_smola.models.pali import PaliConfig
from omni_smola.models.t5 import T5Config
from omni_smola.models.vit import ViTConfig
from omni_smola.training import model as models
from omni_smola.training import optimizer, sharding, state
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.step import TrainState

ROOT = pathlib.Path(__file__).parent.parent
REPEATS = 7


def totals(tree) -> tuple[int, int]:
    """Numbers and bytes of a tree of arrays or shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(x.size for x in leaves), sum(x.size * x.dtype.itemsize for x in leaves)


def check_paths(trainable, frozen) -> None:
    """Ends the program if a frozen weight is among what a checkpoint holds."""
    saved, kept = set(state.paths(trainable)), set(state.paths(frozen))
    wrong = sorted(saved & kept) + sorted(p for p in saved if "experts" not in p.split("/"))
    if wrong:
        raise SystemExit(f"frozen weights in the checkpoint: {wrong[:3]}")


def computed(argument: str) -> dict[str, int | str]:
    """Sizes of a config's checkpoint, from shapes."""
    path, _, arg = argument.partition(":")
    config = runpy.run_path(str(ROOT / path))["get_config"](arg or None)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    model = models.abstract_model(config, mesh)
    check_paths(model.trainable, model.frozen)
    rule, _ = optimizer.make_optimizer(config.optimizer, config.steps)
    statistics_ = jax.eval_shape(rule.init, model.trainable)
    frozen, trained, held = map(totals, (model.frozen, model.trainable, statistics_))
    return {
        "config": argument,
        "frozen_parameters": frozen[0],
        "frozen_bytes_not_saved": frozen[1],
        "trained_parameters": trained[0],
        "trained_bytes": trained[1],
        "optimizer_bytes": held[1],
        "checkpoint_bytes": trained[1] + held[1],
    }


def made(name: str, depth: int) -> tuple[TrainState, int]:
    """A state with the same experts at every depth of the layers that have none."""
    encoder, width = 2, 256
    shapes.PALI[name] = PaliConfig(
        ViTConfig(image_size=28, patch_size=14, width=width, depth=depth, mlp=1024, heads=4),
        T5Config(1000, encoder, depth, d_model=width, heads=4, d_head=64, d_ff=1024),
    )
    config = configs.defaults()
    config.backbone.update(name=name, init="random")
    config.experts.update(visual=32, text=32, multimodal=32)
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    model = models.make_model(config, mesh)
    check_paths(model.trainable, model.frozen)
    rule, _ = optimizer.make_optimizer(config.optimizer, 100)
    shapes_ = jax.eval_shape(rule.init, model.trainable)
    # Random, as after some training: the zeros of a start would be compressed to nothing.
    keys = iter(jax.random.split(jax.random.key(0), 10_000))
    trained, held = jax.tree.map(
        lambda x: jax.random.normal(next(keys), x.shape, jnp.float32).astype(x.dtype),
        (model.trainable, shapes_),
    )
    return TrainState(jnp.int32(0), trained, held), totals(model.frozen)[1]


def measured(folder: pathlib.Path) -> list[dict[str, float]]:
    """Bytes and seconds of checkpoints beside two backbones, written in turn."""
    states = {name: made(name, depth) for name, depth in (("once", 6), ("four times", 26))}
    seconds: dict[str, list[float]] = {name: [] for name in states}
    sizes = {}
    for repeat in range(REPEATS + 1):
        for name, (start, _) in states.items():
            place = folder / name.replace(" ", "-")
            shutil.rmtree(place, ignore_errors=True)
            checkpoints = Checkpoints(str(place), {"backbone": name})
            began = time.perf_counter()
            checkpoints.save(start)
            checkpoints.wait()
            if repeat:  # the first one compiles the checksums
                seconds[name].append(time.perf_counter() - began)
            checkpoints.close()
            files = [path for path in (place / "checkpoints").rglob("*") if path.is_file()]
            sizes[name] = sum(path.stat().st_size for path in files)
    return [
        {
            "backbone": name,
            "frozen_bytes": frozen,
            "arrays_bytes": totals((start.trainable, start.optimizer))[1],
            "checkpoint_bytes_on_disk": sizes[name],
            "seconds": round(statistics.median(seconds[name]), 3),
            "least": round(min(seconds[name]), 3),
            "most": round(max(seconds[name]), 3),
        }
        for name, (start, frozen) in states.items()
    ]


def main() -> None:
    """Computes or measures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--measure", type=pathlib.Path, help="an empty folder")
    options = parser.parse_args()
    for argument in options.config:
        print(json.dumps(computed(argument)), flush=True)
    if options.measure is None:
        return
    told = measured(options.measure.resolve())
    for line in told:
        print(json.dumps(line))
    one, four = (line["checkpoint_bytes_on_disk"] for line in told)
    if abs(four - one) > 0.01 * one:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
