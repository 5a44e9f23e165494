"""The server that a URL names: host, port, path, TLS and whom to trust, or a Unix socket. One rule for all commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

# A base URL often ends in the version that routes begin with, in one of another name, or in a route itself.
_VERSION = re.compile(r"/v[0-9]+(?:(?:alpha|beta)[0-9]*)?(?:/openai)?\Z")
_ROUTES = ("/chat/completions", "/completions", "/completion", "/generate_stream", "/generate")
_SAFE = "/:@!$&'()*+,;=~%"


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is the base URL's path without a closing slash, ready for a request line.

    `slash`: the base URL ends in one, which counts where it is a whole route (some servers redirect to that).
    `unix`: the path of a Unix socket, else None. `ca`: a file of certificates to trust; `insecure`: trust any.
    """

    tls: bool
    host: str
    port: int
    prefix: str
    authority: str
    unix: str | None = None
    ca: str | None = None
    insecure: bool = False
    slash: bool = False

    @classmethod
    def of(cls, base_url: str, ca: str | None = None, insecure: bool = False) -> Target:
        """Raises ValueError, whose text says what is wrong, for anything but http, https and Unix sockets."""
        try:
            base_url.encode()
        except UnicodeEncodeError:
            raise ValueError("the base URL is not UTF-8") from None
        if any(letter <= " " or letter == "\x7f" for letter in base_url):
            raise ValueError(f"{base_url!r} holds blanks or control characters: write them as %20 and the like")
        try:
            parts = urlsplit(base_url)
            host = parts.hostname
        except ValueError as error:
            raise ValueError(f"'{base_url}' is not a URL: {error}") from None
        if parts.scheme in ("unix", "http+unix"):
            return cls._unix(base_url, parts.scheme, parts.netloc, parts.path)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"'{base_url}' is not an http:// or https:// URL")
        if not host:
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
        name = _host(host, base_url)
        tls = parts.scheme == "https"
        # The zone of a link-local address is ours alone: no server knows it.
        shown = f"[{name.partition('%')[0]}]" if ":" in name else name
        authority = shown if port is None else f"{shown}:{port}"
        prefix = quote(parts.path.rstrip("/"), safe=_SAFE)
        slash = parts.path.endswith("/")
        return cls(tls, name, port or (443 if tls else 80), prefix, authority, None, ca, insecure, slash)

    @classmethod
    def _unix(cls, base_url: str, scheme: str, netloc: str, path: str) -> Target:
        """`unix:///run/x.sock`, or `http+unix://%2Frun%2Fx.sock/v1` with a path."""
        socket = unquote(netloc) if scheme == "http+unix" else path
        prefix = path.rstrip("/") if scheme == "http+unix" else ""
        if scheme == "unix" and netloc or not socket.startswith("/"):
            raise ValueError(f"'{base_url}' names no socket: write unix:///PATH or http+unix://%2FPATH/PREFIX")
        if len(socket.encode()) > 107:
            raise ValueError(f"'{base_url}': the path of a Unix socket has at most 107 bytes")
        return cls(False, "localhost", 0, quote(prefix, safe=_SAFE), "localhost", socket)

    def path(self, route: str) -> str:
        """The path of a route in a request. Base URLs are given with and without the version that routes begin with, or
        with a whole route."""
        base = self.prefix
        for pasted in _ROUTES:
            if base.endswith(pasted):
                base = base.removesuffix(pasted)
                if self.slash and route.endswith(pasted):
                    route += "/"
                break
        version = _VERSION.search(base)
        if version is None:
            return base + route
        # Only OpenAI's routes have a version; what stands beside them (metrics, native routes) is above it.
        return base + route[3:] if route.startswith("/v1/") else base[: version.start()] + route

    def pointed(self, path: str, location: str) -> str:
        """Where an answer to a request for `path` points, in full; as it came where that is no address."""
        if self.unix is not None:
            return location
        try:
            return urljoin(f"{'https' if self.tls else 'http'}://{self.authority}{path}", location)
        except ValueError:
            return location

    def url(self, route: str) -> str:
        """The whole address of a route. Raises ValueError for a Unix socket, which has none."""
        if self.unix is not None:
            raise ValueError("a Unix socket is for llmpar-request alone: give an address of the server's for this")
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path(route)}"


def _host(host: str, base_url: str) -> str:
    """The name as the resolver takes it: letters of all languages in IDNA."""
    address, percent, zone = host.partition("%")
    if ":" in address:
        return address + ("%" + unquote(percent + zone).removeprefix("%").removeprefix("25") if percent else "")
    try:
        name = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError as error:
        raise ValueError(f"'{base_url}' names no host: {error}") from None
    labels = name.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ValueError(f"'{base_url}' names no host: its labels are 1 to 63 letters, digits and hyphens")
    return name
