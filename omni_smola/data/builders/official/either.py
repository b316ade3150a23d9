"""A file that is offered under several names."""

import dataclasses
from pathlib import Path

from omni_smola.data.builders.official.files import SourceFile


@dataclasses.dataclass(frozen=True)
class Either(SourceFile):
    """A file or folder that comes by another path too: in an older release, or in its archive.

    Attributes:
      others: paths that stand in for `path`, tried in this order after it.
    """

    others: tuple[str, ...] = ()

    def found(self, folder: Path) -> Path | None:
        """Where it is below the download folder; None where it is not."""
        for path in (self.path, *self.others):
            if SourceFile(path, self.origin).is_in(folder):
                return folder / path
        return None

    def is_in(self, folder: Path) -> bool:
        """Whether it is there by one of its paths."""
        return self.found(folder) is not None
