"""CoFT+."""

from __future__ import annotations

from dataclasses import dataclass, field

from .coft import CoFTSettings
from .settings import setting, share


@dataclass(frozen=True)
class Contrast:
    """Momentum contrastive learning in Phase II."""

    weight: float = setting(0.5, "weight of the contrastive loss; 0: none", at_least=0.0)
    queue: int = setting(4096, "keys in the queue, at most", at_least=1)
    temperature: float = setting(0.07, "temperature of the contrastive loss", above=0.0)


@dataclass(frozen=True)
class DescriptionSettings:
    """Class descriptions."""

    from_: str = setting("auto", "auto: those that come with the data set, if any; none; or a file")
    at_seeds: float = share(0.25, "share of the descriptions in the text features that choose the first seeds")


@dataclass(frozen=True)
class CoFTPlusSettings(CoFTSettings):
    """Settings of CoFT+."""

    rounds: int = setting(3, "how often seeds are chosen and Phase I is run", at_least=1)
    contrast: Contrast = field(default_factory=Contrast)
    descriptions: DescriptionSettings = field(default_factory=DescriptionSettings)
