"""AI2D (Kembhavi et al., arXiv 1603.07396): questions on diagrams of school books, with choices."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.answers import all_choices
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.drawing import cover, encoded, opened
from omni_smola.data.builders.official.files import (
    BadRecord,
    Fields,
    SourceFile,
    read_json,
    read_text,
)
from omni_smola.data.builders.official.images import Made, Read
from omni_smola.errors import UserError

_ARCHIVE = "ai2d-all.zip at https://prior.allenai.org/projects/diagram-understanding"
_QUESTIONS = SourceFile("ai2d/questions/", _ARCHIVE)
_ANNOTATIONS = SourceFile("ai2d/annotations/", _ARCHIVE)
_IMAGES = SourceFile("ai2d/images/", _ARCHIVE)
_TEST_IDS = SourceFile(
    "ai2d/ai2d_test_ids.csv",
    "https://s3-us-east-2.amazonaws.com/prior-datasets/ai2d_test_ids.csv",
)
_LETTERED = "/letters"


def _questions(folder: Path) -> Iterator[Fields]:
    """The questions of all diagrams; the text of a question is its key in the file."""
    for path in sorted((folder / _QUESTIONS.path).glob("*.json")):
        diagram = Fields(read_json(path), str(path))
        image, questions = diagram.text("imageName"), diagram.get("questions")
        if not isinstance(questions, dict):
            raise diagram.bad("'questions' must be an object of questions by their text.")
        for text, question in questions.items():
            if isinstance(question, dict):
                question = {**question, "text": text, "image": Path(image).stem}
            yield Fields(question, f"{path}, question {text!r}")


def _letters(record: Fields) -> bool:
    """Whether a question speaks of the letters "A", "B" in place of the diagram's own labels."""
    value = record.get("abcLabel")
    if not isinstance(value, bool):
        raise record.bad(f"'abcLabel' must be true or false, but is {value!r}.")
    return value


def _diagrams(folder: Path) -> dict[str, Read]:
    """Key -> image: every diagram, and once more with letters where a question needs them."""
    found = {path.stem: path.read_bytes for path in (folder / _IMAGES.path).glob("*.png")}
    if not found:
        raise UserError(f"{folder / _IMAGES.path} holds no *.png of AI2D's diagrams.")
    lettered = set()
    for record in _questions(folder):
        with contextlib.suppress(BadRecord):  # told when the questions are read
            if _letters(record):
                lettered.add(record.get("image"))
    for name in lettered & set(found):
        found[name + _LETTERED] = functools.partial(_with_letters, folder, name)
    return found


def _with_letters(folder: Path, name: str) -> bytes:
    path = folder / _ANNOTATIONS.path / f"{name}.png.json"
    labels = Fields(read_json(path), str(path)).get("text")
    if not isinstance(labels, dict):
        raise UserError(f"{path}: 'text' must be an object of labels by their names.")
    image = opened(folder / _IMAGES.path / f"{name}.png")
    for key, label in labels.items():
        label = Fields(label, f"{path}, text {key!r}")
        corners = label.items("rectangle")
        if len(corners) != 2:
            raise label.bad(f"'rectangle' must be two corners, but is {corners}.")
        (x1, y1), (x2, y2) = (
            Fields({"rectangle": corner}, label.where).numbers("rectangle", 2) for corner in corners
        )
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        cover(image, tuple(map(round, box)), label.text("replacementText"))
    return encoded(image)


class Ai2d(OfficialBuilder):
    """AI2D: questions/, annotations/ and images/ of ai2d-all.zip in ai2d/, and ai2d_test_ids.csv,
    a line per diagram of the test split.

    Splits train and test; scored by the right choice. Where a question speaks of letters
    (`abcLabel`), the diagram's labels are covered in white and the letters of `replacementText`
    written there; all other questions see the diagram as it is.
    """

    SPLITS = dict.fromkeys(("train", "test"), (_QUESTIONS, _ANNOTATIONS, _TEST_IDS))
    IMAGES = Made("ai2d", (_QUESTIONS, _ANNOTATIONS, _IMAGES), _diagrams)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        lines = read_text(folder / _TEST_IDS.path).split()
        test = {line.removesuffix(".png") for line in lines}
        for record in _questions(folder):
            # One that is no object is told with the training split.
            of_test = "image" in record and record.values["image"] in test
            if of_test == (split == "test"):
                yield record

    def example(self, record: Fields, split: str) -> Example:
        choices = all_choices(record, "answerTexts")
        index = record.integer("correctAnswer", most=len(choices) - 1)
        name = record.text("image")
        return Example(
            id=record.text("questionId"),
            image=name + _LETTERED if _letters(record) else name,
            question=record.text("text"),
            choices=choices,
            references=(choices[index],),
            answer_index=index,
        )
