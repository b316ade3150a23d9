"""Download folders of public datasets, made for a test in the official layout."""

import io
import json
import pathlib

import pytest
from PIL import Image


def png(color="red", size=(8, 6)) -> bytes:
    """A small encoded image."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, format="PNG")
    return out.getvalue()


class Downloads:
    """A download folder, its files written one by one."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def write(self, path: str, content) -> pathlib.Path:
        """Bytes and text as they are, anything else as JSON; a list of lines is not special."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            file.write_text(text, encoding="utf-8")
        return file

    def images(self, *paths: str, size=(8, 6)) -> None:
        """A small image at each of the paths, whatever its suffix says."""
        for i, path in enumerate(paths):
            self.write(path, png((i * 40 % 256, 90, 120), size))


@pytest.fixture
def downloads(tmp_path) -> Downloads:
    return Downloads(tmp_path / "downloads")


@pytest.fixture
def source(downloads, tmp_path):
    """name -> the dataset's source, built from the downloads."""
    from omni_smola.data.official_source import OfficialSource

    def make(name: str, on_error: str = "fail") -> OfficialSource:
        return OfficialSource(name, str(tmp_path / "tfds"), str(downloads.folder), on_error)

    return make


@pytest.fixture
def examples(source):
    """(name, split) -> its records as plain Python dicts."""
    from omni_smola.data.sources import parse_record

    def read(name: str, split: str, on_error: str = "fail") -> list[dict]:
        opened = source(name, on_error)
        records = opened.read(split, range(opened.num_input_examples(split)))
        return [_plain(parse_record(record)) for record in records]

    return read


def _plain(record) -> dict:
    plain = {}
    for name, value in record.items():
        value = value.numpy()
        if name == "image":
            plain[name] = list(value)
        elif isinstance(value, bytes):
            plain[name] = value.decode()
        elif value.dtype == object:
            plain[name] = [text.decode() for text in value]
        else:
            plain[name] = value.tolist()
    return plain


@pytest.fixture
def real(shared_dir, downloads):
    """Links a folder of the real records into the download folder; skips where it is absent."""

    def link(ours: str, theirs: str) -> pathlib.Path:
        origin = shared_dir / "data" / "official" / theirs
        if not origin.exists():
            pytest.skip(f"needs the real records {theirs} of ../shared")
        target = downloads.folder / ours
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(origin, target_is_directory=origin.is_dir())
        return target

    return link


@pytest.fixture
def read(downloads, tmp_path):
    """(name, split) -> its examples and the sentences about its bad records, nothing stored."""
    from omni_smola.data.builders.official import builder as official
    from omni_smola.data.builders.official.files import BadRecord

    def run(name: str, split: str) -> tuple[list[official.Example], list[str]]:
        builder = official.find(name)(data_dir=str(tmp_path / "unbuilt"))
        good, bad = [], []
        for record in builder.records(downloads.folder, split):
            try:
                good.append(builder.example(record, split))
            except BadRecord as error:
                bad.append(str(error))
        return [example for example in good if example is not None], bad

    return run
