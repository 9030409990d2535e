#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "evaluate/perplexity.h"
#include "evaluate/speed.h"
#include "gpu/sections.h"
#include "runtime/decoder.h"
#include "salient/oneshot.h"
#include "support/temporary_directory.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace salient::gpu {
namespace {

/// Of the largest logit: inputs and weights of products are rounded to 11 bits, layer after layer.
constexpr double kLogitBound = 2e-2;
constexpr double kPerplexityBound = 0.002;

struct BothDecoders {
  const Decoder& cuda;
  const Decoder& cpu;
};

struct Greedy {
  std::vector<int32_t> tokens;
  std::vector<Tensor> logits;  ///< f32 [1, vocab] of each
};

size_t largest_of(const Tensor& logits) {
  const auto values = logits.values<float>();
  return static_cast<size_t>(std::ranges::max_element(values) - values.begin());
}

Greedy write_greedily(const Decoder& decoder, std::span<const int32_t> prompt, int64_t count) {
  Greedy text;
  KvCache cache = decoder.make_cache();
  Tensor logits = decoder.forward(prompt, cache, {LogitRows::last});
  for (int64_t i = 0; i < count; ++i) {
    text.logits.push_back(logits);
    text.tokens.push_back(static_cast<int32_t>(largest_of(logits)));
    if (i + 1 < count) logits = decoder.forward({&text.tokens.back(), 1}, cache, {LogitRows::last});
  }
  return text;
}

/// How much likelier, as a share of the largest logit, the CPU finds its own token where the two part.
void check_greedy(SectionRun& run, const std::string& name, const BothDecoders& on,
                  std::span<const int32_t> prompt, int64_t count) {
  run.attempt(name + ", greedy text", [&] {
    const Greedy expected = write_greedily(on.cpu, prompt, count);
    const Greedy got = write_greedily(on.cuda, prompt, count);
    const auto parted = std::ranges::mismatch(expected.tokens, got.tokens).in1 - expected.tokens.begin();
    Json& json = run.json()["models"][name]["greedy"];
    json = {{"tokens", count}, {"same", parted}};
    double margin = 0;
    if (parted < count) {
      const auto values = expected.logits[static_cast<size_t>(parted)].values<float>();
      const auto at = [&](const Greedy& text) {
        return double{values[static_cast<size_t>(text.tokens[static_cast<size_t>(parted)])]};
      };
      double size = 0;
      for (const float value : values) size = std::max(size, std::abs(double{value}));
      margin = (at(expected) - at(got)) / size;
      json["margin"] = number(margin);
    }
    run.check("greedy text", margin, kLogitBound);
  });
}

void check_logits(SectionRun& run, const std::string& name, const BothDecoders& on,
                  std::span<const int32_t> prompt) {
  run.attempt(name + ", logits", [&] {
    KvCache cpu_cache = on.cpu.make_cache();
    KvCache cuda_cache = on.cuda.make_cache();
    const Tensor expected = on.cpu.forward(prompt, cpu_cache, {LogitRows::all});
    const Tensor got = on.cuda.forward(prompt, cuda_cache, {LogitRows::all});
    run.check("logits of a prompt", got, expected, {.bound = kLogitBound});
  });
  run.attempt(name + ", logits of a batch", [&] {
    // Texts of different lengths, each a token further.
    std::vector<KvCache> cpu_caches;
    std::vector<KvCache> cuda_caches;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < (run.tiny() ? 2u : 12u); ++i) {
      const auto beginning = prompt.first(std::min(prompt.size() - 1, 1 + 3 * i));
      on.cpu.forward(beginning, cpu_caches.emplace_back(on.cpu.make_cache()), {LogitRows::last});
      on.cuda.forward(beginning, cuda_caches.emplace_back(on.cuda.make_cache()), {LogitRows::last});
      tokens.push_back(prompt[beginning.size()]);
    }
    const Tensor expected = on.cpu.step(tokens, cpu_caches, nullptr);
    run.check("logits of a batch", on.cuda.step(tokens, cuda_caches, nullptr), expected,
              {.bound = kLogitBound});
  });
}

struct Text {
  std::vector<int32_t> prompt;
  TokenWindows windows;
};

Text text_for(const SectionRun& run, const std::string& model) {
  const Tokenizer tokenizer = Tokenizer::from_directory(model);
  const TextFile file{.path = run.options().demo + "/evaluation.txt"};
  Text text;
  text.windows = read_token_windows(
      tokenizer, file,
      {.window = run.by_size<size_t>(8, 256, 512), .maximum = run.by_size<size_t>(1, 4, 16)});
  text.prompt = text.windows.front();
  text.prompt.resize(run.by_size<size_t>(6, 100, 300));
  return text;
}

void check_perplexity(SectionRun& run, const std::string& name, const std::string& model, Backend& cuda,
                      Backend& cpu, const TokenWindows& windows) {
  run.attempt(name + ", perplexity", [&] {
    const ModelWeights weights(model);
    const double expected = measure_perplexity(cpu, weights, windows).perplexity;
    const double got = measure_perplexity(cuda, weights, windows).perplexity;
    run.json()["models"][name]["perplexity"] = {{"cuda", number(got)}, {"cpu", number(expected)}};
    run.check("perplexity", std::abs(got / expected - 1), kPerplexityBound);
  });
}

struct ModelCase {
  std::string name;
  std::string directory;
  cuda::HalfType half = cuda::HalfType::f16;
  KvType kv_type = KvType::fp16;
};

void check_model(SectionRun& run, const ModelCase& of) {
  const auto cuda = run.make_backend({.half = of.half});
  const auto cpu = make_cpu_backend();
  std::optional<Decoder> on_cuda;
  std::optional<Decoder> on_cpu;
  Text text;
  bool loaded = false;
  run.attempt(of.name + ", load", [] {});
  // Every process that goes on behind a lost device needs them.
  try {
    text = text_for(run, of.directory);
    on_cpu = Decoder::load(of.directory, *cpu, {.kv_type = of.kv_type});
    on_cuda = Decoder::load(of.directory, *cuda, {.kv_type = of.kv_type});
    loaded = true;
  } catch (const Error& error) {
    run.fail("load", {{"model", of.directory}, {"text", error.what()}});
  }
  if (!loaded) return;
  const BothDecoders on{*on_cuda, *on_cpu};
  check_logits(run, of.name, on, text.prompt);
  check_greedy(run, of.name, on, std::span(text.prompt).first(text.prompt.size() / 2), run.tiny() ? 2 : 32);
  if (of.half == cuda::HalfType::f16) check_perplexity(run, of.name, of.directory, *cuda, *cpu, text.windows);
  run.attempt(of.name + ", speed", [&] {
    if (run.tiny()) return;
    const Speed speed = measure_speed(on.cuda, {.prefill_length = 128, .decode_length = 64}, 2, nullptr);
    run.json()["models"][of.name]["decode_tokens_per_second"] = number(speed.decode_tokens_per_second);
    run.json()["models"][of.name]["prefill_tokens_per_second"] = number(speed.prefill_tokens_per_second);
  });
}

/// Round to nearest: what is compared is how two back ends run one checkpoint.
void quantize_demo(const SectionRun& run, const std::filesystem::path& output, int64_t group_size) {
  OneshotOptions options{.model = run.options().demo + "/model", .output = output.string()};
  options.recipe.awq.reset();
  options.recipe.quantization.scheme = "W4A16_ASYM";
  options.recipe.quantization.group_size = group_size;
  oneshot(options);
}

}  // namespace

void check_models(SectionRun& run) {
  if (!run.options().models.empty()) {
    for (const std::string& model : run.options().models) check_model(run, {model, model});
    return;
  }
  const TemporaryDirectory folder;
  const auto groups_of_128 = folder.path() / "g128";
  const auto groups_of_32 = folder.path() / "g32";
  quantize_demo(run, groups_of_128, 128);
  check_model(run, {"demo, 4 bits in groups of 128", groups_of_128.string()});
  if (run.tiny()) return;
  quantize_demo(run, groups_of_32, 32);
  check_model(run,
              {"demo, 4 bits in groups of 32", groups_of_32.string(), cuda::HalfType::f16, KvType::int8});
  check_model(run, {"demo, bf16 operands", groups_of_128.string(), cuda::HalfType::bf16, KvType::fp32});
  check_model(run,
              {"demo, keys and values in bf16", groups_of_128.string(), cuda::HalfType::f16, KvType::bf16});
  check_model(run, {"demo, as stored", run.options().demo + "/model"});
}

}  // namespace salient::gpu
