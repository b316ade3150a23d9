"""What --mode=data says of a mixture, and the picture of it."""

import pytest
from PIL import Image

from omni_smola.data import inspect, tasks
from omni_smola.errors import UserError

from .conftest import caption_records

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


def test_what_is_cut_is_said_with_the_length_that_fits(tasks_of_three):
    _, ask = summaries()
    need = ask.prompt.longest
    assert ask.cut_lines() == [
        f"ask: 100% of the prompts are cut at 6 tokens; {need} would fit 99%: "
        f"--config.data.prompt_length={need}"
    ]
    assert summaries(prompt_length=need)[1].cut_lines() == []
    rare = inspect.Lengths.of([3] * 999 + [50], 10)
    assert (rare.p99, rare.cut) == (3, 0.001)
    summary = inspect.Summary("x", 1000, 1.0, rare, rare, ())
    assert "0.1% of the prompts" in summary.cut_lines()[0]
    assert "50 would fit all" in summary.cut_lines()[0]


def test_damaged_examples_are_a_sentence_or_left_out(write_folder):
    path = write_folder("cap", train=caption_records(4))
    tasks.register({"cap": str(path)})
    (path / "img/2.png").unlink()
    options = {"split": "train", **LIMITS}
    with pytest.raises(UserError, match=r"Line 3 .*img/2\.png.*on_error=skip"):
        list(inspect.summarize({"cap": 1.0}, **options))
    (summary,) = inspect.summarize({"cap": 1.0}, skip=True, **options)
    assert len(summary.samples) == 3
    for image in path.glob("img/*"):
        image.unlink()
    with pytest.raises(UserError, match=r"All of the 4 examples .* are damaged"):
        list(inspect.summarize({"cap": 1.0}, skip=True, **options))


def test_mistakes_are_sentences(tasks_of_three):
    with pytest.raises(UserError, match="no split 'test'"):
        summaries("test")
    with pytest.raises(UserError, match="'kap' is unknown"):
        list(inspect.summarize({"kap": 1.0}, split="train", **LIMITS))
