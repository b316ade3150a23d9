"""RICO, the screens of Android apps that Screen2Words and Widget Captioning are about."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omni_smola.data.builders.official.files import (
    BadRecord,
    Fields,
    SourceFile,
    read_json,
    read_text,
)
from omni_smola.data.text import short
from omni_smola.errors import UserError

# 66,261 screens: {id}.jpg and their view hierarchies, {id}.json.
SCREENS = SourceFile(
    "rico/combined/", "unique_uis.tar.gz of http://www.interactionmining.org/rico.html"
)

# The bounds of a node are on a canvas of this height, whatever the height of the screen's image.
CANVAS_HEIGHT = 2560


def screen_ids(path: Path) -> Iterator[str]:
    """The screens that the list of a split names, one a line.

    Raises:
      UserError: a line is something else.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip() and not line.strip().isdecimal():
            raise UserError(f"{path}, line {number}: {short(line.strip())} is no id of a screen.")
        if line.strip():
            yield line.strip()


def node_bounds(path: Path, node: str) -> list[float]:
    """Where a node of a view hierarchy is.

    Args:
      path: of the hierarchy, {id}.json. node: the way to it from the root, such as "0.2.11": the
        third child of the root, and of that the twelfth.

    Returns:
      x1, y1, x2, y2 on the canvas.

    Raises:
      BadRecord: there is no such file, or it has no such node, or that has no such bounds.
    """
    where = f"{path}, node {node!r}"
    try:
        found = _hierarchy(path)["activity"]["root"]
        for index in node.split(".")[1:]:
            if not index.isdecimal():
                raise KeyError(index)
            found = found["children"][int(index)]
    except (KeyError, IndexError, TypeError) as error:
        raise BadRecord(f"{where}: the view hierarchy has no such node.") from error
    except UserError as error:
        raise BadRecord(str(error)) from error
    bounds = Fields(found, where).numbers("bounds", 4)
    if bounds[0] > bounds[2] or bounds[1] > bounds[3]:
        raise BadRecord(f"{where}: 'bounds' {bounds} end before they begin.")
    return bounds


@functools.lru_cache(maxsize=16)  # a screen has about three captioned nodes
def _hierarchy(path: Path) -> Any:
    return read_json(path)
