"""The study of the embedded generator that comes with the package: a run folder without its population.

Made by ``higan demo``, then ``higan rooms pack-study``; see docs/studio.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from higan.errors import RunMismatchError
from higan.generators.loading import WEIGHTS
from higan.store import Run, load_boundaries, load_rescoring, load_run, save_boundaries, save_rescoring
from higan.weights import digest_of

__all__ = ["SHIPPED", "pack_study", "shipped_study"]

SHIPPED = Path(__file__).with_name("study")
"""Folder of the study that comes with the package."""

_GENERATOR = "rooms-128"


def shipped_study() -> Run:
    """The run folder in the package.

    Raises:
        RunError: it is not installed.
    """
    return load_run(SHIPPED)


def pack_study(run: Run, out: Path = SHIPPED) -> int:
    """What the studio needs of a run: manifest, boundaries, re-scoring. Gives the bytes written.

    Raises:
        RunMismatchError: the run is of another generator than the embedded one, or of other weights.
        RunError: the run is not finished.
    """
    _check_embedded(run)
    boundaries, rescoring = load_boundaries(run), load_rescoring(run)
    out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")
    packed = load_run(out)
    save_boundaries(packed, boundaries)
    save_rescoring(packed, rescoring)
    return sum(path.stat().st_size for path in out.iterdir())


def _check_embedded(run: Run) -> None:
    """The studio opens the study by the name of its generator, whose weights must be those it was made with."""
    name = run.provenance.get("generator")
    if name != _GENERATOR:
        raise RunMismatchError(
            f"{run.path} is a run of the generator {name!r}; the package carries the study of {_GENERATOR!r}: make one "
            "with `higan demo`"
        )
    made = run.settings.get("digests", {}).get(f"generator {name}", "")
    here = digest_of(WEIGHTS / f"{name}.safetensors")
    if made != here:
        raise RunMismatchError(
            f"{run.path} was made with other weights (SHA-256 {made[:12] or 'unknown'}) than the package carries for "
            f"{name!r} ({here[:12]}): make a run with these by `higan demo`"
        )
