#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tables, and plots if matplotlib is installed, from the JSON files of the benchmarks and of their peers.

    report/table.py results/*.json                  a markdown table per family
    report/table.py --text results/*.json           the same in aligned columns, narrower
    report/table.py --threads 16 --plots folder ... lines of one thread count; one PNG per family

Lines are named family/type/implementation/B:1/.../threads:1; those that differ in the implementation alone become one row.
Figures are medians over the repetitions, cv their standard deviation over their mean.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict

FAMILIES = ["prefill", "prefill_causal", "prefill_window512", "vit", "swin", "fields", "decode"]
UNITS = {"flop": "GFLOP/s", "byte": "GB/s", "exp": "G/s", "number": "G/s", "choice": "G/s"}


def load(path):
    """A JSON file, also of a program that was stopped: the lines that it had finished."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        print(f"{path} ends early", file=sys.stderr)
    try:
        return json.loads(text[:text.rindex("\n    }") + 6] + "]}")
    except ValueError:
        return {"benchmarks": []}


def read(paths):
    """{(family, type, arguments): {implementation: {counter: [values]}}}, in the order met, and the contexts."""
    cases, contexts = {}, []
    for path in paths:
        data = load(path)
        contexts.append(data.get("context", {}))
        for line in data["benchmarks"]:
            if line.get("run_type", "iteration") != "iteration" or line.get("error_occurred"):
                continue
            fields = line["name"].split("/")
            arguments = tuple(tuple(f.split(":")) for f in fields[3:] if ":" in f and not f.startswith("repeats"))
            samples = cases.setdefault((fields[0], fields[1], arguments), {}).setdefault(fields[2], defaultdict(list))
            for key, value in line.items():
                if isinstance(value, (int, float)):
                    samples[key].append(float(value))
    return cases, contexts


def unit_of(samples):
    return next((u for u in UNITS if u in samples), None)


def cv(values):
    return statistics.stdev(values) / statistics.mean(values) if len(values) > 1 and statistics.mean(values) else None


def size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def order(key):
    family, kind, arguments = key
    numbers = [int(value) for _, value in arguments]
    return numbers[-1:], kind != "float", kind, numbers


def table(cases, peers):
    """Rows of one family: the header and the lines, as lists of text."""
    ours = any("tokenmix" in lines for lines in cases.values())
    header = ["case", "threads"] + (["tokenmix", "cv", "of limit", "memory"] if ours else []) + peers
    header += ["best peer", "ratio"] if ours and peers else []
    rows = []
    for key in sorted(cases, key=order):
        lines = cases[key]
        unit = next((u for u in map(unit_of, lines.values()) if u), None)
        if unit is None:
            continue
        arguments = dict(key[2])
        threads = arguments.pop("threads", "")
        row = [" ".join([key[1]] + [name + value for name, value in arguments.items()]), threads]
        rates = {name: statistics.median(samples[unit]) for name, samples in lines.items() if samples.get(unit)}
        if ours:
            samples = lines.get("tokenmix", {})
            mine = rates.get("tokenmix")
            variation = cv(samples[unit]) if mine else None
            row.append(f"{mine / 1e9:.1f}" if mine else "")
            row.append(f"{100 * variation:.1f} %" if variation is not None else "")
            row.append(f"{100 * statistics.median(samples['of_limit']):.0f} %" if samples.get("of_limit") else "")
            row.append(size(max(samples["extra_bytes"])) if samples.get("extra_bytes") else "")
        for peer in peers:
            row.append(f"{rates[peer] / 1e9:.1f}" if peer in rates else "")
        if ours and peers:
            others = {name: rate for name, rate in rates.items() if name != "tokenmix"}
            best = max(others, key=others.get, default=None)
            row.append(best or "")
            row.append(f"{rates['tokenmix'] / others[best]:.2f}x" if best and "tokenmix" in rates else "")
        rows.append(row)
    return header, rows


def print_markdown(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|---|" + "--:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def print_text(header, rows):
    shown = [i for i, name in enumerate(header) if name not in ("memory", "best peer")]
    header, rows = [header[i] for i in shown], [[row[i] for i in shown] for row in rows]
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    for row in [header] + rows:
        print(row[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:])))


def plot(folder, family, cases):
    """Rate over the sequence length, a line for every implementation, type and width; nothing without matplotlib."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("matplotlib is not installed: no plots", file=sys.stderr)
        return
    series = defaultdict(dict)
    unit = None
    for (_, kind, arguments), lines in cases.items():
        values = dict(arguments)
        length = values.get("T") or values.get("S")
        if length is None:
            continue
        for name, samples in lines.items():
            unit = unit_of(samples) or unit
            if unit_of(samples):
                label = f"{name} {kind} D{values.get('D')} {values.get('threads')} threads"
                series[label][int(length)] = statistics.median(samples[unit_of(samples)]) / 1e9
    if not any(len(points) > 1 for points in series.values()):
        return
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for label, points in sorted(series.items()):
        lengths = sorted(points)
        axes.plot(lengths, [points[n] for n in lengths], marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sequence length")
    axes.set_ylabel(("useful " if unit == "flop" else "") + UNITS[unit])
    axes.set_title(family)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(f"{folder}/{family}.png", dpi=120)


def main():
    parser = argparse.ArgumentParser(description="Tables and plots of benchmark results")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--text", action="store_true", help="aligned columns instead of markdown")
    parser.add_argument("--threads", help="only lines with this many threads")
    parser.add_argument("--plots", metavar="FOLDER", help="write a PNG per family, if matplotlib is installed")
    chosen = parser.parse_args()
    cases, contexts = read(chosen.files)
    for context in contexts[:1]:
        known = ("tokenmix_instruction_set", "tokenmix_executor", "compiler", "flags", "num_cpus", "library")
        print("; ".join(f"{key}: {context[key]}" for key in known if key in context))
    met = {key[0] for key in cases}
    for family in [f for f in FAMILIES if f in met] + sorted(met.difference(FAMILIES)):
        mine = {key: lines for key, lines in cases.items() if key[0] == family
                and (chosen.threads is None or dict(key[2]).get("threads") == chosen.threads)}
        if not mine:
            continue
        names = sorted({name for lines in mine.values() for name in lines if name != "tokenmix"})
        unit = next((u for lines in mine.values() for s in lines.values() if (u := unit_of(s))), "flop")
        print(f"\n{family}, {'useful ' if unit == 'flop' else ''}{UNITS[unit]}\n")
        (print_text if chosen.text else print_markdown)(*table(mine, names))
        if chosen.plots:
            plot(chosen.plots, family, mine)


if __name__ == "__main__":
    main()
