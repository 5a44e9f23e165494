"""What is measured: each section runs its clients in turn, REPEATS times over, and gives a table."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable

import front
import loads
import truth
from loads import Run, Work
from tables import spread, table

# Gap between events in ms, such that 64 of them take as long as GNU parallel, at some 160 jobs a second, needs to have
# as many requests out as were asked for: at a shorter one no launcher could hold them.
COST_GAPS = {24: 2.3, 128: 12.5, 256: 25.0}
LEVELS = (24, 128, 256)
TRUTH_GAP = 20.0
LONG_GAP = 1500 / loads.EVENTS  # requests of 1.5 s


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def alternate(repeats: int, cases: dict[str, Callable[[], Run]]) -> dict[str, list[Run]]:
    """Each case once, then all over again."""
    taken: dict[str, list[Run]] = defaultdict(list)
    for repeat in range(repeats):
        for name, case in cases.items():
            one = case()
            taken[name].append(one)
            say(
                f"{repeat + 1}/{repeats} {name}: {one.cpu_ms:.2f} ms CPU a request, {one.wall_s:.1f} s, "
                f"{one.held:.0f} held"
                + (f", TTFT error p99 {1e3 * truth.size(one.errors.ttft, 0.99):.3f} ms" if one.errors.ttft else "")
                + f", others {one.foreign:.0%}"
            )
    return taken


def footing(runs: Iterable[Run]) -> str:
    """Under each table: how true the truth was, and who else was at work."""
    all_runs = list(runs)
    late = [value for run in all_runs for value in run.late]
    return (
        f"truthd ran {'under SCHED_FIFO' if all_runs[0].scheduling == 'fifo' else 'as a normal process'}; its writes "
        "were over "
        f"{1e3 * truth.quantile(late, 0.5):.3f} ms (p50), {1e3 * truth.quantile(late, 0.99):.3f} ms (p99), "
        f"{1e3 * max(late):.3f} ms (most) after they were due, of {len(late)}. Other processes of the machine used "
        f"{100 * statistics.median(run.foreign for run in all_runs):.0f}% of it meanwhile (median of runs), "
        f"{100 * max(run.foreign for run in all_runs):.0f}% at most.\n"
    )


def cost(work: Work, repeats: int, count: int) -> str:
    """Processor and wall time of a request."""
    rows, runs = [], []
    for clients in LEVELS:
        gap = COST_GAPS[clients]
        asked = {"curl": count if clients == 128 else count // 2, "pool": count if clients == 128 else count // 2}
        if clients == 128:
            asked |= {
                "script": count,
                "queue": count // 4,
                "threads": count // 4,
                "asyncio": count // 4,
                "cold": max(count // 32, 8),
            }
        say(f"cost at {clients}")
        taken = alternate(
            repeats,
            {
                name: lambda name=name, number=number, clients=clients, gap=gap: loads.run(
                    work, name, clients, number, gap
                )
                for name, number in asked.items()
            },
        )
        for name, number in asked.items():
            mine, curl = taken[name], taken["curl"]
            rows.append(
                [
                    f"{clients} {name}",
                    str(number),
                    spread([run.cpu_ms for run in mine]),
                    spread([run.cpu_ms / other.cpu_ms for run, other in zip(mine, curl, strict=True)]),
                    spread([1000 * run.wall_s / run.count for run in mine]),
                    spread(
                        [
                            run.wall_s / run.count / (other.wall_s / other.count)
                            for run, other in zip(mine, curl, strict=True)
                        ]
                    ),
                    spread([run.first_s for run in mine]),
                    spread([run.held for run in mine], 0),
                ]
            )
            runs += mine
    return (
        table(
            [
                "clients",
                "requests",
                "CPU ms a request",
                "to curl's",
                "wall ms a request",
                "to curl's",
                "first request after s",
                "held",
            ],
            rows,
        )
        + "\n"
        + footing(runs)
    )


def memory(work: Work, clients: int = 128) -> str:
    """Private memory of each worker with all of them at work."""
    run = loads.run(work, "pool", clients, clients, 6000 / loads.EVENTS, memory_after_s=4.0)
    sizes = [size / 1e6 for size in run.private_bytes]
    return (
        f"Private memory of a worker with {clients} requests out, MB (Private_Clean and Private_Dirty of "
        f"smaps_rollup; {len(sizes)} workers): "
        f"median {truth.quantile(sizes, 0.5):.1f}, largest {max(sizes, default=float('nan')):.1f}, together "
        f"{sum(sizes):.0f}.\n"
    )


def _errors(name: str, runs: list[Run], clock: str | None = None) -> list[str]:
    def column(which: str, share: float) -> str:
        return spread([1e3 * truth.size(getattr(run.errors, which), share) for run in runs], 3)

    if clock is None:
        clock = " and ".join(sorted({record["clock"] for run in runs for record in run.records})) or "-"
    unmatched = sum(run.errors.unmatched for run in runs)
    return [
        name,
        clock,
        column("ttft", 0.5),
        column("ttft", 0.99),
        column("events", 0.5),
        column("events", 0.99),
        column("sent", 0.99),
        spread([run.held for run in runs], 0),
        str(unmatched),
    ]


TRUTH_HEAD = [
    "streams, client",
    "clock",
    "TTFT p50",
    "TTFT p99",
    "event p50",
    "event p99",
    "send p99",
    "held",
    "unmatched",
]


def truths(work: Work, repeats: int, quick: bool) -> str:
    """Errors against truthd's log at 24, 128, 256 streams."""
    rows, runs = [], []
    for clients in LEVELS:
        count = clients if quick else min(4 * clients, 768)
        say(f"truth at {clients}")
        cases = {"pool": ("pool", ""), "queue": ("queue", ""), "queue, user stamps": ("queue", "--user-stamps")}
        taken = alternate(
            repeats,
            {
                name: lambda client=client, options=options, clients=clients, count=count: loads.run(
                    work, client, clients, count, TRUTH_GAP, options
                )
                for name, (client, options) in cases.items()
            },
        )
        for name, mine in taken.items():
            rows.append(_errors(f"{clients} {name}", mine))
            runs += mine
    return table(TRUTH_HEAD, rows) + "\n" + footing(runs)


def shapes(work: Work, repeats: int, clients: int = 128) -> str:
    """The same for other bodies, connections and clients."""
    count = 2 * clients
    say("truth of other shapes")

    def case(client: str, options: str = "", server: tuple[str, ...] = (), before: object = None) -> Callable[[], Run]:
        return lambda: loads.run(work, client, clients, count, TRUTH_GAP, options, server, before)

    cases = {
        "3 tokens an event": case("queue", server=("-b", "3")),
        "body ends with the connection": case("queue", server=("-c",)),
        "keep-alive": case("queue", "--keep-alive"),
        "threads": case("threads"),
        "asyncio": case("asyncio"),
        "curl -w (its own TTFT)": case("curl -w"),
    }
    lacking = front.missing()
    if lacking is None:
        cases["TLS"] = case("queue", before=front.Tls)
    taken = alternate(repeats, cases)
    rows = [_errors(f"{clients} {name}", runs) for name, runs in taken.items()]
    if lacking is not None:
        rows.append([f"{clients} TLS", lacking, *"-" * 7])
    return table(TRUTH_HEAD, rows) + "\n" + footing(run for runs in taken.values() for run in runs)


def held(work: Work, repeats: int, quick: bool) -> str:
    """Requests in flight, of those asked for, with requests of 1.5 s."""
    rows, runs = [], []
    for clients in (128, 256):
        count = (2 if quick else 8) * clients
        say(f"concurrency at {clients}")
        taken = alternate(
            min(repeats, 2),
            {
                name: lambda name=name, clients=clients, count=count: loads.run(work, name, clients, count, LONG_GAP)
                for name in ("curl", "pool", "queue")
            },
        )
        for name, mine in taken.items():
            rows.append(
                [
                    f"{clients} {name}",
                    str(count),
                    spread([run.held for run in mine], 1),
                    spread([run.held / clients for run in mine], 3),
                    spread([truth.held(run.served, 0.25) / clients for run in mine], 3),
                    spread([truth.most(run.served) for run in mine], 0),
                ]
            )
            runs += mine
    return (
        table(
            [
                "asked, client",
                "requests",
                "held (time-weighted mean)",
                "share of asked",
                "in the middle half",
                "most at once",
            ],
            rows,
        )
        + "\n"
        + footing(runs)
    )


def open_loop(work: Work, quick: bool, rate: float = 40.0) -> str:
    """A server that stalls for 3 s under arrivals at a fixed rate."""
    count = int(rate * (6 if quick else 10))
    say("open loop")
    arrivals = f"llmpar-arrivals --rate {rate:g} --process constant --start +3 -n {count} $(cat {work.folder}/run/list)"
    rows, runs = [], []
    for clients in (256, 32):
        run = loads.run(work, "arrivals", clients, count, 5.0, server=("-s", "2000000:3000000"), arrivals=arrivals)
        runs.append(run)
        for name, field in (("plain", "ttft_s"), ("effective", "effective_ttft_s")):
            values = [record[field] for record in run.records if record[field] is not None]
            rows.append(
                [
                    f"{clients} {name}",
                    str(len(values)),
                    *(f"{truth.quantile(values, share):.3f}" for share in (0.5, 0.9, 0.99, 1.0)),
                    f"{truth.quantile([record['lateness_s'] for record in run.records], 0.99):.3f}",
                ]
            )
    return (
        table(["processes, TTFT", "requests", "p50 s", "p90 s", "p99 s", "most s", "lateness p99 s"], rows)
        + "\n"
        + footing(runs)
    )
