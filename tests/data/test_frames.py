"""Frames: what stands around prompts and answers, whatever the family's tokenizer."""

import json

import numpy as np
import pytest

from omni_smola.data import chat_template, frames, framing, render_template
from omni_smola.data import vocabulary as vocabularies
from omni_smola.data.frames import BOS, EOS, IMAGE, Frame, Special
from omni_smola.data.vocabulary.segments import Segments
from omni_smola.errors import UserError

PROMPTS = ["caption in en", "", "  blanks  ", "日本 🎉", "word " * 60]
ODD = {"<turn>": 7, "</turn>": 8}


@pytest.fixture(scope="module")
def vocabulary():
    return vocabularies.load()


@pytest.fixture(scope="module")
def segments(vocabulary):
    """Of a vocabulary with two special tokens."""
    made = Segments(vocabulary)
    made.specials = dict(ODD)
    made.words = {"bos_token": "<turn>", "eos_token": "</turn>"}
    return made


def test_a_t5_reads_the_prompt_and_eos_as_ever(vocabulary):
    made = framing.load("auto", vocabulary)
    assert (made.extra, made.end_id, made.name) == (0, vocabulary.eos_id, "eos")
    assert made.frame.bare
    for prompt in PROMPTS:
        want = [*vocabulary.encode(prompt)[:23], vocabulary.eos_id]
        assert made.prompt(prompt, 24, image=True) == want
        assert made.answer(prompt, 24) == want
        # What TensorFlow's operation makes, which prompts were made with before.
        assert want == [*vocabulary.encode_tf(prompt).numpy()[:23].tolist(), vocabulary.eos_id]


def test_half_of_a_surrogate_pair_is_a_question_mark(vocabulary):
    made = framing.load("auto", vocabulary)
    assert made.prompt("a \ud800 b", image=False) == made.prompt("a ? b", image=False)


def test_no_eos_stands_between_a_decoders_prompt_and_answer(vocabulary):
    ids = vocabulary.encode("caption in en")
    known = {"bos": 2, "<start_of_image>": 90, "<end_of_image>": 91}
    for family, want in {
        "plain": [2, *ids],
        "paligemma": [2, *vocabulary.encode("caption in en\n")],
        "t5gemma2": [2, *ids],
    }.items():
        made = framing.load("auto", vocabulary, family, known)
        assert made.prompt("caption in en", image=False) == want
        assert vocabulary.eos_id not in made.prompt("caption in en", image=True)
    assert framing.load("auto", vocabulary, "plain", known).prompt("", image=False) == [2]


def test_the_image_has_its_place(vocabulary):
    known = {"bos": 2, "<start_of_image>": 90, "<end_of_image>": 91}
    made = {f: framing.load("auto", vocabulary, f, known) for f in frames.FRAMES if f[0] in "pt"}
    assert made["plain"].spans(made["plain"].prompt("caption", image=True), image=True)[0] == 1
    pali = made["paligemma"]
    assert pali.spans(pali.prompt("caption", image=True), image=True)[0] == 0
    second = made["t5gemma2"]
    ids = second.prompt("caption", image=True)
    place, start, end = second.spans(ids, image=True)
    assert (ids[0], ids[place - 1], ids[place]) == (2, 90, 91)
    assert vocabulary.decode(ids[start:end]) == "caption"
    alone = second.prompt("caption", image=False)
    assert second.spans(alone, image=False)[:2] == [0, 1]
    assert 90 not in alone


def test_the_old_frame_comes_back_by_its_name(vocabulary):
    made = framing.load("eos", vocabulary, "plain", {"bos": 2})
    ids = [2, *vocabulary.encode("caption in en"), vocabulary.eos_id]
    assert made.prompt("caption in en", image=False) == ids
    # A model's instruction was the mean of the prompt and EOS, without the start token.
    assert made.spans(ids, image=False) == [0, 1, len(ids)]
    assert made.width(24) == 25
    assert made.name == "eos"
    pali = framing.load("eos", vocabulary, "paligemma", {"bos": 2})
    after = vocabulary.encode("\n")
    assert pali.prompt("caption in en", image=False) == [*ids, *after]
    assert framing.load("auto", vocabulary, "paligemma", {"bos": 2}).name == "paligemma"


@pytest.mark.parametrize("family", ["plain", "paligemma", "vicuna", "t5gemma2"])
def test_a_prompt_is_cut_and_its_frame_is_not(vocabulary, family):
    known = {"bos": 2, "<start_of_image>": 90, "<end_of_image>": 91}
    made = framing.load("auto", vocabulary, family, known)
    width = made.width(10)
    cut = made.prompt("word " * 60, width, image=True)
    short = made.prompt("a", image=True)
    assert len(cut) == width
    _, start, end = made.spans(cut, image=True)
    _, first, last = made.spans(short, image=True)
    assert cut[:start] == short[:first]
    # This vocabulary joins PaliGemma's newline to a word before it.
    assert cut[-1] == short[-1] if family == "paligemma" else cut[end:] == short[last:]
    assert end - start >= 10


def test_a_width_is_what_a_prompt_of_that_length_needs(vocabulary):
    made = framing.load("vicuna", vocabulary, "plain", {"bos": 2})
    assert made.extra == len(made.prompt("", image=True)) > 20
    assert made.frame.estimate() == pytest.approx(made.extra, rel=0.6)


def test_blanks_are_dropped_where_a_template_drops_them(vocabulary):
    llama = Frame(("[INST] ",), after=(" [/INST]",), strip=True, joined=True)
    made = framing.Framing(llama, vocabulary)
    assert made.prompt(" \n a\u3000", image=False) == made.prompt("a", image=False)
    kept = framing.Framing(Frame(), vocabulary)
    assert kept.answer("a") == [*vocabulary.encode("a"), vocabulary.eos_id]


def test_the_text_of_an_answer_has_no_frame(vocabulary):
    made = framing.Framing(Frame(answer=("(",), end=(")", EOS), joined=True), vocabulary)
    ids = made.answer("a dog")
    assert ids[-1] == made.end_id
    assert vocabulary.decode(ids[:-1]) == "(a dog)"
    assert made.text(ids[:-1]) == "a dog"
    # Generated without them, it is what it is.
    assert made.text(vocabulary.encode("a dog")) == "a dog"


def test_an_unknown_frame_names_the_known_ones(vocabulary):
    with pytest.raises(UserError, match="no frame of prompts called 'alpaca': choose one of auto"):
        framing.load("alpaca", vocabulary)
    for family in frames.FRAMES:
        assert frames.named("auto", family) == frames.FRAMES[family]


def test_a_token_that_the_vocabulary_lacks_is_named(vocabulary):
    with pytest.raises(UserError, match=r"needs the token <\|im_start\|>, which the vocabulary"):
        framing.load("chatml", vocabulary, "plain", {"bos": 2})


def test_answers_that_would_be_nothing_but_their_end_are_refused(vocabulary):
    made = framing.load("auto", vocabulary)
    made.check_lengths(2)
    with pytest.raises(UserError, match="target_length is 1, but the end of an answer alone is 1"):
        made.check_lengths(1)


def test_special_tokens_divide_a_text():
    parts = list(frames.divided("<a><ab>x <a> y", {"<a>": 1, "<ab>": 2, "x": 3}))
    assert parts == ["<a>", "<ab>", "x", " ", "<a>", " y"]
    assert [isinstance(part, Special) for part in parts] == [True, True, True, False, True, False]


CHAT = (
    "{% for m in messages %}{{ '<turn>' + m.role + ':\n' + m.content | trim + '</turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>bot:\n' }}{% endif %}"
)


def test_a_template_is_read_as_a_frame(segments, vocabulary):
    template = CHAT.replace("m.role", "('bot' if m.role == 'assistant' else m.role)")
    got = chat_template.read(template, segments, "here")
    assert got == Frame(
        before=("<turn>", "user:\n"),
        seen=("<turn>", "user:\n", IMAGE, "\n"),
        after=("</turn>", "\n", "<turn>", "bot:\n"),
        end=("</turn>",),
        strip=True,
        strip_answer=True,
        joined=True,
    )
    made = framing.Framing(got, vocabulary, segments=segments)
    assert made.end_id == 8
    user = vocabulary.encode("user:\na </turn> dog")
    want = [7, *user, 8, *vocabulary.encode("\n"), 7, *vocabulary.encode("bot:\n")]
    # The end of a turn, spelled out by a user, is text.
    assert made.prompt(" a </turn> dog ", image=False) == want


@pytest.mark.parametrize(
    ("template", "want"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", ("<turn>",)),
        ("{% generation %}u {{ messages[0].content }}{% endgeneration %}", ("u ",)),
        ("{{ messages[0].content }}", ()),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}"
         "{% endfor %}", None),
    ],
)  # fmt: skip
def test_templates_of_many_kinds(segments, template, want):
    answer = "{% if messages | length > 1 %} {{ messages[1].content }}{% endif %}"
    if want is None:  # the answer is not written
        with pytest.raises(UserError, match="does not write a message once"):
            chat_template.read(template, segments, "here")
        return
    got = chat_template.read(template + answer, segments, "here")
    assert (got.before, got.answer, got.end) == (want, (" ",), (EOS,))
    assert not got.strip


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[0].content | upper }}", "does not write a message once and unchanged"),
        ("{{ messages[0].content * 2 }}", "does not write a message once and unchanged"),
        ("{{ raise_exception('no chat here') }}", "no chat here"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ 'a' * 9999999 }}", "characters around one message"),
        ("{{ 'a' * 99999999999 }}", "memory"),
        ("{{ open('/etc/passwd') }}", "'open' is undefined"),
        ("{% for i in range(999999999) %}{% endfor %}", "OverflowError"),
        ("{{ strftime_now('%d') }}", "'strftime_now' is undefined"),
    ],
    ids=str,
)
def test_a_template_that_fails_is_one_sentence(segments, template, said):
    with pytest.raises(UserError, match=said) as raised:
        chat_template.read(template, segments, "FOLDER")
    assert "\n" not in str(raised.value)
    assert "--config.data.frame=" in str(raised.value)
    assert "The chat template of FOLDER" in str(raised.value)


def test_a_template_without_end_is_ended(segments, monkeypatch, tmp_path):
    file = tmp_path / "render_template.py"
    with open(render_template.__file__) as source:
        file.write_text(source.read().replace("SECONDS = 10", "SECONDS = 1"))
    monkeypatch.setattr(render_template, "__file__", str(file))
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match="it ends in no time or takes too much memory"):
        chat_template.read(loop, segments, "here")


def test_a_template_is_found_in_any_of_its_files(tmp_path):
    assert chat_template.find(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": [{"name": "default", "template": "A"}]}))
    assert chat_template.find(tmp_path) == "A"
    config.write_text(json.dumps({"chat_template": [{"name": "rag", "template": "A"}]}))
    assert chat_template.find(tmp_path) is None
    config.write_text(json.dumps({"chat_template": "B"}))
    assert chat_template.find(tmp_path) == "B"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "C"}))
    assert chat_template.find(tmp_path) == "C"
    (tmp_path / "chat_template.jinja").write_text("D")
    assert chat_template.find(tmp_path) == "D"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"chat_template.jinja cannot be read"):
        chat_template.find(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("x" * (1 << 20 | 1))
    with pytest.raises(UserError, match="has more than 1,048,576 bytes"):
        chat_template.find(tmp_path)


def test_a_folders_template_is_the_frame_of_a_language_model(vocabulary, tmp_path):
    template = "Q: {{ messages[0].content }}\nA:{% if messages[1] %} {{ messages[1].content }}" + (
        "{{ '\n' }}{% endif %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template)
    made = framing.load("auto", vocabulary, "plain", {"bos": 2}, tmp_path)
    assert made.prompt("a", image=False) == vocabulary.encode("Q: a\nA:")
    assert made.name.startswith("chat_template ")
    again = framing.load("auto", vocabulary, "vicuna", {"bos": 2}, tmp_path)
    assert again.name == made.name
    # Its name says otherwise, or its family has a processor of its own.
    assert framing.load("plain", vocabulary, "plain", {"bos": 2}, tmp_path).name == "plain"
    assert framing.load("auto", vocabulary, "paligemma", {"bos": 2}, tmp_path).name == "paligemma"
    (tmp_path / "chat_template.jinja").write_text(template.replace("Q:", "Ask:"))
    other = framing.load("auto", vocabulary, "plain", {"bos": 2}, tmp_path)
    assert other.name != made.name


def test_spans_count_what_is_there(vocabulary):
    made = framing.Framing(Frame((BOS, 5), (BOS, 5, IMAGE, 6), (9,)), vocabulary, bos=2)
    ids = made.prompt("caption", image=True)
    assert made.spans(ids, image=True) == [2, 3, len(ids) - 1]
    assert ids[:3] == [2, 5, 6] and ids[-1] == 9
    prompt, target, spans = framing.example(
        made, "caption", "dog", image=False, prompt_length=8, target_length=4
    )
    assert prompt.dtype == target.dtype == spans.dtype == np.int32
    assert spans.tolist() == [0, 2, len(prompt) - 1]
