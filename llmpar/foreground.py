"""A command run with something going on beside it: signals reach it, its end is not missed, its exit status comes
back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from llmpar.failure import Failure

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_KERNEL = 0x80  # SI_KERNEL: a key on the terminal, which the whole foreground group received already


class Command:
    """A child process in the foreground. Make it before any thread, so that threads inherit the blocked signals."""

    def __init__(self, arguments: Sequence[str]):
        """Start the command. Raises OSError (FileNotFoundError, PermissionError) where it cannot be started."""
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
        try:
            self._child = subprocess.Popen(list(arguments), preexec_fn=self._restore, close_fds=False)
        except BaseException:
            self._restore()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    def _restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self) -> int:
        """Wait for the end, passing signals on; the exit status, 128 + N for a command that signal N ended."""
        try:
            while self._child.poll() is None:
                arrived = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
                if arrived.si_signo != signal.SIGCHLD and arrived.si_code != _FROM_KERNEL:
                    os.kill(self._child.pid, arrived.si_signo)
        finally:
            if self._child.poll() is None:
                self._child.terminate()
                self._child.wait()
            self._restore()
        code = self._child.returncode
        return code if code >= 0 else 128 - code


def start(arguments: Sequence[str]) -> Command:
    """Start a command. Raises Failure with the status shells give: 127 where there is no such command, else 126."""
    try:
        return Command(arguments)
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise Failure(f"cannot run '{arguments[0]}': {error.strerror}", code) from None


def run_beside(arguments: Sequence[str], work: Callable[[threading.Event], None], patience_s: float = 10.0) -> int:
    """Run a command while `work` runs in a thread, until the command ends; the command's exit status.

    `work` gets an event that is set at the command's end. It then has `patience_s` seconds to take a last sample; a
    driver or a server that hangs does not hold the command's end back. Raises Failure where the command cannot run.
    """
    child = start(arguments)  # before the thread, which inherits the blocked signals
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    code = child.wait()
    stop.set()
    thread.join(patience_s)
    if thread.is_alive():
        sys.stderr.write("what is sampled does not answer; the last sample is missing\n")
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)  # a thread inside a driver's call would keep the interpreter from ending
    return code
