"""Accuracy of boxes written as text."""

import re
from collections.abc import Sequence

from omni_smola.errors import UserError
from omni_smola.metrics.inputs import check_inputs, mean_percent

THRESHOLD = 0.5
Box = tuple[float, float, float, float]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
# Numbers with commas between, and none of them half of a longer one.
_NUMBERS = re.compile(rf"(?<![\w.+-]){_NUMBER}(?:\s*,\s*{_NUMBER})*(?![\w.]*\w)")


def parse_box(text: str) -> Box | None:
    """Reads "[x1,y1,x2,y2]", or None where `text` holds no box.

    A box is four numbers with commas between, no more and no fewer. Spaces, missing brackets and
    text around it do no harm; the first box counts.
    """
    for match in _NUMBERS.finditer(text):
        numbers = match[0].split(",")
        if len(numbers) == 4:
            return tuple(map(float, numbers))
    return None


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); one turned inside out has no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    union = _area(a) + _area(b) - overlap
    return overlap / union if union > 0 else 0.0


def iou(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of boxes whose IoU with their reference is above 0.5, and the mean IoU.

    Args:
      predictions: n strings "[x1,y1,x2,y2]"; whatever cannot be read counts as 0.
      references: n lists of at least one such string; the best one counts.

    Returns:
      `accuracy@0.5` and `mean_iou`, in [0, 100].

    Raises:
      UserError: a reference is no box; see also `check_inputs`.
    """
    check_inputs("iou", predictions, references)
    scores = []
    for i, (prediction, answers) in enumerate(zip(predictions, references, strict=True)):
        boxes = [parse_box(answer) for answer in answers]
        if None in boxes:
            raise UserError(
                f"iou cannot read the reference {answers[boxes.index(None)]!r} of example {i}: "
                f"references of this metric are boxes such as [0.125,0.250,0.500,0.750]."
            )
        box = parse_box(prediction)
        scores.append(max(box_iou(box, answer) for answer in boxes) if box else 0.0)
    hits = [score > THRESHOLD for score in scores]
    return {"accuracy@0.5": mean_percent(hits), "mean_iou": mean_percent(scores)}


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
