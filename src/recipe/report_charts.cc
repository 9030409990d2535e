#include "recipe/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "recipe/svg_plot.h"

namespace salient {
namespace {

using Quantiles = std::array<double, 7>;

/// The least and the largest of what it was told.
struct Extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

template <class Group>
PlotAxis layer_axis(const std::vector<Group>& groups) {
  int64_t first = groups.front().layer;
  int64_t last = first;
  for (const Group& group : groups) {
    first = std::min(first, group.layer);
    last = std::max(last, group.layer);
  }
  return index_axis(first, last, "layer");
}

std::string legend_key(const std::string& icon, std::string_view text) {
  return fmt::format(R"(<span class="key">{}{}</span>)", icon, escape_html(text));
}

std::string legend(const std::string& keys) { return fmt::format(R"(<p class="legend">{}</p>)", keys); }

/// "3 experts: " in front of what is a mean.
std::string mean_of(size_t count) { return count > 1 ? fmt::format("mean of {}: ", count) : ""; }

struct DepthPoint {
  size_t role = 0;
  PlotPoint at;
  std::string title;
};

std::vector<DepthPoint> depth_points(const LinearRoles& roles) {
  std::vector<DepthPoint> points;
  for (const LinearGroup& group : roles.groups) {
    const auto db = mean_db(group.linears, &LinearReport::loss);
    if (!db) continue;
    const auto nearest = mean_db(group.linears, &LinearReport::loss_nearest);
    std::string title = fmt::format("layer {}, {}\n{}{:.2f} dB", group.layer, roles.names[group.role],
                                    mean_of(group.linears.size()), *db);
    if (nearest) title += fmt::format(" (round-to-nearest: {:.2f} dB)", *nearest);
    points.push_back({group.role, {static_cast<double>(group.layer), *db}, std::move(title)});
  }
  return points;
}

/// A bar's share, or nothing where no linear of the role has a loss.
void add_bar(const RoleFigures& figures, double LinearReport::*loss, std::string_view what, BarGroup& group) {
  const auto share = mean_share(figures.linears, loss);
  if (!share) return;
  group.bars.push_back({*share, fmt::format("{}, {}: {:.1f} % of the loss of round-to-nearest ({:+.2f} dB)",
                                            figures.role, what, 100 * *share, -10 * std::log10(*share))});
}

constexpr std::string_view kStages[] = {"scales", "scales and clips", "as written"};
constexpr double LinearReport::*kStageLosses[] = {&LinearReport::loss_scaled, &LinearReport::loss_clipped,
                                                  &LinearReport::loss};

bool can_be_drawn(const Quantiles& quantiles) {
  return std::all_of(quantiles.begin(), quantiles.end(),
                     [](double value) { return std::isfinite(value) && value > 0; });
}

/// Of several mappings: the outermost ends, and geometric means between them.
Quantiles merged(const std::vector<const MappingReport*>& mappings, size_t& count) {
  Quantiles result{};
  count = 0;
  for (const MappingReport* mapping : mappings) {
    const Quantiles& quantiles = mapping->scale_quantiles;
    if (!can_be_drawn(quantiles)) continue;
    if (count == 0) {
      result.front() = quantiles.front();
      result.back() = quantiles.back();
    }
    ++count;
    result.front() = std::min(result.front(), quantiles.front());
    result.back() = std::max(result.back(), quantiles.back());
    for (size_t i = 1; i + 1 < result.size(); ++i) result[i] += std::log(quantiles[i]);
  }
  for (size_t i = 1; i + 1 < result.size(); ++i)
    result[i] = std::exp(result[i] / std::max(1.0, static_cast<double>(count)));
  return result;
}

std::string panel(const std::string& name, const std::string& plot) {
  return fmt::format(R"(<figure><figcaption>{}</figcaption><div class="plot">{}</div></figure>)",
                     escape_html(name), plot);
}

constexpr double kPanelWidth = 530;

SvgPlot::Frame panel_frame(const MappingRoles& roles, const std::string& name, PlotAxis y, double height) {
  return {
      .name = name, .x = layer_axis(roles.groups), .y = std::move(y), .width = kPanelWidth, .height = height};
}

struct ScaleBox {
  size_t role = 0;
  int64_t layer = 0;
  size_t count = 0;
  Quantiles quantiles{};
};

std::vector<ScaleBox> scale_boxes(const MappingRoles& roles) {
  std::vector<ScaleBox> boxes;
  for (const MappingGroup& group : roles.groups) {
    ScaleBox box{.role = group.role, .layer = group.layer};
    box.quantiles = merged(group.mappings, box.count);
    if (box.count > 0) boxes.push_back(box);
  }
  return boxes;
}

std::string box_title(const ScaleBox& box) {
  const Quantiles& q = box.quantiles;
  return fmt::format(
      "layer {}\n{}median {:.3g}\nhalf of the scales: {:.3g} to {:.3g}\n90 %: {:.3g} to {:.3g}\nall: {:.3g} "
      "to "
      "{:.3g}",
      box.layer, mean_of(box.count), q[3], q[2], q[4], q[1], q[5], q[0], q[6]);
}

struct Exponent {
  double ratio = 0;
  SvgPlot::Marker marker = SvgPlot::Marker::filled;
  std::string title;
};

/// Of several mappings the mean of those that have scales.
Exponent exponent_of(const MappingGroup& group) {
  double sum = 0;
  size_t scaled = 0;
  size_t duo = 0;
  for (const MappingReport* mapping : group.mappings) {
    if (mapping->left_alone || !std::isfinite(mapping->ratio)) continue;
    sum += mapping->ratio;
    duo += mapping->duo ? 1 : 0;
    ++scaled;
  }
  if (scaled == 0) return {0, SvgPlot::Marker::cross, fmt::format("layer {}: left alone", group.layer)};
  const double ratio = sum / static_cast<double>(scaled);
  const bool mostly_duo = 2 * duo >= scaled;
  std::string title = fmt::format("layer {}: {}exponent {:.3g}, {}", group.layer, mean_of(scaled), ratio,
                                  mostly_duo ? "by activations and weights" : "by activations alone");
  if (scaled < group.mappings.size()) title += fmt::format("\n{} left alone", group.mappings.size() - scaled);
  return {ratio, mostly_duo ? SvgPlot::Marker::filled : SvgPlot::Marker::hollow, std::move(title)};
}

}  // namespace

std::string depth_chart(const LinearRoles& roles) {
  const std::vector<DepthPoint> points = depth_points(roles);
  if (points.empty()) return "";
  Extent extent;
  for (const DepthPoint& point : points) extent.include(point.at.y);
  SvgPlot plot({.name = "Signal-to-noise ratio by layer and role",
                .x = layer_axis(roles.groups),
                .y = linear_axis(extent.low, extent.high, "signal-to-noise ratio, dB"),
                .height = 400});
  std::vector<std::vector<PlotPoint>> lines(roles.names.size());
  for (const DepthPoint& point : points) lines[point.role].push_back(point.at);
  std::string keys;
  for (size_t role = 0; role < lines.size(); ++role) {
    plot.line(role, lines[role]);
    if (!lines[role].empty()) keys += legend_key(marker_icon(role), roles.names[role]);
  }
  for (const DepthPoint& point : points) plot.marker(point.role, point.at, point.title);
  return legend(keys) + fmt::format(R"(<div class="plot wide">{}</div>)", plot.finish());
}

std::string share_chart(const LinearRoles& roles) {
  std::vector<BarGroup> groups;
  for (const RoleFigures& figures : figures_by_role(roles)) {
    BarGroup group{.name = figures.role, .bars = {}};
    for (size_t i = 0; i < std::size(kStages); ++i) add_bar(figures, kStageLosses[i], kStages[i], group);
    if (group.bars.size() == std::size(kStages)) groups.push_back(std::move(group));
  }
  if (groups.empty()) return "";
  std::string keys;
  for (size_t i = 0; i < std::size(kStages); ++i)
    keys += legend_key(fmt::format(R"(<i class="swatch t{}"></i>)", i), kStages[i]);
  return legend(keys) + fmt::format(R"(<div class="plot wide">{}</div>)",
                                    bar_chart(groups, "Loss by role against rounding to nearest",
                                              "loss, of round-to-nearest"));
}

std::string scale_charts(const MappingRoles& roles) {
  const std::vector<ScaleBox> boxes = scale_boxes(roles);
  std::string panels;
  for (size_t role = 0; role < roles.names.size(); ++role) {
    Extent extent;
    for (const ScaleBox& box : boxes) {
      if (box.role != role) continue;
      extent.include(box.quantiles.front());
      extent.include(box.quantiles.back());
    }
    if (extent.empty()) continue;
    SvgPlot plot(panel_frame(roles, "Scales of " + roles.names[role],
                             power_axis(extent.low, extent.high, "scale"), 220));
    plot.rule(1);
    for (const ScaleBox& box : boxes) {
      if (box.role == role) plot.box(role, static_cast<double>(box.layer), box.quantiles, box_title(box));
    }
    panels += panel(roles.names[role], plot.finish());
  }
  return panels;
}

std::string exponent_charts(const MappingRoles& roles) {
  std::string panels;
  for (size_t role = 0; role < roles.names.size(); ++role) {
    std::vector<PlotPoint> points;
    std::vector<PlotPoint> line;  // of those that have scales
    std::vector<Exponent> exponents;
    Extent extent{.low = 0, .high = 1};
    for (const MappingGroup& group : roles.groups) {
      if (group.role != role) continue;
      exponents.push_back(exponent_of(group));
      points.push_back({static_cast<double>(group.layer), exponents.back().ratio});
      if (exponents.back().marker != SvgPlot::Marker::cross) line.push_back(points.back());
      extent.include(exponents.back().ratio);
    }
    SvgPlot plot(panel_frame(roles, "Exponents of " + roles.names[role],
                             linear_axis(extent.low, extent.high, "exponent"), 180));
    plot.line(role, line);
    for (size_t i = 0; i < points.size(); ++i)
      plot.marker(role, points[i], exponents[i].title, exponents[i].marker);
    panels += panel(roles.names[role], plot.finish());
  }
  return panels;
}

}  // namespace salient
