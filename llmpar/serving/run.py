"""What llmpar-serve does between reading its options and running the command: devices, launches, the server record."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from llmpar import clock
from llmpar.dialects import Sampling
from llmpar.engines import flags
from llmpar.engines.base import Engine, Launch
from llmpar.serving import balancer, causes, engine_version, orphans, readiness, servers
from llmpar.serving.gpu_memory import gpu_used, own_gpus, wait_for_memory
from llmpar.serving.record import ServerRecord


@contextlib.contextmanager
def running(
    engine: Engine,
    made: list[Launch],
    folder: str,
    record: ServerRecord,
    state_folder: str,
    host: str,
    port: int | None,
    ready_timeout_s: float,
    say: Any,
    sampling: Sampling | None = None,
):
    """The engine's servers, ready; a Serving. `host`, `port`: where a balancer listens.

    Takes all down at the end, whatever happens in between."""
    serve = servers.Serving(engine)
    before = gpu_used()
    began = time.monotonic()
    outcome, message = "ok", None
    try:
        for index, launch in enumerate(made):
            log = os.path.join(folder, "engine.log" if len(made) == 1 else f"engine-{index}.log")
            serve.servers.append(servers.start(launch, log, os.environ))
            orphans.remember(serve, state_folder)
        for started in serve.servers:
            serve.probe = readiness.wait_ready(engine, started, ready_timeout_s, engine.api, began, sampling)
        serve.base_url = serve.servers[0].url
        if len(made) > 1:
            assert port is not None
            to = [each.launch.port for each in serve.servers]
            serve.balancer = balancer.start(host, port, to, os.path.abspath(folder))
            serve.base_url = f"http://{flags.bracketed(flags.reached_at(host))}:{port}"
            orphans.remember(serve, state_folder)
        serve.ready_s = round(time.monotonic() - began, 3)
        urls = [each.url for each in serve.servers]
        version = engine_version.running(engine, made[0], lambda path: readiness.look(urls[0] + path))
        record.write(
            version=version or record.fields["settings"].get("version"),
            base_url=serve.base_url,
            urls=urls,
            pids=servers.root_pids(serve.servers),
            ready_s=serve.ready_s,
            startup=serve.servers[0].startup,
            metrics_urls=[url + engine.metrics.path for url in urls] if engine.metrics else [],
            probe=serve.probe,
            outcome="running",
            logs=[each.log for each in serve.servers],
        )
        yield serve
        dead = [each for each in serve.servers if each.process.poll() is not None]
        if dead:
            outcome, message = causes.explain(engine, dead[0].log, dead[0].ended())
            say(f"{engine.title} ended while the command ran: {message}", f"its log: {dead[0].log}")
    except readiness.NotReady as error:
        outcome, message = error.outcome, error.message
        raise
    except BaseException as error:
        outcome, message = ("cancelled", None) if not isinstance(error, Exception) else ("failed", str(error)[:300])
        raise
    finally:
        try:
            servers.stop(serve, say)
            left = wait_for_memory(before, own_gpus(made))
            if left:
                say(left, "something else uses the GPU, or the engine left a process behind; see nvidia-smi")
        except BaseException:
            servers.stop(serve, say, 0.0)  # a second signal: the user will not wait for a gentle end
            raise
        finally:
            record.write(
                ended_at=clock.now(), outcome=outcome, message=message, logs=[each.log for each in serve.servers]
            )
