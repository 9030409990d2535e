#!/usr/bin/env python3
"""Quantize one model with llm-compressor, AutoAWQ and Salient on the same calibration tokens, and judge every result.

One row after another, each alone on the machine. A finished row is kept in OUT/ROW/row.json and skipped next time, so a
run can be interrupted; a row made with other settings is made again. OUT/results.json holds everything, OUT/results.md
the table.

Wall time and peak memory are those of the whole process that quantizes: start, load, quantize, save. The peers' scripts
also report the quantization alone, which is what the ratios compare Salient's whole process with.

PEERS is a folder with llm_compressor_awq.py, autoawq_awq.py and judge.py (MODEL TEXT OUT SAMPLES SEQ GROUP ...; one JSON
line on standard output), outside the project. Only the standard library is needed here.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = ("dense", "llm-compressor", "autoawq", "salient-rtn", "salient-fast", "salient-awq", "salient-best", "salient-awq-gemm")
PEER_ROWS = ("llm-compressor", "autoawq")
TITLES = {
    "dense": "dense original",
    "llm-compressor": "AWQ, llm-compressor",
    "autoawq": "AWQ, AutoAWQ",
    "salient-rtn": "round to nearest, Salient",
    "salient-fast": "AWQ, Salient, `--effort fast`",
    "salient-awq": "**AWQ, Salient**",
    "salient-best": "AWQ, Salient, `--effort best`",
    "salient-awq-gemm": "**AWQ, Salient**, `autoawq-gemm`",
}


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--calibration", type=pathlib.Path, required=True, help="plain text")
    parser.add_argument("--evaluation", type=pathlib.Path, required=True, help="plain text")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, default=os.environ.get("SALIENT_PEERS"), help="default: $SALIENT_PEERS")
    parser.add_argument("--llmc-python", default="python3", help="interpreter with llm-compressor; also runs the judge")
    parser.add_argument("--autoawq-python", default="python3", help="interpreter with AutoAWQ")
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/bin/salient")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--windows", type=int, default=40, help="of SEQ tokens of the evaluation text")
    parser.add_argument("--llmc-dtype", default="float32")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"of: {' '.join(ROWS)}")
    options = parser.parse_args(arguments)
    if options.peers is None:
        parser.error("no folder of peers: give --peers or set SALIENT_PEERS")
    return options


def quantize_command(row, options, target):
    counts = [str(options.samples), str(options.seq), str(options.group)]
    inputs = [str(options.model), str(options.calibration), str(target)]
    if row == "llm-compressor":
        script = str(options.peers / "llm_compressor_awq.py")
        return [options.llmc_python, script, *inputs, *counts, "asym", options.llmc_dtype]
    if row == "autoawq":
        return [options.autoawq_python, str(options.peers / "autoawq_awq.py"), *inputs, *counts]
    command = [str(options.salient), "quantize", str(options.model), "-o", str(target), "--overwrite"]
    command += ["--scheme", "W4A16_ASYM", "--group-size", counts[2], "--data", str(options.calibration)]
    command += ["--num-calibration-samples", counts[0], "--max-seq-length", counts[1]]
    command += ["--method", "rtn" if row == "salient-rtn" else "awq"]
    own = {"salient-awq-gemm": ["--format", "autoawq-gemm"], "salient-fast": ["--effort", "fast"], "salient-best": ["--effort", "best"]}
    return command + own.get(row, [])


def judge_command(row, options, checkpoint):
    command = [options.llmc_python, str(options.peers / "judge.py"), str(checkpoint), str(options.evaluation)]
    command += ["--window", str(options.seq), "--windows", str(options.windows)]
    return command if row == "dense" else command + ["--dense", str(options.model)]


def evaluate_command(row, options, checkpoint):
    command = [str(options.salient), "eval", str(checkpoint), "--text", str(options.evaluation), "--json"]
    command += ["--window", str(options.seq), "--max-windows", str(options.windows)]
    return command if row == "dense" else command + ["--against", str(options.model)]


def run(command, log, environment=None):
    """Runs alone and to the end; standard output, wall seconds, peak resident MiB and processor seconds."""
    with open(log, "wb") as errors:
        begin = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | (environment or {}),
        )
        with process.stdout as stream:
            output = stream.read().decode("utf-8", "replace")
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone, unlike getrusage
        wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join((output + log.read_text("utf-8", "replace")).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)}\nended with status {process.returncode}; see {log}\n{tail}")
    cost = {"wall_s": round(wall, 2), "peak_mib": round(usage.ru_maxrss / 1024, 1)}
    return output, cost | {"cpu_s": round(usage.ru_utime + usage.ru_stime, 2)}


def parse_json(output):
    """The whole of `output`, or its last line that is a JSON object (peers print other things too)."""
    for text in (output, *reversed(output.splitlines())):
        try:
            if isinstance(value := json.loads(text), dict):
                return value
        except ValueError:
            pass
    raise SystemExit(f"expected a JSON object, got:\n{output[-2000:]}")


def weight_bytes(checkpoint):
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


def make_row(row, options):
    folder = options.out / row
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = {"row": row, "load_before": round(os.getloadavg()[0], 2)}
    checkpoint = options.model
    if row != "dense":
        checkpoint = folder / "model"
        output, result["quantize"] = run(quantize_command(row, options, checkpoint), folder / "quantize.log")
        (folder / "quantize.out").write_text(output)
        if row in PEER_ROWS:
            result["quantize"]["quantize_only_s"] = round(parse_json(output)["quantize_s"], 2)
    result["weight_mib"] = round(weight_bytes(checkpoint) / 2**20, 1)
    output, result["judge_cost"] = run(judge_command(row, options, checkpoint), folder / "judge.log")
    result["judge"] = parse_json(output)
    output, result["salient_eval_cost"] = run(evaluate_command(row, options, checkpoint), folder / "eval.log")
    result["salient_eval"] = parse_json(output)
    return result


def settings(options):
    keys = ("model", "calibration", "evaluation", "samples", "seq", "group", "windows", "llmc_dtype")
    return {key: value if isinstance(value := getattr(options, key), int) else str(value) for key in keys}


def made_by(row):
    """What else a kept row depends on: rows of Salient are made again by another Salient."""
    return salient_version() if row.startswith("salient") else "peer"


def finished_row(row, options):
    try:
        kept = json.loads((options.out / row / "row.json").read_text())
    except FileNotFoundError:
        return None
    same = kept["settings"] == settings(options) and kept.get("made_by") == made_by(row)
    return kept if same else None


def salient_version():
    return version(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])


def version(command):
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def package_version(python, name):
    return version([python, "-c", f"import importlib.metadata as m; print(m.version('{name}'))"])


def machine_facts():
    cpu = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text("utf-8"))
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "salient": salient_version(),
    }


def machine(options):
    return machine_facts() | {
        "llmcompressor": package_version(options.llmc_python, "llmcompressor"),
        "autoawq": package_version(options.autoawq_python, "autoawq"),
    }


def ratio(row, peers, key):
    """How many times less than the best peer this row takes; '' where there is nothing to compare."""
    best = min((peer["quantize"][key] for peer in peers if key in peer["quantize"]), default=None)
    mine = row.get("quantize", {}).get("peak_mib" if key == "peak_mib" else "wall_s")
    return f"{best / mine:.1f}x" if best and mine and row not in peers else ""


def table(result):
    rows, about = result["rows"], result["machine"]
    peers = [row for row in rows if row["row"] in PEER_ROWS]
    setting = result["settings"]
    lines = [
        f"{pathlib.Path(setting['model']).name}, W4A16 asymmetric, group {setting['group']}, calibrated on {setting['samples']} x "
        f"{setting['seq']} tokens, judged on {setting['windows']} windows of {setting['seq']}. {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, {about['date']}; llm-compressor {about['llmcompressor']} ({setting['llmc_dtype']}), "
        f"AutoAWQ {about['autoawq']}, Salient {about['salient']}.",
        "",
        "| | perplexity | Salient's figure | KL to dense | same top-1 | weights MiB | wall s | peak MiB | faster | smaller |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        judge, cost = row["judge"], row.get("quantize", {})
        wall = f"{cost['wall_s']:.1f}" if cost else ""
        wall += f" ({cost['quantize_only_s']:.1f})" if "quantize_only_s" in cost else ""
        cells = [TITLES[row["row"]], f"{judge['ppl']:.4f}", f"{row['salient_eval']['perplexity']:.4f}"]
        cells += [f"{judge[key]:.4f}" if key in judge else "" for key in ("mean_kl", "same_top")]
        cells += [f"{row['weight_mib']:.1f}", wall, f"{cost['peak_mib']:.0f}" if cost else ""]
        cells += [ratio(row, peers, "quantize_only_s"), ratio(row, peers, "peak_mib")]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Wall and peak: the whole process; in parentheses the quantization alone. Faster: the quicker peer's quantization alone over "
        "Salient's whole process. Smaller: the lower peer's peak over Salient's.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments):
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in ROWS:
        kept = finished_row(row, options)
        if kept is None and row in options.rows:
            print(f"{row} ...", flush=True)
            if os.getloadavg()[0] > 0.5:
                print(f"  the machine is not quiet (load {os.getloadavg()[0]:.2f}): times and ratios are estimates", flush=True)
            kept = make_row(row, options) | {"settings": settings(options), "made_by": made_by(row)}
            (options.out / row / "row.json").write_text(json.dumps(kept, indent=1) + "\n")
        if kept is not None:
            rows.append(kept)
    result = {"machine": machine(options), "settings": settings(options), "rows": rows}
    (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "results.md").write_text(table(result))
    print(table(result), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
