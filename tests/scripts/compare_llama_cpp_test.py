"""The comparison with llama.cpp, run on stand-ins: rows in turns, finished runs kept, ratios and shares as they should be."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import compare_llama_cpp  # noqa: E402

SALIENT = """#!/usr/bin/env python3
import json, os, sys
here = os.path.dirname(__file__)
if sys.argv[1] == "quantize":
    os.mkdir(sys.argv[sys.argv.index("-o") + 1])
    sys.exit()
value = lambda flag: sys.argv[sys.argv.index(flag) + 1]
open(here + "/calls", "a").write(f"salient {value('--activations')} {os.environ.get('SALIENT_ISA')} {value('--threads')}\\n")
speed = {"int8": 60.0, "int16": 40.0, "fp32": 20.0}[value("--activations")] * int(value("--threads"))
row = lambda n: {"prefill_length": n, "weight_bytes_per_step": 5e8, "prefill_tokens_per_second": 10 * speed, "decode_tokens_per_second": speed}
rows = [row(int(n)) for n in value("--prefill-length").split(",")]
print(json.dumps({"device": "cpu: x", "bandwidth": 4e10 * int(value("--threads")), "rows": rows}))
"""
LLAMA = """#!/usr/bin/env python3
import json, os, sys
here = os.path.dirname(__file__)
if sys.argv[1] == "-c":
    print("1.2.3")
elif sys.argv[2] == "make":
    open(sys.argv[4], "w").write("gguf")
else:
    _, _, _, path, threads, decode, repeat, *lengths = sys.argv
    if os.path.exists(here + "/broken"):
        sys.exit("no room left")
    open(here + "/calls", "a").write(f"llama {os.path.basename(path)} {threads} {decode} {repeat}\\n")
    row = lambda n: {"prefill_length": n, "prefill_tokens_per_second": 100.0, "decode_tokens_per_second": 20.0 * int(threads)}
    print("chatter")
    print(json.dumps({"device": "x", "weight_bytes_per_step": 6e8, "rows": [row(int(n)) for n in lengths]}))
"""


class CompareLlamaCpp(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        for name, text in {"salient": SALIENT, "llama": LLAMA}.items():
            (self.root / name).write_text(text)
            (self.root / name).chmod(0o755)
        compare_llama_cpp.DIMS["few"] = {"hidden": 64, "intermediate": 64, "layers": 1, "heads": 2, "kv-heads": 1, "vocab": 512}
        self.addCleanup(compare_llama_cpp.DIMS.pop, "few")

    def compare(self, *more, weights=("--dims", "few")):
        arguments = ["--out", self.root / "out", "--salient", self.root / "salient", *weights]
        arguments += ["--llama-python", self.root / "llama", *more]
        (self.root / "calls").write_text("")
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
            compare_llama_cpp.main([str(argument) for argument in arguments])
        self.output = output.getvalue()
        return (self.root / "calls").read_text().splitlines()

    def test_engines_run_in_turns_and_stand_side_by_side(self):
        calls = self.compare("--rounds", "1", "--decode", "4", "--llama-avx2-python", self.root / "llama", "--threads", "2")
        first = ["salient int16 None 2", "llama q4_0.gguf 2 4 2", "salient int8 None 2", "salient fp32 None 2"]
        self.assertEqual(calls[:4], first)
        self.assertEqual(calls[4:6], ["salient int16 avx2,no-vnni 2", "llama q4_0.gguf 2 4 2"])
        rows = json.loads((self.root / "out/results.json").read_text())["rows"]
        self.assertEqual(rows[0]["ratios"]["decode_tokens_per_second"], {"1": 2.0, "512": 2.0, "2048": 2.0})
        self.assertEqual(rows[0]["share_of_roof"]["1"], 5e8 * 80 / 8e10)
        self.assertEqual((rows[1]["roof"], rows[1]["share_of_roof"]["512"]), (8e10, 6e8 * 40 / 8e10))
        self.assertIn("| 2 | native | salient int16 | 500 | 800.0 (8.00x) | 800.0 (8.00x) | 80.0 (2.00x) |", self.output)
        self.assertIn("| 2 | native | llama.cpp q4_0 | 600 | 100.0 | 100.0 | 40.0 | 40.0 | 40.0 | 30 % |", self.output)

    def test_a_machine_that_is_not_quiet_is_named(self):
        with unittest.mock.patch("os.getloadavg", return_value=(7.25, 0, 0)):
            self.compare("--rounds", "1", "--threads", "1", "--isa", "native")
        self.assertIn("(load 7.2 to 7.2): times and ratios are estimates", self.output)

    def test_without_a_build_for_avx2_its_rows_are_left_out(self):
        calls = self.compare("--rounds", "1", "--threads", "1", "--long")
        self.assertEqual(sum(call.startswith("llama") for call in calls), 1)
        self.assertEqual(sum("avx2" in call for call in calls), 3)
        self.assertIn("decoding behind 4096", self.output)

    def test_finished_runs_are_kept_until_settings_or_salient_change(self):
        options = ("--rounds", "2", "--threads", "1", "--isa", "native", "--activations", "int8")
        self.assertEqual(len(self.compare(*options)), 4)
        self.assertEqual(self.compare(*options), [])
        self.assertEqual(len(self.compare(*options, "--decode", "7")), 4)
        (self.root / "salient").write_text(SALIENT + "# another build\n")
        self.assertEqual(self.compare(*options, "--decode", "7"), ["salient int8 None 1"] * 2)

    def test_models_are_told_apart_by_their_places(self):
        options = ("--rounds", "1", "--threads", "1", "--isa", "native", "--activations", "int8")
        for folder in ("a", "b"):
            model = self.root / folder / "few"
            model.mkdir(parents=True)
            with self.assertRaises(SystemExit):
                self.compare(*options, weights=("--model", model))
            (model / "model.safetensors").touch()
            self.assertEqual(len(self.compare(*options, weights=("--model", model))), 2)
            self.assertTrue(self.output.startswith("model few; Salient int4"), self.output)

    def test_a_run_that_fails_is_named_and_made_again(self):
        options = ("--rounds", "1", "--threads", "1", "--isa", "native", "--activations", "int8")
        (self.root / "broken").touch()
        with self.assertRaisesRegex(SystemExit, "ended with status 1(.|\n)*no room left"):
            self.compare(*options)
        (self.root / "broken").unlink()
        self.assertEqual([call.split()[0] for call in self.compare(*options)], ["llama"])


if __name__ == "__main__":
    unittest.main()
