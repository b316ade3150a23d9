"""Local folders as Hugging Face keeps them: config.json, and safetensors in one file or several."""

import pathlib
from typing import Any

import numpy as np

from omni_smola import json_object
from omni_smola.errors import UserError
from omni_smola.pretrained.reader import Entry
from omni_smola.pretrained.safetensors_file import SafetensorsFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Sharded:
    """A Reader of the files that an index names.

    Raises:
      UserError: the index is broken, or a file that it names is absent, damaged or lacks a tensor.
    """

    def __init__(self, index: pathlib.Path):
        self.path = index.parent
        where = json_object.read(index).get("weight_map")
        # Files lie beside their index; a path that leads elsewhere is none of an honest index.
        if not isinstance(where, dict) or any(
            not isinstance(file, str) or pathlib.PurePath(file).name != file
            for file in where.values()
        ):
            raise UserError(f"The file {index} does not map tensors to files: copy it again.")
        absent = sorted(f for f in set(where.values()) if not (self.path / f).is_file())
        if absent:
            raise UserError(
                f"The folder {self.path} lacks {len(absent)} of the files that {index.name} names: "
                f"{', '.join(absent[:8])}{', ...' * (len(absent) > 8)}. Copy them beside it."
            )
        files = {file: SafetensorsFile(self.path / file) for file in sorted(set(where.values()))}
        self._files = {name: files[file] for name, file in where.items()}
        self.entries: dict[str, Entry] = {}
        for name, file in self._files.items():
            if name not in file.entries:
                raise UserError(
                    f"{index.name} says that {name} is in {file.path.name}, but it is not: copy "
                    f"all files of {self.path} again from one model."
                )
            self.entries[name] = file.entries[name]

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """See `Reader.read`."""
        return self._files[name].read(name, rows)

    def close(self) -> None:
        """Nothing is kept open."""


def find(folder: pathlib.Path) -> SafetensorsFile | Sharded | None:
    """The weights of a folder: model.safetensors, an index, or its only .safetensors file.

    Raises:
      UserError: the weights are damaged, or the folder has several files and no index.
    """
    if (folder / WEIGHTS).is_file():
        return SafetensorsFile(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return Sharded(folder / INDEX)
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        raise UserError(
            f"The folder {folder} has {len(files)} .safetensors files ({files[0].name}, ...), but "
            f"neither {WEIGHTS} nor {INDEX}, which says what is where: give one of the files, or "
            "copy the index too."
        )
    return SafetensorsFile(files[0]) if files else None


def config(folder: str | pathlib.Path) -> dict[str, Any]:
    """The fields of a folder's config.json.

    Raises:
      UserError: there is no such file, it is no JSON object, or its weights are quantised.
    """
    file = pathlib.Path(folder).expanduser() / "config.json"
    if not file.is_file():
        raise UserError(
            f"There is no {file}: give the whole local folder of a Hugging Face model, or "
            "hf://OWNER/REPO."
        )
    fields = json_object.read(file)
    quantised = fields.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
        raise UserError(
            f"The weights of {file.parent} are quantised ({method or 'quantization_config'}), but "
            "only plain floating-point weights are read: choose the model's original weights."
        )
    return fields
