"""The images of a JSONL folder: files below it, or members of its images.tar."""

import io
import os
import tarfile
import weakref
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from omni_smola.errors import UserError


class ImageFolder:
    """The images of a folder: members of its images.tar, else files in it.

    The tar is not unpacked: its index is read once, then each image is read in place.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._members: dict[str, tuple[int, int]] = {}
        tar = self.folder / "images.tar"
        if tar.is_file():
            try:
                with tarfile.open(tar, "r:") as archive:
                    for member in archive:
                        if member.isfile():
                            name = member.name.removeprefix("./")
                            self._members[name] = (member.offset_data, member.size)
            except (tarfile.TarError, EOFError) as error:
                raise UserError(
                    f"{tar} cannot be read as an uncompressed tar file ({error})."
                ) from error
            self._tar = os.open(tar, os.O_RDONLY)
            weakref.finalize(self, os.close, self._tar)

    def has(self, name: str) -> bool:
        """Whether there is an image of this path."""
        return name.removeprefix("./") in self._members or (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """The encoded image; raises UserError if there is none."""
        member = self._members.get(name.removeprefix("./"))
        if member:
            offset, size = member
            # pread has no file position, so that threads may share the file.
            return os.pread(self._tar, size, offset)
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"Image {name} of {self.folder} cannot be read ({error}).") from error

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) from the header; raises UserError if it is no image."""
        member = name.removeprefix("./") in self._members
        opened = io.BytesIO(self.read(name)) if member else self.folder / name
        try:
            with Image.open(opened) as image:
                return image.size
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UserError(
                f"Image {name} of {self.folder} is not an image that can be opened; "
                "replace it or remove its lines."
            ) from error
