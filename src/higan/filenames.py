"""Names of files for names of anything: legal on all systems and the same on all, and read back as what they were."""

from __future__ import annotations

import re

__all__ = ["file_name", "named_by_file"]

_FORBIDDEN = r'[<>:"/\\|?*\x00-\x1f\x7f]|[. ]\Z|%(?=[0-9A-F]{2})'
"""What Windows takes for something else, does not keep at the end, or nobody sees; and what would pass for a code."""

_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)
"""What Windows takes for a device, whatever ending follows."""


def file_name(name: str, also: str = "") -> str:
    """A name as a file can have it, alone or before an ending.

    Ordinary names stay as they are. Of others the characters that Windows refuses, and those in ``also``, are written
    as in addresses, ``a:b`` as ``a%3Ab`` and ``con`` as ``%63on``: different names stay different, and `named_by_file`
    knows them again.
    """
    pattern = f"{_FORBIDDEN}|[{re.escape(also)}]" if also else _FORBIDDEN
    safe = re.sub(pattern, lambda found: _coded(found[0]), name)
    return _coded(safe[0]) + safe[1:] if _DEVICES.fullmatch(safe) else safe


def named_by_file(name: str, also: str = "") -> str:
    """What `file_name` gave this name to; names that it gave to nothing mean themselves."""
    meant = re.sub("%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), name)
    return meant if file_name(meant, also) == name else name


def _coded(character: str) -> str:
    return f"%{ord(character):02X}"
