"""The pages of the documentation: code blocks, commands, links and names of files in them."""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# An HTML comment before a block: its commands, or its Python, take seconds and are run.
RUN = "<!-- run -->"
MAIN = "python -m omni_smola.main"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FOLDERS = "omni_smola|configs|tests|third_party|docs|launch|examples|benchmarks"
_FILE = re.compile(rf"`((?:{_FOLDERS})/[\w./-]+)`")
FILE_IN_COMMAND = re.compile(rf"(?<![\w/])(?:{_FOLDERS})/[\w./-]*\w")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
      where: page and line, for messages.
      language: what stands behind the fence.
      text: the code.
      run: whether it is marked as quick.
    """

    where: str
    language: str
    text: str
    run: bool


def name(page: pathlib.Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: pathlib.Path) -> list[Block]:
    """The code blocks of a page."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        where = f"{name(page)}:{before.count(chr(10)) + 1}"
        found.append(Block(where, match[2], match[3], before.rstrip().endswith(RUN)))
    return found


def commands(block: Block) -> list[str]:
    """The lines of a block of shell commands; one that ends in a backslash goes on in the next."""
    if block.language not in ("bash", "sh", "console"):
        return []
    return [line.strip() for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def main_arguments(command: str) -> list[str] | None:
    """The arguments that a command line gives to omni_smola.main; None where it does not run it."""
    _, found, rest = command.partition(MAIN)
    if not found:
        return None
    words = shlex.split(rest if rest.count('"') % 2 == 0 else rest.rstrip('"'), comments=True)
    ends = [i for i, word in enumerate(words) if word in ("&&", "||", ";", "|", "&")]
    return words[: ends[0]] if ends else words


def prose(page: pathlib.Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: pathlib.Path) -> list[str]:
    """The targets of a page's links to other files of the repository, without anchors."""
    targets = (target.partition("#")[0] for target in _LINK.findall(prose(page)))
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


def files(page: pathlib.Path) -> list[str]:
    """The files and folders of the repository that a page names in backticks."""
    return _FILE.findall(prose(page))
