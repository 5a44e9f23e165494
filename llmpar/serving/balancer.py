"""nginx in front of several servers of one engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence

from llmpar import exit_codes
from llmpar.engines import flags
from llmpar.failure import Failure
from llmpar.serving import ports, process_groups

ELSEWHERE = ("/usr/sbin", "/sbin")  # not on everybody's PATH

NGINX = """\
# Made by llmpar-serve: the request goes to the server with the fewest open ones, and nothing is buffered.
daemon off;
worker_processes 1;
pid "{folder}/nginx.pid";
error_log "{folder}/nginx.log";
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path "{folder}/nginx-body";
  proxy_temp_path "{folder}/nginx-proxy";
  fastcgi_temp_path "{folder}/nginx-fastcgi";
  uwsgi_temp_path "{folder}/nginx-uwsgi";
  scgi_temp_path "{folder}/nginx-scgi";
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  upstream engine {{
    least_conn;
{servers}
  }}
  server {{
    listen {address}:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      # A connection for each request: one that is kept may just be being closed by the engine, which costs a request.
      proxy_set_header Connection close;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_connect_timeout 60s;
      proxy_read_timeout 1d;
      proxy_send_timeout 1d;
      proxy_next_upstream off;
    }}
  }}
}}
"""


def configuration(host: str, port: int, to: Sequence[int], folder: str) -> str:
    """nginx's configuration, listening on `host`: least connections, streaming unbuffered, no second
    try of a request."""
    servers = "\n".join(f"    server 127.0.0.1:{each} max_fails=0;" for each in to)
    return NGINX.format(folder=folder, servers=servers, address=flags.bracketed(host), port=port)


def missing() -> bool:
    """Whether nginx is not on this machine."""
    return shutil.which("nginx", path=path()) is None


def start(host: str, port: int, to: Sequence[int], folder: str) -> subprocess.Popen[bytes]:
    """Start nginx in the foreground of a session of its own. Raises Failure where it does not come up."""
    config = f"{folder}/nginx.conf"
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(configuration(host, port, to, folder))
    with open(f"{folder}/nginx.log", "ab") as log:
        process = subprocess.Popen(
            ["nginx", "-p", folder, "-e", f"{folder}/nginx.log", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=process_groups.die_with_parent,
            env={**os.environ, "PATH": path()},
        )
    limit = time.monotonic() + 10
    while not ports.taken(port, host):
        if process.poll() is not None or time.monotonic() > limit:
            process_groups.end(process, 1.0)
            with open(f"{folder}/nginx.log", encoding="utf-8", errors="replace") as said:
                last = said.read().strip().splitlines()[-1:] or ["it said nothing"]
            raise Failure(f"nginx did not start: {last[0]}", exit_codes.UNAVAILABLE, f"its configuration: {config}")
        time.sleep(0.02)
    return process


def path() -> str:
    """PATH with the folders that it lacks for some users and that hold nginx."""
    return os.pathsep.join((os.environ.get("PATH", ""), *ELSEWHERE))
