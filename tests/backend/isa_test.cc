#include "backend/cpu/isa.h"

#include <algorithm>
#include <cstdlib>

#include "backend/backend_fixture.h"
#include "backend/cpu/gemm.h"

namespace salient::test {
namespace {

class IsaTest : public EveryIsa {};

SALIENT_EVERY_ISA(IsaTest);

TEST_P(IsaTest, TheForcedTableIsActive) {
  const std::string name(to_string(GetParam()));
  EXPECT_EQ(choose_isa(name).isa, GetParam());
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
  EXPECT_EQ(choose_isa("").isa, supported_isas().back());
  EXPECT_TRUE(choose_isa("").vnni && choose_isa("").amx);
  EXPECT_TRUE(cpu_supports(Isa::portable));
}

TEST(Isa, AnUnknownNameIsRefused) {
  EXPECT_EQ(error_of([] { choose_isa("avx3"); }, ErrorKind::invalid_argument),
            "avx3: unknown, expected portable, avx2, avx512 or neon, then any of no-vnni, no-amx and "
            "no-dotprod, with commas between");
  for (const char* text : {"portable,avx2", "no-amx,no-amx", "neon,no-dotprod,no-dotprod", ",portable",
                           "portable,,no-amx", "no-avx2"})
    error_of([&] { choose_isa(text); }, ErrorKind::invalid_argument);
}

TEST(Isa, ExtensionsCanBeSwitchedOff) {
  const IsaChoice none = choose_isa("no-amx,no-vnni,no-dotprod");
  EXPECT_EQ(none.isa, supported_isas().back());
  EXPECT_FALSE(none.vnni || none.amx || none.dotprod);
  EXPECT_TRUE(choose_isa("portable,no-amx").vnni);
  for (const Isa isa : supported_isas()) {
    IsaChoice without = isa;
    without.vnni = without.amx = without.dotprod = false;
    for (const std::string& extension : matrix_extensions(without))
      EXPECT_EQ(extension, "avx512_bf16") << to_string(isa);
    const auto backend = make_cpu_backend_for(without, {.precision = MatmulPrecision::bf16});
    EXPECT_EQ(backend->description().find("vnni"), std::string::npos) << backend->description();
    EXPECT_EQ(backend->description().find("asimddp"), std::string::npos) << backend->description();
    EXPECT_EQ(backend->description().find("amx"), std::string::npos) << backend->description();
    EXPECT_EQ(panel_kernels_for(without).multiply_in_tiles, nullptr);
  }
}

TEST(Isa, PanelKernelsFollowTheChoice) {
  EXPECT_EQ(panel_kernels_for(Isa::portable).multiply_integers, kPortablePanels.multiply_integers);
  for (const Isa isa : supported_isas()) {
    const auto extensions = matrix_extensions(isa);
    const bool of_bytes = std::ranges::count_if(extensions, [](const std::string& name) {
                            return name == "avx_vnni" || name == "avx512_vnni" || name == "asimddp";
                          }) > 0;
    IsaChoice without = isa;
    without.vnni = without.dotprod = false;
    EXPECT_EQ(panel_kernels_for(isa).multiply_integers != panel_kernels_for(without).multiply_integers,
              of_bytes);
  }
}

TEST(Isa, OneThatTheProcessorLacksIsRefused) {
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::neon}) {
    if (cpu_supports(isa)) continue;
    const std::string name(to_string(isa));
    EXPECT_EQ(error_of([&] { choose_isa(name); }, ErrorKind::unsupported),
              name + ": this processor lacks it (best here: " +
                  std::string(to_string(supported_isas().back())) + ")");
    error_of([&] { make_cpu_backend_for(isa, {}); }, ErrorKind::unsupported);
  }
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
