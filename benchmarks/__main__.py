"""Measure: python -m benchmarks [--quick] [--only throughput,latency] [--database sqlite]."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from .figures import Figure, table, versions
from .ground import Ground
from .measures import Run

MEASURES = """
throughput accepting latency emails finding watching reports pages memory workers costs importing
""".split()


def main() -> int:
    """Print a line a figure as it is measured, then the table; 1 if a target was missed."""
    asked = _arguments()
    names = asked.only.split(",") if asked.only else MEASURES
    databases = (asked.database,) if asked.database else ("sqlite", "postgresql")
    figures: list[Figure] = []
    with Ground() as ground:
        for name in names:
            begun = time.monotonic()
            found = import_module(f"benchmarks.measures.{name}").measure(
                Run(ground, asked.quick, databases)
            )
            for figure in found:
                print(figure.as_json(), flush=True)
            print(f"# {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            figures += found
    print(f"\n{versions()}\n\n{table(figures)}")
    return int(any(figure.is_reached is False for figure in figures))


def _arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="make bench", description=__doc__)
    reader.add_argument("--quick", action="store_true", help="once, with small numbers")
    reader.add_argument("--only", default="", help=f"some of: {', '.join(MEASURES)}")
    reader.add_argument("--database", choices=["sqlite", "postgresql"])
    asked = reader.parse_args()
    strangers = sorted(set(filter(None, asked.only.split(","))) - set(MEASURES))
    if strangers:
        reader.error(
            f"no measure is called {', '.join(strangers)}; there are {', '.join(MEASURES)}"
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
