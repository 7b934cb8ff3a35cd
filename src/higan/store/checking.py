"""Whether a run is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from higan.errors import CorruptRunError
from higan.store.files import load_tensors
from higan.store.run import load_run
from higan.store.shards import kind_of, read_shard

__all__ = ["verify"]

_RESULTS = (
    ("boundaries", "boundaries.safetensors"),
    ("boundaries", "permuted.safetensors"),
    ("rescoring", "rescoring*.safetensors"),
    ("responses", "responses.safetensors"),
)
"""What files of a run hold, besides its samples."""


def verify(path: str | Path) -> str:
    """Check the samples and results of a run; a digest of seeds, codes and scores that depends on content alone.

    Pages and notes beside them are not looked at. Shard size, compression and the program's version do not matter to
    it.

    Raises:
        RunError: there is no run.
        CorruptRunError: something is missing or damaged.
    """
    run = load_run(path)
    streams = [hashlib.sha256() for _ in range(3)]
    seeds: list[Tensor] = []
    for shard in range(run.num_shards):
        part = read_shard(run, shard)
        seeds.append(part.seeds)
        for digest, tensor in zip(streams, (part.seeds, part.codes, part.scores), strict=True):
            digest.update(tensor.contiguous().numpy().data)
    concepts, _, shape = kind_of(run)
    if len(torch.cat(seeds).unique()) != run.num_samples:
        raise CorruptRunError(
            f"{run.path} does not hold {run.num_samples} different samples: a shard is there twice, or has too few; "
            "delete what was copied there and sample again with the same settings"
        )
    for kind, pattern in _RESULTS:
        for file in sorted(run.path.glob(pattern)):
            load_tensors(file, kind)
    header = [[concept.name, concept.level] for concept in concepts], list(shape)
    total = hashlib.sha256(json.dumps(header).encode())
    for digest in streams:
        total.update(digest.digest())
    return total.hexdigest()
