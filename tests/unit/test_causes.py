"""Why a server ended: the last error of its log, then the kernel's count, then a container's own word; never a mention
or a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpar.engines import ENGINES
from llmpar.serving import causes
from llmpar.serving.causes import Ended

# (engine, outcome, what the message holds, log): as the engines print them.
LOGS = [
    # A mention below the level of an error, and then the error.
    (
        "vllm",
        "bad_setting",
        "max_model_len",
        "INFO 11-25 17:00:01 [importing.py:44] Triton is not usable: No CUDA GPUs are available\n"
        "WARNING 11-25 17:00:02 [interface.py:12] Failed to import from vllm._C: libcuda.so.1: cannot open shared "
        "object file\n"
        "(APIServer pid=7) WARNING 11-25 17:00:02 [x.py:1] Found no NVIDIA driver on your system\n"
        "pydantic_core.ValidationError: 1 validation error for ModelConfig: User-specified max_model_len (9000) is "
        "greater\n",
    ),
    # TGI's lines, with their colours.
    (
        "tgi",
        "bad_setting",
        "must be <",
        "\x1b[2m2026-11-25T18:07:18.716943Z\x1b[0m \x1b[33m WARN\x1b[0m "
        "\x1b[2mtext_generation_launcher\x1b[0m\x1b[2m:\x1b[0m Found no NVIDIA driver\n"
        'Error: ArgumentValidation("`max_input_tokens`(9) must be < `max_total_tokens`(8)")\n'
        "\x1b[2m2026-11-25T18:07:18.716943Z\x1b[0m \x1b[32m INFO\x1b[0m "
        "\x1b[2mtext_generation_launcher\x1b[0m\x1b[2m:\x1b[0m No CUDA GPUs are available\n",
    ),
    # The first error was overcome; the last was not.
    (
        "vllm",
        "port_taken",
        "Errno 98",
        "ERROR 11-25 17:00:01 huggingface_hub.errors.LocalEntryNotFoundError: cannot find generation_config.json, "
        "going on without\n"
        "OSError: [Errno 98] Address already in use\n",
    ),
    # The error that points to the one before it says nothing.
    (
        "vllm",
        "out_of_memory",
        "Tried to allocate",
        "(EngineCore_DP0 pid=9) ERROR 11-25 torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n",
    ),
    # A consequence after the cause, and a consequence alone.
    (
        "llamacpp",
        "out_of_memory",
        "CUDA0 buffer",
        "0.01.2 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8 MiB on device 0: cudaMalloc failed: out of "
        "memory\n"
        "0.01.3 E llama_model_load: error loading model: unable to allocate CUDA0 buffer\n0.01.4 E srv load_model: "
        "failed to load model, 'm'\n",
    ),
    ("llamacpp", "unknown_model", "failed to load", "0.01.4 E srv  load_model: failed to load model, 'm.gguf'\n"),
    # Hints of three programs.
    (
        "tgi",
        "bad_arguments",
        "float32",
        "error: invalid value 'float32' for '--dtype <DTYPE>'\n  [possible values: float16, bfloat16]\n\nFor more "
        "information, try '--help'.\n",
    ),
    (
        "vllm",
        "no_docker",
        "usermod",
        "docker: permission denied while trying to connect to the Docker daemon socket at "
        "unix:///var/run/docker.sock: connect\n\n"
        "Run 'docker run --help' for more information\n",
    ),
    (
        "transformers",
        "bad_setting",
        "--cb-size",
        "Error: No such option: --cb-size\nTry 'transformers serve --help' for help.\n",
    ),
    ("trtllm", "no_gpu", "node", "RuntimeError: No GPU devices found on the node\n"),
    # No pattern knows these: the last error, not the last line.
    (
        "sglang",
        "crashed",
        "IndexError: list index out of range",
        "IndexError: list index out of range\nINFO bye\nstopping 3 threads\n",
    ),
    (
        "powerinfer",
        "crashed",
        "main: error: cannot open",
        "main: error: cannot open the sparse index\nhave a nice day\n",
    ),
    # Mentions below the level of an error, as other loggers write them.
    *(
        ("llamacpp", "crashed", "IndexError: no", f"{mention}\nIndexError: no\n")
        for mention in (
            "ggml_cuda_host_malloc: failed to allocate 1024.00 MiB of pinned memory: out of memory",
            "warning: failed to allocate 1.00 MiB: CUDA error: out of memory",
            "W: out of memory for the cache, going on",
            "W1125 17:00:02.000 7 x.cpp:1] libcuda.so.1: cannot open shared object file",
            "[W1125 17:00:02.000 socket.cpp:1] Address already in use",
            "[TensorRT-LLM][WARNING] out of memory may happen",
            "[2026-11-25 17:00:00] [WARNING] Address already in use",
            'time=2026-11-25T17:00:00.000Z level=WARN source=x.go:1 msg="out of memory"',
            '{"timestamp":"x","level":"WARN","fields":{"message":"CUDA out of memory, retrying"}}',
            "2026-11-25 17:00:02 | WARNING  | Address already in use, trying the next port",
            "/usr/lib/x.py:12: UserWarning: CUDA out of memory may follow",
        )
    ),
    # The same words as the error that ended it.
    (
        "trtllm",
        "out_of_memory",
        "cudaMalloc",
        "[TensorRT-LLM][ERROR] CUDA runtime error in cudaMalloc: out of memory\n",
    ),
    ("tgi", "out_of_memory", "prefill", '{"level":"ERROR","fields":{"message":"CUDA out of memory in prefill"}}\n'),
    ("ollama", "port_taken", "bind", "level=INFO msg=x\nError: listen tcp: bind: address already in use\n"),
    ("vllm", "crashed", "half a line", "INFO 11-25 started\nhalf a line\n"),
    ("vllm", "crashed", "its log says nothing", ""),
]


@pytest.mark.parametrize(
    ("engine", "outcome", "said", "log"), LOGS, ids=[f"{each[0]}-{each[1]}-{n}" for n, each in enumerate(LOGS)]
)
def test_the_last_error_is_the_cause(engine: str, outcome: str, said: str, log: str, tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("# docker run --gpus all out of memory\n" + log)
    found, message = causes.explain(ENGINES[engine], str(path), Ended(code=1))
    assert (found, said in message) == (outcome, True), message
    assert "--help" not in message


def test_killed(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    quiet = "loading weights\n"

    def outcome(log: str, **ended: object) -> str:
        path.write_text(log)
        return causes.explain(ENGINES["sglang"], str(path), Ended(**ended))[0]  # type: ignore[arg-type]

    for code in (-9, 137):
        assert outcome(quiet, code=code, memory_kills=1) == "out_of_memory"
        assert outcome(quiet, code=code, memory_kills=0) == "killed"
        assert outcome(quiet, code=code, memory_kills=None) == "killed"
        # Its log comes first: SGLang kills itself after an exception, while something else may have run out of memory.
        assert outcome("OSError: [Errno 98] Address already in use\n", code=code, memory_kills=3) == "port_taken"
        assert outcome("IndexError: no\n", code=code, memory_kills=0) == "killed"
    assert outcome(quiet, code=137, container_out_of_memory=True) == "out_of_memory"
    # A worker killed by the kernel: the parent ends with an error of its own.
    assert outcome("RuntimeError: a worker died\n", code=1, memory_kills=1) == "out_of_memory"
    assert causes.evidence("(EngineCore pid=2173) RuntimeError: no such kernel\n") == ["RuntimeError: no such kernel"]


def test_where_the_kernel_counts(tmp_path: Path) -> None:
    vmstat, group = tmp_path / "vmstat", tmp_path / "group"
    vmstat.write_text("pgfault 12\noom_kill 5\noom_kill_other 9\n")
    group.mkdir()
    assert causes.memory_kills(group, vmstat) == 5  # the root group of version 2 has no count
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert causes.memory_kills(group, vmstat) == 2
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n")
    assert causes.memory_kills(group, vmstat) == 1
    assert causes.memory_kills(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("listing", "folder"),
    [
        ("0::/user.slice/a\n", "user.slice/a"),
        ("9:name=systemd:/\n4:memory:/jobs/b\n0::/\n", "memory/jobs/b"),
        ("0::/../gone\n", "."),
    ],
)
def test_the_own_group(tmp_path: Path, listing: str, folder: str) -> None:
    (tmp_path / "listing").write_text(listing)
    mount = tmp_path / "mount"
    for name in ("user.slice/a", "memory/jobs/b"):
        (mount / name).mkdir(parents=True)
    assert causes._own_cgroup(tmp_path / "listing", mount) == mount / folder


def test_an_error_that_ends_with_a_colon_is_told_with_what_follows(tmp_path: Path) -> None:
    """As SGLang's log says it where a kernel cannot be compiled."""
    path = tmp_path / "engine.log"
    path.write_text(
        "RuntimeError: Ninja build failed. Ninja output:\nninja: Entering directory `/root/.cache/norm'\n"
        "ninja: error: '/csrc/norm.cu', needed by 'norm.o', missing and no known rule to make it\n\n\n"
        "[2026-11-27 02:45:21] kill_process_tree called: parent_pid=470, include_parent=True, pid=470\n"
    )
    _, said = causes.explain(ENGINES["sglang"], str(path), Ended(code=1))
    assert said.endswith(
        "Ninja output: ninja: error: '/csrc/norm.cu', needed by 'norm.o', missing and no known rule to make it"
    )
    path.write_text("ValueError: what is wrong:\n")
    assert (
        causes.explain(ENGINES["sglang"], str(path), Ended(code=1))[1] == "its last error: ValueError: what is wrong:"
    )
