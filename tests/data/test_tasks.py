"""Registration of tasks and mixtures with SeqIO."""

import pytest
import seqio

from omni_smola.data import mixtures, tasks
from omni_smola.data.features import Converter
from omni_smola.errors import UserError

from .conftest import box_records, caption_records, question_records


def test_importing_registers_nothing(run_python):
    done = run_python(
        "import seqio\n"
        "from omni_smola.data import mixtures, pipeline, tasks\n"
        "assert not seqio.TaskRegistry.names() and not seqio.MixtureRegistry.names()\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_mini_suite_has_its_tasks_and_may_be_registered_again():
    names = tasks.register()
    assert names == tasks.register()
    assert [name for name in names if name.startswith("mini_")] == list(mixtures.resolve("mini"))
    row = tasks.get("mini_document").row
    assert (row.kind, row.metric, row.group) == ("question", "anls", "document")


def test_folders_become_tasks_with_the_metric_of_their_kind(tasks_of_three):
    assert tasks.get("cap").row.metric == "cider"
    assert tasks.get("ask").row.metric == "vqa_accuracy"  # ten answers each
    assert tasks.get("find").row.metric == "iou"
    assert (tasks.get("find_describe").row.kind, tasks.get("find_describe").row.metric) == (
        "describe",
        "cider",
    )


def test_options_of_a_folder(write_folder):
    single = [record | {"answers": ["yes"]} for record in question_records(2)]
    choice = {"image": None, "question": "?", "choices": ["x", "y"], "answer": 0}
    names = tasks.register(
        {
            "plain": str(write_folder("a", train=single)),
            "doc": {"path": str(write_folder("b", train=single)), "metric": "anls", "group": "g"},
            "pick": {"path": str(write_folder("c", train=[choice])), "kind": "choice_text"},
        }
    )
    assert names[-3:] == ["plain", "doc", "pick"]
    assert tasks.get("plain").row.metric == "exact_match"
    assert (tasks.get("doc").row.metric, tasks.get("doc").row.group) == ("anls", "g")
    assert tasks.get("pick").row.kind == "choice_text"


WORDS = "because the shape on the left has more sides than any of the others"


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["yes"], "exact_match"),
        (["a dog", "the brown dog"], "exact_match"),
        (["3", WORDS], "rouge_l"),
        ([WORDS], "rouge_l"),
        (["\u5de6\u8fb9\u7684\u5f62\u72b6\u6bd4\u5176\u4ed6\u7684\u591a" * 4], "anls"),
        ([WORDS] * 10, "vqa_accuracy"),
    ],
)
def test_the_metric_follows_the_answers_and_is_explained(write_folder, answers, metric):
    records = [record | {"answers": answers} for record in question_records(3)]
    told = []
    folder = str(write_folder("my-qa", train=records))
    tasks.register({"qa": folder}, told=told.append)
    assert tasks.get("qa").row.metric == metric
    (line,) = told
    assert f"task qa (of the folder 'my-qa'): kind question, scored by {metric} (" in line
    assert "--config.data.sources.qa.metric=METRIC" in line
    tasks.register({"qa": {"path": folder, "metric": "anls"}}, told=told.append)
    assert tasks.get("qa").row.metric == "anls" and "as you chose" in told[1]


def test_a_folder_whose_lines_are_all_bad_is_refused_when_it_becomes_a_task(write_folder):
    folder = str(write_folder("x", train=["{", "{"]))
    with pytest.raises(UserError, match=r"None of the 2 lines .*line 1: not valid JSON"):
        tasks.register({"x": folder}, on_error="skip")


def test_mistakes_in_the_sources_of_a_config(write_folder):
    path = str(write_folder("a", train=caption_records(1)))
    with pytest.raises(UserError, match=r"'cap': option 'metrics' is unknown; known: path, kind"):
        tasks.register({"cap": {"path": path, "metrics": "cider"}})
    with pytest.raises(UserError, match=r"'cap' needs a 'path'"):
        tasks.register({"cap": {"kind": "caption"}})
    with pytest.raises(UserError, match=r"metric 'sider' is unknown\. Did you mean 'cider'\?"):
        tasks.register({"cap": {"path": path, "metric": "sider"}})
    with pytest.raises(UserError, match=r"called 'my-cap'.*Call it 'my_cap'"):
        tasks.register({"my-cap": path})
    with pytest.raises(UserError, match=r"name 'mini_vqa' .* choose another"):
        tasks.register({"mini_vqa": path})


def test_unknown_names_get_the_nearest_known_one():
    tasks.register()
    with pytest.raises(UserError, match=r"'mini_captoin' is unknown\. Did you mean 'mini_caption'"):
        tasks.get("mini_captoin")
    with pytest.raises(UserError, match=r"'mimi' is unknown\. Did you mean 'mini'"):
        mixtures.resolve("mimi")
    with pytest.raises(UserError, match=r"'mini_vqaa' is unknown"):
        mixtures.resolve({"mini_vqa": 1, "mini_vqaa": 1})


@pytest.mark.parametrize("rate", [0, -1, "much", True, float("nan")])
def test_rates_must_be_above_zero(rate):
    tasks.register()
    with pytest.raises(UserError, match=r"rate of task 'mini_vqa' is .*above zero"):
        mixtures.resolve({"mini_vqa": rate})


def test_an_empty_mixture_is_refused():
    with pytest.raises(UserError, match="mixture is empty"):
        mixtures.resolve({})


def test_seqio_users_get_their_tasks_and_mixtures(tasks_of_three):
    mixtures.register("all_three", dict.fromkeys(tasks_of_three, 1.0))
    lengths = {"prompt": 16, "target": 24, "image": 1}
    for name, count in [("cap", 7), ("ask", 5), ("find", 4), ("all_three", None)]:
        dataset = seqio.get_dataset(
            name,
            lengths,
            feature_converter=Converter(24),
            dataset_split="train",
            shuffle=True,
            seed=0,
        )
        rows = list(dataset.take(20).as_numpy_iterator())
        assert count is None or len(rows) == count
        assert rows[0]["image"].shape == (24, 24, 3)
        assert rows[0]["image"].any()
        assert rows[0]["prompt"].shape == (16,)


def test_seqio_evaluator_scores_a_task(write_folder):
    records = question_records(4)
    tasks.register({"ask": str(write_folder("a", validation=records))})
    evaluator = seqio.Evaluator(
        "ask",
        feature_converter=Converter(24),
        eval_split="validation",
        sequence_length={"prompt": 32, "target": 8, "image": 1},
        target_field_name="target",
    )
    vocabulary = tasks.get("ask").output_features["target"].vocabulary

    def predict(dataset):
        ids = [*vocabulary.encode("yes"), vocabulary.eos_id]
        return [(i, ids) for i, _ in dataset]

    metrics, _ = evaluator.evaluate(
        compute_metrics=True, step=0, predict_fn=predict, score_fn=lambda ds: []
    )
    assert metrics.result()["ask"]["vqa_accuracy"] == pytest.approx(100.0)


def test_box_folders_keep_both_directions_apart(write_folder):
    names = tasks.register({"find": str(write_folder("f", train=box_records(2)))})
    assert names[-2:] == ["find", "find_describe"]
    with pytest.raises(UserError, match="'find_describe'"):
        tasks.register(
            {
                "find": str(write_folder("g", train=box_records(2))),
                "find_describe": str(write_folder("h", train=caption_records(2))),
            }
        )
