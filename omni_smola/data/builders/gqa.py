"""GQA (Hudson and Manning, arXiv 1902.09506): compositional questions on photos."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_dict
from omni_smola.data.builders.official.images import Folders
from omni_smola.errors import UserError

_PAGE = "https://cs.stanford.edu/people/dorarad/gqa/download.html"


def _split(path: str) -> tuple[SourceFile, ...]:
    return (SourceFile(f"gqa/{path}", f"questions1.2.zip at {_PAGE}"),)


class Gqa(OfficialBuilder):
    """GQA: train_balanced_questions.json and its like in gqa/, images/{imageId}.jpg beside them.

    Splits train, validation and testdev are the balanced ones, of which papers report testdev;
    train_all is a folder of files; submission has the questions whose answers the server wants,
    with none given. Scored by the answer, in all, and for binary and open questions.
    """

    SPLITS = {
        "train": _split("train_balanced_questions.json"),
        "validation": _split("val_balanced_questions.json"),
        "testdev": _split("testdev_balanced_questions.json"),
        "train_all": _split("train_all_questions/"),
        "submission": _split("submission_all_questions.json"),
    }
    HIDDEN = ("submission",)
    IMAGES = Folders("gqa", (SourceFile("gqa/images/", f"images.zip at {_PAGE}"),))

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        path = folder / self.SPLITS[split][0].path
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} holds no .json file: unpack questions1.2.zip again.")
        for file in files:
            for key, record in read_dict(file):
                if isinstance(record.values, dict):
                    record = Fields({**record.values, "questionId": key}, record.where)
                yield record

    def example(self, record: Fields, split: str) -> Example:
        references, groups = (), ""
        if split not in self.HIDDEN:
            references = (record.text("answer"),)
            kind = Fields(record.get("types"), f"{record.where}, 'types'").text("structural")
            # As in the official eval.py: the kind of question decides, not the answer.
            groups = "open" if kind == "query" else "binary"
        return Example(
            id=record.text("questionId"),
            image=record.text("imageId"),
            question=record.text("question"),
            references=references,
            groups=groups,
        )
