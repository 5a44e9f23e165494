"""Does a cell meet an objective: yes, no, or the data cannot tell. Picks and searches judge by this rule alone.

An objective on a percentile is one on a share of requests: "TTFT p95 ≤ 500 ms" says that 95% of requests take at most
500 ms. Each server session answers it with a one-sided binomial bound at 95% confidence, which needs fewer requests
than a two-sided interval: 59 for p95, 299 for p99 (Clopper and Pearson, Biometrika 26, 1934). A failed request counts
as one over the objective. Requests of one run correlate; `bench/search` checks the rule against a server that queues.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpar import sizes
from llmpar.results import rows, words
from llmpar.stats import intervals, order_statistics, special

MEETS, MISSES, UNKNOWN = "meets", "misses", "cannot tell"
RISK = 0.05
FIGURES = ("ttft", "tpot", "itl", "e2e", "effective_ttft", "effective_e2e")


def parse(text: str) -> dict[str, float]:
    """Objectives such as `ttft-p95<500ms tpot-p95<50ms`: figures, named as in llmpar-plot, to the most they may be, in
    seconds. Raises ValueError with the part that cannot be read."""
    parts = re.sub(r"\s*(<=|<|≤)\s*", "<", text).replace(",", " ").split()
    if not parts:
        raise ValueError("no objective was given; write for example ttft-p95<500ms")
    objectives = {}
    for part in parts:
        name, _, bound = part.partition("<")
        figure, _, statistic = name.lower().replace("-", "_").rpartition("_")
        try:
            if figure not in FIGURES or statistic not in rows.STATISTICS:
                raise ValueError(f"figures are {', '.join(FIGURES)}; statistics are {', '.join(rows.STATISTICS)}")
            objectives[f"{figure}_{statistic}_s"] = sizes.seconds_of(bound)
        except ValueError as error:
            raise ValueError(f"'{part}' is not an objective such as ttft-p95<500ms: {error}") from None
    return objectives


@dataclass(frozen=True)
class Judged:
    """One objective of one row: `state` is one of MEETS, MISSES, UNKNOWN; `reason` in words unless it is met.

    `within`: the figure itself is within the objective, whether or not that is certain.
    """

    state: str
    reason: str = ""
    within: bool = False


def judge(row: rows.Row, metric: str, most: float) -> Judged:
    """Whether the row meets `metric` ≤ `most`.

    It meets where every server session shows that it does, and misses where one shows that it does not (of several
    sessions two, or one by its two-sided interval). Where single sessions cannot tell, two or more that all have the
    figure do by Student's t over their values.
    """
    states = state(row, metric, most)
    readings = [rows.reading(summary, metric) for summary in row.summaries]
    known = [one.value for one in readings if one.value is not None]
    within = bool(known) and len(known) == len(readings) and math.fsum(known) / len(known) <= most
    if states == MEETS:
        return Judged(MEETS, within=True)
    if states == MISSES:
        return Judged(MISSES, _miss(row, metric, most, known))
    return Judged(UNKNOWN, _unknown(row, metric, most, readings, known), within)


def state(row: rows.Row, metric: str, most: float) -> str:
    """The same without its reason."""
    states = [of_session(summary, metric, most) for summary in row.summaries]
    missed = [summary for summary, each in zip(row.summaries, states, strict=True) if each == MISSES]
    # By its one-sided bound one of three sessions would show a miss by chance in one case of seven.
    if len(missed) > 1 or missed and (len(states) == 1 or _above(rows.reading(missed[0], metric), most)):
        return MISSES
    if all(each == MEETS for each in states):
        return MEETS
    sessions = list(row.by_session(metric).values())
    if len(sessions) > 1 and all(rows.reading(summary, metric).value is not None for summary in row.summaries):
        low, high = _ends(sessions)
        if high <= most and max(sessions) <= most:
            return MEETS
        if low > most:
            return MISSES
    return UNKNOWN


def whatever(row: rows.Row) -> str:
    """What a row is whatever the objectives: it misses where over 1% of its requests failed, and the data cannot tell
    where the client limited it or no rate is known; else empty."""
    requests = sum(int((summary.get("n") or {}).get("requests") or 0) for summary in row.summaries)
    if requests and row.failures / requests > rows.MOST_FAILED:
        return MISSES
    return UNKNOWN if row.limited or row.figure("output_tokens_per_s").value is None else ""


def limits(row: rows.Row, metric: str) -> tuple[float | None, float | None]:
    """Between which limits on `metric` the data cannot tell: the row misses each below the first and meets each from
    the second on. None where no limit is high enough.

    What `state` says only grows with the limit, and changes only at values that the summaries hold.
    """
    steps = {0.0}
    for summary in row.summaries:
        distribution = (summary.get("latency") or {}).get(rows.path(metric)[1])
        for value in distribution.values() if isinstance(distribution, dict) else ():
            ends = value.values() if isinstance(value, dict) else (value,)
            steps |= {float(end) for end in ends if isinstance(end, int | float)}
    sessions = list(row.by_session(metric).values())
    if len(sessions) > 1:
        steps |= {*_ends(sessions), *sessions}
    ordered = sorted(steps)

    def rank(most: float) -> int:
        return (MISSES, UNKNOWN, MEETS).index(state(row, metric, most))

    places = [bisect.bisect_left(ordered, least, key=rank) for least in (1, 2)]
    low, high = (ordered[place] if place < len(ordered) else None for place in places)
    return low, high


def _above(figure: rows.Figure, most: float) -> bool:
    """Whether a figure's two-sided interval is above the objective; one without an interval counts as above."""
    return figure.low is None or figure.low > most


def of_session(summary: dict[str, Any], metric: str, most: float) -> str:
    """The same of one server session."""
    figure, path = rows.reading(summary, metric), rows.path(metric)
    if path[0] != "latency" or not path[-1].startswith("p"):
        if figure.value is None:
            return UNKNOWN
        low, high = (figure.value, figure.value) if path[0] != "latency" else (figure.low, figure.high)
        return MEETS if high is not None and high <= most else MISSES if low is not None and low > most else UNKNOWN
    distribution = (summary.get("latency") or {}).get(path[1])
    if not isinstance(distribution, dict):
        return UNKNOWN
    percent = int(path[-1].removeprefix("p"))
    if _surely_within(summary, distribution, percent, most):
        return MEETS
    return MISSES if _surely_over(summary, distribution, path[1], percent, most) else UNKNOWN


def of_all(summary: dict[str, Any], wanted: Mapping[str, float]) -> str:
    """All objectives together in one server session; it misses where too many requests failed, or none was sent."""
    counts = summary.get("n") or {}
    requests = counts.get("requests") or 0
    if not requests or requests - (counts.get("ok") or 0) > rows.MOST_FAILED * requests:
        return MISSES
    states = {of_session(summary, metric, most) for metric, most in wanted.items()}
    return MISSES if MISSES in states else UNKNOWN if UNKNOWN in states else MEETS


def at_most(summary: dict[str, Any], metric: str) -> float | None:
    """The upper bound of a figure in one server session: the one-sided one where there is one, else its interval's."""
    estimate: Any = summary
    for key in rows.path(metric):
        estimate = estimate.get(key) if isinstance(estimate, dict) else None
    bound = estimate.get("at_most") if isinstance(estimate, dict) else None
    return bound if bound is not None else rows.reading(summary, metric).high


def _surely_within(summary: dict[str, Any], distribution: dict[str, Any], percent: int, most: float) -> bool:
    """Whether a one-sided bound of this percentile, or of a higher one, is within the objective."""
    failed, requests = _failed(summary)
    if failed >= requests:
        return False
    # Of the requests that ended well, a larger share must be within where others failed.
    share = percent / 100 * requests / (requests - failed)
    for other in intervals.PERCENTS:
        estimate = distribution.get(f"p{other}") or {}
        if other / 100 >= share - 1e-12:
            bounds = [bound for bound in (estimate.get("at_most"), estimate.get("high")) if bound is not None]
            if bounds and min(bounds) <= most:
                return True
    if "at_most" in (distribution.get(f"p{percent}") or {}):
        return False
    # Summaries of version 1 have no one-sided bounds: count the requests that may have been over.
    count = int(distribution.get("n") or 0)
    within = {rank for rank, value in _ranks(distribution, count).items() if value <= most}
    over = count - max(within, default=0) + failed
    return bool(within) and float(special.bdtr(over, count + failed, 1 - percent / 100)) <= RISK


def _ranks(distribution: dict[str, Any], count: int) -> dict[int, float]:
    """What is known of the `count` values in order: the value at some ranks."""
    known = [(1, distribution.get("min")), (count, distribution.get("max"))]
    for percent in intervals.PERCENTS:
        known.append((order_statistics.rank(count, percent), (distribution.get(f"p{percent}") or {}).get("value")))
    return {rank: value for rank, value in known if value is not None and 1 <= rank <= count}


def _surely_over(summary: dict[str, Any], distribution: dict[str, Any], name: str, percent: int, most: float) -> bool:
    """Whether more requests were over the objective than a server that meets it would let by chance."""
    failed, _ = _failed(summary)
    count = int(distribution.get("n") or 0)
    for other in intervals.PERCENTS:
        estimate = distribution.get(f"p{other}") or {}
        if other <= percent:
            bounds = [bound for bound in (estimate.get("at_least"), estimate.get("low")) if bound is not None]
            if bounds and max(bounds) > most:
                return True
    if not failed and (distribution.get(f"p{percent}") or {}).get("at_least") is not None:
        return False  # the bound knows how far requests correlate; their count does not
    beyond = [rank for rank, value in _ranks(distribution, count).items() if value > most]
    over = count - min(beyond, default=count + 1) + 1
    # Gaps between tokens come in clusters, one of each request: their number proves nothing.
    if name in ("itl_s", "event_latency_s") or not over + failed:
        return False
    return float(special.bdtrc(over + failed - 1, count + failed, 1 - percent / 100)) <= RISK


def _failed(summary: dict[str, Any]) -> tuple[int, int]:
    """Requests without a latency because they failed, and all that count; none where the percentiles hold failures
    already."""
    counts = summary.get("n") or {}
    failed = 0 if summary.get("latency_failures") == "infinite" else sum(int(counts.get(x) or 0) for x in FAILURES)
    return failed, int(counts.get("ok") or 0) + failed


FAILURES = ("error", "timeout")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """One-sided 95% limits of the mean of one value a session."""
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(special.stdtrit(count - 1, 1 - RISK)) * spread / math.sqrt(count)
    return mean - half, mean + half


def _miss(row: rows.Row, metric: str, most: float, known: list[float]) -> str:
    bound = words.goal(metric, most)
    states = [of_session(summary, metric, most) for summary in row.summaries]
    missed = states.count(MISSES)
    part = f" in {missed} of {len(states)} server sessions" if 0 < missed < len(states) else ""
    if known and len(known) == len(states):
        value = math.fsum(known) / len(known)
        if value > most and not part:
            return f"{words.title(metric)} is {words.quantity(metric, value)}, above {bound}"
    lower = metric.rsplit("_", 2)[0] + "_p50_s"
    if not part and metric != lower and (half := row.figure(lower).value if "_p" in metric else None) and half > most:
        return f"{words.title(metric)} is above {bound}: {words.title(lower)} is {words.quantity(lower, half)} already"
    return f"{words.title(metric)} is above {bound}{part}"


def _unknown(row: rows.Row, metric: str, most: float, readings: list[rows.Figure], known: list[float]) -> str:
    name, bound = words.title(metric), words.goal(metric, most)
    if not known:
        needed = max((one.needed or 0 for one in readings), default=0)
        return f"{name} needs {needed} requests" if needed else f"{name} was not measured"
    if len(known) < len(readings):
        return f"{name} is known in {len(known)} of {len(readings)} server sessions"
    ends = [end for summary in row.summaries if (end := at_most(summary, metric))]
    value = words.quantity(metric, math.fsum(known) / len(known))
    reach = f" and may be up to {words.quantity(metric, max(ends))}" if ends and max(ends) > most else ""
    needed = max((one.needed or 0 for one in readings), default=0)
    more = f"; its interval needs {needed} requests" if needed and not reach else ""
    return f"{name} is {value}{reach}; the objective is {bound}{more}"
