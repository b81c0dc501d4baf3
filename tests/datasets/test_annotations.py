"""Annotation files in MATLAB's format."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.io

from coft.core.errors import UserError
from datasets import annotations
from datasets.annotations import read_mat


def test_a_matlab_file_that_crashes_its_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "annotations.mat"
    scipy.io.savemat(path, {"labels": [1, 2]})
    assert read_mat(path)["labels"].tolist() == [1, 2]
    monkeypatch.setattr(annotations, "READ_MAT", "import os; os.abort()")
    with pytest.raises(UserError, match=r"annotations\.mat cannot be read as a MATLAB file \(it is damaged\)"):
        read_mat(path)
