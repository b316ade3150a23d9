"""What models write, drawn from a seed: one generator for every comparison with an official scorer.

Blanks of all kinds, control characters, numbers as Python reads them and as people write them,
signs, per cents, thousands separators, empty texts, other scripts, and near misses of a given text.
Also imported by `third_party/official_scorers.py`.
"""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

# White space that `str.strip` takes away.
BLANKS = [" ", "  ", "\t", "\n", "\r\n", "\u3000", "\xa0", "\u2009", "\x0b", "\x1c", "\x85"]
BLANKS += ["\u2028"]
# Invisible, and no white space.
CONTROLS = ["\u200b", "\ufeff", "\u200f", "\x00", "\x07", "\x1b", "\x7f", "\xad", "\ufffd"]
NUMBERS = """nan NaN nan% inf -inf +inf Infinity infinity% 0 -0 +0 0.0 0% -0.0 5 +5 -5 5. .5 5.0 05
    12% 12.0% %12 12%% 1,000 1,000.5 1.000,5 1_000 10_00 1e3 1E3 1e400 -1e-400 ٣ ١٢ １２ ½ ² Ⅳ 0x10
    $5 5$ €5 5km 3/4 1990-05-02 xx-05-02 5:30 ５％ −5 –5 +-5 twenty none zero two""".split()
NUMBERS += ["１，０００", "1 000", "5 %", "- 5", ""]
WORDS = """a an the two ten none zero one dont can't isnt somebody'd it's its red blue Red, dog
    dogs cat. U.S. 3.50 1,000 10,000 left-hand and/or w/o what? yes no Yes. NO (old) [sic]
    "quoted" 5:30 p.m. 50% $5 #1 a_b x=y <b> @home `tick` no! semi; back\\slash {brace} ...
    don't youre 7 seven café cafe\u0301 t-shirt straße STRASSE ﬁne İstanbul ‘a’ “b” d–e π""".split()
SCRIPTS = """собака кошка 犬 赤い 一只狗 강아지 كلب ३ हिन्दी สุนัข σκύλος ΣΚΎΛΟΣ כלב ｄｏｇ
    ＤＯＧ （Ｂ） 🐕 👩\u200d👩\u200d👧 e\u0301 \u0301""".split()

Draw = Callable[[np.random.Generator], str]


def pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    """One of the items; unlike `rng.choice` it keeps NULs at the end of a string."""
    return items[int(rng.integers(len(items)))]


def text(rng: np.random.Generator) -> str:
    """Up to four words, numbers, or words of other scripts, with odd joints and ends."""
    pools = (WORDS, WORDS, WORDS, NUMBERS, SCRIPTS)
    words = [pick(rng, pools[rng.integers(len(pools))]) for _ in range(rng.integers(0, 5))]
    joint = pick(rng, [" ", " ", " ", "", *BLANKS, *CONTROLS])
    return framed(rng, joint.join(words))


def number(rng: np.random.Generator) -> str:
    """A number, or what is nearly one."""
    if rng.integers(3):
        return framed(rng, pick(rng, NUMBERS))
    return framed(rng, f"{rng.normal() * 50:.2f}" + pick(rng, ["", "", "%"]))


def framed(rng: np.random.Generator, words: str) -> str:
    """The words, half the time with blanks or control characters before or behind them."""
    ends = ["", "", *BLANKS, *CONTROLS]
    if rng.integers(2):
        return words
    return pick(rng, ends) + words + pick(rng, ends)


def near(rng: np.random.Generator, given: str) -> str:
    """The text itself, or the same in another case, width, spacing, sign or number."""
    ways: list[Draw | Callable[[np.random.Generator], str]] = [
        lambda rng: given,
        lambda rng: framed(rng, given),
        lambda rng: given.upper(),
        lambda rng: given.lower(),
        lambda rng: given.swapcase(),
        lambda rng: given.replace(" ", pick(rng, BLANKS)),
        lambda rng: unicodedata.normalize(pick(rng, ["NFKC", "NFD"]), given),
        lambda rng: pick(rng, ["+", "-", "$", "the ", "(", ""]) + given,
        lambda rng: given + pick(rng, ["%", ".", ",", "0", ")", "?"]),
        lambda rng: given[:-1],
        _scaled(given),
    ]
    return ways[rng.integers(len(ways))](rng)


def answers(rng: np.random.Generator, draw: Draw = text, n: int = 10) -> tuple[str, list[str]]:
    """A prediction and n references which are more or less one."""
    pool = [draw(rng) for _ in range(rng.integers(1, 4))]
    pool += [near(rng, pool[0])]
    references = [pick(rng, pool) for _ in range(n)]
    prediction = near(rng, pick(rng, references)) if rng.integers(4) else draw(rng)
    return prediction, references


def _scaled(given: str) -> Draw:
    """A number a few per cent away, at and around the tolerance of charts."""

    def scaled(rng: np.random.Generator) -> str:
        try:
            value = float(given.rstrip("%")) * [0.9, 0.95, 0.96, 1.04, 1.05, 1.06][rng.integers(6)]
        except ValueError:
            return given
        return f"{value:.3f}" + "%" * given.endswith("%")

    return scaled
