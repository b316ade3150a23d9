"""VQA accuracy: agreement with ten annotators.

The processing of the official scripts is kept with its quirks, because published numbers have them.
"""

import re
from collections.abc import Sequence

from omni_smola.metrics.inputs import check_inputs, mean_percent

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official call passes the flag re.UNICODE in place of the count.
_MAX_PERIODS = 32

_NUMBERS = {"none": "0"} | {
    word: str(value)
    for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
_ARTICLES = frozenset(["a", "an", "the"])
# Written form and its official replacement, "somebody'd" -> "somebodyd" included.
_CONTRACTIONS = dict(
    pair.split(":")
    for pair in """
    aint:ain't arent:aren't cant:can't couldve:could've couldnt:couldn't couldn'tve:couldn't've
    couldnt've:couldn't've didnt:didn't doesnt:doesn't dont:don't hadnt:hadn't hadnt've:hadn't've
    hadn'tve:hadn't've hasnt:hasn't havent:haven't hed:he'd hed've:he'd've he'dve:he'd've hes:he's
    howd:how'd howll:how'll hows:how's isnt:isn't itd:it'd itd've:it'd've it'dve:it'd've itll:it'll
    maam:ma'am mightnt:mightn't mightnt've:mightn't've mightn'tve:mightn't've mightve:might've
    mustnt:mustn't mustve:must've neednt:needn't notve:not've oclock:o'clock oughtnt:oughtn't
    ow's'at:'ow's'at 'ows'at:'ow's'at 'ow'sat:'ow's'at shant:shan't shed've:she'd've
    she'dve:she'd've shouldve:should've shouldnt:shouldn't shouldnt've:shouldn't've
    shouldn'tve:shouldn't've somebody'd:somebodyd somebodyd've:somebody'd've
    somebody'dve:somebody'd've somebodyll:somebody'll somebodys:somebody's someoned:someone'd
    someoned've:someone'd've someone'dve:someone'd've someonell:someone'll someones:someone's
    somethingd:something'd somethingd've:something'd've something'dve:something'd've
    somethingll:something'll thats:that's thered:there'd thered've:there'd've there'dve:there'd've
    therere:there're theres:there's theyd:they'd theyd've:they'd've they'dve:they'd've
    theyll:they'll theyre:they're theyve:they've twas:'twas wasnt:wasn't wed've:we'd've
    we'dve:we'd've weve:we've werent:weren't whatll:what'll whatre:what're whats:what's
    whatve:what've whens:when's whered:where'd wheres:where's whereve:where've whod:who'd
    whod've:who'd've who'dve:who'd've wholl:who'll whos:who's whove:who've whyll:why'll
    whyre:why're whys:why's wont:won't wouldve:would've wouldnt:wouldn't wouldnt've:wouldn't've
    wouldn'tve:wouldn't've yall:y'all yall'll:y'all'll y'allll:y'all'll yall'd've:y'all'd've
    y'alld've:y'all'd've y'all'dve:y'all'd've youd:you'd youd've:you'd've you'dve:you'd've
    youll:you'll youre:you're youve:you've
    """.split()
)


def vqa_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """VQA accuracy as the official VQA v2 script computes it (also OK-VQA and VizWiz).

    For each answer in turn, an example earns min(1, matches among the others / 3); the mean of that
    is its score: with ten answers 0, 30, 60, 90 or 100 for 0, 1, 2, 3 or more matches. Strings are
    normalised only where the annotators disagree. The official script rounds to two decimals.

    Args:
      predictions: n strings.
      references: n lists of answers, one for each annotator (ten; at least four, because a score of
        100 needs four equal ones).

    Returns:
      `vqa_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("vqa_accuracy", predictions, references, at_least=4)
    scores = []
    for prediction, answers in zip(predictions, references, strict=True):
        texts = [_one_line(text) for text in (prediction, *answers)]
        if len(set(texts[1:])) > 1:
            texts = [normalize(text) for text in texts]
        scores.append(_leave_one_out(texts[0], texts[1:]))
    return {"vqa_accuracy": mean_percent(scores)}


def vqa_accuracy_evalai(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """VQA accuracy as MMF computes it for TextVQA: strings are always normalised, and more.

    Before the official processing, text is lower-cased, commas and question marks are deleted and
    "'s" becomes a word of its own.

    Args:
      predictions: n strings.
      references: n lists of answers, one for each annotator (ten; at least four).

    Returns:
      `vqa_accuracy_evalai`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("vqa_accuracy_evalai", predictions, references, at_least=4)
    scores = [
        _leave_one_out(normalize_evalai(prediction), [normalize_evalai(text) for text in answers])
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"vqa_accuracy_evalai": mean_percent(scores)}


def vqa_accuracy_lavis(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """VQA accuracy as LAVIS 1.0.2 computes it, with which InstructBLIP's numbers were made.

    The prediction is always normalised, the answers only where they disagree and only in their
    punctuation: an answer "The dog" or "two" can then not be met.

    Args:
      predictions: n strings.
      references: n lists of answers, one for each annotator (ten; at least four).

    Returns:
      `vqa_accuracy_lavis`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("vqa_accuracy_lavis", predictions, references, at_least=4)
    scores = []
    for prediction, answers in zip(predictions, references, strict=True):
        if len(set(answers)) > 1:
            answers = [_process_punctuation(text) for text in answers]
        scores.append(_leave_one_out(normalize(_one_line(prediction)), list(answers)))
    return {"vqa_accuracy_lavis": mean_percent(scores)}


def direct_answer_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """A-OKVQA's direct-answer accuracy: min(1, equal answers / 3), with no normalisation at all.

    Args:
      predictions: n strings.
      references: n lists of answers (ten; at least three).

    Returns:
      `direct_answer_accuracy`, in [0, 100].

    Raises:
      UserError: see `check_inputs`.
    """
    check_inputs("direct_answer_accuracy", predictions, references, at_least=3)
    scores = [
        min(1.0, list(answers).count(prediction) / 3)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return {"direct_answer_accuracy": mean_percent(scores)}


def normalize(text: str) -> str:
    """The official processing: punctuation, then number words, articles and contractions."""
    return _process_words(_process_punctuation(text))


def normalize_evalai(text: str) -> str:
    """The processing of MMF's `EvalAIAnswerProcessor`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalize(_one_line(text))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _process_punctuation(text: str) -> str:
    # A comma between digits anywhere turns every mark from a space into nothing.
    delete_all = _DIGIT_COMMA.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        result = result.replace(mark, "" if delete_all or beside_space else " ")
    return _PERIOD.sub("", result, count=_MAX_PERIODS)


def _process_words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    matches = answers.count(prediction)
    others = len(answers) - matches
    agreeing = matches * min(1.0, (matches - 1) / 3)
    return (agreeing + others * min(1.0, matches / 3)) / len(answers)
