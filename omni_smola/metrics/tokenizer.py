"""Caption tokenisation of the COCO scorer: Penn Treebank words, lower case, no punctuation.

The official scorer runs Stanford's PTBTokenizer 3.4.1, which needs Java. `ptb_tokenize` follows its
rules as far as English captions need them; `stanford_tokenize` runs the original.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

from omni_smola.errors import UserError

# Tokens that the COCO scorer drops.
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"]
    + [".", "?", "!", ",", ":", "-", "--", "...", ";"]
)

# Abbreviations keep their period: these always, the next only with a capital, the last before a
# number.
_PERIOD_STAYS = r"""jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    ala ariz calif colo conn ct dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn tenn
    va vt wisc? wyo mr mrs ms drs? profs? sens? reps? attys? lt col gen messrs govs? adm rev maj sgt
    cpl pvt capt ste? ave pres lieut hon brig co?mdr pfc spc supts? det mt ft adj adv asst assoc ens
    insp mlle mme msgr sfc jr sr esq bros inc cos? corp pt[ey] ltd plc bancorp dept mfg bhd assn
    univ intl sys tel est ext sq vs etc al cie cf blvd rd rt bldg ph\.d""".split()
_WITH_A_CAPITAL = "Az Ark Del Ill La Mass Miss Ore Pa Tex Wash".split()
_BEFORE_A_NUMBER = "nos? ca op figs? pp art prop".split()
# After a single letter and its period these begin a sentence, and the period ends one.
_BEGINNING = """A An The He She It They There This These That In At One Some Another But You We What
    When As""".split()
_ABBREVIATION = rf"""
    \b(?:{"|".join(_PERIOD_STAYS)}|(?-i:(?=[A-Z]))(?:{"|".join(_WITH_A_CAPITAL)}))\.(?!\w)
  | \b(?:{"|".join(_BEFORE_A_NUMBER)})\.(?=\s*\d)
  | [^\W_]+\.(?=,)
  | (?<![\w°.])[a-z]\.(?!\w|\s+(?-i:{"|".join(_BEGINNING)})\b)        # the letter a.
  | (?<![\w°])(?:[a-z]\.){{2,}}[a-z]?(?!\w)(?:-[^\W_]+)*             # p.m., u.s.-made
  | (?<![\w°])[a-z]\.[a-z](?!\w)                                      # u.s
"""
# Written as one word, counted as two: cannot, gonna, gotta, wanna, gimme, lemme, y'all, 'twas.
_FUSED = r"""\b(?:can(?=not\b)|g(?:on|im)(?=na\b|me\b)|got(?=ta\b)|wan(?=na\b)|lem(?=me\b)
    |y['’](?=all\b)) | ['’]t(?=(?:is|was)\b)"""
_CLITIC_ALONE = re.compile(r"(?:n[’]t|[’](?:s|m|d|re|ve|ll))", re.IGNORECASE)
_CLITIC = r"(?:n['’]t|['’](?:s|m|d|re|ve|ll))(?!\w)"
# Words with an apostrophe of their own: o'clock, d'or, ma'am; others end before it.
_APOSTROPHE = r"(?:\b(?:[dlmoec]|qu|xi|hawai|ne|ma)['’](?=[^\W\d_]{2}))"
_MARKS = "".join(chr(c) for c in range(0x300, 0xFE30) if unicodedata.category(chr(c))[0] == "M")
_LETTERS = rf"(?:[^\W_²³][{_MARKS}]*)+"
_WORD = rf"{_APOSTROPHE}?{_LETTERS}(?:(?:[-‐‑/]|(?<![_])_(?!_)){_APOSTROPHE}?{_LETTERS})*"
_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)[^\s,"<>]+[\w/] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | \b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov)\b
    | </?[a-z][^\s<>]*> | &\#?\w+; | [@\#][a-z_][a-z0-9_]*
    | >?[:;=][-o*']?[()dp\\\]@](?!\w) | [-^]_[-^]                 # :-) ^_^
    | {_ABBREVIATION}
    | {_FUSED}
    | {_CLITIC}
    | \d+[.,]\d+(?:-{_LETTERS})+                                  # 3.5-inch
    | [-+]?\d*(?:[.,:]\d+)+ | [-+]\d+ | \b\d+(?:/\d+)+\b          # 3.50, 10,000, 10:30, -1, 1/2
    | {_WORD}(?={_CLITIC})                                        # the word before a clitic
    | {_LETTERS}?(?={_CLITIC})
    | (?-i:[A-Z]+&[A-Z]+\b|[A-Z]{{1,2}}(?=\$)\$)                  # AT&T, US$
    | [^\W\d_][^\W_]*(?:\.[^\W\d_][^\W_]*(?:-[^\W_]+)*)+          # no space.between sentences
    | [^\W_]+(?:[!?][^\W_]+)+
    | {_WORD}
    | ['’]n['’] | (?<!\w)['’](?:n|til|em|cause|\d\ds?)(?![\w'’-])  # rock 'n' roll, 'til, the '90s
    | ol['’](?!\w)
    | \.\.+ | --+ | [!?]{{2,}} | \*+ | _+ | <<|>>
    | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Brackets come out in lower case, so the scorer's upper-case list does not drop them.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_QUOTES = {"“": "``", "‘": "`", "’": "'"} | dict.fromkeys('”"«»‹›', "''")
_DASHES = dict.fromkeys(["–", "—", "―", "‐", "‑", "---", "----"], "--")
_MONEY = dict.fromkeys("€\x80¤₠", "$") | {"£": "#", "¢": "cents"}
_SPELLING = _BRACKETS | _QUOTES | _DASHES | _MONEY | {"…": "...", "‛": "'"}
_FRACTIONS = {"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "}
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}
# What the tokeniser cannot read it leaves out: characters that control or format, are private or
# unassigned, or enclose others; Roman numbers, most currencies, variation selectors, specials, and
# all beyond the 16-bit characters. What it does read of these: U+0080 and four Arabic signs.
_READ = frozenset("\x80\xad\u0600\u0601\u0602\u0603\u06dd\u070f")
_UNREADABLE = "".join(
    re.escape(character)
    for character in map(chr, range(0xFFFF))
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Me")
    and not character.isspace()
    and character not in _READ
)
_UNREAD = re.compile(
    f"[{_UNREADABLE}\U00010000-\U0010ffff\u20a1-\u20a3\u20a5-\u20ab\u20ad-\u20cf\u2150-\u2152"
    "\u215f-\u2182\ufe00-\ufe0f\ufff0-\uffff]"
)


def ptb_tokenize(text: str) -> list[str]:
    """Splits a caption into the words that the COCO scorer counts, without Java.

    Equal to `stanford_tokenize` on all of 11,527 captions of Flickr8k and 9,520 questions and
    statements of vqav2, daquar and vsr, on all but 9 of 14,934 of tables, captions of colours and
    NLVR, and on all but 15 of 1,737 odd texts, in which words are glued together. White space of
    any kind divides words; what the original cannot read is left out. Other languages differ more
    often. The original also looks at what follows a caption's end, which here is never known.

    Args:
      text: one caption.

    Returns:
      Lower-case tokens, none of them in `PUNCTUATION`.
    """
    return list(_tokens(text))


@functools.lru_cache(maxsize=1 << 15)  # references are scored against again and again
def _tokens(text: str) -> tuple[str, ...]:
    for written, character in (_ENTITIES | _FRACTIONS).items():
        text = text.replace(written, character)
    tokens = []
    for token in _TOKEN.findall(_UNREAD.sub(" ", text.replace("\u00ad", ""))):
        if token.startswith(".."):
            continue
        if _CLITIC_ALONE.fullmatch(token):
            token = token.replace("’", "'")
        token = _SPELLING.get(token, token)
        if token not in PUNCTUATION:
            tokens.append(token.lower().replace("(", "-lrb-").replace(")", "-rrb-"))
    return tuple(tokens)


def stanford_tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Splits captions with the official Java tokeniser, for numbers to publish.

    Args:
      texts: captions.

    Returns:
      Tokens of each caption.

    Raises:
      UserError: pycocoevalcap or Java is missing.
    """
    try:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        lines = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    except (ImportError, FileNotFoundError) as error:
        raise UserError(
            f"The official tokeniser needs the package pycocoevalcap and a `java` command, and one "
            f"is missing ({error}): install both, or use the default, ptb_tokenize."
        ) from error
    return [lines[i][0].split() for i in range(len(texts))]
