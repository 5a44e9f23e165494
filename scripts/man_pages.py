"""man_pages FOLDER: a man page of each command, made from its help."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

from click_man.core import write_man_pages


def main(folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    modules = {name: target.split(":")[0] for name, target in project["scripts"].items()}
    modules["llmpar-request"] = "llmpar.commands.request"
    for name, module in sorted(modules.items()):
        write_man_pages(
            name, importlib.import_module(module).main.command, version=project["version"], target_dir=folder
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
