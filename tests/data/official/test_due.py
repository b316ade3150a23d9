"""TabFact, WikiTableQuestions and DeepForm in the layout of the DUE benchmark."""

import io
import json
import sys

import pytest
from PIL import Image

from omni_smola.data.builders.official import due, pdf
from omni_smola.errors import UserError

pypdfium2 = pytest.importorskip("pypdfium2", reason="pages need pip install 'omni_smola[pdf]'")


def page(downloads, path, color="white", size=(144, 72)):
    """A PDF with one page of `size` dots of a 72nd of an inch."""
    file = downloads.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(file, resolution=72)


def document(name, *annotations, **fields):
    return {
        "name": name,
        "language": "en",
        "annotations": [
            {"id": str(i), "key": key, "values": list(values)}
            for i, (key, *values) in enumerate(annotations)
        ],
        "split": "test",
        **fields,
    }


def lines(*documents):
    return "".join(json.dumps(document) + "\n" for document in documents)


def value(text, *variants):
    return {"value": text, "value_variants": list(variants)} if variants else {"value": text}


def test_tabfact_has_verdicts_on_pages(downloads, examples, capsys):
    first = document(
        "2-1540-3",
        ("brazil win 4 game", value("1")),
        ("brazil win 5 game", value("0")),
        metadata={"channel_type": "complex"},
    )
    downloads.write("tabfact/test/document.jsonl", lines(first, document("2-9", ("a", value("1")))))
    page(downloads, "tabfact/pdfs/2-1540-3.pdf", "red")
    yes, no, unseen = examples("tabfact", "test")
    assert [r["id"] for r in (yes, no, unseen)] == ["2-1540-3/0", "2-1540-3/1", "2-9/0"]
    assert yes["question"] == "brazil win 4 game"
    assert [r["references"] for r in (yes, no)] == [["yes"], ["no"]]
    assert (yes["groups"], unseen["groups"]) == ("complex", "")
    image = Image.open(io.BytesIO(yes["image"][0]))
    assert image.format == "PNG" and image.size == (300, 150), "150 dots an inch"
    assert image.getpixel((150, 75)) == pytest.approx((254, 0, 0), abs=3)
    assert unseen["image"] == [], "the official PDFs of the test split are incomplete"
    assert "tabfact/test: 1 documents have no PDF" in capsys.readouterr().err


def test_elsewhere_a_missing_page_is_a_mistake(downloads, examples):
    # The two archives of DUE, as they unpack.
    inside = "tabfact/aws_neurips_time/TabFact/dev/document.jsonl"
    good, two = document("a", ("x", value("1"))), document("a", ("x", value("1"), value("0")))
    downloads.write(inside, lines(good, document("b", ("y", value("0")))))
    page(downloads, "tabfact/TabFact/a.pdf")
    with pytest.raises(UserError, match="line 2, 'annotations' 0: the image 'b' is not in"):
        examples("tabfact", "validation")
    downloads.write(inside, lines(two, good))
    with pytest.raises(UserError, match=r"must have the one value '0' or '1', but has \['1', '0'"):
        examples("tabfact", "validation")
    assert [r["id"] for r in examples("tabfact", "validation", "skip")] == ["a/0"]


def test_wikitablequestions_has_lists(downloads, examples):
    metadata = {"metadata": {"question_id": "nt-0"}}
    asked = document(
        "csv_204-csv_590",
        ("what year?", value("2004")),
        ("which teams?", value("Chile"), value("a|b")),
        ("who?", value("A. Smith", "A. Smith", "Smith"), value("Lee")),
    )
    asked["annotations"][0] |= metadata
    downloads.write("wikitablequestions/train/document.jsonl", lines(asked))
    page(downloads, "wikitablequestions/pdfs/csv_204-csv_590.pdf")
    found = examples("wikitablequestions", "train")
    assert [record["id"] for record in found] == [f"csv_204-csv_590/{i}" for i in range(3)]
    assert found[0]["question"] == "what year?" and found[0]["references"] == ["2004"]
    assert found[1]["references"] == ["Chile|a\\pb"], "a bar of the value's own is escaped"
    assert found[2]["references"] == ["A. Smith|Lee", "Smith|Lee"]


def test_deepform_asks_for_every_field(downloads, examples):
    full = document(
        "3515690b.pdf",
        ("gross_amount", value("63705.00", "63705.00", "$63,705.00")),
        ("flight_from", value("02/01/20"), value("02/03/20")),
    )
    downloads.write("deepform/dev/document.jsonl", lines(full, document("empty")))
    for name in ("3515690b", "empty"):
        page(downloads, f"deepform/pdfs/{name}.pdf")
    found = {record["id"]: record for record in examples("deepform", "validation")}
    assert len(found) == 10
    amount = found["3515690b/gross_amount"]
    assert amount["question"] == "What is the value for the gross_amount?"
    assert amount["references"] == ["63705.00", "$63,705.00"]
    assert amount["groups"] == "gross_amount" and amount["image"]
    assert found["3515690b/flight_from"]["references"] == ["02/01/20|02/03/20"]
    assert found["3515690b/advertiser"]["references"] == ["None"]
    assert {
        found[f"empty/{field}"]["references"][0]
        for field in ("advertiser", "contract_num", "flight_from", "flight_to", "gross_amount")
    } == {"None"}


def test_deepform_refuses_what_it_would_misread(downloads, examples):
    page(downloads, "deepform/pdfs/a.pdf")
    path = "deepform/test/document.jsonl"
    downloads.write(path, lines(document("a")))
    with pytest.raises(UserError, match="has no annotation at all, so that every field would"):
        examples("deepform", "test")
    downloads.write(path, lines(document("a", ("flight_two", value("x")))))
    with pytest.raises(UserError, match="'annotations' 0: the key 'flight_two' is none of advert"):
        examples("deepform", "test")
    downloads.write(path, lines(document("a", ("advertiser", value("x|y")))))
    with pytest.raises(UserError, match=r"a value of 'advertiser' holds '|', which separates"):
        examples("deepform", "test")


def test_references_keep_the_order_of_values():
    assert due.variants([["a", "A"], ["b"], ["c", "C", "c."]]) == ("a|b|c", "A|b|C", "a|b|c.")
    assert due.variants([]) == ()


def test_pages_are_no_larger_than_is_of_use(downloads):
    page(downloads, "poster.pdf", size=(72, 7200))
    image = Image.open(io.BytesIO(pdf.first_page(downloads.folder / "poster.pdf")))
    assert image.height == pdf.LONGEST and image.width == pytest.approx(pdf.LONGEST / 100, abs=1)


def test_a_pdf_that_cannot_be_read_is_told(downloads, monkeypatch):
    path = downloads.write("a.pdf", b"%PDF-1.4 nothing")
    with pytest.raises(UserError, match=r"a.pdf is not a PDF with a page .*download it again"):
        pdf.first_page(path)
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(UserError, match=r"needs pypdfium2: pip install 'omni_smola\[pdf\]'"):
        pdf.first_page(path)
