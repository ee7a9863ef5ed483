"""Derm Foundation's process: what goes in and comes out, with a stand-in for TensorFlow on the other side."""

import os
import sys
import textwrap

import numpy as np
import pytest

from dermlab.core.errors import DermlabError, MissingExtraError
from dermlab.models.remote import open_service
from dermlab.models.savedmodel import lowered_for

PLATFORMS = b"\x12\x0dXlaCallModule*\x18\x0a\x09platforms\x12\x09\x0a\x07\x12\x03CPU\x28\x01"
# What the worker needs of TensorFlow: a model that answers a photo's mean, 6144 times.
STAND_IN = """
    import io, types
    import numpy as np
    from PIL import Image
    __version__ = "stand-in"
    def Feature(bytes_list): return bytes_list
    def BytesList(value): return value[0]
    def Features(feature): return feature
    class Example:
        def __init__(self, features): self.features = features
        def SerializeToString(self): return self.features["image/encoded"]
    train = types.SimpleNamespace(Feature=Feature, BytesList=BytesList, Features=Features, Example=Example)
    constant = list
    class Tensor(np.ndarray):
        def numpy(self): return np.asarray(self)
    def infer(inputs):
        print("noise on standard output")
        pixels = np.asarray(Image.open(io.BytesIO(inputs[0])))
        if pixels.max() == 0: raise ValueError("a black photo")
        return {"embedding": np.full((1, 6144), pixels.mean()).view(Tensor)}
    def load(folder):
        if "broken" in folder: raise RuntimeError("The current platform CUDA is not among the platforms required")
        return types.SimpleNamespace(signatures={"serving_default": infer})
    saved_model = types.SimpleNamespace(load=load)
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    def make(name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"head" + PLATFORMS + b"tail")
        return f"savedmodel:{folder}"

    (tmp_path / "tensorflow.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DERMLAB_TENSORFLOW_PYTHON", sys.executable)
    return make


def test_a_model_lowered_for_the_cpu_is_told_from_its_file(tmp_path):
    path = tmp_path / "saved_model.pb"
    path.write_bytes(b"head" + PLATFORMS + b"tail")
    assert lowered_for(path) == ("CPU",)
    path.write_bytes(b"XlaCallModule \x0a\x09platforms\x12\x0f\x0a\x0d\x12\x03CPU\x12\x06CUDA12tail")
    assert lowered_for(path) == ("CPU", "CUDA12")
    path.write_bytes(b"an ordinary graph")
    assert lowered_for(path) == ()


def test_photos_go_into_the_process_and_vectors_come_out(model, capsys):
    service = open_service(model("derm"))
    photos = np.random.default_rng(0).integers(1, 256, (3, 448, 448, 3), dtype=np.uint8)
    vectors = service.embed(photos)
    assert vectors.shape == (3, 6144)
    np.testing.assert_allclose(vectors[:, 0], photos.reshape(3, -1).mean(1), rtol=1e-5)
    service.announce(10_000)
    told = " ".join(capsys.readouterr().err.split())
    assert "lowered for CPU only" in told
    assert "10,000 photos about" in told
    with pytest.raises(DermlabError, match="TensorFlow says ValueError: a black photo"):
        service.embed(np.zeros((1, 448, 448, 3), np.uint8))
    assert service.embed(photos[:1]).shape == (1, 6144)  # one bad photo does not end the process
    assert "tensorflow" not in sys.modules


def test_what_tensorflow_cannot_load_is_one_line(model):
    with pytest.raises(DermlabError, match="CUDA is not among the platforms"):
        open_service(model("broken")).embed(np.ones((1, 8, 8, 3), np.uint8))


def test_without_tensorflow_it_says_what_to_install(model, monkeypatch):
    monkeypatch.delenv("DERMLAB_TENSORFLOW_PYTHON")
    with pytest.raises(MissingExtraError, match="pip install tensorflow-cpu"):
        open_service(model("derm"))


@pytest.mark.skipif("DERMLAB_TENSORFLOW_PYTHON" not in os.environ, reason="no Python with TensorFlow was named")
def test_the_real_tensorflow_runs_a_small_model_of_the_same_signature(tmp_path):
    import subprocess

    script = f"""
        import tensorflow as tf
        class Small(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
            def embed(self, inputs):
                spec = {{"image/encoded": tf.io.FixedLenFeature([], tf.string)}}
                image = tf.io.decode_png(tf.io.parse_single_example(inputs[0], spec)["image/encoded"], channels=3)
                return {{"embedding": tf.fill([1, 6144], tf.reduce_mean(tf.cast(image, tf.float32)))}}
        model = Small()
        tf.saved_model.save(model, {str(tmp_path / "small")!r}, signatures={{"serving_default": model.embed}})
    """
    python = os.environ["DERMLAB_TENSORFLOW_PYTHON"]
    subprocess.run([python, "-c", textwrap.dedent(script)], check=True, capture_output=True)
    photos = np.random.default_rng(0).integers(1, 256, (2, 32, 32, 3), dtype=np.uint8)
    vectors = open_service(f"savedmodel:{tmp_path / 'small'}").embed(photos)
    np.testing.assert_allclose(vectors[:, 5], photos.reshape(2, -1).mean(1), rtol=1e-4)
