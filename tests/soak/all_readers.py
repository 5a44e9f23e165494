"""Every reader of files, with good files for each: what tests/soak/files.py changes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from llmpar import manifest, records, sweep_folder
from llmpar.client import body
from llmpar.engines import ENGINES, gguf, model_files
from llmpar.engines.base import Device, Settings
from llmpar.progress import Sweep
from llmpar.sampling import engine_metrics
from llmpar.serving import causes, orphans
from llmpar.simulate import cards, models
from llmpar.summary import read
from llmpar.summary.summariser import Summariser
from tests.soak.files import Reader, lines
from tests.soak.mutate import raw
from tests.soak.samples import CARDS, CONFIG, GUIDELLM, LOG, METRICS, SHAREGPT, TABLE, VLLM, samples
from tests.unit import gguf_files, made

ROOT = Path(__file__).resolve().parents[2]


def everything() -> list[Reader]:
    """Readers by themselves: files of one never reach another."""
    requests, beside, single = samples()
    summariser = Summariser()
    read.feed_records(summariser, [*requests, *beside, single["cell"], single["server"], single["host"]])
    whole = summariser.summary({"ttft": 0.5}, session="s@1")
    study = made.study(1)[:4]
    few = lines([whole, *study])
    repeats = lines(
        [
            each
            for repeat in (1, 2, 3)
            for each in (
                made.summary(20 + repeat / 9, repeat=repeat),
                made.summary(24 + repeat / 7, repeat=repeat, server={"engine": "vllm"}),
            )
        ]
    )
    card = (ROOT / "docs/results/h100/calibrated.json").read_bytes()
    claims, walls = (ROOT / "study/claims.tsv").read_bytes(), (ROOT / "study/walls.tsv").read_bytes()
    verdict = _verdict()
    prompt = [
        {
            "kind": "prompt",
            "v": 1,
            "name": "a.txt",
            "sha256": "ab" * 32,
            "bytes": 5,
            "tokens": 2,
            "token_source": "rule",
            "source": "x",
            "source_id": None,
            "output_tokens": 4,
        }
    ]
    listing = [
        {"kind": "manifest", "v": 1, "at": 1.0, "llmpar": "0", "files": 1, "host": ["h"], "prompts": {}},
        {
            "kind": "file",
            "v": 1,
            "path": "summary.json",
            "bytes": 3,
            "sha256": "ab" * 32,
            "records": 1,
            "command": None,
        },
    ]
    cell = lines([single["cell"]])
    mk = b"CELLS := a b\nSESSIONS := s\ncells-of-s := a b\n"
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(gguf_files.VICUNA)) + b"".join(
        gguf_files.pair(key, value) for key, value in gguf_files.VICUNA.items()
    )
    note = {
        "wrapper": "1-1",
        "engine": "vllm",
        "started_at": 1.0,
        "sessions": {"999999999": "999999999-1"},
        "container_tool": None,
        "ports": [8000],
    }
    return [
        Reader("table", {"s.jsonl": few}, "table {s_jsonl}"),
        Reader(
            "compare --by", {"s.jsonl": repeats}, "compare --by engine --figure ttft_p95_s --figure wall_s {s_jsonl}"
        ),
        Reader("compare --history", {"s.jsonl": repeats}, "compare --history 3 --format markdown {s_jsonl}"),
        Reader(
            "compare --baseline",
            {"s.jsonl": repeats, "b.jsonl": few},
            "compare --baseline {b_jsonl} --format json {s_jsonl}",
        ),
        Reader("claims", {"s.jsonl": few, "c.tsv": claims}, "claims --claims {c_tsv} --details {s_jsonl}", slow=True),
        Reader("pick", {"s.jsonl": few}, "pick --slo 'ttft-p95<500ms tpot-p95<50ms' --price 2 {s_jsonl}"),
        Reader("plan", {"s.jsonl": repeats}, "plan {s_jsonl}"),
        Reader("plot", {"s.jsonl": few}, "plot -o {here}/p.svg {s_jsonl}", slow=True),
        Reader("report csv", {"s.jsonl": few}, "report --format csv --no-claims {s_jsonl}"),
        Reader(
            "report markdown",
            {"s.jsonl": few + verdict, "w.tsv": walls},
            "report --format markdown --no-claims --walls {w_tsv} {s_jsonl}",
            slow=True,
        ),
        Reader(
            "report html",
            {
                "summary.json": lines([whole]),
                "gpu.jsonl": lines(beside),
                "engine.jsonl": lines(beside),
                "command.txt": b"x a.txt b.txt c.txt",
            },
            "report --no-claims -o {here}/r.html {summary_json}",
            slow=True,
        ),
        Reader("summarise requests", {"r.jsonl": lines(requests)}, "summarise --slo ttft=0.5 {r_jsonl}"),
        Reader(
            "summarise others",
            {
                "r.jsonl": lines(requests),
                "c.json": cell,
                "s.json": lines([single["server"]]),
                "h.json": lines([single["host"]]),
                "g.jsonl": lines(beside[::2]),
                "e.jsonl": lines(beside[1::2]),
                "k.jsonl": lines([single["clock"]]),
            },
            "summarise --text --cell {c_json} --server {s_json} --host {h_json} --gpu {g_jsonl} "
            "--engine {e_jsonl} --clock {k_jsonl} {r_jsonl}",
            ("c.json", "s.json", "h.json", "g.jsonl", "e.jsonl", "k.jsonl"),
        ),
        Reader("cells", {"t.tsv": TABLE}, "cells {t_tsv}"),
        Reader(
            "cells --write",
            {"t.tsv": TABLE, "o/llamacpp-c001/cell.json": cell, "o/cells.mk": mk},
            "cells --write {here}/o {t_tsv}",
        ),
        Reader("cells --shell cell", {"c.json": cell}, "cells --shell {c_json}"),
        Reader("cells --shell server", {"c.json": lines([single["server"]])}, "cells --shell {c_json}"),
        Reader("serve --cell", {"c.json": cell}, "serve --dry-run --cell {c_json} --model m"),
        Reader("import vllm", {"v.json": json.dumps(VLLM).encode()}, "import {v_json}"),
        Reader("import guidellm", {"g.json": json.dumps(GUIDELLM).encode()}, "import {g_json}"),
        Reader(
            "arrivals --trace",
            {"t.csv": b"TIMESTAMP,x\n2023-11-16 18:15:46.6805900,1\n2023-11-16 18:15:50,2\n"},
            "arrivals --rate 2 --trace {t_csv}",
        ),
        Reader("arrivals --trace seconds", {"t.csv": b"1.5\n2.5\t3\n1e3;4\n"}, "arrivals --trace {t_csv}"),
        Reader(
            "prompts sharegpt",
            {"s.json": json.dumps(SHAREGPT).encode()},
            "prompts --replace --from {s_json} {here}/set",
        ),
        Reader(
            "prompts lines",
            {"s.jsonl": b'{"prompt":"hello"}\n{"text":"so it is"}\n{"messages":[{"role":"user","content":"x"}]}\n'},
            "prompts --replace --from {s_jsonl} {here}/set",
        ),
        Reader(
            "prompts text", {"s.txt": b"one two\n\nthree\r\n\r\nfour"}, "prompts --replace --from {s_txt} {here}/set"
        ),
        Reader(
            "prompts --check",
            {"set/.manifest.jsonl": lines(prompt), "set/a.txt": b"hello"},
            "prompts --check {here}/set",
        ),
        Reader("simulate table", {"t.tsv": CARDS}, "simulate --prompt-tokens 20 {t_tsv}", slow=True),
        Reader(
            "simulate files",
            {
                "t.tsv": CARDS,
                "card.json": card,
                "m/config.json": json.dumps(CONFIG).encode(),
                "set/.manifest.jsonl": lines(prompt),
            },
            "simulate --card {here}/card.json --model {here}/m --prompts {here}/set {t_tsv}",
            ("card.json", "m/config.json", "set/.manifest.jsonl"),
            slow=True,
        ),
        Reader(
            "simulate --given",
            {"t.tsv": CARDS, "p": lines([whole])},
            "simulate --prompt-tokens 20 --given {p} {t_tsv}",
            ("p",),
            slow=True,
        ),
        Reader("next find", {"s.jsonl": few}, "next find --slo 'ttft-p95<500ms' {s_jsonl}"),
        Reader(
            "next decide",
            {"s.jsonl": repeats, "t.tsv": TABLE},
            "next decide --a speculate=0 --b speculate=1 --table {t_tsv} {s_jsonl}",
        ),
        Reader(
            "next best",
            {
                "s.jsonl": few,
                "space.tsv": b"engine\tspeculate\nllamacpp\t0\nllamacpp\t1\n",
                "o/refused.json": b"{}",
                "o/a/cell.json": lines([single["cell"] | {"settings_sha256": "ab" * 32}]),
            },
            "next best --space {space_tsv} --write {here}/o {s_jsonl}",
            slow=True,
        ),
        Reader("verify", {"manifest.jsonl": lines(listing), "summary.json": b"{}\n"}, "verify --no-recompute {here}"),
        Reader(
            "manifest",
            {
                "x/summary.json": lines([whole]),
                "x/requests.jsonl": lines(requests[:3]),
                "x/cell.json": cell,
                "x/host.json": lines([single["host"]]),
                "cells.mk": mk,
                ".slo-x": b"ttft-p95<1s",
            },
            call=_manifest,
            refusals=(records.BadRecord,),
        ),
        Reader(
            "sweep's measured cells",
            {"a/cell.json": cell, "a/requests.jsonl": lines(requests[:2]), "cells.mk": mk, "a/started": b"sessions/s"},
            call=lambda here: sweep_folder.main(["--measured", str(here)]),
        ),
        Reader(
            "progress",
            {"a/requests.jsonl.part": lines(requests[:4]), "cells.mk": mk, "a/queue": b"x\0y\0"},
            call=lambda here: Sweep(str(here), "s").line(),
        ),
        Reader("until", {"r.jsonl": lines(requests)}, call=_until),
        Reader(
            "GGUF",
            {"m.gguf": header},
            call=lambda here: gguf.kv_bytes_per_token(str(here / "m.gguf")),
            refusals=(gguf.NotGguf,),
            mutate=raw,
        ),
        Reader(
            "config.json of a model",
            {"config.json": json.dumps(CONFIG).encode()},
            call=lambda here: model_files.measured(Settings(model=str(here)), Device()),
        ),
        Reader(
            "config.json simulated",
            {"config.json": json.dumps(CONFIG).encode()},
            call=lambda here: models.load(str(here)),
            refusals=(models.Refused,),
        ),
        Reader(
            "calibration",
            {"c.json": card},
            call=lambda here: cards.card(str(here / "c.json")),
            refusals=(models.Refused,),
        ),
        Reader(
            "metrics text",
            {"m": METRICS},
            call=lambda here: engine_metrics.parse((here / "m").read_bytes()),
            refusals=(ValueError,),
            mutate=raw,
        ),
        Reader(
            "metrics JSON",
            {
                "m": json.dumps(
                    [
                        {
                            "numActiveRequests": 1,
                            "numQueuedRequests": 2,
                            "kvCacheStats": {"maxNumBlocks": 9, "usedNumBlocks": 3, "tokensPerBlock": 16},
                        }
                    ]
                ).encode()
            },
            call=lambda here: engine_metrics.parse((here / "m").read_bytes()),
            refusals=(ValueError,),
        ),
        Reader(
            "slots",
            {"m": b'[{"n_prompt_tokens":3,"is_processing":true,"n_ctx":512}]'},
            call=lambda here: engine_metrics.slots((here / "m").read_bytes()),
            refusals=(ValueError,),
        ),
        Reader("engine logs", {"log": LOG}, call=_explained, mutate=raw),
        Reader(
            "notes of servers",
            {"serve.1-1.json": json.dumps(note).encode()},
            call=lambda here: list(orphans.find(str(here))),
        ),
        Reader(
            "--body",
            {"b.json": b'{"top_k": 3, "stop": ["a"], "x": {"y": null}}'},
            call=lambda here: body.merged({"a": 1}, body.read(f"@{here / 'b.json'}")),
            refusals=(ValueError,),
        ),
    ]


def _verdict() -> bytes:
    from llmpar.verdicts import pairs, verdict

    both = [made.summary(20.0), made.summary(25.0, server={"engine": "vllm"})]
    return lines(verdict.verdict_records(pairs.by(both, ("engine",), None), ("wall_s",)))


def _manifest(here: Path) -> None:
    names = manifest.files(here)
    manifest.derivations(here, names)
    for name in names:
        manifest.described(here, name)
    import llmpar.commands.manifest as command

    command._host(here, names)
    command._prompts(here, names)


def _until(here: Path) -> None:
    import threading

    from llmpar.commands import until
    from llmpar.search.ending import Ending

    class Once(threading.Event):
        looks = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.looks += 1
            return self.looks > 1

    until.watch(Ending({"ttft_p95_s": 0.5, "tpot_p95_s": 0.05}, 2), str(here / "r.jsonl"), Once())


def _explained(here: Path) -> None:
    for engine in ENGINES.values():
        outcome, said = causes.explain(engine, str(here / "log"), causes.Ended(1))
        assert outcome and said is not None
