"""The study of the embedded generator that comes with the package: a run folder without its population.

Made by ``higan demo``, then ``higan rooms pack-study``; see docs/studio.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from higan.store import Run, load_boundaries, load_rescoring, load_run, save_boundaries, save_rescoring

__all__ = ["pack_study", "shipped_study"]

_FOLDER = Path(__file__).with_name("rooms")


def shipped_study() -> Run:
    """The run folder in the package.

    Raises:
        RunError: it is not installed.
    """
    return load_run(_FOLDER)


def pack_study(run: Run, out: Path = _FOLDER) -> int:
    """What the studio needs of a run: manifest, boundaries, re-scoring. Gives the bytes written.

    Raises:
        RunError: the run is not finished.
    """
    boundaries, rescoring = load_boundaries(run), load_rescoring(run)
    out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")
    packed = load_run(out)
    save_boundaries(packed, boundaries)
    save_rescoring(packed, rescoring)
    return sum(path.stat().st_size for path in out.iterdir())
