"""The table of tasks: which records, asked how, scored how, counted to which family."""

import dataclasses
from collections.abc import Mapping
from typing import Any


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
        papers report in place of a hidden test split, or several joined by "+".
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


def _captions(name: str, **more: Any) -> TaskRow:
    return TaskRow(name, name, "caption", "cider", "captioning", **more)


def _questions(name: str, metric: str, family: str = "vqa", **more: Any) -> TaskRow:
    return TaskRow(name, name, "question", metric, family, **more)


def _referring(name: str, test: str) -> tuple[TaskRow, ...]:
    splits = {"test": test}
    return (
        TaskRow(
            f"{name}_rec",
            f"{name}/comprehension",
            "box",
            "iou",
            "grounding",
            splits,
            submission="refer_boxes",
            mome="rec",
        ),
        TaskRow(
            f"{name}_reg",
            f"{name}/generation",
            "describe",
            "cider",
            "referring",
            splits,
            submission="refer",
            mome="reg",
        ),
    )


SUITE = (
    _captions("coco_captions", submission="caption", mome="general"),
    _captions("flickr30k", mome="general"),
    _captions("nocaps", splits=_VALIDATION, held_out=True, submission="caption", mome="general"),
    _captions("textcaps", splits=_VALIDATION, submission="textcaps", mome="document"),
    _captions("vizwiz_captions", splits=_VALIDATION, submission="caption"),
    _captions("scicap"),
    _captions("screen2words"),
    _captions("widget_captions"),
    TaskRow("xm3600", "xm3600", "caption", "cider_tokens", "captioning", held_out=True),
    _questions("vqav2", "vqa_accuracy", splits=_VALIDATION, submission="vqa", mome="general"),
    _questions("okvqa", "vqa_accuracy", splits=_VALIDATION, submission="vqa", mome="general"),
    TaskRow(
        "aokvqa_direct",
        "aokvqa/direct_answer",
        "question",
        "direct_answer_accuracy",
        "vqa",
        _VALIDATION,
        submission="aokvqa_direct",
        mome="general",
    ),
    TaskRow(
        "aokvqa_choice",
        "aokvqa/multiple_choice",
        "choice_text",  # what the server wants back
        "choice_accuracy",
        "vqa",
        _VALIDATION,
        submission="aokvqa_choice",
    ),
    _questions("gqa", "gqa_accuracy", splits={"test": "testdev"}, submission="gqa", mome="general"),
    _questions("vizwiz_vqa", "vqa_accuracy", splits=_VALIDATION, submission="vizwiz"),
    _questions(
        "textvqa", "vqa_accuracy_evalai", splits=_VALIDATION, submission="vqa", mome="document"
    ),
    _questions("stvqa", "anls", splits=_VALIDATION, submission="stvqa"),
    _questions("ocrvqa", "exact_match"),
    _questions("tallyqa", "tallyqa_accuracy", held_out=True),
    TaskRow(
        "vsr", "vsr/zeroshot", "statement", "yes_no_accuracy", "vqa", held_out=True, mome="general"
    ),
    TaskRow("scienceqa", "scienceqa", "choice", "choice_accuracy", "choice"),
    TaskRow("ai2d", "ai2d", "choice", "choice_accuracy", "choice"),
    TaskRow("iconqa", "iconqa", "choice", "choice_accuracy", "choice", mome="general"),
    _questions(
        "docvqa", "anls_rrc", "document", splits=_VALIDATION, submission="rrc", mome="document"
    ),
    _questions(
        "infographicvqa",
        "anls_rrc",
        "document",
        splits=_VALIDATION,
        submission="rrc",
        mome="document",
    ),
    _questions("chartqa", "relaxed_accuracy", "chart", mome="document"),
    TaskRow(
        "tabfact",
        "tabfact",
        "statement",
        "yes_no_accuracy",
        "document",
        submission="due_verdict",
        mome="document",
    ),
    _questions("wikitablequestions", "wtq", "document", submission="due", mome="document"),
    _questions("deepform", "due_f1", "document", submission="due_fields", mome="document"),
    _questions("visualmrc", "cider", "document", mome="document"),
    *_referring("refcoco", "testA+testB"),
    *_referring("refcoco_plus", "testA+testB"),
    *_referring("refcocog", "test"),
)
