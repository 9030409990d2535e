"""The layer checker must refuse wrong trees and name file and line."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_layers  # noqa: E402

TABLE = """# House

Some other fence:

```
build/release/bin/salient
```

```
 2   awq/     recipe/    the top
 1   tensor/             shapes
 0   base/               errors
```
"""
GOOD = {
    "docs/architecture.md": TABLE,
    "include/salient/error.h": "#pragma once\n#include <string>\n",
    "src/base/error.h": '#include <fmt/format.h>\n#include "salient/error.h"\n',
    "src/tensor/tensor.h": '#include "base/error.h"\n#include "tensor/dtype.h"\n',
    "src/tensor/dtype.h": "#pragma once\n",
    "src/awq/awq.cc": '#include "base/error.h"\n#include "tensor/tensor.h"\n',
    "src/recipe/recipe.h": "#pragma once\n",
}


class CheckLayers(unittest.TestCase):
    def errors(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            for name, content in (GOOD | changes).items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(content)
            return check_layers.Tree(root).check()

    def test_a_tree_in_order_passes(self):
        self.assertEqual(self.errors({}), [])

    def test_including_upwards_fails(self):
        errors = self.errors({"src/base/error.h": '#pragma once\n\n#include "tensor/dtype.h"\n'})
        self.assertEqual(errors, ["src/base/error.h:3: base/ includes tensor/, which stands above it"])

    def test_including_a_neighbour_fails(self):
        errors = self.errors({"src/awq/awq.cc": '#include "recipe/recipe.h"\n'})
        self.assertEqual(errors, ["src/awq/awq.cc:1: awq/ includes recipe/, which stands beside it"])

    def test_bindings_for_python_have_their_line_too(self):
        table = TABLE.replace(" 2   awq/", " 3   python/             bindings\n 2   awq/")
        binding = {"docs/architecture.md": table, "python/bindings/x.cc": '#include "awq/a.h"\n', "src/awq/a.h": ""}
        self.assertEqual(self.errors(binding), [])
        errors = self.errors({**binding, "src/awq/a.h": '#include "bindings/x.h"\n', "python/bindings/x.h": ""})
        self.assertEqual(errors, ["src/awq/a.h:1: awq/ includes python/, which stands above it"])

    def test_a_nested_folder_belongs_to_its_room(self):
        errors = self.errors({"src/tensor/deep/er/x.cc": '# include "awq/a.h"\n', "src/awq/a.h": ""})
        self.assertEqual(errors, ["src/tensor/deep/er/x.cc:1: tensor/ includes awq/, which stands above it"])

    def test_an_unknown_folder_fails(self):
        errors = self.errors({"src/cellar/wine.cc": ""})
        self.assertEqual(errors, ["src/cellar/wine.cc:1: cellar/ is missing from the layer table"])

    def test_a_circle_within_a_folder_fails(self):
        errors = self.errors({"src/tensor/dtype.h": '#include "tensor/tensor.h"\n'})
        self.assertEqual(len(errors), 1)
        self.assertIn("includes in a circle: ", errors[0])

    def test_public_headers_stay_free_of_internals_and_third_parties(self):
        errors = self.errors({"include/salient/error.h": '#include "base/x.h"\n#include <fmt/format.h>\n', "src/base/x.h": ""})
        self.assertEqual(errors[0], "include/salient/error.h:1: a public header includes src/base")
        self.assertIn("include/salient/error.h:2: a public header includes <fmt/format.h>", errors[1])

    def test_a_header_that_does_not_exist_fails(self):
        errors = self.errors({"src/awq/awq.cc": '#include "tensor/gone.h"\n'})
        self.assertEqual(errors, ['src/awq/awq.cc:1: "tensor/gone.h" is nowhere in src/ or include/'])

    def test_comments_do_not_count(self):
        self.assertEqual(self.errors({"src/base/x.cc": '// #include "awq/a.h"\n/*\n#include "awq/a.h"\n*/\n'}), [])

    def test_a_document_without_the_table_fails(self):
        self.assertEqual(self.errors({"docs/architecture.md": "# House\n"}), ["docs/architecture.md: no layer table found"])

    def test_the_command_fails_for_a_wrong_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "docs/architecture.md").write_text(TABLE)
            (root / "src/base").mkdir(parents=True)
            (root / "src/base/a.cc").write_text('#include "nowhere.h"\n')
            command = [sys.executable, "-B", str(ROOT / "scripts/check_layers.py"), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            self.assertEqual((done.returncode, done.stdout.count("\n")), (1, 1))


if __name__ == "__main__":
    unittest.main()
