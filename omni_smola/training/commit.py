"""Where hosts wait for each other while a checkpoint is written, and hear of one that cannot.

Orbax commits a checkpoint when all hosts have written their parts. To its own barrier a host whose
disk is full never comes, and the others wait for it for twenty minutes. Not released by this are
those that wait for the first host to make folders (five minutes) or to come to a save at all.
"""

import time
import uuid
from typing import Any

import jax

from omni_smola.training import distributed

_OFTEN, _SELDOM = 0.01, 0.5  # seconds between two looks, at first and after a while


class OtherHostFailed(Exception):
    """Another host could not write its part."""


class Commit:
    """Orbax's `barrier_sync_fn`; all hosts make one together, and call `begin` before each save.

    Hosts count themselves in the key-value store of JAX's coordination service; one process alone
    waits for nobody.

    A key that Orbax uses again in the same save does not wait again: that is its mark that a save
    has ended, which a host that failed sets too, before it could call `fail`.
    """

    def __init__(self) -> None:
        self._name = distributed.of_primary(uuid.uuid4().hex)
        self._save = 0
        self._client, self._hosts = _coordination()

    def begin(self) -> None:
        """The next save has begun, on every host."""
        self._save += 1

    def fail(self) -> None:
        """This host has failed in the save that has begun: those that wait for it need not."""
        if self._client is not None:
            self._client.key_value_increment(self._key("failed"), 1)

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Returns when all hosts are here, or have been in this save.

        Raises:
          OtherHostFailed: one has called `fail`.
          TimeoutError: they are not, and it is over.
        """
        if self._client is None:
            return
        until = time.monotonic() + timeout_ms / 1000
        here = self._client.key_value_increment(self._key(key), 1)
        pause = _OFTEN
        while here < self._hosts:
            if self._client.key_value_increment(self._key("failed"), 0):
                raise OtherHostFailed("another host could not write its part")
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self._hosts - here} of {self._hosts} hosts did not come within "
                    f"{timeout_ms / 1000:.0f} seconds"
                )
            time.sleep(pause)
            pause = min(2 * pause, _SELDOM)
            here = self._client.key_value_increment(self._key(key), 0)

    def _key(self, what: str) -> str:
        return f"omni_smola/{self._name}/{self._save}/{what}"


def _coordination() -> tuple[Any, int]:
    """The client of JAX's coordination service and the number of hosts; (None, 1) without it.

    The service has no public name, so a run of one process doesn't ask for it.
    """
    if not jax.distributed.is_initialized():
        return None, 1
    from jax._src import distributed as private

    return private.global_state.client, private.global_state.num_processes
