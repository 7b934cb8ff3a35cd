"""A study without a server: a folder of one page and its pictures, for any host of files or none at all.

Answers stay in the rater's browser until they are saved as a file, which `higan.userstudy.files` reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path

from higan.errors import UserStudyError
from higan.userstudy.files import FORMAT
from higan.userstudy.folder import UserStudy, verify

__all__ = ["export"]

_OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_STAMP = (1980, 1, 1, 0, 0, 0)
_STYLE = '<link rel="stylesheet" href="study.css">'
_SCRIPT = '<script type="module" src="online.js"></script>'


def export(study: UserStudy, out: str | Path, *, num_blocks: int = 48) -> Path:
    """Write the static study: a folder, or a zip archive where ``out`` ends so.

    Nothing in it says what is true about a trial. A link that ends in ``#block=7`` shows block 7; without, a block is
    drawn at random.

    Args:
        study: whose pictures are first checked against their digests.
        out: a folder or ``.zip`` that does not exist yet.
        num_blocks: how many blocks the page knows; further raters share them.

    Raises:
        UserStudyError: ``out`` exists, or a picture is missing or damaged.
        ValueError: fewer than one block, or ``out`` ends like another kind of archive.
    """
    out = Path(out)
    if num_blocks < 1:
        raise ValueError(f"num_blocks must be at least 1; got {num_blocks}")
    if out.suffix.lower() in _OTHER_ARCHIVES:
        raise ValueError(f"out is a folder or ends in .zip; got {out}: no other archives are written")
    if out.exists():
        raise UserStudyError(f"{out} exists already; nothing was written: choose another name")
    verify(study)
    contents = {"index.html": _page(study, num_blocks).encode()}
    contents |= {
        f"pictures/{name}.png": (study.pictures / f"{name}.png").read_bytes()
        for name in sorted({n for trial in study.design.trials.values() for n in (trial.before, trial.after)})
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    if partial.is_dir():
        shutil.rmtree(partial)
    if out.suffix.lower() == ".zip":
        with zipfile.ZipFile(partial, "w") as archive:
            for name, data in contents.items():
                archive.writestr(zipfile.ZipInfo(f"{out.stem}/{name}", _STAMP), data, zipfile.ZIP_DEFLATED)
    else:
        (partial / "pictures").mkdir(parents=True)
        for name, data in contents.items():
            (partial / name).write_bytes(data)
    partial.rename(out)
    return out


def _page(study: UserStudy, num_blocks: int) -> str:
    """The page with style, script and data written into it: pages opened from a folder may load no modules."""
    folder = files("higan.userstudy.pages")
    html, style, rating, offline = (
        folder.joinpath(name).read_text("utf-8") for name in ("study.html", "study.css", "rating.js", "offline.js")
    )
    script = re.sub(r"^export ", "", rating, flags=re.MULTILINE) + re.sub(r"^import .*\n", "", offline, flags=re.M)
    data = json.dumps(_shown(study, num_blocks)).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; img-src 'self' file: data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html = html.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    html = html.replace(_STYLE, f"<style>{style}</style>")
    return html.replace(
        _SCRIPT,
        f'<script type="application/json" id="study">{data}</script>\n<script type="module">{script}</script>',
    )


def _shown(study: UserStudy, num_blocks: int) -> dict[str, object]:
    trials = sorted(study.design.trials.values(), key=lambda trial: trial.id)
    index = {trial.id: k for k, trial in enumerate(trials)}
    return {
        "format": FORMAT,
        "id": study.id,
        "title": study.title,
        "trials": [{"id": t.id, "before": t.before, "after": t.after} for t in trials],
        "blocks": [[index[trial.id] for trial in study.block(number)] for number in range(num_blocks)],
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
