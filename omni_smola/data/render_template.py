"""Renders a chat template in a process of its own, with little time and memory.

A template is a program that a user downloads. Run as a script, this file reads one JSON object with
`template`, `tokens` (variables by name) and `chats` (a list of [messages, add_generation_prompt])
from its standard input, and writes {"texts": [...]} or {"error": "..."}.
"""

import json
import resource
import sys

SECONDS = 10
MEMORY = 1 << 30
CHARACTERS = 100_000  # of what a template may write


def main() -> None:
    """Renders what the standard input asks for."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    request = json.load(sys.stdin)
    try:
        answer = {"texts": _texts(request)}
    except MemoryError:
        answer = {"error": "it takes more memory than any chat template needs"}
    except Exception as error:  # a template can raise anything
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    json.dump(answer, sys.stdout)


def _texts(request: dict) -> list[str]:
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %}, the mark of what an assistant says: its content is written as it is."""

        tags = {"generation"}

        def parse(self, parser: object) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def to_json(value: object, indent: int | None = None, **_: object) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = to_json
    template = environment.from_string(request["template"])
    texts = []
    for messages, add_generation_prompt in request["chats"]:
        text = template.render(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            tools=None,
            documents=None,
            **request["tokens"],
        )
        if len(text) > CHARACTERS:
            raise ValueError(f"it writes {len(text):,} characters around one message")
        texts.append(text)
    return texts


if __name__ == "__main__":
    main()
