"""The checker of CUDA kernels must read what ptxas and cuobjdump print, and find what is wrong in it."""
import contextlib
import io
import json
import pathlib
import stat
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_cuda_kernels as check  # noqa: E402


def ptxas(kernel, architecture, registers, stack=0, stores=0, loads=0, shared=""):
    return (
        f"ptxas info    : Compiling entry function '{kernel}' for '{architecture}'\n"
        f"ptxas info    : Function properties for {kernel}\n"
        f"    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers{shared}, 384 bytes cmem[0]\n"
        "ptxas info    : Compile time = 4.953 ms\n"
    )


SASS = """
	code for sm_80
		Function : w4_gemv
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;      /* 0x00000a00ff017624 */
                                                                                /* 0x000fe400078e00ff */
        /*0010*/              @!P0 LDG.E.NA.LTC256B.128.CONSTANT R4, [R2.64] ;  /* 0x0000000000027919 */
        /*12f0*/              @UP1 HMMA.16816.F32 R4, R8, R2, R4 ;              /* 0x0000000000027919 */
	code for sm_90
		Function : w4_gemv
        /*0000*/                   LDG.E.64 R4, [R2.64] ;                       /* 0x0000000000027919 */
        /*0010*/                   STL.64 [R1], R4 ;                            /* 0x0000000000027919 */
"""


# A loop, one around it with a barrier, one without a product, and a way out and back.
LOOP_SASS = """
	code for sm_90
		Function : w4_gemv
        /*0000*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;                /* 0x0000000000027919 */
        /*0010*/                   LDGSTS.E.BYPASS.LTC256B.128 [R4], [R2.64] ;  /* 0x0000000000027919 */
        /*0020*/                   HMMA.16816.F32 R4, R8, R2, R4 ;              /* 0x0000000000027919 */
        /*0030*/              @!P1 BRA P2, 0x10 ;                               /* 0x0000000000027919 */
        /*0040*/               @P1 BRA 0x0 ;                                    /* 0x0000000000027919 */
        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;                /* 0x0000000000027919 */
        /*0060*/               @P1 BRA 0x50 ;                                   /* 0x0000000000027919 */
        /*0070*/                   BRA 0x20 ;                                   /* 0x0000000000027919 */
"""


class Resources(unittest.TestCase):
    limits = {"nvcc": "13.0", "registers": {"halves": {"sm_80": 16, "sm_90": 20}}, "instructions": {}}

    def errors(self, text, nvcc="13.0"):
        return list(check.check_resources(check.resources(text), self.limits, nvcc))

    def test_every_architecture_is_read(self):
        text = "ptxas info    : 0 bytes gmem\n" + ptxas("halves", "sm_80", 16) + ptxas("halves", "sm_90", 20)
        found = check.resources(text)
        self.assertEqual(found["halves", "sm_80"], (16, 0, 0, 0))
        self.assertEqual(found["halves", "sm_90"], (20, 0, 0, 0))
        self.assertEqual(self.errors(text), [])

    def test_too_many_registers(self):
        text = ptxas("halves", "sm_80", 17)
        self.assertEqual(self.errors(text), ["halves (sm_80): 17 registers; the limit is 16"])
        self.assertEqual(self.errors(text, "12.8"), [])

    def test_spills_stack_and_fixed_shared_memory(self):
        text = ptxas("halves", "sm_80", 16, 8, 4, 12, ", 1024 bytes smem")
        expected = [
            "halves (sm_80): 16 bytes of registers are spilled",
            "halves (sm_80): a stack frame of 8 bytes",
            "halves (sm_80): 1024 bytes of fixed shared memory; launches say how much there is",
        ]
        self.assertEqual(self.errors(text), expected)
        self.assertEqual(self.errors(text, "12.8"), expected)

    def test_kernels_and_limits_belong_together(self):
        errors = self.errors(ptxas("halves", "sm_86", 1) + ptxas("other", "sm_80", 1))
        self.assertEqual(len(errors), 2)
        self.assertIn("halves (sm_86): no limit", errors[0])
        self.assertEqual(self.errors(""), ["halves: has a limit but was not built"])


class Code(unittest.TestCase):
    def errors(self, wanted):
        return list(check.check_code(check.instructions(SASS), {"instructions": wanted}))

    def test_opcodes_are_read_with_and_without_predicates(self):
        found = check.instructions(SASS)
        self.assertEqual([code.opcode for code in found["w4_gemv", "sm_80"]], ["IMAD.MOV.U32", "LDG.E.NA.LTC256B.128.CONSTANT", "HMMA.16816.F32"])

    def test_local_memory_and_what_is_missing(self):
        local = "w4_gemv (sm_90): STL.64: it uses local memory"
        self.assertEqual(self.errors({"w4_*": ["LDG"]}), [local])
        self.assertEqual(self.errors({"w4_*": ["LDG.128", "HMMA.16816"]}), [local, "w4_gemv (sm_90): has no LDG.128", "w4_gemv (sm_90): has no HMMA.16816"])
        self.assertIn("w4_gemv (sm_80): has no HMMA.1688", self.errors({"w4_*": ["HMMA.1688"]}))
        self.assertIn("w4_gemv (sm_80): has no LD", self.errors({"w4_*": ["LD"]}))

    def loop_errors(self, *wanted):
        limits = {"instructions": {}, "loops": {"w4_*": wanted}}
        return list(check.check_code(check.instructions(LOOP_SASS), limits))

    def test_the_loop_of_the_products(self):
        self.assertEqual(self.loop_errors("HMMA", "LDGSTS.128", "!BAR"), [])
        self.assertEqual(self.loop_errors("LDS", "!LDGSTS"), ["w4_gemv (sm_90): the loop of its products has no LDS", "w4_gemv (sm_90): the loop of its products has LDGSTS"])
        self.assertEqual(list(check.check_code(check.instructions(SASS.replace("STL", "STG")), {"instructions": {}, "loops": {"w*": ["HMMA"]}})), ["w4_gemv (sm_80): the loop of its products has no HMMA", "w4_gemv (sm_90): the loop of its products has no HMMA"])

    def test_patterns_without_a_kernel(self):
        self.assertIn("instructions are wanted of w8*, but no kernel is called so", self.errors({"w8*": ["LDG"]}))


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "src/backend/cuda").mkdir(parents=True)
        (self.root / "src/backend/cuda/halves.cu").write_text("")
        (self.root / "halves.ptxas.txt").write_text(ptxas("halves", "sm_80", 16))
        (self.root / "gone.ptxas.txt").write_text(ptxas("gone", "sm_80", 16, stack=8))
        (self.root / "halves.fatbin").write_text("")
        self.limits = self.root / "limits.json"

    def run_checker(self, *arguments):
        output = io.StringIO()
        with mock.patch.object(check, "ROOT", self.root), contextlib.redirect_stdout(output):
            status = check.main([*arguments, "--limits", str(self.limits)])
        return status, output.getvalue()

    def test_update_writes_what_then_holds(self):
        folder = str(self.root)
        self.assertEqual(self.run_checker("resources", folder, "--nvcc", "13.0")[0], 1)
        self.limits.write_text('{"instructions": {"halves*": ["LDG"]}, "registers": {"gone": {}}}')
        self.assertEqual(self.run_checker("resources", folder, "--nvcc", "13.0", "--update")[0], 0)
        written = json.loads(self.limits.read_text())
        self.assertEqual(written, {"nvcc": "13.0", "instructions": {"halves*": ["LDG"]}, "loops": {}, "registers": {"halves": {"sm_80": 16}}})
        self.assertEqual(self.run_checker("resources", folder, "--nvcc", "13.0")[0], 0)
        self.assertIn("not compared", self.run_checker("resources", folder, "--nvcc", "13.1")[1])

    def test_machine_code_is_asked_of_cuobjdump(self):
        program = self.root / "cuobjdump"
        program.write_text(f"#!/bin/sh\n[ \"$1\" = -sass ] && cat <<'END'\n{SASS}\nEND\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.limits.write_text('{"instructions": {}, "registers": {}}')
        status, output = self.run_checker("code", str(self.root), "--nvcc", "13.0", "--cuobjdump", str(program))
        self.assertEqual((status, output), (1, "w4_gemv (sm_90): STL.64: it uses local memory\n"))

    def test_nothing_to_look_at(self):
        self.assertEqual(self.run_checker("resources")[0], 77)
        self.assertEqual(self.run_checker("code", str(self.root), "--nvcc", "13.0", "--cuobjdump", "no-such-program")[0], 77)


if __name__ == "__main__":
    unittest.main()
