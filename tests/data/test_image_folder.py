"""Images of a JSONL folder: in files, in a tar and behind its links, and never outside of that."""

import io
import json
import os
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from omni_smola.data import images, jsonl
from omni_smola.data.image_folder import ImageFolder
from omni_smola.errors import UserError

from .conftest import png
from .odd_images import CASES

RED, BLUE = png((200, 30, 30)), png((10, 10, 200))


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def link(name: str, target: str):
    return member(name, kind=tarfile.SYMTYPE, link=target)


def hard(name: str, target: str):
    return member(name, kind=tarfile.LNKTYPE, link=target)


def folder(tmp_path, *members, form=tarfile.GNU_FORMAT) -> ImageFolder:
    with tarfile.open(tmp_path / "images.tar", "w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return ImageFolder(tmp_path)


# what the tar holds, the name that a line has -> the image
FOLLOWED = {
    "a symbolic link": ([member("img/a.png", RED), link("img/b.png", "a.png")], "img/b.png"),
    "to another folder": ([member("a.png", RED), link("img/b.png", "../a.png")], "img/b.png"),
    "a chain": (
        [link("c.png", "img/b.png"), link("img/b.png", "./a.png"), member("img/a.png", RED)],
        "c.png",
    ),
    "a folder": ([member("real/a.png", RED), link("img", "real")], "img/a.png"),
    "a folder and back": ([member("a.png", RED), link("d/e", "../f/g")], "d/e/../../a.png"),
    "a folder behind a folder": (
        [member("x/y/a.png", RED), link("p", "x"), link("q", "p/y")],
        "q/a.png",
    ),
    "a hard link": ([member("img/a.png", RED), hard("b/c.png", "img/a.png")], "b/c.png"),
    "a hard link to a link": (
        [member("a.png", RED), link("b.png", "a.png"), hard("c.png", "b.png")],
        "c.png",
    ),
    "a link to a hard link": (
        [member("a.png", RED), hard("b.png", "./a.png"), link("c.png", "b.png")],
        "c.png",
    ),
    "a hard link that comes first": ([hard("d/b.png", "a.png"), member("a.png", RED)], "d/b.png"),
    "a hard link keeps what it led to": (
        [member("a.png", RED), hard("b.png", "a.png"), member("a.png", BLUE)],
        "b.png",
    ),
    "./ in the tar": ([member("./a.png", RED), link("./b.png", "./a.png")], "b.png"),
    "./ in the line": ([member("img/a.png", RED)], "./img//./a.png"),
    "an absolute name in the tar": ([member("/data/a.png", RED)], "/data/a.png"),
    "a long name": ([member("d/" * 90 + "a.png", RED)], "d/" * 90 + "a.png"),
    "a long target": (
        [member("d/" * 90 + "a.png", RED), link("b.png", "d/" * 90 + "a.png")],
        "b.png",
    ),
    "the last of two": ([member("a.png", BLUE), member("./a.png", RED)], "a.png"),
    "a file after a link": (
        [member("b.png", BLUE), link("a.png", "b.png"), member("a.png", RED)],
        "a.png",
    ),
    "a link after a file": (
        [member("a.png", BLUE), member("b.png", RED), link("a.png", "b.png")],
        "a.png",
    ),
    "a file below a link": ([link("img", "real"), member("img/a.png", RED)], "img/a.png"),
}


@pytest.mark.parametrize("what", FOLLOWED)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_links_are_followed_within_the_tar(tmp_path, what, form):
    members, name = FOLLOWED[what]
    found = folder(tmp_path, *members, form=form)
    assert found.has(name)
    assert found.read(name) == RED
    assert found.size(name) == (40, 20)


MISLEADING = {
    "an absolute target": ([link("a.png", "{outside}")], "which leads outside"),
    "a target above": ([link("img/a.png", "../../outside.png")], "which leads outside"),
    "outside by a folder": ([link("img", "..")], "which leads outside"),
    "a hard link outside": ([hard("img/a.png", "../outside.png")], "which leads outside"),
    "itself": ([link("a.png", "a.png")], "in a circle"),
    "a circle": ([link("a.png", "b.png"), link("b.png", "a.png")], "in a circle"),
    "a circle of folders": ([link("img", "img/img")], "in a circle"),
    "a hard link to itself": ([hard("a.png", "a.png")], "in a circle"),
    "nothing": ([link("a.png", "gone.png")], "'gone.png', which leads to no file"),
    "a hard link to nothing": ([hard("a.png", "gone.png")], "to no file of the archive"),
    "a folder": (
        [member("d/b.png", RED), link("a.png", "d")],
        "'d', which leads to no file",
    ),
}


@pytest.mark.parametrize("what", MISLEADING)
def test_a_link_that_leads_nowhere_is_one_sentence(tmp_path, what):
    outside = tmp_path / "outside.png"
    outside.write_bytes(BLUE)
    members, sentence = MISLEADING[what]
    for info, _ in members:
        info.linkname = info.linkname.replace("{outside}", str(outside))
    inner = tmp_path / "inner"
    inner.mkdir()
    name = members[-1][0].name
    name = name if name.endswith("png") else f"{name}/outside.png"
    found = folder(inner, *members)
    for use in (found.read, found.size):
        with pytest.raises(UserError, match=sentence) as error:
            use(name)
        assert "\n" not in str(error.value) and str(inner / "images.tar") in str(error.value)
    line = json.dumps({"image": name, "captions": ["x"]})
    (inner / "train.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=rf"train\.jsonl, line 1: Image {re.escape(name)} of"):
        jsonl.check_folder(inner)


def test_other_members_are_no_images(tmp_path):
    found = folder(
        tmp_path,
        member("d", kind=tarfile.DIRTYPE),
        member("fifo.png", kind=tarfile.FIFOTYPE),
        member("tty.png", kind=tarfile.CHRTYPE),
        member("../up.png", RED),
    )
    for name in ("d", "fifo.png", "tty.png", "../up.png", "up.png", "gone.png"):
        assert not found.has(name)
        with pytest.raises(UserError, match="no such file"):
            found.read(name)


def test_a_sparse_member_is_filled_with_zeros(tmp_path):
    """An image with a hole of zeros, stored as GNU tar --sparse stores it."""
    bmp = io.BytesIO()
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:2] = 7  # at the end of a BMP
    Image.fromarray(pixels).save(bmp, "BMP")
    data = bmp.getvalue()
    end = len(data) - len(data) % 512 - 512
    stored = data[:512] + data[end:]
    header = tarfile.TarInfo("a.bmp")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, len(stored)
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    for place, number in ((386, 0), (398, 512), (410, end), (422, len(data) - end)):
        block[place : place + 12] = b"%011o\0" % number
    block[482], block[483:495] = 0, b"%011o\0" % len(data)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    padding = bytes(-len(stored) % 512)
    (tmp_path / "images.tar").write_bytes(bytes(block) + stored + padding + bytes(1024))
    np.testing.assert_array_equal(images.decode(ImageFolder(tmp_path).read("a.bmp")), pixels)


@pytest.mark.parametrize("size", [-5, 1 << 40, (1 << 62) - 1])
def test_a_member_of_an_impossible_size_is_one_sentence(tmp_path, size):
    info, _ = member("a.png")
    info.size = size
    (tmp_path / "images.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + RED + bytes(2048))
    with pytest.raises(UserError, match=r"images\.tar|a\.png"):
        ImageFolder(tmp_path).read("a.png")


def test_images_outside_of_the_folder(tmp_path):
    """The user's own list may name the user's own files."""
    inner = tmp_path / "set"
    inner.mkdir()
    (tmp_path / "photo.png").write_bytes(RED)
    os.symlink(tmp_path / "photo.png", inner / "link.png")
    found = ImageFolder(inner)
    for name in ("../photo.png", str(tmp_path / "photo.png"), "link.png"):
        assert found.has(name) and found.read(name) == RED


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")  # would be waited for
    (tmp_path / "dir.png").mkdir()
    found = ImageFolder(tmp_path)
    for name in ("fifo.png", "dir.png", "/dev/zero", "x" * 5000, "a\0b", "\ud800.png", ""):
        assert not found.has(name)
        for use in (found.read, found.size):
            with pytest.raises(UserError, match="no such file"):
                use(name)


def test_boxes_are_measured_in_the_displayed_image(tmp_path):
    meta = Image.Exif()
    meta[0x0112] = 6
    Image.new("RGB", (256, 64)).save(tmp_path / "phone.jpg", exif=meta)  # shown: 64 x 256
    box = {"image": "phone.jpg", "expression": "it", "box": [4, 10, 60, 200]}
    (tmp_path / "train.jsonl").write_text(json.dumps(box) + "\n")
    (record,) = jsonl.check_folder(tmp_path).records["train"]
    np.testing.assert_allclose(record.box, [4 / 64, 10 / 256, 60 / 64, 200 / 256])


def test_any_format_is_handed_on_as_it_is(tmp_path):
    encoded = CASES["png-text"][0]
    (tmp_path / "a.png").write_bytes(encoded)
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"image": "a.png", "expression": "it", "box": [0, 0, 24, 12]}) + "\n"
    )
    checked = jsonl.check_folder(tmp_path)
    assert checked.records["train"][0].box == (0, 0, 1, 0.5)
    assert checked.image_bytes(checked.records["train"][0]) == encoded


def test_an_image_too_large_is_found_at_the_door(tmp_path):
    (tmp_path / "a.png").write_bytes(RED)
    line = json.dumps({"image": "a.png", "captions": ["x"]})
    (tmp_path / "train.jsonl").write_text(line + "\n")
    jsonl.check_folder(tmp_path, max_pixels=800)
    with pytest.raises(UserError, match=r"line 1: .*40 x 20 = 800 pixels.*data\.max_pixels"):
        jsonl.check_folder(tmp_path, max_pixels=799)
