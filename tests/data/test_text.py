"""Text as it comes in: encodings, line ends, control characters, halves of characters."""

import json

import pytest

from omni_smola.data import text
from omni_smola.data.jsonl import check_folder
from omni_smola.errors import UserError

CAPTION = {"image": "a.png", "captions": ["a caf\u00e9"]}
LINE = json.dumps(CAPTION, ensure_ascii=False)


@pytest.fixture
def folder(write_folder):
    """folder(bytes of train.jsonl) -> the folder, in which a.png is."""
    path = write_folder("x", train=[CAPTION | {"image": "a.png"}])

    def write(content: bytes):
        (path / "train.jsonl").write_bytes(content)
        return path

    return write


def captions(path, **options) -> list[tuple[str, ...]]:
    return [record.references for record in check_folder(path, **options).records["train"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(folder, encoding):
    assert captions(folder(f"{LINE}\n{LINE}\n".encode(encoding))) == [("a caf\u00e9",)] * 2


def test_files_with_a_mark_each_may_be_joined(folder):
    assert len(captions(folder(f"{LINE}\n".encode("utf-8-sig") * 3))) == 3


@pytest.mark.parametrize(
    "bad",
    [
        LINE.encode("latin-1"),
        LINE.encode("cp1252").replace(b"\xe9", b"\x93"),
        LINE.encode()[:39],  # half of the two bytes of an e with an accent
        b"\xed\xa0\xbd" + LINE.encode(),  # a surrogate in the bytes of UTF-8
        b"\xc0\xaf" + LINE.encode(),
    ],
)
def test_a_line_that_is_not_utf8_names_its_line_or_is_skipped(folder, bad):
    path = folder(LINE.encode() + b"\n" + bad + b"\n" + LINE.encode())
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: byte 0x\w\w .*UTF-8: save"):
        check_folder(path)
    records = check_folder(path, on_error="skip").records["train"]
    assert [bool(record.damaged) for record in records] == [False, True, False]


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_file_in_utf16_or_utf32_is_refused_as_a_whole(folder, encoding, on_error):
    path = folder(f"{LINE}\n{LINE}\n".encode(encoding))
    with pytest.raises(UserError, match=r"train\.jsonl is not UTF-8, but .*UTF-(16|32).*save it"):
        check_folder(path, on_error=on_error)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\r\n \r\n"])
def test_line_ends(folder, end):
    path = folder(end.join([LINE] * 3).encode())
    assert len(captions(path)) == 3


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\\u0085", "\\u000b", "\\f", "\\r"])
def test_characters_that_end_lines_elsewhere_become_blanks(folder, inside):
    line = LINE.replace("a caf", f"a{inside}caf")
    assert captions(folder(f"{line}\n{LINE}".encode())) == [("a caf\u00e9",)] * 2


def test_control_characters_become_blanks_and_newlines_and_tabs_stay(folder):
    line = json.dumps(CAPTION | {"captions": ["a\x00b\x1b[1mc\x07", "d\ne\tf", "g\x7f\x9fh"]})
    assert captions(folder(line.encode())) == [("a b [1mc", "d\ne\tf", "g  h")]
    with pytest.raises(UserError, match=r"line 1: 'captions' holds empty text"):
        check_folder(folder(json.dumps(CAPTION | {"captions": ["\x00\x1f"]}).encode()))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ('"captions": ["a \\ud83d dog"]', "captions"),
        ('"captions": "\\udc80"', "captions"),
        ('"captions": "x", "id": "\\ud800"', "id"),
        ('"question": "\\ude00\\ud83d?", "answers": "x"', "question"),
        ('"question": "?", "choices": ["a", "\\ud83d"], "answer": 0', "choices"),
        ('"captions": "x", "image": "\\ud83d.png"', "image"),
    ],
)
def test_half_a_character_is_refused_or_skipped_where_it_comes_in(folder, change, field):
    line = "{" + change + ("}" if field == "image" else ', "image": "a.png"}')
    path = folder(line.encode())
    with pytest.raises(UserError, match=rf"line 1: '?{field}'? contains a lone surrogate"):
        check_folder(path)
    assert check_folder(path, on_error="skip").records["train"][0].damaged
    whole = json.dumps(CAPTION | {"captions": "\U0001f600"})  # two escapes, one character
    assert captions(folder(whole.encode())) == [("\U0001f600",)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[" * 100_000, r"line 2: .*nested too deeply"),
        ('{"a": ' * 100_000, r"line 2: .*nested too deeply"),
        ('{"image": "a.png", "captions": ' + "9" * 5000 + "}", r"line 2: a number that is too"),
        ('{"image": "a.png", "captions": "x", "captions": "y"}', r"line 2: .*'captions' stands"),
        (LINE + ",", r"line 2: not valid JSON"),
        ("[" + LINE + "]", r"line 2: a line must hold one JSON object"),
        ('{"image": "' + "A" * 300 + '", "captions": "x"}', r"line 2: image .*too long for a path"),
        ('{"image": "a\\u0000.png", "captions": "x"}', r"line 2: image must be a path"),
        (
            '{"image": "a.png", "kind": ["caption"], "captions": "x"}',
            r"line 2: a \['caption'\] record",
        ),
    ],
)
def test_odd_json_is_a_sentence_or_skipped(folder, line, sentence):
    path = folder(f"{LINE}\n{line}\n{LINE}\n".encode())
    with pytest.raises(UserError, match=sentence) as error:
        check_folder(path, kind="caption" if "kind" not in line else None)
    assert len(str(error.value)) < 600 + len(str(path))
    assert [bool(record) for record in captions(path, on_error="skip")] == [True, False, True]


def test_a_line_without_end_is_not_read_into_memory(folder, monkeypatch):
    monkeypatch.setattr(text, "LONGEST_LINE", 100)
    path = folder((LINE + "\n" + "x" * 1000 + "\n" + LINE + "\n" + "y" * 101).encode())
    with pytest.raises(UserError, match=r"line 2: a line of more than 100 characters"):
        check_folder(path)
    found = [bool(record) for record in captions(path, on_error="skip")]
    assert found == [True, False, True, False]


def test_a_bad_first_line_does_not_decide_what_the_others_are(folder):
    bad = '{"image": "a.png", "box": [1, 2], "expression": "x"}'
    found = check_folder(folder(f"{bad}\n{LINE}\n".encode()), on_error="skip")
    assert found.kind == "caption" and found.records["train"][1].references == ("a caf\u00e9",)


def test_prompts_of_the_command_line():
    assert text.from_command_line("Answer in en: caf\u00e9?\x1b", "--prompt").endswith(
        "caf\u00e9? "
    )
    # A terminal of another locale: the bytes of UTF-8, not decoded.
    kept = "caf\u00e9".encode().decode("ascii", "surrogateescape")
    assert text.from_command_line(kept, "--prompt") == "caf\u00e9"
    latin = b"caf\xe9".decode("utf-8", "surrogateescape")
    for prompt in (latin, "x\ud83d", "\udfff"):
        with pytest.raises(UserError, match=r"--prompt.*(not UTF-8|a lone surrogate)"):
            text.from_command_line(prompt, "--prompt")


def test_long_values_are_shown_in_short():
    for value in ("x" * 10**6, ["x"] * 10**6, {"x": "y" * 1000}, b"x" * 999, 10**4000):
        assert len(text.short(value)) < 120
    assert text.short("x") == "'x'"
