"""A generator with everything that editing needs at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from higan.layers import check_layers
from higan.recipes import Instruction, parse
from higan.spelling import instead
from higan.store import Run, load_boundaries, load_rescoring
from higan.trial import check_same
from higan.types import Boundary, Generator, RaggedGenerator, Rescoring, Scorer

__all__ = ["Workbench", "open_workbench", "with_directions"]


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What edits are made with.

    ``scorer`` is needed to reach scores, ``rescoring`` to recommend layers and for amounts in standard deviations.
    ``weights`` is the digest of the generator's weight file, written into recipes. ``progress`` is told what is being
    looked for, and how many of at most how many looks have been taken. ``advice`` are the layers of directions that no
    re-scoring has seen, where an edit names none.
    """

    generator: Generator
    boundaries: Mapping[str, Boundary]
    scorer: Scorer | None = None
    rescoring: Rescoring | None = None
    weights: str = ""
    progress: Callable[[str, int, int], None] | None = None
    advice: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def instructions(self, edits: Sequence[str | Instruction]) -> tuple[Instruction, ...]:
        """Edits from text, one or several."""
        edits = [edits] if isinstance(edits, str) else edits
        return tuple(e if isinstance(e, Instruction) else parse(e, self.generator.num_layers) for e in edits)

    def column(self, concept: str) -> int:
        """The scorer's column of a concept.

        Raises:
            ValueError: there is no scorer, or it does not know the concept.
        """
        if self.scorer is None:
            raise ValueError(f"a scorer is needed to tell how much there is of {concept!r}; none was given")
        names = [c.name for c in self.scorer.concepts]
        if concept not in names:
            way_out = f"give steps, as in '{concept}=+2'; " if concept in self.boundaries else ""
            raise ValueError(
                f"scorer {self.scorer.name!r} has no concept {concept!r}; {way_out}it knows {instead(concept, names)}"
            )
        return names.index(concept)


def open_workbench(run: Run, generator: Generator, scorer: Scorer | None = None) -> Workbench:
    """The workbench of a finished run.

    Raises:
        RunError: boundaries or re-scoring are missing.
        ValueError: the run was made with a generator of another shape.
        RunMismatchError: generator or scorer draw or score its first sample otherwise.
    """
    boundaries = load_boundaries(run)
    shape = tuple(boundaries[0].normal.shape)
    if shape not in ((generator.code_dim,), (generator.num_layers, generator.code_dim)):
        raise ValueError(
            f"the run's boundaries have shape {shape}; {generator.name!r} has {generator.num_layers} layers and codes "
            f"of width {generator.code_dim}: open the run with its own generator"
        )
    check_same(run, generator, scorer)
    digests = run.settings.get("digests", {})
    weights = next((digest for name, digest in digests.items() if name.startswith("generator ")), "")
    by_name = {boundary.concept.name: boundary for boundary in boundaries}
    return Workbench(generator, by_name, scorer, load_rescoring(run), weights)


def with_directions(
    bench: Workbench, directions: Sequence[Boundary], advice: Mapping[str, tuple[int, ...]]
) -> Workbench:
    """The same with directions of other origin, such as discovered or published ones, under their own names.

    Args:
        bench: what there is already.
        directions: normals (D,) or (L, D) in the generator's code space.
        advice: layers by name.

    Raises:
        ValueError: a name that is there already, a normal of another shape or beyond a layer's width, or layers that
            do not exist.
    """
    generator, names = bench.generator, [direction.concept.name for direction in directions]
    if taken := [name for k, name in enumerate(names) if name in bench.boundaries or name in names[:k]]:
        raise ValueError(f"directions need names that are not taken; give other names to {', '.join(taken)}")
    shapes = (generator.code_dim,), (generator.num_layers, generator.code_dim)
    for direction in directions:
        if tuple(direction.normal.shape) not in shapes:
            raise ValueError(
                f"{direction.concept.name!r} has shape {tuple(direction.normal.shape)}; directions of "
                f"{generator.name!r} have {' or '.join(map(str, shapes))}"
            )
        check_layers(advice.get(direction.concept.name, (0,)), generator.num_layers)
        if isinstance(generator, RaggedGenerator):
            _check_widths(direction, generator.layer_widths)
    more = {direction.concept.name: direction for direction in directions}
    return replace(bench, boundaries={**bench.boundaries, **more}, advice={**bench.advice, **advice})


def _check_widths(direction: Boundary, widths: Sequence[int]) -> None:
    """Refuse a direction that leads where layers are too narrow to follow."""
    rows = direction.normal.expand(len(widths), -1)
    for layer, (row, width) in enumerate(zip(rows, widths, strict=True)):
        if bool(row[width:].any()):
            raise ValueError(
                f"{direction.concept.name!r} goes beyond the width of layer {layer}, {width} of {row.numel()}: where "
                f"layers differ in width a direction has a row for each, {tuple(rows.shape)}, with zeros beyond it"
            )
