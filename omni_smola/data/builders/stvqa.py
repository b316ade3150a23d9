"""ST-VQA (Biten et al., arXiv 1905.13648): questions on scene text, open-ended (task 3)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.builder import Example, OfficialBuilder
from omni_smola.data.builders.official.files import Fields, SourceFile, read_list
from omni_smola.data.builders.official.images import Folders

_PAGE = "https://rrc.cvc.uab.es/?ch=11&com=downloads"
_TRAIN = SourceFile("stvqa/train_task_3.json", _PAGE)
_TEST = SourceFile("stvqa/test_task_3.json", _PAGE)
_FOLDERS = {"train": "train_images", "validation": "train_images", "test": "test_task3_images"}


class Stvqa(OfficialBuilder):
    """ST-VQA: train_task_3.json and test_task_3.json in stvqa/, with train_images/ and
    test_task3_images/ beside them, which hold the folders coco-text, icdar and so on.

    Splits train, validation and test, whose answers are hidden; scored by ANLS. There is no
    official validation split: ours is a tenth of the training images, those whose file_path has a
    SHA-256 that begins with a number below 0.1; all questions on an image stay together.
    """

    SPLITS = {"train": (_TRAIN,), "validation": (_TRAIN,), "test": (_TEST,)}
    HIDDEN = ("test",)
    IMAGES = Folders(
        "stvqa",
        tuple(SourceFile(f"stvqa/{name}/", _PAGE) for name in dict.fromkeys(_FOLDERS.values())),
        pattern=r"(?P<key>.+\.(?i:jpe?g|png|gif|bmp))",
        # A path may be in both folders, for two images.
        by_folder=True,
    )

    def records(self, folder: Path, split: str) -> Iterator[Fields]:
        return read_list(folder / self.SPLITS[split][0].path, "data")

    def example(self, record: Fields, split: str) -> Example | None:
        path = record.text("file_path")
        if split != "test" and in_validation(path) != (split == "validation"):
            # The other one's image: the two are made of one file.
            return None
        return Example(
            id=record.label("question_id"),
            image=f"{_FOLDERS[split]}/{path}",
            question=record.text("question"),
            references=() if split in self.HIDDEN else tuple(record.texts("answers")),
        )


def in_validation(path: str) -> bool:
    """Whether a training image is in our validation split, by its file_path."""
    number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big")
    return number < 2**64 // 10
