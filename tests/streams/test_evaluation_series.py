"""``tocsin evaluate``: series files, a reader's own series, and what the command prints and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from small_world import fails, succeeds

from detectors import FarringtonOptions, below_target, ears, farrington, lr_cusum, threshold_for_arl
from streams.evaluation.own_judges import RATE_DETECTORS, RateSettings
from streams.evaluation.own_series import detector_names, score_series
from streams.evaluation.run import evaluate
from streams.evaluation.scenarios import Draws, draw
from streams.evaluation.series_file import read_draws, write_draws

HEADER = "scenario,rep,week,baseline,past,current\n"


def same_draws(one: Draws, other: Draws) -> bool:
    names = ("scenario", "rep", "baseline", "past", "current")
    return one.first_week == other.first_week and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- the benchmark's file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_series_file_gives_the_same_series_and_figures_back(tmp_path: Path, suffix: str) -> None:
    draws = draw(2, 7)
    assert write_draws(tmp_path / f"d{suffix}", draws) == 84 * 312
    again = read_draws(tmp_path / f"d{suffix}")
    assert same_draws(draws, again)
    names = ["ears-c2", "oracle"]
    assert repr(evaluate(again, names, match_fpr=0.01)) == repr(evaluate(draws, names, match_fpr=0.01))


def test_rows_may_stand_in_any_order_with_more_columns_and_the_first_six_years(tmp_path: Path) -> None:
    draws = draw(2, 7)
    write_draws(tmp_path / "d.parquet", draws)
    table = pq.read_table(tmp_path / "d.parquet")
    early = pa.table({name: pa.array([1, 312] if name == "week" else [1, 1]) for name in table.column_names})
    table = pa.concat_tables([table, early])
    table = table.take(np.random.default_rng(1).permutation(table.num_rows))
    table = table.append_column("note", pa.array(["x"] * table.num_rows))
    pq.write_table(table, tmp_path / "shuffled.parquet")
    assert same_draws(read_draws(tmp_path / "shuffled.parquet"), draws)


def lines(weeks: list[int], series: str = "1,1") -> str:
    return "".join(f"{series},{week},3,0,0\n" for week in weeks)


ALL = list(range(313, 625))
BAD_FILES = [
    ("", "is empty"),
    (HEADER, "has no rows"),
    ("scenario,rep,week,baseline,past\n1,1,313,0,0\n", "has no column current; the benchmark's are scenario, rep"),
    (HEADER + "1,1,313,3,0,x\n", ":2: current: must be a whole number from 0 to 1,000,000,000, found 'x'"),
    (HEADER + lines(ALL[:9]) + "1,1,322,-4,0,0\n", ":11: baseline: must be a whole number from 0"),
    (HEADER + "1,1,313,,0,0\n", ":2: baseline: must be a whole number from 0 to 1,000,000,000, found nothing"),
    (HEADER + "1,1,313,2.5,0,0\n", ":2: baseline: must be a whole number"),
    (HEADER + "1,1,313,nan,0,0\n", ":2: baseline: must be a whole number"),
    (HEADER + "0,1,313,2,0,0\n", ":2: scenario: must be a whole number from 1"),
    (HEADER + "1,1,625,2,0,0\n", ":2: week: must be a whole number from 1 to 624"),
    (HEADER + "1,1,313,2,0\n", ":2: the row has 5 cells, the header 6"),
    (HEADER + lines([1, 312]), "has no week from 313 to 624"),
    (HEADER + lines(ALL[:-1]), ":312: week: scenario 1, rep 1 ends with week 623; every series goes on to 624"),
    (HEADER + lines(ALL[:5] + ALL[6:]), ":7: week: scenario 1, rep 1 has no week 318; every series needs weeks 313"),
    (HEADER + lines([*ALL, 400]), ":314: week: scenario 1, rep 1 has week 400 twice"),
    (HEADER + lines(ALL) + lines(ALL[2:], "1,2"), ":314: week: scenario 1, rep 2 has no week 313"),
    (HEADER + lines(list(range(580, 625))), ":2: week: the earliest is 580; weeks before 576 are needed"),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES)
def test_a_bad_series_file_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    failure = fails("evaluate", "--series", write(tmp_path / "d.csv", text), "--jobs", 1)
    assert failure.status == 1
    assert f"d.csv{said}" in failure.line or f"d.csv: {said}" in failure.line, failure.line


# --- a reader's own counts -----------------------------------------------------------------------------------------


def weekly(count: int = 300, jump: int = 40) -> np.ndarray:
    counts = np.random.default_rng(4).poisson(6.0, count)
    counts[-1] = jump
    return counts


def test_counts_are_scored_row_by_row_as_the_detector_does(tmp_path: Path) -> None:
    counts = weekly()
    text = "week,count\n" + "".join(f"{week},{count}\n" for week, count in enumerate(counts.tolist(), 1))
    file = write(tmp_path / "w.csv", text)
    found = score_series(file, "farrington", alpha=0.02)
    for at in (150, 200, 262, 299):
        one = farrington(counts[None, : at + 1], options=FarringtonOptions(alpha=0.02))
        assert bool(one.defined[0]) is bool(found.defined[at])
        assert bool(one.alarm[0]) is bool(found.alarm[at])
        if one.defined[0]:
            assert found.expected[at] == one.expected[0]
            assert found.threshold[at] == one.upper[0]
            assert found.p_value[at] == one.p_value[0]
            assert found.score[at] == one.score[0]
    assert found.alarm[299]
    assert not found.defined[:150].any()
    assert found.place.tolist() == list(range(2, 302))


def test_several_series_of_any_length_and_order_are_scored_alone(tmp_path: Path) -> None:
    a, b = weekly(40, 30), weekly(60, 9)
    rows = [f"b,2024-W{1 + at:02d},{count}" for at, count in enumerate(b[:52].tolist())]
    rows += [f"a,{2023}-W{1 + at:02d},{count}" for at, count in enumerate(a.tolist())]
    file = write(tmp_path / "s.csv", "series,week,cases\n" + "\n".join(rows[::-1]) + "\n")
    found = score_series(file, "ears-c2")
    for name, counts in (("a", a), ("b", b[:52])):
        rows_of = [at for at, series in enumerate(found.series) if series == name]
        assert found.observed[rows_of].tolist() == counts.tolist()
        for at, row in enumerate(rows_of):
            one = ears(counts[None, : at + 1], "C2", 0.01, min_sigma=0.0)
            assert bool(found.alarm[row]) is bool(one.alarm[0])
            assert bool(found.defined[row]) is bool(one.defined[0])
            if one.defined[0]:
                assert found.threshold[row] == one.upper[0]


def test_a_parquet_file_with_dates_is_as_good_as_a_csv(tmp_path: Path) -> None:
    days = np.arange("2018-01-01", "2024-01-01", 7, dtype="datetime64[D]")
    counts = weekly(len(days))
    pq.write_table(pa.table({"date": days.astype("datetime64[ns]"), "count": counts}), tmp_path / "w.parquet")
    text = "date,count\n" + "".join(f"{day},{count}\n" for day, count in zip(days, counts, strict=True))
    one = score_series(tmp_path / "w.parquet", "farrington")
    other = score_series(write(tmp_path / "w.csv", text), "farrington")
    np.testing.assert_array_equal(one.p_value, other.p_value)
    assert one.when == other.when
    assert one.when[0] == "2018-01-01"


@pytest.mark.parametrize("detector", [name for name in detector_names() if name not in RATE_DETECTORS])
def test_every_count_detector_finds_a_jump_after_five_years(tmp_path: Path, detector: str) -> None:
    text = "count\n" + "".join(f"{count}\n" for count in weekly(330).tolist())
    found = score_series(write(tmp_path / "c.csv", text), detector)
    assert found.alarm[-1]
    assert found.defined[-1]
    assert found.p_value[-1] < 0.01
    assert found.score[-1] > 1.0


# --- a reader's own pass rates -------------------------------------------------------------------------------------

TESTED = [200, 180, 0, 210, 190, 205]
FAILED = [3, 2, 0, 5, 12, 14]
BATCHES = "date,tested,failed\n" + "".join(
    f"2024-0{1 + at}-15,{tested},{failed}\n" for at, (tested, failed) in enumerate(zip(TESTED, FAILED, strict=True))
)


def test_pass_rates_against_a_target_have_the_exact_binomial_tail(tmp_path: Path) -> None:
    file = write(tmp_path / "b.csv", BATCHES)
    found = score_series(file, "below-target", rates=RateSettings(target=0.98))
    known = np.array(TESTED) > 0
    tail = stats.binom.sf(np.array(FAILED) - 1, TESTED, 0.02)
    np.testing.assert_allclose(found.p_value[known], tail[known], rtol=1e-9)
    assert found.alarm.tolist() == below_target(TESTED, FAILED, 0.98).alarm.tolist()
    assert found.alarm.tolist() == [False, False, False, False, True, True]
    assert not found.defined[2]
    assert math.isnan(found.p_value[2])
    np.testing.assert_allclose(found.expected[known], np.array(TESTED)[known] * 0.02)


def test_a_cusum_goes_through_the_batches_with_its_exact_threshold(tmp_path: Path) -> None:
    file = write(tmp_path / "b.csv", BATCHES)
    found = score_series(file, "lr-cusum", rates=RateSettings(target=0.98, odds_ratio=3.0, arl=200))
    limit = threshold_for_arl(1.0 - 0.98, 3.0, 200, 0.0, 200)
    chart = lr_cusum([TESTED], [FAILED], 1.0 - 0.98, 3.0, threshold=limit)
    np.testing.assert_allclose(found.score, chart.path[0] / limit, rtol=1e-12)
    assert found.alarm.tolist() == chart.alarm[0].tolist()
    assert found.alarm.any()


def test_pass_rates_are_compared_with_their_own_history(tmp_path: Path) -> None:
    rows = [(500, 5)] * 30 + [(500, 40), (0, 0), (500, 5)]
    text = "tested,positives\n" + "".join(f"{tested},{failed}\n" for tested, failed in rows)
    found = score_series(write(tmp_path / "b.csv", text), "worse-than-history")
    assert found.alarm.tolist() == [False] * 30 + [True, False, False]
    assert not found.defined[0]
    assert found.defined[1]
    assert found.expected[30] == pytest.approx(5.0, rel=0.01)


BAD_SERIES = [
    ("ears-c1", "n\n3\n", "has no column count or cases or observed (it has n); ears-c1 needs counts: count"),
    ("ears-c1", "count,cases\n3,3\n", "has both columns count and cases"),
    ("below-target", "count\n3\n", "has no column failed or positives (it has count); below-target needs pass rates"),
    ("below-target", "tested,failed\n3,4\n", ":2: failed: 4 of 3 tested; it cannot be more than were tested"),
    ("ears-c1", "count\n3\nmany\n", ":3: count: must be a whole number from 0 to 1,000,000,000, found 'many'"),
    ("ears-c1", "count\n3\n1e12\n", ":3: count: must be a whole number from 0 to 1,000,000,000, found '1e12'"),
    ("ears-c1", "date,count\n2024-01-01,3\n2024-13-01,3\n", ":3: date: must be 2024-03-18, found '2024-13-01'"),
    ("ears-c1", "week,count\n2024-W01,3\n7,3\n", ":3: week: must be 2024-W12, as in the first row, found '7'"),
    ("ears-c1", "week,count\n1,3\nx,3\n", ":3: week: must be a whole number, found 'x'"),
    ("ears-c1", "week,date,count\n1,2024-01-01,3\n", "has both columns date and week"),
    ("ears-c1", "week,count\n1,3\n2,3\n2,5\n", ":4: time 2 comes twice"),
    ("ears-c1", "week,count\n1,3\n2,3\n4,5\n", ":4: time 4 follows 2, elsewhere the step is 1"),
    (
        "farrington",
        "date,count\n2024-01-01,3\n2024-01-02,3\n",
        ":3: the rows are 1 day apart, and this detector knows weeks",
    ),
    ("ears-c1", "count\n\n", "has no rows"),
]


@pytest.mark.parametrize(("detector", "text", "said"), BAD_SERIES)
def test_a_series_that_cannot_be_scored_is_refused_with_its_place(
    tmp_path: Path, detector: str, text: str, said: str
) -> None:
    options = ("--target", "0.98") if detector == "below-target" else ()
    file = write(tmp_path / "s.csv", text)
    failure = fails("evaluate", "--series", file, "--detector", detector, *options)
    assert failure.status == 1
    assert f"s.csv{said}" in failure.line or f"s.csv: {said}" in failure.line, failure.line


def test_a_terminal_sees_no_control_characters_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "s.csv", "series,count\nred\x1b[31m,4\n")
    text = succeeds("evaluate", "--series", file, "--detector", "ears-c1").stdout
    assert "\x1b" not in text
    assert "red\\x1b[31m" in text


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_benchmark_as_table_json_and_parquet(tmp_path: Path) -> None:
    common = ("evaluate", "--replicates", 2, "--seed", 5, "--methods", "oracle, ears-c2,oracle", "--jobs", 1)
    text = succeeds(*common).stdout
    assert "84 series of 42 scenarios, drawn from seed 5" in text
    assert text.count("ears-c2") == 2
    result = succeeds(*common, "--format", "json", "--out", tmp_path / "r.parquet")
    document = json.loads(result.stdout)
    assert [one["method"] for one in document["methods"]] == ["oracle", "ears-c2"]
    assert document["seed"] == 5
    assert document["series"] == 84
    found = document["methods"][0]["nominal"]["pod"]
    assert f"{found['value']:.3f}±{found['se']:.3f}" in text
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    overall = [row for row in rows if row["scenario"] is None]
    assert len(overall) == 2 * 2 * 7
    assert len(rows) == 43 * len(overall)
    pod = next(
        row for row in overall if (row["method"], row["setting"], row["measure"]) == ("oracle", "nominal", "pod")
    )
    assert pod["value"] == found["value"]
    each = [row["value"] for row in rows if row["scenario"] is not None
            and (row["method"], row["setting"], row["measure"]) == ("oracle", "nominal", "fpr")]  # fmt: skip
    assert np.mean(each) == pytest.approx(document["methods"][0]["nominal"]["fpr"]["value"])


def test_saved_series_give_the_same_figures_in_another_process(tmp_path: Path) -> None:
    saved = tmp_path / "d.csv"
    one = succeeds("evaluate", "--replicates", 2, "--methods", "predictive", "--jobs", 1, "--format", "json",
                   "--save-series", saved)  # fmt: skip
    other = succeeds("evaluate", "--series", saved, "--methods", "predictive", "--jobs", 2, "--format", "json")
    assert json.loads(one.stdout)["methods"] == json.loads(other.stdout)["methods"]
    assert "26,208 rows written" in one.stderr


def test_a_series_of_ones_own_as_table_json_and_parquet(tmp_path: Path) -> None:
    text = "week,count\n" + "".join(f"{week},{count}\n" for week, count in enumerate([2, 3, 1, 2, 2, 3, 1, 30] * 4, 1))
    file = write(tmp_path / "s.csv", text)
    common = ("evaluate", "--series", file, "--detector", "ears-c1")
    table = succeeds(*common).stdout
    assert table.count("ALARM") >= 1
    assert "32 rows" in table
    assert "see --all" in table
    assert len(succeeds(*common, "--all").stdout.splitlines()) == 1 + 32 + 2
    document = json.loads(succeeds(*common, "--format", "json", "--out", tmp_path / "s.parquet").stdout)
    assert len(document["rows"]) == 32
    assert document["rows"][0]["expected"] is None
    row = document["rows"][7]
    assert (row["time"], row["line"], row["observed"], row["expected"]) == ("8", 9, 30.0, 2.0)
    assert (row["alarm"], row["defined"]) == (True, True)
    assert row["threshold"] == pytest.approx(2 + 2.3263 * 0.8165, abs=1e-3)
    assert row["p_value"] == pytest.approx(0.0, abs=1e-9)
    assert row["score"] == pytest.approx(14.74, abs=0.01)
    assert pq.read_table(tmp_path / "s.parquet").column("alarm").to_pylist() == [r["alarm"] for r in document["rows"]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--detector", "ears-c1"), "name it with --series"),
        (("--series", "f", "--seed", "3"), "--seed is for series that are drawn"),
        (("--series", "f", "--save-series", "g.csv"), "--save-series is for series that are drawn"),
        (("--series", "f", "--detector", "ears-c1", "--methods", "oracle"), "--methods is for the benchmark"),
        (("--alpha", "0.1"), "--alpha is for --detector; name one"),
        (("--series", "f", "--detector", "ears-c1", "--target", "0.9"), "--target means nothing to ears-c1"),
        (("--series", "f", "--detector", "lr-cusum", "--alpha", "0.1"), "--alpha means nothing to lr-cusum"),
        (("--out", "r.csv"), "r.csv: name it .parquet"),
        (("--replicates", "0"), "Invalid value for '--replicates'"),
        (("--match-fpr", "1"), "Invalid value for '--match-fpr'"),
    ],
)
def test_options_that_do_not_go_together_are_status_2(args: tuple[str, ...], said: str) -> None:
    failure = fails("evaluate", *args)
    assert failure.status == 2
    assert said in failure.line


def test_what_cannot_be_done_is_status_1(tmp_path: Path) -> None:
    counts = write(tmp_path / "s.csv", "count\n3\n4\n")
    rates = write(tmp_path / "b.csv", BATCHES)
    table: list[tuple[tuple[object, ...], str]] = [
        (("--methods", "magic"), "no method is called 'magic'; there are tocsin, farrington"),
        (("--series", counts, "--detector", "oracle"), "no detector is called 'oracle'; there are tocsin, farrington"),
        (("--series", rates, "--detector", "lr-cusum"), "give it as --target 0.98"),
        (("--series", counts, "--detector", "tocsin", "--alpha", "0.4"), "tocsin: alpha: at most 0.25"),
        (("--series", "absent.csv"), "absent.csv: is no file"),
        (("--series", tmp_path), "is no file"),
        (("--replicates", 2, "--methods", "oracle", "--save-series", tmp_path / "d.txt"), "name it .csv or .parquet"),
        (("--replicates", 2, "--methods", "oracle", "--save-series", tmp_path / "no" / "d.csv"), "cannot be written"),
        (("--series", counts, "--detector", "ears-c1", "--out", tmp_path / "no" / "r.parquet"), "cannot be written"),
    ]
    for args, said in table:
        failure = fails("evaluate", *args)
        assert failure.status == 1, args
        assert said in failure.line, failure.line
