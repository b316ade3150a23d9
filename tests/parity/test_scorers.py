"""Caption metrics against the COCO caption scorer itself, Java and all, on more than 1,000 items.

Captions are the project's own everyday sentences, dressed with all that people write: quotes,
contractions, numbers, hyphens, abbreviations, marks of other scripts; and real ones beside them
where ../shared is there.
"""

import importlib
import json
import re
import shutil

import numpy as np
import pytest

from omni_smola.data.builders.mini_suite import everyday
from omni_smola.metrics import bleu4, cider, meteor, rouge_l
from omni_smola.metrics.tokenizer import ptb_tokenize, stanford_tokenize
from tests.metrics import odd_texts

pytest.importorskip("pycocoevalcap")
pytestmark = pytest.mark.skipif(not shutil.which("java"), reason="needs a java command")

ITEMS = 1200
_LOST = "[\r\x0b\x0c\u2028\u2029\xad]"
_SCORERS = {
    bleu4: ("bleu.bleu", "Bleu"),
    cider: ("cider.cider", "Cider"),
    rouge_l: ("rouge.rouge", "Rouge"),
}

FORMS = """\
@|@|@|@|@.|@ .|@ !|@?|@...|@ ..|@....|“@”|"@"|‘@’ on a sign|'@'|«@»|@ - it's 3:30 p.m.
@; there's a ^ too|@ (near the ^)|@, isn't it?|@ & a ^|@ at 4 o'clock|@, No. 5
a ^ costs $3.50: @|@ — 40% of them|@, and they're 12 years old|@ in the 1950's
the man's ^ and @|@ on St. Mary St.|@ by Mr. O'Neil's ^|the Joneses' ^; @
@ wouldn't, can't and won't be 1,200|@ at the café|@ in a naïve ^|@ 🐕|@, 5" x 7"|@ w/ a ^
@ and/or a ^|black-and-white ^: @|@ in the U.S. today|@ at www.dogs.com|@ #1 @ home|@ [sic]
@ {old}|@ `quoted' "|@ said "hello", she'd 3/4|I'm sure @|y'all see @|@ 'til noon
@ rock 'n' roll|@ A.M.|@ -- ^|@ –^|@!!|@?!|@ 1st, 2nd and 4th|@ 5x7|@ +1|@ ~40|TWO ^S: @|@ ©
@ /^/|£5 @|@ €40|@ 90°|@ 5ft. wide|@ approx. 40|@ etc. and ^|@ vs. ^|@ Jr. too|@ the '90s
'tis @|@ :-)|@ ;) ok|@ #nofilter|AT&T @|a&b @|@ ½ cup|@ -5 below|@ 10:30am|@.It is late
@!What|@ US$5|&quot;@&quot;|@ e.g. a ^|@ gonna go|cannot @|@ o'er there|@ ---- ^|@ ***|@ m²
Plan B. @|@ Mass. ^|@ p.m.-ish|@ 3.5-inch|@ 10.5kg|@ don’t|@ the dogs’ ^|@ ‑ ^|@ t‑shirt
@ 中文|@ русский|@ हिन्दी|@ Sept. 5|@ Ph.D. ^|@ R&B ^|a@b.com @"""
THINGS = """\
t-shirt|x-ray|mother-in-law's hat|fire hydrant|merry-go-round|T.V.|bus #7|stop sign
teddy bear|baby's crib|PlayStation 3|jack-o'-lantern|M&M's|skate-board|dog"""


def dressed(rng: np.random.Generator) -> str:
    """An everyday sentence (@) in one of the forms, which may name a thing (^)."""
    forms, things = (text.replace("\n", "|").split("|") for text in (FORMS, THINGS))
    text = everyday.sentence(rng)
    form = str(rng.choice(forms)).replace("^", str(rng.choice(things)), 1)
    return form.replace("@", text if rng.integers(2) else text.rstrip("."), 1)


@pytest.fixture(scope="module")
def split() -> tuple[list[str], list[list[str]]]:
    """Predictions that share words with their references, which are one to five."""
    rng = np.random.default_rng(0)
    references = [[dressed(rng) for _ in range(rng.integers(1, 6))] for _ in range(ITEMS)]
    predictions = []
    for texts in references:
        words = str(rng.choice(texts)).split()
        kept = [word for word in words if rng.integers(5)] or words
        predictions.append(" ".join(kept) if rng.integers(4) else dressed(rng))
    return predictions, references


@pytest.fixture(scope="module")
def official(split):
    """The same through the scorer's own tokeniser: its two dictionaries, targets and results."""
    predictions, references = split
    texts = [text for group in references for text in group] + predictions
    # An ordinary caption follows each, as the tokeniser looks at the next line at the end of one.
    lines = [line for text in texts for line in (text, "some people .")]
    tokens = iter([" ".join(words) for words in stanford_tokenize(lines)[::2]])
    targets = {i: [next(tokens) for _ in group] for i, group in enumerate(references)}
    return targets, {i: [next(tokens)] for i in range(len(predictions))}


def test_every_token_of_the_captions_is_the_originals(split, official):
    predictions, references = split
    targets, results = official
    assert sum(map(len, references)) > 3000
    for texts, expected in zip(references, targets.values(), strict=True):
        assert [" ".join(ptb_tokenize(text)) for text in texts] == expected
    for text, expected in zip(predictions, results.values(), strict=True):
        assert [" ".join(ptb_tokenize(text))] == expected


def test_cider(split, official):
    from pycocoevalcap.cider.cider import Cider

    expected, _ = Cider().compute_score(*official)
    assert cider(*split)["cider"] == pytest.approx(100 * expected, abs=1e-8)
    assert expected > 1


def test_bleu(split, official):
    from pycocoevalcap.bleu.bleu import Bleu

    expected, _ = Bleu(4).compute_score(*official, verbose=0)
    ours = bleu4(*split)
    assert [ours[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
        [100 * score for score in expected], abs=1e-8
    )


def test_rouge(split, official):
    from pycocoevalcap.rouge.rouge import Rouge

    expected, _ = Rouge().compute_score(*official)
    assert rouge_l(*split)["rouge_l"] == pytest.approx(100 * expected, abs=1e-8)


def test_meteor(split, official):
    from pycocoevalcap.meteor.meteor import Meteor

    expected, _ = Meteor().compute_score(*official)
    assert meteor(*split)["meteor"] == pytest.approx(100 * expected, abs=1e-8)
    assert expected > 0.1


def texts_of(record: dict) -> list[str]:
    captions = record.get("captions", [])
    if isinstance(captions, dict):  # by language
        captions = captions.get("en", [])
    captions = [captions] if isinstance(captions, str) else captions
    return [*captions, *(record[key] for key in ("question", "caption") if key in record)]


def test_what_models_write():
    """Odd texts: the scores of the official tokens are exact, and so are 98% of our own tokens.

    Left out are line ends, at which the original tokeniser loses count of its captions, and soft
    hyphens, which it joins words at only where it has not read an end before.
    """
    rng = np.random.default_rng(0)
    pairs = [odd_texts.answers(rng, n=int(rng.integers(1, 4))) for _ in range(1000)]
    pairs = [
        (re.sub(_LOST, " ", text), [re.sub(_LOST, " ", each) for each in texts])
        for text, texts in pairs
    ]
    texts = list({text: None for prediction, group in pairs for text in (prediction, *group)})
    lines = [line for text in texts for line in (text, "some people .")]
    tokens = dict(zip(texts, stanford_tokenize(lines)[::2], strict=True))
    equal = np.mean([ptb_tokenize(text) == tokens[text] for text in texts])
    assert equal > 0.98
    predictions, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    targets = {i: [" ".join(tokens[t]) for t in group] for i, group in enumerate(references)}
    results = {i: [" ".join(tokens[text])] for i, text in enumerate(predictions)}
    for score, (module, name) in _SCORERS.items():
        scorer = getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)()
        quiet = {"verbose": 0} if name == "Bleu" else {}
        expected = np.ravel(scorer.compute_score(targets, results, **quiet)[0])[-1]
        found = score(predictions, references, tokens.__getitem__)
        assert next(iter(found.values())) == pytest.approx(100 * expected, abs=1e-8)
        assert expected > 0.1


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("flickr8k_cap", 10_000),
        ("tux_cap", 500),
        ("vqav2_mini", 3000),
        ("daquar", 12_000),
        ("vsr_mini", 400),
    ],
)
def test_real_texts(shared_dir, name, least):
    texts = []
    for path in sorted((shared_dir / "data/vlmini" / name).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            texts += [text for text in texts_of(json.loads(line)) if text.strip()]
    assert len(texts) > least
    lines = [line for text in texts for line in (text, "some people .")]
    assert [ptb_tokenize(text) for text in texts] == stanford_tokenize(lines)[::2]
