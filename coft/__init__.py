"""CoFT as a library: everything that can be used without Dassl.

The public names are imported on first use, so that the method alone needs only torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coft.adapted import Adapted
    from coft.api import adapt
    from coft.core.errors import UserError
    from coft.estimator import CoFTClassifier

__all__ = ["Adapted", "CoFTClassifier", "UserError", "__version__", "adapt"]
__version__ = "1.0.0"


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'coft' has no attribute {name!r}")
    from coft import adapted, api, estimator
    from coft.core import errors

    names = {
        "Adapted": adapted.Adapted,
        "CoFTClassifier": estimator.CoFTClassifier,
        "UserError": errors.UserError,
        "adapt": api.adapt,
    }
    globals().update(names)
    return names[name]
