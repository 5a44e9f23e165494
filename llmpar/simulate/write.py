"""A predicted cell as records: requests as llmpar-request would write them, each marked `simulated`, host and
server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmpar.simulate.intervals import interval
from llmpar.simulate.predict import Prediction

# Records of the same prediction are the same bytes, so its clock does not start now.
START_S = 1_700_000_000.0
FIGURES = ("output_tokens_per_s", "wall_s", "tpot_mean_s", "ttft_mean_s", "e2e_mean_s")


def host_name(prediction: Prediction) -> str:
    return f"simulated {prediction.scenario.card.title}"


def requests(prediction: Prediction, cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One record for each request, in the order of sending."""
    run, load = prediction.run, cell["load"]
    host = host_name(prediction)
    sampling = {
        "max_tokens": load["max_tokens"],
        "temperature": load.get("temperature", 0.0),
        "ignore_eos": True,
        "stream": True,
    }
    for number in run.sent_s.argsort(kind="stable").tolist():
        sent, end = float(run.sent_s[number]), float(run.end_s[number])
        scheduled = None if run.scheduled_s is None else float(run.scheduled_s[number])
        times = [round(float(at) - sent, 6) for at in run.token_times(number)]
        late = None if scheduled is None else sent - scheduled
        yield {
            "kind": "request",
            "v": 1,
            "simulated": True,
            "id": f"{cell['id']}-{number}",
            "prompt": f"simulated-{number}",
            "prompt_sha256": None,
            "attempt": 1,
            "engine": cell["server"].get("engine"),
            "api": load.get("api") or "openai-completions",
            "model": prediction.scenario.model.name,
            "base_url": "simulated:",
            "stream": True,
            "status": "ok",
            "error": None,
            "host": host,
            "pid": 0,
            "slot": None,
            "seq": number + 1,
            "launcher": load.get("launcher") or "parallel",
            "concurrency": None if scheduled is not None else load.get("clients"),
            "scheduled_at": None if scheduled is None else round(START_S + scheduled, 6),
            "launched_at": round(START_S + float(run.launched_s[number]), 6),
            "sent_at": round(START_S + sent, 6),
            "lateness_s": None if late is None else round(late, 6),
            "connect_s": None,
            "headers_s": None,
            "ttft_s": times[0],
            "e2e_s": round(end - sent, 6),
            "effective_ttft_s": None if late is None else round(times[0] + late, 6),
            "effective_e2e_s": None if late is None else round(end - sent + late, 6),
            "event_s": times,
            "event_tokens": run.event_tokens(number),
            "clock": "simulated",
            "cpu_wait_s": None,
            "prompt_tokens": int(run.prompt_tokens[number]),
            "cached_tokens": prediction.scenario.cached_tokens or None,
            "output_tokens": int(run.output_tokens[number]),
            "token_source": "engine",
            "finish_reason": "length",
            "text": None,
            "sampling": sampling,
            "bytes_sent": 0,
            "bytes_received": 0,
        }


def host(prediction: Prediction) -> dict[str, Any]:
    """A host record of the card that was not there."""
    card = prediction.scenario.card
    return {
        "kind": "host",
        "v": 1,
        "simulated": True,
        "at": START_S,
        "host": host_name(prediction),
        "gpus": [{"index": 0, "name": card.title, "memory_bytes": card.memory_bytes}],
        "gpus_reason": None,
    }


def prediction(
    cell: dict[str, Any], made: Prediction | None, basis: str | None, reason: str | None, price_per_h: float | None
) -> dict[str, Any]:
    """The `prediction` record of a cell: figures with their intervals, or why there are none."""
    scenario = None if made is None else made.scenario
    figures = {}
    if made is not None and basis is not None:
        for name in FIGURES:
            value = made.figures.get(name)
            if value is not None:
                low, high = interval(name, value, basis)
                figures[name] = {"value": value, "low": low, "high": high}
    per_price = None
    if price_per_h and figures:
        per_price = {key: 3600 * value / price_per_h for key, value in figures["output_tokens_per_s"].items()}
    return {
        "kind": "prediction",
        "v": 1,
        "cell": cell["id"],
        "sweep": cell["sweep"],
        "card": cell["server"].get("card"),
        "title": None if scenario is None else scenario.card.title,
        "basis": basis,
        "source": None if scenario is None else scenario.card.source,
        "settings": cell["server"] | cell["load"],
        "fits": None if made is None else made.fits,
        "kv_tokens": None if scenario is None else scenario.capacity(),
        "prompt_tokens_mean": None if scenario is None else float(scenario.prompt_tokens.mean()),
        "output_tokens_mean": None if scenario is None else float(scenario.output_tokens.mean()),
        "preemptions": None if made is None else made.run.preemptions,
        "scale": None if made is None else made.scale,
        "figures": figures,
        "price_per_h": price_per_h,
        "output_tokens_per_price": per_price,
        "reason": reason,
    }
