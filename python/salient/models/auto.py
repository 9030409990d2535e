"""AutoAWQForCausalLM: the class that scripts of AutoAWQ begin with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from salient.models.base import BaseAWQForCausalLM

if TYPE_CHECKING:
    from typing_extensions import Self


class AutoAWQForCausalLM(BaseAWQForCausalLM):
    """Models of any family that Salient knows, made by `from_pretrained` and `from_quantized`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise EnvironmentError(
            f"{type(self).__name__} is made by its from_pretrained (to quantize) or from_quantized (to run)"
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # AutoAWQ's base class has model_type second, this one does not
        cls,
        model_path: str | os.PathLike[str],
        torch_dtype: object = "auto",
        trust_remote_code: bool = True,
        safetensors: bool = True,
        device_map: object = None,
        download_kwargs: Mapping[str, Any] | None = None,
        low_cpu_mem_usage: bool = True,
        use_cache: bool = False,
        **model_init_kwargs: Any,
    ) -> Self:
        """See ``BaseAWQForCausalLM.from_pretrained``."""
        return super().from_pretrained(
            model_path,
            torch_dtype=torch_dtype,
            trust_remote_code=trust_remote_code,
            safetensors=safetensors,
            device_map=device_map,
            download_kwargs=download_kwargs,
            low_cpu_mem_usage=low_cpu_mem_usage,
            use_cache=use_cache,
            **model_init_kwargs,
        )

    @classmethod
    def from_quantized(  # type: ignore[override]  # as above
        cls,
        quant_path: str | os.PathLike[str],
        quant_filename: str = "",
        max_seq_len: int | None = 2048,
        trust_remote_code: bool = True,
        fuse_layers: bool = True,
        use_exllama: bool = False,
        use_exllama_v2: bool = False,
        use_ipex: bool = False,
        batch_size: int = 1,
        safetensors: bool = True,
        device_map: object = "balanced",
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: str | None = None,
        download_kwargs: Mapping[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> Self:
        """See ``BaseAWQForCausalLM.from_quantized``; also ``batch_size`` and ``use_marlin``."""
        return super().from_quantized(
            quant_path,
            model_filename=quant_filename,
            max_seq_len=max_seq_len,
            trust_remote_code=trust_remote_code,
            fuse_layers=fuse_layers,
            use_exllama=use_exllama,
            use_exllama_v2=use_exllama_v2,
            use_ipex=use_ipex,
            safetensors=safetensors,
            device_map=device_map,
            max_memory=max_memory,
            offload_folder=offload_folder,
            download_kwargs=download_kwargs,
            **config_kwargs,
        )
