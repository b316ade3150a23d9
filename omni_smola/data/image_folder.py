"""The images of a JSONL folder: members of its images.tar, else files.

Links inside of the tar, symbolic and hard, are followed within it as if it were unpacked in a
folder of its own, and never outside. The path of a file is taken from the folder, but may leave it
(`../photos/1.jpg`) or be absolute: that is the user's own list of the user's own files.
"""

import contextlib
import dataclasses
import os
import posixpath
import tarfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data import images
from omni_smola.errors import UserError, first_line

_MOST_LINKS = 40  # followed for one image, as Linux does


@dataclasses.dataclass(frozen=True)
class _Member:
    """The bytes of a file in a tar.

    Attributes:
      offset: of what is stored. size: of the file.
      pieces: place and length of what is stored of a sparse file, the rest of which is zeros.
    """

    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None


class _Tar:
    """An uncompressed tar: its index is read once, then each member is read in place."""

    def __init__(self, path: Path):
        self.path = path
        # name without "." and leading "/" -> the file, or where a symbolic link leads
        self._entries: dict[str, _Member | str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for info in archive:
                    self._add(info)
            self._file = os.open(path, os.O_RDONLY)
        except Exception as error:  # tarfile lets through whatever a damaged header causes
            raise UserError(
                f"{path} cannot be read as an uncompressed tar file ({first_line(error)})."
            ) from error
        weakref.finalize(self, os.close, self._file)

    def _add(self, info: tarfile.TarInfo) -> None:
        """Of members of one name the last one counts, as when a tar is unpacked."""
        name = _plain(info.name)
        if name.startswith("../"):
            return
        if info.isfile():
            pieces = tuple(info.sparse) if info.sparse is not None else None
            self._entries[name] = _Member(info.offset_data, info.size, pieces)
        elif info.issym():
            self._entries[name] = info.linkname
        elif info.islnk():
            # The path of a hard link begins at the root of the archive, not where the link is.
            target = _plain(info.linkname)
            way = posixpath.relpath(target, posixpath.dirname(name) or ".")
            self._entries[name] = self._entries.get(target, way)
        else:  # a folder, a device
            self._entries.pop(name, None)

    def find(self, name: str) -> _Member | None:
        """The file of this name, after all links; None if there is none.

        Raises:
          UserError: its links lead outside of the archive, or nowhere.
        """
        direct = self._entries.get(_plain(name))
        if isinstance(direct, _Member):
            return direct
        way: list[str] = []
        links: list[str] = []
        ahead = name.split("/")[::-1]
        while ahead:
            part = ahead.pop()
            if part == "..":
                if not way:
                    if not links:
                        return None
                    raise self._misleading(name, links, "outside of the archive")
                way.pop()
            elif part not in ("", "."):
                way.append(part)
                entry = self._entries.get("/".join(way))
                if isinstance(entry, str):
                    links.append(entry)
                    if entry.startswith("/"):
                        raise self._misleading(name, links, "outside of the archive")
                    if len(links) > _MOST_LINKS:
                        raise self._misleading(name, links, "in a circle")
                    way.pop()
                    ahead += entry.split("/")[::-1]
        found = self._entries.get("/".join(way))
        if found is None and links:
            raise self._misleading(name, links, "to no file of the archive")
        return found

    def read(self, member: _Member) -> bytes:
        """The bytes of a file of `find`; fewer where the archive ends too early."""
        # pread has no file position, so that threads may share the file.
        if member.pieces is None:
            return os.pread(self._file, member.size, member.offset)
        data, place = bytearray(member.size), member.offset
        for start, length in member.pieces:
            length = min(length, member.size - start)
            data[start : start + length] = os.pread(self._file, length, place)
            place += length
        return bytes(data)

    def _misleading(self, name: str, links: list[str], where: str) -> UserError:
        return UserError(f"in {self.path} it is a link to {links[-1][:200]!r}, which leads {where}")


class ImageFolder:
    """The images of a folder."""

    def __init__(self, folder: str | Path, max_pixels: int = images.MAX_PIXELS):
        """max_pixels: of an image, see `images`."""
        self.folder = Path(folder)
        self._max_pixels = max_pixels
        tar = self.folder / "images.tar"
        self._tar = _Tar(tar) if tar.is_file() else None

    def has(self, name: str) -> bool:
        """Whether there is a file of this path, or a link, which may lead to none."""
        try:
            return self._find(name) is not None or os.path.isfile(self.folder / name)
        except UserError:
            return True

    def read(self, name: str) -> bytes:
        """The encoded image; raises UserError if there is none."""
        with self._explained(name):
            member = self._find(name)
            if member is None:
                return images.read_file(self.folder / name, self._max_pixels)
            images.check_bytes(member.size, self._max_pixels)
            return self._tar.read(member)

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) as displayed, from the header; raises UserError if it is no image."""
        with self._explained(name):
            if self._find(name) is not None:
                return images.size(self.read(name), self._max_pixels)
            return images.file_size(self.folder / name, self._max_pixels)

    def _find(self, name: str) -> _Member | None:
        return self._tar.find(name) if self._tar else None

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (UserError, OSError, ValueError, OverflowError) as error:
            raise UserError(
                f"Image {name} of {self.folder} cannot be read: {error}; replace it or remove its "
                "lines."
            ) from error


def _plain(name: str) -> str:
    """The name of a member as it is looked up."""
    return posixpath.normpath(name).lstrip("/")
