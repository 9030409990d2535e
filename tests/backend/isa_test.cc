#include "backend/cpu/isa.h"

#include <cstdlib>

#include "backend/backend_fixture.h"
#include "backend/cpu/gemm.h"

namespace salient::test {
namespace {

class IsaTest : public EveryIsa {};

SALIENT_EVERY_ISA(IsaTest);

TEST_P(IsaTest, TheForcedTableIsActive) {
  const std::string name(to_string(GetParam()));
  EXPECT_EQ(choose_isa(name), GetParam());
  EXPECT_EQ(kernels->isa, GetParam());
  EXPECT_EQ(backend->description().find("cpu: " + name), 0u) << backend->description();
  for (const Isa other : supported_isas()) {
    if (other == GetParam()) continue;
    EXPECT_NE(kernels_for(other).dot_f32, kernels->dot_f32);
  }
}

/// In a process of its own: the environment is process-wide, and so is the limit that it puts on the dense
/// library.
TEST_P(IsaTest, TheEnvironmentForcesKernelsAndLibrary) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string name(to_string(GetParam()));
  EXPECT_EXIT(
      {
        setenv("SALIENT_ISA", name.c_str(), 1);
        const auto forced = make_cpu_backend({.precision = MatmulPrecision::bf16});
        const bool active = forced->description().find("cpu: " + name) == 0;
        const bool library_bound = GetParam() == Isa::avx512 || !gemm_has_fast_bf16();
        std::exit(active && library_bound ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Isa, TheBestOneIsTheDefault) {
  EXPECT_EQ(choose_isa(""), supported_isas().back());
  EXPECT_TRUE(cpu_supports(Isa::portable));
}

TEST(Isa, AnUnknownNameIsRefused) {
  EXPECT_EQ(error_of([] { choose_isa("avx3"); }, ErrorKind::invalid_argument),
            "SALIENT_ISA=avx3: unknown, expected portable, avx2 or avx512");
}

TEST(Isa, OneThatTheProcessorLacksIsRefused) {
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (cpu_supports(isa)) continue;
    const std::string name(to_string(isa));
    EXPECT_EQ(error_of([&] { choose_isa(name); }, ErrorKind::unsupported).find("SALIENT_ISA=" + name), 0u);
    error_of([&] { make_cpu_backend_for(isa, {}); }, ErrorKind::unsupported);
  }
  if (supported_isas().size() == 3) GTEST_SKIP() << "this processor has every instruction set";
}

TEST(Isa, TheDescriptionNamesThreadsAndPrecision) {
  set_thread_count(2);
  const std::string text = make_cpu_backend_for(Isa::portable, {})->description();
  EXPECT_EQ(text, "cpu: portable, 2 threads, f32");
  const std::string rounding =
      make_cpu_backend_for(Isa::portable, {.precision = MatmulPrecision::bf16})->description();
  EXPECT_EQ(rounding, "cpu: portable, 2 threads, f32 (bf16 needs AVX512-BF16 or AMX-BF16)");
}

}  // namespace
}  // namespace salient::test
