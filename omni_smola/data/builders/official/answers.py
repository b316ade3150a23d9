"""Answers of ten annotators and choices, as the datasets of the VQA family write them."""

from omni_smola.data.builders.official.files import Fields


def ten_answers(record: Fields, name: str = "answers") -> tuple[str, ...]:
    """The field's ten answers, a list of strings or of objects with an "answer".

    Empty answers stay: accuracy counts annotators, and each of them has a tenth of it. Strings stay
    as they are, because A-OKVQA compares them letter for letter.

    Raises:
      BadRecord: there are not ten, or they are something else.
    """
    values = record.items(name)
    if len(values) != 10:
        raise record.bad(f"'{name}' must be 10, but there are {len(values)}.")
    if all(isinstance(value, str) for value in values):
        return tuple(values)
    return tuple(answer.text("answer", empty=True) for answer in record.records(name))


def all_choices(record: Fields, name: str = "choices", at_least: int = 2) -> tuple[str, ...]:
    """The field's choices as they are, none of them empty: the right one is known by its place.

    Raises:
      BadRecord: there are fewer, one is empty, or they are something else.
    """
    choices = record.items(name)
    if len(record.texts(name, at_least)) != len(choices):
        raise record.bad(f"one of the '{name}' is empty.")
    return tuple(choices)
