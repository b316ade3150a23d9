"""Families drawn from objects: captions, easy-vqa's questions, counts, boxes, choices.

Every function here takes (side, number of the example, its random generator) and returns a record.
"""

from collections.abc import Sequence

import numpy as np

from omni_smola.data.builders.mini_suite import drawing, ingredients
from omni_smola.data.builders.mini_suite.ingredients import COLORS, SHAPES, Sprite
from omni_smola.data.builders.mini_suite.records import Record, pick, record

ANNOTATORS = 10
_HALF = drawing.SIZE // 2
_WHOLE = (0, 0, drawing.SIZE, drawing.SIZE)
_DIRECTIONS = (("left", 0, -1), ("right", 0, 1), ("top", 1, -1), ("bottom", 1, 1))
_SYNONYMS = {
    "yes": ("yeah", "yep"),
    "no": ("nope", "nah"),
    "rectangle": ("box", "block"),
    "circle": ("disc", "dot"),
    "gray": ("grey", "silver"),
    "teal": ("turquoise", "blue green"),
    "brown": ("dark red", "rust"),
    "green": ("lime", "bright green"),
}


def _two(side: str, rng: np.random.Generator) -> tuple[Sprite, Sprite]:
    """Two sprites that differ in colour or shape."""
    first = pick(ingredients.shapes(side), rng)
    while True:
        second = pick(ingredients.shapes(side), rng)
        if second.full_name != first.full_name:
            return first, second


def _draw_pair(
    first: Sprite, second: Sprite, upright: bool, rng: np.random.Generator
) -> drawing.Image.Image:
    """Draws `first` above (upright) or left of `second`."""
    image = drawing.canvas(first.background)
    shift = int(rng.integers(-8, 9))
    start = _HALF // 2 + shift
    for i, sprite in enumerate((first, second)):
        near, far = i * _HALF + 2, (i + 1) * _HALF - 2
        cell = (start, near, start + _HALF, far) if upright else (near, start, far, start + _HALF)
        drawing.place(image, sprite, cell, int(rng.integers(22, 41)), rng)
    return image


def caption(side: str, index: int, rng: np.random.Generator) -> Record:
    """Two objects, one above or left of the other; five captions of at most ten words."""
    first, second = _two(side, rng)
    upright = index % 2 == 0
    a, b = first.full_name, second.full_name
    if upright:
        captions = (
            f"a {a} above a {b}",
            f"a {b} below a {a}",
            f"a {b} under a {a}",
            f"the {a} is above the {b}",
            f"a {a} on top and a {b} below",
        )
    else:
        captions = (
            f"a {a} left of a {b}",
            f"a {b} right of a {a}",
            f"a {a} and a {b} on its right",
            f"the {a} is left of the {b}",
            f"a {a} beside a {b}",
        )
    return record(_draw_pair(first, second, upright, rng), references=captions)


def pretrain_caption(side: str, index: int, rng: np.random.Generator) -> Record:
    """One object, a shape or (every fourth) a handwritten digit; five captions."""
    if index % 4 == 3:
        sprite = pick(ingredients.digits(side), rng)
        noun, background = f"handwritten {sprite.name}", drawing.pastel(rng)
    else:
        sprite = pick(ingredients.shapes(side), rng)
        noun, background = sprite.full_name, sprite.background
    image = drawing.canvas(background)
    box = drawing.place(image, sprite, _WHOLE, int(rng.integers(18, 49)), rng)
    middle = [(box[i] + box[i + 2]) / 2 for i in (0, 1)]
    column, row = ("left center right".split(), "top middle bottom".split())
    where = f"{row[int(middle[1] // 32)]} {column[int(middle[0] // 32)]}"
    captions = (
        f"a {noun}",
        f"there is a {noun}",
        f"a {noun} at the {where}",
        f"one {noun} on a plain background",
        f"the {noun} is at the {where}",
    )
    return record(image, references=captions)


def vqa(side: str, index: int, rng: np.random.Generator) -> Record:
    """An image and a question of easy-vqa, as they are; ten annotators, most of whom agree.

    Half the questions are open, a quarter each are answered yes and no.
    """
    kind = ("open", "yes", "open", "no")[index % 4]
    pool = ingredients.questions(side, kind)
    question = pool[(index // (2 if kind == "open" else 4)) % len(pool)]
    image = ingredients.easy_vqa_image(question.folder, question.image)
    image = image.resize((drawing.SIZE, drawing.SIZE), drawing.Image.Resampling.BILINEAR)
    answers = [question.answer] * ANNOTATORS
    for place in range(int(rng.integers(4)) if question.answer in _SYNONYMS else 0):
        answers[2 * place + 1] = pick(_SYNONYMS[question.answer], rng)
    return record(image, question=question.text, references=answers)


def pretrain_vqa(side: str, index: int, rng: np.random.Generator) -> Record:
    """An open question of easy-vqa, its shape drawn anew at another place and size."""
    sprite = pick(ingredients.shapes(side), rng)
    image = drawing.canvas(sprite.background)
    drawing.place(image, sprite, _WHOLE, int(rng.integers(14, 49)), rng)
    question, answer = pick(
        (
            ("what color is the shape?", sprite.color),
            (f"what color is the {sprite.name}?", sprite.color),
            (f"what is the color of the {sprite.name}?", sprite.color),
            ("what is the color of the shape?", sprite.color),
            ("what shape is in the image?", sprite.name),
            ("what shape does the image contain?", sprite.name),
            ("what shape is present?", sprite.name),
            (f"what is the {sprite.color} shape?", sprite.name),
        ),
        rng,
    )
    return record(image, question=question, references=[answer] * ANNOTATORS)


def count(side: str, index: int, rng: np.random.Generator) -> Record:
    """1 to 6 objects on a 3 x 3 grid; how many of one kind are there? Answers 0 to 6, balanced."""
    answer = index % 7
    kind = ("objects", "name", "color", "digits")[int(rng.integers(0 if answer else 1, 4))]
    total = answer if kind == "objects" else int(rng.integers(max(answer, 1), 7))
    shapes, digits = ingredients.shapes(side), ingredients.digits(side)
    if kind == "objects":
        asked = "objects"
        pool, others = (digits, ()) if rng.integers(4) == 0 else (shapes, ())
    elif kind == "digits":
        asked, pool, others = "digits", digits, shapes
    else:
        sprite = pick(shapes, rng)
        value = getattr(sprite, kind)
        asked = f"{value}s" if kind == "name" else f"{value} shapes"
        pool = tuple(s for s in shapes if getattr(s, kind) == value)
        others = tuple(s for s in shapes if getattr(s, kind) != value)
    image = drawing.canvas(drawing.pastel(rng))
    cells = rng.permutation(9)[:total]
    for i, cell in enumerate(cells):
        x, y = int(cell % 3) * 32, int(cell // 3) * 32
        sprite = pick(pool if i < answer else others, rng)
        drawing.place(image, sprite, (x, y, x + 32, y + 32), int(rng.integers(20, 29)), rng)
    return record(image, question=f"how many {asked} are there?", references=[str(answer)])


def _expressions(target: int, sprites: Sequence[Sprite], boxes: Sequence[drawing.Box]) -> list[str]:
    """The expressions that are true of `sprites[target]` alone."""
    sprite = sprites[target]
    found = []
    for noun, same in (
        (sprite.full_name, [s.full_name == sprite.full_name for s in sprites]),
        (sprite.name, [s.name == sprite.name for s in sprites]),
        (f"{sprite.color} shape", [s.color == sprite.color for s in sprites]),
        ("shape", [True] * len(sprites)),
    ):
        rivals = [i for i, is_same in enumerate(same) if is_same and i != target]
        if not rivals:
            found.append(f"the {noun}")
            continue
        for side, axis, sign in (
            ("left", 0, -1),
            ("right", 0, 1),
            ("top", 1, -1),
            ("bottom", 1, 1),
        ):
            middles = [sign * (box[axis] + box[axis + 2]) / 2 for box in boxes]
            if middles[target] - max(middles[i] for i in rivals) >= 16:
                found.append(f"the {side} {noun}")
    return found


def box(side: str, index: int, rng: np.random.Generator) -> Record:
    """Two or three objects and an expression that is true of one, whose tight box is the answer.

    Box corners are multiples of 4 pixels, that is of 1/24 of the image.
    """
    del index
    while True:
        shapes = [pick(ingredients.shapes(side), rng) for _ in range(int(rng.integers(2, 4)))]
        # Alike in colour or shape, so that one word of the expression cannot be enough.
        if len({s.name for s in shapes}) < 3 or len({s.color for s in shapes}) < 3:
            break
    image = drawing.canvas(shapes[0].background)
    boxes = []
    for sprite, cell in zip(shapes, rng.permutation(4), strict=False):
        # Large in their quarter of the image, so that finding the quarter is most of the task.
        width, height = drawing.fitted(sprite, 4 * int(rng.integers(8, 12)), 4)
        x = int(cell % 2) * _HALF + 4 * int(rng.integers((_HALF - width) // 4 + 1))
        y = int(cell // 2) * _HALF + 4 * int(rng.integers((_HALF - height) // 4 + 1))
        boxes.append((x, y, x + width, y + height))
        drawing.paste(image, sprite, boxes[-1])
    expressions = {i: _expressions(i, shapes, boxes) for i in range(len(shapes))}
    # Quadrants differ along one axis at least, so some object has two expressions or more.
    target = pick([i for i, found in expressions.items() if found], rng)
    chosen = [expressions[target][i] for i in rng.permutation(len(expressions[target]))[:3]]
    corners = [corner / drawing.SIZE for corner in boxes[target]]
    return record(image, question=chosen[0], references=chosen, box=corners)


def pretrain_box(side: str, index: int, rng: np.random.Generator) -> Record:
    """One object anywhere, and the tight box of it; what it is called does not matter."""
    pool = ingredients.digits(side) if index % 4 == 3 else ingredients.shapes(side)
    sprite = pick(pool, rng)
    image = drawing.canvas(drawing.pastel(rng) if index % 4 == 3 else sprite.background)
    width, height = drawing.fitted(sprite, 4 * int(rng.integers(5, 13)), 4)
    x = 4 * int(rng.integers((drawing.SIZE - width) // 4 + 1))
    y = 4 * int(rng.integers((drawing.SIZE - height) // 4 + 1))
    drawing.paste(image, sprite, (x, y, x + width, y + height))
    corners = [corner / drawing.SIZE for corner in (x, y, x + width, y + height)]
    return record(image, question="the object", references=["the object"], box=corners)


def choice(side: str, index: int, rng: np.random.Generator) -> Record:
    """A question with 3 or 4 options; the right one is A, B, C, D equally often."""
    total = 3 + (index // 2) % 2
    kind = ("digit", "color", "shape", "pair")[int(rng.integers(4))]
    if kind == "shape":
        total = 3
    if kind == "digit":
        sprite = pick(ingredients.digits(side), rng)
        question, truth, others = "which digit is shown?", sprite.name, list("0123456789")
    elif kind in ("color", "shape"):
        sprite = pick(ingredients.shapes(side), rng)
        question = f"which {kind} is shown?"
        truth = sprite.color if kind == "color" else sprite.name
        others = list(COLORS if kind == "color" else SHAPES)
    if kind == "pair":
        first, second = _two(side, rng)
        upright, is_first = bool(rng.integers(2)), bool(rng.integers(2))
        image = _draw_pair(first, second, upright, rng)
        where = ("on top", "below") if upright else ("on the left", "on the right")
        question = f"what is {where[not is_first]}?"
        truth, wrong = (first, second)[:: 1 if is_first else -1]
        truth = truth.full_name
        others = [wrong.full_name] + [
            f"{pick(tuple(COLORS), rng)} {pick(SHAPES, rng)}" for _ in range(8)
        ]
        others = list(dict.fromkeys(others))
    else:
        image = drawing.canvas(drawing.pastel(rng))
        drawing.place(image, sprite, _WHOLE, int(rng.integers(32, 65)), rng)
    others = [other for other in others if other != truth]
    start = 1 if kind == "pair" else 0  # the other object is always among the options
    order = [*range(start), *(start + rng.permutation(len(others) - start))]
    options = [others[i] for i in order[: total - 1]]
    options = [options[i] for i in rng.permutation(total - 1)]
    answer = (index // 4) % total
    options.insert(answer, truth)
    return record(image, question, references=[truth], choices=options, answer_index=answer)
