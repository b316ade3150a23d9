"""ScienceQA: the real problems."""

import json

import pytest

from omni_smola.errors import UserError


@pytest.fixture
def scienceqa(real, downloads):
    for name in ("problems.json", "pid_splits.json"):
        real(f"scienceqa/{name}", f"scienceqa/{name}")
    problems = json.loads((downloads.folder / "scienceqa/problems.json").read_text())
    images = [f"{p['split']}/{pid}/image.png" for pid, p in problems.items() if p["image"]]
    downloads.images(*(f"scienceqa/{path}" for path in images))
    return downloads


def test_the_real_problems_that_have_an_image(scienceqa, examples):
    found = {record["id"]: record for record in examples("scienceqa", "test")}
    assert len(found) == 25 and len(examples("scienceqa", "train")) == 25
    colony = found["11"]
    assert colony["question"] == "What is the name of the colony shown?"
    assert colony["choices"] == ["Maryland", "New Hampshire", "Rhode Island", "Vermont"]
    assert colony["answer_index"] == 1 and colony["references"] == ["New Hampshire"]
    assert colony["groups"] == "SOC IMG G1-6"
    photo = scienceqa.folder / "scienceqa/test/11/image.png"
    assert colony["image"] == [photo.read_bytes()]
    parachute = found["5"]
    assert parachute["groups"] == "NAT TXT IMG G7-12"
    assert parachute["question"].startswith("Context: People can use the engineering-design")
    assert parachute["question"].endswith(
        " Question: Which of the following could Gordon's test show?"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": 4}, "'answer' must be a whole number from 0 to 3, but is 4"),
        ({"choices": ["a", "b", " ", "d"]}, "one of the 'choices' is empty"),
        (None, "the field 'image' is missing; there are 'pid'"),
    ],
)
def test_a_bad_problem_is_told(scienceqa, examples, change, sentence):
    path = scienceqa.folder / "scienceqa/problems.json"
    problems = json.loads(path.read_text())
    path.unlink()
    if change is None:
        del problems["11"]
    else:
        problems["11"] |= change
    scienceqa.write("scienceqa/problems.json", problems)
    with pytest.raises(UserError, match=f"problems.json, .*'11'.*: {sentence}"):
        examples("scienceqa", "test")
