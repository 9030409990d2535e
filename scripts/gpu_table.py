#!/usr/bin/env python3
"""Makes the tables of docs/performance-gpu.md from what ./dev gpu found.

usage: gpu_table.py [--page PAGE] [--check] [JSON...]

Without files it takes all of docs/gpu. What stands between the markers of the page is replaced; with --check nothing is
written, and the exit status is 1 where the page is not what it would be.
"""
import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
NOTHING = "The kernels have not run on a GPU yet: there are no figures.\n"
MOST_FAILURES = 30
LAYERS = 32  # of the model of which quantization_speed runs one


def number(value, digits=1):
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "?" if value is None else str(value)


def percent(value):
    return number(100 * value, 0) + " %" if isinstance(value, (int, float)) else "?"


def table(head, rows):
    """Markdown; the first column to the left, numbers to the right."""
    if not rows:
        return ""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines) + "\n"


def rows_of(report, section):
    return report.get("sections", {}).get(section, {}).get("rows", [])


def product(report, rows, out=8192, columns=8192):
    found = [r for r in rows_of(report, "product_speed") if (r["out"], r["in"], r["rows"]) == (out, columns, rows)]
    return found[0] if found else {}


def decoded(report, batch):
    found = [r for r in rows_of(report, "decoder_speed") if r["batch"] == batch and "ms_per_step" in r]
    return found[0] if found else {}


def ratio(a, b):
    return a / b if isinstance(a, (int, float)) and isinstance(b, (int, float)) and b > 0 else None


def goals(report):
    """(what, wanted, measured or None, its text, whether it is met) for each."""
    one, sixteen = product(report, 1).get("us"), product(report, 16).get("us")
    quantization = report.get("sections", {}).get("quantization_speed", {})
    minutes = ratio(quantization.get("seconds_of_model"), 60)
    asked = [
        ("one row, 8192 x 8192: of the memory's peak", "at least", 0.75, product(report, 1).get("share_of_peak"), percent),
        ("16 rows, 8192 x 8192: times as long as one", "at most", 1.15, ratio(sixteen, one), lambda v: number(v, 2)),
        ("64 rows, 8192 x 8192: times cuBLASLt in fp16", "at least", 2.0, product(report, 64).get("times_dense"), lambda v: number(v, 2)),
        ("2048 rows, 8192 x 8192: times cuBLASLt in fp16", "at least", 0.9, product(report, 2048).get("times_dense"), lambda v: number(v, 2)),
        ("a token of the 8B shape: of the roofline", "at least", 0.7, decoded(report, 1).get("share_of_roofline"), percent),
        ("quantizing the 8B shape, minutes", "at most", 3.0, minutes, number),
    ]
    for what, bound, wanted, measured, text in asked:
        known = isinstance(measured, (int, float))
        met = known and (measured >= wanted if bound == "at least" else measured <= wanted)
        if what.startswith("quantizing") and "given_up_after_seconds" in quantization:
            yield what, f"{bound} {text(wanted)}", f"more than {number(LAYERS * quantization['given_up_after_seconds'] / 60)}", "no"
            continue
        yield what, f"{bound} {text(wanted)}", text(measured) if known else "not measured", "yes" if met else "no" if known else ""


def product_table(report):
    rows = []
    for row in rows_of(report, "product_speed"):
        rows.append(
            [f"{row['out']} x {row['in']}, {row['bits']} bits", row["rows"], row["kernel"], number(row["us"]), number(row.get("us_with_input")),
             number(row["gb_per_s"], 0), percent(row["share_of_copy"]), percent(row["share_of_peak"]), number(row["tflops"]),
             number(row.get("dense", {}).get("us")), number(row.get("times_dense"), 2)])  # fmt: skip
    head = ["product", "rows", "kernel", "us", "with its input", "GB/s", "of copies", "of the peak", "TFLOP/s", "fp16 us", "times fp16"]
    return table(head, rows)


def attention_table(report):
    rows = [
        [f"{r['queries']} at {r['first_position']}, {r['cache']}", r["kernel"], r["splits"], number(r["us"]), number(r["gb_per_s"], 0),
         percent(r["share_of_copy"]), number(r["tflops"])]
        for r in rows_of(report, "attention_speed")
    ]  # fmt: skip
    return table(["queries", "kernel", "splits", "us", "GB/s", "of copies", "TFLOP/s"], rows)


def decoder_table(report):
    rows = [
        [f"{r['batch']} x {r['prompt']} + {r['decoded']}", number(r["prefill_tokens_per_second"], 0), number(r.get("decode_tokens_per_second", "")),
         number(r.get("ms_per_step", ""), 2), percent(r["share_of_roofline"]) if "share_of_roofline" in r else "",
         number(r["device_bytes"] / 2**30) + " GiB"]
        for r in rows_of(report, "decoder_speed")
    ]  # fmt: skip
    return table(["texts x prompt + tokens", "prompt tokens/s", "tokens/s", "ms a step", "of the roofline", "GPU memory"], rows)


def profile_table(report):
    """The kernels of a step that take most, alone, one launch behind the other."""
    rows = []
    for profile in report.get("sections", {}).get("decoder_speed", {}).get("profiles", []):
        kernels = profile["kernels"]
        total = sum(kernel["us"] for kernel in kernels)
        rows.append([f"**{profile['of']}**: {number(profile['us'], 0)} us, with the host", sum(k["launches"] for k in kernels), number(total, 0)])
        rows.extend([kernel["kernel"], kernel["launches"], number(kernel["us"], 0)] for kernel in kernels[:6])
    return table(["kernel", "launches", "us"], rows)


def check_table(report):
    rows = []
    for name, section in report.get("sections", {}).items():
        for check, found in section.get("checks", {}).items():
            rows.append([f"{name}: {check}", found["cases"], found["failed"], found["error"] if isinstance(found["error"], str) else f"{found['error']:.1e}",
                         f"{found['bound']:.0e}"])  # fmt: skip
    return table(["check", "cases", "failed", "largest error", "bound"], rows)


def failure_list(report):
    lines, count = [], 0
    for name, section in report.get("sections", {}).items():
        failures = section.get("failures", [])
        count += len(failures) + section.get("more_failures", 0)
        for failure in failures:
            what = failure.get("text") or f"off by {failure.get('error')} ({failure.get('wrong')} of {failure.get('of')})"
            lines.append(f"- {name}, {failure['check']}: {failure['case']}: {what}\n")
    if count == 0:
        return "No check failed.\n\n"
    return f"{count} checks failed:\n\n" + "".join(lines[:MOST_FAILURES]) + ("- ...\n" if count > MOST_FAILURES else "") + "\n"


def describe(report):
    device = report.get("sections", {}).get("device", {})
    properties = device.get("properties", {})
    left_out = sum(len(section.get("left_out", [])) for section in report.get("sections", {}).values())
    text = f"## {properties.get('name', 'a GPU')}, {report.get('date', '?')}\n\n"
    copies = device.get("copy_bytes_per_second")
    text += f"CUDA {device.get('driver', {}).get('driver_cuda', '?')}; copies move {number(copies and copies * 1e-9, 0)} GB/s"
    text += f" ({percent(device.get('copy_share_of_peak'))} of the peak); the run took {number(report.get('seconds'), 0)} s"
    text += f", {left_out} cases were left out for want of time.\n\n" if left_out else ".\n\n"
    return text


def render(report):
    parts = [describe(report), table(["goal", "wanted", "measured", "met"], [list(goal) for goal in goals(report)]), failure_list(report)]
    for title, content in (
        ("Products", product_table(report)),
        ("Attention", attention_table(report)),
        ("Llama 3 8B's shape, random weights", decoder_table(report)),
        ("Where a step's time goes", profile_table(report)),
        ("What was checked", check_table(report)),
    ):
        if content:
            parts.append(f"### {title}\n\n{content}")
    return "".join(parts)


def replaced(page, reports):
    """The page with what `reports` say between its markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page needs {BEGIN} and {END} once each")
    before, rest = page.split(BEGIN)
    body = "\n".join(render(report) for report in reports) if reports else NOTHING
    return before + BEGIN + "\n" + body.rstrip("\n") + "\n" + END + rest.split(END)[1]


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/performance-gpu.md")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    parser.add_argument("reports", nargs="*", type=pathlib.Path)
    options = parser.parse_args(arguments)
    files = options.reports or sorted((ROOT / "docs/gpu").glob("*.json"))
    page = options.page.read_text("utf-8")
    made = replaced(page, [json.loads(file.read_text("utf-8")) for file in files])
    if options.check:
        print(f"{options.page}: " + ("up to date" if made == page else "not what scripts/gpu_table.py makes"))
        return 0 if made == page else 1
    options.page.write_text(made, "utf-8")
    print(f"{options.page}: {len(files)} devices")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
