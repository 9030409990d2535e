"""Compares a directory that CheckpointWriter wrote with what it was given, read by the safetensors package.

The test CheckpointWriterTest.ThePythonPackageReadsWhatIsWritten writes it and runs this with the Python of
SALIENT_TEST_PYTHON:   python check_written.py DIRECTORY
Byte i of every tensor is 7 i modulo 256; the name ends in the type.
"""

import pathlib
import sys

import torch
from safetensors import safe_open

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
seen = set()
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors")):
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}, file.metadata()
        for name in file.keys():
            dtype = name.split()[-1]
            assert file.get_slice(name).get_dtype() == dtype, name
            tensor = file.get_tensor(name)
            assert list(tensor.shape) == [3, 5], (name, tensor.shape)
            data = tensor.contiguous().flatten().view(torch.uint8) if dtype != "BOOL" else tensor.flatten().to(torch.uint8)
            expected = torch.arange(15 * BYTES[dtype]) * 7 % 256
            assert data.tolist() == (expected if dtype != "BOOL" else expected % 2).tolist(), name
            seen.add(dtype)
assert seen == set(BYTES), seen
print("equal")
