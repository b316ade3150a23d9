"""Which official files a prepared dataset was made of, so that changed ones are noticed.

A prepared dataset is read for ever after, whatever becomes of the download folder. Beside it stands
what its files were: sizes, dates and digests, and of folders the names in them, as reading a
hundred thousand images at every start would take minutes.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omni_smola.data.builders.official.files import SourceFile

_NOTE = "official_files.json"


def note(prepared: str | os.PathLike, folder: Path, files: Iterable[SourceFile]) -> None:
    """Writes beside a prepared dataset what it was made of.

    Args:
      prepared: the dataset's own folder.
      folder: the download folder.
      files: those of the dataset; missing ones are left out.
    """
    there = _there(folder, files)
    found = {name: _state(path) | _digest(path) for name, path in there.items()}
    (Path(prepared) / _NOTE).write_text(json.dumps(found, indent=1) + "\n")


def tell_changes(
    name: str, prepared: str | os.PathLike, folder: Path, files: Iterable[SourceFile]
) -> list[str]:
    """Says on the standard error which files are no longer those that were prepared.

    A file with another date is read, and is the same if its contents are. Nothing is said of a
    dataset without a note, or of files that are gone.

    Returns:
      The paths of the changed files.
    """
    try:
        noted = json.loads((Path(prepared) / _NOTE).read_text())
    except (OSError, ValueError):
        return []
    there = _there(folder, files)
    changed = [name for name, path in there.items() if not _same(noted.get(name), path)]
    if changed:
        print(
            f"THE FILES OF {name} HAVE CHANGED since it was prepared: {', '.join(changed)} in "
            f"{folder}. The old ones are still used: delete {prepared} to prepare it anew.",
            file=sys.stderr,
            flush=True,
        )
    return changed


def _there(folder: Path, files: Iterable[SourceFile]) -> dict[str, Path]:
    """The files that are there: each by its first name, and where it was found."""
    found = {file.path: file.found(folder) for file in files}
    return {name: path for name, path in found.items() if path is not None}


def _same(noted: Any, path: Path) -> bool:
    now = _state(path)
    if not isinstance(noted, dict) or all(noted.get(key) == value for key, value in now.items()):
        return True
    # A folder's state is its names; a file of another date may have its old contents.
    if "size" not in now or noted.get("size") != now["size"]:
        return False
    return noted.get("digest") == _digest(path)["digest"]


def _state(path: Path) -> dict[str, Any]:
    if path.is_dir():
        names = "\n".join(sorted(os.listdir(path)))
        return {"names": hashlib.sha256(os.fsencode(names)).hexdigest()}
    return {"size": path.stat().st_size, "date": path.stat().st_mtime_ns}


def _digest(path: Path) -> dict[str, str]:
    if path.is_dir():
        return {}
    with open(path, "rb") as opened:
        return {"digest": hashlib.file_digest(opened, "sha256").hexdigest()}
