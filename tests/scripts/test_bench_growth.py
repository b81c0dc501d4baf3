"""Growth: exponents, the table and the plot."""

import os
from pathlib import Path

import pytest

from coft.core.paths import HOME
from compat.dassl.tests.forks import run_afresh
from scripts.bench import growth
from scripts.bench.growth import Point, exponent, plot, table
from tests.markdown import table_rows

SIZES = [1000, 4000, 16000, 64000]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_of_the_size_is_that_power(power: float) -> None:
    assert exponent(SIZES, [3.0 * size**power for size in SIZES]) == pytest.approx(power, abs=1e-9)


def test_an_exponent_leaves_out_what_is_constant_and_matters_for_small_sizes_alone() -> None:
    assert exponent(SIZES, [5000.0 + size for size in SIZES]) > 0.7


def test_each_kind_of_work_has_a_row_and_a_line(tmp_path: Path) -> None:
    measured = [Point("images", work, size, size / 100, size / 1000) for work in ("a", "b") for size in SIZES]
    _, *rows = table_rows(table(measured))
    assert [row[:3] for row in rows] == [[work, "images, 1,000 to 64,000", "10.00 to 640.00"] for work in ("a", "b")]
    assert {row[3] for row in rows} == {"1.00"}
    plot(measured, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").stat().st_size > 1000


def test_a_backend_of_matplotlib_that_is_unknown_does_no_harm(tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text(
        "from pathlib import Path\nfrom scripts.bench.growth import Point, plot\n"
        "plot([Point('images', 'a', 10**size, 1.0, 1.0) for size in (1, 2)], Path('growth.svg'))\n"
    )
    environment = {**os.environ, "MPLBACKEND": "nonsense", "PYTHONPATH": str(HOME)}
    done = run_afresh([str(script)], tmp_path, environment)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "growth.svg").is_file()


def test_the_plot_is_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALLED_FROM", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(growth, "points", lambda: [Point("images", "a", size, size, size) for size in SIZES])
    assert growth.main(["--plot", "mine.svg"]) == 0
    assert (tmp_path / "mine.svg").is_file()
    assert f"Plot: {tmp_path.resolve() / 'mine.svg'}\n" in capsys.readouterr().out
