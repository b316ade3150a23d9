"""Names of a checkpoint brought to those that its family has: a wrapper's prefix is taken away.

torch.nn.DataParallel saves `module.NAME`, torch.compile `_orig_mod.NAME`, peft
`base_model.model.NAME`, a multimodal model its language model as `language_model.NAME`; and a bare
LlamaModel leaves out the `model.` that a LlamaForCausalLM puts before its names. The prefix is
whatever stands before the family's names in the file, so that no list of wrappers is needed.
"""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from omni_smola.errors import UserError
from omni_smola.pretrained.reader import Entry, Reader

_SEPARATORS = "./"
_LONGEST = 500  # characters of a name that is looked at; those of models have a hundred


class Renamed:
    """A Reader under other names.

    Attributes:
      stored: name here -> name in the file.
      how: what was done to the names, for messages.
    """

    def __init__(self, reader: Reader, stored: Mapping[str, str], how: str):
        self.path = reader.path
        self.stored = dict(stored)
        self.how = how
        self.entries: dict[str, Entry] = {n: reader.entries[s] for n, s in stored.items()}
        self._reader = reader

    def read(self, name: str, rows: slice | None = None) -> np.ndarray:
        """See `Reader.read`."""
        return self._reader.read(self.stored[name], rows)

    def close(self) -> None:
        """See `Reader.close`."""
        self._reader.close()


def align(reader: Reader, parts: Iterable[tuple[str, ...]], root: str = "") -> Reader:
    """The reader, under the family's names where a prefix keeps these from being found.

    Args:
      reader: of the checkpoint.
      parts: for each tensor that is wanted, the names that it may have.
      root: what the family's names begin with where a bare model's do not, such as "model.".

    Returns:
      `reader` itself where its names are the family's, or no prefix makes more of them so.

    Raises:
      UserError: two prefixes make equally many names the family's, so that either may be meant.
    """
    owners: dict[str, set[int]] = collections.defaultdict(set)
    for number, names in enumerate(parts):
        for name in names:
            owners[name].add(number)
    as_they_are = _covered(owners, reader.entries)
    wanted = set().union(*owners.values())
    if as_they_are == wanted:
        return reader
    found: dict[tuple[str, str], set[int]] = {}
    for missing in dict.fromkeys(("", root)):
        bare = {n.removeprefix(missing): owned for n, owned in owners.items()}
        for prefix in sorted(_prefixes(reader.entries, bare)):
            found[prefix, missing] = _covered(
                bare, (n.removeprefix(prefix) for n in reader.entries)
            )
    most = max(map(len, found.values()), default=0)
    if most <= len(as_they_are):
        return reader
    best = [key for key, covered in found.items() if len(covered) == most]
    # Of names that a family has with and without a prefix of its own, the longer; and rather with
    # nothing put before.
    first = min(best, key=lambda key: (key[1] != "", len(key[0])))
    others = [p for p, _ in best if not (p.startswith(first[0]) or first[0].startswith(p))]
    if others:
        raise UserError(
            f"The checkpoint {reader.path} holds this model more than once, under the prefixes "
            f"{first[0]!r} and {others[0]!r}: save the one that you want in a file of its own."
        )
    return _renamed(reader, *first, owners)


def _prefixes(entries: Iterable[str], wanted: Mapping[str, Any]) -> set[str]:
    """What stands before a wanted name in any of the file's names."""
    prefixes = {""}
    for name in (name for name in entries if len(name) <= _LONGEST):
        for place, letter in enumerate(name):
            if letter in _SEPARATORS and name[place + 1 :] in wanted:
                prefixes.add(name[: place + 1])
    return prefixes


def _covered(owners: Mapping[str, set[int]], names: Iterable[str]) -> set[int]:
    return set().union(*(owners[name] for name in names if name in owners))


def _renamed(reader: Reader, prefix: str, missing: str, owners: Mapping[str, Any]) -> Reader:
    """`prefix` taken away from all names that have it, and `missing` put before where it helps."""
    stored: dict[str, str] = {}
    for name in reader.entries:
        plain = name.removeprefix(prefix)
        if missing and plain not in owners and name.startswith(prefix):
            plain = missing + plain
        # A name that is another tensor's already is left as it is, to be refused as unexpected.
        taken = plain != name and (plain in reader.entries or plain in stored)
        stored[name if taken else plain] = name
    how = f"without {prefix!r}" if prefix else ""
    how += f"{' and ' * bool(how)}with {missing!r} before them" if missing else ""
    return Renamed(reader, stored, how)
