"""Prefixes of wrappers: recognised where one makes the names fit, never in silence if two do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_smola.errors import UserError
from omni_smola.pretrained import load, sentences
from omni_smola.pretrained.rules import Family, Rule

from .test_load import FAMILY, assert_equal, expected, make_tensors, told, wanted, write


def wrapped(prefix, tensors=None):
    return {prefix + name: x for name, x in (tensors or make_tensors()).items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "a.b.c.", "x/", "state.model/net.", "deep.0.", "out."]
)
def test_any_prefix(tmp_path, prefix):
    got = load.read(write(tmp_path / "toy", wrapped(prefix)), FAMILY, wanted())
    assert_equal(got, expected(make_tensors()))


def test_a_prefix_of_the_body_alone(tmp_path):
    """A wrapper around a part of the model leaves the rest of the names as they were."""
    tensors = make_tensors()
    head = {name: tensors.pop(name) for name in ("out.weight", "out.bias")}
    path = write(tmp_path / "toy", wrapped("body.", tensors) | head)
    assert_equal(load.read(path, FAMILY, wanted()), expected(make_tensors()))


def test_what_is_amiss_behind_a_prefix_is_still_told(tmp_path):
    tensors = wrapped("module.")
    del tensors["module.out.bias"]
    tensors |= {"module.extra": np.zeros(2, np.float32), "loose": np.zeros(2, np.float32)}
    tensors["module.out.weight"] = np.zeros((2, 9), np.float32)
    message = told(write(tmp_path / "toy", tensors))
    for problem in (
        "missing out.bias",
        "unexpected extra",
        "unexpected loose",
        "out.weight is (2, 9)",
        "read without 'module.'",
    ):
        assert problem in message
    assert "Its own names are such as loose, module." in message


def test_a_second_copy_is_never_chosen_in_silence(tmp_path):
    """An average of the weights beside them, or a student beside its teacher."""
    path = write(tmp_path / "ema", make_tensors() | wrapped("ema."))
    assert "unexpected ema.deep.0.k.weight" in told(path)
    path = write(tmp_path / "two", wrapped("teacher.") | wrapped("student."))
    message = told(path)
    assert "more than once, under the prefixes 'student.' and 'teacher.'" in message
    partly = wrapped("module.") | {"out.bias": np.ones(2, np.float32)}
    assert "unexpected module.out.bias" in told(write(tmp_path / "partly", partly))


def test_a_root_that_the_file_leaves_out(tmp_path):
    family = Family(
        "Toy", (Rule("model.a", "a"), Rule("head", "b")), (r"model\.old",), (), "model."
    )
    leaves = {name: jax.ShapeDtypeStruct((1,), jnp.float32) for name in "ab"}
    ones = np.ones(1, np.float32)
    for names in (
        ["a", "head", "old"],
        ["w.a", "w.head", "w.old"],
        ["model.model.a", "model.head"],
    ):
        path = write(tmp_path / "toy", {name: ones * (name[-1] != "d") for name in names}, None)
        assert_equal(load.read(path, family, leaves), {"a": ones, "b": 0 * ones})
    path = write(tmp_path / "toy", dict.fromkeys(["a", "x.y"], ones), None)
    with pytest.raises(UserError, match=r"missing head.*unexpected .*x\.y"):
        load.read(path, family, leaves)


def test_a_file_of_another_model_shows_its_own_names(tmp_path):
    names = [f"backbone.stages.{i}.blocks.{j}.conv.weight" for i in range(9) for j in range(40)]
    message = told(write(tmp_path / "toy", dict.fromkeys(names, np.zeros(1, np.float32))))
    assert "10 tensors are missing; missing embed.weight or head.weight; missing deep.0" in message
    assert "Its own names are such as backbone.stages.0.blocks.0.conv.weight, backbone" in message
    assert len(message) < 600
    long = {"y" * 5000 + str(i): np.zeros(1, np.float32) for i in range(40)}
    assert len(told(write(tmp_path / "long", long))) < 800


def test_lists_are_cut_to_what_fits():
    problems = [f"missing layer.{i}.weight" for i in range(50)]
    text = sentences.fitted("Start: ", problems, ". End.", 200)
    assert len(text) <= 200
    shown = text.count("missing")
    assert 1 < shown < 8 and text.endswith(f"and {50 - shown} more. End.")
    assert sentences.fitted("Start: ", problems[:2], ". End.") == (
        "Start: missing layer.0.weight; missing layer.1.weight. End."
    )
    assert "more" in sentences.fitted("x" * 600, problems, ".")
    assert sentences.some(["a", "b"]) == "a, b"
    assert sentences.some(map(str, range(9))) == "0, 4, 8"
