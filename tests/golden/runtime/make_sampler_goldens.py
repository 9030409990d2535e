"""Distributions that transformers' logits processors leave, in the order in which generate() applies them.

usage: make_sampler_goldens.py     (torch, transformers 5)
"""
import json, pathlib
import torch
from transformers.generation import logits_process as lp

CASES = [dict(), dict(temperature=0.5), dict(top_k=5), dict(top_p=0.6), dict(min_p=0.1), dict(repetition_penalty=1.7),
         dict(temperature=1.5, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.2), dict(top_k=1), dict(top_p=0.0),
         dict(temperature=2.0, top_p=0.95, repetition_penalty=0.8), dict(top_k=40, min_p=1.0)]
PROCESSORS = [("repetition_penalty", lp.RepetitionPenaltyLogitsProcessor), ("temperature", lp.TemperatureLogitsWarper),
              ("top_k", lp.TopKLogitsWarper), ("top_p", lp.TopPLogitsWarper), ("min_p", lp.MinPLogitsWarper)]

generator = torch.Generator().manual_seed(1)
result = []
for case in CASES:
    logits = torch.round(4 * torch.randn(1, 60, generator=generator)) / 2  # many are equal: top-k keeps ties
    if "top_p" in case:  # but at the edge of top-p torch.sort does not promise an order among equals
        logits += 0.01 * torch.randn(1, 60, generator=generator)
    seen = torch.randint(0, 60, (1, 12), generator=generator)
    scores = logits.clone()
    for option, processor in PROCESSORS:
        if option in case:
            scores = processor(case[option])(seen, scores)
    result.append({"options": case, "logits": logits[0].tolist(), "seen": seen[0].tolist(),
                   "probabilities": torch.softmax(scores.double(), -1)[0].tolist()})
(pathlib.Path(__file__).parent / "sampler.json").write_text(json.dumps(result) + "\n")
