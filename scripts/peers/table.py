"""Print the measurements of run.sh as Markdown tables: python scripts/peers/table.py FILE REFERENCE."""

import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

COLUMNS = {"sentences_per_second": "sentences/s", "tokens_per_second": "target tokens/s"}
ONCE = {"bleu": ("BLEU", "{:.2f}"), "same": ("the same translations", "{:.1%}"), "version": ("version", "{}")}


def main(file: str, reference: str) -> None:
    """Print a table for each kind of model, its ratios those of the same turn, mean, least and greatest."""
    measured: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        measured.setdefault(row.get("kind", ""), {}).setdefault(row["program"], []).append(row)
    for kind, programs in measured.items():
        first = programs[reference]
        rates, once = [name for name in COLUMNS if name in first[0]], [name for name in ONCE if name in first[0]]
        heads = ["program", *(COLUMNS[name] for name in rates), f"over {reference}", *(ONCE[name][0] for name in once)]
        print(f"\n{kind}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for program, rows in programs.items():
            ratios = [row[rates[0]] / other[rates[0]] for row, other in zip(rows, first, strict=True)]
            cells = [program, *(", ".join(f"{row[name]:,.0f}" for row in rows) for name in rates)]
            cells += [f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
            print(f"| {' | '.join(cells + [ONCE[name][1].format(rows[-1][name]) for name in once])} |")
    loads = [row["load"] for programs in measured.values() for rows in programs.values() for row in rows]
    print(f"\n{time.strftime('%Y-%m-%d')}; load {loads[0]:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main(*sys.argv[1:])
