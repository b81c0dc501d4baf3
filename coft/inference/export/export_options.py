"""What a user can want of an export, known before anything large is imported."""

from __future__ import annotations

from dataclasses import dataclass

from coft.core.errors import UserError, did_you_mean

AVERAGE, BOTH = "average", "both"
PEERS = (AVERAGE, BOTH, "a", "b")
DEFAULTS = {"open_clip": AVERAGE, "onnx": BOTH, "head": AVERAGE}  # which encoder, by way of exporting


@dataclass(frozen=True)
class Wanted:
    """What a user wants of an export.

    Attributes:
        to: A name of `DEFAULTS`.
        peers: A name of `PEERS`; "" for the way's default.
        single: Whether the encoder that gives the run's classes most often is taken.
        int8: Whether there is a second ONNX file in int8.

    Raises:
        UserError: If these do not go together.
    """

    to: str
    peers: str = ""
    single: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        for name, known in (("to", tuple(DEFAULTS)), ("peers", ("", *PEERS))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), known)}")
        if self.int8 and self.to != "onnx":
            raise UserError("--int8 goes with --to onnx; add that, or leave it out")
        if self.peers == BOTH and self.to != "onnx":
            raise UserError(f"--peers {BOTH} goes with --to onnx; {self.to} takes one encoder: a, b, or {AVERAGE}")
        if self.peers and self.single:
            raise UserError("--single chooses the encoder, and --peers names it; leave one of them out")
