"""Exit of a command: the only place where errors are turned into a message and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from .errors import UserError, in_a_line, is_out_of_memory, remedy

log = logging.getLogger(__name__)
MISTAKE, INTERRUPTED = 2, 130
NO_MEMORY = "there is not enough memory; take smaller batches or images, or end other programs"
SYSTEM_ERROR_HINTS = {  # part of a RuntimeError's message: explanation for the user
    "DataLoader worker": "a process that reads images was ended by the system: too little memory, or too little of "
    "/dev/shm (docker run --shm-size 2g); make room, or set DATALOADER.NUM_WORKERS 0",
    "inline_container.cc": "a file of weights in the output folder cannot be written whole; make room on the disk, "
    "and give the same command again",
    "can't start new thread": "the system lets no more threads run; end other programs, or raise ulimit -u",
    "Could not determine home directory": "there is no home folder, or nobody of the name after a ~; set the variable "
    "HOME to a folder, or write the path in full",
}


def guarded(work: Callable[[], int], interrupted: str = "interrupted; run the same command to resume") -> int:
    """Run a command, and report an error that the user can fix as one line on standard error.

    Args:
        work: The command; returns the exit code.
        interrupted: Message after Ctrl-C.

    Returns:
        The exit code: that of `work`, 2 for a user error, 130 after an interrupt, 0 if the reader of standard output
        has closed it.
    """
    fill_streams()
    threading.excepthook = end_of_thread
    with suppress(AttributeError):  # a stream that was substituted for sys.stdout
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file name may be invalid text
    try:
        code = work()
        sys.stdout.flush()  # report a full disk here, not during interpreter shutdown
        return code
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        silence()
        return 0
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        log.debug("The error was:", exc_info=True)
        print(f"error: {mistake.line}", file=sys.stderr)
        return MISTAKE


def fill_streams() -> None:
    """Reopen closed standard streams: else another file would get their number, and with it warnings of libraries."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # Python found it closed
            setattr(sys, name, os.fdopen(os.dup(number), "w" if number else "r"))


def end_of_thread(args: threading.ExceptHookArgs) -> None:
    """Ignore an OSError that ends a library's thread, such as a full disk: the main thread meets it as well."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def silence() -> None:
    """Redirect standard output to the null device, for its reader has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_user_error(error: Exception) -> UserError | None:
    """Convert an error that the user can fix to a UserError; None for any other, which is a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        place = error.filename if error.filename is not None else "a file"
        name = os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else str(place)
        return UserError(f"{name}: {error.strerror or error or type(error).__name__}; {remedy(error)}")
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return UserError(NO_MEMORY)
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        return UserError(f"{error.object[:80]!a}: this locale has no such characters; set PYTHONUTF8=1")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return UserError(f"TRAIN.COMPILE: the compiler fails ({in_a_line(error)}); leave it empty")
    message = str(error) if isinstance(error, RuntimeError) else ""
    if message.startswith("Symlink loop from"):  # before Python 3.13
        return UserError(f"{message}; give a path that ends at a file or folder")
    return next((UserError(line) for words, line in SYSTEM_ERROR_HINTS.items() if words in message), None)
