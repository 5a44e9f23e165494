"""What llmpar-serve does between reading its options and running the command: devices, launches, the server record."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Sequence
from typing import Any

from llmpar import balancer, clock, orphans, records, series, server_version, serving, status
from llmpar.cli import Failure
from llmpar.dialects import Sampling
from llmpar.engines import ENGINES, llamacpp_server, model_files
from llmpar.engines.base import Device, Engine, Launch, Settings, Unsupported

DEFAULTS = {"prefix_cache": False, "speculate": 0, "replicas": 1, "shards": 1}


def size(text: str | int) -> int:
    """Bytes from `8GiB`, `24GB`, `16MiB` or a plain number. Raises ValueError."""
    found = series.quantity(text)
    if found is None:
        raise ValueError(f"'{text}' is not a size; write 8GiB, 24GB or a number of bytes")
    return int(found)


def from_cell(cell: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(engine, settings by name) of a cell record. Raises ValueError for a setting that llmpar-serve does not know."""
    server = {name: value for name, value in cell["server"].items() if name not in ("engine", "host") and value is not None}
    known = {each.name for each in dataclasses.fields(Settings)}
    unknown = sorted(set(server) - known)
    if unknown:
        raise ValueError(f"cell '{cell['id']}' has the unknown server setting '{unknown[0]}'")
    if "engine_args" in server:
        server["engine_args"] = tuple(shlex.split(server["engine_args"]))
    if "kv_bytes" in server:
        server["kv_bytes"] = size(server["kv_bytes"])
    return cell["server"]["engine"], server


def probe_sampling(engine: Engine, text: str | None, load: dict[str, Any] | None) -> tuple[Sampling | None, str | None]:
    """(sampling of the request that shows readiness, a note or None); None is the greedy one, right wherever it decides nothing.

    `text`: `temperature=0.1,top_k=100`, `load`: of a cell record. Raises ValueError for a name or value that is none.
    """
    if not engine.first_request_decides:
        if text:
            raise ValueError(f"the first request decides nothing on {engine.name}: leave --probe-sampling out")
        return None, None
    kinds: dict[str, Any] = {"temperature": float, "top_k": int, "top_p": float, "ignore_eos": lambda word: word in ("yes", "true", "1")}
    made = Sampling(max_tokens=2)
    if text is not None:
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name.strip() not in kinds:
                raise ValueError(f"--probe-sampling '{part}': give NAME=VALUE of {', '.join(kinds)}")
            setattr(made, name.strip(), kinds[name.strip()](value.strip()))
        return made, None
    if load is not None:
        for name in kinds:
            if load.get(name) is not None:
                setattr(made, name, load[name])
        return made, None
    return None, (f"{engine.name} takes the sampling of its first request for all later ones, and that is llmpar-serve's: temperature 0. "
                  "For another, give it as --probe-sampling temperature=0.1,top_p=0.3 (a cell's is taken by itself)")


def gpu_memory() -> int | None:
    """Bytes of the smallest visible GPU; None without one."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        count = nvml.nvmlDeviceGetCount()
        sizes = [int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).total) for index in range(count)]
        return min(sizes, default=None)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def gpu_used() -> list[int] | None:
    """Bytes in use on each GPU; None without one."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        return [int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(index)).used)
                for index in range(nvml.nvmlDeviceGetCount())]  # fmt: skip
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml
    except Exception:  # no driver, no library: whatever the reason, there is no GPU to ask
        return None


def choose_runtime(engine: Engine, wanted: str | None, dry: bool) -> str:
    """The runtime to use: what was asked for, else the first that is here. Raises Failure naming what is missing."""
    if wanted or dry:
        chosen = wanted or next((each for each in engine.runtimes if engine.needs(each) is None), engine.runtimes[0])
        missing = None if dry else engine.needs(chosen)
        if missing:
            raise Failure(f"{engine.title}: {missing}", status.UNAVAILABLE)
        return chosen
    missing_all = []
    for each in engine.runtimes:
        missing = engine.needs(each)
        if missing is None:
            return each
        missing_all.append(missing)
    raise Failure(f"{engine.title} cannot run here: {missing_all[0]}", status.UNAVAILABLE, "; or ".join(missing_all[1:]) or None)


def launches(engine: Engine, settings: Settings, device: Device, chosen: str, ports: list[int]) -> list[Launch]:
    """One launch for each replica, on its port and, where GPUs are named, on its own GPU. Raises Unsupported."""
    count = settings.replicas or 1
    gpus = [each.strip() for each in (settings.gpus or "").split(",") if each.strip()]
    shards = settings.shards or 1
    # One GPU named and several replicas: they share it. As many as replicas times shards: each has its own.
    apart = count > 1 and len(gpus) > 1
    if apart and len(gpus) != count * shards:
        raise Unsupported(f"gpus: {len(gpus)} GPUs do not divide among {count} replicas of {shards} shards; name one, or {count * shards}")
    device = model_files.measured(settings, device)
    made = []
    for index in range(count):
        own = gpus[index * shards : (index + 1) * shards] if apart else gpus
        alone = dataclasses.replace(settings, port=ports[index], gpus=",".join(own) or None, replicas=None)
        made.append(engine.command(alone, device, chosen))
    return made


NSYS = ("nsys", "profile", "--trace", "cuda,nvtx,osrt", "--cuda-graph-trace", "node", "--trace-fork-before-exec", "true",
        "--force-overwrite", "true", "--output")  # fmt: skip


def profiled(made: list[Launch], folder: str) -> list[Launch]:
    """The launches inside Nsight Systems, with reports `profile-N.nsys-rep` in the folder."""
    return [dataclasses.replace(each, profiler=(*NSYS, f"{folder}/profile-{index}")) for index, each in enumerate(made)]


def container_argv(launch: Launch) -> Launch:
    """What is really run for a container: the command line that --dry-run shows, with a name to stop it by."""
    argv = list(launch.argv)
    if launch.container and argv[:2] == ["docker", "run"]:
        argv[2:2] = ["--rm", "--name", launch.container]
    return dataclasses.replace(launch, argv=tuple(argv))


def lookup(name: str) -> Engine:
    """The engine of that name. Raises Failure naming those there are."""
    if name not in ENGINES:
        raise Failure(f"unknown engine '{name}'", status.USAGE, "there are: " + ", ".join(ENGINES))
    return ENGINES[name]


def shell_line(launch: Launch) -> str:
    """The launch as a line for a shell."""
    words = [f"{name}={shlex.quote(value)}" for name, value in sorted(launch.environment.items())]
    return " ".join([*words, *(shlex.quote(word) for word in launch.words)])


class ServerRecord:
    """server.json: written when the engine is ready or has failed, and again at the end."""

    def __init__(self, folder: str, engine: Engine, settings: Settings, chosen: str, made: list[Launch]):
        self.path = os.path.join(folder, "server.json")
        self.fields: dict[str, Any] = {
            "kind": "server", "v": 1, "engine": engine.name, "title": engine.title, "version": None, "runtime": chosen,
            "api": engine.api, "model": made[0].model, "settings": {**settings.given(), "engine_args": list(settings.engine_args)},
            # What holds where nothing was said, on every engine; the rest is the engine's own default.
            "defaults": {name: value for name, value in DEFAULTS.items() if name not in settings.given()},
            "commands": [shell_line(each) for each in made], "notes": [note for each in made[:1] for note in each.notes],
            "base_url": None, "urls": [], "metrics_urls": [], "pids": [], "started_at": clock.now(), "ready_s": None, "probe": None,
            "ended_at": None, "outcome": "starting", "message": None, "logs": [], "model_file": _model_file(engine, made[0], settings.model),
        }  # fmt: skip

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
    return {"name": os.path.basename(path), "size_bytes": found.st_size, "modified_at": clock.instant(found.st_mtime_ns)}


def own_gpus(made: Sequence[Launch]) -> set[int] | None:
    """Indices of the GPUs that the servers may use; None: any of them."""
    told = [each.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")) for each in made]
    words = [word.strip() for one in told for word in (one or "all").split(",")]
    return {int(word) for word in words} if all(word.isdecimal() for word in words) else None


def wait_for_memory(before: list[int] | None, mine: set[int] | None = None, patience_s: float = 30.0) -> str | None:
    """Wait until the memory of each GPU, or of those in `mine`, is back near its level before the start; None, or what to warn of."""
    if before is None:
        return None
    limit = time.monotonic() + patience_s
    while True:
        now = gpu_used()
        left = [max(0, used - was) for index, (used, was) in enumerate(zip(now or [], before, strict=False)) if mine is None or index in mine]
        if all(each < 512 << 20 for each in left):
            return None
        if time.monotonic() > limit:
            return f"{max(left) / (1 << 30):.1f} GiB of GPU memory are still in use after the server's end"
        time.sleep(0.2)


@contextlib.contextmanager
def running(engine: Engine, made: list[Launch], folder: str, record: ServerRecord, state_folder: str, port: int | None,
            ready_timeout_s: float, say: Any, sampling: Sampling | None = None):
    """The engine's servers, ready; a Serving. Takes all down at the end, whatever happens in between."""
    serve = serving.Serving(engine)
    before = gpu_used()
    began = time.monotonic()
    outcome, message = "ok", None
    try:
        for index, launch in enumerate(made):
            log = os.path.join(folder, "engine.log" if len(made) == 1 else f"engine-{index}.log")
            if os.path.exists(log):
                os.replace(log, log + ".old")
            serve.servers.append(serving.Started(launch, serving.spawn(launch, log, dict(os.environ)), log, f"http://127.0.0.1:{launch.port}"))
            orphans.remember(serve, state_folder)
        for started in serve.servers:
            serve.probe = serving.wait_ready(engine, started, ready_timeout_s, engine.api, began, sampling)
        serve.base_url = serve.servers[0].url
        if len(made) > 1:
            assert port is not None
            serve.balancer = balancer.start(port, [each.launch.port for each in serve.servers], os.path.abspath(folder))
            serve.base_url = f"http://127.0.0.1:{port}"
            orphans.remember(serve, state_folder)
        serve.ready_s = round(time.monotonic() - began, 3)
        urls = [each.url for each in serve.servers]
        first = made[0]
        version = server_version.found(engine.name, first.argv, first.container is not None, lambda path: serving.look(urls[0] + path))
        record.write(version=version or record.fields["settings"].get("version"),
                     base_url=serve.base_url, urls=urls, pids=serving.root_pids(serve.servers), ready_s=serve.ready_s,
                     metrics_urls=[url + engine.metrics_path for url in urls] if engine.metrics_path else [],
                     probe=serve.probe, outcome="running", logs=[each.log for each in serve.servers])  # fmt: skip
        yield serve
        dead = [each for each in serve.servers if each.process.poll() is not None]
        if dead:
            outcome, message = serving.explain(engine, dead[0].log, dead[0].process.returncode)
            say(f"{engine.title} ended while the command ran: {message}", f"its log: {dead[0].log}")
    except serving.NotReady as error:
        outcome, message = error.outcome, error.message
        raise
    except BaseException as error:
        outcome, message = ("cancelled", None) if not isinstance(error, Exception) else ("failed", str(error)[:300])
        raise
    finally:
        try:
            serving.stop(serve, say)
            left = wait_for_memory(before, own_gpus(made))
            if left:
                say(left, "something else uses the GPU, or the engine left a process behind; see nvidia-smi")
        except BaseException:
            serving.stop(serve, say, 0.0)  # a second signal: the user will not wait for a gentle end
            raise
        finally:
            record.write(ended_at=clock.now(), outcome=outcome, message=message, logs=[each.log for each in serve.servers])

