"""Everyday English for the decoder: sentences about people, animals, vehicles and rooms.

A small grammar written for this suite. No package carries photo captions that may be passed on,
and the prose of manuals (prose.py) knows neither dogs nor bicycles; this is what lets the frozen
decoder write the words that captions of photos need. It is text only: no image goes with it.
"""

from collections.abc import Sequence

import numpy as np

from omni_smola.data.builders.mini_suite.records import pick

_COLORS = "black white red blue green yellow orange pink purple brown gray tan".split()
_PEOPLE = (
    "man woman boy girl child baby person lady guy kid toddler player worker skier surfer "
    "cyclist biker climber skateboarder snowboarder runner musician tourist"
).split()
_PLURALS = {
    **{name: f"{name}s" for name in _PEOPLE},
    "man": "men",
    "woman": "women",
    "child": "children",
    "baby": "babies",
    "lady": "ladies",
    "person": "people",
}
_AGES = ("young", "little", "old", "small", "older", "smiling", "blond", "tall")
_CLOTHES = (
    "shirt jacket coat dress hat cap sweater suit uniform swimsuit vest skirt t-shirt helmet"
).split()
_CARRIED = (
    "a backpack,a camera,a bag,a ball,an umbrella,a guitar,a cup,a phone,a flag,a stick,"
    "sunglasses,a book,a bottle,a beard,long hair,a dog"
).split(",")
_COUNTS = ("two", "three", "four", "several", "some", "many", "a group of")
_ANIMALS = (
    "dog dog dog puppy cat horse bird cow sheep duck elephant bear zebra giraffe fox goat penguin"
).split()
_HERDS = {"sheep": "sheep", "puppy": "puppies", "fox": "foxes"}
_SIZES = ("big", "small", "large", "little", "wet", "furry", "black and white", "brown and white")
_VEHICLES = "car truck bus train boat plane van taxi motorcycle bicycle tractor".split()
_FURNITURE = "table desk bed sofa chair shelf counter cabinet floor dresser".split()
_OBJECTS = (
    "lamp pillow book bottle cup box bag picture mirror clock vase bowl plate computer monitor "
    "keyboard television telephone towel candle basket toy blanket paper printer"
).split()
_ROOMS = "room,kitchen,bedroom,bathroom,office,living room,classroom".split(",")
_FOOD = "pizza,cake,sandwich,apple,banana,salad,piece of bread,orange,hot dog,donut".split(",")
_PARTS = "wall,window,door,corner,left side,right side,middle,top,bottom,front,back".split(",")

_STREET = ("on a street", "down the street", "on the sidewalk", "in the city", "on a road")
_GRASS = ("in the grass", "on the grass", "in a field", "through a field", "in the park")
_GRASS += ("in a grassy area", "in the yard", "on a lawn")
_WATER = ("in the water", "in the ocean", "in a lake", "in a river", "in a pool", "through water")
_BEACH = ("on the beach", "in the sand", "near the ocean", "at the beach")
_SNOW = ("in the snow", "through the snow", "down a hill", "on a mountain", "on a snowy hill")
_WOODS = ("in the woods", "on a dirt path", "near a tree", "on a trail", "through the forest")
_TOWN = ("in front of a building", "near a fence", "by a wall", "on a bench", "outside", "at night")
_INSIDE = ("in a room", "in the kitchen", "on a couch", "at a table", "on a bed", "inside")
_STAGE = ("on a stage", "in front of a crowd", "in front of people")

# (third person, plural, participle), what may follow it, and where it is done.
_DEEDS = (
    ("rides ride riding", ("a bike", "a bicycle", "a motorcycle"), _STREET + _WOODS),
    ("rides ride riding", ("a horse",), _GRASS + _BEACH),
    ("rides ride riding", ("a skateboard", "a scooter"), _STREET + ("on a ramp",)),
    ("rides ride riding", ("a wave", "a surfboard"), ("in the ocean", "")),
    ("walks walk walking", ("", "a dog"), _STREET + _BEACH + _WOODS),
    ("runs run running", ("",), _STREET + _GRASS + _BEACH),
    ("stands stand standing", ("",), _STREET + _TOWN + _SNOW + _BEACH),
    ("sits sit sitting", ("",), _TOWN + _INSIDE + _GRASS),
    ("jumps jump jumping", ("", "into the air", "over a fence"), _GRASS + _WATER + _SNOW),
    ("plays play playing", ("", "soccer", "football", "with a ball", "a game"), _GRASS + _BEACH),
    ("plays play playing", ("baseball", "basketball", "tennis"), ("on a court", "on a field", "")),
    ("plays play playing", ("a guitar", "music", "the drums"), _STAGE + _STREET),
    ("swims swim swimming", ("",), _WATER),
    ("climbs climb climbing", ("a rock", "a mountain", "a wall", "a tree"), ("", "outside")),
    ("skis ski skiing", ("",), _SNOW),
    ("snowboards snowboard snowboarding", ("",), _SNOW),
    ("holds hold holding", _CARRIED, _TOWN + _STREET),
    ("looks look looking", ("at the camera", "at something", "out of a window"), ("", "outside")),
    ("eats eat eating", ("", "food", "ice cream", "a hot dog"), _INSIDE + _TOWN),
    ("throws throw throwing", ("a ball", "a frisbee", "snow"), _GRASS),
    ("kicks kick kicking", ("a ball", "a soccer ball"), _GRASS),
    ("takes take taking", ("a picture", "a photo", "a nap"), _TOWN + _BEACH),
    ("talks talk talking", ("", "on the phone", "to each other"), _STREET + _INSIDE),
    ("smiles smile smiling", ("", "at the camera"), ("", "outside")),
    ("dances dance dancing", ("",), _STAGE + _INSIDE),
    ("paddles paddle paddling", ("a boat", "a canoe"), ("on a lake", "in a river")),
    ("reads read reading", ("a book", "the newspaper"), _INSIDE + _TOWN),
    ("slides slide sliding", ("down a slide",), ("", "at a playground")),
    ("works work working", ("", "on a computer"), ("in an office", "outside", "")),
    ("drives drive driving", ("a car", "a truck"), _STREET),
    ("waits wait waiting", ("for a bus", "for a train", "in line"), ("", "outside")),
)
_BEASTLY = (
    ("runs run running", ("", "after a ball", "with a toy"), _GRASS + _SNOW + _BEACH + _WOODS),
    ("jumps jump jumping", ("", "over a bar", "to catch a frisbee"), _GRASS + _WATER),
    ("swims swim swimming", ("", "with a stick"), _WATER),
    ("plays play playing", ("", "with a ball", "with another dog"), _GRASS + _SNOW),
    ("stands stand standing", ("",), _GRASS + _WATER + _WOODS),
    ("lies lie lying", ("",), _GRASS + _INSIDE),
    ("sleeps sleep sleeping", ("",), _INSIDE),
    ("catches catch catching", ("a ball", "a frisbee", "a toy"), _GRASS),
    ("carries carry carrying", ("a stick", "a ball", "something in its mouth"), _GRASS + _WATER),
    ("chases chase chasing", ("a ball", "a bird", "another dog"), _GRASS + _BEACH),
    ("looks look looking", ("at the camera", "at a bird", "up"), ("",)),
    ("eats eat eating", ("grass", "food", "from a bowl"), ("", "in a field", "outside")),
)
_MOVED = (
    ("drives drive driving", ("",), _STREET),
    ("stands stand standing", ("",), _STREET + _TOWN),
    ("moves move moving", ("",), ("on the track", "on the water", "down the road")),
)
_SMALL_WORDS = frozenset("a an the is are of in on at to with and its for there by .".split())


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _dressed(rng: np.random.Generator) -> str:
    """What somebody wears or has, or nothing."""
    kind = int(rng.integers(5))
    if kind < 2:
        form = pick(("in {}", "wearing {}", "in {}"), rng)
        return form.format(_article(f"{pick(_COLORS, rng)} {pick(_CLOTHES, rng)}"))
    return f"with {pick(_CARRIED, rng)}" if kind == 2 else ""


def _somebody(rng: np.random.Generator) -> tuple[str, bool]:
    """Who, and whether they are many."""
    kind = int(rng.integers(8))
    name = pick(_PEOPLE[:8] if rng.integers(3) else _PEOPLE, rng)
    aged = f"{pick(_AGES, rng)} {name}" if rng.integers(3) == 0 else name
    if kind < 5:
        article = "the" if rng.integers(8) == 0 else "a"
        who = f"the {aged}" if article == "the" else _article(aged)
        return f"{who} {_dressed(rng)}".strip(), False
    if kind == 5:
        other = pick(_PEOPLE[:8], rng)
        return f"{_article(aged)} and {_article(other)}", True
    return f"{pick(_COUNTS, rng)} {_PLURALS[name]}", True


def _animal(rng: np.random.Generator) -> tuple[str, bool]:
    name = pick(_ANIMALS, rng)
    look = pick((*_COLORS, *_SIZES), rng) if rng.integers(4) else ""
    kind = int(rng.integers(6))
    if kind < 4:
        return _article(f"{look} {name}".strip()), False
    if kind == 4:
        return f"the {look} {name}".replace("  ", " "), False
    return f"{pick(('two', 'three', 'some'), rng)} {_HERDS.get(name, f'{name}s')}", True


def _vehicle(rng: np.random.Generator) -> tuple[str, bool]:
    look = pick((*_COLORS, "old", "large"), rng)
    return _article(f"{look} {pick(_VEHICLES, rng)}"), False


def _does(who: str, many: bool, deeds: Sequence, rng: np.random.Generator) -> str:
    forms, objects, places = pick(deeds, rng)
    once, plural, going = forms.split()
    be = "are" if many else "is"
    verb = pick((plural if many else once, f"{be} {going}", f"{be} {going}", going), rng)
    parts = (who, verb, pick(objects, rng), pick(places, rng) if rng.integers(6) else "")
    return " ".join(part for part in parts if part)


def _still(rng: np.random.Generator) -> str:
    """A thing and where it is."""
    thing = (
        f"{pick(_COLORS, rng)} {pick(_OBJECTS, rng)}" if rng.integers(2) else pick(_OBJECTS, rng)
    )
    room = pick(_ROOMS, rng)
    return pick(
        (
            f"{_article(thing)} on the {pick(_FURNITURE, rng)}",
            f"there is {_article(thing)} on a {pick(_FURNITURE, rng)}",
            f"{_article(thing)} next to the {pick(_FURNITURE, rng)}",
            f"{_article(thing)} is behind the {pick(_FURNITURE, rng)}",
            f"{_article(pick(_COLORS, rng))} {pick(_FURNITURE, rng)} in the {room}",
            f"{_article(room)} with a {pick(_FURNITURE, rng)} and {_article(pick(_OBJECTS, rng))}",
            f"the {thing} is on the {pick(_PARTS, rng)} of the image",
            f"the {thing} near the {pick(_PARTS, rng)}",
            f"{_article(pick(_FOOD, rng))} on a {pick(('plate', 'table'), rng)}",
            f"a plate of food with {_article(pick(_FOOD, rng))}",
        ),
        rng,
    )


def sentence(rng: np.random.Generator) -> str:
    """One sentence of 3 to 16 words; half of them begin with a capital and end with a full stop."""
    kind = int(rng.integers(10))
    if kind < 5:
        text = _does(*_somebody(rng), _DEEDS, rng)
    elif kind < 8:
        text = _does(*_animal(rng), _BEASTLY, rng)
    elif kind == 8:
        text = _does(*_vehicle(rng), _MOVED, rng)
    else:
        text = _still(rng)
    return text if rng.integers(2) else f"{text[0].upper()}{text[1:]} ."


def key_words(text: str, rng: np.random.Generator) -> str:
    """The words of a sentence that carry its meaning, some of them left out, in another order."""
    words = [word for word in text.lower().split() if word not in _SMALL_WORDS]
    kept = [word for word in words if rng.integers(5)] or words
    return " ".join(kept[i] for i in rng.permutation(len(kept)))
