#!/usr/bin/env python3
"""Makes the tokenizers of this folder and what Hugging Face `tokenizers` does with them.

    texts.json          the test strings
    NAME.json           {"tokenizer": content of a tokenizer.json, "cases": one for each text}
    a case              [ids without, ids with special tokens, decoded without, decoded with special tokens];
                        a decoded text is null where it equals the test string
    odd.json            variants of one tiny tokenizer with one unusual component each; a case is [ids] or, where
                        there is a decoder, [ids, decoded]

usage: make_goldens.py (writes beside itself; needs the Python package tokenizers)
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).parent
GENERATOR = random.Random(20)

NOUNS = "river lamp garden letter engine window violin market bridge winter ladder harbour thread copper".split()
VERBS = "carries follows repairs remembers crosses opens measures paints forgets answers".split()
ENDS = ["in 1984", "at 07:45", "for 3 days", "- twice!", "(again?)", "\n\nThen", "it's said", "we've heard", "they'll see"]
FOREIGN = ["Größe und Fuß", "été naïve", "Ελληνικά γράμματα", "русский текст", "日本語の文章", "한국어 문장", "हिन्दी पाठ", "😀👍🏽 👨‍👩‍👧"]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def sentence():
    words = ["the", GENERATOR.choice(NOUNS), GENERATOR.choice(VERBS), "the", GENERATOR.choice(NOUNS),
             GENERATOR.choice(ENDS)]
    return (" ".join(words) + ". ").capitalize() + (GENERATOR.choice(FOREIGN) if GENERATOR.random() < 0.2 else "")


def corpus():
    return [" ".join(sentence() for _ in range(4)) for _ in range(400)]


def random_text():
    ranges = [(0x20, 0x7E), (0x00, 0xFF), (0x300, 0x36F), (0x400, 0x4FF), (0x600, 0x6FF), (0x900, 0x97F),
              (0x1100, 0x11FF), (0x2000, 0x206F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
              (0xF900, 0xFFFF), (0x10000, 0x1FFFF), (0x1F300, 0x1FAFF), (0x0, 0x10FFFF)]
    characters = []
    for _ in range(GENERATOR.randint(1, 14)):
        code = GENERATOR.randint(*GENERATOR.choice(ranges))
        characters.append(" " if 0xD800 <= code <= 0xDFFF else chr(code))
    return "".join(characters)


def make_texts():
    fixed = [
        "", " ", "  ", "   ", "\n", "\n\n\n", "\t\t x", " \n \r\n \t ", "a", " a", "a ", "  leading", "trailing  ",
        "Hello, world!", "the river follows the lamp", "THE RIVER'S LAMP", "it's we've they'll I'd I'M 'S", "don't won't",
        "'\u017fuffix \u212a", "123", "1234567890", "3.14159", "x1y22z333", "\u0661\u0662\u0663 \u00bd \u2167 \u4e09",
        "caf\u00e9 cafe\u0301 A\u030a \u212b \ufb01 \u1e9b\u0323", "a\u0301\u0316\u0327 q\u0307\u0323", "\uac00 \u1100\u1161 \u1112\u1161\u11ab",
        "\u3000\u00a0\u2003\u180e\u200b\u0085\u2028|", "\ufeffstart", "\x00nul\x00", "\x7f\x1b[0m", "\u2581\u2581x\u2581", "_under_score__",
        "\U0001f600\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\ufe0f", "\ufffd\ufffd?", "\U00013460\U0001e4d0\u2ebf0", "\U00010d40\U00010d50",
        "<s>", "</s><s>", "<s> the </s> river<unk>", "x<|end|>y", "<|end|><|end|>", " <|end|> ", "<|endofx|> <|en", "<mask>", " a  <mask>  b ",
        "wordy word sword word, word", "NORM norm Norm norms", "<0x41><0x0A>", "<0xE4><0xB8>", "a" * 70, "ab" * 40, " " * 40 + "x", "\n" * 9,
        "http://example.org/a?b=c&d=%20#e", "def f(x):\n    return x  # no\n", "{\"key\": [1, 2.5, null]}\r\n", "\u0130stanbul I\u0307 \u03a3\u03c2",
        "\u4e2d\u6587\uff0c\u6807\u70b9\u3002", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea", "\u0e44\u0e17\u0e22", "e\u0301" * 12, "--...!!??", "a-b_c.d", "1-2--3",
    ]
    return fixed + [sentence() + sentence() for _ in range(15)] + FOREIGN + [random_text() for _ in range(70)]


def train(tokenizer, size, special, alphabet=()):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=list(alphabet),
                                  show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(size, special, pre_tokenizer, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, size, special, pre_tokenizers.ByteLevel.alphabet())


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return byte_level(420, ["<|end|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))


def llama3():
    tokenizer = byte_level(440, ["<s>", "<|end|>"], split_then_bytes(LLAMA3), ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(), processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                              special_tokens=[("<s>", 0)])])
    return tokenizer


def qwen2():
    tokenizer = byte_level(420, ["<|end|>"], split_then_bytes(QWEN2))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, special=False, normalized=False)])
    return tokenizer


def smollm():
    return byte_level(420, ["<|end|>", "<s>"], pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def with_byte_tokens(tokenizer):
    """Puts <0x00> to <0xFF> behind the special tokens, where sentencepiece has them."""
    description = json.loads(tokenizer.to_str())
    tokens = sorted(description["model"]["vocab"], key=description["model"]["vocab"].get)
    tokens[3:3] = ["<0x%02X>" % byte for byte in range(256)]
    description["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    description["model"]["byte_fallback"] = True
    description["post_processor"] = json.loads(processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]).__getstate__())
    return Tokenizer.from_str(json.dumps(description))


def sentencepiece(model):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    model(tokenizer)
    train(tokenizer, 220, ["<unk>", "<s>", "</s>"])
    return with_byte_tokens(tokenizer)


def llama2_legacy():
    def configure(tokenizer):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                               decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return sentencepiece(configure)


def llama2_metaspace():
    def configure(tokenizer):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                               decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return sentencepiece(configure)


ODD_ADDED = [
    dict(content="<mask>", lstrip=True, rstrip=True, special=False), dict(content="word", single_word=True, normalized=False, special=False),
    dict(content="NORM", normalized=True, special=False), dict(content="<|end|>", special=True), dict(content="river", normalized=True, special=False),
]


def odd(model=None, **parts):
    """A tokenizer of single characters and a few merges, with the given components."""
    characters = "abcdefghijklmnopqrstuvwxyz ._-\u2581'0123456789\u0301\u4e2d"
    model = model or {}
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    forms = [start + character + end for character in characters
             for start in {"", prefix} for end in {"", suffix}]
    merges = [["t", prefix + "h"], ["th", prefix + "e"], ["a", prefix + "b"]]
    tokens = ["<unk>"] + sorted(set(forms)) + [left + right[len(prefix):] for left, right in merges]
    description = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "added_tokens": [],
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges} | model,
    } | parts
    for index, token in enumerate(ODD_ADDED):
        flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False) | token
        description["added_tokens"].append({"id": len(tokens) + index} | flags)
    return description


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def odd_tokenizers():
    regex, string = {"Regex": "[aeiou.]+|\\s"}, {"String": "-"}
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield "split_" + behavior.lower(), odd(pre_tokenizer=split(regex, behavior))
        yield "split_invert_" + behavior.lower(), odd(pre_tokenizer=split(regex, behavior, invert=True))
        yield "split_string_" + behavior.lower(), odd(pre_tokenizer=split(string, behavior))
    for name in ("Whitespace", "WhitespaceSplit"):
        yield name.lower(), odd(pre_tokenizer={"type": name})
    yield "digits_together", odd(pre_tokenizer={"type": "Digits", "individual_digits": False})
    for scheme in ("always", "first", "never"):
        metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}
        yield "metaspace_" + scheme, odd(pre_tokenizer=metaspace, decoder=metaspace)
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield name.lower(), odd(normalizer={"type": name})
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    yield "strip", odd(normalizer=strip)
    yield "strip_left_metaspace", odd(
        normalizer=strip | {"strip_right": False},
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True})
    yield "replace", odd(normalizer={"type": "Sequence", "normalizers": [
        {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": "\\d+|  +"}, "content": "0"}]})
    yield "prefix_suffix", odd({"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"},
                               pre_tokenizer={"type": "WhitespaceSplit"})
    yield "fuse_unknown", odd({"fuse_unk": True})
    yield "no_unknown", odd({"unk_token": None})
    yield "byte_level_prefix_space", odd(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True,
                                                        "trim_offsets": True, "use_regex": True})
    for index, pattern in enumerate([r"\w+", r"\bt|e\b|\B'", r"[\w']+\h", r"(?i)THE|(?m:a.)", r"^.|.$", r"\p{^L}+\S",
                                     r"[^\p{N}\d]{,2}e", r"(?<!t)h*", r"[[:alpha:]]\W|\v", "\\u0301|\\x{4e2d}+"]):
        yield "regex_%d" % index, odd(pre_tokenizer=split({"Regex": pattern}, "Isolated"))


def case(tokenizer, text):
    def shorten(decoded):
        return None if decoded == text else decoded
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    full = tokenizer.encode(text, add_special_tokens=True).ids
    return [plain, full, shorten(tokenizer.decode(full, skip_special_tokens=True)),
            shorten(tokenizer.decode(full, skip_special_tokens=False))]


def odd_case(tokenizer, text, has_decoder):
    ids = tokenizer.encode(text).ids
    return [ids, tokenizer.decode(ids)] if has_decoder else [ids]


def odd_variants(texts):
    """Each variant as its differences from the first one, which is the plainest."""
    base = odd()
    variants = {}
    for name, description in odd_tokenizers():
        tokenizer = Tokenizer.from_str(json.dumps(description))
        variants[name] = {"parts": {key: value for key, value in description.items() if value != base[key]},
                          "cases": [odd_case(tokenizer, text, description["decoder"] is not None) for text in texts]}
    return {"tokenizer": base, "texts": texts, "variants": variants}


def write(name, content):
    (FOLDER / name).write_text(json.dumps(content, ensure_ascii=True, separators=(",", ":")) + "\n")


def main():
    texts = make_texts()
    write("texts.json", texts)
    for make in (gpt2, llama3, qwen2, smollm, llama2_legacy, llama2_metaspace):
        tokenizer = make()
        write(make.__name__ + ".json", {"tokenizer": json.loads(tokenizer.to_str()),
                                        "cases": [case(tokenizer, text) for text in texts]})
    write("odd.json", odd_variants([text for text in texts[:80] if len(text) < 40][:60]))


if __name__ == "__main__":
    main()
