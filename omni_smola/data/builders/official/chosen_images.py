"""Collections of the images that a dataset names, out of folders that hold many more."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from omni_smola.data.builders.official.images import Folders, Read
from omni_smola.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chosen(Folders):
    """Some of the images of `Folders`.

    Attributes:
      keys: download folder -> the keys that are wanted.
    """

    keys: Callable[[Path], Iterable[str]] = dataclasses.field(kw_only=True)

    def images(self, folder: Path) -> dict[str, Read]:
        """As `Folders.images`, of the wanted keys."""
        found = super().images(folder)
        wanted = set(self.keys(folder))
        chosen = {key: read for key, read in found.items() if key in wanted}
        if not chosen:
            raise UserError(
                f"Of the {len(wanted)} images of the collection {self.name} none is in "
                f"{', '.join(file.path for file in self.files)} of {folder}."
            )
        return chosen
