"""F1 of extracted fields, the metric of DeepForm in the DUE benchmark."""

from collections.abc import Sequence

from omni_smola.errors import UserError
from omni_smola.metrics.inputs import check_inputs

# What stands for a field that a document does not have.
ABSENT = "None"


def due_f1(
    predictions: Sequence[str], references: Sequence[Sequence[str]], ignore_case: bool = True
) -> dict[str, float]:
    """F1 over the (document, field, value) triples of a whole split.

    An example asks for one field of one document. References are variants of its value: "$1,200",
    "1200". A field the document does not have is the reference "None"; it gives no triple, nor does
    a prediction of "None". So a value for an absent field costs precision, "None" for a present one
    recall, and "None" for an absent one counts for nothing. An empty prediction is a wrong value.
    Several values of a field are separated by "|", in the same order in every reference; each may
    be found once.

    Sources: DUE (Borchmann et al., 2021), whose evaluator ignores case for DeepForm; "None" and the
    stripping of spaces around a value as in UReader (Ye et al., 2023).

    Args:
      predictions: n strings.
      references: n lists of at least one string.
      ignore_case: whether "Wnyt" is "WNYT".

    Returns:
      `due_f1`, `precision` and `recall`, in [0, 100]; 0 where there is nothing to count.

    Raises:
      UserError: references of one example with unequal numbers of values; see also `check_inputs`.
    """
    check_inputs("due_f1", predictions, references)
    predicted = expected = right = found = 0
    for i, (prediction, answers) in enumerate(zip(predictions, references, strict=True)):
        values = _values(prediction, ignore_case)
        variants = [_values(answer, ignore_case) for answer in answers]
        if len({len(each) for each in variants}) > 1:
            raise UserError(
                f"due_f1 got references of {sorted({len(each) for each in variants})} values for "
                f"example {i}, {list(answers)!r}: references are variants of the same values."
            )
        targets = list(zip(*variants, strict=True))
        predicted += len(values)
        expected += len(targets)
        right += _count([[value in target for target in targets] for value in values])
        found += _count([[value in target for value in values] for target in targets])
    precision = right / predicted if predicted else 0.0
    recall = found / expected if expected else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"due_f1": 100.0 * f1, "precision": 100.0 * precision, "recall": 100.0 * recall}


def _values(text: str, ignore_case: bool) -> list[str]:
    text, absent = (text.upper(), ABSENT.upper()) if ignore_case else (text, ABSENT)
    return [] if text.strip() == absent else [value.strip() for value in text.split("|")]


def _count(matches: Sequence[Sequence[bool]]) -> int:
    """How many rows find a column of their own, each in turn taking the first that matches."""
    taken: set[int] = set()
    for row in matches:
        taken.update([i for i, match in enumerate(row) if match and i not in taken][:1])
    return len(taken)
