#!/usr/bin/env python3
"""Writes the files of deploy/ that are made from others: Grafana's dashboards, Kubernetes' topics and rules,
the configuration reference.

With --check it writes nothing, and exits with 1 where one of them is not current.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

DEPLOY: Final = Path(__file__).resolve().parent
if sys.path and Path(sys.path[0]).resolve() == DEPLOY:
    sys.path[0] = str(DEPLOY.parent)  # beside this file is a kafka.py, which is not kafka-python
SOURCES: Final = ("grafana/panels", "kubernetes/resources", "configuration")


def load(stem: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(stem.replace("/", "_"), DEPLOY / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"deploy/{stem}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/generate.py", description="Write what is made from other files.")
    parser.add_argument("--check", action="store_true", help="Only say which are not current.")
    check = parser.parse_args().check
    stale = []
    for module in map(load, SOURCES):
        for name, written in module.rendered().items():
            path = module.FOLDER / name
            if path.exists() and path.read_text("utf-8") == written:
                continue
            stale.append(str(path.relative_to(DEPLOY.parent)))
            if not check:
                path.write_text(written, "utf-8")
    said = "not current: run deploy/generate.py" if check else "written"
    print(f"{', '.join(stale)}: {said}" if stale else "all files are current")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
