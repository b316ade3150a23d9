"""Metrics of the suite: each takes all predictions of a split and returns values times 100."""

from collections.abc import Callable, Sequence

from omni_smola.metrics.anls import anls, anls_rrc
from omni_smola.metrics.bleu import bleu4
from omni_smola.metrics.choice import choice_accuracy
from omni_smola.metrics.cider import cider, cider_tokens
from omni_smola.metrics.due_f1 import due_f1
from omni_smola.metrics.exact_match import exact_match
from omni_smola.metrics.gqa import gqa_accuracy, gqa_accuracy_lavis
from omni_smola.metrics.iou import iou
from omni_smola.metrics.meteor import meteor
from omni_smola.metrics.relaxed_accuracy import relaxed_accuracy, relaxed_accuracy_stripped
from omni_smola.metrics.rouge import rouge_l
from omni_smola.metrics.tallyqa import tallyqa_accuracy
from omni_smola.metrics.vqa_accuracy import (
    direct_answer_accuracy,
    vqa_accuracy,
    vqa_accuracy_evalai,
    vqa_accuracy_lavis,
)
from omni_smola.metrics.wtq import wtq
from omni_smola.metrics.yes_no import yes_no_accuracy

Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]

METRICS: dict[str, Metric] = {
    "cider": cider,
    "cider_tokens": cider_tokens,
    "bleu4": bleu4,
    "rouge_l": rouge_l,
    "meteor": meteor,
    "vqa_accuracy": vqa_accuracy,
    "vqa_accuracy_evalai": vqa_accuracy_evalai,
    "vqa_accuracy_lavis": vqa_accuracy_lavis,
    "direct_answer_accuracy": direct_answer_accuracy,
    "gqa_accuracy": gqa_accuracy,
    "gqa_accuracy_lavis": gqa_accuracy_lavis,
    "tallyqa_accuracy": tallyqa_accuracy,
    "choice_accuracy": choice_accuracy,
    "yes_no_accuracy": yes_no_accuracy,
    "exact_match": exact_match,
    "relaxed_accuracy": relaxed_accuracy,
    "relaxed_accuracy_stripped": relaxed_accuracy_stripped,
    "anls": anls,
    "anls_rrc": anls_rrc,
    "wtq": wtq,
    "due_f1": due_f1,
    "iou": iou,
}

# The value of each metric that tables report: the first key of what the function returns.
PRIMARY: dict[str, str] = {name: name for name in METRICS} | {"iou": "accuracy@0.5"}
