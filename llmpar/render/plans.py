"""A plan of server sessions, as text."""

from __future__ import annotations

from typing import Any

from llmpar.render import plain
from llmpar.results.words import number, percent, sessions, title


def as_text(plan: dict[str, Any]) -> str:
    """What the pilot's noise is, what to measure, how long it takes, and what other numbers of sessions can see."""
    lines = [_noise(plan), _chosen(plan)]
    seen = [
        f"{count} detect {percent(plan[name])}% or more"
        for name, count in (("three_sessions_see_ratio", 3), ("five_sessions_see_ratio", 5))
        if plan[name] is not None
    ]
    if seen:
        requests = f"{plan['noise']['requests']:.0f}"
        lines.append(f"with {requests} requests per server session, server sessions per side: {'; '.join(seen)}")
    rows = [
        [
            str(option["requests"]),
            str(option["sessions"] or "over 1000"),
            percent(option["noise_ratio"]) + "%",
            minutes(option["duration_s"]),
        ]
        for option in plan["options"]
    ]
    header = ["requests per server session", "server sessions per side", "noise", "minutes, one cell"]
    return "\n".join(lines) + "\n\n" + plain.table(header, rows)


def _noise(plan: dict[str, Any]) -> str:
    noise = plan["noise"]
    requests = f"{noise['requests']:.0f} requests per server session"
    if noise["within_ratio"] is None:
        within = ""
    elif noise["divided"]:
        within = f", of which {percent(noise['within_ratio'])}% from {requests}"
    else:
        within = "; how much of it more requests would remove is unknown, so none is assumed"
    count = noise["freedom"] + noise["cells"]
    return (
        f"{title(plan['figure'])}: server sessions differ by {percent(noise['sessions_ratio'])}% "
        f"(one standard deviation{within}); planning with {percent(noise['upper_ratio'])}%, the upper limit estimated "
        f"from {count} server sessions of {noise['cells']} cell{'s' if noise['cells'] > 1 else ''}"
    )


def _chosen(plan: dict[str, Any]) -> str:
    difference, power = percent(plan["difference_ratio"]), percent(plan["power"])
    if plan["sessions"] is None:
        return (
            f"no plan of up to 1000 server sessions detects {difference}%; find out why server sessions differ so much"
        )
    lead = (
        f"to detect {difference}% with a power of {power}%: {sessions(plan['sessions'])} per side with "
        f"{plan['requests']} requests each"
    )
    if plan["duration_s"] is None:
        return lead
    count = 2 * plan["sessions"]
    cell = plan["cell_s"] * plan["requests"] / plan["noise"]["requests"]
    starts = f"{count} starts of {number(plan['start_s'])} s and " if plan["start_s"] is not None else ""
    lead += f", about {minutes(plan['duration_s'])} minutes for one cell ({starts}{count} runs of {number(cell)} s"
    lead += ")" if starts else "; no server was launched, so starts are not counted)"
    if plan["cells_per_session"] > 1:
        lead += (
            f", {minutes(plan['all_cells_duration_s'])} for the {plan['cells_per_session']} cells of a server session"
        )
    return lead


def minutes(duration_s: float | None) -> str:
    """Seconds as minutes: whole from 10 on."""
    if duration_s is None:
        return "–"
    return f"{duration_s / 60:.0f}" if duration_s >= 570 else f"{duration_s / 60:.1f}"
