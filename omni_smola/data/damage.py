"""Damaged examples: a record that cannot be read, an image that does not decode, a box that does
not lie in its image.

Under `data.on_error=fail` the first one that is needed ends the run, by file and index. Under
`skip` its row stays in its place in the batch and counts nothing: no image, no target, no loss; in
an evaluation the example is left out. So the stream of examples remains the same function of seed
and step, with and without damage, and a resumed run has the batches of one that was never ended.
"""

from collections.abc import Callable

from omni_smola.data import images
from omni_smola.data.sources import IndexedSource, box_lies_inside, parse_record
from omni_smola.errors import UserError

# Of so many rows that were damaged, and of such a share of all, the rest is not worth training on.
_ENOUGH, _SHARE = 100, 0.5
_TOLD = 5  # examples that are told one by one


class Damage:
    """Counts damaged examples that were left out.

    Args:
      say: where the first ones are told.
      max_pixels: of an image, see `images`.

    Attributes:
      rows: left out so far, counting an example as often as it was drawn.
      examples: where in words -> what is wrong with it.
    """

    def __init__(self, say: Callable[[str], None], max_pixels: int = images.MAX_PIXELS):
        self.rows = 0
        self.examples: dict[str, str] = {}
        self._say = say
        self._max_pixels = max_pixels
        self._read = 0

    def note(self, read: int, damaged: list[tuple[IndexedSource, str, int]]) -> None:
        """Counts the rows of a batch, and of those the damaged ones: source, split and index.

        Raises:
          UserError: half of what was read is damaged.
        """
        self._read += read
        self.rows += len(damaged)
        for source, split, index in damaged:
            where = source.where(split, index)
            if where not in self.examples:
                what = why(source, split, index, self._max_pixels)
                self.examples[where] = what or "it was damaged when read"
                if len(self.examples) <= _TOLD:
                    self._say(f"left out {where}: {self.examples[where]}")
                if len(self.examples) == _TOLD:
                    self._say("further damaged examples are only counted")
        if self.rows >= _ENOUGH and self.rows > _SHARE * self._read:
            where, what = next(iter(self.examples.items()))
            raise UserError(
                f"{self.rows} of {self._read} examples read were damaged, too many to leave out: "
                f"mend the data. The first was {where}: {what}."
            )

    def summary(self) -> str:
        """One sentence; "" without damage."""
        if not self.rows:
            return ""
        where, what = next(iter(self.examples.items()))
        return (
            f"left out {self.rows} rows of {len(self.examples)} damaged examples. The first was "
            f"{where}: {what}"
        )


def why(source: IndexedSource, split: str, index: int, max_pixels: int = images.MAX_PIXELS) -> str:
    """What is wrong with an example, in words; "" if nothing is."""
    try:
        record = parse_record(source.read(split, [index])[0])
    except Exception as error:
        return f"it cannot be read ({str(error).strip().splitlines()[0][:200]})"
    for encoded in record["image"].numpy():
        try:
            images.decode(encoded, max_pixels)
        except UserError as error:
            return f"its image does not decode: {error}"
    if not box_lies_inside(record["box"]):
        return (
            f"its box {record['box'].numpy().tolist()} does not lie in its image (x1, y1, x2, y2)"
        )
    return ""


def error(source: IndexedSource, split: str, index: int, what: str) -> UserError:
    """The end of a run under on_error=fail."""
    return UserError(
        f"{_capital(source.where(split, index))} is damaged: {what}. Replace it, or leave such "
        "examples out by --config.data.on_error=skip."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
