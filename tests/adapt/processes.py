"""Commands in processes of their own, that are killed at a chosen moment or find the disk full.

    python processes.py JOBS.json [MODULE …]      (the answers are left in JOBS.answers)

Everything is imported once, and so is each MODULE; each process is then a fork that calls the command line's own
``main``. A job has ``command`` (words), and perhaps ``rename`` (paths and their new names, before the start),
``processes`` (2: as Lightning's own launcher would start them), ``end`` (where, call: something befalls the process
there), ``rank`` (which process that is, 0), ``event`` (``kill``, ``full``, ``vanish``), ``bytes`` (a file may have)
and ``folder`` (that vanishes). Of each process the answer holds ``status`` (-9: killed), ``said`` (standard error) and
``losses`` (of the steps).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dermlab import cli
from dermlab.adapt.finetune import curves, fit
from dermlab.adapt.finetune import run as finetune_run
from dermlab.report import model_card
from dermlab.training import loop


def befall(job: dict[str, Any]) -> None:
    """Do what the job says befalls its process."""
    if job["event"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif job["event"] == "full":  # from here on a larger file fails as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["bytes"], resource.RLIM_INFINITY))
    else:
        Path(job["folder"]).rename(job["folder"] + " gone")


def prepare(job: dict[str, Any]) -> None:
    """Let something befall this process at the n-th call of one function, before or after it."""
    where, call = job["end"]
    owner, name, before = {
        "step": (loop.Stepper, "take", False),
        "saving": (safetensors.torch, "save_file", True),
        "epoch": (fit._Training, "_judge", False),
        "best": (fit, "save_checkpoint", False),
        "phase": (fit._Training, "_run_phase", True),
        "summary": (finetune_run, "summarise", True),
    }[where]
    real, n_calls = getattr(owner, name), 0

    def called(*arguments: Any, **keywords: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == call and where == "saving":
            Path(arguments[1]).write_bytes(b"half of a checkpoint")
        if n_calls == call and before:
            befall(job)
        result = real(*arguments, **keywords)
        if n_calls == call and not before:
            befall(job)
        return result

    setattr(owner, name, called)


def child(job: dict[str, Any], rank: int, port: int, losses: Path) -> int:
    """Be one process of a job and return its exit status."""
    if job.get("processes", 1) > 1:
        world = str(job["processes"])
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": world}
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    real = loop.Stepper.take

    def take(self: loop.Stepper, *arguments: Any) -> float:
        loss = real(self, *arguments)
        with losses.open("a") as file:
            file.write(f"{loss!r}\n")
        return loss

    setattr(loop.Stepper, "take", take)  # noqa: B010
    if "end" in job and rank == job.get("rank", 0):
        prepare(job)
    # Pictures and card at a run's end are tested elsewhere, and take longer than the toy's training.
    curves.draw_curves = lambda *_: []
    model_card.describe_run = lambda folder, **_: Path(folder)
    try:
        return cli.main(job["command"])
    except SystemExit as end:
        return int(end.code or 0)


def run(job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run a job's processes to their ends."""
    for old, new in job.get("rename", ()):
        Path(old).rename(new)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = []
    for rank in range(job.get("processes", 1)):
        losses = folder / f"losses{rank}"
        losses.write_text("")
        reading, writing = os.pipe()  # a pipe, for a file would be short of disk too
        pid = os.fork()
        if not pid:
            os.dup2(writing, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.close(reading)
            status = 70
            try:
                status = child(job, rank, port, losses)
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(writing)
        begun.append((pid, reading, losses))
    answers = []
    for pid, reading, losses in begun:
        with open(reading, encoding="utf-8", errors="replace") as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.append({"status": status, "said": told, "losses": [float(x) for x in losses.read_text().split()]})
    return answers


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("lightning_fabric", "timm", "dermlab.commands.finetune", *sys.argv[2:]):
        importlib.import_module(name)
    jobs = Path(sys.argv[1])
    answers = [run(job, jobs.parent) for job in json.loads(jobs.read_text())]
    jobs.with_suffix(".answers").write_text(json.dumps(answers))
