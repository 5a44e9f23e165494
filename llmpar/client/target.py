"""The server that a URL names: host, port, path and TLS."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is the base URL's path without a closing slash."""

    tls: bool
    host: str
    port: int
    prefix: str
    authority: str

    @classmethod
    def of(cls, base_url: str) -> Target:
        """Raises ValueError, whose text says what is wrong, for anything but http and https with a host."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"'{base_url}' is not an http:// or https:// URL")
        if not parts.hostname:
            raise ValueError(f"'{base_url}' names no host")
        if parts.username is not None or parts.password is not None:
            # It would end in every record's base_url.
            raise ValueError("the base URL holds a user name or password; give a key with --api-key-file")
        if parts.query or parts.fragment:
            raise ValueError(f"'{base_url}' has a query or fragment; give the part before the API's own path")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(f"'{base_url}' names no port from 0 to 65535") from None
        tls = parts.scheme == "https"
        return cls(
            tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"), parts.netloc.rpartition("@")[2]
        )

    def path(self, route: str) -> str:
        """The request's path: base URLs are given with and without the /v1 that OpenAI routes begin with."""
        if self.prefix.endswith("/v1") and route.startswith("/v1/"):
            return self.prefix + route[3:]
        return self.prefix + route
