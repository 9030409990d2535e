#include "gpu/timing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>

namespace salient::gpu {
namespace {

/// A repeat is at least so long: beside it what a device's clock cannot resolve is nothing.
constexpr double kRepeatSeconds = 3e-3;
constexpr int kRepeats = 7;
constexpr double kWarmSeconds = 10e-3;

/// All pieces, as a graph if they can be one.
class Round {
 public:
  Round(SectionRun& run, int pieces, const std::function<void(int)>& work)
      : device_(run.device()), pieces_(pieces), work_(work) {
    queue_directly();  // memory on the side is there from now on
    device_.synchronize();
    recorded_ = device_.record([&] { queue_directly(); });
    if (recorded_.empty()) return;
    launches_ = launches_of(recorded_);
    graph_ = device_.capture(launches_);
  }

  void queue() {
    if (graph_) {
      device_.run(*graph_, launches_);
    } else {
      queue_directly();
    }
  }
  bool is_graph() const { return graph_ != nullptr; }

 private:
  void queue_directly() {
    for (int piece = 0; piece < pieces_; ++piece) work_(piece);
  }

  TracedDevice& device_;
  int pieces_;
  const std::function<void(int)>& work_;
  std::vector<RecordedLaunch> recorded_;
  std::vector<cuda::Launch> launches_;
  std::unique_ptr<cuda::LaunchGraph> graph_;
};

/// By the device's clock: what the host does before it waits, and behind that, does not count.
double seconds_of(SectionRun& run, Round& round, int rounds) {
  return run.device().seconds_of([&] {
    for (int i = 0; i < rounds; ++i) round.queue();
  });
}

struct KnownCard {
  std::string_view name;
  double gigabytes_per_second;
  double teraflops;
};
// NVIDIA's data sheets; dense products. The first whose name is part of the device's counts: longer names
// come first.
constexpr std::array<KnownCard, 15> kCards{{{"GH200", 4000, 989},
                                            {"H200", 4800, 989},
                                            {"H100 PCIe", 2039, 756},
                                            {"H100 NVL", 3938, 835},
                                            {"H100", 3350, 989},
                                            {"A100-SXM4-80GB", 2039, 312},
                                            {"A100 80GB PCIe", 1935, 312},
                                            {"A100", 1555, 312},
                                            {"L40S", 864, 362},
                                            {"L40", 864, 181},
                                            {"L4", 300, 121},
                                            {"A10", 600, 125},
                                            {"A30", 933, 165},
                                            {"RTX 4090", 1008, 165},
                                            {"RTX 3090", 936, 71}}};

}  // namespace

int copies_of(const SectionRun& run, size_t bytes) {
  if (run.tiny()) return 2;
  return static_cast<int>(
      std::clamp<size_t>((kWanderBytes + bytes - 1) / std::max<size_t>(bytes, 1), 2, 256));
}

Json Timing::to_json() const {
  return {{"us", number(seconds * 1e6)},
          {"least_us", number(least * 1e6)},
          {"most_us", number(most * 1e6)},
          {"graph", graph}};
}

Timing measure(SectionRun& run, int pieces, const std::function<void(int piece)>& work) {
  Round round(run, pieces, work);
  double once = seconds_of(run, round, 1);
  // Clocks come up while it works.
  for (double warm = once; !run.tiny() && warm < kWarmSeconds; warm += once) once = seconds_of(run, round, 1);
  const int rounds = run.tiny() ? 1 : static_cast<int>(std::clamp(kRepeatSeconds / once, 1.0, 1000.0)) + 1;
  std::vector<double> repeats;
  for (int i = 0; i < (run.tiny() ? 1 : kRepeats); ++i)
    repeats.push_back(seconds_of(run, round, rounds) / rounds / pieces);
  std::ranges::sort(repeats);
  return {.seconds = repeats[repeats.size() / 2],
          .least = repeats.front(),
          .most = repeats.back(),
          .graph = round.is_graph()};
}

Json profile(SectionRun& run, const Recording& recording) {
  std::map<std::string, std::vector<RecordedLaunch>> by_name;
  for (const RecordedLaunch& launch : recording.launches) by_name[launch.kernel.name].push_back(launch);
  std::vector<Json> rows;
  const auto add = [&](const std::string& name, size_t count, const std::function<void(int)>& work) {
    rows.push_back(
        {{"kernel", name}, {"launches", count}, {"us", number(measure(run, 1, work).seconds * 1e6)}});
  };
  for (const auto& [name, launches] : by_name)
    add(name, launches.size(), [&](int) {
      for (const cuda::Launch& launch : launches_of(launches)) run.device().launch(launch);
    });
  if (!recording.products.empty())
    add("library", recording.products.size(), [&](int) {
      for (const cuda::HalfProduct& product : recording.products) run.device().multiply(product);
    });
  std::ranges::sort(rows, std::greater(), [](const Json& row) { return row["us"].get<double>(); });
  return rows;
}

Peak peak_of(const cuda::DeviceProperties& properties) {
  for (const KnownCard& card : kCards)
    if (properties.name.find(card.name) != std::string::npos)
      return {card.gigabytes_per_second * 1e9, card.teraflops * 1e12};
  return {};
}

Json share(double part, double whole) { return whole > 0 ? number(part / whole) : Json(); }

}  // namespace salient::gpu
