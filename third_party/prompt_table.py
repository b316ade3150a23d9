"""How many prompts get the very ids that transformers makes, family by family.

    python third_party/prompt_table.py

prints a Markdown table. It needs the extra `parity`, and no network: tokenizers and processors are
made on the spot (`tests/parity/prompt_families.py`). The column `with EOS` has the prompts as they
were made before there were frames.
"""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from tests.parity import prompt_families as families


def main() -> None:
    """Command line."""
    import transformers

    print(f"transformers {transformers.__version__}, {len(families.PROMPTS)} prompts\n")
    print("| family | frame | equal ids | with EOS | answers |\n|---|---|---|---|---|")
    for name, case in families.CASES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = case.make(pathlib.Path(place))
            theirs, made = case.theirs(folder), case.framing(folder)
            want = [_without_visual(case, theirs(prompt)) for prompt in families.PROMPTS]
            pairs = list(zip(families.PROMPTS, want, strict=True))
            equal = [
                sum(framing.prompt(prompt, image=case.image) == ids for prompt, ids in pairs)
                for framing in (made, case.framing(folder, "eos"))
            ]
            answers = sum(_answered(case, folder, made, answer) for answer in families.ANSWERS)
        counts = " | ".join(f"{n} of {len(want)}" for n in equal)
        print(f"| {name} | {made.name} | {counts} | {answers} of {len(families.ANSWERS)} |")


def _without_visual(case: families.Case, ids: list[int]) -> list[int]:
    """The ids without the run of placeholders that stands for the image."""
    if not case.image:
        return ids
    n = families.VISUAL
    start = next(i for i in range(len(ids)) if len(set(ids[i : i + n])) == 1)
    return ids[:start] + ids[start + n :]


def _answered(case: families.Case, folder: pathlib.Path, made: object, answer: str) -> bool:
    ids, trained = case.answer(folder, "caption in en", answer)
    return made.answer(answer) == [i for i, counts in zip(ids, trained, strict=True) if counts]


if __name__ == "__main__":
    main()
