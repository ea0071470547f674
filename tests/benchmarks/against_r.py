"""The improved Farrington algorithm: this one against R's, on one core and on the same series.

    python -m tests.benchmarks.against_r [SERIES SAMPLE]

R takes a sample of the series, being slower. Where there is no R, or no package `surveillance` in it (Debian:
``apt install r-cran-surveillance``), only this one is timed, and a line says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.benchmarks.rates import ROOT, Figures, Setting

SERIES = 10_000
SAMPLE = 200
WEEKS = 5 * 52 + 26
TIMES = 5
R_TIMEOUT = 1800

HAS_PACKAGE = 'quit(status = as.integer(!requireNamespace("surveillance", quietly = TRUE)))'

SCRIPT = """
suppressMessages(library(surveillance))
given <- commandArgs(trailingOnly = TRUE)
counts <- as.matrix(read.csv(given[1], header = FALSE))
weekly <- sts(observed = counts, start = c(2015, 1), frequency = 52)
control <- list(
  range = nrow(counts), b = 5, w = 3, noPeriods = 10, pastWeeksNotIncluded = 26, reweight = TRUE,
  weightsThreshold = 2.58, trend = TRUE, pThresholdTrend = 0.05, alpha = 0.01, thresholdMethod = "nbPlugin",
  powertrans = "2/3", limit54 = c(5, 4), glmWarnings = FALSE
)
took <- system.time(found <- suppressWarnings(farringtonFlexible(weekly, control)))[["elapsed"]]
write.table(t(upperbound(found)), given[2], row.names = FALSE, col.names = FALSE)
cat(took, "\\n")
"""


def against_r(setting: Setting) -> Figures:
    """Improved Farrington over 10,000 series, and R's time for as many, from a sample."""
    command = [sys.executable, "-m", "tests.benchmarks.against_r", str(SERIES), str(4 * setting.samples)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(series: int, sample: int) -> Figures:
    """Time both, in this process and on one core."""
    from detectors import FarringtonOptions, farrington

    stay_on_one_core()
    counts = simulate(series)
    farrington(counts[:256])  # what is imported and allocated once is not the algorithm's
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        farrington(counts)
        seconds.append(time.perf_counter() - began)
    ours = min(seconds)
    figures = {"series": float(series), "seconds": ours, "series/s": series / ours}
    if not r_has_surveillance():
        print("against-r: no Rscript with the package surveillance here, so R is not timed", file=sys.stderr)
        return figures
    taken = counts[:sample]
    theirs, upper = r_takes(taken)
    same = np.isclose(upper, farrington(taken, options=FarringtonOptions(r_compatible=True)).upper)
    # R gives no limit where too few cases came in the latest weeks.
    compared = np.isfinite(upper) & (upper > 0)
    return {
        **figures,
        "R, series in the sample": float(len(taken)),
        "R, series/s": len(taken) / theirs,
        "same limits in R, %": 100.0 * float(same[compared].mean()),
        "times faster than R": (theirs / len(taken)) / (ours / series),
    }


def stay_on_one_core() -> None:
    """This process and those it starts, R's among them (where the system knows how: Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def simulate(series: int) -> npt.NDArray[np.float64]:
    """Weekly counts of means from 0.1 to 50, with season, trend and over-dispersion, ``[series, WEEKS]``."""
    rng = np.random.default_rng(2013)
    week = np.arange(WEEKS)
    level = rng.uniform(-2.0, 4.0, (series, 1)) + rng.normal(0.0, 0.1, (series, 1)) * week / 52
    mean = np.exp(level + 0.5 * np.cos(2 * np.pi * week / 52))
    return rng.negative_binomial(mean / 0.5, 1 / 1.5).astype(np.float64)


def r_has_surveillance() -> bool:
    rscript = shutil.which("Rscript")
    return rscript is not None and subprocess.run([rscript, "-e", HAS_PACKAGE], check=False).returncode == 0


def r_takes(counts: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Seconds that R needs for the last week of the series, and its limits; the start of R is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savetxt(folder / "counts.csv", counts.T, fmt="%d", delimiter=",")
        (folder / "farrington.R").write_text(SCRIPT, "utf-8")
        command = ["Rscript", "farrington.R", "counts.csv", "limits.txt"]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=R_TIMEOUT)
        limits = np.genfromtxt(folder / "limits.txt", missing_values="NA", filling_values=np.nan)
        return float(done.stdout.split()[-1]), limits.reshape(-1)


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]]
    print(json.dumps(compare(*given) if given else compare(SERIES, SAMPLE)))
