"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of the refer data."""

import pickle

import numpy as np
import pytest

from omni_smola.data.builders.official.files import BadRecord, Fields
from omni_smola.data.builders.official.refer import fraction_box
from omni_smola.errors import UserError


def ref(number, split, *sentences, image_id=9, **changed):
    record = {
        "ref_id": number,
        "ann_id": 100 + number,
        "image_id": image_id,
        "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
        "category_id": 1,
        "split": split,
        "sent_ids": [10 * number + i for i in range(len(sentences))],
        "sentences": [
            {"sent_id": 10 * number + i, "sent": s, "raw": s.upper(), "tokens": s.split()}
            for i, s in enumerate(sentences)
        ],
    }
    return record | changed


def instances(boxes, sizes=((9, 200, 100), (25, 640, 480))):
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "width": w, "height": h}
            for i, w, h in sizes
        ],
        "annotations": [
            {
                "id": 100 + n,
                "image_id": i,
                "bbox": box,
                "segmentation": [[0, 0, 1, 1]],
                "iscrowd": 0,
            }
            for n, (i, box) in boxes.items()
        ],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }


BOXES = instances({1: (9, [50.0, 10.0, 100.0, 40.0]), 2: (25, [0.0, 0.0, 320.0, 480.0])})
REFS = [
    ref(1, "train", "left man", "man in red"),
    ref(2, "val", "the dog", image_id=25),
]


@pytest.fixture
def refer(downloads):
    def write(folder, refs, boxes=BOXES, name="refs(unc).p", protocol=0):
        downloads.write(f"{folder}/{name}", pickle.dumps(refs, protocol))
        downloads.write(f"{folder}/instances.json", boxes)
        downloads.images(*(f"coco/train2014/COCO_train2014_{i:012d}.jpg" for i in (9, 25)))
        return downloads

    return write


def test_comprehension_asks_for_the_box_of_each_sentence(refer, examples):
    refer("refcoco", REFS)
    found = examples("refcoco", "train")
    assert [record["id"] for record in found] == ["10", "11"]
    assert [record["question"] for record in found] == ["left man", "man in red"]
    assert found[0]["box"] == pytest.approx([0.25, 0.1, 0.75, 0.5])
    (dog,) = examples("refcoco", "validation")
    assert dog["box"] == pytest.approx([0.0, 0.0, 0.5, 1.0]) and dog["image"] != found[0]["image"]


def test_generation_has_all_sentences_of_an_object(refer, examples, source):
    refer("refcoco+", REFS, protocol=2)  # the folder of the official archive
    (man,) = examples("refcoco_plus/generation", "train")
    assert man["id"] == "1" and man["question"] == ""
    assert man["references"] == ["left man", "man in red"]
    assert man["box"] == pytest.approx([0.25, 0.1, 0.75, 0.5])
    # The two files hold all splits: those that they say nothing of are not there.
    assert set(source("refcoco_plus/generation").splits) == {"train", "validation"}


def test_refcocog_is_split_by_umd(refer, examples):
    refer("refcocog", [ref(1, "test", "a man who runs")], name="refs(umd).p")
    (found,) = examples("refcocog", "test")
    assert found["id"] == "10" and found["question"] == "a man who runs"


BAD = {
    "no annotation": (ref(7, "train", "a"), "ann_id 107 is not in instances.json"),
    "no photo": (ref(1, "train", "a", image_id=8), "image_id 8 is not in instances.json"),
    "other photo": (ref(1, "train", "a", image_id=25), "is one of another photo"),
    "split": (ref(1, "testC", "a"), "the split 'testC' is none of train, validation, testA"),
    "no split": (ref(1, None, "a"), "'split' must be a text, but is None"),
    "sentences": (ref(1, "train", sentences="a"), "'sentences' must be a list"),
    "empty": (ref(1, "train", ""), "'sent' is empty"),
    "no object": (["train"], "is no object of fields"),
}


def test_bad_refs_are_left_out(refer, examples, capsys):
    refer("refcoco", [*(record for record, _ in BAD.values()), *REFS])
    assert [r["id"] for r in examples("refcoco/generation", "train", "skip")] == ["1"]
    assert f"left out {len(BAD)} bad records, kept 1" in capsys.readouterr().err


@pytest.mark.parametrize(("record", "sentence"), BAD.values(), ids=BAD)
def test_bad_refs_are_told(refer, examples, record, sentence):
    refer("refcoco", [REFS[0], record])
    with pytest.raises(UserError, match=rf"refs\(unc\)\.p, ref 1.*: .*{sentence}"):
        examples("refcoco/generation", "train")


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([-0.4, 0, 100, 50], (0, 0, 0.498, 0.5)),
        ([100, 50, 100.7, 50.2], (0.5, 0.5, 1, 1)),
        ([0, 0, 200, 100], (0, 0, 1, 1)),
        ([200, 0, 10, 10], None),
        ([5, 5, 0, 10], None),
        ([5, -20, 10, 10], None),
    ],
)
def test_boxes_are_cut_off_at_the_edges(bbox, box):
    photo = {"width": 200, "height": 100}
    record = {"image_id": 9, "annotation": {"image_id": 9, "bbox": bbox}, "photo": photo}
    if box is None:
        with pytest.raises(BadRecord, match=r"nothing of the box .* is in the photo of 200 x 100"):
            fraction_box(Fields(record, "ref 0"))
    else:
        assert fraction_box(Fields(record, "ref 0")) == pytest.approx(box)


def test_missing_and_other_files_are_told(refer, downloads, examples):
    refer("refcoco", REFS)
    (downloads.folder / "refcoco/instances.json").unlink()
    with pytest.raises(
        UserError, match=r"lacks 1 of its 2 files .*\n  refcoco/instances.json  from"
    ):
        examples("refcoco", "train")
    downloads.write("refcoco/instances.json", {"images": []})
    with pytest.raises(UserError, match="is not an object with a list 'annotations'"):
        examples("refcoco", "train")
    refer("refcoco", {"refs": REFS})
    with pytest.raises(UserError, match="is not a list of refs: it is another file"):
        examples("refcoco", "train")


def test_real_expressions(real, examples, source):
    real("refcoco", "refcoco/refcoco")
    real("coco/train2014", "refcoco/images/mscoco/images/train2014")
    with pytest.raises(UserError, match="the image '221187' is not in the collection coco"):
        examples("refcoco", "testA")
    found = examples("refcoco", "testA", "skip")
    assert set(source("refcoco").splits) == {"testA"}
    assert 10 < len(found) < 50
    first = found[0]
    assert first["question"] == "person in red"
    # [0, 95.32, 113.34, 324.27] in a photo of 428 x 640 pixels.
    assert first["box"] == pytest.approx([0, 95.32 / 640, 113.34 / 428, 419.59 / 640], abs=1e-5)


class TestBothTestSplits:
    """The task's test split is testA and testB at once, scored apart by group."""

    @pytest.fixture
    def batches(self, refer, downloads, tmp_path):
        from omni_smola.data import pipeline, tasks

        people = [ref(n, "testA", f"man {n}") for n in (1, 3, 4, 5)]
        things = [ref(2, "testB", "the dog", "a brown dog", image_id=25)]
        boxes = {n: (9, [50.0, 10.0, 100.0, 40.0]) for n in (1, 3, 4, 5)}
        boxes[2] = (25, [0.0, 0.0, 320.0, 480.0])
        refer("refcoco", [*people, *things], instances(boxes))
        tasks.register(data_dir=str(tmp_path / "tfds"), manual_dir=str(downloads.folder))

        def read(name, limit=None):
            sizes = {"batch_size": 3, "prompt_length": 16, "target_length": 16, "resolution": 8}
            pairs = pipeline.eval_batches(name, "test", limit=limit, **sizes)
            return [example for _, examples in pairs for example in examples]

        return read

    def test_all_examples_know_their_split(self, batches):
        found = batches("refcoco_rec")
        assert [(e["id"], e["groups"]) for e in found] == [
            ("10", "testA"),
            ("30", "testA"),
            ("40", "testA"),
            ("50", "testA"),
            ("20", "testB"),
            ("21", "testB"),
        ]
        generated = batches("refcoco_reg")
        assert [e["groups"] for e in generated] == ["testA"] * 4 + ["testB"]

    @pytest.mark.parametrize(
        ("limit", "ids"),
        [
            (1, ["10"]),
            (2, ["10", "20"]),
            (3, ["10", "30", "20"]),
            (5, ["10", "30", "40", "20", "21"]),
            (9, ["10", "30", "40", "50", "20", "21"]),
        ],
    )
    def test_a_limit_takes_from_both(self, batches, limit, ids):
        assert [example["id"] for example in batches("refcoco_rec", limit)] == ids

    def test_both_are_scored_in_one_evaluation(self, batches):
        from omni_smola.data import tasks
        from omni_smola.evaluation.evaluator import evaluate_task

        examples = batches("refcoco_rec")
        right = {"testA": "[0.250,0.100,0.750,0.500]", "testB": "[0.000,0.000,0.100,0.100]"}
        texts = iter([right[example["groups"]] for example in examples])
        batch = {"example_mask": np.ones(len(examples), bool)}
        result = evaluate_task(
            tasks.get("refcoco_rec").row,
            [(batch, examples)],
            lambda batch: np.full((len(examples), 2), 5),
            lambda ids: next(texts),
        )
        assert result.scores["accuracy@0.5/testA"] == 100
        assert result.scores["accuracy@0.5/testB"] == 0
        assert result.scores["accuracy@0.5"] == pytest.approx(100 * 4 / 6)

    def test_a_split_of_the_two_that_is_not_there_is_named(self, refer, source):
        refer("refcoco", [ref(1, "testA", "man")])
        with pytest.raises(UserError, match="has no split 'testB'; it has 'testA'"):
            source("refcoco").num_input_examples("testA+testB")
