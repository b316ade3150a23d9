"""Images of public datasets, stored once however many datasets and questions share them.

A collection is a set of images that one or more datasets name by key: COCO's photos are one, by
COCO id, whatever year's folder they lie in. The builder `Images` stores a collection as files of
array_record; a dataset's records hold the positions of their images in it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from omni_smola.data.builders.official import prepared_from
from omni_smola.data.builders.official.files import SourceFile, missing_files
from omni_smola.errors import UserError

Read = Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Folders:
    """A collection of image files in one or more folders.

    Attributes:
      name: of the collection.
      files: the folders, of which at least one must be there. Where a key lies in several, the
        first is read.
      pattern: regular expression for a path below a folder; its group "key" is the image's key.
      by_folder: whether keys begin with the name of their folder, as "train2014/1", because the
        dataset names its images so or uses a name in several folders.
    """

    name: str
    files: tuple[SourceFile, ...]
    pattern: str = r"(?P<key>.+)\.(?i:jpe?g|png|gif|bmp)"
    by_folder: bool = False

    def images(self, folder: Path) -> dict[str, Read]:
        """Key -> how to read the encoded image, in sorted order of the keys.

        Raises:
          UserError: none of the folders is there, or they hold no image.
        """
        present = [file for file in self.files if file.is_in(folder)]
        if not present:
            raise missing_files(f"The image collection {self.name}", folder, self.files)
        found: dict[str, Read] = {}
        for file in present:
            root = folder / file.path
            for path in sorted(root.rglob("*")):
                match = re.fullmatch(self.pattern, path.relative_to(root).as_posix())
                if match:
                    key = f"{root.name}/{match['key']}" if self.by_folder else match["key"]
                    found.setdefault(key, path.read_bytes)
        if not found:
            raise UserError(
                f"The folders of the image collection {self.name} hold no image: "
                f"{', '.join(str(folder / file.path) for file in present)}."
            )
        return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True)
class Made:
    """A collection whose images are made from official files: a page rendered, a box drawn.

    Attributes:
      name: of the collection.
      files: all of which must be there.
      make: download folder -> key -> how to make the encoded image.
    """

    name: str
    files: tuple[SourceFile, ...]
    make: Callable[[Path], dict[str, Read]]

    def images(self, folder: Path) -> dict[str, Read]:
        """As `Folders.images`."""
        error = missing_files(f"The image collection {self.name}", folder, self.files)
        if error:
            raise error
        return dict(sorted(self.make(folder).items()))


Collection = Folders | Made


class QuietBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that leaves the standard output to the program that uses it."""

    # TFDS would announce a download of unknown size on stdout.
    def _log_download_bytes(self) -> None:
        logging.info("preparing %s under %s", self.info.full_name, self.data_dir)

    def _log_download_done(self) -> None:
        logging.info("%s is ready", self.info.full_name)


class Images(QuietBuilder, skip_registration=True):
    """TFDS builder of one collection: split `images` of {key, image}, split `keys` of the keys."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put the folders of the image collection into manual_dir."

    def __init__(self, collection: Collection, beam: bool = False, **kwargs):
        """beam: whether the images are read by Apache Beam, on as many machines as it has."""
        self._collection = collection
        self._beam = beam
        config = tfds.core.BuilderConfig(name=collection.name, description=collection.name)
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"key": text, "image": text}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        images = self._collection.images(Path(dl_manager.manual_dir))
        return {"images": self._generate_examples(images), "keys": self._keys(images)}

    def _generate_examples(self, images: dict[str, Read]) -> Any:
        """Pairs of a position and its record; with Beam the transform that makes them."""
        numbered = list(enumerate(images.items()))
        if not self._beam:
            return map(_record, numbered)
        import apache_beam

        return apache_beam.Create(numbered) | apache_beam.Map(_record)

    def _keys(self, images: dict[str, Read]) -> Iterator[tuple[int, dict]]:
        for index, key in enumerate(images):
            yield index, {"key": key, "image": b""}


class ImageStore:
    """A prepared collection, to be read by position."""

    def __init__(self, builder: Images):
        self._builder = builder

    @property
    def folder(self) -> str:
        """Where the collection is stored."""
        return str(self._builder.data_dir)

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """Key -> position of every image."""
        import tensorflow as tf

        records = self._builder.as_data_source("keys").data_source
        keys = (_bytes(tf.train.Example.FromString(record), "key") for record in _all(records))
        return {key.decode(): i for i, key in enumerate(keys)}

    @functools.cached_property
    def _images(self):
        return self._builder.as_data_source("images").data_source

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """The encoded images at these positions."""
        import tensorflow as tf

        if not len(positions):
            return []
        records = self._images.__getitems__(list(positions))
        return [_bytes(tf.train.Example.FromString(record), "image") for record in records]


def _record(numbered: tuple[int, tuple[str, Read]]) -> tuple[int, dict[str, Any]]:
    index, (key, read) = numbered
    return index, {"key": key, "image": read()}


def prepare(
    collection: Collection,
    data_dir: str | Path,
    manual_dir: str | Path | None,
    how: tfds.download.DownloadConfig | None = None,
) -> ImageStore:
    """The store of a collection, built from the download folder where it is not there yet.

    Args:
      how: its beam_runner and beam_options, where there are such, read and write the images.

    Raises:
      UserError: it is not there and there is no download folder, or that lacks the images.
    """
    runner, options = (how.beam_runner, how.beam_options) if how else (None, None)
    beam = runner is not None or options is not None
    builder = Images(collection, beam, data_dir=str(data_dir), file_format="array_record")
    folder = None if manual_dir is None else Path(manual_dir).expanduser()
    if not builder.is_prepared():
        if folder is None:
            raise UserError(
                f"The image collection {collection.name} is not prepared under {data_dir}: give "
                "the folder of the official downloads by --config.data.manual_dir=FOLDER."
            )
        config = tfds.download.DownloadConfig(
            manual_dir=str(folder), beam_runner=runner, beam_options=options
        )
        builder.download_and_prepare(download_config=config, file_format="array_record")
        prepared_from.note(builder.data_dir, folder, collection.files)
    elif folder is not None:
        name = f"the image collection {collection.name}"
        prepared_from.tell_changes(name, builder.data_dir, folder, collection.files)
    return ImageStore(builder)


def _all(records) -> Iterator[bytes]:
    size = 4096
    for start in range(0, len(records), size):
        yield from records.__getitems__(list(range(start, min(start + size, len(records)))))


def _bytes(example, name: str) -> bytes:
    return example.features.feature[name].bytes_list.value[0]
