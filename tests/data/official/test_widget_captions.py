"""Widget Captioning: a line around a node of the view hierarchy."""

import io

import numpy as np
import pytest
from PIL import Image

from omni_smola.data.builders.widget_captions import WidgetCaptions
from omni_smola.errors import UserError

CAPTIONS = "widget_captions/widget_captions.csv"
CSV = """datasetId,screenId,nodeId,captions
rico,7,0.1.0,go back|back button | |return
rico,7,0,whole screen
nr,7,0.1.1,of a screen that was not released
rico,8,0.0,of another split
rico,99999,0.0,of no split
"""
# A screen of 1440 x 2560, whose image is 54 x 96: every bound is divided by 80 / 3.
HIERARCHY = {
    "activity_name": "com.example/com.example.Main",
    "activity": {
        "root": {
            "bounds": [0, 0, 1440, 2560],
            "children": [
                {"bounds": [0, 0, 160, 160]},
                {
                    "bounds": [0, 160, 1440, 2560],
                    "children": [
                        {"bounds": [160, 320, 800, 1280], "text": "Back"},
                        {"bounds": [320, 320, 160, 1280]},
                        None,
                    ],
                },
            ],
        }
    },
    "is_keyboard_deployed": False,
    "request_id": "1234",
}


@pytest.fixture
def widgets(downloads):
    downloads.write(CAPTIONS, CSV)
    downloads.write("widget_captions/split/train.txt", "8\n")
    downloads.write("widget_captions/split/dev.txt", "7\n")
    downloads.write("widget_captions/split/test.txt", "8\n")
    downloads.images("rico/combined/7.jpg", "rico/combined/8.jpg", size=(54, 96))
    for screen in (7, 8):
        downloads.write(f"rico/combined/{screen}.json", HIERARCHY)
    return downloads


def test_captions_box_and_image_of_a_widget(widgets, examples):
    found = examples("widget_captions", "validation")
    assert [record["id"] for record in found] == ["7_0.1.0", "7_0"]  # not the "nr" one
    assert found[0]["references"] == ["go back", "back button", "return"]
    assert found[0]["box"] == pytest.approx([6 / 54, 12 / 96, 30 / 54, 48 / 96])
    assert found[1]["box"] == pytest.approx([0, 0, 1, 1])
    image = WidgetCaptions.IMAGES.images(widgets.folder)["7_0.1.0"]()
    assert found[0]["image"] == [image]


def test_a_screen_that_is_stored_turned(widgets, examples):
    meta = Image.Exif()
    meta[0x0112] = 6
    Image.new("RGB", (96, 54), "white").save(widgets.folder / "rico/combined/7.jpg", exif=meta)
    found = examples("widget_captions", "validation")
    assert found[0]["box"] == pytest.approx([6 / 54, 12 / 96, 30 / 54, 48 / 96])
    with Image.open(io.BytesIO(found[0]["image"][0])) as drawn:
        assert drawn.size == (54, 96)


def test_a_screen_of_too_many_pixels_is_a_bad_record(widgets, examples):
    Image.new("L", (20_000, 20_000)).save(widgets.folder / "rico/combined/7.jpg")
    with pytest.raises(UserError, match=r"7\.jpg is no image that can be read: it has 20000 x"):
        examples("widget_captions", "validation")


def test_the_widget_is_outlined_in_blue(widgets):
    encoded = WidgetCaptions.IMAGES.images(widgets.folder)["7_0.1.0"]()
    drawn = np.asarray(Image.open(io.BytesIO(encoded)), int)
    plain = np.asarray(Image.open(widgets.folder / "rico/combined/7.jpg").convert("RGB"), int)
    line = np.zeros(plain.shape[:2], bool)
    line[12:49, [6, 30]] = line[[12, 48], 6:31] = True
    want = np.where(line[..., None], [0, 0, 255], plain)
    assert drawn.shape == want.shape
    assert np.abs(drawn - want).max() < 40  # of JPEG; the line differs by 120 and more
    assert (drawn[line] - plain[line])[:, 2].min() > 100


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            "rico,7,0.1.9,far away",
            "combined/7.json, node '0.1.9': the view hierarchy has no such node",
        ),
        ("rico,7,0.-1,the last", "node '0.-1': the view hierarchy has no such node"),
        ("rico,7,0.1.2,of null", "node '0.1.2': None is no object of fields"),
        ("rico,7,0.1.1,inside out", "node '0.1.1': 'bounds' [320.0, 320.0, 160.0, 1280.0] end bef"),
        ("rico,70,0.1,screen lost", "combined/70.json cannot be read (No such file"),
        ("rico,71,0.1,picture lost", "combined/71.jpg is no image that can be read"),
        ("rico,,0.1,of no screen", "line 7: 'screenId' is empty"),
    ],
)
def test_a_widget_that_is_not_on_its_screen(widgets, read, row, sentence):
    widgets.write(CAPTIONS, f"{CSV}{row}\n")
    widgets.write("widget_captions/split/dev.txt", "7\n70\n71\n")
    widgets.write("rico/combined/71.json", HIERARCHY)
    good, (told,) = read("widget_captions", "validation")
    assert f"{CAPTIONS}, line 7: " in told and sentence in told
    assert [example.id for example in good] == ["7_0.1.0", "7_0"]
    # What has no image of its own keeps no other from being drawn.
    assert sorted(WidgetCaptions.IMAGES.images(widgets.folder)) == ["7_0", "7_0.1.0", "8_0.0"]
