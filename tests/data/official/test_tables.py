"""TabFact and WikiTableQuestions in the layouts of their own repositories, tables drawn."""

import io

import pytest
from PIL import Image

from omni_smola.data.builders.official.drawing import table_image
from omni_smola.errors import UserError

TABFACT = "tabfact_tables"
WTQ = "wikitablequestions_tables"


def opened(encoded):
    return Image.open(io.BytesIO(encoded))


def ink(image, box=None):
    """How many pixels are nearly black."""
    image = image.convert("L")
    return sum(
        count for count, level in (image.crop(box) if box else image).getcolors() if level < 60
    )


def test_a_table_is_drawn_cell_by_cell():
    rows = [["a", "b"], ["1", "2"], ["3"]]
    table = opened(table_image(rows))
    titled = opened(table_image(rows, "a rather long caption"))
    assert titled.height > table.height and titled.width > table.width
    assert 0 < ink(table) < ink(titled)
    third = table.height * 2 // 3 + 4
    assert ink(table, (table.width // 2 + 2, third, table.width, table.height)) == 0, "no cell"
    assert ink(table, (0, third, table.width // 2, table.height)) > 0


def test_long_cells_are_broken():
    short, long = ["word " * 4], ["word " * 40]
    assert opened(table_image([short])).width < opened(table_image([long])).width < 320
    endless = opened(table_image([["x" * 200]]))
    assert endless.width < 320 and endless.height > 3 * 20
    assert opened(table_image([["a\nb"]])).height > opened(table_image([["ab"]])).height
    assert opened(table_image([])).size == (13, 1), "an empty table has an image too"


def tabfact(downloads, split, tables):
    downloads.write(f"{TABFACT}/tokenized_data/{split}_examples.json", tables)
    for table in tables:
        downloads.write(f"{TABFACT}/data/all_csv/{table}", 'name#score\nbob "b"#12\n')


def test_tabfact_has_a_statement_per_label(downloads, examples):
    tables = {
        "1-1.html.csv": [["bob score 12", "bob score 13"], [1, 0], "scores of bob"],
        "2-2.html.csv": [["bob be here"], [1], ""],
    }
    tabfact(downloads, "test", tables)
    for group, names in (("simple", ["1-1"]), ("complex", ["2-2"]), ("small", ["2-2"])):
        names = [f"{name}.html.csv" for name in names]
        downloads.write(f"{TABFACT}/data/{group}_test_id.json", names)
    found = examples("tabfact_tables", "test")
    assert [r["id"] for r in found] == ["1-1.html.csv#0", "1-1.html.csv#1", "2-2.html.csv#0"]
    assert [r["references"] for r in found] == [["yes"], ["no"], ["yes"]]
    assert [r["groups"] for r in found] == ["simple", "simple", "complex small"]
    assert found[0]["question"] == "bob score 12"
    captioned, plain = opened(found[0]["image"][0]), opened(found[2]["image"][0])
    assert captioned.height > plain.height, "the caption stands above"


def test_bad_tables_are_told(downloads, examples):
    bad = {"a.csv": [["x", "y"], [1], "c"], "b.csv": [["x"], [2], "c"], "c.csv": [["x"], [0], "c"]}
    tabfact(downloads, "val", bad)
    with pytest.raises(UserError, match=r"record 'a.csv': it is not .statements, labels, caption."):
        examples("tabfact_tables", "validation")
    assert [r["id"] for r in examples("tabfact_tables", "validation", "skip")] == ["c.csv#0"]


def test_real_statements(real, examples):
    real(TABFACT, "tabfact")
    found = examples("tabfact_tables", "test")
    assert len(found) > 150 and all(record["image"] for record in found)
    assert {r["groups"] for r in found} == {"simple", "complex", "simple small", "complex small"}
    labels = [record["references"][0] for record in found]
    assert 0.3 < labels.count("yes") / len(labels) < 0.7
    first = {record["id"]: record for record in found}["2-1195142-2.html.csv#5"]
    assert first["references"] == ["no"] and first["question"].startswith("willam ivey long win")


def wtq(downloads, name, *rows):
    header = ("id", "utterance", "context", "targetValue")
    text = "".join("\t".join(row) + "\n" for row in (header, *rows))
    downloads.write(f"{WTQ}/data/{name}.tsv", text)


def test_wikitablequestions_has_canonical_answers_for_evaluation(downloads, examples):
    row = ("nu-1", "how many?\\nsay", "csv/204-csv/1.csv", "100,000")
    wtq(downloads, "pristine-unseen-tables", row, ("nu-2", "who?", "csv/204-csv/1.csv", "A|B"))
    wtq(downloads, "random-split-1-train", ("nt-0", *row[1:]))
    downloads.write(f"{WTQ}/csv/204-csv/1.csv", '"a","b\\"c"\n"1","two\nlines"\n')
    tags = "id\tutterance\ttargetCanon\ttargetCanonType\nnu-1\thow\t100000.0\tnumber\n"
    downloads.write(f"{WTQ}/tagged/data/pristine-unseen-tables.tagged", tags)
    downloads.write(f"{WTQ}/tagged/data/training.tagged", tags.replace("nu-1", "nt-0"))
    first, second = examples("wikitablequestions_tables", "test")
    assert first["id"] == "nu-1" and first["question"] == "how many? say"
    assert first["references"] == ["100,000\t100000.0"] and second["references"] == ["A|B"]
    (train,) = examples("wikitablequestions_tables", "train")
    assert train["references"] == ["100,000"], "to be learnt as it is written"
    assert train["image"] == first["image"]


def test_real_questions(real, examples):
    from omni_smola.metrics import METRICS

    real(WTQ, "wikitablequestions")
    found = examples("wikitablequestions_tables", "test")
    assert len(found) == 100 and all(record["image"] for record in found)
    by_id = {record["id"]: record for record in found}
    assert by_id["nu-0"]["references"] == ["Italy\tItaly"]
    references = [record["references"] for record in found]
    answers = [reference.partition("\t")[0] for (reference,) in references]
    assert METRICS["wtq"](answers, references)["wtq"] > 90, "the answers as they are written"
    assert len(examples("wikitablequestions_tables", "train")) == 30
