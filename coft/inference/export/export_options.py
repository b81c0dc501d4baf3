"""Options of an export. Nothing large is imported here, so that they are checked first."""

from __future__ import annotations

from dataclasses import dataclass

from coft.core.errors import UserError, did_you_mean

AVERAGE, BOTH = "average", "both"
PEERS = (AVERAGE, BOTH, "a", "b")
DEFAULTS = {"open_clip": AVERAGE, "onnx": BOTH, "head": AVERAGE}  # default peers, by format


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        to: Format: a key of `DEFAULTS`.
        peers: One of `PEERS`; "" for the default of the format.
        single: Whether to export the one encoder whose predictions agree most often with the run's model.
        int8: Whether to write a second ONNX file in int8.

    Raises:
        UserError: If an option is unknown, or if options exclude each other.
    """

    to: str
    peers: str = ""
    single: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("to", tuple(DEFAULTS)), ("peers", ("", *PEERS))):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), choices)}")
        for name in ("single", "int8"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} is {getattr(self, name)!r}; expected True or False")
        if self.int8 and self.to != "onnx":
            raise UserError("--int8 requires --to onnx; add that, or leave it out")
        if self.peers == BOTH and self.to != "onnx":
            raise UserError(f"--peers {BOTH} requires --to onnx; {self.to} takes one encoder: a, b, or {AVERAGE}")
        if self.peers and self.single:
            raise UserError("--single chooses the encoder, and --peers names it; leave one of them out")
