#!/usr/bin/env python3
"""Compares Salient's tokenizer with Hugging Face `tokenizers` on random Unicode and on text files.

usage: compare_tokenizers.py --tool build/release/bin/salient_tokenize TOKENIZER_JSON... [--texts FILE...]

Needs the Python package `tokenizers`. Ends with status 1 when anything differs.
"""

import argparse
import json
import random
import subprocess
import sys

from tokenizers import Tokenizer

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x00, 0x20), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF),
    (0x900, 0xDFF), (0xE00, 0xEFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF),
    (0x3000, 0x30FF), (0x3300, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFFFF),
    (0x10000, 0x1FFFF), (0x1F300, 0x1FAFF), (0x20000, 0x2FFFF), (0xE0000, 0xE01EF), (0x0, 0x10FFFF),
]
FRAGMENTS = [
    "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "'s", "'S", "'ll", "'re", "'\u017f", "\u2019s", "hello", " world", "123",
    "4567890", " 12", "3.14", "...", "!?", "\u00a0", "\u200b", "\u200d", "\ufe0f", "\U0001f468\u200d\U0001f469", "\u0301", "e\u0301", "\u180e", "\u0085",
    "\u3000", "\u2581", "\u2581\u2581", "\ufffd", "\ufeff", "<0x0A>", "<s>", "</s>", "<unk>", "<|endoftext|>", "a", "A", " ",
]


def random_character(generator):
    while True:
        low, high = generator.choice(RANGES)
        code = generator.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def random_text(generator, fragments):
    """Half single characters of one or many scripts, half fragments that tokenizers treat in a special way."""
    parts = []
    one_script = generator.random() < 0.3
    low, high = generator.choice(RANGES)
    for _ in range(generator.randint(0, 40)):
        draw = generator.random()
        if draw < 0.35:
            parts.append(generator.choice(fragments))
        elif one_script:
            code = generator.randint(low, high)
            parts.append("x" if 0xD800 <= code <= 0xDFFF else chr(code))
        else:
            parts.append(random_character(generator))
    return "".join(parts)


class Tool:
    def __init__(self, tool, path, special):
        self.process = subprocess.Popen([tool, path, special], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, encoding="utf-8")

    def ask(self, request):
        self.process.stdin.write(json.dumps(request, ensure_ascii=False) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def first_difference(ours, theirs):
    for index, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            return index
    return min(len(ours), len(theirs))


def compare(arguments, path):
    reference = Tokenizer.from_file(path)
    reference.no_truncation()
    reference.no_padding()
    generator = random.Random(arguments.seed)
    fragments = FRAGMENTS + [token.content for token in reference.get_added_tokens_decoder().values()][:20]
    texts = [random_text(generator, fragments) for _ in range(arguments.count)]
    for name in arguments.texts:
        with open(name, encoding="utf-8", newline="") as file:
            content = file.read()
        texts.append(content)
        texts += [content[i:i + 3000] for i in range(0, len(content), 3000)]
    differences = 0

    def report(what, request, ours, theirs):
        nonlocal differences
        differences += 1
        if differences <= arguments.show:
            at = first_difference(ours, theirs)
            print(f"  {what} differs at {at}: {ours[at:at + 8]!r} but HF {theirs[at:at + 8]!r} for {request!r:.300}")

    for special in ("omit", "add"):
        tool = Tool(arguments.tool, path, special)
        for text in texts:
            answer = tool.ask({"text": text})
            ids = reference.encode(text, add_special_tokens=special == "add").ids
            if answer["ids"] != ids:
                report("ids", text, answer["ids"], ids)
                continue
            for key, skip in (("text", True), ("full_text", False)):
                decoded = reference.decode(ids, skip_special_tokens=skip)
                if answer[key] != decoded:
                    report(key, text, answer[key], decoded)
    for _ in range(arguments.count):
        size = reference.get_vocab_size()
        ids = [generator.randrange(size if generator.random() < 0.5 else min(size, 600))
               for _ in range(generator.randint(0, 20))]
        answer = tool.ask({"ids": ids})
        for key, skip in (("text", True), ("full_text", False)):
            decoded = reference.decode(ids, skip_special_tokens=skip)
            if answer[key] != decoded:
                report("decoded " + key, ids, answer[key], decoded)
    print(f"{path}: {len(texts)} texts and {arguments.count} lists of ids, {differences} differences")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--tool", required=True)
    parser.add_argument("--texts", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5)
    arguments = parser.parse_args()
    sys.exit(1 if sum(compare(arguments, path) for path in arguments.tokenizers) else 0)


if __name__ == "__main__":
    main()
