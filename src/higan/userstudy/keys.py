"""What raters and organiser of a served study show: drawn once, so that links hold when the server is started again."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from higan.errors import UserStudyError
from higan.files import replacing

__all__ = ["Keys", "keys_of"]

_FILE = "keys.json"
_BYTES = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """``token`` opens the study on other machines, ``organiser`` the progress of all raters."""

    token: str
    organiser: str


def keys_of(folder: Path) -> Keys:
    """Those of a study folder, drawn and kept there, readable by its owner alone, where there are none.

    Raises:
        UserStudyError: the file is damaged.
    """
    path = folder / _FILE
    try:
        return Keys(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (ValueError, TypeError) as error:
        raise UserStudyError(
            f"{path} is damaged ({error}); delete it, and give raters the address that is then printed"
        ) from error
    keys = Keys(secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES))
    with replacing(path) as half:
        half.touch(mode=0o600)
        half.write_text(json.dumps(asdict(keys)))
    return keys
