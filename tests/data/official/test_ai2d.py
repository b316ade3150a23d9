"""AI2D in the official layout."""

import io

import pytest
from PIL import Image

from omni_smola.errors import UserError


def question(number, abc=False, **changed):
    record = {
        "abcLabel": abc,
        "answerTexts": ["ears", "nose", "mouth", "face"],
        "correctAnswer": 3,
        "questionId": f"0.png-{number}",
    }
    return record | changed


def annotation(*texts):
    return {
        "imageName": "0.png",
        "arrowHeads": {},
        "blobs": {},
        "text": {
            f"T{i}": {"rectangle": box, "value": "eye", "replacementText": letter}
            for i, (box, letter) in enumerate(texts)
        },
    }


@pytest.fixture
def ai2d(downloads):
    downloads.write(
        "ai2d/questions/0.png.json",
        {
            "imageName": "0.png",
            "questions": {
                "What is A in the diagram?": question(0, abc=True),
                "Which is below the nose?": question(1, correctAnswer=2),
            },
        },
    )
    plain = {"imageName": "17.png", "questions": {"How many?": question(9, questionId="17.png-0")}}
    downloads.write("ai2d/questions/17.png.json", plain)
    # The second box has its corners the other way round.
    texts = annotation(([[10, 10], [40, 30]], "A"), ([[90, 70], [60, 50]], "B"))
    downloads.write("ai2d/annotations/0.png.json", texts)
    downloads.images("ai2d/images/0.png", "ai2d/images/17.png", size=(100, 80))
    downloads.write("ai2d/ai2d_test_ids.csv", "17\n")
    return downloads


def pixels(record):
    return Image.open(io.BytesIO(record["image"][0])).convert("RGB")


def test_questions_on_letters_see_letters(ai2d, examples):
    lettered, plain = examples("ai2d", "train")
    assert (lettered["id"], plain["id"]) == ("0.png-0", "0.png-1")
    assert lettered["question"] == "What is A in the diagram?"
    assert lettered["choices"] == ["ears", "nose", "mouth", "face"]
    assert (lettered["answer_index"], lettered["references"]) == (3, ["face"])
    assert plain["image"] == [(ai2d.folder / "ai2d/images/0.png").read_bytes()]
    image, before = pixels(lettered), pixels(plain)
    for box in ((10, 10, 40, 30), (60, 50, 90, 70)):
        colors = {color for _, color in image.crop(box).getcolors(10_000)}
        assert (255, 255, 255) in colors and min(map(sum, colors)) < 60, "a letter on white"
        assert image.getpixel((box[0], box[1])) == (255, 255, 255)
    assert image.getpixel((50, 40)) == before.getpixel((50, 40))
    assert image.crop((10, 10, 40, 30)).tobytes() != image.crop((60, 50, 90, 70)).tobytes()


def test_the_list_of_ids_is_the_test_split(ai2d, examples):
    (found,) = examples("ai2d", "test")
    assert found["id"] == "17.png-0" and found["question"] == "How many?"


def test_bad_questions_are_told(ai2d, examples):
    bad = {
        "one": question(0, correctAnswer=4),
        "two": question(1, abcLabel="no"),
        "three": question(2, answerTexts=["a", ""]),
        "four": 7,
        "good": question(3),
    }
    ai2d.write("ai2d/questions/0.png.json", {"imageName": "0.png", "questions": bad})
    with pytest.raises(UserError, match=r"question 'one': 'correctAnswer' must be .* from 0 to 3"):
        examples("ai2d", "train")
    assert [r["id"] for r in examples("ai2d", "train", "skip")] == ["0.png-3"]


def test_a_label_without_a_letter_is_told(ai2d, examples):
    ai2d.write("ai2d/annotations/0.png.json", annotation(([[1, 1], [4, 4]], "")))
    with pytest.raises(UserError, match=r"0.png.json, text 'T0': 'replacementText' is empty"):
        examples("ai2d", "train")
