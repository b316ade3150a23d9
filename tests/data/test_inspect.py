"""What --mode=data says of a mixture, and the picture of it."""

import pytest
from PIL import Image

from omni_smola.data import inspect, tasks
from omni_smola.errors import UserError

RATES = {"cap": 3.0, "ask": 1.0}
LIMITS = {"prompt_length": 6, "target_length": 32}


def summaries(split="train", **options):
    return list(inspect.summarize(RATES, split=split, **(LIMITS | options)))


def test_sizes_shares_and_lengths(tasks_of_three):
    cap, ask = summaries()
    assert (cap.name, cap.size, cap.share) == ("cap", 7, 0.75)
    assert (ask.name, ask.size, ask.share) == ("ask", 5, 0.25)
    vocabulary = tasks.get("ask").output_features["prompt"].vocabulary
    lengths = [len(vocabulary.encode(f"Answer in en: what is {i}?")) + 1 for i in range(5)]
    assert ask.prompt.longest == max(lengths) > 6 and ask.prompt.limit == 6
    assert ask.prompt.mean == pytest.approx(sum(lengths) / 5)
    assert ask.prompt.cut == 1.0 and ask.target.cut == 0.0
    assert cap.prompt.longest == len(vocabulary.encode("caption in en")) + 1


def test_samples_are_what_the_model_is_asked(tasks_of_three):
    cap, _ = summaries(samples=2)
    assert len(cap.samples) == 2
    for sample in cap.samples:
        assert sample["prompt"] == "caption in en"
        assert sample["target"].startswith("caption ") and sample["image"].startswith(b"\x89PNG")


def test_only_so_many_examples_are_looked_at(tasks_of_three):
    cap, _ = summaries(examples=1, samples=4)
    assert cap.size == 7 and len(cap.samples) == 1


def test_the_table_names_every_task(tasks_of_three):
    lines = inspect.table(summaries()).splitlines()
    assert lines[2].split()[:3] == ["cap", "7", "75.0%"]
    assert lines[3].split()[:3] == ["ask", "5", "25.0%"]
    assert lines[-1] == "12 examples in all"


def test_the_contact_sheet_is_a_picture_of_all_tasks(tasks_of_three, tmp_path):
    path = tmp_path / "sheets" / "data.png"
    inspect.contact_sheet(path, summaries())
    with Image.open(path) as sheet:
        assert sheet.size == (1280, 680)


def test_mistakes_are_sentences(tasks_of_three):
    with pytest.raises(UserError, match="no split 'test'"):
        summaries("test")
    with pytest.raises(UserError, match="'kap' is unknown"):
        list(inspect.summarize({"kap": 1.0}, split="train", **LIMITS))
