"""AwqQuantizer: settings of AutoAWQ in, a quantized directory out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from salient import _core
from salient._arguments import warn_user
from salient._config import AwqConfig
from salient._data import calibration_blocks
from salient._files import Scratch
from salient._masks import split
from salient._mixture import draw_self, is_self
from salient._progress import progress
from salient._report import Report
from salient.model import CausalLM
from salient.tokenizer import as_tokenizer

if TYPE_CHECKING:
    from salient.models.base import BaseAWQForCausalLM

_SOURCE = "quant_config.json"
_SEED = 42  # AutoAWQ's, with which it shuffles
_INNER_STEPS = (
    "init_quant",
    "pseudo_quantize_tensor",
    "pseudo_dequantize_tensor",
    "_apply_quant",
    "_module_forward",
    "_search_best_scale",
    "_compute_best_scale",
    "_compute_loss",
    "_search_best_clip",
    "_compute_best_clip",
    "_get_input_feat",
    "_sanitize_kwargs",
)


class AwqQuantizer:
    """One quantization of one model, made by its ``quantize``. A subclass may change settings, `quantize` and `pack`.

    Args:
        awq_model: the model as AutoAWQ has it.
        model: its handle, which holds the result afterwards.
        tokenizer: of Salient or of transformers; None is that of the model.
        w_bit, group_size, zero_point, version, modules_to_not_convert: see AwqConfig.
        calib_data: a name of the hub, a file, texts, lists of token ids, or "self": text that the model makes up.
        split, text_column: where to look in a data set.
        duo_scaling: whether scales look at weights too; "both" tries either.
        export_compatible: scale and clip, but leave the weights dense until `pack`.
        apply_clip: whether to search for the largest weight of each group.
        max_calib_samples: texts or lists at most.
        max_calib_seq_len: tokens of a block; the samples are joined and cut into such.
        n_parallel_calib_samples, max_chunk_memory: without effect, memory is bounded by one layer.
        propagate_error: Salient's own: calibrate each layer on the quantized outputs of those before it (True and None)
            or on the original ones (False, as AutoAWQ does).
        device: Salient's own: what computes, "cpu", "cuda", "cuda:N" or "auto".

    Raises:
        NotImplementedError: a subclass replaces a step that is not done in Python.
    """

    def __init__(
        self,
        awq_model: BaseAWQForCausalLM,
        model: CausalLM,
        tokenizer: Any,
        w_bit: int,
        group_size: int,
        zero_point: bool,
        version: str,
        calib_data: Any,
        split: str,
        text_column: str,
        duo_scaling: bool | str,
        modules_to_not_convert: Sequence[str] | None = None,
        export_compatible: bool = False,
        apply_clip: bool = True,
        n_parallel_calib_samples: int | None = None,
        max_calib_samples: int = 128,
        max_calib_seq_len: int = 512,
        max_chunk_memory: int = 1 << 30,
        propagate_error: bool | None = None,
        device: str = "cpu",
    ) -> None:
        _check_steps(type(self))
        self.awq_model = awq_model
        self.model = model
        self.tokenizer = tokenizer
        self.w_bit = w_bit
        self.group_size = group_size
        self.zero_point = zero_point
        self.version = version
        self.calib_data = calib_data
        self.split = split
        self.text_column = text_column
        self.duo_scaling = duo_scaling
        self.modules_to_not_convert = list(modules_to_not_convert or [])
        self.export_compatible = export_compatible
        self.apply_clip = apply_clip
        self.n_parallel_calib_samples = n_parallel_calib_samples
        self.max_calib_samples = max_calib_samples
        self.max_calib_seq_len = max_calib_seq_len
        self.max_chunk_memory = max_chunk_memory
        self.propagate_error = propagate_error
        self.device = device
        self.report: dict[str, Any] = {}
        self.output: str | None = None

    def quantize(self) -> None:
        """Calibrates, scales, clips and rounds; the handle holds the result.

        Raises:
            ValueError, NotImplementedError: the settings make no sense, or not for this model.
            KeyboardInterrupt: stopped; the model is as it was.
        """
        recipe = json.dumps(self.recipe())
        self._check(recipe)
        sequences, masks = split(self._sequences())
        self._run(
            "quantizing",
            recipe,
            sequences=sequences,
            masks=masks,
            num_samples=self.max_calib_samples,
            max_seq_length=self.max_calib_seq_len,
            propagate_error=self.propagate_error,
            apply_clip=self.apply_clip,
            duo_scaling=self.duo_scaling,
            scaled_only=self.export_compatible,
        )

    def _check(self, recipe: str) -> None:
        """Refuses what cannot be done with any data, before data is fetched: a single token stands for it."""
        _core.check(
            model=self.model.directory,
            recipe=recipe,
            recipe_source=_SOURCE,
            sequences=[np.zeros(1, dtype=np.int32)],
            scaled_only=self.export_compatible,
            device=self.device,
        )

    def pack(self) -> None:
        """Rounds the scaled weights that `export_compatible` left dense to nearest; the handle holds the result."""
        self._run("packing", json.dumps(self.rounding_recipe()))

    def recipe(self) -> dict[str, Any]:
        """The settings as AutoAWQ's quant_config."""
        config: dict[str, Any] = {
            "quant_method": AwqConfig.quant_method,
            "zero_point": self.zero_point,
            "q_group_size": self.group_size,
            "w_bit": self.w_bit,
            "version": self.version,
        }
        if self.modules_to_not_convert:
            config["modules_to_not_convert"] = self.modules_to_not_convert
        return config

    def rounding_recipe(self) -> dict[str, Any]:
        """The same without AWQ: what is smoothed already is only rounded."""
        whole_row = self.group_size == -1
        weights: dict[str, Any] = {
            "num_bits": self.w_bit,
            "type": "int",
            "symmetric": False,
            "strategy": "channel" if whole_row else "group",
        }
        if not whole_row:
            weights["group_size"] = self.group_size
        groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
        parts = [rf"re:(.*\.)?{re.escape(name)}(\..*)?$" for name in self.modules_to_not_convert]
        ignore = ["lm_head", *parts]
        return {
            "QuantizationModifier": {"config_groups": groups, "ignore": ignore},
            "salient": {"format": "autoawq-gemm"},
        }

    def _sequences(self) -> list[Any]:
        if is_self(self.calib_data):
            length, samples = self.max_calib_seq_len, self.max_calib_samples
            return draw_self(self.model.directory, num_samples=samples, max_seq_length=length, seed=_SEED)
        ready = _holds_ids(self.calib_data)
        return calibration_blocks(
            self.calib_data,
            tokenizer=_NoTokenizer() if ready else as_tokenizer(self.tokenizer, self.model.directory),
            max_calib_samples=self.max_calib_samples,
            max_calib_seq_len=self.max_calib_seq_len,
            split=self.split,
            text_column=self.text_column,
        )

    def _run(self, doing: str, recipe: str, **options: Any) -> None:
        scratch = Scratch()
        output = os.path.join(scratch.path, "model")
        try:
            with progress(self.model.info["layers"], doing, unit="layer") as bar:
                report = _core.oneshot(
                    model=self.model.directory,
                    output=output,
                    recipe=recipe,
                    recipe_source=_SOURCE,
                    device=self.device,
                    progress=lambda done, *_: bar.update(done),
                    **options,
                )
            self.report = Report(json.loads(report))
            self.output = output
            self.model.adopt(output, scratch)
        except BaseException:
            if self.model.directory != output:
                scratch.remove()
            raise
        self.model.report = self.report
        for warning in self.report["warnings"]:
            warn_user(f"quantize: {warning}")

    @property
    def made_the_model(self) -> bool:
        """Whether the handle holds what this object has written."""
        return self.output == self.model.directory


class _NoTokenizer:
    """For data that is tokens already, so that a model whose tokenizer Salient cannot read is calibrated too."""

    def encode(self, text: str) -> list[int]:
        raise TypeError(f"calib_data holds token ids, but also the text {text[:40]!r}")


def _check_steps(quantizer: type[AwqQuantizer]) -> None:
    for name in _INNER_STEPS:
        if hasattr(quantizer, name):
            raise NotImplementedError(
                f"{quantizer.__name__}.{name} would not be called: calibration, scales, clips and rounding are C++; "
                "pass texts or token ids as calib_data, or write a recipe for salient.oneshot"
            )


def _holds_ids(data: object) -> bool:
    """Whether the calibration data is tokens already."""
    if isinstance(data, str) or not isinstance(data, Sequence) or not data:
        return False
    return not isinstance(data[0], (str, dict))
