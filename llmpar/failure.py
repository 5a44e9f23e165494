"""An expected fault: what failed, what to try, and the exit code. It knows nothing of click."""

from __future__ import annotations

from llmpar import exit_codes


class Failure(Exception):
    """An expected fault: a message for the user (lower case, no full stop, subject in quotes), a hint, an exit code."""

    def __init__(self, message: str, code: int = exit_codes.UNEXPECTED, hint: str | None = None):
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint
