"""Compares our metrics with other people's public code, which is fetched and never installed.

    pip download --no-deps -d wheels salesforce-lavis==1.0.2 lmms-eval==0.7.3 anls==0.0.2
    python third_party/official_scorers.py --wheels=wheels

Those packages want other versions of half of Python, so the functions in question are taken out of
their files by name. Prints, for each metric, on how many items it was compared and the largest
difference of a score of 0 to 100. The items are those of tests/metrics/odd_texts.py. The caption
metrics are compared in tests/parity/test_scorers.py, scorers that no package has in
tests/metrics/test_odd_texts.py.
"""

import ast
import contextlib
import functools
import io
import math
import pathlib
import re
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from omni_smola import metrics
from omni_smola.metrics.iou import box_iou
from omni_smola.metrics.vqa_accuracy import normalize, normalize_evalai

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "metrics"))
import odd_texts

_WHEELS = flags.DEFINE_string("wheels", None, "folder of the downloaded wheels", required=True)
_ITEMS = flags.DEFINE_integer("items", 4000, "how many items of each metric")


def _take(folder: pathlib.Path, path: str, *names: str) -> list[Any]:
    """Classes and functions of one file by name, with nothing else of it run."""
    tree = ast.parse((folder / path).read_text(encoding="utf-8"))
    body = [node for node in tree.body if getattr(node, "name", None) in names]
    for node in body:
        node.decorator_list = []
    space: dict[str, Any] = {"re": re, "math": math, "np": np, "List": list, "sys": sys}
    exec(compile(ast.Module(body, []), path, "exec"), space)
    return [space[name] for name in names]


def _leave_one_out(prediction: str, answers: list[str]) -> float:
    """The loop of the official scripts, over numbered answers."""
    numbered = list(enumerate(answers))
    scores = []
    for each in numbered:
        others = [other for other in numbered if other != each]
        scores.append(min(1, sum(text == prediction for _, text in others) / 3))
    return sum(scores) / len(scores)


def _vqa(folder: pathlib.Path, rng: np.random.Generator) -> float:
    (theirs,) = _take(folder, "lavis/common/vqa_tools/vqa_eval.py", "VQAEval")
    scorer = theirs()

    def process(text: str) -> str:
        return scorer.processDigitArticle(scorer.processPunctuation(text))

    def official(prediction: str, answers: list[str]) -> float:
        prediction, *answers = (
            text.replace("\n", " ").replace("\t", " ").strip() for text in (prediction, *answers)
        )
        if len(set(answers)) > 1:
            prediction, answers = process(prediction), [process(text) for text in answers]
        return _leave_one_out(prediction, answers)

    return _largest(rng, odd_texts.answers, metrics.vqa_accuracy, official)


def _lavis(folder: pathlib.Path, rng: np.random.Generator) -> float:
    (theirs,) = _take(folder, "lavis/common/vqa_tools/vqa_eval.py", "VQAEval")

    def official(prediction: str, answers: list[str]) -> float:
        given = [{"answer": text, "answer_id": i} for i, text in enumerate(answers)]
        question = {"answers": given, "question_type": "", "answer_type": ""}
        scorer = theirs()
        scorer.vqa = types.SimpleNamespace(qa={0: question})
        scorer.vqaRes = types.SimpleNamespace(qa={0: {"answer": prediction}})
        scorer.accuracy, scorer.evalQA, scorer.evalQuesType, scorer.evalAnsType = {}, {}, {}, {}
        scorer.n = 9
        with contextlib.redirect_stdout(io.StringIO()):
            scorer.evaluate([0])
        return scorer.accuracy["overall"] / 100

    return _largest(rng, odd_texts.answers, metrics.vqa_accuracy_lavis, official)


def _evalai(folder: pathlib.Path, rng: np.random.Generator) -> float:
    path = "lmms_eval/tasks/_task_utils/vqa_eval_metric.py"
    (theirs,) = _take(folder, path, "EvalAIAnswerProcessor")
    process = theirs()

    def official(prediction: str, answers: list[str]) -> float:
        return _leave_one_out(process(prediction), [process(text) for text in answers])

    return _largest(rng, odd_texts.answers, metrics.vqa_accuracy_evalai, official)


def _processing(folder: pathlib.Path, rng: np.random.Generator) -> float:
    """How many texts, in percent, the two processors make something else of than ours."""
    (lavis,) = _take(folder, "lavis/common/vqa_tools/vqa_eval.py", "VQAEval")
    path = "lmms_eval/tasks/_task_utils/vqa_eval_metric.py"
    (evalai,) = _take(folder, path, "EvalAIAnswerProcessor")
    first, second, wrong = lavis(), evalai(), 0
    for _ in range(_ITEMS.value):
        text = odd_texts.text(rng).replace("\n", " ").replace("\t", " ").strip()
        wrong += first.processDigitArticle(first.processPunctuation(text)) != normalize(text)
        wrong += second(text) != normalize_evalai(text)
    return 100.0 * wrong / _ITEMS.value


def _relaxed(folder: pathlib.Path, rng: np.random.Generator, strip: bool = False) -> float:
    (theirs,) = _take(folder, "lmms_eval/tasks/chartqa/utils.py", "relaxed_correctness")

    def official(prediction: str, answers: Sequence[str]) -> float:
        # Qwen-VL strips what its model wrote before it calls this function of Pix2Struct.
        return max(theirs(prediction.strip() if strip else prediction, text) for text in answers)

    ours = metrics.relaxed_accuracy_stripped if strip else metrics.relaxed_accuracy
    return _largest(rng, _draw_chart, ours, official)


def _stripped(folder: pathlib.Path, rng: np.random.Generator) -> float:
    return _relaxed(folder, rng, strip=True)


def _draw_chart(rng: np.random.Generator) -> tuple[str, list[str]]:
    draw = odd_texts.number if rng.integers(3) else odd_texts.text
    return odd_texts.answers(rng, draw, int(rng.integers(1, 4)))


def _gqa(folder: pathlib.Path, rng: np.random.Generator) -> float:
    (theirs,) = _take(folder, "lavis/common/vqa_tools/vqa_eval.py", "VQAEval")
    scorer = theirs()

    def official(prediction: str, answers: Sequence[str]) -> float:
        prediction, answer = (
            scorer.processDigitArticle(scorer.processPunctuation(text))
            for text in (prediction, answers[0])
        )
        return float(prediction == answer)

    draw = functools.partial(odd_texts.answers, n=1)
    return _largest(rng, draw, metrics.gqa_accuracy_lavis, official)


def _draw_anls(rng: np.random.Generator) -> tuple[str, list[str]]:
    if rng.integers(2):
        return odd_texts.answers(rng, n=int(rng.integers(1, 4)))
    letters = list("abAB ")
    texts = ["".join(rng.choice(letters, rng.integers(1, 9))) for _ in range(rng.integers(2, 5))]
    prediction, *answers = texts
    return prediction, answers


def _anls_rrc(folder: pathlib.Path, rng: np.random.Generator) -> float:
    names = ("levenshtein_distance", "anls")
    _, theirs = _take(folder, "lmms_eval/api/metrics.py", *names)
    return _largest(
        rng, _draw_anls, metrics.anls_rrc, lambda text, answers: theirs(answers, [text])["anls"]
    )


def _anls(folder: pathlib.Path, rng: np.random.Generator) -> float:
    source = (folder / "anls/metrics/dist.py").read_text() + "\n"
    (folder / "anls_all.py").write_text(source + (folder / "anls/metrics/score.py").read_text())
    names = ("levenshtein_distance", "normalized_levenshtein_distance")
    found = _take(folder, "anls_all.py", *names, "similatiry_function", "anls_score")
    space = found[-1].__globals__
    space["NL"] = found[1]
    return _largest(rng, _draw_anls, metrics.anls, found[-1])


def _boxes(folder: pathlib.Path, rng: np.random.Generator) -> float:
    (theirs,) = _take(folder, "lmms_eval/tasks/refcoco/utils_rec.py", "compute_iou")
    worst = 0.0
    for _ in range(_ITEMS.value):
        x, y = np.sort(rng.random((2, 2))), np.sort(rng.random((2, 2)))
        a, b = ((*x[i, :1], *y[i, :1], *x[i, 1:], *y[i, 1:]) for i in (0, 1))
        worst = max(worst, abs(100 * (box_iou(a, b) - theirs(a, b))))
    return worst


def _largest(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator], tuple[str, list[str]]],
    ours: Callable[..., dict[str, float]],
    theirs: Callable[[str, list[str]], float],
) -> float:
    """The largest difference of an item's score, and of the mean."""
    items = [draw(rng) for _ in range(_ITEMS.value)]
    expected = [100 * theirs(text, list(answers)) for text, answers in items]
    found = [next(iter(ours([text], [answers]).values())) for text, answers in items]
    assert 0 < np.mean(expected) < 100, "a comparison in which all is right shows nothing"
    mean = next(iter(ours(*map(list, zip(*items, strict=True))).values()))
    return max(np.max(np.abs(np.subtract(found, expected))), abs(mean - np.mean(expected)))


COMPARED = {
    "vqa_accuracy (LAVIS 1.0.2's copy of the official processing)": _vqa,
    "vqa_accuracy_lavis (LAVIS 1.0.2)": _lavis,
    "vqa_accuracy_evalai (MMF's processor, in lmms-eval 0.7.3)": _evalai,
    "both processors, texts that differ": _processing,
    "gqa_accuracy_lavis (LAVIS 1.0.2's processing of both sides)": _gqa,
    "relaxed_accuracy (Pix2Struct's, in lmms-eval 0.7.3)": _relaxed,
    "relaxed_accuracy_stripped (Qwen-VL's, in lmms-eval 0.7.3)": _stripped,
    "anls_rrc (InfographicVQA's, in lmms-eval 0.7.3)": _anls_rrc,
    "anls (anls 0.0.2)": _anls,
    "box_iou (lmms-eval 0.7.3)": _boxes,
}


def main(argv: list[str]) -> None:
    """Prints a line per comparison."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        for wheel in pathlib.Path(_WHEELS.value).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
        for name, compare in COMPARED.items():
            worst = compare(pathlib.Path(folder), np.random.default_rng(0))
            print(f"{name}: {_ITEMS.value} items, largest difference {worst:.2e}")


if __name__ == "__main__":
    app.run(main)
