"""Host memory that loading a checkpoint needs beyond its parameters, measured.

    python third_party/loading_memory.py --folder=/tmp/made

makes a 3B-shaped checkpoint of random bfloat16 tensors (6 GB, in files of one layer each; deleted
afterwards), loads it in a process of its own, and prints one line of JSON, sizes in bytes:

    parameters, largest (tensor), beyond (peak of the process over what it had before, less the
    parameters), allowed (1.5 x largest + 1 GB), seconds

Exits with status 1 if beyond is more than allowed. Linux and macOS.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
SIZES = dict(layers=18, width=2048, mlp=16384, vocabulary=257_152)  # PaliGemma 3B's language model


def tensors(layers: int, width: int, mlp: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes: of each layer ({}), a table, and a head that is to be turned around."""
    del layers
    return {
        **{f"layers.{{}}.{name}.weight": (mlp, width) for name in ("gate", "up")},
        "layers.{}.down.weight": (width, mlp),
        **{f"layers.{{}}.{name}.weight": (width, width) for name in "qkvo"},
        "layers.{}.norm.weight": (width,),
        "embed.weight": (vocabulary, width),
        "head.weight": (vocabulary // 4, width),
    }


def make(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    """Writes the checkpoint, one layer in memory at a time."""
    import ml_dtypes
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    weight_map = {}

    def write(names: dict[str, tuple[int, ...]]) -> None:
        file = f"model-{len(set(weight_map.values())):05d}.safetensors"
        made = {
            name: np.resize(rng.random(1_000_003, np.float32).astype(ml_dtypes.bfloat16), shape)
            for name, shape in names.items()
        }
        save_file(made, folder / file)
        weight_map.update(dict.fromkeys(names, file))

    shapes = tensors(**sizes)
    for layer in range(sizes["layers"]):
        write({n.replace("{}", str(layer)): s for n, s in shapes.items() if "{}" in n})
    for name in shapes:
        if "{}" not in name:
            write({name: shapes[name]})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def load(folder: pathlib.Path, sizes: dict[str, int]) -> dict[str, float]:
    """Loads it into this process; what is measured."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from omni_smola.pretrained import load as loading
    from omni_smola.pretrained.rules import Family, Rule, transpose

    rules, wanted = [], {}
    for name, shape in tensors(**sizes).items():
        turned = name != "embed.weight" and len(shape) == 2
        rules.append(Rule(name, name.replace(".{}.", "/"), transpose if turned else None))
        ours = shape[::-1] if turned else shape
        ours = (sizes["layers"], *ours) if "{}" in name else ours
        wanted[rules[-1].ours] = jax.ShapeDtypeStruct(ours, jnp.bfloat16)
    jax.block_until_ready(
        jax.jit(jnp.sin)(jnp.ones(4))
    )  # XLA itself is no part of what is measured
    before, start = _resident(), time.perf_counter()
    loaded = loading.read(folder, Family("measured", tuple(rules)), wanted)
    jax.block_until_ready(loaded)
    seconds, peak = time.perf_counter() - start, _peak()
    size = {name: x.size * x.dtype.itemsize for name, x in wanted.items()}
    parameters = sum(size.values())
    largest = max(
        n // (sizes["layers"] if wanted[name].ndim == 3 else 1) for name, n in size.items()
    )
    # The last layer, block and row really are where they belong.
    reader = loading.open_checkpoint(folder)
    for rule in rules:
        last = reader.read(rule.theirs.replace("{}", str(sizes["layers"] - 1)))
        got = loaded[rule.ours][-1] if "{}" in rule.theirs else loaded[rule.ours]
        want = last if rule.transform is None else last.T
        corner = np.s_[-3:] if want.ndim == 1 else np.s_[-3:, -3:]
        if not np.array_equal(np.asarray(got[corner]), want[corner]):
            raise SystemExit(f"{rule.theirs} was not loaded right")
    return {
        "parameters": parameters,
        "largest": largest,
        "beyond": peak - before - parameters,
        "allowed": int(1.5 * largest + 1e9),
        "seconds": round(seconds, 1),
    }


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident() -> int:
    statm = pathlib.Path("/proc/self/statm")
    if not statm.exists():
        return _peak()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Makes, loads in a process of its own, prints, deletes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="made here; must be new")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    given = parser.parse_args()
    sizes = {name: getattr(given, name) for name in SIZES}
    if given.load:
        sys.path.insert(0, str(ROOT))
        print(json.dumps(load(given.folder, sizes)))
        return
    given.folder.mkdir(parents=True)
    try:
        make(given.folder, sizes)
        env = os.environ | {"JAX_PLATFORMS": "cpu"}
        env.pop("XLA_FLAGS", None)
        command = [sys.executable, __file__, *sys.argv[1:], "--load"]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        shutil.rmtree(given.folder)
    print(done.stdout.strip())
    measured = json.loads(done.stdout)
    sys.exit(int(measured["beyond"] > measured["allowed"]))


if __name__ == "__main__":
    main()
