"""The benchmark that holds every published count is run, and can fail."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import paper_tables


def test_every_row_that_should_be_equal_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert paper_tables.main() == 0
    assert "0 off" in capsys.readouterr().out


def test_a_row_that_is_off_ends_non_zero(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    off = paper_tables.Row("t", "r", 5, 6, "rule")
    monkeypatch.setattr(paper_tables, "rows", lambda: [off])
    assert paper_tables.main() == 1
    assert "OFF" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("published", "counted", "equal"), [(0.42, 0.4249, True), (0.42, 0.426, False), (7, 7.0, True)]
)
def test_figures_are_compared_to_the_digits_that_were_published(published: float, counted: float, equal: bool) -> None:
    assert paper_tables.Row("t", "r", published, counted, "rule").equal == equal


def test_rows_that_may_differ_say_why_and_are_few() -> None:
    excused = [row for row in paper_tables.rows() if row.why_not]
    assert all("parameters" not in row.name for row in excused if row.table == "GoogLeNet")
    assert {row.name.split(",")[0] for row in excused} == {"base", "lr", "lr-conv1", "gmp-lr-join-wfull", "nin-c3"}
