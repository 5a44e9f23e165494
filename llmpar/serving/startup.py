"""The cold start of a server by phase: what is watched from outside, and what its log says of itself."""

from __future__ import annotations

import re
import time
from typing import Any

from llmpar.engines.base import Engine

LARGEST = 32 << 20  # bytes of a log that are read


class Watch:
    """Looks at a log while the server starts: when it first said that it loads weights. Instants are monotonic."""

    def __init__(self, engine: Engine, log: str, began: float):
        self.engine, self.log, self.began = engine, log, began
        self.weights_from: float | None = None
        self._at, self._rest = 0, ""

    def look(self) -> None:
        if self.engine.startup is None or self.weights_from is not None:
            return
        try:
            with open(self.log, "rb") as stream:
                stream.seek(self._at)
                data = stream.read(LARGEST)
        except OSError:
            return
        self._at += len(data)
        text = self._rest + data.decode("utf-8", "replace")
        if re.search(self.engine.startup.begins, text):
            self.weights_from = time.monotonic() - self.began
        self._rest = text[-200:]

    def phases(self, ready_s: float, first_token_s: float) -> dict[str, Any]:
        """The field `startup` of a server record; null for what nobody tells. `ready_s` and `first_token_s`: from the
        launch to the first token, and how long the request for it took."""
        told: dict[str, float] = {}
        if self.engine.startup is not None:
            try:
                with open(self.log, "rb") as stream:
                    told = self.engine.startup.phases(stream.read(LARGEST).decode("utf-8", "replace"))
            except OSError:
                pass
        found = {
            "spawn_s": None if self.weights_from is None else round(self.weights_from, 3),
            "weights_s": told.get("weights"),
            "compile_s": told.get("compile"),
            "graphs_s": told.get("graphs"),
            "first_token_s": round(first_token_s, 3),
        }
        known = sum(value for value in found.values() if value is not None)
        return found | {"other_s": round(max(0.0, ready_s - known), 3)}
