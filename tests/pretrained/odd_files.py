"""Damaged and odd weight files and tokenizers, each opened as a run opens it.

    python -m tests.pretrained.odd_files SEED COUNT [KIND]

A process of its own, as native code may end it: the number of a case is printed before it is tried.
Ends with one line of JSON: counts by what became of the cases, and those that are faults.
"""

import collections
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import traceback

import numpy as np

from omni_smola.errors import UserError
from tests.fuzz import mutations, peak_megabytes
from tests.pretrained import good_files

SECONDS = 20  # of processors for one case; all but the first take milliseconds
ODD = (
    None, True, -1, 0, 1, 2.5, 10**15, 2**63, -(2**63), 1e308, "", "x", "10", [], {}, [[]],
    [1] * 40, [10**9, 10**9], "\ud800", {"content": "<a>"}, float("nan"), float("inf"),
)  # fmt: skip


def odd_json(value, rng):
    """A copy of a JSON value in which one place holds something else."""
    if isinstance(value, dict | list) and value and rng.integers(8):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[rng.integers(len(keys))]
        copy = value.copy()
        choice = rng.integers(10)
        if choice == 0:
            del copy[key]
        elif choice == 1 and isinstance(copy, dict):
            copy[f"{key}{rng.integers(9)}"] = copy.pop(key)
        else:
            copy[key] = odd_json(value[key], rng)
        return copy
    return ODD[rng.integers(len(ODD))]


def damage(file, rng):
    """Writes a file anew: its bytes altered, or its JSON odd."""
    data = file.read_bytes()
    try:
        if file.suffix in (".json", ".zarray") and rng.integers(3):
            file.write_text(json.dumps(odd_json(json.loads(data), rng)))
            return
        if file.suffix == ".safetensors" and rng.integers(2):
            length = int.from_bytes(data[:8], "little")
            header = json.dumps(odd_json(json.loads(data[8 : 8 + length]), rng)).encode()
            file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
            return
    except ValueError:
        pass
    file.write_bytes(next(mutations(data, rng)) if data else b"\0")


def attempt(use, folder):
    """What becomes of a case: "read", a sentence's beginning, or the fault as a traceback."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
    try:
        use(folder)
    except UserError as error:
        text = str(error)
        whole = "\n" not in text.strip() and 20 < len(text) < 1000
        return "sentence" if whole else f"a sentence of {len(text)} characters: {text[:300]}"
    except BaseException:
        return traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def main(seed, count, only=""):
    good_files.prepare()
    kinds = {name: kind for name, kind in good_files.KINDS.items() if only in ("", name)}
    rng = np.random.default_rng(seed)
    names = [name for name, (_, _, share) in kinds.items() for _ in range(share)]
    found, faults = collections.Counter(), []
    with tempfile.TemporaryDirectory() as place:
        good = {}
        for name, (write, use, _) in kinds.items():
            good[name] = pathlib.Path(place) / name.replace(" ", "_")
            good[name].mkdir()
            write(good[name])
            whole = attempt(use, good[name])
            assert whole == "read" or name == "npz", (name, whole)  # of the npz a part is there
        before = peak_megabytes()
        for case in range(count):
            name = names[rng.integers(len(names))]
            print(f"case {case} of seed {seed}: {name}", file=sys.stderr, flush=True)
            folder = pathlib.Path(place) / "case"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(good[name], folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            for _ in range(1 + rng.integers(2)):
                damage(files[rng.integers(len(files))], rng)
            became = attempt(kinds[name][1], folder)
            found[became if became in ("read", "sentence") else "fault"] += 1
            if became not in ("read", "sentence"):
                faults.append(f"case {case}, {name}: {became}")
            after = peak_megabytes()
            if after - before > 2000:
                faults.append(f"case {case}, {name}: {after - before:.0f} MB")
                before = after
    print(json.dumps({"counts": found, "faults": faults}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
