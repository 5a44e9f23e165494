"""A command run with something going on beside it: signals reach it, its end is not missed, its exit status comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

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
