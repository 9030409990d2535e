#!/usr/bin/env python3
"""Fails when the #includes of src/ and include/ disagree with the layer table of docs/architecture.md.

usage: check_layers.py [ROOT]

A folder of src/, and python/ (its bindings), may include itself and folders on lower lines of the table: none beside
it, none above it. Public headers (include/) include each other and the standard library only. Files never include each other in a circle.
"""
import pathlib
import re
import sys

TABLE_ROW = re.compile(r"^ *\d+ +((?:[a-z_0-9]+/ +)+)")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".cc", ".h", ".cu", ".cuh", ".cl"}


def read_table(text):
    """{folder: height} from the one code fence whose every line is a row of the table."""
    for fence in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        rows = [TABLE_ROW.match(line) for line in fence.splitlines() if line.strip()]
        if rows and all(rows):
            heights = range(len(rows), 0, -1)  # the first line is the top
            return {name.rstrip("/"): height for row, height in zip(rows, heights) for name in row.group(1).split()}
    return {}


def includes(path):
    """(line number, '<' or '"', included name) for each #include that is not commented out."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), path.read_text("utf-8"), flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match.group(1), match.group(2)


class Tree:
    def __init__(self, root):
        self.root = root
        self.table = read_table((root / "docs/architecture.md").read_text("utf-8"))
        self.files = sorted(p for top in ("include", "src", "python") for p in (root / top).rglob("*") if p.suffix in SOURCES)
        self.edges = {}  # file -> [(line, file)]
        self.errors = []

    def folder(self, path):
        """The folder of src/ that a file belongs to, or python; None for a public header."""
        parts = path.relative_to(self.root).parts
        if parts[0] == "python":
            return "python"
        return parts[1] if parts[0] == "src" else None

    def resolve(self, path, name):
        for base in (self.root / "src", self.root / "include", self.root / "python", path.parent):
            if (base / name).is_file():
                return (base / name).resolve()
        return None

    def report(self, path, line, message):
        self.errors.append(f"{path.relative_to(self.root)}:{line}: {message}")

    def check_include(self, path, line, target):
        mine, other = self.folder(path), self.folder(target)
        if mine is None and other is not None:
            self.report(path, line, f"a public header includes src/{other}")
        elif other is None or mine == other:
            return
        elif other in self.table and mine in self.table and self.table[other] >= self.table[mine]:
            where = "beside" if self.table[other] == self.table[mine] else "above"
            self.report(path, line, f"{mine}/ includes {other}/, which stands {where} it")

    def check_file(self, path):
        self.edges[path] = []
        for line, style, name in includes(path):
            if style == "<":
                if self.folder(path) is None and ("/" in name or "." in name):
                    self.report(path, line, f"a public header includes <{name}>: only the standard library may show there")
                continue
            target = self.resolve(path, name)
            if target is None:
                self.report(path, line, f'"{name}" is nowhere in src/ or include/')
                continue
            self.edges[path].append((line, target))
            self.check_include(path, line, target)

    def check_cycles(self):
        done, trail = set(), []

        def visit(path):
            if path in done:
                return
            trail.append(path)
            for line, target in self.edges.get(path, []):
                if target in trail:
                    circle = trail[trail.index(target) :] + [target]
                    names = " -> ".join(str(p.relative_to(self.root)) for p in circle)
                    self.report(path, line, f"includes in a circle: {names}")
                else:
                    visit(target)
            trail.pop()
            done.add(path)

        for path in self.files:
            visit(path)

    def check(self):
        if not self.table:
            return ["docs/architecture.md: no layer table found"]
        for path in self.files:
            if self.folder(path) is not None and self.folder(path) not in self.table:
                self.report(path, 1, f"{self.folder(path)}/ is missing from the layer table")
            self.check_file(path)
        self.check_cycles()
        return self.errors


def main(arguments):
    root = pathlib.Path(arguments[0] if arguments else pathlib.Path(__file__).parent.parent).resolve()
    tree = Tree(root)
    errors = tree.check()
    print("\n".join(errors) if errors else f"layers hold: {len(tree.files)} files, {len(tree.table)} folders in the table")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
