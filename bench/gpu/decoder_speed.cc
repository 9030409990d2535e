#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/stopwatch.h"
#include "evaluate/speed.h"
#include "gpu/sections.h"
#include "gpu/synthetic_model.h"
#include "gpu/timing.h"

namespace salient::gpu {
namespace {

ModelShape shape_of(const SectionRun& run) {
  if (run.tiny())
    return {.hidden = 128, .intermediate = 256, .layers = 2, .heads = 4, .kv_heads = 2, .vocabulary = 96};
  return {};
}

Json work_json(const DeviceWork& before, const DeviceWork& after, int64_t steps) {
  const auto per_step = [&](int64_t DeviceWork::*member) {
    return static_cast<double>(after.*member - before.*member) / static_cast<double>(steps);
  };
  return {{"kernels", per_step(&DeviceWork::launches)},
          {"graphs", per_step(&DeviceWork::graphs)},
          {"library_products", per_step(&DeviceWork::multiplications)},
          {"copies_to_device", per_step(&DeviceWork::copies_in)},
          {"copies_to_host", per_step(&DeviceWork::copies_out)},
          {"bytes_to_device", per_step(&DeviceWork::bytes_in)},
          {"bytes_to_host", per_step(&DeviceWork::bytes_out)}};
}

/// What a decoded token of each of so many texts asks of the device: what ought to be a few graphs and one
/// small copy.
Json work_of_step(SectionRun& run, const Decoder& decoder, size_t texts) {
  std::vector<KvCache> caches;
  const std::vector<int32_t> prompt{1, 2, 3};
  for (size_t i = 0; i < texts; ++i)
    decoder.forward(prompt, caches.emplace_back(decoder.make_cache()), {LogitRows::last});
  const std::vector<int32_t> next(texts, 4);
  const auto step = [&] { find_likeliest(decoder, decoder.step(next, caches, nullptr)); };
  for (int i = 0; i < 3; ++i) step();
  const DeviceWork before = run.device().work();
  constexpr int64_t kSteps = 4;
  for (int64_t i = 0; i < kSteps; ++i) step();
  return work_json(before, run.device().work(), kSteps);
}

/// Which kernels a step of so many texts, or a piece of a prompt, consists of, and what each takes.
void profile_step(SectionRun& run, const Decoder& decoder, const std::string& name, int64_t texts,
                  int64_t tokens) {
  std::vector<KvCache> caches;
  std::vector<SequencePart> parts;
  const std::vector<int32_t> prompt(run.tiny() ? 2 : 128, 5);
  const std::vector<int32_t> next(static_cast<size_t>(tokens), 6);
  for (int64_t i = 0; i < texts; ++i)
    decoder.forward(prompt, caches.emplace_back(decoder.make_cache()), {LogitRows::last});
  for (KvCache& cache : caches) parts.push_back({.tokens = next, .cache = cache});
  const auto step = [&] { find_likeliest(decoder, decoder.run(parts, nullptr)); };
  for (int i = 0; i < 2; ++i) step();
  double seconds = 0;
  {
    const Stopwatch watch(seconds);
    step();
  }
  run.device().watch(step, [&](const Recording& recording) {
    run.json()["profiles"].push_back(
        {{"of", name}, {"us", number(seconds * 1e6)}, {"kernels", profile(run, recording)}});
  });
}

/// One sequence's cache is shared by all its layers; rows of logits are a step's result.
Json speed_json(const SectionRun& run, const Speed& speed) {
  const double bytes = speed.weight_bytes_per_step + speed.cache_bytes_per_step;
  const double steps = speed.decode_tokens_per_second / static_cast<double>(speed.of.batch_size);
  Json json{{"batch", speed.of.batch_size},
            {"prompt", speed.of.prefill_length},
            {"decoded", speed.of.decode_length},
            {"prefill_tokens_per_second", number(speed.prefill_tokens_per_second)}};
  if (speed.of.decode_length == 0) return json;
  json["decode_tokens_per_second"] = number(speed.decode_tokens_per_second);
  json["ms_per_step"] = number(1e3 / steps);
  json["bytes_per_step"] = bytes;
  json["share_of_roofline"] = share(bytes * steps, run.bandwidth());
  return json;
}

std::vector<SpeedCase> cases(const SectionRun& run) {
  if (run.tiny())
    return {{.batch_size = 1, .prefill_length = 3, .decode_length = 1},
            {.batch_size = 2, .prefill_length = 2, .decode_length = 1}};
  return {{.batch_size = 1, .prefill_length = 128, .decode_length = 64},
          {.batch_size = 8, .prefill_length = 128, .decode_length = 32},
          {.batch_size = 32, .prefill_length = 128, .decode_length = 32},
          {.batch_size = 1, .prefill_length = 512, .decode_length = 0},
          {.batch_size = 1, .prefill_length = 2048, .decode_length = 0},
          {.batch_size = 1, .prefill_length = 8192, .decode_length = 32}};
}

/// A product that spoils the others shows in the logits.
void check_logits(SectionRun& run, const Decoder& decoder) {
  KvCache cache = decoder.make_cache();
  std::vector<int32_t> tokens(run.tiny() ? 4 : 64);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  const Tensor logits = decoder.forward(tokens, cache, {LogitRows::last});
  bool finite = true;
  for (const float value : logits.values<float>()) finite = finite && std::isfinite(value);
  if (!finite) run.fail("logits", {{"text", "infinite or NaN"}});
}

}  // namespace

void time_decoder(SectionRun& run) {
  const auto backend = run.make_backend();
  std::optional<Decoder> decoder;
  const int64_t before = run.device().used_bytes();
  bool tried = false;
  const auto make = [&] {
    if (decoder) return;
    if (std::exchange(tried, true)) salient::fail(ErrorKind::internal, "there is no model");
    double seconds = 0;
    {
      const Stopwatch watch(seconds);
      decoder.emplace(random_decoder(*backend, shape_of(run), KvType::fp16));
      run.device().synchronize();
    }
    Json& json = run.json();
    json["prepare_seconds"] = number(seconds);
    json["weight_bytes"] = run.device().used_bytes() - before;
    json["weight_bytes_per_step"] = decoder->step_weight_bytes(1);
  };
  run.attempt("logits", [&] {
    make();
    check_logits(run, *decoder);
  });
  run.attempt("work of a token", [&] {
    make();
    run.json()["work_per_token"] = work_of_step(run, *decoder, 1);
    run.json()["work_per_32_tokens"] = work_of_step(run, *decoder, 32);
  });
  for (const SpeedCase& of : cases(run)) {
    const auto name =
        fmt::format("batch {}, prompt {}, {} tokens", of.batch_size, of.prefill_length, of.decode_length);
    run.attempt(name, [&] {
      make();
      run.device().forget_peak();
      const Speed speed = measure_speed(*decoder, of, run.tiny() ? 1 : 3, nullptr);
      Json row = speed_json(run, speed);
      row["device_bytes"] = run.device().peak_bytes();
      run.json()["rows"].push_back(std::move(row));
    });
  }
  struct Step {
    const char* name;
    int64_t texts;
    int64_t tokens;
  };
  for (const auto [name, texts, tokens] : {Step{"a token", 1, 1},
                                           {"tokens of 8 texts", 8, 1},
                                           {"tokens of 32 texts", 32, 1},
                                           {"512 of a prompt", 1, 512}}) {
    run.attempt(fmt::format("profile of {}", name), [&] {
      make();
      profile_step(run, *decoder, name, run.tiny() ? std::min<int64_t>(texts, 2) : texts,
                   run.tiny() ? std::min<int64_t>(tokens, 9) : tokens);
    });
  }
  if (!run.tiny()) run.json()["nvidia_smi"] = smi_line();
}

}  // namespace salient::gpu
