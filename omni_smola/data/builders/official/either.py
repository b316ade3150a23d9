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
        """Where it is below the download folder, by any of its paths; None where it is not."""
        names = (self.path, *self.others)
        places = (SourceFile(name, self.origin).found(folder) for name in names)
        return next((place for place in places if place is not None), None)
