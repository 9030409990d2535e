"""Calibration data of oneshot: from what the user names to sequences of token ids."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from salient._arguments import warn_user
from salient._data import calibration_sequences
from salient._hub import find_model
from salient._ids import Ids
from salient._masks import count, marked, split
from salient._mixture import draw_self, is_self, mixed, mixture_of
from salient._oneshot_arguments import one_of, split_of
from salient._values import context_length, token_limit
from salient.model import CausalLM
from salient.tokenizer import as_tokenizer

_LENGTH_WITHOUT_LIMIT = 2048
# Names by which llm-compressor says "the file at dataset_path".
_OF_A_PATH = (None, "custom", "json", "csv", "text")


def check_data_arguments(given: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """What can be wrong with them before any data is fetched."""
    split_of(given["splits"])
    tokenizer_of(given)
    _check_collator(given["data_collator"])
    _check_share(given)
    data, needs_data = data_of(given), said["needs_data"]
    if needs_data and given["pipeline"] == "datafree":
        raise ValueError('oneshot: pipeline="datafree" excludes AWQ: leave it out, or the AWQModifier')
    if mixture_of(data, given["text_column"]) and given["num_calibration_samples"] is None:
        raise ValueError("oneshot: num_calibration_samples=None: a mixture needs a number to divide by its weights")
    if needs_data and data is None and not said["names_data"]:
        raise ValueError(
            "oneshot: AWQ needs calibration data: name a dataset (a .txt or .jsonl file, texts, ids, a data set, or "
            '"self" for text that the model makes up), or leave the AWQModifier out'
        )


def calibration_job(given: Mapping[str, Any], handle: CausalLM, said: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of _core.oneshot that say what to calibrate on."""
    if data_of(given) is None:  # the recipe names it, and _core reads what recipes name
        if given["min_tokens_per_module"] is not None:
            raise ValueError(
                "oneshot: min_tokens_per_module is a share of a dataset=..., but the recipe names the data"
            )
        numbers_given = {"num_samples": given["num_calibration_samples"], "max_seq_length": given["max_seq_length"]}
        return {**numbers_given, "seed": given["seed"]}
    tokenizer = as_tokenizer(tokenizer_of(given), tokenizer_directory(given, handle))
    length = sequence_length(given["max_seq_length"], handle.config, tokenizer)
    marked_sequences = collated(_sequences(given, handle, tokenizer, length), given)
    sequences, masks = split(marked_sequences)
    return {
        "sequences": sequences,
        "masks": masks,
        "num_samples": len(sequences),
        "max_seq_length": length,
        "min_tokens_per_expert": min_tokens_per_expert(given, marked_sequences),
    }


def data_of(given: Mapping[str, Any]) -> Any:
    """What to calibrate on, None for nothing. ValueError: two things at once."""
    dataset, path = given["dataset"], given["dataset_path"]
    if path is None:
        return dataset
    if not (dataset is None or isinstance(dataset, str)) or dataset not in _OF_A_PATH:
        raise ValueError("oneshot: dataset and dataset_path both name calibration data; give one of them")
    return path


def tokenizer_of(given: Mapping[str, Any]) -> Any:
    """The tokenizer that the user names; of a processor its tokenizer."""
    chosen = one_of(given, "tokenizer", "processor")
    return getattr(chosen, "tokenizer", chosen)


def has_tokenizer(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, "tokenizer.json"))


def tokenizer_directory(given: Mapping[str, Any], handle: CausalLM) -> str:
    """Where the model's own tokenizer is: beside its weights, else where a model from memory came from.

    Errors: ValueError when it is needed and not there.
    """
    if tokenizer_of(given) is not None or has_tokenizer(handle.directory):
        return handle.directory
    try:
        directory = find_model(handle.name_or_path, weights=False)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"oneshot: the model comes without a tokenizer; pass tokenizer=... ({error})") from error
    return directory


def sequence_length(wanted: int | None, config: Mapping[str, Any], tokenizer: object) -> int:
    """Tokens per sequence at most: as wanted, but no more than the model takes."""
    limits = (context_length(config), token_limit(tokenizer))
    limit = min((int(each) for each in limits if each), default=None)
    if wanted is None:
        return min(limit or _LENGTH_WITHOUT_LIMIT, 1 << 20)
    if limit is not None and wanted > limit:
        warn_user(f"oneshot: max_seq_length={wanted}, but the model takes {limit} tokens")
    return min(wanted, limit or wanted)


def _sequences(given: Mapping[str, Any], handle: CausalLM, tokenizer: Any, length: int) -> list[Ids]:
    data, samples = data_of(given), given["num_calibration_samples"]

    def read(part: Mapping[str, Any], index: int, most: int | None) -> list[Ids]:
        return _read_part(part, {**given, "seed": given["seed"] + index}, handle, tokenizer, length, most)

    parts = mixture_of(data, given["text_column"])
    if parts is None:
        return read({"data": data}, 0, samples)
    assert samples is not None  # see check_data_arguments
    return mixed(parts, samples, read)


def _read_part(
    part: Mapping[str, Any], given: Mapping[str, Any], handle: CausalLM, tokenizer: Any, length: int, most: int | None
) -> list[Ids]:
    """At most so many sequences of one data set, which may say itself where to look in it."""
    if is_self(part["data"]):
        if most is None:
            raise ValueError('oneshot: num_calibration_samples=None: dataset="self" has no end; give a number')
        return draw_self(
            handle.directory, num_samples=most, max_seq_length=length, seed=given["seed"], progress=given["progress"]
        )
    return calibration_sequences(
        part["data"],
        tokenizer=tokenizer,
        max_seq_length=length,
        num_samples=most,
        text_column=part.get("text_column") or given["text_column"],
        split=part.get("split") or split_of(given["splits"]),
        config_name=part.get("config_name") or given["dataset_config_name"],
        shuffle_seed=given["seed"] if given["shuffle_calibration_samples"] else None,
        concatenate=given["concatenate_data"],
        preprocess=given["preprocessing_func"],
        streaming=given["streaming"],
        load_options=given["raw_kwargs"],
        use_loss_mask=given["use_loss_mask"],
    )


# ---- batches


def collated(sequences: Sequence[Ids], given: Mapping[str, Any]) -> list[Ids]:
    """The sequences as the data collator leaves them: "truncation" cuts those of a batch to the shortest of them."""
    collator, size = given["data_collator"], given["batch_size"]
    if collator == "padding":
        return list(sequences)
    batches = [sequences[start : start + size] for start in range(0, len(sequences), size)]
    collate = _by_function(collator) if callable(collator) else _to_the_shortest
    return [row for batch in batches for row in collate(batch)]


def _check_collator(collator: object) -> None:
    if collator not in ("truncation", "padding") and not callable(collator):
        raise ValueError(f'oneshot: data_collator={collator!r} is neither "truncation", "padding" nor a function')


def _to_the_shortest(batch: Sequence[Ids]) -> list[Ids]:
    shortest = min(len(row) for row in batch)
    return [row[:shortest] for row in batch]


def _by_function(collator: Callable[..., Any]) -> Callable[[Sequence[Ids]], list[Ids]]:
    def collate(batch: Sequence[Ids]) -> list[Ids]:
        plain, masks = split(batch)
        examples = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in plain]
        for example, mask in zip(examples, masks or (), strict=False):
            example["token_mask"] = mask.tolist()
        made = collator(examples)
        if masks is not None and "token_mask" not in made:
            raise ValueError("oneshot: data_collator loses the token_mask of its examples")
        rows = np.atleast_2d(np.asarray(made["input_ids"]))
        seen = np.atleast_2d(np.asarray(made.get("attention_mask", np.ones_like(rows)))).astype(bool)
        counts = np.atleast_2d(np.asarray(made.get("token_mask", np.ones_like(rows))))
        signed = (np.asarray(marked(row.tolist(), own.tolist()), np.int32) for row, own in zip(rows, counts))
        return [np.ascontiguousarray(row[kept]) for row, kept in zip(signed, seen)]

    return collate


def _check_share(given: Mapping[str, Any]) -> None:
    share = given["min_tokens_per_module"]
    if share is None:
        return
    if not isinstance(share, numbers.Real) or isinstance(share, bool) or not 0 <= float(share) <= 1:
        raise ValueError(f"oneshot: min_tokens_per_module={share!r} is no share of the tokens, from 0 to 1")
    if given["moe_calibrate_all_experts"] is not False:
        why = "with moe_calibrate_all_experts every expert sees all tokens"
        warn_user(f"oneshot: min_tokens_per_module={share!r} has no effect: {why}")


def min_tokens_per_expert(given: Mapping[str, Any], sequences: Sequence[Ids]) -> int | None:
    """min_tokens_per_module, a share, as a number of tokens, where experts see only what is routed to them."""
    share = given["min_tokens_per_module"]
    if share is None or given["moe_calibrate_all_experts"] is not False:
        return None
    return max(1, int(math.ceil(float(share) * count(sequences))))
