"""Arguments of all from_pretrained and from_quantized that say how to load: what becomes of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from salient import _core
from salient._arguments import reject_unknown, unknown_argument, warn_user
from salient._devices import device_of, is_accelerator, runs_on_gpu
from salient._hub import DOWNLOAD_OPTIONS, find_model

_PROCESSOR: Final = "the kernels are those of the processor"
_OWN: Final = "the kernels are Salient's own"
# AutoAWQ's arguments that ask for kernels of a GPU, and what those are called.
_KERNELS: Final = {"use_exllama": "exllama", "use_exllama_v2": "exllamav2", "use_marlin": "marlin"}


class Running(TypedDict, total=False):
    """How a model is run; what is not said is as `salient.load` has it."""

    device: str
    activations: str
    lm_head: str
    packed_weights: str | os.PathLike[str] | None
    fuse_layers: bool
    kv_cache_dtype: str
    kernel: str


class Place(TypedDict):
    """The part of it that says where."""

    device: str
    kernel: str


def checked_running(where: str, running: Running) -> dict[str, Any]:
    """As _core.Model takes it. Errors: TypeError for an unknown option or a value of another type; ValueError for
    a value that is not known."""
    reject_unknown(where, running, Running.__annotations__)
    given: dict[str, Any] = {name: value for name, value in running.items() if value is not None}
    _core.check_running(**given)
    return given


@dataclass(frozen=True)
class Unused:
    """An argument without effect. `warns`: whether a value that is true asks for what will not be used."""

    reason: str
    warns: bool = False


UNUSED: Final[Mapping[str, Unused]] = {
    "trust_remote_code": Unused("no code of a checkpoint is ever run"),
    "low_cpu_mem_usage": Unused("weights are mapped from their files, layer by layer"),
    "use_cache": Unused("calibration keeps no cache, generation always does"),
    "offload_folder": Unused("weights stay in their files until a layer is at work"),
    "offload_state_dict": Unused("weights stay in their files until a layer is at work"),
    "offload_buffers": Unused("weights stay in their files until a layer is at work"),
    "use_safetensors": Unused("Salient reads safetensors only"),
    "tp_plan": Unused("there is one device"),
    "use_kernels": Unused(_OWN),
    "batch_size": Unused("caches grow with what they hold; none is reserved for a batch"),
    "attn_implementation": Unused(_OWN),
    "use_flash_attention_2": Unused(_OWN, warns=True),
    "use_exllama": Unused(_PROCESSOR, warns=True),
    "use_exllama_v2": Unused(_PROCESSOR, warns=True),
    "use_marlin": Unused(_PROCESSOR, warns=True),
    "use_ipex": Unused(_OWN, warns=True),
    "use_qbits": Unused(_OWN, warns=True),
    "resume_download": Unused("downloads resume by themselves"),
    "ignore_patterns": Unused("only what a model needs is fetched"),
    "allow_patterns": Unused("only what a model needs is fetched"),
    "max_workers": Unused("the hub's own number is used"),
    "proxies": Unused("the environment's HTTPS_PROXY is used", warns=True),
    "n_parallel_calib_samples": Unused("calibration takes the memory of one layer, in chunks of its own"),
    "max_chunk_memory": Unused("calibration takes the memory of one layer, in chunks of its own"),
}

DOWNLOAD: Final = (*sorted(DOWNLOAD_OPTIONS), "use_auth_token")
# Of dtypes: those that models are stored and computed in.
_FLOATS: Final = ("float16", "bfloat16", "float32")


def located(
    where: str,
    path: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    known: Iterable[str],
) -> str:
    """The directory of a model that is asked for by a path or an id of the hub with the keywords `options`; `known` are
    the other arguments of the function `where`.

    Raises:
        FileNotFoundError: there is no such model.
        TypeError, NotImplementedError: those of `take_extras`.
    """
    return find_model(path, **take_extras(where, options, known))


def placed(where: str, options: MutableMapping[str, Any], device_map: object, kernel: str) -> Place:
    """On which device and with which kernels a model is to run. Arguments of AutoAWQ that name kernels are taken from
    `options`; `kernel` counts more. They warn unless a GPU will run the model.

    Raises:
        ValueError: device_map names no device.
    """
    device = device_of(where, device_map)
    asked = {name: options.pop(name) for name in _KERNELS if name in options}
    if not runs_on_gpu(device):
        note_unused(where, asked)
    if kernel == "auto":
        kernel = next((_KERNELS[name] for name, value in asked.items() if value), kernel)
    return {"device": device, "kernel": kernel}


def note_unused(where: str, options: Mapping[str, Any]) -> None:
    """Warns of those arguments that ask for something that is not used."""
    for name, value in options.items():
        unused = UNUSED[name]
        if unused.warns and value:
            warn_user(f"{where}: {name}={value!r} has no effect: {unused.reason}")


def take_extras(where: str, extras: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Sorts out the keywords behind the named ones; the options of the download are left over, by today's names.

    Raises:
        TypeError: an argument is not known.
        NotImplementedError: subfolder.
    """
    download = {"token" if name == "use_auth_token" else name: extras[name] for name in extras if name in DOWNLOAD}
    others = {name: value for name, value in extras.items() if name not in DOWNLOAD}
    if others.pop("subfolder", None):
        raise NotImplementedError(f"{where}: subfolder {extras['subfolder']!r}: fetch the model and pass its directory")
    for name in others:
        if name not in UNUSED:
            raise unknown_argument(where, name, [*known, *UNUSED, *DOWNLOAD])
    note_unused(where, others)
    return download


def check_dtype(where: str, dtype: object, fitting: Collection[str]) -> None:
    """Takes a type of floating point, as str or as object of torch or NumPy; a warning unless it is "auto" or one of
    the `fitting`, which agree with what is done.

    Raises:
        NotImplementedError: another type.
    """
    name = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
    if dtype is None or name == "auto" or name in fitting:
        return
    if name not in _FLOATS:
        raise NotImplementedError(f"{where}: torch_dtype {name} is not supported; {', '.join(_FLOATS)} are")
    warn_user(f"{where}: torch_dtype {name} has no effect: weights stay as they are stored, sums are float32")


def stored_dtype(config: Mapping[str, Any]) -> str:
    """The type that a config.json names, "auto" without one."""
    return str(config.get("dtype") or config.get("torch_dtype") or "auto").removeprefix("torch.")


def bytes_of(where: str, size: object) -> int:
    """Bytes of 24000000000, "24GB" or "512MiB".

    Raises:
        ValueError: it is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    if not isinstance(size, str):
        raise ValueError(f"{where}: {size!r} is no size; write bytes or a text like '24GB'")
    return _core.parse_byte_size(size.replace(" ", ""))


def checkpoint_bytes(directory: str) -> int:
    """What the weights of a model directory take."""
    files = (entry for entry in os.scandir(directory) if entry.name.endswith(".safetensors"))
    return sum(entry.stat().st_size for entry in files)


def check_memory(where: str, directory: str, max_memory: Mapping[int | str, int | str] | None) -> None:
    """Holds the size of the weights against the entry "cpu"; the entries of other devices are only read.

    Raises:
        ValueError: an entry is no size or no device.
        MemoryError: the weights are larger than what the processor may have.
    """
    limits = {}
    for device, size in (max_memory or {}).items():
        name = str(device)
        if name not in ("cpu", "disk") and not is_accelerator(name):
            raise ValueError(f"{where}: max_memory names {name!r}, which is no device")
        limits[name] = bytes_of(f"{where}: max_memory[{device!r}]", size)
    needed = checkpoint_bytes(directory)
    if needed > limits.get("cpu", needed):
        raise MemoryError(
            f"{where}: the weights in {directory} take {needed} bytes, max_memory allows the processor {limits['cpu']}"
        )


def check_filename(where: str, directory: str, filename: str) -> None:
    """A model is loaded from all of its files; one may be named where it is the only one.

    Raises:
        FileNotFoundError: no such file.
        NotImplementedError: there are others beside it.
    """
    if not filename:
        return
    if not os.path.exists(os.path.join(directory, filename)):
        raise FileNotFoundError(f"{where}: quant_filename {filename!r} is not in {directory}")
    files = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(".safetensors"))
    if files != [filename]:
        raise NotImplementedError(
            f"{where}: quant_filename {filename!r} is one of the files {', '.join(files)}; "
            "Salient reads all safetensors of a directory"
        )
