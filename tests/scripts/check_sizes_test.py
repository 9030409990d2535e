"""The size checker must find long functions in C++ as it is written, and must not invent any."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_sizes  # noqa: E402


def found(text):
    return [(name, last - first + 1) for name, first, last in check_sizes.functions(text)]


class FunctionScanner(unittest.TestCase):
    def test_functions_in_namespaces_and_classes(self):
        text = (
            "namespace a::b {\nnamespace {\n\nstruct alignas(64) Tile : Base<int()> {\n public:\n  int size() const {\n"
            "    return 1;\n  }\n  int n = 0;\n};\n\n}  // namespace\n\nvoid f(int x,\n       int y) {\n  if (x) {\n  }\n}\n}\n"
        )
        self.assertEqual(found(text), [("size", 3), ("f", 5)])

    def test_member_initialisers_belong_to_the_constructor(self):
        text = "Foo::Foo(int a)\n    : a_{a},\n      b_(std::move(c)),\n      d_{1, 2} {\n  work();\n}\n"
        self.assertEqual(found(text), [("Foo::Foo", 6)])

    def test_braces_in_default_arguments(self):
        text = "void f(const Options& options = {},\n       int x = 3) {\n  g([] { return 1; });\n}\nint g();\n"
        self.assertEqual(found(text), [("f", 4)])

    def test_braces_in_literals_comments_and_directives(self):
        text = (
            'void f() {\n  s = "}"; c = \'}\'; n = 1\'000\'000;  // }\n  /* } */ r = R"x(\n}\n)"\n)x";\n}\n'
            "#define OPEN {\\\n  {\nvoid g() {}\n"
        )
        self.assertEqual(found(text), [("f", 7), ("g", 1)])

    def test_templates_operators_and_tests(self):
        text = (
            "template <typename T, class U = A<B>>\nbool operator==(T a, U b) {\n  return a == b;\n}\n"
            "TEST(Room, Works) {\n}\nauto make() -> std::vector<int> {\n}\n"
        )
        self.assertEqual(found(text), [("operator==", 4), ("Room.Works", 2), ("make", 2)])

    def test_values_are_no_functions(self):
        text = "const std::map<int, int> kTable = {\n  {1, f(2)},\n  {3, 4},\n};\nenum class E {\n  a\n};\nint x{3};\n"
        self.assertEqual(found(text), [])

    def test_a_lambda_at_namespace_scope_is_one(self):
        self.assertEqual([lines for _, lines in found("const auto f = [](int a) {\n  return a;\n};\n")], [3])


class Check(unittest.TestCase):
    def errors(self, files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, content in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            return check_sizes.check(root)

    def test_limits_are_inclusive(self):
        function = "int f() {\n" + "  g();\n" * 78 + "}\n"
        script = "def f():\n" + "    g()\n" * 79
        self.assertEqual(self.errors({"a.cc": function, "b.py": script, "c.h": "\n" * 600, "d.bin": b"0" * 2_000_000}), [])

    def test_a_long_function_fails(self):
        errors = self.errors({"src/a.cc": "\nint f() {\n" + "  g();\n" * 79 + "}\n"})
        self.assertEqual(errors, ["src/a.cc:2: f has 81 lines; a function has at most 80"])

    def test_a_long_python_function_fails(self):
        errors = self.errors({"a.py": "def f():\n" + "    g()\n" * 80})
        self.assertEqual(errors, ["a.py:1: f has 81 lines; a function has at most 80"])

    def test_a_long_file_fails(self):
        self.assertEqual(self.errors({"a.h": "\n" * 601}), ["a.h:1: 601 lines; a file has at most 600"])

    def test_a_large_file_fails(self):
        errors = self.errors({"data.json": b"0" * 2_000_001})
        self.assertEqual(errors, ["data.json: 2000001 bytes; a committed file has at most 2000000"])

    def test_the_demo_weights_have_a_limit_of_their_own(self):
        weights = check_sizes.DEMO_WEIGHTS + "model.safetensors"
        self.assertEqual(self.errors({weights: b"0" * 12_000_000}), [])
        self.assertEqual(len(self.errors({weights: b"0" * 12_000_001})), 1)
        self.assertEqual(len(self.errors({check_sizes.DEMO_WEIGHTS + "tokenizer.json": b"0" * 2_000_001})), 1)

    def test_the_command_fails_for_a_wrong_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "a.h").write_text("\n" * 601)
            command = [sys.executable, "-B", str(ROOT / "scripts/check_sizes.py"), folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            self.assertEqual((done.returncode, done.stdout.count("\n")), (1, 1))


if __name__ == "__main__":
    unittest.main()
