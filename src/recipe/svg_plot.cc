#include "recipe/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/spelling.h"

namespace salient {
namespace {

// Room around the field of a plot for tick labels and names of axes, in units of the view box.
constexpr double kLeft = 56;
constexpr double kRight = 12;
constexpr double kTop = 10;
constexpr double kBottom = 40;

/// 1, 2 or 5 times a power of ten, so that `span` has about `steps` of it.
double round_step(double span, double steps) {
  const double raw = span / steps;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

/// The ends of an axis, as far apart as a double tells well, and within numbers that can be counted in steps.
void widen(double& low, double& high) {
  constexpr double kFarthest = 1e12;
  low = std::clamp(low, -kFarthest, kFarthest);
  high = std::clamp(high, -kFarthest, kFarthest);
  if (high - low > 1e-6 * std::max(std::abs(low), std::abs(high))) return;
  const double room = std::max(0.5, 0.05 * std::abs(low));
  low -= room;
  high += room;
}

double place(const PlotAxis& axis, double value) {
  if (!axis.logarithmic) return (value - axis.low) / (axis.high - axis.low);
  return (std::log2(value) - std::log2(axis.low)) / (std::log2(axis.high) - std::log2(axis.low));
}

/// Powers of two below one as fractions.
std::string tick_text(const PlotAxis& axis, double value) {
  if (axis.logarithmic && value < 1 && value > 1e-6) return fmt::format("1/{:.0f}", 1 / value);
  return fmt::format("{:.6g}", value);
}

std::string series_class(size_t series) {
  return fmt::format("s{} d{}", series % SvgPlot::kSeries, series / SvgPlot::kSeries % 3);
}

/// Outlines around the origin, of about the same area, in the order of the colours.
std::string shape_path(size_t series, double x, double y) {
  switch (series % SvgPlot::kSeries) {
    case 0:
      return fmt::format("M{:.1f},{:.1f}a3.4,3.4 0 1 0 6.8,0a3.4,3.4 0 1 0 -6.8,0z", x - 3.4, y);
    case 1:
      return fmt::format("M{:.1f},{:.1f}h6v6h-6z", x - 3, y - 3);
    case 2:
      return fmt::format("M{:.1f},{:.1f}l4,7h-8z", x, y - 4);
    case 3:
      return fmt::format("M{:.1f},{:.1f}l4.2,4.2l-4.2,4.2l-4.2,-4.2z", x, y - 4.2);
    case 4:
      return fmt::format("M{:.1f},{:.1f}l4,-7h-8z", x, y + 4);
    case 5:
      return fmt::format("M{:.1f},{:.1f}h2.4v-2.8h2.6v2.8h2.4v2.6h-2.4v2.8h-2.6v-2.8h-2.4z", x - 3.7,
                         y - 1.3);
    default:
      return fmt::format("M{:.1f},{:.1f}h8v3.6h-8z", x - 4, y - 1.8);
  }
}

std::string cross_path(double x, double y) {
  return fmt::format("M{:.1f},{:.1f}l6,6m0,-6l-6,6", x - 3, y - 3);
}

std::string marker_path(size_t series, PlotPoint at, SvgPlot::Marker marker) {
  constexpr std::string_view kKinds[] = {"m", "m hollow", "m cross"};
  return fmt::format(
      R"(<path class="{} {}" d="{}">)", kKinds[static_cast<size_t>(marker)], series_class(series),
      marker == SvgPlot::Marker::cross ? cross_path(at.x, at.y) : shape_path(series, at.x, at.y));
}

std::string text_at(double x, double y, std::string_view anchor, std::string_view text) {
  return fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x, y, anchor,
                     escape_html(text));
}

std::string segment(std::string_view kind, PlotPoint from, PlotPoint to) {
  return fmt::format(R"(<path class="{}" d="M{:.1f},{:.1f}L{:.1f},{:.1f}"/>)", kind, from.x, from.y, to.x,
                     to.y);
}

std::string open_svg(double width, double height, std::string_view name) {
  return fmt::format(R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">)", width, height,
                     escape_html(name));
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char character : text) {
    switch (character) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(character);
        const bool is_control = (byte < 0x20 && character != '\t' && character != '\n') || byte == 0x7f;
        if (is_control) result += "\xef\xbf\xbd";  // U+FFFD
        if (!is_control) result += character;
      }
    }
  }
  return result;
}

PlotAxis linear_axis(double low, double high, std::string label) {
  widen(low, high);
  const double step = round_step(high - low, 5);
  PlotAxis axis{.low = std::floor(low / step) * step, .high = std::ceil(high / step) * step};
  axis.label = std::move(label);
  const auto steps = static_cast<int>(std::lround((axis.high - axis.low) / step));
  for (int i = 0; i <= steps; ++i) axis.ticks.push_back(axis.low + i * step);
  return axis;
}

PlotAxis power_axis(double low, double high, std::string label) {
  constexpr double kLargestPower = 1000;  // of a double 1023
  double first = std::max(std::floor(std::log2(low)), -kLargestPower);
  double last = std::min(std::ceil(std::log2(high)), kLargestPower);
  if (last <= first) {
    first -= 1;
    last += 1;
  }
  PlotAxis axis{.low = std::exp2(first), .high = std::exp2(last), .logarithmic = true};
  axis.label = std::move(label);
  const double step = std::max(1.0, std::ceil((last - first) / 6));
  for (double power = std::ceil(first / step) * step; power <= last; power += step)
    axis.ticks.push_back(std::exp2(power));
  return axis;
}

PlotAxis index_axis(int64_t first, int64_t last, std::string label) {
  PlotAxis axis{.low = static_cast<double>(first) - 0.5, .high = static_cast<double>(last) + 0.5};
  axis.label = std::move(label);
  const double span = static_cast<double>(last) - static_cast<double>(first);
  const double step = span > 0 ? std::max(1.0, round_step(span, 12)) : 1;
  for (double tick = std::ceil(static_cast<double>(first) / step) * step; tick < axis.high; tick += step)
    axis.ticks.push_back(tick);
  return axis;
}

SvgPlot::SvgPlot(Frame frame) : frame_(std::move(frame)) { draw_axes(); }

double SvgPlot::x_of(double value) const {
  return kLeft + place(frame_.x, value) * (frame_.width - kLeft - kRight);
}

double SvgPlot::y_of(double value) const {
  return frame_.height - kBottom - place(frame_.y, value) * (frame_.height - kTop - kBottom);
}

void SvgPlot::draw_axes() {
  const double right = frame_.width - kRight;
  const double bottom = frame_.height - kBottom;
  for (const double tick : frame_.y.ticks) {
    const double y = y_of(tick);
    body_ += segment("grid", {kLeft, y}, {right, y});
    body_ += text_at(kLeft - 7, y + 4, "end", tick_text(frame_.y, tick));
  }
  body_ += segment("axis", {kLeft, bottom}, {right, bottom});
  for (const double tick : frame_.x.ticks) {
    body_ += segment("axis", {x_of(tick), bottom}, {x_of(tick), bottom + 4});
    body_ += text_at(x_of(tick), bottom + 17, "middle", tick_text(frame_.x, tick));
  }
  body_ += text_at((kLeft + right) / 2, frame_.height - 5, "middle", frame_.x.label);
  const double middle = (kTop + bottom) / 2;
  body_ += fmt::format(
      R"svg(<text transform="translate(13,{:.1f}) rotate(-90)" text-anchor="middle">{}</text>)svg", middle,
      escape_html(frame_.y.label));
}

void SvgPlot::line(size_t series, const std::vector<PlotPoint>& points) {
  if (points.size() < 2) return;
  std::string path;
  for (const PlotPoint& point : points)
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? 'M' : 'L', x_of(point.x), y_of(point.y));
  body_ += fmt::format(R"(<path class="line {}" d="{}"/>)", series_class(series), path);
}

void SvgPlot::marker(size_t series, PlotPoint point, std::string_view title, Marker marker) {
  body_ += marker_path(series, {x_of(point.x), y_of(point.y)}, marker);
  body_ += fmt::format("<title>{}</title></path>", escape_html(title));
}

void SvgPlot::box(size_t series, double x, const std::array<double, 7>& quantiles, std::string_view title) {
  std::array<double, 7> heights;
  for (size_t i = 0; i < quantiles.size(); ++i) heights[i] = y_of(quantiles[i]);
  const double step = x_of(1) - x_of(0);
  const double half = std::clamp(0.3 * step, 0.8, 8.0);
  const double middle = x_of(x);
  body_ += fmt::format(R"(<g class="box {}"><title>{}</title>)", series_class(series), escape_html(title));
  body_ += segment("reach", {middle, heights[0]}, {middle, heights[6]});
  body_ += segment("whisker", {middle, heights[1]}, {middle, heights[5]});
  body_ += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>)", middle - half,
                       heights[4], 2 * half, std::max(heights[2] - heights[4], 0.5));
  body_ += segment("median", {middle - half, heights[3]}, {middle + half, heights[3]});
  body_ += "</g>";
}

void SvgPlot::rule(double y) { body_ += segment("rule", {kLeft, y_of(y)}, {frame_.width - kRight, y_of(y)}); }

std::string SvgPlot::finish() {
  return open_svg(frame_.width, frame_.height, frame_.name) + body_ + "</svg>";
}

std::string marker_icon(size_t series, SvgPlot::Marker marker) {
  return fmt::format(
      R"(<svg class="icon" viewBox="0 0 20 12" aria-hidden="true"><path class="line {}" d="M0,6H20"/>{}</path></svg>)",
      series_class(series), marker_path(series, {10, 6}, marker));
}

namespace {

constexpr double kBarHeight = 11;
constexpr double kGroupHeight = 46;
constexpr double kChartWidth = 1080;
constexpr size_t kLongestName = 28;
constexpr size_t kShades = 3;  // t0 to t2 of the page's style: steps of one thing

/// The end of a long name tells more than its beginning.
std::string bar_name(const std::string& name) { return shortened(name, kLongestName); }

double name_room(const std::vector<BarGroup>& groups) {
  size_t longest = 0;
  for (const BarGroup& group : groups) longest = std::max(longest, bar_name(group.name).size());
  return 16 + 7.2 * static_cast<double>(longest);
}

}  // namespace

std::string bar_chart(const std::vector<BarGroup>& groups, std::string_view name, std::string_view label,
                      double longest) {
  double high = 1;
  for (const BarGroup& group : groups) {
    for (const BarGroup::Bar& bar : group.bars) high = std::max(high, std::min(bar.value, longest));
  }
  const PlotAxis axis = linear_axis(0, high, "");
  const double left = name_room(groups);
  const double width = kChartWidth - left - 56;
  const double bottom = kTop + kGroupHeight * static_cast<double>(groups.size());
  const auto x_of = [&](double value) { return left + place(axis, value) * width; };
  std::string body;
  for (const double tick : axis.ticks) {
    body += segment(std::abs(tick - 1) < 1e-9 ? "rule" : "grid", {x_of(tick), kTop}, {x_of(tick), bottom});
    body += text_at(x_of(tick), bottom + 16, "middle", fmt::format("{:.0f} %", 100 * tick));
  }
  body += text_at(left + width / 2, bottom + 34, "middle", label);
  double top = kTop;
  for (const BarGroup& group : groups) {
    const double inset = (kGroupHeight - kBarHeight * static_cast<double>(group.bars.size())) / 2;
    body += text_at(left - 10, top + kGroupHeight / 2 + 4, "end", bar_name(group.name));
    for (size_t i = 0; i < group.bars.size(); ++i) {
      const BarGroup::Bar& bar = group.bars[i];
      const double y = top + inset + kBarHeight * static_cast<double>(i);
      const double end = x_of(std::min(bar.value, longest));
      body += fmt::format(
          R"(<rect class="bar t{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>)",
          i % kShades, left, y, std::max(end - left, 0.5), kBarHeight - 1.5, escape_html(bar.title));
      body += fmt::format(R"(<text class="value" x="{:.1f}" y="{:.1f}">{:.1f} %</text>)", end + 5, y + 8.8,
                          100 * bar.value);
    }
    top += kGroupHeight;
  }
  return open_svg(kChartWidth, bottom + 42, name) + body + "</svg>";
}

}  // namespace salient
