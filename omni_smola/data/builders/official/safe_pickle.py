"""Pickles that hold data and nothing else.

A pickle is a program that may call whatever it names. Here it may name nothing: what remains are
the instructions that build lists, tuples, dicts, sets, strings, bytes, numbers, True, False, None.
"""

import pickle
from pathlib import Path
from typing import Any, ClassVar

from omni_smola.errors import UserError

# What a damaged pickle raises, besides UnpicklingError: Python's documentation lists no end of it.
_DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _Refused(Exception):
    """The pickle asks for something that is no plain data."""


# Instructions that call or fill what is named, and those whose memory a file may choose at will.
_FORBIDDEN = b"".join(
    getattr(pickle, name)
    for name in ("REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BYTEARRAY8", "NEXT_BUFFER",
                 "READONLY_BUFFER")
)  # fmt: skip


# Python's own, as the one in C makes a table as long as the largest number that a file gives to a
# value: ten bytes can take all memory.
class _DataUnpickler(pickle._Unpickler):
    dispatch: ClassVar = {
        code: do for code, do in pickle._Unpickler.dispatch.items() if code not in _FORBIDDEN
    }

    # What names code (GLOBAL, STACK_GLOBAL, INST, EXT1 to EXT4) asks here for it.
    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"the external object {pid!r}")


def load(path: Path) -> Any:
    """The plain data in a pickle of Python 2 or 3; strings of Python 2 are read as Latin-1.

    Raises:
      UserError: it asks for anything else, and nothing of it was carried out; or it is damaged.
    """
    try:
        with path.open("rb") as file:
            return _DataUnpickler(file, fix_imports=False, encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{path} asks for {error}, which is code and no data: it was not carried out. This is "
            "not the official file."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except _DAMAGED as error:
        raise UserError(f"{path} is not a complete pickle ({error}): download it again.") from error
