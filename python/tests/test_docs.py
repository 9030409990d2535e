"""Every snippet of the README and of docs/ does what a reader would have it do.

Of a page the blocks run in order, in one folder with the repository's `examples` in it. What a fence says:
  python            runs, in one namespace per page
  python old        stands before its twin for Salient, from which only imports may differ
  sh                runs in bash
  python needs X, sh needs X
                    runs where the package X is installed
  sh not run: WHY   what the tests cannot run, as it runs them
  cpp               stands in a C++ test as it is here
  yaml, text        looked at by tests of their own, or nothing to run
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
KINDS = re.compile(r"python|python old|(python|sh) needs \w+|sh not run: .+|sh|cpp|yaml|text")
IMPORTS = (
    (r"^from (awq|llmcompressor)\b", "from salient"),
    (r"^from compressed_tensors\.quantization\b", "from salient.quantization"),
    (r"^from transformers import\b", "from salient import"),
)


@dataclass
class Block:
    place: str
    kind: str
    code: str


def blocks_of(page: pathlib.Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        blocks.append(Block(f"{page.name}:{line}", match.group(2).strip(), textwrap.dedent(match.group(3))))
    return blocks


def with_kind(kind: str) -> list[tuple[pathlib.Path, list[Block]]]:
    found = [(page, [block for block in blocks_of(page) if block.kind.split(" ")[0] == kind]) for page in PAGES]
    return [(page, blocks) for page, blocks in found if blocks]


def run_shell(block: Block) -> None:
    """As typed at a prompt, with the program of this environment."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", block.code], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{block.place}: {done.stderr[-2000:]}"


def run_python(block: Block, namespace: dict[str, object]) -> None:
    # Lines as on the page, so that a traceback leads there.
    code = "\n" * (int(block.place.split(":")[1]) - 1) + block.code
    exec(compile(code, block.place, "exec"), namespace)


def can_run(block: Block) -> bool:
    _, needs, package = block.kind.partition(" needs ")
    if not needs or importlib.util.find_spec(package) is not None:
        return True
    print(f"{block.place}: not run, {package} is not installed", file=sys.stderr)
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: pathlib.Path) -> None:
    for block in blocks_of(page):
        assert KINDS.fullmatch(block.kind), f"{block.place}: ```{block.kind}"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_runs(page: pathlib.Path, workplace: pathlib.Path) -> None:
    namespace: dict[str, object] = {"__name__": "__page__"}
    runs = [block for block in blocks_of(page) if re.fullmatch("(python|sh)( needs.*)?", block.kind)]
    for block in filter(can_run, runs):
        if block.kind.startswith("sh"):
            run_shell(block)
        else:
            run_python(block, namespace)


@pytest.mark.parametrize("name", ["coming-from-autoawq.md", "coming-from-llm-compressor.md"])
def test_new_scripts_are_the_old_ones_with_other_imports(name: str) -> None:
    blocks = blocks_of(ROOT / "docs" / name)
    twins = [(old, new) for old, new in zip(blocks, blocks[1:]) if old.kind == "python old"]
    assert len(twins) >= 6
    for old, new in twins:
        code = old.code
        for pattern, replacement in IMPORTS:
            code = re.sub(pattern, replacement, code, flags=re.MULTILINE)
        assert (new.kind, new.code) == ("python", code), new.place


def test_cpp_stands_in_a_test() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.cc"))
    flat = re.sub(r"\s+", "", sources)
    for _, blocks in with_kind("cpp"):
        for block in blocks:
            assert re.sub(r"\s+", "", block.code) in flat, block.place
