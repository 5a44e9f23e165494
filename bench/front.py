"""A TLS front before truthd: nginx with a certificate of its own, passing on what comes as it comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from llmpar.serving import balancer, ports

CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{ proxy_pass {url}; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ""; }}
  }}
}}
"""


def missing() -> str | None:
    """What a TLS front needs and this machine lacks."""
    lacking = [
        name
        for name, is_missing in (("nginx", balancer.missing()), ("openssl", shutil.which("openssl") is None))
        if is_missing
    ]
    return f"{' and '.join(lacking)} not installed" if lacking else None


class Tls:
    """Context: for truthd's URL, an https:// one; SSL_CERT_FILE names its certificate meanwhile."""

    def __init__(self, url: str):
        self.url = url

    def __enter__(self) -> str:
        self.folder = tempfile.mkdtemp()
        port = ports.free()
        certificate = f"{self.folder}/cert.pem"
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=truthd",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                f"{self.folder}/key.pem",
                "-out",
                certificate,
            ],
            check=True,
            capture_output=True,
        )
        Path(self.folder, "nginx.conf").write_text(CONFIG.format(folder=self.folder, port=port, url=self.url))
        self.process = subprocess.Popen(
            ["nginx", "-p", self.folder, "-c", f"{self.folder}/nginx.conf"],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": balancer.path()},
        )
        os.environ["SSL_CERT_FILE"] = certificate
        patience = time.monotonic() + 10
        while not ports.taken(port):
            if time.monotonic() > patience or self.process.poll() is not None:
                self.__exit__()
                raise RuntimeError("nginx did not start")
            time.sleep(0.05)
        return f"https://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        os.environ.pop("SSL_CERT_FILE", None)
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
