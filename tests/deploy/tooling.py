"""The modules of deploy/ for the tests, and how they run what deploy/tools.py finds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def load(stem: str) -> ModuleType:
    """A module of deploy/, which is no package."""
    name = f"tocsin_deploy_{stem.replace('/', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"deploy/{stem}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


tools = load("tools")
monitoring = load("monitoring")
dashboards = load("grafana/panels")
