"""Container command lines: image, mounts, GPUs and ports."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence

from llmpar.engines.base import Launch, Settings

GHCR = "ghcr.io"


def container_argv(launch: Launch) -> Launch:
    """What is really run for a container: the command line that --dry-run shows, with a name to stop it by."""
    argv = list(launch.argv)
    if launch.container and argv[:2] == ["docker", "run"]:
        argv[2:2] = ["--rm", "--name", launch.container]
    return dataclasses.replace(launch, argv=tuple(argv))


# Docker


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
    """`docker run` for one server. `options` (such as --ipc=host) follow the GPUs, `environment` the cache's mount."""
    argv = ["docker", "run", *gpu_option(settings), *options, "-p", f"{port}:{inner_port}"]
    if cache:
        argv += ["-v", f"{data()}:{cache}"]
    argv += mounts
    # Only the name: Docker takes the value from the surrounding environment, so no secret is in a command line.
    argv += ["-e", "HF_TOKEN"] if os.environ.get("HF_TOKEN") else []
    for name, value in (environment or {}).items():
        argv += ["-e", f"{name}={value}"]
    return [*argv, image, *command, *settings.engine_args]


def gpu_option(settings: Settings) -> list[str]:
    """Docker's --gpus. Several need quotes of their own: Docker reads the value as one line of CSV."""
    if settings.gpus is None:
        return ["--gpus", "all"]
    chosen = f"device={settings.gpus}"
    return ["--gpus", f'"{chosen}"' if "," in settings.gpus else chosen]


def contained(engine: str, argv: Sequence[str], port: int, model: str, notes: Iterable[str] = ()) -> Launch:
    """A Launch of a container. The name is for the launcher, which adds it: `docker run --rm --name NAME ...`."""
    return Launch(tuple(argv), port, container=f"llmpar-{engine}-{port}", model=model, notes=tuple(notes))


def needs_docker() -> str | None:
    return None if shutil.which("docker") else "docker is not installed: see https://docs.docker.com/engine/install"
