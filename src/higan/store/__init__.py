"""The run folder: what a study leaves on disk. Parquet, safetensors and JSON; never pickle.

::

    manifest.json                     settings that identify the run, and its provenance
    steps.json                        settings and seconds of the steps that are done, see `higan.study`
    population/shard-00000.parquet    seed, codes, one score column per concept
    population/shard-00000.sha256     digest of the shard, written after it: a shard without one does not count
    boundaries.safetensors
    permuted.safetensors              boundaries fitted to permuted scores: what a fit finds where there is nothing
    rescoring.safetensors
    rescoring-equal_change.safetensors   … and other step modes, for comparison
    responses.safetensors             mean change of scores against the step, both ways
    rescoring.units/…                 finished units of a re-scoring under way
    .unfinished.json                  seconds that steps under way have taken in earlier calls

Every file is written under a temporary name, synced and renamed, so that it is there whole or not at all. Everything
that is read is checked against a SHA-256; Parquet pages carry checksums besides, for readers that are not ours.
Shard k holds samples k · shard_size onwards, whoever computes it and whenever. One process writes a folder at a time
(`writing`); reading needs no leave.

Scores are columns named ``score_<concept>``; codes are lists of l · D float32, layer by layer, with l = 1 where layers
share their code. Any Parquet reader understands them: ``SELECT seed, "score_wood" FROM 'run/population/*.parquet'``.
"""

from higan.store.checking import verify
from higan.store.files import write_file, write_json
from higan.store.opening import open_run
from higan.store.results import (
    Units,
    drop_boundaries,
    drop_rescoring,
    load_boundaries,
    load_boundary,
    load_permuted,
    load_rescoring,
    load_responses,
    save_boundaries,
    save_boundary,
    save_permuted,
    save_rescoring,
    save_responses,
)
from higan.store.run import UNFINISHED, Run, complete, is_run, load_run, writing
from higan.store.shards import (
    encode_shard,
    keep_shard,
    kind_of,
    missing_shards,
    read_columns,
    read_population,
    read_shard,
    shard_indices,
    write_shard,
)

__all__ = [
    "UNFINISHED",
    "Run",
    "Units",
    "complete",
    "drop_boundaries",
    "drop_rescoring",
    "encode_shard",
    "is_run",
    "keep_shard",
    "kind_of",
    "load_boundaries",
    "load_boundary",
    "load_permuted",
    "load_rescoring",
    "load_responses",
    "load_run",
    "missing_shards",
    "open_run",
    "read_columns",
    "read_population",
    "read_shard",
    "save_boundaries",
    "save_boundary",
    "save_permuted",
    "save_rescoring",
    "save_responses",
    "shard_indices",
    "verify",
    "write_file",
    "write_json",
    "write_shard",
    "writing",
]
