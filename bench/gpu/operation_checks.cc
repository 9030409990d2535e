#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cuda/largest.h"
#include "base/error.h"
#include "gpu/random_data.h"
#include "gpu/sections.h"

namespace salient::gpu {
namespace {

/// Sums in f32 in another order, and functions of the library that are off by a few units in the last place.
constexpr double kRounding = 1e-5;

struct Backends {
  Backend& cuda;
  Backend& cpu;
};

/// Runs `body` on both back ends and compares what it returns.
template <typename Body>
void compare(SectionRun& run, const Backends& on, const std::string& check, const std::string& name,
             double bound, const Body& body) {
  run.attempt(name, [&] {
    const Tensor expected = body(on.cpu);
    run.check(check, body(on.cuda), expected, {.bound = bound});
  });
}

struct RowShape {
  int64_t rows;
  int64_t features;
};

std::vector<RowShape> row_shapes(const SectionRun& run) {
  if (run.tiny()) return {{1, 8}, {3, 100}, {2, 1032}};
  std::vector<RowShape> shapes;
  for (const int64_t features : {1, 7, 8, 64, 80, 128, 576, 1000, 1024, 1032, 2048, 4096, 5120, 8192, 14336})
    for (const int64_t rows : {1, 3, 17, 300}) shapes.push_back({rows, features});
  return shapes;
}

void check_norms(SectionRun& run, const Backends& on) {
  for (const auto [rows, features] : row_shapes(run)) {
    const std::string size = fmt::format("{} x {}", rows, features);
    const Tensor x = random_floats({rows, features}, 1, 3);
    const Tensor weight = random_floats({features}, 2);
    const Tensor bias = random_floats({features}, 3);
    const auto like_x = [&] { return Tensor::empty(DType::f32, x.shape()); };
    compare(run, on, "rms_norm", "rms_norm " + size, kRounding, [&](Backend& backend) {
      Tensor y = like_x();
      backend.rms_norm(x, weight, 1e-5, y);
      return y;
    });
    compare(run, on, "add_rms_norm", "add_rms_norm " + size, kRounding, [&](Backend& backend) {
      Tensor sum = random_floats(x.shape(), 4);
      Tensor y = like_x();
      backend.add_rms_norm({.x = x, .weight = weight, .epsilon = 1e-6, .sum = sum, .y = y});
      backend.add(sum, y);
      return y;
    });
    compare(run, on, "layer_norm", "layer_norm " + size, 1e-4, [&](Backend& backend) {
      Tensor y = like_x();
      backend.layer_norm(x, {weight, bias}, 1e-5, y);
      return y;
    });
  }
}

/// Heads of a row that are normalised each on its own.
void check_head_norms(SectionRun& run, const Backends& on) {
  const int64_t rows = run.tiny() ? 3 : 65;
  for (const int64_t dim : {64, 80, 128, 256}) {
    const Tensor x = random_floats({rows, 8 * dim}, 5, 2);
    const Tensor shared = random_floats({dim}, 6);
    const Tensor own = random_floats({8, dim}, 7);
    compare(run, on, "rms_norm", fmt::format("rms_norm of heads of {}", dim), kRounding,
            [&](Backend& backend) {
              Tensor y = x.duplicate();
              backend.rms_norm(y, shared, 1e-6, y);
              return y;
            });
    compare(run, on, "layer_norm", fmt::format("layer_norm of heads of {}", dim), 1e-4,
            [&](Backend& backend) {
              Tensor y = Tensor::empty(DType::f32, x.shape());
              backend.layer_norm(x, {own, {}}, 1e-6, y);
              return y;
            });
  }
}

struct NamedActivation {
  Activation activation;
  const char* name;
};
constexpr NamedActivation kActivations[] = {{Activation::silu, "silu"},
                                            {Activation::gelu, "gelu"},
                                            {Activation::gelu_tanh, "gelu_tanh"},
                                            {Activation::relu, "relu"},
                                            {Activation::sigmoid, "sigmoid"}};

void check_elementwise(SectionRun& run, const Backends& on) {
  const int64_t rows = run.tiny() ? 3 : 129;
  const Shape shape{rows, 1037};
  const Tensor x = random_floats(shape, 8, 5);
  const Tensor up = random_floats(shape, 9);
  for (const auto [activation, name] : kActivations) {
    compare(run, on, "activation", fmt::format("activation {}", name), kRounding, [&](Backend& backend) {
      Tensor y = x.duplicate();
      backend.activation(activation, y);
      return y;
    });
    compare(run, on, "gated_activation", fmt::format("gated {}", name), kRounding, [&](Backend& backend) {
      Tensor y = Tensor::empty(DType::f32, shape);
      backend.gated_activation(activation, x, up, y);
      return y;
    });
  }
  compare(run, on, "add", "add", 0, [&](Backend& backend) {
    Tensor y = up.duplicate();
    backend.add(x, y);
    return y;
  });
  compare(run, on, "scale", "scale", 0, [&](Backend& backend) {
    Tensor y = x.duplicate();
    backend.scale(0.7f, y);
    return y;
  });
  compare(run, on, "softcap", "softcap", kRounding, [&](Backend& backend) {
    Tensor y = x.duplicate();
    backend.softcap(3.0f, y);
    return y;
  });
  for (const float odd : {1.0f, INFINITY, NAN}) {
    compare(run, on, "all_finite", fmt::format("all_finite with {}", odd), 0, [&](Backend& backend) {
      Tensor y = x.duplicate();
      y.mutable_values<float>().back() = odd;
      const float finite = backend.all_finite(y) ? 1.0f : 0.0f;
      return Tensor::of<float>({1}, {&finite, 1});
    });
  }
}

/// Some rows in an order of their own, none twice.
std::vector<int32_t> chosen_rows(int64_t count, int64_t of) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>((7 * i + 3) % of));
  return rows;
}

void check_rows(SectionRun& run, const Backends& on) {
  for (const int64_t features : {8, 100, 1030, 4096}) {
    if (run.tiny() && features > 1030) continue;
    const auto rows = chosen_rows(run.tiny() ? 5 : 200, 1009);
    const auto count = std::ssize(rows);
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
      const Tensor table = random_floats({1009, features}, 10).to(type);
      const auto name = fmt::format("embed {} x {} of {}", count, features, to_string(type));
      compare(run, on, "embed", name, 0, [&](Backend& backend) {
        Tensor y = Tensor::empty(DType::f32, {count, features});
        backend.embed(table, rows, y);
        return y;
      });
    }
    const Tensor x = random_floats({1009, features}, 11);
    compare(run, on, "gather_rows", fmt::format("gather {} x {}", count, features), 0, [&](Backend& backend) {
      Tensor y = Tensor::empty(DType::f32, {count, features});
      backend.gather_rows(x, rows, y);
      return y;
    });
    const Tensor few = random_floats({count, features}, 12);
    const Tensor factors = random_floats({count}, 13);
    compare(run, on, "scatter_add", fmt::format("scatter {} x {}", count, features), 1e-6,
            [&](Backend& backend) {
              Tensor y = x.duplicate();
              backend.scatter_add(few, rows, factors.values<float>(), y);
              return y;
            });
  }
}

void check_rotations(SectionRun& run, const Backends& on) {
  for (const int64_t dim : {64, 80, 128, 256}) {
    for (const int64_t rows : {1, 9, 130}) {
      if (run.tiny() && rows > 9) continue;
      for (const RopePairs layout : {RopePairs::halves, RopePairs::neighbours}) {
        const int64_t pairs = dim / 4;  // half of a head, from its middle on
        const Tensor cosine = random_floats({rows, pairs}, 14);
        const Tensor sine = random_floats({rows, pairs}, 15);
        const Tensor x = random_floats({rows, 6 * dim}, 16);
        const auto name = fmt::format("rope {} rows of {}, {}", rows, dim,
                                      layout == RopePairs::halves ? "halves" : "neighbours");
        compare(run, on, "rope", name, 1e-6, [&](Backend& backend) {
          Tensor y = x.duplicate();
          backend.rope(
              {.cosine = cosine, .sine = sine, .head_dim = dim, .pairs = layout, .first = dim / 2, .x = y});
          return y;
        });
      }
    }
  }
}

/// Row after row the indices of the largest values, and these.
Tensor largest_on_host(const Tensor& x, int64_t wanted) {
  const int64_t columns = x.dim(1);
  Tensor result = Tensor::empty(DType::f32, {x.dim(0), 2 * wanted});
  const auto to = result.mutable_values<float>();
  std::vector<int64_t> order(static_cast<size_t>(columns));
  for (int64_t row = 0; row < x.dim(0); ++row) {
    const auto values = x.values<float>().subspan(static_cast<size_t>(row * columns), order.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
      return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
    });
    for (int64_t i = 0; i < wanted; ++i) {
      const auto at = static_cast<size_t>(row * 2 * wanted + i);
      to[at] = static_cast<float>(order[static_cast<size_t>(i)]);
      to[at + static_cast<size_t>(wanted)] = values[static_cast<size_t>(order[static_cast<size_t>(i)])];
    }
  }
  return result;
}

Tensor largest_on_device(cuda::Device& device, const Tensor& x, int64_t wanted) {
  const int64_t rows = x.dim(0);
  const auto sizes = cuda::largest_workspace(device, rows, x.dim(1), wanted);
  const cuda::DeviceBuffer workspace(device, sizes.bytes);
  device.fill_zero(workspace.address(), sizes.counter_bytes);
  const auto input = cuda::DeviceBuffer::of(device, x.values<float>());
  const auto count = static_cast<size_t>(rows * wanted);
  const cuda::DeviceBuffer values(device, count * sizeof(float));
  const cuda::DeviceBuffer indices(device, count * sizeof(int32_t));
  for (int twice = 0; twice < 2; ++twice)  // the counters are as they were
    cuda::largest(device, {.x = input.as<float>(),
                           .rows = rows,
                           .columns = x.dim(1),
                           .wanted = wanted,
                           .values = values.as<float>(),
                           .indices = indices.as<int32_t>(),
                           .workspace = workspace.address()});
  std::vector<float> found(count);
  std::vector<int32_t> places(count);
  device.copy_out(found.data(), values.address(), count * sizeof(float));
  device.copy_out(places.data(), indices.address(), count * sizeof(int32_t));
  Tensor result = Tensor::empty(DType::f32, {rows, 2 * wanted});
  const auto to = result.mutable_values<float>();
  for (size_t i = 0; i < count; ++i) {
    const size_t at =
        i / static_cast<size_t>(wanted) * 2 * static_cast<size_t>(wanted) + i % static_cast<size_t>(wanted);
    to[at] = static_cast<float>(places[i]);
    to[at + static_cast<size_t>(wanted)] = found[i];
  }
  return result;
}

void check_largest(SectionRun& run) {
  for (const int64_t columns : {64, 3072, 32000, 128256}) {
    if (run.tiny() && columns > 3072) continue;
    for (const int64_t wanted : {1, 40, 64}) {
      const int64_t rows = run.tiny() ? 2 : 9;
      run.attempt(fmt::format("largest {} of {}", wanted, columns), [&] {
        Tensor x = random_floats({rows, columns}, 17);
        // Values that come several times.
        for (float& value : x.mutable_values<float>()) value = std::round(value * 1000) / 1000;
        run.check("largest", largest_on_device(run.device(), x, wanted), largest_on_host(x, wanted),
                  {.bound = 0});
      });
    }
  }
}

/// Sums of exponentials and counts, through the back end.
void check_row_sums(SectionRun& run, const Backends& on) {
  for (const int64_t columns : {100, 3072, 128256}) {
    if (run.tiny() && columns > 3072) continue;
    const Tensor x = random_floats({3, columns}, 18, 4);
    const std::vector<float> scales{0.7f, 1.0f, 3.0f};
    compare(run, on, "row_sums", fmt::format("sums of {}", columns), kSumError, [&](Backend& backend) {
      const LargestValues found = backend.largest({.x = x, .wanted = 64, .scales = scales});
      Tensor result = Tensor::empty(DType::f32, {2, 3});
      const auto to = result.mutable_values<float>();
      std::ranges::copy(found.sums, to.begin());
      std::ranges::copy(found.reaching, to.begin() + 3);
      return result;
    });
  }
}

}  // namespace

void check_operations(SectionRun& run) {
  {
    const auto cuda = run.make_backend();
    const auto cpu = make_cpu_backend();
    const Backends on{*cuda, *cpu};
    check_norms(run, on);
    check_head_norms(run, on);
    check_elementwise(run, on);
    check_rows(run, on);
    check_rotations(run, on);
    check_row_sums(run, on);
  }
  check_largest(run);
}

}  // namespace salient::gpu
