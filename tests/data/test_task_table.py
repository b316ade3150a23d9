"""The table of tasks: every name in it stands for something."""

import pytest

from omni_smola import config as configs
from omni_smola.data import mixtures, tasks
from omni_smola.data.builders.official import builder as official
from omni_smola.data.preprocessors import KINDS
from omni_smola.data.task_table import SUITE, TASKS
from omni_smola.errors import UserError
from omni_smola.evaluation.submissions import FORMATS
from omni_smola.metrics import METRICS

ROWS = {row.name: row for row in SUITE}


def test_names_differ():
    names = [row.name for row in (*TASKS, *SUITE)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_a_builder_a_kind_a_metric_and_splits(name):
    row = ROWS[name]
    dataset, _, config = row.source.partition("/")
    builder = official.find(dataset)
    assert not config or config in builder.builder_configs
    assert row.kind in KINDS and row.metric in METRICS
    assert not row.submission or row.submission in FORMATS
    assert row.mome in ("", "general", "rec", "reg", "document")
    named = {part for split in row.splits.values() for part in split.split("+")}
    assert builder.__doc__ and named <= set(builder.SPLITS)
    # What a run evaluates by default has public references, and all but held-out sets train.
    tested = set(row.split("test").split("+"))
    assert tested <= set(builder.SPLITS) and not tested & set(builder.HIDDEN)
    assert row.held_out or "train" in builder.SPLITS
    assert all(file.origin for files in builder.SPLITS.values() for file in files)


def test_the_papers_suites_are_in_the_table():
    for trained, held_out in configs.SUITES.values():
        assert not any(ROWS[name].held_out for name in trained)
        assert all(ROWS[name].held_out for name in held_out)
    trained, held_out = configs.SUITES["mome"]
    groups = {ROWS[name].mome for name in (*trained, *held_out)}
    assert groups == {"general", "rec", "reg", "document"}


def test_a_suite_is_sampled_evaluated_and_reported_as_its_paper_does():
    config = configs.defaults()
    configs.set_tasks(config, "mome")
    assert config.data.mixing == "group" and config.eval.groups == "mome"
    assert "nocaps" not in config.data.rates and "nocaps" in config.eval.tasks.split("+")
    assert "visualmrc" in config.data.rates and "visualmrc" not in config.eval.tasks.split("+")
    config = configs.defaults()
    configs.set_tasks(config, "smola_full")
    assert config.data.mixing == "size" and config.eval.groups == "family"
    assert {"tallyqa", "xm3600"} <= set(config.eval.tasks.split("+"))


def test_held_out_sets_cannot_be_trained_on():
    tasks.register()
    with pytest.raises(UserError, match="'nocaps' is held out: its protocol forbids training"):
        mixtures.resolve({"nocaps": 1.0})


class TestMixing:
    """Of 7 captions, 5 questions and 4 boxes."""

    RATES = {"cap": 1.0, "ask": 2.0, "find": 1.0}

    def test_by_size(self, tasks_of_three):
        assert mixtures.weighted(self.RATES, "train") == self.RATES
        by_size = mixtures.weighted(self.RATES, "train", "size")
        assert by_size == {"cap": 7.0, "ask": 10.0, "find": 4.0}
        capped = mixtures.weighted(self.RATES, "train", "size", cap=5)
        assert capped == {"cap": 5.0, "ask": 10.0, "find": 4.0}
        flat = mixtures.weighted(self.RATES, "train", "size", temperature=2.0)
        assert flat == pytest.approx({"cap": 7**0.5, "ask": 2 * 5**0.5, "find": 2.0})

    def test_by_group_each_has_the_same_share(self, tasks_of_three, monkeypatch):
        groups = {"cap": "general", "ask": "general", "find": "rec"}
        for name, group in groups.items():
            object.__setattr__(tasks.get(name).row, "mome", group)
        rates = {"cap": 1.0, "ask": 1.0, "find": 1.0}
        mixed = mixtures.weighted(rates, "train", "group")
        assert mixed == pytest.approx({"cap": 7 / 12, "ask": 5 / 12, "find": 1.0})

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"mixing": "sizes"}, "mixing is one of rates, size, group"),
            ({"mixing": "size", "temperature": 0.0}, "a temperature is above 0"),
            ({"mixing": "size", "cap": -1}, "a cap 0 or more"),
            ({"mixing": "group"}, "'cap' is in none of MoME's groups"),
        ],
    )
    def test_mistakes_are_sentences(self, tasks_of_three, options, sentence):
        with pytest.raises(UserError, match=sentence):
            mixtures.weighted(self.RATES, "train", **options)
