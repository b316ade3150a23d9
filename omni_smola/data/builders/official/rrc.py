"""The layout of the Robust Reading Competition's document questions: DocVQA and InfographicVQA.

One JSON file a split, {dataset_name, dataset_version, dataset_split, data: [...]}, whose records
name their image and list the accepted answers. Question types stand in the files "_withQT".
"""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.either import Either
from omni_smola.data.builders.official.files import Fields, read_list

PAGE = "https://rrc.cvc.uab.es/?ch=17&com=downloads"


def either(folder: str, *names: str) -> tuple[Either]:
    """The one file of a split, by any of its names and in any of the folders of its archives."""
    paths = [f"{folder}/{name}" for name in names]
    return (Either(paths[0], PAGE, tuple(paths[1:])),)


class RrcBuilder(OfficialBuilder, skip_registration=True):
    """Document questions in the layout of the RRC.

    Attributes:
      IMAGE: the field that names the image; its name without folder and suffix is the key.
      TYPES: the fields that list the types of a question, where a file has them.
    """

    IMAGE = ""
    TYPES: tuple[str, ...] = ()
    HIDDEN = ("test",)

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return read_list(self.SPLITS[split][0].found(folder), "data")

    def example(self, record: Fields, split: str) -> Example:
        types = [name for field in self.TYPES for name in _types(record, field)]
        hidden = split in self.HIDDEN
        return Example(
            id=record.label("questionId"),
            image=Path(record.text(self.IMAGE)).stem,
            question=record.text("question"),
            # All orders of several spans are answers of their own in InfographicVQA's file.
            references=() if hidden else tuple(record.texts("answers")),
            groups=" ".join(dict.fromkeys(types)),
        )


def _types(record: Fields, field: str) -> list[str]:
    names = record.texts(field, at_least=0) if field in record else []
    return ["_".join(name.split()) for name in names]
