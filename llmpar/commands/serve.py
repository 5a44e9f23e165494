"""llmpar-serve: one engine, or several copies behind a balancer, for as long as a command runs."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import tempfile
from typing import Any

import click

from llmpar import cli, exit_codes, failure, foreground, records, runtime_directory, sizes
from llmpar.engines import ENGINES, Device, Settings, Unsupported, check, docker, flags
from llmpar.results import words
from llmpar.serving import balancer, containers, gpu_memory, launches, orphans, power_limit, run
from llmpar.serving.ports import choose_ports
from llmpar.serving.record import ServerRecord

NAME = "llmpar-serve"
OPTIONS = [
    ("--model", str, "NAME", "Name or path of the model."),
    ("--engine-version", str, "TEXT", "Version of the engine or its image; decides how its flags are spelled."),
    ("--runtime", click.Choice(["local", "docker"]), None, "Default: the first one available."),
    ("--image", str, "NAME", "Container image to run instead of the engine's own."),
    ("--dtype", str, "NAME", "float16, bfloat16, …"),
    ("--quantize", str, "NAME", "eetq, awq, gptq, fp8, …"),
    ("--max-input-tokens", click.IntRange(1), "N", "Longest prompt, in tokens."),
    ("--max-total-tokens/--max-model-len", click.IntRange(1), "N", "Longest sequence: prompt and output tokens."),
    ("--max-sequences/--max-num-seqs", click.IntRange(1), "N", "Sequences generated concurrently."),
    ("--kv-bytes", str, "SIZE", "KV cache on each device: 8GiB, 24GB or bytes."),
    (
        "--gpu-memory-utilization",
        click.FloatRange(0, 1, min_open=True),
        "X",
        "Share of a GPU's memory for weights, KV cache and the rest, in place of --kv-bytes.",
    ),
    ("--shards/--tp", click.IntRange(1), "N", "GPUs that share one model (tensor parallel)."),
    ("--replicas", click.IntRange(1), "N", "Servers behind nginx. One on each of --gpus, or all on one."),
    ("--speculate", click.IntRange(0), "N", "Draft tokens per step; 0 turns speculation off."),
    ("--speculate-method", str, "NAME", "Default: ngram."),
    ("--acceptance-length", click.FloatRange(1), "X", "Tokens per step that speculation is forced to yield."),
    ("--gpus", str, "LIST", "GPU indices: 0,1; none for the CPU."),
    ("--seed", int, "N", "Random seed of the engine."),
    ("--power-limit-w", click.FloatRange(1), "W", "Power limit of each GPU while the servers run; needs root."),
    ("--listen", str, "ADDRESS", "IP address to listen on: 0.0.0.0 for every one.  [default: 127.0.0.1]"),
    ("--port", click.IntRange(0, 65535), "N", "Port; 0 picks a free one. Default: the engine's own."),
]


def options(function: Any) -> Any:
    """The canonical settings as options."""
    for flag, kind, metavar, text in reversed(OPTIONS):
        function = click.option(*flag.split("/"), type=kind, metavar=metavar, help=text)(function)
    return function


@cli.command(
    NAME,
    common=(
        "--engine",
        "--model",
        "--engine-version",
        "--runtime",
        "--quantize",
        "--kv-bytes",
        "--shards",
        "--replicas",
        "--speculate",
        "--gpus",
        "--port",
        "--dry-run",
    ),
    renamed={"--version": ("--engine-version", None)},
)
@click.option("--engine", metavar="NAME", help=f"The engine. One of {', '.join(ENGINES)}.")
@click.option(
    "--cell",
    type=click.Path(),
    metavar="FILE",
    help="Take engine and settings from a cell record; options override it.",
)
@options
@click.option(
    "--prefix-cache/--no-prefix-cache", default=None, help="Reuse the KV cache of prompt prefixes. Default: off."
)
@click.option(
    "--engine-args",
    metavar="TEXT",
    multiple=True,
    help="Arguments passed to the engine unchanged, split as a shell would.",
)
@click.option(
    "--server-dir",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where server.json and engine.log go. Default: a new one in /tmp.",
)
@click.option(
    "--ready-timeout",
    type=float,
    default=900,
    show_default=True,
    metavar="S",
    help="Seconds to wait for the first token.",
)
@click.option(
    "--probe-sampling",
    metavar="LIST",
    help="Sampling of the first request, for engines that keep it or compile for it: temperature=0.1,top_p=0.3.",
)
@click.option("--gpu-memory-bytes", metavar="SIZE", help="Memory of one GPU, for --dry-run on another machine.")
@click.option("--weight-bytes", metavar="SIZE", help="Weights on one GPU, where the model's files are elsewhere.")
@click.option("--profile", type=click.Choice(["nsys"]), help="Wrap the engine in Nsight Systems.")
@click.option("--dry-run", is_flag=True, help="Print the exact command lines and exit.")
@click.option("--kill-orphans", is_flag=True, help="End the servers that a killed llmpar-serve left running.")
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
def main(
    engine: str | None,
    cell: str | None,
    prefix_cache: bool | None,
    engine_args: tuple[str, ...],
    server_dir: str | None,
    ready_timeout: float,
    probe_sampling: str | None,
    gpu_memory_bytes: str | None,
    weight_bytes: str | None,
    profile: str | None,
    dry_run: bool,
    kill_orphans: bool,
    command: tuple[str, ...],
    **given: Any,
) -> int:
    """Launch an engine, wait until it has generated a token, run COMMAND, take everything down.

    \b
      llmpar-serve --engine llamacpp -- llmpar-request --max-tokens 64 prompts/*
      llmpar-serve --engine vllm --model my-7b --speculate 2 --dry-run
      llmpar-serve --engine vllm --model my-7b --replicas 2 --gpus 0,1 --port 0 -- make sweep

    COMMAND gets LLMPAR_BASE_URL, LLMPAR_MODEL, LLMPAR_ENGINE, LLMPAR_API, LLMPAR_METRICS_URLS, LLMPAR_SERVER_PIDS,
    LLMPAR_SERVER_DIR and LLMPAR_SERVE_PID. A setting the engine does not have is an error. Writes server.json and
    engine.log.

    Exit status: COMMAND's own; 127 or 126 where it cannot run; 2 usage; 4 the engine is missing or did not become
    ready.
    """
    settings: dict[str, Any] = {}
    load: dict[str, Any] | None = None
    if cell:
        with cli.opened(cell) as stream:
            try:
                whole = records.decode(stream.read())
                named, settings = launches.from_cell(whole)
                load = whole.get("load")
            except (ValueError, KeyError) as error:
                raise failure.Failure(f"cannot read '{cell}': {error}", exit_codes.BAD_INPUT) from None
        engine = engine or named
    given["version"] = given.pop("engine_version")
    settings |= {name: value for name, value in given.items() if value is not None}
    if prefix_cache is not None:
        settings["prefix_cache"] = prefix_cache
    if engine_args:
        settings["engine_args"] = tuple(word for text in engine_args for word in shlex.split(text))
    try:
        if "kv_bytes" in settings:
            settings["kv_bytes"] = sizes.parse(settings["kv_bytes"])
        memory = sizes.parse(gpu_memory_bytes) if gpu_memory_bytes else gpu_memory.gpu_memory(settings.get("gpus"))
        weights = sizes.parse(weight_bytes) if weight_bytes else None
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None

    state = runtime_directory.directory()
    # A look at the settings alone touches nothing.
    if not dry_run:
        clear_orphans(state, kill_orphans)
    if kill_orphans and not command:
        return exit_codes.OK
    if not engine:
        raise failure.Failure("which engine?", exit_codes.USAGE, "--engine NAME, one of: " + ", ".join(ENGINES))
    row = launches.lookup(engine)
    wanted = Settings(**settings)
    try:
        check(row, wanted)
        first, warning = launches.probe_sampling(row, probe_sampling, load)
        chosen = launches.choose_runtime(row, wanted.runtime or ("docker" if wanted.image else None), dry_run)
        warnings = [text for text in (warning, launches.opened(wanted.listen)) if text]
        if chosen == "docker" and not dry_run:
            wanted, on_cpu = containers.for_this_machine(wanted, memory)
            warnings += [on_cpu] if on_cpu else []
        front, to = choose_ports(row.default_port, wanted, dry_run)
        made = launches.launches(row, dataclasses.replace(wanted, runtime=chosen), Device(memory, weights), chosen, to)
        if profile and chosen == "docker":
            raise Unsupported(
                "--profile wraps local engines only; nsys does not reach into a container: --runtime local"
            )
    except ValueError as error:
        raise failure.Failure(str(error), exit_codes.USAGE) from None
    if dry_run:
        folder = os.path.abspath(server_dir) if server_dir else "SERVER_DIR"
        for launch in launches.profiled(made, folder) if profile else made:
            for note in launch.notes:
                cli.say(NAME, f"note: {note}")
            click.echo(launches.shell_line(launch))
        if front is not None:
            click.echo("\n" + balancer.configuration(flags.host(wanted), front, to, folder), nl=False)
        return exit_codes.OK
    if not command:
        raise failure.Failure("no command to run", exit_codes.USAGE, f"{NAME} … -- COMMAND")
    need_tools(front is not None, profile)
    # A closed terminal ends us as TERM does, unless nohup was asked for.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    folder = os.path.abspath(server_dir) if server_dir else tempfile.mkdtemp(prefix="llmpar-serve-")
    os.makedirs(folder, exist_ok=True)
    if profile:
        made = launches.profiled(made, folder)
    record = ServerRecord(folder, row, wanted, chosen, made)
    for text in warnings:
        record.fields["notes"].append(text)
        cli.say(NAME, f"note: {text}")
    made = [docker.container_argv(launch, containers.owner()) for launch in made]

    def say(message: str, hint: str | None = None) -> None:
        cli.say(NAME, message, hint)

    with (
        power_limit.capped(wanted.power_limit_w, gpu_memory.own_gpus(made), say),
        run.running(row, made, folder, record, state, flags.host(wanted), front, ready_timeout, say, first) as servers,
    ):
        say(f"{row.title} is ready at {servers.base_url} after {words.startup(record.fields)}")
        os.environ.update(
            LLMPAR_BASE_URL=servers.base_url,
            LLMPAR_MODEL=made[0].model,
            LLMPAR_ENGINE=row.name,
            LLMPAR_API=row.api,
            LLMPAR_METRICS_URLS=" ".join(record.fields["metrics_urls"]),
            LLMPAR_SERVER_DIR=folder,
            LLMPAR_SERVE_PID=str(os.getpid()),
            LLMPAR_SERVER_PIDS=" ".join(map(str, record.fields["pids"])),
        )
        return foreground.start(command).wait()


def clear_orphans(state: str, kill: bool) -> None:
    """End, or name, what an earlier run left; an engine that shares the machine unseen spoils every measurement."""
    for orphan in orphans.find(state):
        if not kill:
            raise failure.Failure(
                f"an earlier {NAME} was killed and left {orphan.text()}",
                exit_codes.UNAVAILABLE,
                f"end it: {NAME} --kill-orphans",
            )
        text = orphan.text()
        if not orphans.end(orphan):
            raise failure.Failure(f"cannot end {orphan.text()}", exit_codes.UNAVAILABLE)
        cli.say(NAME, f"ended {text}")


def need_tools(several: bool, profile: str | None) -> None:
    """Raise Failure where nginx or nsys is wanted and missing, before minutes go into loading a model."""
    if several and balancer.missing():
        raise failure.Failure(
            "several servers need nginx, which is not installed",
            exit_codes.UNAVAILABLE,
            "sudo apt-get install nginx-light",
        )
    if profile and not shutil.which(profile):
        raise failure.Failure(
            f"--profile {profile} needs Nsight Systems, and there is no {profile} on the PATH",
            exit_codes.UNAVAILABLE,
            "https://developer.nvidia.com/nsight-systems, or leave --profile out",
        )


if __name__ == "__main__":
    main()
