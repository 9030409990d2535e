#!/usr/bin/env python3
"""Run llama.cpp and Salient on random weights of one shape, or on one model, in turns, and set their speeds side by side.

Both get the same checkpoint: llama.cpp as GGUF, quantized by llama.cpp itself; Salient in int4, rounded to nearest. Every
row is a process of its own that reads prompts and decodes behind each; in every round all rows run one after the other,
and the fastest round counts. A finished run is kept in OUT/runs/ and skipped next time, so that a comparison can be
interrupted; one made with other settings, or by another Salient, is made again. OUT/results.json holds everything,
OUT/results.md the table.

llama.cpp comes from PyPI (llama-cpp-python with gguf), compiled for this processor into OUT/llama-native, unless
--llama-python names an interpreter that has both. It has no switch for instruction sets: for rows with plain AVX2 there
must be a second build, --llama-avx2-python or --build-avx2. Only the standard library is needed here.
"""
import argparse
import hashlib
import json
import os
import pathlib
import sys

from compare_peers import ROOT, machine_facts, package_version, parse_json, run

DIMS = {
    "tinyllama": {"hidden": 2048, "intermediate": 5632, "layers": 22, "heads": 32, "kv-heads": 4, "vocab": 32000},
    "small": {"hidden": 1024, "intermediate": 2816, "layers": 8, "heads": 16, "kv-heads": 4, "vocab": 32000},
}
POSITIONS = 8192
QUIET_LOAD = 2.5  # an average over the last minute, which holds the row before
PACKAGE = "llama-cpp-python"
CMAKE_FLAGS = {
    "native": "-DGGML_NATIVE=ON",
    "avx2": "-DGGML_NATIVE=OFF -DGGML_AVX512=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON",
}
SALIENT_ISA = {"native": None, "avx2": "avx2,no-vnni"}  # what those flags leave
DRIVER = ROOT / "bench/llama_cpp_speed.py"


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/bin/salient")
    parser.add_argument("--llama-python", help="interpreter with llama_cpp, gguf and numpy (default: one is made)")
    parser.add_argument("--llama-avx2-python", help="the same with a llama.cpp for AVX2 alone")
    parser.add_argument("--build-avx2", action="store_true", help="make that interpreter too")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--dims", choices=DIMS, default="tinyllama")
    weights.add_argument("--model", type=pathlib.Path, help="a dense Llama model in one file instead of random weights")
    parser.add_argument("--formats", nargs="+", choices=("q4_0", "q4_k_m"), default=["q4_0"], help="of llama.cpp")
    parser.add_argument("--activations", nargs="+", choices=("int16", "int8", "fp32"), default=["int16", "int8", "fp32"])
    parser.add_argument("--group", type=int, default=128, help="columns of Salient's weights that share a scale")
    parser.add_argument("--isa", nargs="+", choices=SALIENT_ISA, default=list(SALIENT_ISA))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--decode", type=int, default=32, help="tokens behind each prompt")
    parser.add_argument("--repeat", type=int, default=2, help="runs within a process, of which the fastest counts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--long", action="store_true", help="a prompt of 4096 tokens too")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    options = parser.parse_args(arguments)
    if options.model and not (options.model / "model.safetensors").is_file():
        parser.error(f"{options.model}: there is no model.safetensors")
    options.model = options.model and options.model.resolve()
    options.shape = f"model {options.model.name}" if options.model else options.dims
    options.lengths = [1, 512, 2048] + ([4096] if options.long else [])
    return options


def interpreter(isa, options):
    """None where there is none, and none is to be made."""
    named = options.llama_python if isa == "native" else options.llama_avx2_python
    if named or (isa == "avx2" and not options.build_avx2):
        return named
    folder = options.out / f"llama-{isa}"
    python = folder / "bin/python"
    done = folder / "installed"
    if not done.exists():
        print(f"compiling {PACKAGE} ({isa}) ...", flush=True)
        run([sys.executable, "-m", "venv", "--clear", str(folder)], options.out / "venv.log")
        flags = {"CMAKE_ARGS": f"-DLLAVA_BUILD=OFF {CMAKE_FLAGS[isa]}"}
        # Not from a cache of wheels: those do not say what they were compiled for.
        command = [str(python), "-m", "pip", "install", "--no-cache-dir", "--no-binary", PACKAGE, PACKAGE, "gguf", "numpy"]
        run(command, options.out / f"llama-{isa}.log", flags)
        done.touch()
    return str(python)


def rows_of(options, pythons):
    """One after the other as they run: both engines with one instruction set and number of threads side by side."""
    for threads in options.threads:
        for isa in options.isa:
            ours = [{"engine": "salient", "form": form} for form in options.activations]
            theirs = [{"engine": "llama.cpp", "form": form} for form in options.formats] if pythons[isa] else []
            for i in range(max(len(ours), len(theirs))):
                for row in ours[i : i + 1] + theirs[i : i + 1]:
                    yield row | {"isa": isa, "threads": threads}


def name_of(row):
    return "-".join(str(row[key]).replace(".", "") for key in ("engine", "form", "isa", "threads"))


def folder_of(options):
    """Of what both engines read; models of one name in two places have two."""
    if not options.model:
        return options.out / options.dims
    return options.out / f"model-{options.model.name}-{hashlib.sha256(str(options.model).encode()).hexdigest()[:8]}"


def make_models(options, python):
    folder = folder_of(options)
    folder.mkdir(parents=True, exist_ok=True)
    dense, log = options.model or folder / "dense", folder / "make.log"
    quantized, marker = folder / f"int4-g{options.group}", folder / "dense.made"
    files = {form: folder / f"{form}.gguf" for form in options.formats}
    if not quantized.exists() or not all(path.exists() for path in files.values()):
        if not options.model and not marker.exists():
            print("making weights ...", flush=True)
            sizes = [text for key, value in DIMS[options.dims].items() for text in (f"--{key}", str(value))]
            script = [sys.executable, str(ROOT / "scripts/make_checkpoint.py"), str(dense)]
            tokenizer = ["--tokenizer", str(ROOT / "examples/demo/model/tokenizer.json")]
            run(["rm", "-rf", str(dense)], log)
            run([*script, *tokenizer, *sizes, "--positions", str(POSITIONS)], log)
            marker.touch()
        for form, path in files.items():
            if not path.exists():
                run([python, str(DRIVER), "make", str(dense), str(path), form], log)
        if not quantized.exists():
            command = [str(options.salient), "quantize", str(dense), "-o", str(quantized), "--method", "rtn"]
            run([*command, "--scheme", "W4A16_ASYM", "--group-size", str(options.group)], log)
    return quantized, files


def measure(row, options, models, pythons, log):
    quantized, files = models
    if row["engine"] == "llama.cpp":
        counts = [str(value) for value in (row["threads"], options.decode, options.repeat, *options.lengths)]
        return parse_json(run([pythons[row["isa"]], str(DRIVER), "run", str(files[row["form"]]), *counts], log)[0])
    command = [str(options.salient), "bench", str(quantized), "--json", "--threads", str(row["threads"])]
    command += ["--activations", row["form"], "--packed-weights", str(folder_of(options) / "packed")]
    command += ["--prefill-length", ",".join(map(str, options.lengths)), "--decode-length", str(options.decode)]
    isa = SALIENT_ISA[row["isa"]]
    output, _ = run([*command, "--repeat", str(options.repeat)], log, {"SALIENT_ISA": isa} if isa else {})
    return parse_json(output)


def settings(row, options):
    keys = ("shape", "group", "lengths", "decode", "repeat")
    made_by = hashlib.sha256(options.salient.read_bytes()).hexdigest() if row["engine"] == "salient" else "peer"
    return row | {key: getattr(options, key) for key in keys} | {"folder": folder_of(options).name, "made_by": made_by}


def kept_run(path, wanted):
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return kept["measured"] if kept["settings"] == wanted else None


def run_rounds(options, models, pythons):
    """What each row measured, round by round."""
    measured = {}
    folder = options.out / "runs"
    folder.mkdir(exist_ok=True)
    for number in range(options.rounds):
        for row in rows_of(options, pythons):
            name = f"{name_of(row)}-round{number + 1}"
            path, wanted = folder / f"{name}.json", settings(row, options)
            kept = kept_run(path, wanted)
            if kept is None:
                load = os.getloadavg()[0]
                print(f"{name} (load {load:.2f}) ...", file=sys.stderr, flush=True)
                kept = measure(row, options, models, pythons, folder / f"{name}.log") | {"load_before": round(load, 2)}
                path.write_text(json.dumps({"settings": wanted, "measured": kept}, indent=1) + "\n")
            measured.setdefault(name_of(row), (row, []))[1].append(kept)
    return list(measured.values())


def fastest(row, runs):
    """Of each length by itself, as the engines' own repeats."""
    lengths = [each["prefill_length"] for each in runs[0]["rows"]]
    keys = ("prefill_tokens_per_second", "decode_tokens_per_second")
    result = row | {"device": runs[0]["device"], "load_before": [each["load_before"] for each in runs]}
    first = runs[0]["rows"][0]
    result["weight_bytes_per_step"] = runs[0].get("weight_bytes_per_step") or first["weight_bytes_per_step"]
    for key in keys:
        result[key] = {str(n): max(each["rows"][i][key] for each in runs) for i, n in enumerate(lengths)}
    bandwidths = [each["bandwidth"] for each in runs if "bandwidth" in each]
    return result | ({"bandwidth": max(bandwidths)} if bandwidths else {})


def with_ratios(rows):
    """The memory's bandwidth is the best that any run with as many threads saw; ratios are to the best of llama.cpp's
    rows of the same instruction set and threads."""
    for row in rows:
        alike = [other for other in rows if other["threads"] == row["threads"]]
        row["roof"] = max((other["bandwidth"] for other in alike if "bandwidth" in other), default=None)
        peers = [other for other in alike if other["isa"] == row["isa"] and other["engine"] == "llama.cpp"]
        speeds = row["decode_tokens_per_second"]
        if row["roof"]:
            row["share_of_roof"] = {n: row["weight_bytes_per_step"] * speed / row["roof"] for n, speed in speeds.items()}
        row["ratios"] = {}
        if row["engine"] != "salient" or not peers:
            continue
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            row["ratios"][key] = {n: speed / max(peer[key][n] for peer in peers) for n, speed in row[key].items()}
    return rows


def cell(row, key, length):
    ratio = row["ratios"].get(key, {}).get(str(length))
    return f"{row[key][str(length)]:.1f}" + (f" ({ratio:.2f}x)" if ratio else "")


def table(result):
    about, rows = result["machine"], result["rows"]
    lengths = result["settings"]["lengths"]
    prompts, contexts = lengths[1:], [0, *lengths[1:]]
    roofs = {row["threads"]: row["roof"] for row in rows if row["roof"]}
    shape = result["settings"]["shape"]
    if shape in DIMS:
        shape = "Random weights: " + ", ".join(f"{key} {value}" for key, value in DIMS[shape].items())
    lines = [
        f"{shape}; Salient int4 asymmetric, group {result['settings']['group']}. {about['cpu']}, {about['cores']} cores, "
        f"{about['date']}; llama.cpp of {PACKAGE} {about['llama_cpp']}, Salient {about['salient']}. Memory reads "
        + ", ".join(f"{roof / 1e9:.1f} GB/s on {threads}" for threads, roof in roofs.items())
        + " threads. Tokens a second; in parentheses the ratio to the best of llama.cpp with the same instruction set and threads.",
        "",
        "| threads | ISA | | MB/token | " + " | ".join(f"prompt of {n}" for n in prompts) + " | "
        + " | ".join(f"decoding behind {n}" for n in contexts) + " | roof |",
        "|--:|---|---|" + "--:|" * (2 + len(prompts) + len(contexts)),
    ]
    for row in rows:
        cells = [str(row["threads"]), row["isa"], f"{row['engine']} {row['form']}", f"{row['weight_bytes_per_step'] / 1e6:.0f}"]
        cells += [cell(row, "prefill_tokens_per_second", n) for n in prompts]
        cells += [cell(row, "decode_tokens_per_second", n or 1) for n in contexts]
        cells.append(f"{100 * row['share_of_roof']['1']:.0f} %" if "share_of_roof" in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Roof: weights read a second while decoding behind 0 over what the memory gives."]
    loads = [load for row in rows for load in row["load_before"]]
    if loads and max(loads) > QUIET_LOAD:
        lines.append(f"Other programs ran beside these (load {min(loads):.1f} to {max(loads):.1f}): times and ratios are estimates.")
    return "\n".join(lines) + "\n"


def main(arguments):
    options = parse_arguments(arguments)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    pythons = {isa: interpreter(isa, options) for isa in {"native", *options.isa}}
    models = make_models(options, pythons["native"])
    rows = with_ratios([fastest(row, runs) for row, runs in run_rounds(options, models, pythons)])
    facts = machine_facts() | {"llama_cpp": package_version(pythons["native"], PACKAGE)}
    kept = {key: getattr(options, key) for key in ("shape", "group", "lengths", "decode", "repeat", "rounds")}
    result = {"machine": facts, "settings": kept, "rows": rows}
    (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "results.md").write_text(table(result))
    print(json.dumps(result, indent=1) if options.json else table(result), end="\n" if options.json else "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
