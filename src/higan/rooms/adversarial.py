"""Train the default generator, from pictures alone: processes, checkpoints, learning log and sample sheets.

The output folder holds::

    checkpoint.safetensors   all that is needed to go on
    generator.safetensors    the average, ready for `RoomsGenerator.load`
    log.jsonl                one line per report: images, seconds, losses, R1, logits
    sheets/<images>.png      the same 64 latents over time, truncated with psi 0.7
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException, spawn

from higan.engines.processes import unheard
from higan.errors import RunError, RunMismatchError
from higan.files import write_whole
from higan.generators.rooms import RoomsGenerator, estimate_mean_code
from higan.memory import keep_memory
from higan.population import to_uint8
from higan.rooms.dataset import contact_sheet
from higan.rooms.sources import PoolSource, Source
from higan.rooms.trainer import Progress, Settings, StepReport, Trainer, Vote

__all__ = ["CHECKPOINT", "GENERATOR", "averaged_generator", "train_generator"]

CHECKPOINT = "checkpoint.safetensors"
GENERATOR = "generator.safetensors"
LOG = "log.jsonl"

Record = dict[str, Any]
Report = Callable[[Record], None]


def train_generator(
    source: Source | str | Path,
    out_dir: str | Path,
    settings: Settings | None = None,
    *,
    processes: int = 2,
    resume: bool = True,
    minutes: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    log_every: int = 50,
    save_minutes: float = 5.0,
    report: Report | None = None,
) -> Path:
    """Train until the stages are through, the minutes are over, or SIGTERM or Ctrl-C asks for an end.

    In every case a checkpoint is left, and the same call goes on from it. Several processes compute on one thread
    each and average their gradients; a single one runs in the calling process.

    Args:
        source: pictures, or the path of a pool of them (see `PoolSource`).
        out_dir: where everything goes.
        settings: what to train.
        processes: how many, on the CPU; a CUDA device takes one.
        resume: go on from the folder's checkpoint if there is one; otherwise such a folder is refused.
        minutes: of this call.
        device: where to train.
        dtype: of the activations; by default bfloat16 where that is fast.
        log_every: steps between reports.
        save_minutes: between checkpoints and sample sheets.
        report: told every record of the learning log, in the calling process.

    Returns:
        The path of the generator, in `RoomsGenerator`'s format.

    Raises:
        ValueError: an argument is out of range, or the source is no pool of pictures.
        RunMismatchError: the folder holds another training, or ``resume`` is off and it holds one.
        RunError: losses are no longer finite.
    """
    settings = settings or Settings()
    if processes < 1 or log_every < 1 or not save_minutes > 0 or (minutes is not None and not minutes > 0):
        raise ValueError("processes, log_every, save_minutes and minutes must be above 0")
    if processes > 1 and torch.device(device).type != "cpu":
        raise ValueError(f"several processes train on the CPU only; use processes=1 on {device}")
    out = Path(out_dir)
    if not resume and (out / CHECKPOINT).exists():
        raise RunMismatchError(f"{out} already holds a training; resume it or choose another folder")
    pictures = source if callable(source) else PoolSource(source)
    job = _Job(pictures, out, settings, processes, minutes, str(device), dtype, log_every, save_minutes)
    out.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        with _stop_on_signal() as asked_to_stop:
            job.run(0, report, asked_to_stop)
    else:
        job.trainer(0)  # A checkpoint that does not fit is an error here, not in a process of its own.
        _run_processes(job, report)
    return out / GENERATOR


@dataclass(frozen=True, slots=True)
class _Job:
    """One training as every process sees it; picklable."""

    source: Source
    out: Path
    settings: Settings
    processes: int
    minutes: float | None
    device: str
    dtype: torch.dtype | None
    log_every: int
    save_minutes: float

    def run(self, rank: int, report: Report | None, asked_to_stop: Callable[[], bool]) -> None:
        """Train as that rank until the end."""
        trainer = self.trainer(rank)
        log = _Log(self.out / LOG, trainer.progress, report) if rank == 0 else None
        self._loop(trainer, log, asked_to_stop)
        if log is not None:
            self._save(trainer)

    def trainer(self, rank: int) -> Trainer:
        """Fresh, or as the folder's checkpoint says."""
        trainer = Trainer(
            self.settings, self.source, rank=rank, world=self.processes, device=self.device, dtype=self.dtype
        )
        if (self.out / CHECKPOINT).exists():
            trainer.load(self.out / CHECKPOINT)
        return trainer

    def _loop(self, trainer: Trainer, log: _Log | None, asked_to_stop: Callable[[], bool]) -> None:
        started = saved = last = time.monotonic()
        stage_over = _stage_share(trainer) >= 1
        while True:
            if stage_over:
                if log is not None:
                    self._save(trainer)
                if not trainer.advance_stage():
                    return
            # Only the first process looks at the clock; all hear of it with the gradient.
            vote = Vote(stop=asked_to_stop())
            if log is not None:
                vote.next_stage = _stage_share(trainer) >= 1
                vote.stop |= self.minutes is not None and time.monotonic() - started >= 60 * self.minutes
            report = trainer.step(vote)
            now = time.monotonic()
            trainer.progress.seconds += now - last
            trainer.progress.stage_seconds += now - last
            last = now
            if log is not None:
                log.add(report)
                if trainer.progress.step % self.log_every == 0:
                    log.write(trainer)
                if now - saved >= 60 * self.save_minutes:
                    self._save(trainer)
                    saved = last = time.monotonic()
            if vote.stop:
                return
            stage_over = vote.next_stage or trainer.progress.stage_images >= trainer.stage.images

    def _save(self, trainer: Trainer) -> None:
        # Losses are looked at now and then only; what cannot be gone on from must not replace what can.
        if not trainer.is_finite:
            raise _diverged(trainer)
        trainer.save(self.out / CHECKPOINT)
        generator = averaged_generator(trainer)
        generator.save(self.out / GENERATOR, {"images": trainer.progress.images})
        sheets = self.out / "sheets"
        sheets.mkdir(exist_ok=True)
        _draw_sheet(generator, sheets / f"{trainer.progress.images:09d}.png")


def _stage_share(trainer: Trainer) -> float:
    """How much of the stage is over, by images or by time; 1 at its end."""
    stage, progress = trainer.stage, trainer.progress
    by_time = progress.stage_seconds / (60 * stage.minutes) if stage.minutes is not None else 0.0
    return max(progress.stage_images / stage.images, by_time)


class _Log:
    """The learning log: means since the last line, appended as JSON."""

    def __init__(self, path: Path, progress: Progress, report: Report | None) -> None:
        self._path = path
        self._report = report
        self._steps: list[StepReport] = []
        self._since = progress.images, progress.seconds
        _forget_after(path, progress.step)

    def add(self, step: StepReport) -> None:
        """Remember what a step reported until the next line is written."""
        self._steps.append(step)

    def write(self, trainer: Trainer) -> None:
        """Append one line and tell the reporter.

        Raises:
            RunError: a loss is not finite.
        """
        progress, steps = trainer.progress, self._steps
        images, seconds = self._since
        record: Record = {
            "step": progress.step,
            "images": progress.images,
            "resolution": trainer.stage.resolution,
            "stage_share": round(_stage_share(trainer), 4),
            "fade": round(trainer.fade, 3),
            "seconds": round(progress.seconds, 1),
            "images_per_second": round((progress.images - images) / max(progress.seconds - seconds, 1e-9), 1),
            "loss_d": _mean([step.loss_d for step in steps]),
            "loss_g": _mean([step.loss_g for step in steps]),
            "real_logit": _mean([step.real_logit for step in steps]),
            "fake_logit": _mean([step.fake_logit for step in steps]),
            "r1": _mean([step.r1 for step in steps if step.r1 is not None]),
        }
        self._steps = []
        self._since = progress.images, progress.seconds
        if not math.isfinite(record["loss_d"] + record["loss_g"]):
            raise _diverged(trainer)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._report is not None:
            self._report(record)


def _diverged(trainer: Trainer) -> RunError:
    return RunError(
        f"losses are no longer finite after {trainer.progress.images} images; "
        "go on from the checkpoint with a lower learning rate"
    )


def _mean(values: list[Tensor]) -> float | None:
    return round(float(torch.stack(values).mean()), 4) if values else None


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that will be taken again, and a line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        with contextlib.suppress(json.JSONDecodeError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    write_whole(path, "".join(kept).encode())


def averaged_generator(trainer: Trainer) -> RoomsGenerator:
    """The average of the generator over time, with its mean code: what training is for."""
    network = copy.deepcopy(trainer.average)
    return RoomsGenerator(network, estimate_mean_code(network, 16384), device=trainer.device)


def _draw_sheet(generator: RoomsGenerator, path: Path) -> None:
    """Sixty-four samples, always of the same seeds."""
    with torch.inference_mode():
        images = generator.synthesize(generator.map(generator.latents(range(64))))
        sheet = contact_sheet(to_uint8(images))
    Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy()).save(path)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and Ctrl-C only raise a flag."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Signals reach the main thread only.
        return
    before = [signal.getsignal(number) for number in _SIGNALS]
    try:
        yield _heed_signals()
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _heed_signals() -> Callable[[], bool]:
    """From now on SIGTERM and Ctrl-C only raise the flag that is returned."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    for number in _SIGNALS:
        signal.signal(number, ask)
    return lambda: asked


def _run_processes(job: _Job, report: Report | None) -> None:
    records = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting, _stop_on_signal() as asked_to_stop:
        with unheard():
            context = spawn(_work, (job, f"file://{meeting}/store", records), job.processes, join=False)
        told = over = False
        while not over:
            try:
                over = context.join(timeout=0.5)
            except ProcessException as error:
                raise RunError(f"a training process failed: {error}") from error
            while not records.empty():
                record = records.get()
                if report is not None:
                    report(record)
            if asked_to_stop() and not told:
                told = True
                for process in context.processes:
                    process.terminate()


def _work(rank: int, job: _Job, meeting: str, records: SimpleQueue[Record]) -> None:
    torch.set_num_threads(1)
    keep_memory()
    if sys.platform == "linux":
        # Without this the host's name must resolve, which it need not in a container.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # A terminal sends Ctrl-C to all processes, and the calling one passes it on besides: the second signal may come
    # while the checkpoint is written, while others wait for that, or at the very end.
    asked_to_stop = _heed_signals()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Which also tells of the death of the caller.
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=job.processes)
    try:
        job.run(rank, records.put, asked_to_stop)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
