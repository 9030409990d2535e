"""Makes lm_eval.json: the group `salient_demo` by lm_eval's own `hf` model, on the demo model in float32.

Once with the context that the model has, and once with a short one, for which texts lose tokens on the left, and with
the begin token in front.

    python python/tests/golden/make_lm_eval_golden.py

Needs lm_eval 0.4.13, torch and transformers; the versions that made the file are recorded in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import lm_eval
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MODEL = ROOT / "examples" / "demo" / "model"
TASKS = HERE.parent / "lm_eval_task"
GROUP = "salient_demo"
SHORT = {"max_length": 64, "add_bos_token": True}
PACKAGES = ("lm_eval", "torch", "transformers")


def evaluate(**arguments: Any) -> dict[str, Any]:
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(MODEL), "dtype": "float32", **arguments},
        tasks=[GROUP],
        task_manager=TaskManager(include_path=str(TASKS)),
        device="cpu",
        batch_size=1,
        bootstrap_iters=0,
    )
    return results


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The metrics of one task: "acc", not "acc,none"."""
    return {
        key.removesuffix(",none"): value
        for key, value in result.items()
        if key.endswith(",none") and "stderr" not in key
    }


def answer(response: Any) -> Any:
    """[log-likelihood, is it the most likely], a log-likelihood, or a text."""
    return list(response) if isinstance(response, tuple) else response


def responses(sample: dict[str, Any]) -> list[Any]:
    """What the model answered to each request of one document."""
    return [answer(one) for (one,) in sample["resps"]]


def documents(samples: list[dict[str, Any]]) -> list[list[Any]]:
    return [responses(sample) for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def task(results: dict[str, Any], name: str) -> dict[str, Any]:
    return {"metrics": figures(results["results"][name]), "responses": documents(results["samples"][name])}


def tasks(results: dict[str, Any]) -> dict[str, Any]:
    return {name: task(results, name) for name in sorted(results["samples"])}


def token_ids() -> list[list[int]]:
    """The ids of the rolling documents by transformers' tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    lines = (TASKS / "rolling.jsonl").read_text(encoding="utf-8").splitlines()
    return [tokenizer.encode(json.loads(line)["text"]) for line in lines]


def main() -> None:
    record = {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "tasks": tasks(evaluate()),
        "short": {"arguments": SHORT, "tasks": tasks(evaluate(**SHORT))},
        "token_ids": token_ids(),
    }
    (HERE / "lm_eval.json").write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
