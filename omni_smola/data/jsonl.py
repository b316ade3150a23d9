"""Bring your own data: a folder of JSONL files with the images beside them.

  folder/train.jsonl                  one JSON object a line, see `jsonl_records`
  folder/validation.jsonl (val.jsonl)
  folder/test.jsonl
  folder/img/...  or  folder/images.tar, whose members are the paths the lines name

All lines of a folder are of one kind. Files are read and checked when the folder is opened, that is
before training; images are read when they are needed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omni_smola.data import images, jsonl_adapters, jsonl_records
from omni_smola.data.image_folder import ImageFolder
from omni_smola.data.jsonl_records import Record
from omni_smola.data.sources import IndexedSource, serialize_record
from omni_smola.data.text import lines, parse_json, short
from omni_smola.errors import UserError

_FILES = {
    "train": ("train.jsonl",),
    "validation": ("validation.jsonl", "val.jsonl"),
    "test": ("test.jsonl",),
}
_OPEN_ALL_BELOW = 20_000


class JsonlFolder:
    """The checked records of a folder, by split.

    Attributes:
      path: the folder.
      kind: caption, question, choice or box.
      records: split -> list of Record.
      images: where the images are read from.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        kind: str | None = None,
        adapter: str | None = None,
        on_error: str = "fail",
        max_pixels: int = images.MAX_PIXELS,
    ):
        """Reads and checks every file of the folder.

        Args:
          path: the folder.
          kind: the kind of the records; None to take it from the first line.
          adapter: a name in `jsonl_adapters.ADAPTERS`, "none", or None to infer it.
          on_error: at a bad line, or an image that is missing or damaged, "fail", or "skip": the
            record keeps its place, so that the order of the others does not hang on it, and says
            `damaged`.
          max_pixels: of an image, see `images`.

        Raises:
          UserError: a sentence that names file, line and field.
        """
        self.path = Path(path)
        self.kind = kind
        self._adapter = adapter
        self._skip = on_error == "skip"
        if kind is not None and kind not in jsonl_records.FIELDS:
            raise UserError(
                f"{path}: kind {kind!r} is unknown; the kinds are {list(jsonl_records.FIELDS)}."
            )
        if adapter not in (None, "none", *jsonl_adapters.ADAPTERS):
            raise UserError(
                f"{path}: adapter {adapter!r} is unknown; the adapters are "
                f"{[*jsonl_adapters.ADAPTERS, 'none']}."
            )
        if not self.path.is_dir():
            raise UserError(
                f"{path} is not a folder; a data source is a folder of JSONL files. After a "
                "config's colon, a comma or a plus sign that belongs to a path has a backslash "
                r"before it: \, or \+."
            )
        self.images = ImageFolder(self.path, max_pixels)
        self.records: dict[str, list[Record]] = {}
        for split, names in _FILES.items():
            files = [self.path / name for name in names if (self.path / name).is_file()]
            if len(files) > 1:
                raise UserError(f"{path} has both {names[0]} and {names[1]}; keep one of them.")
            if files:
                self.records[split] = self._read_file(files[0], split)
        if not self.records:
            expected = ", ".join(name for names in _FILES.values() for name in names)
            raise UserError(f"{path} holds none of the files {expected}.")

    def _read_file(self, file: Path, split: str) -> list[Record]:
        records: list[Record] = []
        for number, line in lines(file):
            if isinstance(line, UserError) or line.strip():
                records.extend(self._read_or_skip(line, split, number, file))
        if not records:
            raise UserError(f"{file} is empty; give it at least one line or remove it.")
        records = self._unique(file, records)
        self._check_images(file, records)
        return records

    def _unique(self, file: Path, records: Sequence[Record]) -> list[Record]:
        """The records; one whose id was used before is a bad one."""
        first_use: dict[str, int] = {}
        unique = []
        for record in records:
            if not record.damaged and record.id in first_use:
                what = (
                    f"{file}, line {record.line}: id {short(record.id)} was used on line "
                    f"{first_use[record.id]} already; make the ids unique or leave them out."
                )
                if not self._skip:
                    raise UserError(what)
                record = Record(record.kind, record.id, None, record.line, damaged=what)
            elif not record.damaged:
                first_use[record.id] = record.line
            unique.append(record)
        return unique

    def _read_or_skip(
        self, line: str | UserError, split: str, number: int, file: Path
    ) -> list[Record]:
        where = f"{file}, line {number}"
        layout = self._adapter, self.kind
        try:
            if isinstance(line, UserError):
                raise line
            return self._read_line(_decode(line, where), split, number, where)
        except UserError as error:
            if not self._skip:
                raise
            # A bad line does not decide what the others are.
            self._adapter, self.kind = layout
            name, kind = f"{split}-{number}", self.kind or ""
            return [Record(kind, name, None, number, damaged=str(error))]

    def _read_line(
        self, fields: dict[str, Any], split: str, number: int, where: str
    ) -> list[Record]:
        if self._adapter is None:
            self._adapter = jsonl_adapters.infer_adapter(fields) or "none"
        adapted = [fields]
        if self._adapter != "none":
            adapted = jsonl_adapters.ADAPTERS[self._adapter](fields, where)
        records = []
        for one in adapted:
            kind = jsonl_records.infer_kind(one, where) if self.kind is None else self.kind
            if self.kind is None:
                self.kind = kind
            elif one.get("kind") not in (None, self.kind):
                raise UserError(
                    f"{where}: a {short(one['kind'])} record in a folder of '{self.kind}' records; "
                    "give each kind its own folder."
                )
            name = jsonl_records.record_id(one, where) or f"{split}-{number}"
            if self._adapter != "none" and "part" in one:  # of several records of a line
                name = f"{name}/{one['part']}"
            size_of = _named(self.images, where)
            records.append(
                jsonl_records.read_record(
                    one, kind, id=name, line=number, where=where, image_size=size_of
                )
            )
        return records

    def _check_images(self, file: Path, records: Sequence[Record]) -> None:
        """Every image is there; of a small set, every header is opened too."""
        first_line: dict[str, int] = {}
        for record in records:
            if isinstance(record.image, str):
                first_line.setdefault(record.image, record.line)
        size_of = None if len(records) > _OPEN_ALL_BELOW else self.images.size
        if self._skip:  # what is wrong with an image shows when it is read
            return
        for name, line in first_line.items():
            if not self.images.has(name):
                raise UserError(
                    f"{file}, line {line}: image {name} is neither in {self.path / 'images.tar'} "
                    f"nor a file below {self.path}."
                )
            if size_of:
                _named(self.images, f"{file}, line {line}")(name)

    def image_bytes(self, record: Record) -> bytes | None:
        """The record's encoded image; None if it has none."""
        if not isinstance(record.image, str):
            return record.image
        return self.images.read(record.image)


class JsonlSource(IndexedSource):
    """A JSONL folder as a source of common records."""

    def __init__(self, folder: JsonlFolder):
        super().__init__(str(folder.path), tuple(folder.records))
        self.folder = folder

    def num_input_examples(self, split: str) -> int:
        return len(self._records(split))

    def read(self, split: str, indices: Sequence[int]) -> list[bytes]:
        records = self._records(split)
        return [self._serialize(records[i]) for i in indices]

    def where(self, split: str, index: int) -> str:
        record = self._records(split)[index]
        image = record.image if isinstance(record.image, str) else "drawn or none"
        return f"line {record.line} of split '{split}' of {self.name} (image: {image})"

    def _records(self, split: str) -> list[Record]:
        if split not in self.folder.records:
            raise self.unknown_split(split)
        return self.folder.records[split]

    def _serialize(self, record: Record) -> bytes:
        if record.damaged:
            raise UserError(record.damaged)
        return serialize_record(
            id=record.id,
            image=self.folder.image_bytes(record),
            question=record.question,
            choices=record.choices,
            references=record.references,
            answer_index=record.answer_index,
            box=record.box,
        )


def check_folder(path: str | Path, **options: Any) -> JsonlFolder:
    """Opens a folder and, of files up to 20 000 records, every image's header.

    Raises:
      UserError: the first mistake found, in one sentence.
    """
    return JsonlFolder(path, **options)


def _decode(line: str, where: str) -> dict[str, Any]:
    fields = parse_json(line, where)
    if not isinstance(fields, dict):
        raise UserError(f"{where}: a line must hold one JSON object, not {short(fields)}.")
    return fields


def _named(folder: ImageFolder, where: str) -> Callable[[str], tuple[int, int]]:
    """`folder.size` whose errors say which line asked."""

    def size(name: str) -> tuple[int, int]:
        try:
            return folder.size(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    return size
