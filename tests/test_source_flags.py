"""Folders, options and rates that the command line adds to a config, and names of tasks."""

import os

import pytest

from omni_smola import config as configs
from omni_smola import main, source_flags
from omni_smola.config_tasks import task_name
from omni_smola.errors import UserError


def applied(*words: str):
    config = configs.defaults().lock()
    rest, settings = source_flags.split(words)
    source_flags.apply(config, settings)
    assert not any("sources" in word or "rates" in word for word in rest)
    return config


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-photos", "my_photos"),
        ("my photos", "my_photos"),
        ("C++", "C"),
        ("a=b, c", "a_b_c"),
        (".hidden", "hidden"),
        ("v1.2", "v1_2"),
        ("mini:one#2", "mini_one_2"),
        ("\u0444\u043e\u0442\u043e", "\u0444\u043e\u0442\u043e"),
        ("cafe\u0301s", "caf\u00e9s"),
        ("__init__", "__init__"),
        ("x\udce9y", "x_y"),  # a name that is not UTF-8
        ("x" * 255, "x" * 48),
    ],
)
def test_any_folder_gives_a_name_that_seqio_and_a_config_take(folder, name):
    seqio = pytest.importorskip("seqio")
    assert task_name(folder) == name
    seqio.Task(name, seqio.TextLineDataSource({"train": "/x"}), {}, ())
    config = configs.defaults()
    configs.set_folders(config, (os.path.join("/somewhere", folder),))
    assert config.data.sources.to_dict() == {name: f"/somewhere/{folder}"}
    assert config.data.rates.to_dict() == {name: 1.0}


@pytest.mark.parametrize("folder", ["/", "/x/+++", "/x/ ", "/x/\u2013"])
def test_a_folder_without_a_letter_needs_a_name(folder):
    with pytest.raises(UserError, match=r"needs a letter .*sources\.NAME=PATH"):
        configs.set_folders(configs.defaults(), [folder])


def test_names_that_collide_are_a_sentence():
    with pytest.raises(UserError, match=r"called 'my_photos': rename one.*my-photos and .*photos;"):
        configs.set_folders(configs.defaults(), ["a/my-photos", "b/my photos"])


def test_folders_may_have_any_character_after_the_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("C++", "a,b", "a", "b", "x+y", "x", "y"):
        os.mkdir(name)

    def folders(arg: str) -> list[str]:
        return list(configs.parse_arg(arg, folders=(), rank=4).folders)

    assert folders(r"folders=C\+\++a\,b+a") == ["C++", "a,b", "a"]
    assert folders(r"rank=2,folders=a+b") == ["a", "b"]
    assert folders("folders=C++") == ["C++"]  # it is there as a whole
    assert folders("folders=x+y") == ["x", "y"] and folders(r"folders=x\+y") == ["x+y"]
    assert folders(r"folders=back\\slash") == ["back\\slash"]
    assert folders("folders=no+where") == ["no", "where"]
    with pytest.raises(UserError, match=r"'b' is not one of name=value.*comma .* written \\,"):
        folders("folders=a,b")
    assert configs.parse_arg(r"stage=runs/a\,b\+c", stage="").stage == "runs/a,b+c"


def test_two_checkpoints_and_paths_with_a_plus(tmp_path):
    from omni_smola.pretrained import backbones

    (tmp_path / "a+b").mkdir()
    assert backbones.parts(f"{tmp_path}/a+b") == [f"{tmp_path}/a+b"]
    assert backbones.parts(rf"{tmp_path}/a\+b+hf://x/y") == [f"{tmp_path}/a+b", "hf://x/y"]
    assert backbones.parts("siglip+t5") == ["siglip", "t5"]
    assert [backbones.parts(init) for init in ("shipped", "random")] == [["shipped"], ["random"]]
    assert backbones.is_public(f"{tmp_path}/a+b") and not backbones.is_public("shipped")


def test_a_source_by_the_command_line(tmp_path):
    config = applied(
        f"--config.data.sources.my-photos={tmp_path}/a, b+c=d",
        "--config.data.sources.my-photos.metric=rouge_l",
        "--config.data.sources.other",
        str(tmp_path),
        "--config.data.rates.other=2",
        "--config.data.rates.mini_box=0.5",
        "--config.steps=3",
    )
    sources = {
        name: dict(value) if not isinstance(value, str) else value
        for name, value in config.data.sources.items()
    }
    assert sources == {
        "my_photos": {"path": f"{tmp_path}/a, b+c=d", "metric": "rouge_l"},
        "other": str(tmp_path),
    }
    assert config.data.rates.to_dict() == {"my_photos": 1.0, "other": 2.0, "mini_box": 0.5}


def test_an_option_does_not_put_a_folder_into_the_mixture():
    config = configs.defaults()
    config.data.sources.find = "/find"
    config.data.rates.find_describe = 1.0
    _, settings = source_flags.split(["--config.data.sources.find.kind=box"])
    source_flags.apply(config.lock(), settings)
    assert config.data.rates.to_dict() == {"find_describe": 1.0}
    assert dict(config.data.sources.find) == {"path": "/find", "kind": "box"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config.data.sources.x="], r"sources\.x= needs a value"),
        (["--config.data.sources.x"], r"sources\.x needs a value"),
        (["--config.data.sources.x.metric=iou"], r"no data source 'x'.*sources\.x=PATH"),
        (
            ["--config.data.sources.x=/x", "--config.data.sources.x.metrik=iou"],
            r"no option 'metrik', but path, kind.*mean metric\?",
        ),
        (["--config.data.rates.x=much"], r"rates\.x=much is not a number"),
        (["--config.data.sources.+=/x"], r"needs a letter or a digit"),
    ],
)
def test_mistakes_are_sentences(words, sentence):
    with pytest.raises(UserError, match=sentence):
        applied(*words)


def test_the_default_workdir_of_a_long_config_is_cut():
    one, other = (main.default_workdir(f"configs/own_data.py:folders={x * 900}") for x in "a\u00e9")
    for name in map(os.path.basename, (one, other)):
        assert len(name.encode()) < 140 and name.startswith("own_data-folders=")
    assert one != main.default_workdir(f"configs/own_data.py:folders={'a' * 901}")
