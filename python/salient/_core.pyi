"""
What of Salient is written in C++: see the package salient for the parts meant for users.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import numpy.typing


class Tensor:
    """
    An array as a checkpoint stores it. numpy.asarray(tensor) and torch.from_dlpack(tensor) take it without a copy, but for bfloat16 in NumPy, which becomes float32.
    """

    @property
    def dtype(self) -> str:
        """
        Type of the elements by torch's name: "float32", "bfloat16", "int32", ...
        """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def numpy(self) -> numpy.typing.NDArray[Any]:
        """A view of the memory; bfloat16, which NumPy lacks, as a float32 copy."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.typing.NDArray[Any]: ...

    def __dlpack__(self, **kwargs: Any) -> object: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...

    def __repr__(self) -> str: ...

class Tokenizer:
    """Text to token ids and back, as a tokenizer.json describes it."""

    @staticmethod
    def from_directory(path: str) -> Tokenizer: ...

    @staticmethod
    def from_json(text: str, source: str) -> Tokenizer:
        """From the content of a tokenizer.json; `source` leads every message."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """The ids of each text; several threads share the texts."""

    def decode(self, ids: numpy.typing.NDArray[numpy.int32], skip_special_tokens: bool = False) -> str: ...

    def token_to_id(self, token: str) -> int | None: ...

    def id_to_token(self, id: int) -> str: ...

    def is_special(self, id: int) -> bool: ...

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""

class TextStream:
    """Ids one by one into text, as soon as whole characters are there."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None: ...

    def push(self, id: int) -> str:
        """The text that is complete now; often empty."""

    def finish(self) -> str:
        """What is left; the next push begins a new text."""

class Model:
    """A model directory, dense or quantized, loaded."""

    def __init__(self, path: str, device: str = 'auto') -> None: ...

    @property
    def device(self) -> str:
        """What computes: "cpu, avx512, 8 threads"."""

    def info(self) -> str:
        """
        JSON: what inspect says, begin and end tokens and the length of the context.
        """

    def logits(self, ids: numpy.typing.NDArray[numpy.int32], last: int = 0) -> numpy.typing.NDArray[numpy.float32]:
        """
        Logits [tokens, vocab] of the token after each position; with `last` above 0 only of the last so many positions.
        """

    def score(self, ids: numpy.typing.NDArray[numpy.int32], first: int) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.bool_]]:
        """
        Log-probability (nats) of each of ids[first:] given all before it, and whether no token was likelier.
        """

    def generate(self, ids: numpy.typing.NDArray[numpy.int32], *, max_new_tokens: int = 256, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: int = 0, stop_token_ids: Sequence[int] = (), on_token: Callable[[int], bool] | None = None) -> dict[str, Any]:
        """
        Continues a prompt. `on_token` sees each new token; False ends the text. Returns tokens (int32, without prompt and stop token), finish_reason, stop_token and the speeds.
        """

def oneshot(*, model: str, recipe: str, recipe_source: str, format: str | None = None, dataset: str = '', text_column: str = 'text', sequences: Sequence[numpy.typing.NDArray[numpy.int32]] | None = None, num_samples: int | None = None, max_seq_length: int | None = None, propagate_error: bool | None = None, calibrate_all_experts: bool | None = None, min_tokens_per_expert: int | None = None, apply_clip: bool | None = None, duo_scaling: bool | str | None = None, scaled_only: bool = False, output: str, shard_size: int = 5000000000, overwrite: bool = False, progress: Callable[[int, int, float, float], None] | None = None) -> str:
    """
    Quantizes a model directory into another; the report as JSON. `recipe` is the text of a recipe, JSON where `recipe_source` ends in .json, else YAML. `progress(layers_done, layers, elapsed, left)`.
    """

def plan(*, model: str, recipe: str, recipe_source: str, format: str | None = None, dataset: str = '', text_column: str = 'text', sequences: Sequence[numpy.typing.NDArray[numpy.int32]] | None = None, num_samples: int | None = None, max_seq_length: int | None = None, propagate_error: bool | None = None, calibrate_all_experts: bool | None = None, min_tokens_per_expert: int | None = None, apply_clip: bool | None = None, duo_scaling: bool | str | None = None, scaled_only: bool = False) -> str:
    """What oneshot would do, as JSON."""

def normalize_recipe(text: str, source: str) -> None:
    """Raises what is wrong with a recipe."""

def reshard(source: str, target: str, shard_size: int, overwrite: bool) -> None:
    """
    Copies a model directory with shards of another size; it appears whole or not at all.
    """

def parse_byte_size(text: str) -> int:
    """Bytes of "5GB", "512MiB", "1500000"."""

def inspect(path: str) -> str:
    """What a model directory holds, as JSON."""

def measure(model: str, windows: Sequence[numpy.typing.NDArray[numpy.int32]], against: str = '', progress: Callable[[int, int], None] | None = None) -> str:
    """
    Perplexity over windows of ids, and how far from the model `against`, as JSON. `progress(step, steps)`.
    """

def read_windows(tokenizer: Tokenizer, path: str, text_column: str = 'text', window: int = 512, maximum: int | None = None) -> list[numpy.typing.NDArray[numpy.int32]]:
    """
    The documents of a .txt or .jsonl file joined and cut into windows of `window` tokens.
    """

def read_texts(path: str, text_column: str = 'text') -> list[str]:
    """The documents of a .txt or .jsonl file."""

class QuantizedWeight:
    """
    A matrix as integers: weight[n, k] = (codes[n, k] - zeros[n, g]) * scales[n, g] for column k of group g = k // group_size.
    """

    @property
    def codes(self) -> numpy.typing.NDArray[numpy.uint8]:
        """uint8 [out, in], a copy."""

    @property
    def scales(self) -> Tensor:
        """[out, groups], in the type in which checkpoints store them."""

    @property
    def zeros(self) -> numpy.typing.NDArray[numpy.uint8] | None:
        """
        uint8 [out, groups]; None when symmetric, where it is 2^(num_bits - 1).
        """

    @property
    def num_bits(self) -> int: ...

    @property
    def symmetric(self) -> bool: ...

    @property
    def group_size(self) -> int:
        """Columns that share a scale; -1 a whole row, 0 the whole matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def dequantize(self) -> numpy.typing.NDArray[numpy.float32]:
        """float32 [out, in]."""

    def __repr__(self) -> str: ...

def quantize_weight(weight: object, args: str, scale_dtype: str = 'bfloat16', clip: object | None = None) -> QuantizedWeight:
    """
    Rounds [out, in] to nearest; `args` are QuantizationArgs as JSON, `clip` [out, groups] bounds |weight|.
    """

def pack(weight: QuantizedWeight, format: str) -> dict[str, Tensor]:
    """
    The tensors that a file of the format holds for one linear, by the ends of their names.
    """

def unpack(tensors: dict[str, Any], format: str, args: str) -> QuantizedWeight:
    """The inverse of pack."""

def set_num_threads(count: int) -> None:
    """How many threads all work uses from now on (at least 1)."""

def get_num_threads() -> int:
    """
    How many threads work uses: SALIENT_THREADS, else the processors that this process may run on.
    """
