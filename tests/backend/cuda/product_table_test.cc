#include "backend/cuda/product_table.h"

#include <gtest/gtest.h>

#include <fstream>

#include "backend/backend_fixture.h"
#include "backend/cuda/forwarding_device.h"
#include "backend/cuda/linear_products.h"
#include "backend/cuda/simulator.h"
#include "base/file.h"
#include "quant/group_quantize.h"
#include "support/temporary_directory.h"

namespace salient::test {
namespace {

using cuda::MeasuredPlan;
using cuda::ProductFamily;
using cuda::ProductTable;

class ProductTableTest : public testing::Test {
 protected:
  std::string file() const { return (scratch_.path() / "cache" / "kernels.json").string(); }
  void write(const std::string& text) {
    std::filesystem::create_directories(scratch_.path() / "cache");
    std::ofstream(file()) << text;
  }
  TemporaryDirectory scratch_;
};

TEST_F(ProductTableTest, APlanIsFoundByTheNextOneOfTheSameDevice) {
  const MeasuredPlan plan{ProductFamily::gemm, 3};
  ProductTable(file(), "a").add("key", plan);
  EXPECT_EQ(ProductTable(file(), "a").find("key"), plan);
  EXPECT_EQ(ProductTable(file(), "a").find("other"), std::nullopt);
  EXPECT_EQ(ProductTable(file(), "b").find("key"), std::nullopt);
}

TEST_F(ProductTableTest, DevicesShareAFile) {
  ProductTable(file(), "a").add("key", {ProductFamily::gemm, 3});
  ProductTable(file(), "b").add("key", {ProductFamily::gemv, 1});
  ProductTable(file(), "a").add("more", {ProductFamily::library, 1});
  EXPECT_EQ(ProductTable(file(), "a").find("key"), (MeasuredPlan{ProductFamily::gemm, 3}));
  EXPECT_EQ(ProductTable(file(), "a").find("more"), (MeasuredPlan{ProductFamily::library, 1}));
  EXPECT_EQ(ProductTable(file(), "b").find("key"), (MeasuredPlan{ProductFamily::gemv, 1}));
}

TEST_F(ProductTableTest, ADamagedFileIsMadeAnew) {
  for (const std::string text :
       {"", "{", "[]", "{\"version\": 2, \"devices\": {}}", "{\"version\": 1}",
        "{\"version\": 1, \"devices\": 3}", "{\"version\": 1, \"devices\": {\"a\": []}}",
        "{\"version\": 1, \"devices\": {\"a\": {\"key\": {}}}}",
        "{\"version\": 1, \"devices\": {\"a\": {\"key\": {\"family\": \"gemx\", \"splits\": 1}}}}",
        "{\"version\": 1, \"devices\": {\"a\": {\"key\": {\"family\": \"gemv\", \"splits\": 0}}}}",
        "{\"version\": 1, \"devices\": {\"a\": {\"key\": {\"family\": \"gemv\", \"splits\": 1e9}}}}"}) {
    write(text);
    EXPECT_EQ(ProductTable(file(), "a").find("key"), std::nullopt) << text;
    ProductTable(file(), "a").add("key", {ProductFamily::gemv, 2});
    EXPECT_EQ(ProductTable(file(), "a").find("key"), (MeasuredPlan{ProductFamily::gemv, 2})) << text;
  }
}

TEST_F(ProductTableTest, WhatWasNotMeasuredIsNotWritten) {
  { const ProductTable table(file(), "a"); }
  EXPECT_FALSE(std::filesystem::exists(file()));
  ProductTable("", "a").add("key", {ProductFamily::gemv, 2});
}

TEST_F(ProductTableTest, AFolderThatNobodyMayWriteToCostsNothing) {
  write("");
  const std::string below = file() + "/kernels.json";  // of a file
  ProductTable(below, "a").add("key", {ProductFamily::gemv, 2});
  EXPECT_EQ(ProductTable(below, "a").find("key"), std::nullopt);
}

TEST(MeasuredKey, RowsAreClasses) {
  cuda::ProductShape shape{.rows = 1, .out = 64, .tiles = 2, .columns_per_group = 128};
  const std::string few = measured_key(shape);
  EXPECT_EQ(few, "w4 groups fp16 [64, 128] rows 8");
  shape.rows = 8;
  EXPECT_EQ(measured_key(shape), few);
  shape.rows = 9;
  EXPECT_NE(measured_key(shape), few);
  shape.rows = 300;
  EXPECT_EQ(measured_key(shape), "w4 groups fp16 [64, 128] rows 512");
}

/// Products on a device that seems to take as long as is said.
class MeasuredProducts : public ProductTableTest {
 protected:
  class Clocked final : public cuda::ForwardingDevice {
   public:
    using ForwardingDevice::ForwardingDevice;
    double seconds_of(const std::function<void()>& work) override {
      work();
      return seconds(timed++);
    }
    std::function<double(int)> seconds = [](int) { return 1.0; };
    int timed = 0;
  };

  /// Multiplies once.
  cuda::ProductPlan multiply(ProductTable& table, int64_t rows) {
    const QuantizedWeight weight = quantize_to_nearest(random_tensor(generator_, {32, 1024}), {},
                                                       {.symmetric = false, .group_size = 128}, DType::f16);
    const Tensor x = random_tensor(generator_, {rows, 1024});
    cuda::Products products(device_);
    products.measure(&table, 0);
    const cuda::ProductWeight prepared(device_, cuda::pack_codes(weight), cuda::HalfType::f16);
    const auto input = cuda::DeviceBuffer::of(device_, x.values<float>());
    Tensor y = Tensor::empty(DType::f32, {rows, 32});
    const cuda::DeviceBuffer output(device_, y.byte_size());
    products.set_input(input.as<float>(), static_cast<int>(rows), 1024);
    products.multiply(prepared, output.as<float>());
    device_.copy_out(y.mutable_bytes(), output.address(), y.byte_size());
    EXPECT_LT(product_error(x, dequantize(weight), {}, y), 1e-3);
    return products.plan(prepared, static_cast<int>(rows));
  }

  SimulatedDevice simulated_;
  Clocked device_{simulated_};
  std::mt19937 generator_{5};
};

TEST_F(MeasuredProducts, TheFastestPlanStays) {
  // Each is timed three times. The third seems to take no time at its best.
  device_.seconds = [](int time) { return time == 7 ? 0.0 : 1.0 + time; };
  ProductTable table(file(), "a");
  const cuda::ProductPlan plan = multiply(table, 300);
  EXPECT_EQ(plan.reason, "measured");
  EXPECT_GT(device_.timed, 6);
  const auto tried = cuda::plans_to_measure({.rows = 300, .out = 32, .tiles = 16, .columns_per_group = 128},
                                            {.device = device_.properties(), .library = true});
  EXPECT_EQ(plan.family, tried.at(2).family);
  EXPECT_EQ(plan.grid.y, tried.at(2).splits);
  const int before = device_.timed;
  multiply(table, 290);
  EXPECT_EQ(device_.timed, before);  // of the same class
}

TEST(MeasuredPlan, WhatCannotBeIsNot) {
  const cuda::ProductShape shape{.rows = 300, .out = 64, .tiles = 4, .columns_per_group = 128};
  const auto planned = [&](int rows, bool library, const MeasuredPlan& plan) {
    cuda::ProductShape asked = shape;
    asked.rows = rows;
    return cuda::plan_product(asked,
                              {.device = {.multiprocessors = 4}, .library = library, .measured = plan});
  };
  EXPECT_EQ(planned(300, false, {ProductFamily::library, 1}).family, ProductFamily::gemm);
  EXPECT_EQ(planned(300, true, {ProductFamily::gemv, 1}).family, ProductFamily::library);
  EXPECT_EQ(planned(4, true, {ProductFamily::gemm, 1}).family, ProductFamily::gemv);
  EXPECT_EQ(planned(20, true, {ProductFamily::gemm, 1000}).grid.y, 4);
}

TEST_F(MeasuredProducts, FewRowsStayWithOneFamily) {
  ProductTable table("", "a");
  for (const int64_t rows : {1, 8}) EXPECT_EQ(multiply(table, rows).family, ProductFamily::gemv);
}

}  // namespace
}  // namespace salient::test
