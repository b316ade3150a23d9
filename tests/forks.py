"""The command line in forks of a process that has done the imports, which take it eight seconds.

A server for each of pytest's workers: `python -m tests.forks SOCKET` imports, then forks for every
connection a keeper, which forks the command, tells its process id, waits, and tells its status.
"""

import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent


class Server:
    """Starts a server; its processes see `env` from their imports on."""

    def __init__(self, address: pathlib.Path, env: Mapping[str, str]):
        self._address = str(address)
        with open(f"{address}.log", "w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", self._address],
                cwd=ROOT,
                env=dict(env),
                stderr=stream,
            )
        while not address.exists():
            if self._process.poll() is not None:
                raise _ended(self._address)
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def start(self, arguments: Sequence[str], stdout: int, env: Mapping[str, str]) -> "Fork":
        """The command line with these arguments, its standard error output in a pipe.

        Args:
          env: is added to its environment; what JAX reads of it at import is set by its config.
        """
        return Fork(self._address, {"arguments": list(arguments), "env": dict(env)}, stdout)


def _ended(address: str) -> RuntimeError:
    """With the last that the server and its keepers wrote."""
    said = pathlib.Path(f"{address}.log").read_text()[-4000:]
    return RuntimeError(f"The server of forks ended:\n{said}")


class Fork:
    """What `subprocess.Popen` is to a command, as far as the tests need it."""

    def __init__(self, address: str, request: Mapping[str, Any], stdout: int):
        self.returncode: int | None = None
        self._address = address
        self._keeper = socket.socket(socket.AF_UNIX)
        self._keeper.connect(address)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self.stdout = os.fdopen(out) if stdout == subprocess.PIPE else None
        if self.stdout is None:
            for end in (out, out_end):
                os.close(end)
            out_end = os.open(os.devnull, os.O_WRONLY)
        self.stderr = os.fdopen(err)
        socket.send_fds(self._keeper, [json.dumps(request).encode()], [out_end, err_end])
        for end in (out_end, err_end):
            os.close(end)
        self.pid = self._number()

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        for file in filter(None, (self.stdout, self.stderr)):
            file.close()
        self.wait()
        self._keeper.close()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._number()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._keeper], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def _number(self) -> int:
        """The next line of the keeper's."""
        told = b""
        while not told.endswith(b"\n"):
            if not (byte := self._keeper.recv(1)):
                raise _ended(self._address)
            told += byte
        return int(told)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """All that it says; after `timeout` seconds it is killed, which the texts then show."""
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        texts = ["", ""]

        def read(index: int) -> None:
            file = (self.stdout, self.stderr)[index]
            texts[index] = file.read() if file else ""

        threads = [threading.Thread(target=read, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.wait()
        timer.cancel()
        return texts[0], texts[1]


def serve(address: str) -> None:
    """Imports, then forks for ever."""
    from omni_smola import main, modes, quiet  # noqa: F401

    with quiet.starting():
        from omni_smola.data import pipeline, sources, tasks  # noqa: F401

    # Python 3.12 warns of every fork beside threads. Those of the imports are idle here.
    warnings.filterwarnings("ignore", "This process.*is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                keep(connection)
                os._exit(0)
            connection.close()


def keep(connection: socket.socket) -> None:
    """Forks one command and tells what becomes of it."""
    message, files, _, _ = socket.recv_fds(connection, 1 << 16, 2)
    pid = os.fork()
    if not pid:
        connection.close()
        run(*json.loads(message).values(), *files)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(f"{status}\n".encode())


def run(arguments: list[str], env: dict[str, str], out: int, err: int) -> None:
    """`python -m omni_smola.main` in this process, which it ends."""
    import jax

    from omni_smola import main, quiet

    os.environ.update(env)
    for name in filter(jax.config.values.__contains__, map(str.lower, env)):
        jax.config.update(name, bool(int(env[name.upper()])))

    os.dup2(out, 1)
    os.dup2(err, 2)
    for file in (out, err):
        os.close(file)
    sys.argv = ["omni_smola.main", *arguments]
    status = 1
    try:
        # Looks for CUDA and says that there is none: a run has it happen while it imports.
        with quiet.starting():
            import tensorflow as tf

            tf.config.list_physical_devices()
        main.cli()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
