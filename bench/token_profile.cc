// Where the time of a decoded token goes: seconds of each kind of operation in a decoding run, and what lies
// between them (tensors, angles, the program's own steps). A back end that passes everything on to the CPU's
// stands between and looks at the clock.
//
// Usage: token_profile MODEL [--activations MODE] [--context N] [--steps N] [--no-fuse-layers];
// SALIENT_THREADS and SALIENT_ISA apply.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/random.h"
#include "runtime/decoder.h"

namespace salient {
namespace {

using Clock = std::chrono::steady_clock;

/// Seconds of each step by the name of the operation.
class Ledger {
 public:
  template <typename Body>
  decltype(auto) time(const char* name, const Body& body) {
    struct Entry {
      Entry(double& where) : seconds(where) {}
      ~Entry() { seconds += std::chrono::duration<double>(Clock::now() - start).count(); }
      double& seconds;
      Clock::time_point start = Clock::now();
    };
    const Entry entry(step_[name]);
    return body();
  }

  void end_step(double seconds) {
    double named = 0;
    for (auto& [name, own] : step_) {
      steps_[name].push_back(own);
      named += own;
      own = 0;
    }
    steps_["(between)"].push_back(seconds - named);
    steps_["(all)"].push_back(seconds);
  }
  void forget() { step_.clear(), steps_.clear(); }

  /// The median of the steps: other programs disturb single ones.
  double median(const std::string& name) {
    std::vector<double>& values = steps_[name];
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
  }

  void print() {
    const double all = median("(all)");
    fmt::print("{:<18} {:>12} {:>8}\n", "operation", "us a token", "share");
    std::vector<std::pair<double, std::string>> sorted;
    for (const auto& [name, values] : steps_) sorted.emplace_back(-median(name), name);
    std::sort(sorted.begin(), sorted.end());
    for (const auto& [seconds, name] : sorted)
      fmt::print("{:<18} {:>12.1f} {:>7.1f}%\n", name, -seconds * 1e6, -seconds / all * 100);
  }

 private:
  std::map<std::string, double> step_;
  std::map<std::string, std::vector<double>> steps_;
};

class TimedBackend final : public Backend {
 public:
  TimedBackend(std::unique_ptr<Backend> inner, Ledger& ledger) : inner_(std::move(inner)), ledger_(ledger) {}

  std::string description() const override { return inner_->description(); }
  int64_t rows_as_alone() const override { return inner_->rows_as_alone(); }
  double measure_bandwidth() override { return inner_->measure_bandwidth(); }
  std::string arithmetic() const override { return inner_->arithmetic(); }
  ActivationMode activations() const override { return inner_->activations(); }
  std::unique_ptr<PreparedLinear> prepare(const LinearWeight& weight) override {
    return inner_->prepare(weight);
  }
  bool keeps_packed_weights() const override { return inner_->keeps_packed_weights(); }
  std::optional<PackedWeight> packed_weight(const PreparedLinear& linear) override {
    return inner_->packed_weight(linear);
  }
  std::unique_ptr<PreparedLinear> prepare(const PackedWeight& weight, const Tensor& bias) override {
    return inner_->prepare(weight, bias);
  }
  std::shared_ptr<const PreparedLinear> pack(const PreparedLinear& linear, TensorPool* pool) override {
    return inner_->pack(linear, pool);
  }
  void linear(const PreparedLinear& weight, const Tensor& x, Tensor& y) override {
    const char* name = y.dim(1) > 8 * x.dim(1) ? "head" : x.dim(1) > 2 * y.dim(1) ? "down" : "linear";
    ledger_.time(name, [&] { inner_->linear(weight, x, y); });
  }
  void linears(std::span<const LinearOutput> outputs, const Tensor& x) override {
    ledger_.time(outputs.size() == 2 ? "gate, up" : "q, k, v", [&] { inner_->linears(outputs, x); });
  }
  void embed(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) override {
    ledger_.time("embed", [&] { inner_->embed(table, tokens, y); });
  }
  void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Tensor& y) override {
    ledger_.time("norm", [&] { inner_->rms_norm(x, weight, epsilon, y); });
  }
  void add_rms_norm(const AddNormProblem& problem) override {
    ledger_.time("norm", [&] { inner_->add_rms_norm(problem); });
  }
  void layer_norm(const Tensor& x, const NormWeights& weights, double epsilon, Tensor& y) override {
    ledger_.time("norm", [&] { inner_->layer_norm(x, weights, epsilon, y); });
  }
  void add(const Tensor& x, Tensor& y) override {
    ledger_.time("add", [&] { inner_->add(x, y); });
  }
  void scale(float factor, Tensor& x) override {
    ledger_.time("scale", [&] { inner_->scale(factor, x); });
  }
  void softcap(float cap, Tensor& x) override {
    ledger_.time("softcap", [&] { inner_->softcap(cap, x); });
  }
  void rope(const RopeProblem& problem) override {
    ledger_.time("rope", [&] { inner_->rope(problem); });
  }
  void rope_and_store(const RopeStoreProblem& problem) override {
    ledger_.time("rope, cache", [&] { inner_->rope_and_store(problem); });
  }
  void attention(std::span<const AttentionProblem> problems) override {
    ledger_.time("attention", [&] { inner_->attention(problems); });
  }
  void activation(Activation activation, Tensor& x) override {
    ledger_.time("activation", [&] { inner_->activation(activation, x); });
  }
  void gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) override {
    ledger_.time("activation", [&] { inner_->gated_activation(activation, gate, up, y); });
  }
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override {
    ledger_.time("gather", [&] { inner_->gather_rows(x, rows, y); });
  }
  void scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                   Tensor& y) override {
    ledger_.time("scatter", [&] { inner_->scatter_add(x, rows, factors, y); });
  }
  bool all_finite(const Tensor& x) override { return inner_->all_finite(x); }
  void accumulate_gram(const Tensor& x, MatmulPrecision precision, Tensor& gram) override {
    inner_->accumulate_gram(x, precision, gram);
  }
  void quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) override {
    inner_->quadratic_form(x, symmetric, result);
  }
  void rounding_loss(const RoundingLossProblem& problem, std::span<double> result) override {
    inner_->rounding_loss(problem, result);
  }
  void rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) override {
    inner_->rounding_loss_by_group(problem, result);
  }
  bool factorize(Tensor& symmetric) override { return inner_->factorize(symmetric); }
  bool solve(Tensor& symmetric, Tensor& rows) override { return inner_->solve(symmetric, rows); }
  void accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                          Tensor& result) override {
    inner_->accumulate_product(a, b, precision, result);
  }
  void round_compensated(const CompensationProblem& problem, QuantizedWeight& result) override {
    inner_->round_compensated(problem, result);
  }
  void sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) override {
    inner_->sweep_codes(problem, result);
  }

 private:
  std::unique_ptr<Backend> inner_;
  Ledger& ledger_;
};

struct Arguments {
  std::string model;
  BackendChoice choice;
  int64_t context = 32;
  int steps = 48;
};

Arguments read_arguments(int count, char** values) {
  Arguments result;
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    const char* next = i + 1 < count ? values[i + 1] : "";
    if (name == "--no-fuse-layers") {
      result.choice.fuse_layers = false;
    } else if (name == "--activations") {
      result.choice.activations = next, ++i;
    } else if (name == "--context") {
      result.context = std::atoll(next), ++i;
    } else if (name == "--steps") {
      result.steps = std::atoi(next), ++i;
    } else {
      result.model = name;
    }
  }
  return result;
}

void run(const Arguments& arguments) {
  Ledger ledger;
  TimedBackend backend(make_backend(arguments.choice), ledger);
  const Decoder decoder = Decoder::load(arguments.model, backend);
  const auto vocabulary = static_cast<uint64_t>(decoder.spec().vocab_size);
  std::vector<int32_t> prompt;
  for (uint64_t i = 0; i < static_cast<uint64_t>(arguments.context); ++i)
    prompt.push_back(static_cast<int32_t>(random_bits(0, i) % vocabulary));
  std::vector<KvCache> caches;
  caches.push_back(decoder.make_cache());
  decoder.forward(prompt, caches.front(), {});
  ledger.forget();
  for (int step = 0; step < arguments.steps; ++step) {
    const auto token = static_cast<int32_t>(random_bits(1, static_cast<uint64_t>(step)) % vocabulary);
    const auto start = Clock::now();
    decoder.step({&token, 1}, caches, nullptr);
    ledger.end_step(std::chrono::duration<double>(Clock::now() - start).count());
  }
  fmt::print("{}, {}, behind {} tokens\n", arguments.model, backend.description(), arguments.context);
  ledger.print();
}

}  // namespace
}  // namespace salient

int main(int count, char** values) {
  try {
    salient::run(salient::read_arguments(count, values));
  } catch (const std::exception& error) {
    fmt::print(stderr, "token_profile: {}\n", error.what());
    return 1;
  }
}
