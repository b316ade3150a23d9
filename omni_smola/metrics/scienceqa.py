"""The categories of ScienceQA."""

_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}


def scienceqa_groups(subject: str, hint: str, image: str | None, grade: str) -> str:
    """The categories of a ScienceQA problem, for `groups` of `choice_accuracy`.

    They are the columns of the official `evaluate_acc.py`: NAT, SOC, LAN; TXT (there is a hint) and
    IMG (there is an image), which may be both, or NO (neither); G1-6, G7-12. PaLI reports IMG.

    Args:
      subject, hint, image, grade: the fields of `problems.json`, as "natural science", "", None,
        "grade2".

    Returns:
      Names with spaces between, as "NAT NO G1-6"; a subject or grade it does not know adds none.
    """
    names = [_SUBJECTS.get(subject, ""), "TXT" if hint else "", "IMG" if image else ""]
    if not hint and not image:
        names.append("NO")
    number = grade.removeprefix("grade")
    if number.isdecimal() and 1 <= int(number) <= 12:
        names.append("G1-6" if int(number) <= 6 else "G7-12")
    return " ".join(filter(None, names))
