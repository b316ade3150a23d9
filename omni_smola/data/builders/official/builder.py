"""The base of every builder of a public dataset: official records to stored common records.

A dataset's own file says which files it reads, how a record becomes an `Example`, and which image
collection its images are in. What holds for all of them is here: missing files, bad records,
duplicate ids, images that are not there, and how it is stored.
"""

import abc
import collections
import dataclasses
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from omni_smola.data.builders.official import images, prepared_from
from omni_smola.data.builders.official.files import (
    BadRecord,
    Fields,
    SourceFile,
    missing_files,
    not_utf8,
)
from omni_smola.data.text import short
from omni_smola.errors import UserError

PACKAGE = "omni_smola.data.builders"
ON_ERROR = ("fail", "skip")


@dataclasses.dataclass(frozen=True)
class Example:
    """One example of a public dataset; the common record of `data/sources.py` by field.

    Attributes:
      id: the official identifier, as the dataset's server wants it back; unique within a split.
      image: key in the dataset's image collection, or None.
      references: captions, answers or expressions; empty where a test split hides them.
      box: x1, y1, x2, y2 as fractions of width and height.
      groups: names of the groups that the example is scored in, with spaces between.
      ocr: the words on the image, in reading order, where the dataset gives them.
      language: of the references, as an ISO 639 code.
    """

    id: str
    image: str | None = None
    question: str = ""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    answer_index: int = -1
    box: tuple[float, float, float, float] | None = None
    groups: str = ""
    ocr: tuple[str, ...] = ()
    language: str = "en"


class OfficialBuilder(images.QuietBuilder, abc.ABC, skip_registration=True):
    """A TFDS builder that reads a dataset's official files from `manual_dir`.

    Subclasses set SPLITS, HIDDEN and IMAGES and implement `records` and `example`.

    Attributes:
      SPLITS: split -> the files it is made of. A split whose files are all missing is left out.
      HIDDEN: the splits whose references are not public.
      IMAGES: the collection that `Example.image` is a key of; None for a dataset without images.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the official files below manual_dir, as the docstring of the builder lists them."
    )
    SPLITS: dict[str, tuple[SourceFile, ...]] = {}
    HIDDEN: tuple[str, ...] = ()
    IMAGES: images.Collection | None = None

    def __init__(self, *, on_error: str = "fail", **kwargs: Any):
        """on_error: "fail" at the first bad record, or "skip" it, count and report."""
        if on_error not in ON_ERROR:
            raise UserError(
                f"on_error is {on_error!r}: choose one of {', '.join(ON_ERROR)} "
                "(--config.data.on_error=...)."
            )
        self._on_error = on_error
        super().__init__(**kwargs)

    @abc.abstractmethod
    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        """The raw records of a split, in the order of the official file.

        Bad records come as they are: it is `example` that finds them.
        """

    @abc.abstractmethod
    def example(self, record: Fields, split: str) -> Example | None:
        """One record as an example; None to leave it out as the dataset's protocol does.

        Raises:
          BadRecord: the record is not as it should be.
        """

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Tensor(shape=(), dtype=np.object_)
        texts = tfds.features.Tensor(shape=(None,), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": text,
                    "image_key": text,
                    "image_position": tfds.features.Scalar(np.int64),
                    "question": text,
                    "choices": texts,
                    "references": texts,
                    "answer_index": tfds.features.Scalar(np.int32),
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "groups": text,
                    "ocr": texts,
                    "language": text,
                }
            ),
            disable_shuffling=True,
        )

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: Any = None
    ) -> None:
        self._how = download_config
        super()._download_and_prepare(dl_manager, download_config)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = Path(dl_manager.manual_dir)
        splits = [split for split, files in self.SPLITS.items() if _any(folder, files)]
        needed = [file for split in splits or self.SPLITS for file in self.SPLITS[split]]
        error = missing_files(self.name, folder, needed)
        if error:
            raise error
        store = None
        if self.IMAGES is not None:
            store = images.prepare(self.IMAGES, self._data_dir_root, folder, self._how)
        return {split: self._generate_examples(folder, split, store) for split in splits}

    def _generate_examples(
        self, folder: Path, split: str, store: images.ImageStore | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        seen: set[str] = set()
        bad: list[str] = []
        index = 0
        for record in self.records(folder, split):
            try:
                example = self.example(record, split)
                if example is None:
                    continue
                stored = self._checked(record, example, split, seen, store)
            except BadRecord as error:
                if self._on_error == "fail":
                    raise BadRecord(
                        f"{error} Mend the file, or leave such records out by "
                        "--config.data.on_error=skip."
                    ) from error
                bad.append(str(error))
                continue
            yield index, stored
            index += 1
        if bad:
            print(
                f"{self.name}/{split}: left out {len(bad)} bad records, kept {index}. The first: "
                f"{bad[0]}",
                file=sys.stderr,
                flush=True,
            )
        if not index:
            files = ", ".join(str(folder / file.path) for file in self.SPLITS[split])
            raise UserError(
                f"{self.name}/{split} has no example, and {len(bad)} bad records: there should be "
                f"some in {files}." + (f" The first bad one: {bad[0]}" if bad else "")
            )

    def _checked(
        self,
        record: Fields,
        example: Example,
        split: str,
        seen: set[str],
        store: images.ImageStore | None,
    ) -> dict[str, Any]:
        """The example as it is stored; raises BadRecord for what no dataset may have."""
        texts = (example.id, example.question, example.groups, example.image or "")
        for text in (*texts, *example.references, *example.choices):
            if not_utf8(text):
                raise record.bad(
                    f"{short(text)} is not UTF-8: convert the file, or download it again."
                )
        if example.id in seen:
            raise record.bad(f"the id {example.id!r} stands in {split} twice.")
        if not example.references and split not in self.HIDDEN:
            raise record.bad("there are no references.")
        position = -1
        if example.image is not None:
            position = store.positions.get(example.image, -1)
            if position < 0:
                raise record.bad(
                    f"the image {example.image!r} is not in the collection {self.IMAGES.name} "
                    f"(stored in {store.folder}: delete that after adding images)."
                )
        seen.add(example.id)
        fields = dataclasses.asdict(example)
        fields["image_key"] = fields.pop("image") or ""
        fields["ocr"] = [word for word in example.ocr if not not_utf8(word)]
        return fields | {
            "image_position": position,
            "box": np.asarray(example.box or (-1.0,) * 4, np.float32),
            "choices": list(example.choices),
            "references": list(example.references),
        }


def grouped(records: Iterator[Fields], key: str, name: str) -> Iterator[Fields]:
    """Files with a line per caption, as one record per image.

    Args:
      records: of the file. key: the field they are grouped by. name: the new field that lists all
        records of a group, beside the fields of its first.

    Yields:
      A record for each group, in the order of first appearance; what has no key stays alone.
    """
    groups: dict[Any, list[Fields]] = collections.defaultdict(list)
    for i, record in enumerate(records):
        try:
            groups[record.label(key)].append(record)
        except BadRecord:
            groups[i].append(record)
    for members in groups.values():
        first = members[0]
        if isinstance(first.values, Mapping):
            first = Fields({**first.values, name: [m.values for m in members]}, first.where)
        yield first


def find(name: str) -> type[OfficialBuilder]:
    """The class of a dataset's builder, from omni_smola/data/builders/NAME.py.

    Its name is the file's in camel case: RefcocoPlus in refcoco_plus.py.
    """
    module = importlib.import_module(f"{PACKAGE}.{name}")
    return getattr(module, tfds.core.naming.snake_to_camelcase(name))


def prepare(
    name: str,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    on_error: str = "fail",
) -> OfficialBuilder:
    """A dataset's builder, built from the download folder where it is not prepared yet.

    Args:
      name: of the dataset's file in data/builders, and where the builder has several configs, "/"
        and one of them.
      data_dir: the TFDS data directory.
      manual_dir: the download folder; None if all is prepared.
      on_error: what to do with bad records, "fail" or "skip".

    Raises:
      UserError: it is not prepared and there is no download folder; files or images are missing;
        a file or a record is bad.
    """
    name, _, config = name.partition("/")
    builder = find(name)(
        config=config or None,
        data_dir=str(data_dir),
        file_format="array_record",
        on_error=on_error,
    )
    files = dict.fromkeys(file for split in builder.SPLITS.values() for file in split)
    folder = None if manual_dir is None else Path(manual_dir).expanduser()
    if builder.is_prepared():
        if folder is not None:
            prepared_from.tell_changes(name, builder.data_dir, folder, files)
        return builder
    if folder is None:
        raise UserError(
            f"The dataset {name} is not prepared under {data_dir}: give the folder of its official "
            "downloads by --config.data.manual_dir=FOLDER. It reads"
            + "".join(f"\n  {file.path}  from {file.origin}" for file in files)
        )
    print(f"preparing {builder.info.full_name} in {data_dir}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=str(folder))
    builder.download_and_prepare(download_config=config, file_format="array_record")
    prepared_from.note(builder.data_dir, folder, files)
    return builder


def _any(folder: Path, files: Sequence[SourceFile]) -> bool:
    return any(file.is_in(folder) for file in files)
