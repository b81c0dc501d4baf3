"""What a person is told to do about a file that could not be written."""

from __future__ import annotations

import errno

from coft.core.files import remedy


def test_what_may_not_be_written_is_not_the_disk_s_fault() -> None:
    assert "where you may write" in remedy(PermissionError(13, "Permission denied"))
    assert "where you may write" in remedy(OSError(errno.EROFS, "Read-only file system"))
    assert remedy(OSError(errno.ENOSPC, "No space left on device")) == "see to the disk"
