"""The VQA layout: questions in one file, their annotations in another."""

from collections.abc import Iterator
from pathlib import Path

from omni_smola.data.builders.official.files import BadRecord, Fields, read_list


def joined(questions: Path, annotations: Path | None = None) -> Iterator[Fields]:
    """The questions of a split, each with the fields of its annotation where there are such.

    A question without an annotation comes without: its missing fields are then the mistake.
    """
    by_id = {}
    if annotations is not None:
        for record in read_list(annotations, "annotations"):
            try:
                by_id[record.label("question_id")] = record.values
            except BadRecord:  # found again, as the question that has no annotation
                continue
    for record in read_list(questions, "questions"):
        try:
            more = by_id.get(record.label("question_id"), {})
        except BadRecord:
            more = {}
        yield Fields({**more, **record.values}, record.where) if more else record
