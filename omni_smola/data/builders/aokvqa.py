"""A-OKVQA (Schwenk et al., arXiv 2206.01718): questions that need knowledge and common sense."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from omni_smola.data.builders.official.answers import all_choices, ten_answers
from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.image_sets import COCO

_PAGE = "https://allenai.org/project/a-okvqa/home"
_CHOICES = 4


def _split(name: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"aokvqa/aokvqa_v1p0_{name}.json", _PAGE),)


class Aokvqa(OfficialBuilder):
    """A-OKVQA: aokvqa_v1p0_train.json, _val.json and _test.json in aokvqa/; photos of COCO 2017.

    Two configs, because the two settings do not ask the same questions: `multiple_choice` has all,
    scored by the right one of four choices; `direct_answer` leaves those marked as difficult for
    it out of validation, scored by the ten answers. The answers of test are hidden.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="multiple_choice", description="One of four choices."),
        tfds.core.BuilderConfig(name="direct_answer", description="An answer of one's own words."),
    ]
    SPLITS = {"train": _split("train"), "validation": _split("val"), "test": _split("test")}
    HIDDEN = ("test",)
    IMAGES = COCO

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return read_list(folder / self.SPLITS[split][0].path)

    def example(self, record: Fields, split: str) -> Example | None:
        hidden = split in self.HIDDEN
        answer = {}
        if self.builder_config.name == "multiple_choice":
            answer = _choice(record, hidden)
        elif _difficult(record) and split == "validation":
            # The official script scores direct answers without them. They do for training, and a
            # submission has all of test: there the server leaves them out.
            return None
        elif not hidden:
            answer = {"references": ten_answers(record, "direct_answers")}
        return Example(
            id=record.text("question_id"),
            image=record.label("image_id"),
            question=record.text("question"),
            **answer,
        )


def _choice(record: Fields, hidden: bool) -> dict:
    choices = all_choices(record, at_least=_CHOICES)
    if len(choices) != _CHOICES:
        raise record.bad(f"'choices' must be {_CHOICES}, but there are {len(choices)}.")
    if hidden:
        return {"choices": choices}
    index = record.integer("correct_choice_idx", most=_CHOICES - 1)
    return {"choices": choices, "answer_index": index, "references": (choices[index],)}


def _difficult(record: Fields) -> bool:
    value = record.get("difficult_direct_answer")
    if not isinstance(value, bool):
        raise record.bad(f"'difficult_direct_answer' must be true or false, but is {value!r}.")
    return value
