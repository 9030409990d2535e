#!/usr/bin/env python3
"""Fails when CUDA kernels need more than is allowed: registers, spilled ones, a stack, fixed shared memory; or when their
machine code lacks an instruction that they live by, or touches local memory.

usage: check_cuda_kernels.py resources FOLDER --nvcc VERSION [--limits FILE] [--update]
       check_cuda_kernels.py code FOLDER --nvcc VERSION --cuobjdump PROGRAM [--limits FILE]

FOLDER holds what the build made: NAME.fatbin and NAME.ptxas.txt for each src/backend/cuda/NAME.cu. The limits
(tests/backend/cuda/kernel_limits.json) are registers of each kernel for each architecture, true of one release of nvcc,
and instructions that kernels must have, by patterns of names: "LDG.128" is found in LDG.E.128.CONSTANT; "loops" are those
that the loop around the products must have, or with a "!" may not have. --update writes down what was built. Exit status
77 says that there is nothing to look at.
"""
import argparse
import collections
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = ROOT / "tests/backend/cuda/kernel_limits.json"
SKIPPED = 77

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")

Resources = collections.namedtuple("Resources", "registers stack spills shared")
Instruction = collections.namedtuple("Instruction", "address opcode target")


def resources(text):
    """{(kernel, architecture): Resources} from what ptxas -v said."""
    found, current, frame = {}, None, None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            current, frame = match.groups(), None
        elif match := FRAME.search(line):
            frame = [int(number) for number in match.groups()]
        elif current and frame and (match := REGISTERS.search(line)):
            shared = SHARED.search(line)
            found[current] = Resources(int(match.group(1)), frame[0], frame[1] + frame[2], int(shared.group(1)) if shared else 0)
            current = None
    return found


def check_resources(found, limits, nvcc):
    """What is wrong with kernels `found`, one line each. Other releases of nvcc count registers differently."""
    same_nvcc = limits.get("nvcc") == nvcc
    for (kernel, architecture), used in sorted(found.items()):
        where = f"{kernel} ({architecture})"
        if used.spills:
            yield f"{where}: {used.spills} bytes of registers are spilled"
        if used.stack:
            yield f"{where}: a stack frame of {used.stack} bytes"
        if used.shared:
            yield f"{where}: {used.shared} bytes of fixed shared memory; launches say how much there is"
        limit = limits["registers"].get(kernel, {}).get(architecture)
        if limit is None:
            yield f"{where}: no limit of registers is written down; --update does it"
        elif same_nvcc and used.registers > limit:
            yield f"{where}: {used.registers} registers; the limit is {limit}"
    for kernel in sorted(limits["registers"].keys() - {kernel for kernel, _ in found}):
        yield f"{kernel}: has a limit but was not built"


def updated(found, limits, nvcc):
    registers = collections.defaultdict(dict)
    for (kernel, architecture), used in sorted(found.items()):
        registers[kernel][architecture] = used.registers
    return {"nvcc": nvcc, "instructions": limits.get("instructions", {}), "loops": limits.get("loops", {}), "registers": registers}


def instructions(disassembly):
    """{(kernel, architecture): [Instruction]} from what cuobjdump -sass said."""
    found, architecture, kernel = collections.defaultdict(list), None, None
    for line in disassembly.splitlines():
        if match := re.search(r"\bcode for (sm_\w+)", line):
            architecture = match.group(1)
        elif match := re.search(r"\bFunction : (\w+)", line):
            kernel = match.group(1)
        elif match := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)([^;]*)", line):
            target = re.search(r"\b0x([0-9a-f]+)\s*$", match.group(3)) if match.group(2).startswith("BRA") else None
            found[kernel, architecture].append(Instruction(int(match.group(1), 16), match.group(2), int(target.group(1), 16) if target else None))
    return found


def product_loop(code):
    """Opcodes of the shortest loop with a product in it; branches that leave the path of a warp and come back make longer ones."""
    loops = [[other for other in code if branch.target <= other.address <= branch.address] for branch in code if branch.target is not None and branch.target < branch.address]
    with_product = [loop for loop in loops if any(instruction.opcode.startswith("HMMA") for instruction in loop)]
    return {instruction.opcode for instruction in min(with_product, key=len, default=[])}


def has(opcodes, wanted):
    """Whether an opcode begins with the first part of `wanted` and has the others."""
    first, *others = wanted.split(".")
    return any(parts[0] == first and set(others) <= set(parts) for parts in (opcode.split(".") for opcode in opcodes))


def of_pattern(limits, part, kernel):
    for pattern, names in limits.get(part, {}).items():
        if fnmatch.fnmatchcase(kernel, pattern):
            yield from names


def check_code(found, limits):
    for (kernel, architecture), code in sorted(found.items()):
        where = f"{kernel} ({architecture})"
        opcodes = {instruction.opcode for instruction in code}
        if local := sorted(opcode for opcode in opcodes if opcode.split(".")[0] in ("LDL", "STL")):
            yield f"{where}: {', '.join(local)}: it uses local memory"
        yield from (f"{where}: has no {name}" for name in of_pattern(limits, "instructions", kernel) if not has(opcodes, name))
        loop = product_loop(code)
        for name in of_pattern(limits, "loops", kernel):
            if name.startswith("!") and has(loop, name[1:]):
                yield f"{where}: the loop of its products has {name[1:]}"
            elif not name.startswith("!") and not has(loop, name):
                yield f"{where}: the loop of its products has no {name}"
    kernels = {kernel for kernel, _ in found}
    for pattern in [*limits["instructions"], *limits.get("loops", {})]:
        if not fnmatch.filter(kernels, pattern):
            yield f"instructions are wanted of {pattern}, but no kernel is called so"


def lines(data, indent=""):
    """JSON with one line for each kernel."""
    if indent and not any(isinstance(value, dict) for value in data.values()):
        return json.dumps(data)
    inner = indent + "  "
    members = [f"{inner}{json.dumps(key)}: {lines(value, inner) if isinstance(value, dict) else json.dumps(value)}" for key, value in data.items()]
    return "{\n" + ",\n".join(members) + f"\n{indent}}}" if members else "{}"


def built(folder, suffix):
    """Files of the kernels that there are now; others may be left from before."""
    names = sorted(path.stem for path in (ROOT / "src/backend/cuda").glob("*.cu"))
    return [folder / (name + suffix) for name in names]


def run(arguments):
    limits = json.loads(arguments.limits.read_text("utf-8")) if arguments.limits.exists() else {"instructions": {}, "registers": {}}
    if arguments.what == "code":
        found = {}
        for path in built(arguments.folder, ".fatbin"):
            command = [arguments.cuobjdump, "-sass", path]
            found |= instructions(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        return found, list(check_code(found, limits))
    found = {}
    for path in built(arguments.folder, ".ptxas.txt"):
        found |= resources(path.read_text("utf-8"))
    if arguments.update:
        limits = updated(found, limits, arguments.nvcc)
        arguments.limits.write_text(lines(limits) + "\n", "utf-8")
    elif limits.get("nvcc") != arguments.nvcc:
        print(f"registers were written down for nvcc {limits.get('nvcc')}, this is {arguments.nvcc}: they are not compared")
    return found, list(check_resources(found, limits, arguments.nvcc))


def main(arguments):
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=["resources", "code"])
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("--nvcc", default="")
    parser.add_argument("--cuobjdump", default="")
    parser.add_argument("--limits", type=pathlib.Path, default=LIMITS)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args(arguments)
    if not options.folder or not options.nvcc:
        print("skipped: this build has no CUDA kernels")
        return SKIPPED
    if options.what == "code" and not shutil.which(options.cuobjdump):
        print("skipped: there is no cuobjdump (PyPI: nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm)")
        return SKIPPED
    found, errors = run(options)
    print("\n".join(errors) if errors else f"{len(found)} kernels hold, each architecture counted")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
