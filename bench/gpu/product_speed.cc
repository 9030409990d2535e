#include <optional>

#include "backend/cuda/linear_products.h"
#include "base/error.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"
#include "gpu/timing.h"

namespace salient::gpu {
namespace {

struct SpeedShape {
  int64_t out;
  int64_t in;
  int bits;  ///< 4, or 16: halves
};

std::vector<SpeedShape> speed_shapes(const SectionRun& run) {
  if (run.tiny()) return {{32, 128, 4}, {32, 64, 16}};
  std::vector<SpeedShape> shapes{{8192, 8192, 4}, {4096, 4096, 4}, {14336, 4096, 4}, {4096, 14336, 4}};
  if (run.size() != Size::full) return shapes;
  shapes.insert(shapes.end(), {{1024, 4096, 4}, {28672, 8192, 4}, {128256, 4096, 16}});
  return shapes;
}

std::vector<int64_t> speed_rows(const SectionRun& run) {
  return run.by_size<std::vector<int64_t>>({1, 20}, {1, 4, 8, 16, 64, 256, 2048},
                                           {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048});
}

double dense_operations(const SpeedShape& shape, int64_t rows) {
  return 2.0 * static_cast<double>(shape.out) * static_cast<double>(shape.in) * static_cast<double>(rows);
}

/// Inputs and outputs of all timed products of a shape.
struct Operands {
  Operands(cuda::Device& device, const SpeedShape& shape, int64_t rows)
      : x(cuda::DeviceBuffer::of(device, random_floats({rows, shape.in}, 41).values<float>())),
        y(device, static_cast<size_t>(rows * shape.out) * sizeof(float)) {}
  cuda::DeviceBuffer x;
  cuda::DeviceBuffer y;
};

/// A weight as often as it takes to wander out of the caches.
class PackedWeights {
 public:
  PackedWeights(SectionRun& run, const SpeedShape& shape) {
    const auto packed = random_packed(shape.out, shape.in, shape.bits, 42);
    weights_.emplace_back(run.device(), packed, cuda::HalfType::f16);
    const int copies = copies_of(run, weights_[0].byte_size());
    while (std::ssize(weights_) < copies) weights_.emplace_back(run.device(), packed, cuda::HalfType::f16);
  }
  int count() const { return static_cast<int>(weights_.size()); }
  const cuda::ProductWeight& operator[](int i) const { return weights_[static_cast<size_t>(i)]; }

 private:
  std::vector<cuda::ProductWeight> weights_;
};

void add_rates(SectionRun& run, Json& row, const Timing& timing, double bytes, double operations) {
  const Peak peak = peak_of(run.device().properties());
  const double rate = bytes / timing.seconds;
  row.update(timing.to_json());
  row["gb_per_s"] = number(rate * 1e-9);
  row["share_of_copy"] = share(rate, run.bandwidth());
  row["share_of_peak"] = share(rate, peak.bytes_per_second);
  row["tflops"] = number(operations / timing.seconds * 1e-12);
}

Json plan_json(const cuda::ProductPlan& plan) {
  const bool library = plan.family == cuda::ProductFamily::library;
  return {{"family", cuda::to_string(plan.family)},
          {"kernel", library ? "library" : plan.kernel.name},
          {"grid", {plan.grid.x, plan.grid.y, plan.grid.z}}};
}

/// One product: alone, and with the input brought into its form before each.
Json time_family(SectionRun& run, const SpeedShape& shape, const PackedWeights& weights, int64_t rows,
                 std::optional<cuda::ProductFamily> family) {
  const Operands operands(run.device(), shape, rows);
  cuda::Products products(run.device());
  products.force(family);
  const auto plan = products.plan(weights[0], static_cast<int>(rows));
  if (family && plan.family != *family) return {};
  const auto set_input = [&] {
    products.set_input(operands.x.as<float>(), static_cast<int>(rows), static_cast<int>(shape.in));
  };
  const auto multiply = [&](int i) { products.multiply(weights[i], operands.y.as<float>()); };
  set_input();
  const Timing alone = measure(run, weights.count(), multiply);
  const Timing whole = measure(run, weights.count(), [&](int i) {
    set_input();
    multiply(i);
  });
  const double bytes = static_cast<double>(weights[0].byte_size()) +
                       static_cast<double>(rows * shape.in) * sizeof(uint16_t) +
                       static_cast<double>(rows * shape.out) * sizeof(float);
  Json row{{"out", shape.out}, {"in", shape.in}, {"bits", shape.bits}, {"rows", rows}};
  row.update(plan_json(plan));
  add_rates(run, row, alone, bytes, dense_operations(shape, rows));
  row["us_with_input"] = number(whole.seconds * 1e6);
  return row;
}

/// The library's product of halves of the same shape.
class DenseWeights {
 public:
  DenseWeights(SectionRun& run, const SpeedShape& shape) : shape_(shape) {
    const auto elements = static_cast<size_t>(shape.out * shape.in);
    const int copies = copies_of(run, elements * sizeof(uint16_t));
    for (int i = 0; i < copies; ++i)
      weights_.push_back(random_device_halves(run.device(), elements, static_cast<uint64_t>(43 + i)));
  }

  Timing time(SectionRun& run, int64_t rows) const {
    const auto x = random_device_halves(run.device(), static_cast<size_t>(rows * shape_.in), 44);
    const cuda::DeviceBuffer y(run.device(), static_cast<size_t>(rows * shape_.out) * sizeof(float));
    return measure(run, static_cast<int>(weights_.size()), [&](int i) {
      run.device().multiply({.x = x.address(),
                             .w = weights_[static_cast<size_t>(i)].address(),
                             .y = y.as<float>(),
                             .rows = rows,
                             .in = shape_.in,
                             .out = shape_.out,
                             .type = cuda::HalfType::f16});
    });
  }

 private:
  SpeedShape shape_;
  std::vector<cuda::DeviceBuffer> weights_;
};

/// Families that the plan has not chosen, where their share of the rows begins and ends.
std::vector<cuda::ProductFamily> others(int64_t rows) {
  if (rows <= cuda::kFewRows) return {cuda::ProductFamily::gemm};
  if (rows >= 64 && rows <= 256) return {cuda::ProductFamily::library};
  if (rows > 256 && rows <= 512) return {cuda::ProductFamily::gemm};
  return {};
}

void time_shape(SectionRun& run, const SpeedShape& shape) {
  std::optional<PackedWeights> packed;
  std::optional<DenseWeights> dense;
  for (const int64_t rows : speed_rows(run)) {
    run.attempt(fmt::format("{} x {}, {} bits, {} rows", shape.out, shape.in, shape.bits, rows), [&] {
      if (!packed) packed.emplace(run, shape);
      Json row = time_family(run, shape, *packed, rows, std::nullopt);
      if (run.device().multiplies()) {
        if (!dense) dense.emplace(run, shape);
        const Timing timing = dense->time(run, rows);
        row["dense"] = timing.to_json();
        row["times_dense"] = number(timing.seconds * 1e6 / row["us"].get<double>());
      }
      for (const auto family : others(rows))
        if (Json other = time_family(run, shape, *packed, rows, family); !other.is_null())
          row["others"].push_back(std::move(other));
      run.json()["rows"].push_back(std::move(row));
    });
  }
}

}  // namespace

void time_products(SectionRun& run) {
  for (const SpeedShape& shape : speed_shapes(run)) time_shape(run, shape);
  if (!run.tiny()) run.json()["nvidia_smi"] = smi_line();
}

}  // namespace salient::gpu
