"""Widget Captioning (Li et al., arXiv 2010.04295): what a part of an app's screen is for."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw

from omni_smola.data import images
from omni_smola.data.builders.official import rico
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.drawing import opened
from omni_smola.data.builders.official.files import BadRecord, Fields, SourceFile, read_table
from omni_smola.data.builders.official.images import Made, Read
from omni_smola.errors import UserError

_PAGE = "https://github.com/google-research-datasets/widget-caption"
_CAPTIONS = SourceFile("widget_captions/widget_captions.csv", _PAGE)
_LISTS = {
    ours: SourceFile(f"widget_captions/split/{theirs}.txt", _PAGE)
    for ours, theirs in {"train": "train", "validation": "dev", "test": "test"}.items()
}
_COLUMNS = ("datasetId", "screenId", "nodeId", "captions")
_UNRELEASED = "nr"
_BLUE = (0, 0, 255)


def _key(record: Fields) -> str:
    return f"{record.text('screenId')}_{record.text('nodeId')}"


def _box(record: Fields, folder: Path) -> tuple[float, float, float, float]:
    """The widget as fractions of width and height."""
    screens = folder / rico.SCREENS.path
    screen = record.text("screenId")
    try:
        bounds = rico.node_bounds(screens / f"{screen}.json", record.text("nodeId"))
        sides = _size(screens / f"{screen}.jpg")
    except UserError as error:
        raise record.bad(str(error)) from error
    pixels = _pixels(bounds, sides[1])
    return tuple(min(max(pixels[i] / sides[i % 2], 0.0), 1.0) for i in range(4))


def _pixels(bounds: list[float], height: int) -> list[float]:
    # The canvas may be wider or narrower than the image: its height is the scale of both sides.
    return [value * height / rico.CANVAS_HEIGHT for value in bounds]


def _size(path: Path) -> tuple[int, int]:
    try:
        return images.file_size(path)
    except UserError as error:
        raise BadRecord(f"{path} is no image that can be read: {error}.") from error


def _outlined(folder: Path) -> dict[str, Read]:
    """The widgets whose screen and node are there; `example` tells why others are not."""
    screens = folder / rico.SCREENS.path
    released = {
        name
        for file in _LISTS.values()
        if file.is_in(folder)
        for name in rico.screen_ids(folder / file.path)
    }
    found = {}
    for record in read_table(folder / _CAPTIONS.path, _COLUMNS):
        try:
            screen, node = record.text("screenId"), record.text("nodeId")
            if screen not in released or record.text("datasetId") == _UNRELEASED:
                continue
            bounds = rico.node_bounds(screens / f"{screen}.json", node)
            path = screens / f"{screen}.jpg"
            _size(path)
            found[_key(record)] = functools.partial(_drawn, path, bounds)
        except BadRecord:
            continue
    return found


def _drawn(path: Path, bounds: list[float]) -> bytes:
    image = opened(path)
    ImageDraw.Draw(image).rectangle(_pixels(bounds, image.height), outline=_BLUE)
    out = io.BytesIO()
    # Far smaller than a PNG; without subsampling, a line of one pixel keeps its blue.
    image.save(out, format="JPEG", quality=95, subsampling=0)
    return out.getvalue()


class WidgetCaptions(OfficialBuilder):
    """Widget Captioning: widget_captions.csv and split/ in widget_captions/, rico/combined/.

    Splits train, validation and test by screen; one example a widget, its id "{screenId}_{nodeId}".
    The image is the screen with a blue line around the widget, and the widget's box is in the
    record as well. CIDEr against all captions. Rows of the datasetId "nr" are left out: their
    screens were not released.
    """

    SPLITS = {split: (_CAPTIONS, file) for split, file in _LISTS.items()}
    IMAGES = Made("widget_captions", (_CAPTIONS, rico.SCREENS), _outlined)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        screens = set(rico.screen_ids(folder / _LISTS[split].path))
        for record in read_table(folder / _CAPTIONS.path, _COLUMNS):
            screen = record.values.get("screenId", "").strip()
            if not screen or screen in screens:  # without a screen: a mistake, whatever is built
                yield Fields({**record.values, "folder": str(folder)}, record.where)

    def example(self, record: Fields, split: str) -> Example | None:
        if record.text("datasetId") == _UNRELEASED:
            return None  # there is no image to ask about
        captions = [caption.strip() for caption in record.text("captions").split("|")]
        key = _key(record)
        return Example(
            id=key,
            image=key,
            references=tuple(caption for caption in captions if caption),
            box=_box(record, Path(record.text("folder"))),
        )
