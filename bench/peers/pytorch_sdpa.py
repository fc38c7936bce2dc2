#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's scaled_dot_product_attention on the CPU over the shapes of the C++ benchmarks, as JSON of the same form.

    pytorch_sdpa.py [--threads 1,16] [--types float,bfloat16] [--filter REGEX] [--seconds 0.2] [--repetitions 5] > pytorch.json

A call is timed with its output allocated by PyTorch, as its users call it. One query with grouped heads is the decode step
(enable_gqa=True). A window needs a dense mask there, and float's causal case is is_causal=True.
"""

import argparse
import json
import math
import os
import re
import statistics
import sys
import time


def cases():
    """(family, arguments, T, S, B, H, Hk, D)"""
    for D in (64, 128):
        for T in (512, 2048, 8192):
            for family in ("prefill", "prefill_causal", "prefill_window512"):
                if family != "prefill_window512" or T > 512:
                    yield family, (1, 8, 8, T, T, D)
    yield "vit", (8, 12, 12, 197, 197, 64)
    yield "swin", (256, 3, 3, 49, 49, 32)
    yield "fields", (4096, 2, 2, 32, 32, 16)
    for S in (1024, 8192, 65536):
        yield "decode", (1, 32, 8, 1, S, 128)


def pairs(family, T, S):
    if family == "prefill_causal":
        return T * (T + 1) / 2
    if family == "prefill_window512":
        return sum(min(t + 1, 512) for t in range(T))
    return T * S


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}")
    parser.add_argument("--types", default="float,bfloat16")
    parser.add_argument("--filter", default="")
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args()
    try:
        import torch
        from torch.nn.functional import scaled_dot_product_attention
    except ImportError:
        print("PyTorch is not installed", file=sys.stderr)
        return 1
    types = {"float": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    jobs = []
    for threads in map(int, chosen.threads.split(",")):
        for kind in chosen.types.split(","):
            for family, (B, H, Hk, T, S, D) in cases():
                shape = f"B:{B}/H:{H}/Hk:{Hk}/S:{S}/D:{D}" if family == "decode" else f"B:{B}/H:{H}/T:{T}/D:{D}"
                name = f"{family}/{kind}/pytorch/{shape}/threads:{threads}"
                if re.search(chosen.filter, name):
                    jobs.append((name, threads, kind, family, B, H, Hk, T, S, D))

    lines = []
    with torch.no_grad():
        for name, threads, kind, family, B, H, Hk, T, S, D in jobs:
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            q = torch.randn(B, H, T, D).to(types[kind])
            k = torch.randn(B, Hk, S, D).to(types[kind])
            v = torch.randn(B, Hk, S, D).to(types[kind])
            extra = {"enable_gqa": True} if H != Hk else {}
            if family == "prefill_causal":
                extra["is_causal"] = True
            elif family == "prefill_window512":
                distance = torch.arange(T)[:, None] - torch.arange(S)[None, :]
                extra["attn_mask"] = (distance >= 0) & (distance < 512)
            def call():
                return scaled_dot_product_attention(q, k, v, **extra)
            # Verify, then time: one row against float64.
            t, h = T // 2, H - 1
            head = h * Hk // H
            scores = (k[0, head].double() @ q[0, h, t].double()) / math.sqrt(D)
            if family == "prefill_causal":
                scores[t + 1:] = -math.inf
            elif family == "prefill_window512":
                scores[~extra["attn_mask"][t]] = -math.inf
            error = (call()[0, h, t].double() - scores.softmax(0) @ v[0, head].double()).abs().max().item()
            if not error <= (1e-4 if kind == "float" else 5e-2):
                print(f"{name}: differs from the float64 reference by {error}", file=sys.stderr)
                continue
            start = time.perf_counter()
            call()
            count = max(1, math.ceil(chosen.seconds / max(time.perf_counter() - start, 1e-6)))
            if family == "decode":
                unit, work = "byte", 2 * B * Hk * S * D * q.element_size()
            else:
                unit, work = "flop", 4 * B * H * D * pairs(family, T, S)
            for repetition in range(chosen.repetitions):
                start = time.perf_counter()
                for _ in range(count):
                    call()
                elapsed = (time.perf_counter() - start) / count
                lines.append({"name": name, "run_name": name, "run_type": "iteration", "repetitions": chosen.repetitions,
                              "repetition_index": repetition, "threads": 1, "iterations": count, "real_time": elapsed * 1e3,
                              "cpu_time": elapsed * 1e3, "time_unit": "ms", unit: work / elapsed})
            mine = [line[unit] for line in lines[-chosen.repetitions:]]
            print(f"{name} {statistics.median(mine) / 1e9:.1f} G{unit}/s", file=sys.stderr)
    context = {"library": f"PyTorch {torch.__version__}", "num_cpus": os.cpu_count(),
               "mkldnn": torch.backends.mkldnn.is_available()}
    json.dump({"context": context, "benchmarks": lines}, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
