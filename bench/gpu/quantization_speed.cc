#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "awq/awq.h"
#include "base/error.h"
#include "base/random.h"
#include "base/stopwatch.h"
#include "calibrate/layer_stream.h"
#include "gpu/sections.h"
#include "gpu/synthetic_model.h"
#include "recipe/effort.h"
#include "recipe/resolve.h"
#include "support/temporary_directory.h"

namespace salient::gpu {
namespace {

/// Layers of the model that the one measured stands for.
constexpr int kLayersOfModel = 32;

/// Raises a flag when the time is up.
class Alarm {
 public:
  explicit Alarm(double seconds)
      : thread_([this, seconds] {
          std::unique_lock lock(mutex_);
          if (!ended_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return over_; }))
            flag_ = true;
        }) {}
  ~Alarm() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    ended_.notify_one();
    thread_.join();
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  const std::atomic<bool>& flag() const { return flag_; }

 private:
  std::atomic<bool> flag_ = false;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool over_ = false;
  std::thread thread_;
};

std::vector<std::vector<int32_t>> random_sequences(size_t count, size_t length, int64_t vocabulary) {
  std::vector<std::vector<int32_t>> sequences(count, std::vector<int32_t>(length));
  uint64_t drawn = 0;
  for (auto& sequence : sequences)
    for (int32_t& token : sequence)
      token = static_cast<int32_t>(random_bits(71, drawn++) % static_cast<uint64_t>(vocabulary));
  return sequences;
}

Json seconds_json(const LayerSeconds& seconds) {
  return {{"forward", number(seconds.forward)},   {"statistics", number(seconds.statistics)},
          {"scales", number(seconds.scales)},     {"clips", number(seconds.clips)},
          {"rounding", number(seconds.rounding)}, {"checks", number(seconds.checks)}};
}

struct LayerCase {
  ModelShape shape;
  size_t sequences;
  size_t length;
  double seconds;  ///< at most
};

/// AWQ as `salient quantize` does it, for the only layer of a checkpoint.
QuantizedLayer quantize_one(SectionRun& run, Backend& backend, const ModelWeights& weights,
                            const LayerCase& of, double& seconds) {
  const OneshotOptions options = settled({.model = "", .calibration = {.datasets = {}}});
  const ResolvedRecipe recipe = resolve_recipe(options, weights.spec());
  const auto sequences = random_sequences(of.sequences, of.length, of.shape.vocabulary);
  const Alarm alarm(of.seconds);
  const auto exact = make_cpu_backend();
  LayerStream stream(
      {.backend = backend, .weights = weights, .windows = sequences, .cancelled = &alarm.flag()});
  const LayerJob job{.backend = backend,
                     .exact = *exact,
                     .spec = weights.spec(),
                     .layer = 0,
                     .linears = recipe.linears.front(),
                     .mappings = recipe.mappings.front(),
                     .precision = MatmulPrecision::bf16,
                     .propagation = *options.calibration.propagation,
                     .cancelled = &alarm.flag()};
  run.json()["tokens"] = stream.tokens();
  const Stopwatch watch(seconds);
  return quantize_layer(job, *options.recipe.awq, weights.layer(0), stream);
}

}  // namespace

void time_quantization(SectionRun& run) {
  LayerCase of{.shape = {.layers = 1, .vocabulary = 2048}, .sequences = 128, .length = 512, .seconds = 70};
  if (run.size() == Size::quick) of.sequences = 32;
  if (run.tiny())
    of = {.shape =
              {.hidden = 128, .intermediate = 256, .layers = 1, .heads = 2, .kv_heads = 1, .vocabulary = 64},
          .sequences = 2,
          .length = 4,
          .seconds = 600};
  run.attempt("one layer", [&] {
    const TemporaryDirectory folder;
    const auto checkpoint = (folder.path() / "model").string();
    write_random_checkpoint(of.shape, checkpoint);
    const ModelWeights weights(checkpoint);
    const auto backend = run.make_backend();
    double seconds = 0;
    Json& json = run.json();
    QuantizedLayer layer;
    try {
      layer = quantize_one(run, *backend, weights, of, seconds);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::cancelled) throw;
      json["given_up_after_seconds"] = seconds;
      return;
    }
    json["seconds_of_layer"] = number(seconds);
    json["seconds_of_model"] = number(kLayersOfModel * seconds);
    json["parts"] = seconds_json(layer.report.seconds);
    json["device_bytes"] = run.device().peak_bytes();
    double loss = 0;
    double nearest = 0;
    for (const LinearReport& linear : layer.report.linears) {
      loss += linear.loss / linear.signal;
      nearest += linear.loss_nearest / linear.signal;
    }
    run.check("loss beside rounding to nearest", loss / nearest, 1.0);
  });
}

}  // namespace salient::gpu
