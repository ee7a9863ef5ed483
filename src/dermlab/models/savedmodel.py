"""Derm Foundation and other SavedModels: TensorFlow runs in a process of its own and is never imported in ours."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from dermlab.core.errors import DermlabError, InputError, MissingExtraError
from dermlab.core.progress import note
from dermlab.core.words import duration
from dermlab.models.encoders import EncoderIdentity
from dermlab.models.preprocess import Preprocess
from dermlab.models.remote import png

PYTHON_VARIABLE = "DERMLAB_TENSORFLOW_PYTHON"
DIM = 6144
SIZE_PX = 448
N_TIMED = 2
CARD = "derm-foundation"


class SavedModel:
    """A SavedModel with Derm Foundation's signature, on the CPU.

    The signature is that of its publisher's notebook (Google-Health/derm-foundation,
    notebooks/quick_start_with_hugging_face.ipynb): ``serving_default`` takes ``inputs``, a serialised tf.train.Example
    whose ``image/encoded`` is a PNG file, and gives ``embedding``. The notebook gives a photo of any size.

    Its publisher lowered it for the CPU alone: with a GPU in sight it ends with "The current platform CUDA is not
    among the platforms required by the module: [CPU]". Hence the GPUs are hidden from it. Photos are squashed to
    448 px, which is what it is given; how the model itself fits other sizes is not said.
    """

    def __init__(self, folder: Path, name: str, *, size_px: int | None = None, fit: str | None = None) -> None:
        """Look at the files; the process is started when the first photo comes."""
        self.folder, self.name, self.batch_size = folder, name, 8
        self.platforms = lowered_for(folder / "saved_model.pb")
        self._python = _python(name)
        self._process: subprocess.Popen[bytes] | None = None
        preprocess = Preprocess(size_px or SIZE_PX, fit=fit or "squash", interpolation="bilinear")
        self.identity = EncoderIdentity(
            name=name,
            library="savedmodel",
            architecture="Derm Foundation's signature",
            arguments={},
            dim=DIM,
            n_parameters=0,
            has_tokens=False,
            preprocess=preprocess,
            fingerprint=_content(folder),
            licence_card=CARD,
            lineage=(CARD,),
        )

    def announce(self, n_images: int) -> None:
        """Time a few grey squares and say what ``n_images`` will take, before the first of them."""
        side = self.identity.preprocess.size_px
        grey = np.full((1, side, side, 3), 128, np.uint8)
        self.embed(grey)  # the first one compiles
        start = time.perf_counter()
        for _ in range(N_TIMED):
            self.embed(grey)
        each = (time.perf_counter() - start) / N_TIMED
        where = f"lowered for {', '.join(self.platforms)} only; " if self.platforms else ""
        whole = duration(each * n_images)
        note(f"{self.name}: {where}{each:.2f} s a photo on the CPU, {n_images:,} photos about {whole}")

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the vectors (B, 6144) float32 of photos (B, H, W, 3) uint8.

        Raises:
            DermlabError: TensorFlow cannot load the model, fails on a photo, or its process ended.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        files = [png(image) for image in images]
        try:
            process.stdin.write(struct.pack("<I", len(files)))
            for file in files:
                process.stdin.write(struct.pack("<I", len(file)) + file)
            process.stdin.flush()
        except BrokenPipeError:
            raise DermlabError(f"{self.name}: its process ended (is there enough memory?)") from None
        answer = self._answer(process)
        values = process.stdout.read(answer["bytes"])
        vectors = np.frombuffer(values, np.float32).reshape(len(images), -1)
        if vectors.shape[1] != self.identity.dim or not np.isfinite(vectors).all():
            raise DermlabError(f"{self.name}: gave {vectors.shape[1]} numbers a photo, not {DIM} finite ones")
        return vectors

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            worker = Path(__file__).with_name("savedmodel_worker.py")
            self._process = subprocess.Popen(
                [self._python, str(worker), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            weakref.finalize(self, _end, self._process)
            self._answer(self._process)
        return self._process

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise DermlabError(f"{self.name}: its process ended (is there enough memory?)")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DermlabError(f"{self.name}: TensorFlow says {answer['error']}")
        return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _python(name: str) -> str:
    """Return the Python that has TensorFlow: the one that is named, else ours."""
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{PYTHON_VARIABLE}: no such file: {named}")
        return named
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError(
            f"encoder {name!r} (or another Python that has it, named in {PYTHON_VARIABLE})", "tensorflow-cpu"
        )
    return sys.executable


def _content(folder: Path) -> str:
    digest = xxhash.xxh3_128()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def lowered_for(path: Path) -> tuple[str, ...]:
    """Return the platforms that a SavedModel's exported program was lowered for; empty where it says none.

    jax2tf writes them into the attribute ``platforms`` of the operation XlaCallModule: in the file a map entry (key,
    then an AttrValue whose list holds strings), which is read without TensorFlow.
    """
    data = path.read_bytes()
    key = b"\x0a\x09platforms\x12"
    at = data.find(key)
    if at < 0 or b"XlaCallModule" not in data:
        return ()
    at += len(key)
    end = at + 1 + data[at]  # AttrValue, then its list; both shorter than 128 bytes
    at += 3
    found = []
    while at + 1 < end and data[at] == 0x12:
        length = data[at + 1]
        found.append(data[at + 2 : at + 2 + length].decode("ascii", "replace"))
        at += 2 + length
    return tuple(found)
