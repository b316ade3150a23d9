"""Hosts that wait for each other while a checkpoint is written, as threads on one store."""

import collections
import concurrent.futures
import threading
import types

import pytest
from jax._src import distributed as coordination

from omni_smola.training import distributed
from omni_smola.training.commit import Commit, OtherHostFailed


class Store:
    """Of JAX's coordination service, what is used of it."""

    def __init__(self):
        self._lock, self._values = threading.Lock(), collections.Counter()

    def key_value_increment(self, key: str, increment: int) -> int:
        with self._lock:
            self._values[key] += increment
            return self._values[key]


@pytest.fixture
def commits(monkeypatch):
    """Three hosts'."""
    state = types.SimpleNamespace(client=Store(), num_processes=3)
    monkeypatch.setattr(coordination, "global_state", state)
    monkeypatch.setattr(distributed, "of_primary", lambda value: "run")
    return [Commit() for _ in range(3)]


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield pool


def test_all_go_on_when_the_last_is_there_save_after_save(commits, threads):
    for _ in range(3):
        for commit in commits:
            commit.begin()
        for key in ("write", "commit"):
            early = [threads.submit(commit, key=key, timeout_ms=60_000) for commit in commits[:2]]
            assert not concurrent.futures.wait(early, timeout=0.1).done
            commits[2](key=key, timeout_ms=60_000)
            assert [waited.result(60) for waited in early] == [None, None]


def test_one_that_fails_releases_the_others_of_that_save_only(commits, threads):
    for commit in commits:
        commit.begin()
    early = [threads.submit(commit, key="write", timeout_ms=60_000) for commit in commits[:2]]
    commits[2].fail()
    for waited in early:
        with pytest.raises(OtherHostFailed):
            waited.result(60)
    for commit in commits:
        commit.begin()
    again = [threads.submit(commit, key="write", timeout_ms=60_000) for commit in commits]
    assert [waited.result(60) for waited in again] == [None] * 3


def test_a_key_that_comes_again_in_a_save_waits_for_nobody(commits, threads):
    """Orbax sets its mark of a save at the end by the keys of the beginning, failed or not."""
    for commit in commits:
        commit.begin()
    first = [threads.submit(commit, key="mark", timeout_ms=60_000) for commit in commits]
    assert [waited.result(60) for waited in first] == [None] * 3
    commits[1](key="mark", timeout_ms=60_000)


def test_hosts_that_do_not_come_are_given_up(commits):
    commits[0].begin()
    with pytest.raises(TimeoutError, match=r"2 of 3 hosts did not come within 0 seconds"):
        commits[0](key="write", timeout_ms=50)


def test_one_process_waits_for_nobody():
    commit = Commit()
    commit.begin()
    commit.fail()
    commit(key="write", timeout_ms=1)
