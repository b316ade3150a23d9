"""SciCap: lists of files, a file a figure."""

import pytest

LIST = "scicap/List-of-Files-for-Each-Experiments/First-Sentence/No-Subfig/test/file_idx.json"
CAPTIONS = "scicap/SciCap-Caption-All/test"
FIGURES = ("1001.0025v1-Figure2-1", "1001.1234v2-Figure10-1")


def figure(name, caption):
    """A figure's file with every key of the official ones."""
    texts = {"caption": caption, "sentence": [caption], "token": caption.split()}
    return {
        "contains-subfigure": False,
        "paper-ID": name.split("-")[0],
        "figure-ID": f"{name}.png",
        "figure-type": "Graph Plot",
        "0-originally-extracted": f"Figure 2: {caption.capitalize()}",
        "1-lowercase-and-token-and-remove-figure-index": texts,
        "2-normalized": {
            "2-1-basic-num": texts | {"caption": "NUM-TK"},
            "2-2-advanced-euqation-bracket": texts | {"caption": "BRACKET-TK"},
        },
        "Img-text": ["(b)", "fs"],
    }


CAPTION = "impact of the attack , as a function of duration . ( a ) location error ."


@pytest.fixture
def scicap(downloads):
    downloads.write(LIST, [f"{name}.png" for name in FIGURES])
    downloads.write(f"{CAPTIONS}/{FIGURES[0]}.json", figure(FIGURES[0], CAPTION))
    downloads.write(f"{CAPTIONS}/{FIGURES[1]}.json", figure(FIGURES[1], "error rate ."))
    # A figure of the other experiments is not read.
    downloads.write(f"{CAPTIONS}/1002.0001v1-Figure1-1.json", "{")
    downloads.images(*(f"scicap/SciCap-No-Subfig-Img/test/{name}.png" for name in FIGURES))
    return downloads


def test_the_listed_figures_and_their_captions(scicap, examples):
    found = examples("scicap", "test")
    assert [record["id"] for record in found] == list(FIGURES)
    assert [record["references"] for record in found] == [[CAPTION], ["error rate ."]]
    image = scicap.folder / f"scicap/SciCap-No-Subfig-Img/test/{FIGURES[0]}.png"
    assert found[0]["image"] == [image.read_bytes()]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, f"{FIGURES[0]}.json cannot be read (No such file"),
        ("{", f"{FIGURES[0]}.json is not complete JSON"),
        (
            figure(FIGURES[0], CAPTION) | {"1-lowercase-and-token-and-remove-figure-index": {}},
            "'1-lowercase-and-token-and-remove-figure-index': the field 'caption' is missing",
        ),
    ],
)
def test_one_bad_figure_is_one_bad_record(scicap, read, content, sentence):
    path = f"{CAPTIONS}/{FIGURES[0]}.json"
    (scicap.folder / path).unlink()
    if content is not None:
        scicap.write(path, content)
    (good,), (told,) = read("scicap", "test")
    assert f"{path}" in told and sentence in told and good.id == FIGURES[1]
