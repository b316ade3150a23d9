"""InfographicVQA (Mathew et al., arXiv 2104.12756): questions on infographics, task 3 of DocVQA."""

from omni_smola.data.builders.official.files import SourceFile
from omni_smola.data.builders.official.images import Folders
from omni_smola.data.builders.official.rrc import PAGE, RrcBuilder, either


def _split(name: str) -> tuple:
    files = [f"infographic{s}VQA_{name}_v1.0{qt}.json" for qt in ("_withQT", "") for s in ("s", "")]
    # The training file has been offered as infographicsVQA and as infographicVQA.
    folders = ("", "infographicsvqa_qas/")
    return either("infographicvqa", *(f"{at}{file}" for at in folders for file in files))


class Infographicvqa(RrcBuilder):
    """InfographicVQA: infographicsVQA_train_v1.0.json, infographicsVQA_val_v1.0_withQT.json and
    infographicsVQA_test_v1.0.json in infographicvqa/ or infographicvqa/infographicsvqa_qas/; the
    images in infographicvqa/infographicsvqa_images/ or infographicvqa/images/.

    Splits train, validation and test, whose answers are hidden; scored by ANLS, in all and by
    answer_type, evidence and operation/reasoning where the file has them.
    """

    SPLITS = {"train": _split("train"), "validation": _split("val"), "test": _split("test")}
    IMAGE = "image_local_name"
    TYPES = ("answer_type", "evidence", "operation/reasoning")
    IMAGES = Folders(
        "infographicvqa",
        (
            SourceFile("infographicvqa/infographicsvqa_images/", PAGE),
            SourceFile("infographicvqa/images/", PAGE),
        ),
        pattern=r"(?:.+/)?(?P<key>[^/]+)\.(?i:png|jpe?g)",
    )
