"""Damaged and odd JSONL files: each ends in records or in one sentence."""

import copy
import io
import json
import math
import os
import re

import numpy as np
import pytest
from PIL import Image

from omni_smola.data.jsonl import JsonlSource, check_folder
from omni_smola.data.sources import parse_record
from omni_smola.errors import UserError

from ..fuzz import mutations
from .test_jsonl_values import GOOD

# Ten times as many: FUZZ=10.
EACH = 320 * int(os.environ.get("FUZZ", "1"))
ODD = (
    [None, True, False, 0, -1, 1, 0.5, 1e308, -0.0, 5e-324, 10**30, 10**4000]
    + [math.nan, math.inf, -math.inf, "", " ", "nan", "A", "\u00df", "a.png", "../a.png", "/", "."]
    + ["\ud83d", "\udc80", "\x00", "\x1b", "\u2028", "\x85", "\ufeff", "\ufffe", "e\u0301" * 50]
    + ["x" * 300, "/".join("x" * 3000), [], {}, [[]], [{}], [None], [1, "a", None], {"": ""}]
    + [{"en": 1}, {"a": {"b": []}}, [0, 0, 1, 1], [1, 2, 3, 4], ["ff0000"], ["\ud800"], [[[["x"]]]]]
)
NAMES = sorted({name for record in GOOD.values() for name in record} | {"id", "kind", "part", "x"})


def odd_line(good: dict, rng: np.random.Generator) -> bytes:
    """A good record with at most two fields changed, added, renamed or dropped, as JSON."""
    record = copy.deepcopy(good)
    for _ in range(rng.integers(3)):
        names = list(record)
        name = names[rng.integers(len(names))] if names else "image"
        value = copy.deepcopy(ODD[rng.integers(len(ODD))])
        match rng.integers(6):
            case 0:
                record[name] = value
            case 1:
                record[NAMES[rng.integers(len(NAMES))]] = value
            case 2:
                record[NAMES[rng.integers(len(NAMES))]] = record.pop(name, value)
            case 3:
                record.pop(name, None)
            case 4 if isinstance(record.get(name), list) and record[name]:
                record[name][rng.integers(len(record[name]))] = value
            case 5 if isinstance(record.get(name), dict):
                record[name][str(value)] = value
    text = json.dumps(record)
    match rng.integers(24):
        case 0:
            text = "[" * 5000 + text
        case 1:
            text = text.replace(":", f": {'9' * 4999},", 1)
        case 2:
            text = text.replace("1", "1e999")
        case 3:
            text = f"{text[:-1]}, {text[1:]}"
    encoding = str(rng.choice(["utf-8"] * 9 + ["utf-8-sig", "utf-16", "utf-32"]))
    return text.encode(encoding)


def files(rng: np.random.Generator):
    """EACH files of odd records, EACH files with damaged bytes."""
    good = [json.dumps(record).encode() for record in GOOD.values()]
    for i in range(EACH):
        record = list(GOOD.values())[i % len(GOOD)]
        lines = [odd_line(record, rng) for _ in range(rng.integers(1, 4))]
        yield (b"\n", b"\r\n", b"\r")[rng.integers(3)].join(lines)
    damaged = [mutations(line + b"\n" + line, rng) for line in good]
    for i in range(EACH):
        yield next(damaged[i % len(damaged)])


def outcome(path, on_error: str) -> str:
    """Reads every record, too; what the folder ends in."""
    try:
        folder = check_folder(path, on_error=on_error)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500 + 3 * len(str(path))
        str(error).encode()
        return "refused"
    source = JsonlSource(folder)
    for i, record in enumerate(folder.records["train"]):
        try:
            read = parse_record(source.read("train", [i])[0])
        except UserError:
            assert record.damaged or record.image  # of the image alone that is found when read
            continue
        assert not record.damaged
        texts = [read["question"].numpy(), *read["references"].numpy(), *read["choices"].numpy()]
        for text in [read["id"].numpy(), *texts[1:]]:
            assert text.decode().strip() and not re.search(
                "[\x00-\x08\x0b-\x1f\x7f]", text.decode()
            )
            assert text not in (b"inf", b"-inf", b"None", b"True")
        assert np.isfinite(read["box"].numpy()).all()
    return "read"


@pytest.mark.parametrize("seed", [0])
def test_every_file_ends_in_records_or_in_a_sentence(write_folder, seed):
    path = write_folder("x", train=[GOOD["caption"]])
    encoded = io.BytesIO()
    Image.new("RGB", (40, 20)).save(encoded, "PNG")
    (path / "a.png").write_bytes(encoded.getvalue())
    rng = np.random.default_rng(seed)
    outcomes = {}
    for content in files(rng):
        (path / "train.jsonl").write_bytes(content)
        ends = tuple(outcome(path, on_error) for on_error in ("fail", "skip"))
        outcomes[ends] = outcomes.get(ends, 0) + 1
        assert ends != ("read", "refused"), content
    assert min(outcomes.values()) > EACH // 50  # neither all read nor all refused
