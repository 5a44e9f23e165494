"""The server record: what was started, with which settings, versions and commands."""

from __future__ import annotations

import os
from typing import Any

from llmpar import clock, records
from llmpar.engines import llamacpp_server
from llmpar.engines.base import Engine, Launch, Settings
from llmpar.serving.gpu_memory import own_gpus
from llmpar.serving.launches import shell_line

DEFAULTS = {"prefix_cache": False, "speculate": 0, "replicas": 1, "shards": 1}


class ServerRecord:
    """server.json: written when the engine is ready or has failed, and again at the end."""

    def __init__(self, folder: str, engine: Engine, settings: Settings, chosen: str, made: list[Launch]):
        self.path = os.path.join(folder, "server.json")
        self.fields: dict[str, Any] = {
            "kind": "server",
            "v": 1,
            "engine": engine.name,
            "title": engine.title,
            "version": None,
            "runtime": chosen,
            "api": engine.api,
            "model": made[0].model,
            "settings": {**settings.given(), "engine_args": list(settings.engine_args)},
            # What holds where nothing was said, on every engine; the rest is the engine's own default.
            "defaults": {
                name: value for name, value in {**DEFAULTS, **engine.defaults}.items() if name not in settings.given()
            },
            "commands": [shell_line(each) for each in made],
            "notes": [note for each in made[:1] for note in each.notes],
            "gpus": None if (own := own_gpus(made)) is None else sorted(own),
            "base_url": None,
            "urls": [],
            "metrics_urls": [],
            "pids": [],
            "started_at": clock.now(),
            "ready_s": None,
            "startup": None,
            "probe": None,
            "ended_at": None,
            "outcome": "starting",
            "message": None,
            "logs": [],
            "model_file": _model_file(engine, made[0], settings.model),
        }

    def write(self, **changes: Any) -> None:
        """Change fields and write the file whole."""
        self.fields.update(changes)
        with open(self.path + ".part", "wb") as stream:
            stream.write(records.encode(self.fields))
        os.replace(self.path + ".part", self.path)


def _model_file(engine: Engine, launch: Launch, model: str | None) -> dict[str, Any] | None:
    """A model that is one file: its name, size and time, which tell two files apart without reading a gigabyte."""
    path = model or ""
    if engine.name == "llamacpp" and not launch.container:
        try:
            path = llamacpp_server.model_path(path or launch.model)
        except SystemExit:
            return None  # the launch will say that there is no such model
    if not os.path.isfile(path):
        return None
    found = os.stat(path)
    return {
        "name": os.path.basename(path),
        "size_bytes": found.st_size,
        "modified_at": clock.instant(found.st_mtime_ns),
    }
