"""Kernel times of the GPU at hand, as JSON on standard output. Runs in any Python with torch; imports nothing of
llmpar.

The matrices of one Llama-3.1-8B layer (q, k and v in one, o, gate and up in one, down; 436 MB, more than any cache) by
tokens in the step, times 32; the output matrix by sampled rows; the memory's bandwidth by a reduction over 1 GiB, and
tensor arithmetic by a large product. Each point is the median of short batches between CUDA events.

    python3 microbenchmark.py [SECONDS] > kernels.json
"""

import json
import sys
import time

LAYERS, HIDDEN, INTERMEDIATE, KV, VOCABULARY = 32, 4096, 14336, 1024, 128256
TOKENS = (1, 8, 16, 32, 48, 64, 65, 96, 128, 129, 192, 256, 257, 384, 512, 513, 768, 1024, 1536, 2048, 4096)
SAMPLED = (1, 16, 32, 64, 128, 256, 512)
POINTS = len(TOKENS) + len(SAMPLED) + 2


def main(seconds):
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device for this torch")
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = True
    device = torch.device("cuda")
    properties = torch.cuda.get_device_properties(device)
    budget = seconds / POINTS

    def measure(work):
        """Median seconds of one call: batches of calls between events, until the budget is used."""
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        calls = max(1, min(200, int(0.02 / max(time.perf_counter() - started, 1e-6))))
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < 3 or (time.perf_counter() - began < budget and len(times) < 50):
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            for _ in range(calls):
                work()
            last.record()
            torch.cuda.synchronize()
            times.append(first.elapsed_time(last) / 1e3 / calls)
        return sorted(times)[len(times) // 2]

    def weights(rows, columns):
        return torch.empty(rows, columns, dtype=torch.float16, device=device).normal_(0, 0.02)

    shapes = ((HIDDEN + 2 * KV, HIDDEN), (HIDDEN, HIDDEN), (2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE))
    layer = [weights(*shape) for shape in shapes]
    dense = []
    for tokens in TOKENS:
        inputs = {
            width: torch.empty(tokens, width, dtype=torch.float16, device=device).normal_()
            for width in (HIDDEN, INTERMEDIATE)
        }
        pairs = [(inputs[matrix.shape[1]], matrix.t()) for matrix in layer]

        def step(pairs=pairs):
            for left, right in pairs:
                torch.mm(left, right)

        dense.append(round(1e3 * LAYERS * measure(step), 4))
    output = weights(VOCABULARY, HIDDEN)
    head = []
    for rows in SAMPLED:
        left, right = torch.empty(rows, HIDDEN, dtype=torch.float16, device=device).normal_(), output.t()
        head.append(round(1e3 * measure(lambda left=left, right=right: torch.mm(left, right)), 4))
    del output, right, layer
    large = torch.empty(1 << 28, dtype=torch.float32, device=device).fill_(1.0)
    bandwidth = large.numel() * 4 / measure(large.sum)
    del large
    a, b = weights(8192, 8192), weights(8192, 8192)
    flops = 2 * 8192**3 / measure(lambda: torch.mm(a, b))
    json.dump(
        {
            "title": properties.name,
            "memory_bytes": torch.cuda.mem_get_info()[1],
            "measured_bandwidth_bytes_per_s": round(bandwidth),
            "measured_tensor_flops": round(flops),
            "tokens": TOKENS,
            "dense_ms": dense,
            "head_tokens": SAMPLED,
            "head_ms": head,
            "torch": f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
