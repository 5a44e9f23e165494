"""A plan of server sessions, as text."""

from __future__ import annotations

from typing import Any


def as_text(found: dict[str, Any]) -> str:
    from llmpar.render import plain
    from llmpar.results.words import percent, title

    noise = found["noise"]
    requests = f"{noise['requests']:.0f} requests a session"
    if noise["within_ratio"] is None:
        within = ""
    elif noise["within_ratio"] >= noise["sessions_ratio"]:
        within = f", no more than {requests} explain by themselves"
    else:
        within = f", of which {percent(noise['within_ratio'])} % from {requests}"
    lines = [
        f"{title(found['figure'])}: sessions differ by {percent(noise['sessions_ratio'])} % (one standard deviation{within}); "
        f"planned with {percent(noise['upper_ratio'])} %, the upper limit of what {noise['freedom'] + noise['cells']} sessions of "
        f"{noise['cells']} cell{'s' if noise['cells'] > 1 else ''} say"
    ]
    if found["sessions"] is None:
        lines.append(
            f"no plan of up to 1000 sessions sees {percent(found['difference_ratio'])} %; find out why sessions differ so much"
        )
    else:
        lines.append(
            f"to see {percent(found['difference_ratio'])} % in {percent(found['power'])} % of tries: {found['sessions']} sessions "
            f"of each side with {found['requests']} requests each"
        )
    for name, count in (("three_sessions_see_ratio", "3"), ("five_sessions_see_ratio", "5")):
        if found[name] is not None:
            lines.append(f"{count} sessions of each side see differences from {percent(found[name])} % on")
    rows = [
        [str(each["requests"]), str(each["sessions"] or "over 1000"), percent(each["noise_ratio"]) + " %"]
        for each in found["options"]
    ]
    return "\n".join(lines) + "\n\n" + plain.table(["requests a session", "sessions", "noise"], rows)
