"""What data are, whatever they are called: digests of their contents.

Files that one run keeps for the next, such as the frozen model's scores, hold for these data alone.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from omni_smola.data.jsonl import JsonlSource
from omni_smola.data.sources import IndexedSource

_BLOCK = 64  # records read at once
_STAT_BELOW = 20_000  # images of a folder, as many as are opened when it is checked
_TOKENIZER_FILES = ("spiece.model", "vocab.json", "merges.txt")


def of_examples(source: IndexedSource, split: str, limit: int | None, skip: bool = False) -> str:
    """The digest of the examples that an evaluation reads: texts, boxes and encoded images.

    Args:
      source: of a task.
      split: the dataset's own name of it.
      limit: how many examples are evaluated; None for all.
      skip: as in `IndexedSource.read_each`.

    What cannot be read counts as such: it is the evaluation that says what is wrong with it.
    """
    size = source.num_input_examples(split)
    indices = source.first(split, size if limit is None else min(limit, size))
    found = hashlib.sha256()
    for block in np.array_split(indices, max(1, -(-len(indices) // _BLOCK))):
        try:
            records = source.read_each(split, block.tolist(), skip)
        except Exception as error:  # whatever a reader of files raises of damage
            records = [repr(error).encode()]
        for record in records:
            found.update(hashlib.sha256(record).digest())
    return found.hexdigest()


def of_training(source: IndexedSource, split: str) -> dict[str, Any]:
    """What says whether a split is the one that was trained on: {examples, digest}.

    Of a JSONL folder all records count, and its images by name and size: more than 20,000 loose
    ones by name only. Of a prepared dataset its version and the sizes of its files count.
    """
    found = hashlib.sha256()
    if isinstance(source, JsonlSource):
        for text in _of_folder(source, split):
            found.update(text.encode(errors="surrogatepass"))
    else:
        info = source.builder_info()
        for part in split.split("+"):
            files = info.splits[part]
            sizes = (info.full_name, part, files.num_bytes, files.shard_lengths)
            found.update(repr(sizes).encode())
    return {"examples": source.num_input_examples(split), "digest": found.hexdigest()}


def of_files(path: str | os.PathLike) -> str:
    """The digest of a file, or of the tokenizer's files in a folder, by contents."""
    path, found = Path(path).expanduser(), hashlib.sha256()
    names = sorted(os.listdir(path)) if path.is_dir() else [path.name]
    for name in names:
        if path.is_dir() and "token" not in name and name not in _TOKENIZER_FILES:
            continue
        with open(path / name if path.is_dir() else path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _of_folder(source: JsonlSource, split: str) -> Iterable[str]:
    folder, names = source.folder, set()
    for record in folder.records[split]:
        yield repr(record)
        if isinstance(record.image, str):
            names.add(record.image)
    tar = folder.path / "images.tar"
    if tar.is_file():
        yield f"images.tar {tar.stat().st_size}"
    elif len(names) < _STAT_BELOW:
        for name in sorted(names):
            file = folder.path / name
            yield f"{name} {file.stat().st_size if file.is_file() else None}"
