"""The frame of a chat model, from the chat template in its folder.

The template is rendered once with words of ours as message and answer; what it writes around them
is the frame. Where the families' processors have a template of their own (PaliGemma, T5Gemma 2),
none is read.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from omni_smola.data import render_template
from omni_smola.data.frames import EOS, IMAGE, Frame, Part, Special, divided, is_text
from omni_smola.data.vocabulary.segments import Segments
from omni_smola.errors import UserError
from omni_smola.json_object import read_if_there

# Where transformers writes a template, the file that it prefers first.
_JINJA, _JSON = "chat_template.jinja", ("chat_template.json", "tokenizer_config.json")
_LARGEST = 1 << 20  # bytes
_USER, _ASSISTANT = "Q7qUserWordsQ7q", "Q7qAnswerWordsQ7q"
_BLANKS = "\t\n"


def find(folder: pathlib.Path) -> str | None:
    """The chat template of a checkpoint's folder, as text; None without one.

    Raises:
      UserError: a file that should hold one cannot be read, or is larger than any template.
    """
    file = folder / _JINJA
    if file.is_file():
        _check_size(file)
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"The chat template {file} cannot be read ({error}).") from error
    for name in _JSON:
        template = read_if_there(folder / name).get("chat_template")
        if isinstance(template, list):  # several, by name
            named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
            template = named.get("default")
        if isinstance(template, str):
            if len(template) > _LARGEST:
                raise UserError(_too_large(folder / name))
            return template
    return None


def read(template: str, segments: Segments, where: object) -> Frame:
    """The frame that a chat template writes around one turn.

    Args:
      template: the text of a Jinja template.
      segments: of the model's vocabulary, with its special tokens.
      where: names the template in errors.

    Raises:
      UserError: jinja2 is not installed; the template fails, takes too long, or does not write the
        user's words once and unchanged.
    """
    asked, answered = _message("user", _USER), _message("assistant", _ASSISTANT)
    blanks = [_message("user", _padded(_USER)), _message("assistant", _padded(_ASSISTANT))]
    chats = [([asked], True), ([asked, answered], False), (blanks, False)]
    prompt, whole, padded = _render(template, chats, segments.words, where)
    before, after = _around(prompt, _USER, where)
    _, rest = _around(whole, _ASSISTANT, where)
    answer = ""
    if whole.startswith(prompt):
        answer = whole[len(prompt) : len(whole) - len(rest) - len(_ASSISTANT)]
    parts = tuple(divided(before, segments.specials))
    return Frame(
        before=parts,
        seen=(*parts, IMAGE, "\n"),
        after=tuple(divided(after, segments.specials)),
        answer=(answer,) if answer else (),
        end=_end(tuple(divided(rest, segments.specials))),
        strip=_padded(_USER) not in padded,
        strip_answer=_padded(_ASSISTANT) not in padded,
        joined=True,
    )


def _end(parts: Sequence[Part]) -> tuple[Part, ...]:
    """What follows an answer, up to the first special token; EOS where there is none."""
    for i, part in enumerate(parts):
        if isinstance(part, Special):
            return tuple(parts[: i + 1])
    return (*(part for part in parts[:1] if is_text(part)), EOS)


def _around(text: str, words: str, where: object) -> tuple[str, str]:
    before, found, after = text.partition(words)
    if not found or words in after:
        raise UserError(
            f"The chat template of {where} does not write a message once and unchanged, so what "
            "stands around it cannot be found: name a frame by --config.data.frame=chatml, "
            "vicuna, llama2, gemma, zephyr or plain."
        )
    return before, after


def _render(
    template: str, chats: Sequence[Any], tokens: dict[str, str], where: object
) -> list[str]:
    """The text of every chat; raises UserError for a template that fails."""
    if importlib.util.find_spec("jinja2") is None:
        raise UserError(
            f"The chat template of {where} is read by the package jinja2, which is not installed: "
            "pip install 'omni_smola[hf]', or name the frame by --config.data.frame=chatml, "
            "vicuna, llama2, gemma, zephyr or plain."
        )
    request = json.dumps({"template": template, "chats": chats, "tokens": tokens})
    try:
        done = subprocess.run(
            [sys.executable, "-I", render_template.__file__],
            input=request,
            capture_output=True,
            text=True,
            timeout=3 * render_template.SECONDS,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError):
        answer = {}
    if "texts" not in answer:
        why = answer.get("error", "it ends in no time or takes too much memory")
        raise UserError(
            f"The chat template of {where} fails ({why}): copy it again, or name a frame by "
            "--config.data.frame=chatml, vicuna, llama2, gemma, zephyr or plain."
        )
    return answer["texts"]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _padded(words: str) -> str:
    return f"{_BLANKS}{words}{_BLANKS}"


def _check_size(file: pathlib.Path) -> None:
    if file.stat().st_size > _LARGEST:
        raise UserError(_too_large(file))


def _too_large(file: pathlib.Path) -> str:
    return (
        f"The chat template in {file} has more than {_LARGEST:,} bytes, which no chat needs: copy "
        "the file again, or name a frame by --config.data.frame=plain."
    )
