"""The comparison of peers, run on stand-ins: each row once, finished rows kept, failures said aloud."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import compare_peers  # noqa: E402

QUANTIZER = """import json, os, sys
open(os.path.dirname(__file__) + "/calls", "a").write(os.path.basename(__file__) + " " + " ".join(sys.argv[4:]) + "\\n")
os.mkdir(sys.argv[3])
open(sys.argv[3] + "/model.safetensors", "wb").write(b"0" * 2**20)
block = bytearray(64 * 2**20)
print("some chatter")
print(json.dumps({"peer": "x", "quantize_s": 40.0}))
print("more chatter")
"""
JUDGE = """import json, sys
row = {"ppl": 12.5, "quantized_linears": 7}
print(json.dumps(row | ({"mean_kl": 0.25, "same_top": 0.5} if "--dense" in sys.argv else {})))
"""
SALIENT = """#!/usr/bin/env python3
import json, os, sys
open(os.path.dirname(__file__) + "/calls", "a").write("salient " + " ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "quantize":
    if "--format" in sys.argv and os.path.exists(os.path.dirname(__file__) + "/broken"):
        sys.exit("no room left")
    os.mkdir(sys.argv[sys.argv.index("-o") + 1])
else:
    print(json.dumps({"perplexity": 12.5001}, indent=1))
"""


class ComparePeers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        files = {"llm_compressor_awq.py": QUANTIZER, "autoawq_awq.py": QUANTIZER, "judge.py": JUDGE, "salient": SALIENT}
        for name, text in files.items():
            (self.root / name).write_text(text)
        (self.root / "salient").chmod(0o755)
        (self.root / "tiny").mkdir()

    def compare(self, *more):
        arguments = ["--peers", self.root, "--model", self.root / "tiny", "--calibration", "c.txt", "--evaluation", "e.txt"]
        arguments += ["--out", self.root / "out", "--salient", self.root / "salient"]
        arguments += ["--llmc-python", sys.executable, "--autoawq-python", sys.executable, *more]
        (self.root / "calls").write_text("")
        with contextlib.redirect_stdout(io.StringIO()):
            compare_peers.main([str(argument) for argument in arguments])
        return (self.root / "calls").read_text().splitlines()

    def test_every_row_runs_once_and_stands_in_the_table(self):
        calls = self.compare("--samples", "8", "--seq", "64", "--group", "32")
        self.assertIn("llm_compressor_awq.py 8 64 32 asym float32", calls)
        self.assertIn("autoawq_awq.py 8 64 32", calls)
        self.assertEqual(sum(call.startswith("salient quantize") for call in calls), 5)
        self.assertEqual(sum(call.startswith("salient eval") for call in calls), 8)
        rows = json.loads((self.root / "out/results.json").read_text())["rows"]
        self.assertEqual([row["row"] for row in rows], list(compare_peers.ROWS))
        self.assertGreater(rows[1]["quantize"]["peak_mib"], 64)
        self.assertEqual((rows[1]["quantize"]["quantize_only_s"], rows[1]["weight_mib"]), (40.0, 1.0))
        table = (self.root / "out/results.md").read_text()
        self.assertIn("| dense original | 12.5000 | 12.5001 |  |  |", table)
        self.assertIn("| AWQ, AutoAWQ | 12.5000 | 12.5001 | 0.2500 | 0.5000 | 1.0 |", table)

    def test_finished_rows_are_kept_until_the_settings_change(self):
        self.compare("--rows", "autoawq")
        self.assertEqual(self.compare("--rows", "autoawq"), [])
        self.assertEqual(len(self.compare("--rows", "autoawq", "--samples", "5")), 2)

    def test_a_row_that_fails_is_named_and_made_again(self):
        (self.root / "broken").touch()
        with self.assertRaisesRegex(SystemExit, "ended with status 1(.|\n)*no room left"):
            self.compare("--rows", "salient-awq", "salient-awq-gemm")
        (self.root / "broken").unlink()
        calls = self.compare("--rows", "salient-awq", "salient-awq-gemm")
        self.assertEqual([call.split()[1] for call in calls], ["quantize", "eval"])


if __name__ == "__main__":
    unittest.main()
