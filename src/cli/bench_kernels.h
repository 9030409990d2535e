#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace salient::cli {

struct BenchKernelsArguments {
  std::vector<std::string> shapes;  ///< "OUTxIN"; none: those of two models
  std::vector<std::string> isas;    ///< as SALIENT_ISA spells them; none: all
  std::vector<int64_t> rows{1, 2, 4, 8, 512};
  int64_t group_size = 128;
  int repeats = 2;
  bool json = false;
};

/// Prints what the products with int4 weights take. Errors: internal when one is wrong, once all is said.
void run_bench_kernels(const BenchKernelsArguments& arguments);

}  // namespace salient::cli
