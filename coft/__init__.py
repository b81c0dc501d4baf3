"""CoFT as a library: everything that can be used without Dassl.

`adapt` and its kin are found on first use: the method alone needs no more than torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coft.run.adapt import adapt
    from coft.run.adapted import Adapted
    from coft.run.classifier import CoFTClassifier
    from coft.runtime.errors import UserError

__all__ = ["Adapted", "CoFTClassifier", "UserError", "adapt"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'coft' has no attribute {name!r}")
    from coft.run import adapt, adapted, classifier
    from coft.runtime import errors

    found = {
        "Adapted": adapted.Adapted,
        "CoFTClassifier": classifier.CoFTClassifier,
        "UserError": errors.UserError,
        "adapt": adapt.adapt,
    }
    globals().update(found)
    return found[name]
