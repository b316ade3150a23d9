"""Official annotation files: what is odd in their text and numbers."""

import csv
import json

import pytest

from omni_smola.data.builders.official import files
from omni_smola.data.builders.official.files import BadRecord, Fields
from omni_smola.errors import UserError

RECORDS = [{"id": 1, "text": "caf\u00e9 \u2028 and \x85"}]
TABLE = "id,text\n1,caf\u00e9\n2,tea\n"


def readers(path):
    """Every way to read a file to its end."""
    return {
        "json": lambda: list(files.read_list(path)),
        "jsonl": lambda: [record.get("id") for record in files.read_jsonl(path)],
        "csv": lambda: list(files.read_table(path, ["id", "text"])),
        "tsv": lambda: list(files.read_table(path, ["id", "text"], "\t")),
    }


def texts(kind: str) -> str:
    made = {"json": json.dumps(RECORDS, ensure_ascii=False), "csv": TABLE}
    made |= {"jsonl": json.dumps(RECORDS[0], ensure_ascii=False), "tsv": TABLE.replace(",", "\t")}
    return made[kind]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(tmp_path, kind, encoding):
    path = tmp_path / "file"
    path.write_bytes(texts(kind).encode(encoding))
    assert len(readers(path)[kind]()) == (2 if kind in ("csv", "tsv") else 1)


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_utf16_is_a_sentence(tmp_path, kind, encoding):
    path = tmp_path / "file"
    path.write_bytes(texts(kind).encode(encoding))
    with pytest.raises(UserError, match=r"file is not UTF-8, but looks like UTF-(16|32)"):
        readers(path)[kind]()


def test_a_cell_without_end_is_a_sentence_with_its_line(tmp_path):
    path = tmp_path / "file"
    path.write_text(f'id,text\n1,x\n2,"{"y" * (csv.field_size_limit() + 1)}"\n')
    with pytest.raises(UserError, match=r"file, line 3: not a table \(field larger"):
        readers(path)["csv"]()


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"a": ' * 100_000])
def test_json_without_end_is_a_sentence_or_a_bad_record(tmp_path, content):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(UserError, match=r"file is "):
        readers(path)["json"]()
    with pytest.raises(BadRecord, match=r"line 1, which is not JSON"):
        readers(path)["jsonl"]()


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "true", "null"]
)
def test_numbers_that_are_none(value):
    fields = Fields(json.loads(f'{{"one": {value}, "two": [{value}, 1], "text": {value}}}'), "here")
    for read in (
        lambda: fields.integer("one"),
        lambda: fields.numbers("two", 2),
        lambda: fields.text("text"),
    ):
        with pytest.raises(BadRecord, match=r"here: '(one|two|text)' must"):
            read()
    if value != "9" * 400:
        with pytest.raises(BadRecord):
            fields.label("one")


def test_half_a_character_is_a_bad_record_in_every_text(downloads, source):
    """In the group of a question, too, which is no text that anyone reads."""
    for field, bad in [("question", "what \ud83d?"), ("question_types", ["x\ud800"])]:
        record = {
            "questionId": 1,
            "question": "what?",
            "image": "documents/a.png",
            "answers": ["x"],
            "question_types": ["layout"],
        } | {field: bad}
        data = {
            "data": [record, record | {"questionId": 2, "question": "ok?", "question_types": []}]
        }
        downloads.write("docvqa/val_v1.0_withQT.json", data)
        downloads.images("docvqa/documents/a.png")
        with pytest.raises(BadRecord, match="is not UTF-8"):
            source("docvqa").num_input_examples("validation")
