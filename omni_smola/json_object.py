"""JSON files of other people's checkpoints."""

import json
import pathlib
from typing import Any

from omni_smola.errors import UserError


def read(file: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file, in UTF-8.

    Raises:
      UserError: there is no such file, or it holds anything else.
    """
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"The file {file} cannot be read ({error.strerror}): copy it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"The file {file} is not JSON ({error}): copy it again.") from error
    if not isinstance(fields, dict):
        raise UserError(f"The file {file} is not a JSON object: copy it again.")
    return fields


def read_if_there(file: pathlib.Path) -> dict[str, Any]:
    """As `read`; empty where there is no such file."""
    return read(file) if file.is_file() else {}
