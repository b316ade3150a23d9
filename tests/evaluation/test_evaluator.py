"""The evaluator on tasks without TensorFlow: ids are code points, the model is a table."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from omni_smola import metrics
from omni_smola.errors import UserError
from omni_smola.evaluation import evaluator, writing

EOS = 1
BATCH = 4
ANSWERS = {
    "colour": ["red", "blue", "red", "grün", "red", "pink"],
    "number": ["1", "2", "3", "5"],
}
TASKS = [
    evaluator.Task("colour", "vqa", "exact_match"),
    evaluator.Task("number", "counting", "exact_match"),
]


def ids(text, length=8):
    return ([ord(c) for c in text] + [EOS] + [0] * length)[:length]


def detokenize(tokens):
    return "".join(map(chr, tokens))


class Source:
    """Batches of ANSWERS; counts how often a task is read."""

    def __init__(self):
        self.reads = []

    def __call__(self, task):
        self.reads.append(task)
        answers = ANSWERS[task]
        for start in range(0, len(answers), BATCH):
            part = answers[start : start + BATCH]
            batch = {
                "target": np.array([ids(a) for a in part + [""] * (BATCH - len(part))], np.int32),
                "example_mask": np.arange(BATCH) < len(part),
            }
            yield (
                batch,
                [
                    {"id": f"{task}/{start + i}", "prompt": f"what {task}?", "references": [a]}
                    for i, a in enumerate(part)
                ],
            )


def perfect(batch):
    return batch["target"]


def always_red(batch):
    # What stands behind the EOS must not be read.
    row = [*ids("red", 4), *ids("x", 4)]
    return np.tile(np.array(row, np.int32), (len(batch["example_mask"]), 1))


def make(source=None, tasks=TASKS, **options):
    options.setdefault("stream", io.StringIO())
    return evaluator.Evaluator(tasks, source or Source(), detokenize, **options)


def test_scores_and_prediction_files_of_every_task(tmp_path):
    scores = make().run(always_red, tmp_path, "frozen", 30)
    assert scores == {"colour": {"exact_match": 50.0}, "number": {"exact_match": 0.0}}
    folder = tmp_path / "predictions" / "frozen-30"
    assert sorted(p.name for p in folder.iterdir()) == ["colour.jsonl", "number.jsonl"]
    lines = (folder / "colour.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6 and "grün" in lines[3]  # text stays readable
    assert [json.loads(line) for line in lines[2:4]] == [
        {
            "id": f"colour/{i}",
            "prompt": "what colour?",
            "prediction": "red",
            "references": [reference],
            "score": score,
        }
        for i, reference, score in [(2, "red", 100.0), (3, "grün", 0.0)]
    ]


def one_batch(examples):
    batch = {
        "target": np.array([ids("red")] * len(examples), np.int32),
        "example_mask": np.ones(len(examples), bool),
    }
    return [(batch, [{"prompt": ""} | example for example in examples])]


def test_groups_are_scored_apart():
    examples = [
        {"id": "1", "references": ["red"], "groups": "simple"},
        {"id": "2", "references": ["blue"], "groups": "simple hard"},
        {"id": "3", "references": ["red"], "groups": ""},
    ]
    result = evaluator.evaluate_task(TASKS[0], one_batch(examples), perfect, detokenize)
    assert result.scores["exact_match"] == pytest.approx(200 / 3)
    assert result.scores["exact_match/simple"] == 50.0
    assert result.scores["exact_match/hard"] == 0.0
    assert result.reported == "exact_match"
    assert [record.get("groups") for record in result.predictions] == [
        "simple",
        "simple hard",
        None,
    ]


def test_a_hidden_split_has_predictions_to_submit_and_no_score(tmp_path):
    task = evaluator.Task("hidden", "vqa", "exact_match", "vqa")
    examples = [{"id": str(i), "references": []} for i in (7, 3)]
    stream = io.StringIO()
    runner = make(lambda name: one_batch(examples), [task, *TASKS[:0]], stream=stream)
    assert runner.run(perfect, tmp_path, "test", 5) == {"hidden": {}}
    folder = tmp_path / "predictions" / "test-5"
    assert json.loads((folder / "hidden.submission.json").read_text()) == [
        {"question_id": 7, "answer": "red"},
        {"question_id": 3, "answer": "red"},
    ]
    assert "no public references" in stream.getvalue()
    runner.write_scores(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["tasks"] == {}


def test_a_submission_by_document_has_its_questions(tmp_path):
    task = evaluator.Task("due", "document", "exact_match", "due")
    examples = [{"id": f"d/{i}", "references": [], "question": f"what {i}?"} for i in (7, 3)]
    runner = make(lambda name: one_batch(examples), [task])
    runner.run(perfect, tmp_path, "test", 5)
    (line,) = (tmp_path / "predictions/test-5/due.submission.jsonl").read_text().splitlines()
    assert [each["key"] for each in json.loads(line)["annotations"]] == ["what 7?", "what 3?"]


def test_both_models_see_the_same_examples_read_once(tmp_path):
    source = Source()
    run = make(source).run
    assert run(perfect, tmp_path, "frozen", 0)["colour"]["exact_match"] == 100.0
    assert run(always_red, tmp_path, "tuned", 0)["colour"]["exact_match"] == 50.0
    assert source.reads == ["colour", "number"]
    frozen, tuned = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((tmp_path / "predictions").glob("*/colour.jsonl"))
    )
    assert [p["id"] for p in frozen] == [p["id"] for p in tuned]


def test_a_task_that_does_not_fit_in_memory_is_read_again(tmp_path):
    source = Source()
    one_batch = BATCH * (8 * 4 + 1)
    runner = make(source, memory=one_batch)  # number has one batch, colour two
    for label in ("frozen", "tuned"):
        assert runner.run(perfect, tmp_path, label, 0)["colour"]["exact_match"] == 100.0
    assert source.reads == ["colour", "number", "colour"]


def test_an_interrupted_task_is_not_kept_in_part(tmp_path):
    source = Source()
    runner = make(source)
    calls = iter([perfect, None])

    def fails_on_the_second_batch(batch):
        return next(calls)(batch)

    with pytest.raises(TypeError):
        runner.run(fails_on_the_second_batch, tmp_path, "frozen", 0)
    assert not (tmp_path / "predictions").exists()
    runner.run(perfect, tmp_path, "frozen", 0)
    assert len(runner.results["colour"].predictions) == 6


def test_files_appear_whole_and_replace_older_ones(tmp_path):
    path = tmp_path / "deep" / "x.jsonl"
    writing.write_predictions(path, [{"id": "a"}])

    def broken():
        yield {"id": "b"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        writing.write_predictions(path, broken())
    assert path.read_text() == '{"id": "a"}\n'
    writing.write_predictions(path, [{"id": "c"}])
    assert path.read_text() == '{"id": "c"}\n'
    assert [p.name for p in path.parent.iterdir()] == ["x.jsonl"]


def test_progress_is_one_line_per_task(tmp_path):
    stream = io.StringIO()
    make(stream=stream).run(perfect, tmp_path, "tuned", 7)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("tuned 7: task 1 of 2, colour: 6 examples, ")
    assert first.endswith(" examples/s, exact_match 100.00")
    assert second.startswith("tuned 7: task 2 of 2, number: 4 examples, ")


def test_progress_on_a_terminal_rewrites_its_line(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    make(stream=stream).run(perfect, tmp_path, "tuned", 7)
    assert stream.getvalue().count("\n") == 2
    assert "colour: 4 examples" in stream.getvalue()  # after the first of two batches


def test_only_the_primary_process_writes(tmp_path):
    stream = io.StringIO()
    runner = make(primary=False, stream=stream)
    assert runner.run(perfect, tmp_path, "tuned", 0)["number"]["exact_match"] == 100.0
    runner.write_scores(tmp_path / "scores.json")
    assert not list(tmp_path.iterdir()) and not stream.getvalue()


def test_what_cannot_be_written_ends_nothing_where_it_is_told(tmp_path):
    (tmp_path / "predictions").write_text("a file where the folder should be")
    evaluate, told = make(), []
    scores = evaluate.run(always_red, tmp_path, "tuned", 3, told.append)
    evaluate.write_scores(tmp_path / "predictions" / "scores.json", told.append)
    assert scores == {"colour": {"exact_match": 50.0}, "number": {"exact_match": 0.0}}
    assert len(told) == 3 and all("predictions" in str(error) for error in told)
    with pytest.raises(OSError):
        make().run(always_red, tmp_path, "tuned", 3)


def test_scores_file(tmp_path):
    runner = make()
    with pytest.raises(ValueError, match="before the first run"):
        runner.write_scores(tmp_path / "scores.json")
    runner.run(always_red, tmp_path, "tuned", 12)
    runner.write_scores(tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["label"] == "tuned" and written["step"] == 12
    assert written["predictions"] == str(tmp_path / "predictions" / "tuned-12")
    colour = written["tasks"]["colour"]
    assert colour.pop("seconds") >= 0
    assert colour == {
        "family": "vqa",
        "metric": "exact_match",
        "scores": {"exact_match": 50.0},
        "examples": 6,
        "constant": {"answer": "red", "score": 50.0},
    }
    assert written["tasks"]["number"]["constant"] == {"answer": "1", "score": 25.0}
    assert written["identity"] == ""


def test_a_prediction_reaches_the_metric_as_it_was_decoded(tmp_path):
    texts = [" red", "red\n", "\tnan ", "", "\u3000"]
    batch = {"example_mask": np.ones(5, bool)}
    examples = [{"id": "", "prompt": "", "references": [text]} for text in texts]
    seen = []

    def metric(predictions, references):
        seen.append((list(predictions), [list(each) for each in references]))
        return {"m": 0.0}

    result = evaluator.evaluate_task(
        evaluator.Task("t", "g", "m"),
        [(batch, examples)],
        lambda batch: np.array([[*map(ord, text), EOS, *[0] * 9][:9] for text in texts]),
        detokenize,
        {"m": metric},
    )
    assert seen[0] == (texts, [[text] for text in texts])
    writing.write_predictions(tmp_path / "p.jsonl", result.predictions)
    lines = (tmp_path / "p.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line)["prediction"] for line in lines if line] == texts


def test_a_task_can_be_evaluated_on_its_own():
    task = evaluator.Task("colour", "vqa", "first_letter")

    def first_letter(predictions, references):
        pairs = zip(predictions, references, strict=True)
        return {"first_letter": sum(p[0] == r[0][0] for p, r in pairs)}

    seen = []
    result = evaluator.evaluate_task(
        task,
        Source()("colour"),
        perfect,
        detokenize,
        metrics={"first_letter": first_letter},
        progress=lambda examples, seconds: seen.append(examples),
    )
    assert result.scores == {"first_letter": 6.0} and seen == [4, 6]


@pytest.mark.parametrize("name", sorted(set(metrics.METRICS) - {"meteor"}))  # that needs Java
def test_own_scores_average_to_the_score_of_the_task(name):
    """True of every registered metric but those listed as scores of a whole set."""
    pairs = [
        ("12", ["12"] * 10),
        ("a red dog", ["a red cat"] * 10),
        ("[0.000,0.000,0.500,0.500]", ["[0.000,0.000,0.500,0.400]"] * 10),
        ("yes", ["no"] * 10),
        ("yes", ["yes", "yes"] + ["no"] * 8),
    ]
    pairs = [p for p in pairs if name != "iou" or p[1][0].startswith("[")] + [
        ("[0.100,0.100,0.200,0.200]", ["[0.500,0.500,0.900,0.900]"] * 10)
    ]
    batch = {"example_mask": np.ones(len(pairs), bool)}
    examples = [
        {"id": str(i), "prompt": "", "references": references}
        for i, (_, references) in enumerate(pairs)
    ]
    result = evaluator.evaluate_task(
        evaluator.Task("t", "g", name),
        [(batch, examples)],
        lambda batch: np.array([ids(text, 40) for text, _ in pairs]),
        detokenize,
    )
    assert result.reported == metrics.PRIMARY[name]
    own = [record.get("score") for record in result.predictions]
    if name in evaluator.CORPUS_METRICS:
        assert own == [None] * len(pairs)
    else:
        assert len(set(own)) > 1
        np.testing.assert_allclose(np.mean(own), result.scores[result.reported])


@pytest.mark.parametrize(
    ("row", "expected"),
    [([5, 6, 1, 7], [5, 6]), ([5, 0, 6, 0], [5, 6]), ([1, 5], []), ([5, 6], [5, 6]), ([], [])],
)
def test_until_eos(row, expected):
    found = evaluator.until_eos(np.array(row, np.int32))
    assert found == expected and all(type(i) is int for i in found)


def test_mistakes_of_a_user_are_sentences(tmp_path):
    with pytest.raises(UserError, match="name at least one, and none of them twice"):
        make(tasks=[TASKS[0], TASKS[0]])
    with pytest.raises(UserError, match="name at least one"):
        make(tasks=[])
    with pytest.raises(UserError, match="task colour has no examples"):
        make(lambda name: iter([])).run(perfect, tmp_path, "frozen", 0)
    with pytest.raises(UserError, match="asks for the metric 'bleu'; there are anls, "):
        make(tasks=[evaluator.Task("colour", "vqa", "bleu")]).run(perfect, tmp_path, "frozen", 0)
    with pytest.raises(UserError, match="the label is 'a/b'"):
        make().run(perfect, tmp_path, "a/b", 0)


@pytest.mark.parametrize("rows", [BATCH - 1, BATCH + 1])
def test_generated_rows_must_match_the_batch(tmp_path, rows):
    with pytest.raises(ValueError, match=rf"\({rows}, 3\) for a batch of 4"):
        make().run(lambda batch: np.zeros((rows, 3), np.int32), tmp_path, "frozen", 0)


def test_examples_must_match_the_batch():
    batch = {"example_mask": np.array([True, True, False])}
    with pytest.raises(ValueError, match="1 examples came with a batch of 2 rows"):
        evaluator.evaluate_task(
            TASKS[0],
            [(batch, [{"id": "", "prompt": "", "references": ["a"]}])],
            lambda batch: np.zeros((3, 1), np.int32),
            detokenize,
        )


def test_importing_evaluation_loads_no_tensorflow():
    code = (
        "import sys, omni_smola.evaluation.decode, omni_smola.evaluation.evaluator, "
        "omni_smola.evaluation.report; sys.exit('tensorflow' in sys.modules)"
    )
    root = pathlib.Path(evaluator.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
