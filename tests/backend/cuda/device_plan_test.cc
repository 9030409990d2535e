#include "recipe/device_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/simulator.h"
#include "support/error_matcher.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace salient {
namespace {

using ::testing::HasSubstr;

/// A job for a small model on a device of so many bytes.
class DevicePlanTest : public ::testing::Test {
 protected:
  DevicePlanTest() {
    TinyModel{}.write(path("dense"));
    options_.model = path("dense");
    options_.output = path("out");
    options_.recipe.awq.emplace();
    options_.recipe.quantization.group_size = 32;
    options_.calibration.sequences = random_windows(10, 100, 96);
    options_.calibration.num_samples = 10;
  }
  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  Job job_on(size_t bytes) const {
    Job job(options_, SelfData::stand_in);
    auto device = std::make_unique<test::SimulatedDevice>();
    device->set_total_bytes(bytes);
    job.backend = cuda::make_cuda_backend(std::move(device), {});
    return job;
  }

  TemporaryDirectory scratch_;
  OneshotOptions options_;
};

TEST_F(DevicePlanTest, CountsTheLargestLayerAGramMatrixAndABatch) {
  const Job job = job_on(1 << 20);
  const DeviceNeed need = device_need(job, {.rows_per_batch = 256});
  EXPECT_EQ(need.layer, 0);
  // q and o [64, 64], k and v [32, 64], gate and up [128, 64], down [64, 128].
  EXPECT_EQ(need.linears, (2u * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64) * 2);
  EXPECT_EQ(need.gram, 128u * 128 * 4);
  EXPECT_EQ(need.rows, 256u * 128 * 4);
  EXPECT_EQ(device_need(job, {.rows_per_batch = 4096}).rows, 1000u * 128 * 4) << "there are no more tokens";
  EXPECT_EQ(device_need(job, {.rows_per_batch = 256, .gram_block = 32}).gram, 32u * 32 * 4);
}

TEST_F(DevicePlanTest, TooLittleMemoryIsSaidBeforeTheWorkBegins) {
  const uint64_t need = device_need(job_on(1 << 20), {.rows_per_batch = 2048}).total();
  make_plan(job_on(need));
  EXPECT_THAT(
      [&] { make_plan(job_on(need - 1)); },
      throws_error(ErrorKind::out_of_memory,
                   HasSubstr("simulated (sm_80), fp16 operands: layer 0 needs 0.6 MiB of its memory "
                             "at once (0.1 for its linears, 0.1 for a Gram matrix, 0.5 for a batch")));
}

TEST_F(DevicePlanTest, RoundingWithoutCalibrationNeedsNone) {
  options_.recipe.awq.reset();
  options_.calibration = {};
  make_plan(job_on(64));
}

TEST_F(DevicePlanTest, TheHostsMemoryIsNoDevices) {
  Job job = job_on(64);
  job.backend = make_cpu_backend();
  make_plan(job);
}

}  // namespace
}  // namespace salient
