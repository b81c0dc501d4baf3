"""CoFT with an oracle on toys."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from coft.labelling.protocol import Engine, Observer
from coft.method.coft_settings import CoFTSettings
from scripts.oracle.method import CoFTWithTruth, OracleSettings
from tests.coft.toys import make_coft


def make_oracle(truth: Tensor, settings: dict[str, Any] | None = None, parts: Any = None, **changes: Any) -> Any:
    """CoFT with an oracle on toys.

    Args:
        truth: Labels of the images.
        settings: Those of CoFT.
        parts: Arguments of `make_coft`, and of CoFT.
        **changes: Settings of the oracle.
    """

    def make(engine: Engine, of_coft: CoFTSettings, observer: Observer, **options: Any) -> CoFTWithTruth:
        return CoFTWithTruth(truth, engine, OracleSettings(**{**vars(of_coft), **changes}), observer, **options)

    return make_coft(settings, make=make, **(parts or {}))
