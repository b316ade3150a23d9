"""TallyQA (Acharya et al., arXiv 1810.12440): how many?"""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.image_sets import COCO, VISUAL_GENOME
from omni_smola.data.builders.official.images import Folders

_PAGE = "tallyqa.zip at https://github.com/manoja328/TallyQA_dataset"
_COCO_FOLDERS = ("coco/train2014/", "coco/val2014/")


class Tallyqa(OfficialBuilder):
    """TallyQA: train.json and test.json in tallyqa/; photos of Visual Genome and of COCO 2014.

    Splits train and test; scored by the number, in all, and for simple and complex questions,
    which only the test split tells apart. The photos of test are all of Visual Genome. Question
    ids are made unique with the image's, as "92410408/30095774".
    """

    SPLITS = {
        "train": (SourceFile("tallyqa/train.json", _PAGE),),
        "test": (SourceFile("tallyqa/test.json", _PAGE),),
    }
    IMAGES = Folders(
        "tallyqa",
        VISUAL_GENOME.files + tuple(file for file in COCO.files if file.path in _COCO_FOLDERS),
        pattern=r"(?P<key>.+\.jpg)",
        # The field image says so: "VG_100K_2/2410408.jpg".
        by_folder=True,
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return read_list(folder / self.SPLITS[split][0].path)

    def example(self, record: Fields, split: str) -> Example:
        groups = ""
        if split == "test":
            simple = record.get("issimple")
            if not isinstance(simple, bool):
                raise record.bad(f"'issimple' must be true or false, but is {simple!r}.")
            groups = "simple" if simple else "complex"
        return Example(
            id=f"{record.label('image_id')}/{record.label('question_id')}",
            image=record.text("image"),
            question=record.text("question"),
            references=(str(record.integer("answer")),),
            groups=groups,
        )
