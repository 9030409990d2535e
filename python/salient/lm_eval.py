"""Salient models in lm-evaluation-harness: the model `salient` of lm_eval.

Importing this module registers the model; the harness has no other way to learn of models outside itself:

    import lm_eval
    import salient.lm_eval

    lm_eval.simple_evaluate(model="salient", model_args="pretrained=DIRECTORY", tasks=["arc_easy"])

`python -m salient.lm_eval` is the harness's own command line with the model registered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

try:
    import lm_eval.models  # noqa: F401  the registry takes up lm_eval's own models only while it is empty: they go first
except ImportError as error:
    raise ImportError("salient.lm_eval needs lm-evaluation-harness: pip install lm_eval") from error
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import model_registry
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from salient._arguments import unknown_argument, warn_user
from salient._ids import Ids
from salient._values import check_positive, context_length
from salient.model import CausalLM, load, model_handle
from salient.tokenizer import AutoTokenizer

__all__ = ["SalientLM"]

LogLikelihood = tuple[float, bool]

_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {  # arguments of the model `hf`, and the values that ask for nothing
    "backend": ("default", "causal"),
    "dtype": ("auto", "float32"),
    "logits_cache": (True,),
    "low_cpu_mem_usage": (True, False),
    "max_batch_size": (),
    "offload_folder": (),
    "parallelize": (False,),
    "trust_remote_code": (False,),
    "use_fast_tokenizer": (True,),
}
_UNSUPPORTED = {
    "autogptq": "GPTQ models are not read",
    "chat_template_args": "chat templates are not applied",
    "delta": "delta weights are not added",
    "enable_thinking": "chat templates are not applied",
    "gguf_file": "GGUF files are not read",
    "gptqmodel": "GPTQ models are not read",
    "mixed_precision_dtype": "activations are float32",
    "peft": "adapters are not read",
    "revision": "name the directory of that revision as pretrained",
    "softmax_dtype": "log-probabilities are computed in float64",
    "subfolder": "name the folder itself as pretrained",
    "think_end_token": "chat templates are not applied",
}
_SUPPORTED = ("pretrained", "tokenizer", "max_length", "max_gen_toks", "add_bos_token", "prefix_token_id", "device",
              "batch_size")  # fmt: skip
_ASKING_NOTHING = (None, False, "", "main")
_DEVICE_OF_THE_COMMAND_LINE = "cuda:0"  # what lm_eval says when nobody named a device
_UNKNOWN_LENGTH = 2048


class _Pair(NamedTuple):
    """One log-likelihood to compute."""

    texts: tuple[str, str] | None  # context and continuation, the key in lm_eval's cache; None for a rolling window
    context: list[int]
    continuation: list[int]

    @property
    def shared(self) -> tuple[int, ...]:
        """What the model reads: pairs that agree in it differ in their last token only."""
        return tuple(self.context + self.continuation[:-1])


class SalientLM(TemplateLM):  # type: ignore[misc]
    """The model `salient` of lm_eval: a model directory, dense or quantized, run by Salient.

    Args:
        pretrained: a model directory or an id of the hub; or a loaded model (`salient.load(...)`, anything that
            `salient.model.model_handle` takes).
        tokenizer: a directory, an id of the hub, or a tokenizer object. Default: the model's own.
        max_length: tokens of context. Default: what config.json says. Longer texts lose tokens on the left.
        max_gen_toks: tokens to generate when a task names no number.
        add_bos_token: True puts the begin token in front of every text, False leaves out special tokens. Default:
            as the tokenizer does it.
        prefix_token_id: the token before texts without context. Default: the begin token, else the end token.
        device: where to compute, as in `salient.load`. "cuda:0", which lm_eval's command line says unasked, is "auto":
            the first GPU, or the CPU.
        batch_size: accepted for the sake of scripts; requests run one by one.

    Raises:
        TypeError: an argument that nobody knows.
        NotImplementedError: an argument of the model `hf` that would change the result and is not supported.
        ValueError: max_length or max_gen_toks below 1, or the tokenizer has neither a begin nor an end token.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        tokenizer: Any = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        _check_options(options)
        check_positive("the lm_eval model salient", max_length=max_length, max_gen_toks=max_gen_toks)
        self.model: CausalLM = _load(pretrained, device)
        self.tokenizer: Any = _load_tokenizer(tokenizer, self.model)
        self.batch_size = batch_size
        self.add_bos_token = add_bos_token
        self.max_gen_toks = int(max_gen_toks)
        self._max_length = max_length
        self._prefix_token_id = prefix_token_id

    # What lm_eval asks of every model.

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text; None when the tokenizer has none."""
        token: int | None = self.tokenizer.eos_token_id
        return token

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before texts without context."""
        for token in (self._prefix_token_id, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ValueError("the tokenizer has neither a begin nor an end token: name one as prefix_token_id")

    @property
    def max_length(self) -> int:
        """Tokens of context."""
        return self._max_length or context_length(self.model.config, self.tokenizer) or _UNKNOWN_LENGTH

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name in lm_eval's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text, with special tokens as asked for, else as add_bos_token says."""
        if add_special_tokens is not None:
            return self._encode(string, add_special_tokens)
        if has_bos_prefix(string, self.tok_decode([self.prefix_token_id], skip_special_tokens=False)):
            return self._encode(string, False)
        ids = self._encode(string, self.add_bos_token is not False)
        begin = self.tokenizer.bos_token_id
        if self.add_bos_token and begin is not None and ids[:1] != [begin]:
            return [int(begin), *ids]
        return ids

    def tok_decode(self, tokens: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """None: chat templates are not applied."""
        if chat_template:
            raise NotImplementedError(_NO_CHAT_TEMPLATES)
        return None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Raises NotImplementedError."""
        raise NotImplementedError(_NO_CHAT_TEMPLATES)

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes into its results about the model."""
        return {"model_name_or_path": self.model.name_or_path, "model_info": self.model.info}

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, nats, in windows of max_length tokens that do not overlap.

        The last window reaches back to be full; what it shares with the one before is context only.
        """
        results = []
        for request in tqdm(requests, desc="Running rolling loglikelihood requests", disable=disable_tqdm):
            (text,) = request.args
            total = sum((self._score(window)[0] for window in self._windows(text)), 0.0)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            results.append(total)
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each up to its first stop string, which is left out."""
        results = []
        for request in tqdm(requests, desc="Running generate_until requests", disable=disable_tqdm):
            context, options = request.args
            text = self._generate_until(context, options)
            self.cache_hook.add_partial("generate_until", (context, options), text)
            results.append(text)
        return results

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[LogLikelihood]:
        pairs = [_Pair(*request) for request in requests]
        results: list[LogLikelihood] = [(0.0, False)] * len(pairs)
        with tqdm(total=len(pairs), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for places in _places_by_input(pairs):
                answers = self._score_group([pairs[place] for place in places])
                for place, answer in zip(places, answers):
                    results[place] = answer
                    self.cache_hook.add_partial("loglikelihood", pairs[place].texts, answer)
                bar.update(len(places))
        return results

    # One text.

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=add_special_tokens)]

    def _windows(self, text: str) -> list[_Pair]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [_Pair(None, *make_disjoint_window(window)) for window in windows]

    def _ids(self, pair: _Pair) -> Ids:
        """Context and continuation; the model reads all but the last token, so max_length + 1 of them fit."""
        if len(pair.continuation) > self.max_length:
            raise ValueError(
                f"a continuation of {len(pair.continuation)} tokens is longer than the context of {self.max_length}"
            )
        return np.asarray((pair.context + pair.continuation)[-(self.max_length + 1) :], dtype=np.int32)

    def _score(self, pair: _Pair) -> LogLikelihood:
        ids = self._ids(pair)
        log_probabilities, most_likely = self.model.score(ids, len(ids) - len(pair.continuation))
        return float(log_probabilities.sum()), bool(most_likely.all())

    def _score_group(self, pairs: list[_Pair]) -> list[LogLikelihood]:
        """Pairs that share their input, so that one run of the model answers all."""
        if len(pairs) == 1:
            return [self._score(pairs[0])]
        longest = max(pairs, key=lambda pair: len(pair.continuation))
        logits = self.model.logits(self._ids(longest)[:-1], last=len(longest.continuation))
        return [_look_up(logits, pair.continuation) for pair in pairs]

    def _generate_until(self, context: str, options: dict[str, Any]) -> str:
        settings = dict(normalize_gen_kwargs(options, self.max_gen_toks))
        stops = self._stop_strings(settings.pop("until"))
        prompt, count = self._prompt(context, settings.pop("max_gen_toks"), settings.pop("max_length", None))
        every = [[1] * len(prompt)]  # a padding token in a prompt is there on purpose
        ids = self.model.generate([prompt], every, max_new_tokens=count, stop_strings=stops, **_sampling(settings))
        return str(postprocess_generated_text(self.tok_decode(ids[0, len(prompt) :].tolist()), stops, None))

    def _stop_strings(self, until: list[str]) -> list[str]:
        """The task's, and the text of the end token."""
        end = [] if self.eot_token_id is None else [self.tok_decode([self.eot_token_id], skip_special_tokens=False)]
        return [stop for stop in [*until, *end] if stop]

    def _prompt(self, context: str, count: int, total: int | None) -> tuple[list[int], int]:
        """The prompt, which loses tokens on the left for the sake of what is to come, and how many may come.

        Raises:
            ValueError: the new tokens alone fill the context.
        """
        room = self.max_length - count
        if room < 1:
            raise ValueError(f"max_gen_toks {count} leaves no room for a prompt in a context of {self.max_length}")
        prompt = self.tok_encode(context)[-room:]
        return prompt, count if total is None else max(int(total) - len(prompt), 1)


_NO_CHAT_TEMPLATES = "salient.lm_eval does not apply chat templates yet: run without apply_chat_template"


def _check_options(options: dict[str, Any]) -> None:
    """Of the model `hf`: what changes nothing passes, what would change the result does not."""
    for name, value in options.items():
        if name in _UNSUPPORTED:
            _refuse_unsupported(name, value)
        elif name in _WITHOUT_EFFECT:
            _warn_without_effect(name, value)
        else:
            raise unknown_argument("the lm_eval model salient", name, [*_SUPPORTED, *_WITHOUT_EFFECT, *_UNSUPPORTED])


def _refuse_unsupported(name: str, value: Any) -> None:
    if value not in _ASKING_NOTHING:
        raise NotImplementedError(f"the lm_eval model salient does not support {name}={value!r}: {_UNSUPPORTED[name]}")


def _warn_without_effect(name: str, value: Any) -> None:
    usual = _WITHOUT_EFFECT[name]
    if usual and value is not None and value not in usual:
        warn_user(f"the lm_eval model salient ignores {name}={value!r}: it changes nothing")


def _load(pretrained: Any, device: str | None) -> CausalLM:
    if isinstance(pretrained, (str, os.PathLike)):
        chosen = "auto" if device is None or device == _DEVICE_OF_THE_COMMAND_LINE else device
        return load(pretrained, device=chosen)
    if device is not None:
        warn_user(f"device={device!r} changes nothing: the model is loaded already")
    return model_handle(pretrained)


def _load_tokenizer(tokenizer: Any, model: CausalLM) -> Any:
    if tokenizer is None:
        return model.tokenizer
    if isinstance(tokenizer, (str, os.PathLike)):
        return AutoTokenizer.from_pretrained(tokenizer)
    return tokenizer


def _places_by_input(pairs: list[_Pair]) -> Iterable[list[int]]:
    """Places of pairs with the same input, as choices of one token have it."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.shared, []).append(place)
    return places.values()


def _look_up(logits: npt.NDArray[np.float32], continuation: list[int]) -> LogLikelihood:
    """Log-likelihood of a continuation; logits [positions, vocab], of which the last ones predict it."""
    rows = logits[-len(continuation) :].astype(np.float64)
    top = rows.max(axis=1)
    chosen = rows[np.arange(len(continuation)), continuation]
    log_sums = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return float((chosen - log_sums).sum()), bool((rows.argmax(axis=1) == continuation).all())


def _sampling(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of generate, without the temperature of 0 that lm_eval gives greedy settings."""
    return {key: value for key, value in settings.items() if key != "temperature" or settings["do_sample"]}


def _register() -> None:
    """By name, as `python -m salient.lm_eval` runs this file under another name than the one it is imported by."""
    if "salient" not in model_registry:
        model_registry.register("salient", target="salient.lm_eval:SalientLM")


_register()

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
