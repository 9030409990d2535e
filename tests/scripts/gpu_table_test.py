"""The tables of a GPU's report: figures where they belong, goals judged, failures told, pages that are out of date found."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import gpu_table  # noqa: E402


def product(rows, us, share=0.5, times=1.0, **more):
    return {"out": 8192, "in": 8192, "bits": 4, "rows": rows, "kernel": "w4_gemv_f16", "us": us, "us_with_input": us + 1, "gb_per_s": 2000.0,
            "share_of_copy": 0.6, "share_of_peak": share, "tflops": 3.0, "dense": {"us": us * times}, "times_dense": times, **more}  # fmt: skip


def report():
    return {
        "date": "2026-01-02",
        "seconds": 321.4,
        "sections": {
            "device": {"properties": {"name": "NVIDIA H100"}, "driver": {"driver_cuda": "13.0"}, "copy_bytes_per_second": 3e12, "copy_share_of_peak": 0.9},
            "products": {"checks": {"w4_gemv_f16": {"cases": 12, "failed": 0, "error": 1.5e-7, "bound": 5e-6}}, "failures": []},
            "product_speed": {"rows": [product(1, 12.0, 0.8, 4.0), product(16, 15.0, 0.7, 3.0), product(64, 30.0, 0.3, 2.5)], "left_out": ["2048 rows"]},
            "decoder_speed": {"rows": [{"batch": 1, "prompt": 128, "decoded": 64, "prefill_tokens_per_second": 9000.0, "device_bytes": 2**33,
                                        "decode_tokens_per_second": 400.0, "ms_per_step": 2.5, "share_of_roofline": 0.65},
                                       {"batch": 1, "prompt": 2048, "decoded": 0, "prefill_tokens_per_second": 20000.0, "device_bytes": 2**33}],
                              "profiles": [{"of": "a token", "us": 2500.0, "kernels": [{"kernel": "w4_gemv_f16", "launches": 224, "us": 1500.4},
                                                                                       {"kernel": "kv_rows", "launches": 128, "us": 300.0}]}]},
            "quantization_speed": {"seconds_of_model": 150.0},
        },
    }  # fmt: skip


class GpuTable(unittest.TestCase):
    def test_goals_are_judged(self):
        judged = {goal[0].split(":")[0]: goal[2:] for goal in gpu_table.goals(report())}
        self.assertEqual(judged["one row, 8192 x 8192"], ("80 %", "yes"))
        self.assertEqual(judged["16 rows, 8192 x 8192"], ("1.25", "no"))
        self.assertEqual(judged["64 rows, 8192 x 8192"], ("2.50", "yes"))
        self.assertEqual(judged["2048 rows, 8192 x 8192"], ("not measured", ""))
        self.assertEqual(judged["a token of the 8B shape"], ("65 %", "no"))
        self.assertEqual(judged["quantizing the 8B shape, minutes"], ("2.5", "yes"))

    def test_nothing_measured_is_no_goal_met(self):
        self.assertEqual({goal[3] for goal in gpu_table.goals({})}, {""})

    def test_what_was_given_up_is_a_goal_missed(self):
        slow = report()
        slow["sections"]["quantization_speed"] = {"given_up_after_seconds": 75.0}
        self.assertEqual(list(gpu_table.goals(slow))[-1][2:], ("more than 40.0", "no"))

    def test_tables_have_the_figures(self):
        text = gpu_table.render(report())
        self.assertIn("## NVIDIA H100, 2026-01-02\n", text)
        self.assertIn("copies move 3000 GB/s (90 % of the peak); the run took 321 s, 1 cases were left out", text)
        self.assertIn("| 8192 x 8192, 4 bits | 16 | w4_gemv_f16 | 15.0 | 16.0 | 2000 | 60 % | 70 % | 3.0 | 45.0 | 3.00 |\n", text)
        self.assertIn("| 1 x 128 + 64 | 9000 | 400.0 | 2.50 | 65 % | 8.0 GiB |\n", text)
        self.assertIn("| 1 x 2048 + 0 | 20000 |  |  |  | 8.0 GiB |\n", text)
        self.assertIn("| **a token**: 2500 us, with the host | 352 | 1800 |\n| w4_gemv_f16 | 224 | 1500 |\n| kv_rows | 128 | 300 |\n", text)
        self.assertIn("| products: w4_gemv_f16 | 12 | 0 | 1.5e-07 | 5e-06 |\n", text)
        self.assertIn("No check failed.\n", text)
        self.assertNotIn("### Attention", text)

    def test_every_row_has_as_many_cells_as_its_head(self):
        cells = set()
        for line in gpu_table.render(report()).splitlines():
            if line.startswith("| ---"):
                cells = {line.count("|")}
            elif line.startswith("|") and cells:
                self.assertIn(line.count("|"), cells, line)
            else:
                cells = set()

    def test_failures_are_told(self):
        bad = report()
        bad["sections"]["products"]["failures"] = [
            {"check": "w4_gemv_f16", "case": "17 x 64", "error": 0.3, "wrong": 2, "of": 17},
            {"check": "process", "case": "1 x 64", "text": "killed by signal 6"},
        ]
        bad["sections"]["products"]["checks"]["w4_gemv_f16"]["error"] = "infinite"
        bad["sections"]["attention"] = {"failures": [{"check": "x", "case": str(i), "text": "t"} for i in range(40)], "more_failures": 5}
        text = gpu_table.render(bad)
        self.assertIn("47 checks failed:\n", text)
        self.assertIn("- products, w4_gemv_f16: 17 x 64: off by 0.3 (2 of 17)\n", text)
        self.assertIn("- products, process: 1 x 64: killed by signal 6\n", text)
        self.assertEqual(text.count("- attention, x:"), 28)
        self.assertIn("| 12 | 0 | infinite |", text)

    def test_a_report_that_was_cut_short(self):
        self.assertIn("## a GPU, ?", gpu_table.render({"sections": {"device": {}}}))
        self.assertIn("not measured", gpu_table.render({}))

    def test_the_page(self):
        page = f"above\n{gpu_table.BEGIN}\nold\n{gpu_table.END}\nbelow\n"
        self.assertEqual(gpu_table.replaced(page, []), f"above\n{gpu_table.BEGIN}\n{gpu_table.NOTHING}{gpu_table.END}\nbelow\n")
        made = gpu_table.replaced(page, [report(), report()])
        self.assertEqual(made.count("## NVIDIA H100"), 2)
        self.assertTrue(made.startswith("above\n") and made.endswith("below\n"))
        self.assertEqual(gpu_table.replaced(made, []), gpu_table.replaced(page, []))
        with self.assertRaises(ValueError):
            gpu_table.replaced("no markers", [])

    def test_the_program(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            page, data = pathlib.Path(folder) / "page.md", pathlib.Path(folder) / "gpu.json"
            page.write_text(f"{gpu_table.BEGIN}\n{gpu_table.END}\n")
            data.write_text(json.dumps(report()))
            self.assertEqual(gpu_table.main(["--page", str(page), "--check", str(data)]), 1)
            self.assertEqual(gpu_table.main(["--page", str(page), str(data)]), 0)
            self.assertEqual(gpu_table.main(["--page", str(page), "--check", str(data)]), 0)
            self.assertIn("NVIDIA H100", page.read_text())

    def test_the_page_of_the_project_is_up_to_date(self):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.assertEqual(gpu_table.main(["--check"]), 0, output.getvalue())


if __name__ == "__main__":
    unittest.main()
