"""Container command lines: image, mounts, GPUs and ports."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence

from llmpar.engines.base import ALL_GPUS, NO_GPUS, Launch, Settings
from llmpar.engines.flags import bracketed, host

GHCR = "ghcr.io"


LABEL = "llmpar.serve"  # of the containers that llmpar-serve creates; its value tells which llmpar-serve
TOOLS = ("docker", "podman")


def tool() -> str:
    """LLMPAR_CONTAINER_TOOL, else what is on the PATH: docker, then podman, which takes the same words; docker where
    neither is."""
    return os.environ.get("LLMPAR_CONTAINER_TOOL") or next((each for each in TOOLS if shutil.which(each)), TOOLS[0])


def container_argv(launch: Launch, key: str) -> Launch:
    """What is really run for a container: the command line that --dry-run shows, with a name and a label to find it by.

    No --rm: how it ended is asked before it is removed.
    """
    argv = list(launch.argv)
    if launch.container and argv[1:2] == ["run"]:
        argv[2:2] = ["--name", launch.container, "--label", f"{LABEL}={key}"]
    return dataclasses.replace(launch, argv=tuple(argv))


def data() -> str:
    """The models' cache on the host, mounted into containers: LLMPAR_DATA, else ~/.cache/huggingface."""
    return os.path.abspath(os.path.expanduser(os.environ.get("LLMPAR_DATA") or "~/.cache/huggingface"))


def in_container(model: str) -> tuple[str, list[str]]:
    """The model's name inside a container, and the mount that a local directory needs."""
    if os.path.isdir(model):
        return "/model", ["-v", f"{os.path.abspath(model)}:/model:ro"]
    return model, []


def docker(
    settings: Settings,
    image: str,
    command: Sequence[str],
    *,
    port: int,
    inner_port: int,
    cache: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    mounts: Sequence[str] = (),
) -> list[str]:
    """`docker run` for one server. `options` (such as --ipc=host) follow the GPUs, `environment` the cache's mount.

    --init: a first process without a handler for TERM ignores it, and `docker stop` would wait for its KILL. The port
    is published where a local server would listen: without an address docker publishes it on every one.
    """
    published = f"{bracketed(host(settings))}:{port}:{inner_port}"
    argv = [tool(), "run", "--init", *gpu_option(settings), *options, "-p", published]
    if cache:
        argv += ["-v", f"{data()}:{cache}"]
    argv += mounts
    # Only the name: Docker takes the value from the surrounding environment, so no secret is in a command line.
    argv += ["-e", "HF_TOKEN"] if os.environ.get("HF_TOKEN") else []
    for name, value in (environment or {}).items():
        argv += ["-e", f"{name}={value}"]
    return [*argv, settings.image or image, *command, *settings.engine_args]


def gpu_option(settings: Settings) -> list[str]:
    """The GPUs of a container: all unless named, none for `none`. Podman names them by the Container Device
    Interface."""
    if settings.gpus == NO_GPUS:
        return []
    if tool() == "podman":
        named = [each.strip() for each in settings.gpus.split(",")] if settings.gpus else [ALL_GPUS]
        return [word for each in named for word in ("--device", f"nvidia.com/gpu={each}")]
    if settings.gpus in (None, ALL_GPUS):
        return ["--gpus", "all"]
    # Several need quotes of their own: Docker reads the value as one line of CSV.
    chosen = f"device={settings.gpus}"
    return ["--gpus", f'"{chosen}"' if "," in chosen else chosen]


def contained(engine: str, argv: Sequence[str], port: int, model: str, notes: Iterable[str] = ()) -> Launch:
    """A Launch of a container. The name is for the launcher, which adds it: `docker run --name NAME ...`."""
    return Launch(tuple(argv), port, container=f"llmpar-{engine}-{port}", model=model, notes=tuple(notes))


def needs_docker() -> str | None:
    return (
        None if any(map(shutil.which, TOOLS)) else "docker is not installed: see https://docs.docker.com/engine/install"
    )
