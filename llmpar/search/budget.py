"""What a search has spent of its minutes, and what the next cell would cost: a server's start, then its requests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpar.results import rows

# Between the end of a server session and the next start lies what the search itself takes. A longer gap is a pause:
# someone interrupted the search.
PAUSE_S = 60.0
FIRST_REQUESTS = 128
FEWEST_REQUESTS = 32
GROWTH = 3  # times as many requests from round to round


@dataclass
class Spent:
    """`seconds` so far; `cell_s`: the most that a cell of the first round should take. `start_s`: what a server
    session takes on top of its cells (start, warm-up, end), the mean. `request_s`: one request more, by candidate and
    level. The last two are of rounds alone, so that what is planned for the final does not change while it runs."""

    seconds: float = 0.0
    cell_s: float = math.inf
    start_s: float = 0.0
    request_s: dict[int, dict[float, float]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)  # server sessions

    def cost(self, number: int, level: float, count: int, server_session: str) -> float:
        """Seconds that a cell would take, with its server's start where that session has none."""
        start = 0.0 if server_session in self.begun else self.start_s
        return start + count * self.seconds_a_request(number, level)

    def seconds_a_request(self, number: int, level: float) -> float:
        """Of this candidate at the nearest level, else the median of the others there; 0 before the first cell."""
        if own := self.request_s.get(number):
            return _nearest(own, level)
        return statistics.median([_nearest(each, level) for each in self.request_s.values()] or [0.0])


def _nearest(known: Mapping[float, float], level: float) -> float:
    return known[min(known, key=lambda each: (abs(math.log(each / level)), each))]


def session_seconds(found: Sequence[Mapping[str, Any]]) -> float:
    """What a server session took, by the summaries of its cells: from its server's start to the last end; where that is
    not known, the time until it was ready and the walls of its cells."""
    server = found[0].get("server") or {}
    took = float(server.get("ready_s") or 0.0) + sum(map(_wall, found))
    if server.get("started_at") is None:
        return took
    ends = [float(server.get("ended_at") or 0.0), *(float(each.get("ended_at") or 0.0) for each in found)]
    return max(took, max(ends) - float(server["started_at"]))


def _wall(summary: Mapping[str, Any]) -> float:
    return rows.reading(dict(summary), "wall_s").value or 0.0


def spent(cells: Sequence[tuple[int, float, bool, Mapping[str, Any]]]) -> Spent:
    """What cells took: (candidate, level, whether of a round, summary). The time
    between server sessions counts, a pause does not."""
    result = Spent()
    sessions: dict[tuple[str, Any], list[tuple[bool, Mapping[str, Any]]]] = {}
    for number, level, of_round, summary in cells:
        name = str((summary.get("cell") or {}).get("session"))
        # A session that was interrupted had its server started twice.
        started = (summary.get("server") or {}).get("started_at")
        sessions.setdefault((name, started), []).append((of_round, summary))
        requests = (summary.get("n") or {}).get("requests") or 0
        if of_round and requests:
            result.request_s.setdefault(number, {})[level] = _wall(summary) / requests
    result.begun = {name for name, _ in sessions}
    spans: list[tuple[float, float]] = []
    starts: list[float] = []
    for (_, started), found in sessions.items():
        summaries = [summary for _, summary in found]
        took = session_seconds(summaries)
        if started is None:
            result.seconds += took
        else:
            spans.append((float(started), float(started) + took))
        if found[0][0]:
            starts.append(took - sum(map(_wall, summaries)))
    until = None
    for begun, ended in sorted(spans):
        if until is None or begun - until > PAUSE_S:
            until = begun
        result.seconds += max(0.0, ended - until)
        until = max(until, ended)
    result.start_s = statistics.fmean(starts) if starts else 0.0
    return result


def cell_seconds(minutes: float | None, candidates: int) -> float:
    """The most that a cell of the first round should take: half of a candidate's even share of the search's `minutes`,
    so that the first round leaves time for another level, for more rounds and for the final."""
    return math.inf if minutes is None else minutes * 60 / (2 * max(1, candidates))


def requests_of(turn: int, level: float, spent: Spent | None = None, number: int = 0) -> int:
    """Requests of a cell of a round: at least four turns of all clients, and three times as many each round, as long as
    the cell takes no longer than its server's start does. Beyond that another start teaches more than a longer cell:
    server sessions differ (Kalibera and Jones, ISMM 2013). Fewer than usual where the search could not pay for so many
    of each candidate."""
    each = spent.seconds_a_request(number, level) if spent else 0.0
    payable = spent.cell_s / each if spent and each > 0 else math.inf
    first = int(max(FEWEST_REQUESTS, 4 * level, min(FIRST_REQUESTS, payable)))
    most = max(first, int(spent.start_s / each)) if spent and each > 0 else first * GROWTH**2
    return min(first * GROWTH ** min(turn - 1, 2), most)
