"""How everything but the requests that are measured asks a server: the address, key, certificates and proxy rule of
llmpar-request. No proxy, no redirect, no settings of requests' own."""

from __future__ import annotations

import warnings
from typing import Any

import requests
import urllib3

UNTRUSTED = "its certificate is not trusted: name its CA with --ca FILE, or trust it as it is with --insecure"


class Session(requests.Session):
    """Answers come as they are: one that points elsewhere raises Redirected."""

    def __init__(self, key: str | None = None, verify: bool | str = True):
        super().__init__()
        self.trust_env = False  # no proxy, .netrc or bundle of requests' own
        self.verify = verify
        if verify is False:
            # Whoever gave --insecure knows; urllib3 would say it of every request.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None

    def request(self, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        answer = super().request(*args, **options)
        if 300 <= answer.status_code < 400:
            place = answer.headers.get("location", "nowhere")
            answer.close()
            raise Redirected(f"HTTP {answer.status_code}, redirected to '{place}': give that address")
        return answer


class Redirected(requests.RequestException):
    """The server points to another address, which is said and not followed."""


def why(error: requests.RequestException) -> str | None:
    """What to say of an error in words of ours; None where its own are best."""
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UNTRUSTED
    return str(error) if isinstance(error, Redirected) else None
