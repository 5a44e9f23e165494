"""The user's own directory for what lives no longer than a run: pools' sockets, positions in shared queues."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from llmpar.procfs import process_key


class Unsafe(OSError):
    """The directory is not ours alone."""


def directory(environ: dict[str, str] | None = None) -> str:
    """A directory that only this user can enter, made where it is missing: $XDG_RUNTIME_DIR/llmpar or /tmp/llmpar-UID.

    Raises Unsafe where somebody else owns it or can enter it, OSError where it cannot be made.
    """
    environ = dict(os.environ) if environ is None else environ
    base = environ.get("XDG_RUNTIME_DIR")
    path = f"{base}/llmpar" if base and _ours(base) else f"/tmp/llmpar-{os.getuid()}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise Unsafe(f"'{path}' is not a directory of this user alone")
    return path


def _ours(base: str) -> bool:
    """Whether a directory is this user's, and nobody else can rename what is in it. The launchers ask the same."""
    try:
        found = os.stat(base)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def sweep(folder: str) -> None:
    """Remove what fan-outs that are gone have left (they were killed, or ran without a pool)."""
    for name in os.listdir(folder):
        key, _, kind = name.partition(".")
        pid = key.partition("-")[0]
        if not pid.isdigit():
            continue
        try:
            if "-" in key:
                over = process_key(int(pid)) != key
            else:
                # GNU parallel's number may be another host's, so a pool's socket is asked itself.
                over = process_key(int(pid)) is None and _unused(folder, name, kind)
            if over:
                os.unlink(f"{folder}/{name}")
        except OSError:
            pass


def _unused(folder: str, name: str, kind: str) -> bool:
    """Whether nobody listens at a pool's socket, makes one, or holds the lock under which one is started."""
    if kind.startswith("sock."):
        return process_key(int(kind.removeprefix("sock."))) is None
    if kind != "sock":
        return unlocked(f"{folder}/{name}")
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.setblocking(False)
            return asked.connect_ex(f"/proc/self/fd/{fd}/{name}") == errno.ECONNREFUSED
    finally:
        os.close(fd)


def unlocked(path: str) -> bool:
    """Whether nobody holds this file's lock. Raises OSError where there is no such file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
