#!/usr/bin/env python3
"""Fails on source files over 600 lines, functions over 80 lines and committed files over 2 MB.

usage: check_sizes.py [ROOT]

C++ is not parsed: comments, literals and preprocessor lines are blanked, then a brace that opens at namespace or class
scope behind something that looks like a function's head opens a function. A lambda belongs to the function it is in.
"""
import ast
import pathlib
import re
import subprocess
import sys

MAXIMUM_FILE_LINES = 600
MAXIMUM_FUNCTION_LINES = 80
MAXIMUM_BYTES = 2_000_000
# The demo's weights are the one large thing in the repository.
DEMO_WEIGHTS = "examples/demo/model/"
MAXIMUM_DEMO_BYTES = 12_000_000
# "path:function" of kernels that read better whole. Each needs its reason beside it.
LONG_FUNCTIONS = frozenset()

CPP = {".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".cl"}
CODE = CPP | {".py", ".sh"}

NOISE = re.compile(
    r'R"(?P<tag>[^()\\ ]{0,16})\(.*?\)(?P=tag)"'  # raw strings
    r"|//(?:[^\n\\]|\\.|\\\n)*"
    r"|/\*.*?\*/"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|(?<![0-9a-fA-F])'(?:[^'\\\n]|\\.)+'"  # characters, but no digit separators
    r"|^[ \t]*#(?:[^\n\\]|\\.|\\\n)*",
    re.DOTALL | re.MULTILINE,
)
TYPE_HEAD = re.compile(r"\s*(?:(?:inline|static|constexpr|typedef|extern|export)\s+)*(?:namespace|class|struct|union|enum)\b")
ACCESS_LABELS = re.compile(r"\s*(?:(?:public|private|protected)\s*:\s*)*")
MEMBER_INITIALISERS = re.compile(r"\(\)\s*(?:noexcept\s*)?:(?!:)")
NAME = re.compile(r"([~\w]+(?:\s*::\s*[~\w]+)*|operator\s*[^\s\w(]+)\s*\(")


def blank(text):
    """`text` without comments, literals and preprocessor lines, line for line."""
    return NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def strip_parentheses(head):
    """`head` with every (...) emptied, so that only its outermost level is left to look at."""
    level, kept = 0, []
    for character in head:
        level -= character == ")"
        if level <= 0:
            kept.append(character)
        level += character == "("
    return "".join(kept)


def strip_template(head):
    """`head` without a leading template<...>."""
    if not (start := re.match(r"\s*template\s*<", head)):
        return head
    level = 1
    for position in range(start.end(), len(head)):
        level += (head[position] == "<") - (head[position] == ">" and head[position - 1] != "-")
        if level == 0:
            return strip_template(head[position + 1 :])
    return head


def opens_function(head):
    """Whether a brace behind `head` opens a function: there are parameters, and it is no type and no value."""
    head = strip_template(head)
    if TYPE_HEAD.match(head):
        return False
    outer = strip_parentheses(re.sub(r"\boperator\s*(?:\(\s*\)|[^\w\s(]+)", "operator_", head))
    return "()" in outer and ("=" not in outer or re.search(r"=\s*\[", outer) is not None)


def function_name(head):
    if test := re.match(r"\s*(?:TYPED_)?TEST(?:_[FP])?\s*\(([^)]*)\)", head):
        return re.sub(r"\s*,\s*", ".", test.group(1))
    names = [re.sub(r"\s", "", name) for name in NAME.findall(head)]
    return next((name for name in names if name not in {"__attribute__", "alignas", "decltype", "requires"}), "?")


def functions(text):
    """(name, first line, last line) of each function with a body."""
    text = blank(text)
    parentheses = depth = 0  # parentheses open in a head, braces open in a function
    head_begin, line, opened = 0, 1, None
    for position, character in enumerate(text):
        line += character == "\n"
        if depth > 0:
            depth += (character == "{") - (character == "}")
            if depth == 0:
                name, first, head = opened
                initialises = text[position + 1 :].lstrip()[:1] in (",", "{") and MEMBER_INITIALISERS.search(head)
                if not initialises:  # else it was a member's initialiser and the body is still to come
                    yield name, first, line
                    head_begin = position + 1
        elif character in "()":
            parentheses += 1 if character == "(" else -1
        elif character in "{};" and parentheses <= 0:
            head = text[head_begin:position]
            head = head[ACCESS_LABELS.match(head).end() :]
            if character == "{" and opens_function(head):
                opened = function_name(head), line - head.count("\n"), strip_parentheses(head)
                depth = 1
            else:
                head_begin, parentheses = position + 1, 0


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno


def project_files(root):
    """Committed or about to be; everything when `root` is no checkout."""
    if (root / ".git").exists():
        listing = subprocess.run(["git", "-C", root, "ls-files", "-coz", "--exclude-standard"], check=True, stdout=subprocess.PIPE)
        names = listing.stdout.decode().split("\0")
        return sorted(root / name for name in names if name and (root / name).is_file())
    return sorted(path for path in root.rglob("*") if path.is_file())


def check_code(path, name):
    text = path.read_text("utf-8")
    lines = text.count("\n")
    if lines > MAXIMUM_FILE_LINES:
        yield f"{name}:1: {lines} lines; a file has at most {MAXIMUM_FILE_LINES}"
    if path.suffix not in CPP and path.suffix != ".py":
        return
    for function, first, last in functions(text) if path.suffix in CPP else python_functions(text):
        if last - first + 1 > MAXIMUM_FUNCTION_LINES and f"{name}:{function}" not in LONG_FUNCTIONS:
            yield f"{name}:{first}: {function} has {last - first + 1} lines; a function has at most {MAXIMUM_FUNCTION_LINES}"


def check(root):
    errors, demo_bytes = [], 0
    for path in project_files(root):
        name, size = path.relative_to(root).as_posix(), path.stat().st_size
        if name.startswith(DEMO_WEIGHTS) and path.suffix == ".safetensors":
            demo_bytes += size
        elif size > MAXIMUM_BYTES:
            errors.append(f"{name}: {size} bytes; a committed file has at most {MAXIMUM_BYTES}")
        if path.suffix in CODE:
            errors.extend(check_code(path, name))
    if demo_bytes > MAXIMUM_DEMO_BYTES:
        errors.append(f"{DEMO_WEIGHTS}: {demo_bytes} bytes of weights; at most {MAXIMUM_DEMO_BYTES}")
    return errors


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).parent.parent).resolve()
    errors = check(root)
    print("\n".join(errors) if errors else "sizes hold")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
