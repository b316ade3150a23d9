"""DocVQA (Mathew et al., arXiv 2007.00398): questions on scanned pages, task 1 of the challenge."""

from omni_smola.data.builders.official.files import SourceFile
from omni_smola.data.builders.official.images import Folders
from omni_smola.data.builders.official.rrc import PAGE, RrcBuilder, either


def _split(name: str) -> tuple:
    files = f"{name}_v1.0_withQT.json", f"{name}_v1.0.json"
    return either("docvqa", *(f"{at}{file}" for at in ("", "spdocvqa_qas/") for file in files))


class Docvqa(RrcBuilder):
    """DocVQA, single pages: train_v1.0_withQT.json, val_v1.0_withQT.json and test_v1.0.json in
    docvqa/ or docvqa/spdocvqa_qas/, or the older files without "_withQT"; the pages in
    docvqa/documents/ or docvqa/spdocvqa_images/.

    Splits train, validation and test, whose answers are hidden; scored by ANLS, in all and by
    question type where the file has them.
    """

    SPLITS = {"train": _split("train"), "validation": _split("val"), "test": _split("test")}
    IMAGE = "image"
    TYPES = ("question_types",)
    IMAGES = Folders(
        "docvqa",
        (SourceFile("docvqa/documents/", PAGE), SourceFile("docvqa/spdocvqa_images/", PAGE)),
        pattern=r"(?:.+/)?(?P<key>[^/]+)\.(?i:png|jpe?g)",
    )
