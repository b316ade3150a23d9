"""Official files that change after a dataset was prepared from them."""

import json
import os

from omni_smola.data.builders.official import prepared_from
from omni_smola.data.builders.official.either import Either
from omni_smola.data.builders.official.files import SourceFile

ANNOTATIONS = SourceFile("set/answers.json", "a page")
PHOTOS = SourceFile("set/photos/", "a page")


def test_changed_files_are_said_and_touched_ones_are_not(downloads, tmp_path, capsys):
    file = downloads.write("set/answers.json", ["red"])
    downloads.images("set/photos/1.png")
    files = [ANNOTATIONS, PHOTOS, SourceFile("set/absent.json", "a page")]

    def changed() -> list[str]:
        return prepared_from.tell_changes("set", tmp_path, downloads.folder, files)

    assert changed() == []  # prepared before there were notes
    prepared_from.note(tmp_path, downloads.folder, files)
    assert changed() == []
    os.utime(file, (1, 1))  # a copy of the same file
    assert changed() == [] and not capsys.readouterr().err
    downloads.write("set/answers.json", ["sky"])  # of the same size
    assert changed() == ["set/answers.json"]
    assert "THE FILES OF set HAVE CHANGED since it was prepared" in capsys.readouterr().err
    downloads.images("set/photos/2.png")
    assert changed() == ["set/answers.json", "set/photos/"]
    file.unlink()  # what is prepared needs no download
    assert changed() == ["set/photos/"]
    (tmp_path / "official_files.json").write_text("{")
    assert changed() == []


def test_a_file_counts_by_the_name_that_it_has(downloads, tmp_path):
    either = Either("set/new.json", "a page", others=("set/old.json",))
    downloads.write("set/old.json", ["red"])
    prepared_from.note(tmp_path, downloads.folder, [either])
    assert prepared_from.tell_changes("set", tmp_path, downloads.folder, [either]) == []
    downloads.write("set/old.json", ["sky"])
    assert prepared_from.tell_changes("set", tmp_path, downloads.folder, [either]) == [
        "set/new.json"
    ]


def test_a_prepared_dataset_says_that_its_files_have_changed(downloads, source, capsys):
    question = {
        "answer": 2,
        "data_source": "imported_genome",
        "image": "VG_100K/7.jpg",
        "image_id": 7,
        "question": "How many?",
        "question_id": 1,
        "issimple": True,
    }
    downloads.write("tallyqa/test.json", [question])
    downloads.images("visual_genome/VG_100K/7.jpg")
    assert source("tallyqa").num_input_examples("test") == 1
    assert source("tallyqa").num_input_examples("test") == 1
    assert "HAVE CHANGED" not in capsys.readouterr().err
    downloads.write("tallyqa/test.json", json.dumps([question | {"answer": 3}]))
    assert source("tallyqa").num_input_examples("test") == 1
    said = capsys.readouterr().err
    assert "THE FILES OF tallyqa HAVE CHANGED" in said and "tallyqa/test.json" in said
