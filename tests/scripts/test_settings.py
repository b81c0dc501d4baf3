"""The list of settings."""

from __future__ import annotations

import pytest

from coft.core.errors import UserError
from scripts.settings import main


def test_settings_are_filtered_by_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trainer.upl.labels"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("TRAINER.UPL.LABELS  'own'  one of own, propagated, coft  ")
    assert main([]) == 0
    assert {"SEED", "TRAINER.COFT.FILTER"} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    with pytest.raises(UserError, match="nosuch"):
        main(["nosuch"])
