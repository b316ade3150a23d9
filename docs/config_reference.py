"""The reference of config fields, read from the source of `defaults` and the comments in it.

`python docs/config_reference.py` prints it. mkdocs runs this file as a hook, which puts it in place
of the marker in docs/reference/config.md. Nothing of the package is imported.
"""

import ast
import dataclasses
import io
import pathlib
import tokenize
from typing import Any

PACKAGE = pathlib.Path(__file__).parent.parent / "omni_smola"
PAGE = "reference/config.md"
MARKER = "<!-- config fields -->"


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the config, or a group of fields.

    Attributes:
      name: its path, such as backbone.dtype.
      default: the expression of its default; None for a group.
      comment: the comments above and beside it, as one text; "" without any.
    """

    name: str
    default: str | None
    comment: str


def source() -> str:
    """The source of the module that defines `defaults`.

    Raises:
      LookupError: no module of the config defines it, or several do.
    """
    files = [*PACKAGE.glob("config*.py"), *PACKAGE.glob("config/*.py")]
    found = [text for file in files if _defaults(text := file.read_text()) is not None]
    if len(found) != 1:
        raise LookupError(f"{len(found)} files of {PACKAGE}/config*.py define `defaults`, not one.")
    return found[0]


def fields(text: str) -> list[Field]:
    """All assignments to fields in the function `defaults` of a module's source, in order."""
    comments = _comments(text)
    found = []
    for statement in _defaults(text).body:
        if not isinstance(statement, ast.Assign):
            continue
        root, _, name = ast.unparse(statement.targets[0]).partition(".")
        if root != "config" or not name:
            continue
        is_group = ast.unparse(statement.value).endswith("ConfigDict()")
        default = None if is_group else ast.unparse(statement.value)
        found.append(Field(name, default, _comment(statement, comments)))
    return found


def render(text: str) -> str:
    """The Markdown of all fields: a table for the run's own fields, and one for each group."""
    everything = fields(text)
    groups = [Field("", None, ""), *(field for field in everything if field.default is None)]
    parts = []
    for group in groups:
        inside = [f for f in everything if f.default and f.name.rpartition(".")[0] == group.name]
        parts += [f"## {f'config.{group.name}' if group.name else 'config'}\n"]
        if group.comment:
            parts += [f"{group.comment}\n"]
        if inside:
            parts += ["| field | default | meaning |", "|---|---|---|"]
            parts += [f"| `{f.name}` | `{f.default}` | {_cell(f.comment)} |" for f in inside]
        parts.append("")
    return "\n".join(parts)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs' hook: the page of the config with its fields."""
    return markdown.replace(MARKER, render(source())) if page.file.src_uri == PAGE else markdown


def _defaults(text: str) -> ast.FunctionDef | None:
    body = ast.parse(text).body
    return next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == "defaults"), None)


def _comments(text: str) -> dict[int, tuple[bool, str]]:
    """Line -> whether the comment stands alone on it, and its text."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {
        token.start[0]: (token.line.lstrip().startswith("#"), token.string.lstrip("# ").rstrip())
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _comment(statement: ast.Assign, comments: dict[int, tuple[bool, str]]) -> str:
    """The comments in the lines right above a statement, and those in its own lines."""
    first = statement.lineno
    while comments.get(first - 1, (False,))[0]:
        first -= 1
    lines = range(first, statement.end_lineno + 1)
    return " ".join(comments[line][1] for line in lines if line in comments)


def _cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


if __name__ == "__main__":
    print(render(source()))
