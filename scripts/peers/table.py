"""Print the measurements of run.sh as Markdown tables: python scripts/peers/table.py FILE REFERENCE."""

import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any


def main(file: str, reference: str) -> None:
    """Print a table for each kind of model: the ratios of the first column in each turn, their mean, least and most."""
    rows = list(map(json.loads, Path(file).read_text(encoding="utf-8").splitlines()))
    loads, tables = [row.pop("load") for row in rows], dict[str, dict[str, list[dict[str, Any]]]]()
    for row in rows:
        tables.setdefault(row.pop("kind", ""), {}).setdefault(row.pop("program"), []).append(row)
    for kind, programs in tables.items():
        columns = list(programs[reference][0])
        print(f"\n{kind}\n\n| program | {' | '.join(columns)} | over {reference} |\n|---|{'--:|' * (len(columns) + 1)}")
        for program, turns in programs.items():
            ratios = [a[columns[0]] / b[columns[0]] for a, b in zip(turns, programs[reference], strict=True)]
            cells = [", ".join(dict.fromkeys(str(row[column]) for row in turns)) for column in columns]
            spread = f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {program} | {' | '.join(cells)} | {spread} |")
    print(f"\n{time.strftime('%Y-%m-%d')}; load {loads[0]:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main(*sys.argv[1:])
