"""What a run of the quantizer did and measured: a dictionary that can be kept as JSON or as a page with plots."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from salient import _core

__all__ = ["Report"]


class Report(dict[str, Any]):
    """What a run did: layers (each with mappings and linears, their losses, exponents and largest channels), model,
    method, quantized_linears, calibration_tokens, bytes_before, bytes_after, seconds, peak_memory, warnings. Losses are
    mean squared errors over the calibration tokens; None where one is not finite."""

    def __repr__(self) -> str:
        before, after = (self.get(key, 0) / 2**20 for key in ("bytes_before", "bytes_after"))
        linears, tokens = self.get("quantized_linears", 0), self.get("calibration_tokens", 0)
        size = f"{before:.1f} MiB -> {after:.1f} MiB"
        return f"Report({linears} linears quantized on {tokens} tokens, {size}, {self.get('seconds', 0):.1f} s)"

    def to_html(self) -> str:
        """A page that stands alone: plots of the error by depth and role, of scales and exponents, tables that sort.

        Errors: ValueError when an entry was given another type.
        """
        return _core.report_html(json.dumps(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page to a file that ends in .html, JSON to one that ends in .json; what is there is replaced.

        Errors: ValueError for another ending; OSError.
        """
        target = Path(path)
        if target.suffix not in (".html", ".json"):
            raise ValueError(f"save: {os.fspath(path)!r} ends in neither .html nor .json")
        text = self.to_html() if target.suffix == ".html" else json.dumps(self, indent=2) + "\n"
        target.write_text(text, encoding="utf-8")
