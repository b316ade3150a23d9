"""The table of tasks: which records, asked how, scored how, counted to which family."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One line of the table.

    Attributes:
      name: of the task.
      source: a config of the mini suite, the builder of a public dataset (TASKS and SUITE below),
        or the folder of a JSONL source.
      kind: a key of `preprocessors.KINDS`, which says what is asked and wanted.
      metric: a key of `omni_smola.metrics.METRICS`.
      group: the family that the task is counted to in reports.
      splits: name of a split in configs -> the dataset's own, where that differs: the split that
        papers report in place of a hidden test split.
      held_out: whether the task is for evaluation only.
      submission: a key of `evaluation.submissions.FORMATS`, or "".
      mome: the group of MoME's suite that the task is in: general, rec, reg, document, or "".
    """

    name: str
    source: str
    kind: str
    metric: str
    group: str
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    held_out: bool = False
    submission: str = ""
    mome: str = ""

    def split(self, name: str) -> str:
        """The dataset's own name of a split of a config."""
        return self.splits.get(name, name)


TASKS = (
    TaskRow("mini_caption", "caption", "caption", "cider", "captioning"),
    TaskRow("mini_vqa", "vqa", "question", "vqa_accuracy", "vqa"),
    TaskRow("mini_count", "count", "question", "exact_match", "counting"),
    TaskRow("mini_chart", "chart", "question", "relaxed_accuracy", "chart"),
    TaskRow("mini_document", "document", "question", "anls", "document"),
    TaskRow("mini_box", "box", "box", "iou", "grounding"),
    TaskRow("mini_describe", "box", "describe", "cider", "referring"),
    TaskRow("mini_choice", "choice", "choice", "exact_match", "choice"),
    TaskRow("pretrain_caption", "pretrain_caption", "caption", "cider", "pretraining"),
    TaskRow("pretrain_vqa", "pretrain_vqa", "question", "exact_match", "pretraining"),
    TaskRow("pretrain_box", "pretrain_box", "box", "iou", "pretraining"),
    TaskRow("pretrain_document", "pretrain_document", "question", "anls", "pretraining"),
    TaskRow("pretrain_text", "pretrain_text", "text", "exact_match", "pretraining"),
)

# The public datasets of both papers (Omni-SMoLA, arXiv 2312.00968; MoME, arXiv 2407.12709), read by
# data/builders/SOURCE.py. Where the answers of a test split are hidden, "test" is the split that
# papers report; the hidden one is evaluated by its own name, for a submission.
_VALIDATION = {"test": "validation"}
SUITE = (
    TaskRow("vqav2", "vqav2", "question", "vqa_accuracy", "vqa", _VALIDATION, submission="vqa"),
)
