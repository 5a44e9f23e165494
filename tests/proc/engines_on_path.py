"""Engines to launch in tests: executables on PATH that are the fake engine underneath, and a docker that runs them."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

FAKE = Path(__file__).resolve().parents[1] / "fake_engine.py"

# As the real one: it takes -p HOST:INNER and --name, holds the terminal until the container ends; stop and rm -f end
# it.
DOCKER = """
echo "$@" >> '{folder}/docker.calls'
case $1 in
  run)
    shift
    while [ $# -gt 0 ]; do
      case $1 in -p) host=${{2%:*:*}}; port=${{2%:*}}; port=${{port##*:}}; shift ;; --name) name=$2; shift ;;
    --label) label=$2; shift ;; esac
      shift
    done
    '{python}' '{fake}' --engine {engine} --host "${{host//[][]/}}" --port "$port" {options} &
    echo $! > '{folder}/'"$name".container
    echo "$label" > '{folder}/'"$name".label
    # A container does not end with its client.
    trap '' TERM
    wait $! ;;
  stop) kill "$(cat '{folder}/'"${{@: -1}}".container)" ;;
  inspect) cat '{folder}/'"${{@: -1}}".container ;;
  rm) kill -9 "$(cat '{folder}/'"${{@: -1}}".container)" 2>/dev/null; rm -f '{folder}/'"${{@: -1}}".container ;;
  ps) # -a, filters by label and name; ids are names here. Another state than running there is none.
    while [ $# -gt 0 ]; do
      case $1 in -a) all=yes ;; label=*=*) label=${{1#label=}} ;;
    name=*) name=${{1#name=^}}; name=${{name%$}} ;; status=*) exit 0 ;; esac
      shift
    done
    for each in '{folder}/'*.container; do
      id=$(basename "$each" .container)
      [ -e "$each" ] && [ "$(cat "${{each%.container}}.label")" = "$label" ] && [ "${{name:-$id}}" = "$id" ] || continue
      if [ -n "${{all:-}}" ] || kill -0 "$(cat "$each")" 2>/dev/null; then echo "$id"; fi
    done ;;
esac
"""


def executable(folder: Path, name: str, text: str) -> Path:
    """A bash script on PATH."""
    where = folder / "bin"
    where.mkdir(exist_ok=True)
    path = where / name
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    if str(where) not in os.environ["PATH"].split(":"):
        os.environ["PATH"] = f"{where}:{os.environ['PATH']}"
    return path


def llama_server(folder: Path, options: str = "", before: str = "", how: str = "exec") -> Path:
    """A `llama-server` that is the fake engine, with options of fake_engine.py and shell lines before it.

    `$slots` in the options is what the launch line asks for.
    """
    (folder / "m.gguf").touch()
    return executable(
        folder,
        "llama-server",
        f"""
while [ $# -gt 0 ]; do case $1 in --port) port=$2; shift ;; --host) host=$2; shift ;;
  -np) slots=$2; shift ;; esac; shift; done
{before}
{how} '{sys.executable}' '{FAKE}' --engine llamacpp --host "$host" --port "$port" \\
  --truth '{folder}/'"truth-$port.jsonl" {options}
""",
    )


def docker(folder: Path, engine: str, options: str = "") -> Path:
    """A `docker` that starts the fake engine for `run` and writes each call to docker.calls."""
    return executable(
        folder, "docker", DOCKER.format(folder=folder, python=sys.executable, fake=FAKE, engine=engine, options=options)
    )
