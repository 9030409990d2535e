"""The byte-level BPE tokenizer of the demo model, and token streams."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from make_text import END_OF_TEXT

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
}


def train_tokenizer(text: str, vocab_size: int) -> Tokenizer:
    """A byte-level BPE in the manner of GPT-2; the end-of-text token has id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(text.split(END_OF_TEXT), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    """Write tokenizer.json and the two files that go with it."""
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {key: END_OF_TEXT for key in ("bos_token", "eos_token", "pad_token")}
    for name, content in (("tokenizer_config.json", TOKENIZER_CONFIG), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The tokens of a whole text file, document by document."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    documents = text.split(END_OF_TEXT)[1:]
    stream: list[int] = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        stream.append(end)
        stream.extend(encoding.ids)
    return np.asarray(stream, dtype=np.int64)


def windows(stream: np.ndarray, length: int) -> np.ndarray:
    """Consecutive windows of equal length; a shorter rest is left out."""
    count = len(stream) // length
    return stream[: count * length].reshape(count, length)
