"""Runs a TensorFlow SavedModel for dermlab, in a process of its own: PNG files in, vectors out.

This file imports nothing of dermlab, so that it runs in any Python that has TensorFlow. Through standard input come
frames: four bytes with the number of PNG files, then each with its length before it. Through standard output go a line
of JSON when the model is there, and for each frame a line of JSON followed by float32 values.
"""

import json
import os
import struct
import sys
from typing import Any, BinaryIO


def main(folder: str) -> None:
    """Load the SavedModel and answer frames until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # TensorFlow writes where it likes; only answers may go to the caller
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf

        model = tf.saved_model.load(folder)
        infer = model.signatures["serving_default"]
    except Exception as error:  # whatever it is, the caller has to hear of it
        _answer(out, {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
        return
    _answer(out, {"ready": True, "tensorflow": tf.__version__})
    while (head := sys.stdin.buffer.read(4)) and len(head) == 4:
        photos = [_read() for _ in range(struct.unpack("<I", head)[0])]
        try:
            vectors = [_embed(tf, infer, photo) for photo in photos]
        except Exception as error:
            _answer(out, {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
            continue
        values = b"".join(vector.tobytes() for vector in vectors)
        _answer(out, {"dim": len(vectors[0]), "bytes": len(values)}, values)


def _embed(tf: Any, infer: Any, photo: bytes) -> Any:
    """Return one vector: the model takes a serialised Example whose image/encoded is the PNG file."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo]))
    example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
    return infer(inputs=tf.constant([example.SerializeToString()]))["embedding"].numpy().reshape(-1).astype("float32")


def _read() -> bytes:
    return sys.stdin.buffer.read(struct.unpack("<I", sys.stdin.buffer.read(4))[0])


def _answer(out: BinaryIO, header: dict[str, Any], values: bytes = b"") -> None:
    out.write(json.dumps(header).encode() + b"\n" + values)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
