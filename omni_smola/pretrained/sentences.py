"""Long lists of what is wrong, cut to what a reader takes in."""

from collections.abc import Iterable, Sequence

LONGEST = 600  # characters of a whole sentence, its path included
_SHOWN = 8
_WIDEST = 130


def fitted(start: str, problems: Sequence[str], end: str, longest: int = LONGEST) -> str:
    """`start`, as many of `problems` as there is room for, how many more there are, and `end`.

    At least one problem is shown, cut in its middle if it is long.
    """
    room = longest - len(start) - len(end) - len(f" and {len(problems)} more")
    shown: list[str] = []
    for problem in problems[:_SHOWN]:
        short = cut(problem, _WIDEST if shown else max(_WIDEST, min(room, 2 * _WIDEST)))
        room -= len(short) + 2
        if shown and room < 0:
            break
        shown.append(short)
    left = len(problems) - len(shown)
    return f"{start}{'; '.join(shown)}{f' and {left} more' * bool(left)}{end}"


def cut(text: str, longest: int) -> str:
    """A text of at most `longest` characters: its beginning and end."""
    if len(text) <= longest:
        return text
    half = (longest - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def some(names: Iterable[str], count: int = 3) -> str:
    """A few of many names, first and last among them, in their order."""
    names = list(names)
    if len(names) > count:
        step = (len(names) - 1) / (count - 1)
        names = [names[round(i * step)] for i in range(count)]
    return ", ".join(cut(name, 40) for name in names)
