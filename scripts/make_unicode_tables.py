#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cc: where the Unicode versions of our libraries and of Hugging Face `tokenizers` differ.

Token ids depend on which characters count as letters and digits, and on how text is normalized. Debian's PCRE2 knows
Unicode 14 and its utf8proc Unicode 15; `tokenizers` knows 16 for regular expressions, 17 for character classes, and 12
for normalization. This script asks all three about every character and writes down the differences.

usage: make_unicode_tables.py > src/text/unicode_tables.cc     (needs the Python package tokenizers, libpcre2-8, libutf8proc)
"""

import ctypes

from tokenizers import Regex, normalizers, pre_tokenizers

CODES = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
CATEGORIES = "Cf Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()

utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_category_string.restype = ctypes.c_char_p
utf8proc.utf8proc_tolower.restype = ctypes.c_int32


def members_for_hf(pattern):
    splitter = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for begin in range(0, len(CODES), 4096):
        text = "".join(map(chr, CODES[begin:begin + 4096]))
        for piece, _ in splitter.pre_tokenize_str(text):
            found.update(map(ord, piece))
    return found


def members_for_pcre2(pattern):
    library = ctypes.CDLL("libpcre2-8.so.0")
    library.pcre2_compile_8.restype = library.pcre2_match_data_create_8.restype = ctypes.c_void_p
    error, offset = ctypes.c_int(), ctypes.c_size_t()
    utf_and_ucp = 0x00080000 | 0x00020000
    code = ctypes.c_void_p(library.pcre2_compile_8(pattern.encode(), ctypes.c_size_t(len(pattern)), utf_and_ucp,
                                                   ctypes.byref(error), ctypes.byref(offset), None))
    data = ctypes.c_void_p(library.pcre2_match_data_create_8(4, None))
    found = set()
    for number in CODES:
        text = chr(number).encode()
        if library.pcre2_match_8(code, text, ctypes.c_size_t(len(text)), ctypes.c_size_t(0), 0, data, None) > 0:
            found.add(number)
    return found


def digits_for_hf():
    splitter = pre_tokenizers.Digits(individual_digits=True)
    return {code for code in CODES if len(splitter.pre_tokenize_str("a" + chr(code))) == 2}


def category(code):
    return utf8proc.utf8proc_category_string(code).decode()


def unknown_to_normalization():
    """Characters that move, compose or come apart in our library but not in HF's."""
    decompose, compatible = normalizers.NFD(), normalizers.NFKD()
    probes = "\u0334\u0327\u0316\u0301\u0345"  # combining classes 1, 202, 220, 230, 240
    unknown = set()
    for code in CODES:
        character = chr(code)
        if ours(character, False) != decompose.normalize_str(character):
            unknown.add(code)
        elif ours(character, True) != compatible.normalize_str(character):
            unknown.add(code)
        elif any(ours(text, False) != decompose.normalize_str(text)
                 for probe in probes for text in ("a" + probe + character, "a" + character + probe)):
            unknown.add(code)
    # The first halves of the pairs that compose in our library only.
    compose = normalizers.NFC()
    for code in sorted(unknown):
        parts = ours(chr(code), False)
        if len(parts) == 2 and ours(parts, False, composed=True) != compose.normalize_str(parts):
            unknown.add(ord(parts[0]))
    return unknown


def ours(text, compatible, composed=False):
    stable, compat, compose, decompose = 1 << 1, 1 << 2, 1 << 3, 1 << 4
    options = stable | (compat if compatible else 0) | (compose if composed else decompose)
    result = ctypes.c_void_p()
    data = text.encode()
    length = utf8proc.utf8proc_map(data, ctypes.c_ssize_t(len(data)), ctypes.byref(result), options)
    return ctypes.string_at(result, length).decode()


def ranges(codes):
    result = []
    for code in sorted(codes):
        if result and result[-1][1] == code - 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def lower_case_rows():
    """[first, last, distance]: runs of characters that HF maps by the same distance and utf8proc does not map so."""
    lower = normalizers.Lowercase()
    rows = []
    for code in CODES:
        mapped = lower.normalize_str(chr(code))
        if len(mapped) != 1 or ord(mapped) == utf8proc.utf8proc_tolower(code):
            continue
        distance = ord(mapped) - code
        if rows and rows[-1][1] == code - 1 and rows[-1][2] == distance:
            rows[-1][1] = code
        else:
            rows.append([code, code, distance])
    return rows


def print_table(comment, declaration, rows):
    print(f"// {comment}\nconstexpr {declaration} = {{")
    line = "   "
    for row in rows:
        cell = f" {row},"
        if len(line) + len(cell) > 108:
            print(line)
            line = "   "
        line += cell
    print(line + "\n};\n")


def main():
    rows = []
    for name in CATEGORIES:
        pattern = "\\p{%s}" % name
        rows += [(begin, end, name) for begin, end in ranges(members_for_hf(pattern) - members_for_pcre2(pattern))]
    for name, theirs, mine in (("Han", "\\p{Han}", "\\p{Han}"),
                               ("w", "\\w", "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]")):
        rows += [(begin, end, name) for begin, end in ranges(members_for_hf(theirs) - members_for_pcre2(mine))]
    print("// Written by scripts/make_unicode_tables.py, which says what and why. Not to be edited.\n")
    print('#include "text/unicode_tables.h"\n\nnamespace salient {\nnamespace {\n')
    print_table("What the regular expressions of HF count to a property, and PCRE2 does not.",
                "PropertyRange kPropertyAdditions[]",
                ['{0x%X, 0x%X, "%s"}' % row for row in sorted(rows)])
    numeric = digits_for_hf() - {code for code in CODES if category(code) in ("Nd", "Nl", "No")}
    print_table("Numeric characters that utf8proc does not know.", "CharacterRange kNumericAdditions[]",
                ["{0x%X, 0x%X}" % tuple(row) for row in ranges(numeric)])
    print_table("Capital letters that utf8proc does not know, and how far away the small ones are.",
                "LowerCaseRange kLowerCaseAdditions[]", ["{0x%X, 0x%X, %d}" % tuple(row) for row in lower_case_rows()])
    print_table("Characters that normalization leaves alone in HF.", "CharacterRange kUnknownToNormalization[]",
                ["{0x%X, 0x%X}" % tuple(row) for row in ranges(unknown_to_normalization())])
    print("}  // namespace\n")
    print("std::span<const PropertyRange> property_additions() { return kPropertyAdditions; }")
    print("std::span<const CharacterRange> numeric_additions() { return kNumericAdditions; }")
    print("std::span<const LowerCaseRange> lower_case_additions() { return kLowerCaseAdditions; }")
    print("std::span<const CharacterRange> unknown_to_normalization() { return kUnknownToNormalization; }")
    print("\n}  // namespace salient")


if __name__ == "__main__":
    main()
