"""The image collections that several datasets share."""

from omni_smola.data.builders.official.files import SourceFile
from omni_smola.data.builders.official.images import Folders

_COCO_PAGE = "https://cocodataset.org/#download"

# One photo has one id in every year's release, so that sets which name COCO 2014, 2015 and 2017
# share it. Keys are ids without leading zeros.
COCO = Folders(
    "coco",
    tuple(
        SourceFile(f"coco/{folder}/", _COCO_PAGE)
        for folder in ("train2014", "val2014", "test2015", "train2017", "val2017", "test2017")
    ),
    pattern=r"(?:COCO_\w+_)?0*(?P<key>[1-9]\d*)\.jpg",
)

# The photos of TextVQA and TextCaps; those of the validation split lie in train_images.
TEXTVQA = Folders(
    "textvqa",
    (
        SourceFile("textvqa/train_images/", "https://textvqa.org/dataset/"),
        SourceFile("textvqa/test_images/", "https://textvqa.org/dataset/"),
    ),
)

VISUAL_GENOME = Folders(
    "visual_genome",
    (
        SourceFile(
            "visual_genome/VG_100K/", "https://homes.cs.washington.edu/~ranjay/visualgenome"
        ),
        SourceFile(
            "visual_genome/VG_100K_2/", "https://homes.cs.washington.edu/~ranjay/visualgenome"
        ),
    ),
)

VIZWIZ = Folders(
    "vizwiz",
    tuple(
        SourceFile(f"vizwiz/{split}/", "https://vizwiz.org/tasks-and-datasets/")
        for split in ("train", "val", "test")
    ),
)
