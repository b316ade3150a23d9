"""METEOR, by the original program: there is no other that gives its numbers."""

import shutil
from collections.abc import Callable, Sequence

from omni_smola.errors import UserError
from omni_smola.metrics.inputs import check_inputs
from omni_smola.metrics.tokenizer import ptb_tokenize


def meteor(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: Callable[[str], list[str]] = ptb_tokenize,
) -> dict[str, float]:
    """METEOR 1.5 of a whole split, as the COCO caption scorer runs it.

    Words are matched by themselves, their stems, synonyms and paraphrases; the last two are large
    tables that come with the program. Source: Denkowski and Lavie (2014), the Java archive that
    pycocoevalcap carries.

    Args:
      predictions: n captions.
      references: n lists of at least one caption.
      tokenize: splits a caption into words.

    Returns:
      `meteor`, in [0, 100].

    Raises:
      UserError: pycocoevalcap or Java is missing; see also `check_inputs`.
    """
    check_inputs("meteor", predictions, references)
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError as error:
        raise _missing("the package pycocoevalcap (pip install pycocoevalcap)") from error
    if not shutil.which("java"):
        raise _missing("a `java` command")
    scorer = Meteor()
    targets = {i: [_line(tokenize(t)) for t in texts] for i, texts in enumerate(references)}
    results = {i: [_line(tokenize(text))] for i, text in enumerate(predictions)}
    try:
        return {"meteor": 100.0 * scorer.compute_score(targets, results)[0]}
    finally:
        scorer.meteor_p.stdout.close()
        scorer.meteor_p.stderr.close()


def _missing(what: str) -> UserError:
    return UserError(
        f"The metric meteor runs a Java program, and {what} is missing: install it, or choose the "
        "metric cider or rouge_l."
    )


def _line(words: Sequence[str]) -> str:
    # Three bars divide the fields of a line of the program's input.
    return " ".join(words).replace("|||", "")
