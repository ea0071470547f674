"""Six inspector groups of the City of Chicago: their differences are lab effects, not food places' risk."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from detectors.lab_cells import cell_evidence
from detectors.lab_effects import fit_labs
from detectors.lab_funnel import lab_funnel
from detectors.lab_rows import LabRows, lab_rows

CHICAGO = Path(__file__).resolve().parents[3] / "shared" / "data" / "chicago_food_inspections_2011_2014.parquet"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not CHICAGO.exists(), reason="../shared/data/chicago_food_inspections_2011_2014.parquet is absent"
    ),
]


@cache
def inspections() -> tuple[LabRows, list[str]]:
    """Inspections by group (lab) and facility type x ward (cell); rows whose group is missing are left out."""
    table = pq.read_table(CHICAGO, columns=["sanitarian", "facility_type", "ward", "result"])
    table = table.filter(pc.is_valid(table["sanitarian"]))
    columns = [np.array(table[name].to_pylist(), dtype=str) for name in table.column_names]
    groups, lab = np.unique(columns[0], return_inverse=True)
    _, cell = np.unique(np.char.add(columns[1], np.char.add("|", columns[2])), return_inverse=True)
    key, row = np.unique(lab * 100_000 + cell, return_inverse=True)
    failed = np.bincount(row, weights=columns[3] == "Fail")
    return lab_rows(key // 100_000, key % 100_000, np.bincount(row), failed), groups.tolist()


def test_purple_is_the_most_severe_and_yellow_the_most_lenient():
    rows, groups = inspections()
    fit = fit_labs(rows)
    crude = fit.failed / fit.tested
    assert crude[groups.index("purple")] == pytest.approx(0.335, abs=0.001)
    assert crude[groups.index("yellow")] == pytest.approx(0.087, abs=0.001)
    order = [groups[i] for i in np.argsort(-fit.log_odds)]
    assert order == ["purple", "blue", "orange", "green", "brown", "yellow"]
    # What they inspect does not explain it: standardised, purple still fails twice what the others would.
    assert fit.ratio[groups.index("purple")] > 1.8
    assert fit.ratio[groups.index("yellow")] < 0.5
    assert fit.error.max() < 0.08


def test_all_but_the_middle_group_are_far_outside_the_funnel():
    rows, groups = inspections()
    found = lab_funnel(rows, fit_labs(rows))
    far = {groups[i] for i in np.flatnonzero(np.abs(found.z) > 10)}
    assert far == {"purple", "blue", "orange", "brown", "yellow"}
    assert {groups[i] for i in np.flatnonzero(found.severe)} == {"purple", "blue", "orange"}
    assert {groups[i] for i in np.flatnonzero(found.lenient)} == {"brown", "yellow", "green"}
    # All six differ: as a spread between labs that is general, and the wide limits say so.
    assert found.dispersion[0] > 100
    assert not ((found.ratio < found.wide_lower) | (found.ratio > found.wide_upper)).any()


def test_cells_stand_out_less_once_their_inspectors_are_allowed_for():
    rows, _ = inspections()
    fit = fit_labs(rows)
    net = cell_evidence(rows, fit, natural_spread=False)
    one_lab = lab_rows(np.zeros(rows.lab_of.size), rows.stratum_of, rows.tested, rows.failed)
    crude = cell_evidence(one_lab, fit_labs(one_lab), natural_spread=False)
    assert (crude.p_value < 0.01).sum() >= 20
    assert (net.p_value < 0.01).sum() <= 0.6 * (crude.p_value < 0.01).sum()
    # Of the cells that looked worst only part of the excess is theirs.
    worst = np.argsort(crude.p_value)[:20]
    excess = net.failed - net.expected
    assert excess[worst].sum() < 0.9 * (crude.failed - crude.expected)[worst].sum()
