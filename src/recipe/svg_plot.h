#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

/// Text as the content of an element or the value of an attribute: markup and control characters lose their
/// meaning.
std::string escape_html(std::string_view text);

/// How values are laid along one side of a plot.
struct PlotAxis {
  double low = 0;
  double high = 1;
  bool logarithmic = false;
  std::vector<double> ticks;
  std::string label;
};

/// From the last round number below `low` to the first above `high`.
PlotAxis linear_axis(double low, double high, std::string label);
/// By powers of two; `low` and `high` are positive.
PlotAxis power_axis(double low, double high, std::string label);
/// Whole numbers, with half a step of room on either side.
PlotAxis index_axis(int64_t first, int64_t last, std::string label);

struct PlotPoint {
  double x = 0;
  double y = 0;
};

/// A plot as an SVG element whose colours are variables of the page's style (classes s0 to s6) and whose
/// marks say their values in a <title>. Texts are escaped here.
class SvgPlot {
 public:
  /// Colours, and shapes of markers; series beyond them begin anew with other dashes.
  static constexpr size_t kSeries = 7;

  struct Frame {
    std::string name;  ///< what a screen reader says
    PlotAxis x;
    PlotAxis y;
    double width = 1080;
    double height = 340;
  };
  enum class Marker { filled, hollow, cross };

  explicit SvgPlot(Frame frame);

  void line(size_t series, const std::vector<PlotPoint>& points);
  void marker(size_t series, PlotPoint point, std::string_view title, Marker marker = Marker::filled);
  /// Least, 5th, 25th, 50th, 75th, 95th percentile and largest.
  void box(size_t series, double x, const std::array<double, 7>& quantiles, std::string_view title);
  /// A line across the plot at the height `y`.
  void rule(double y);
  std::string finish();

 private:
  double x_of(double value) const;
  double y_of(double value) const;
  void draw_axes();

  Frame frame_;
  std::string body_;
};

/// The marker of a series by itself, for a legend.
std::string marker_icon(size_t series, SvgPlot::Marker marker = SvgPlot::Marker::filled);

/// Bars that lie in groups, one group below the other.
struct BarGroup {
  struct Bar {
    double value = 0;  ///< a share: 1 is the whole
    std::string title;
  };
  std::string name;
  std::vector<Bar> bars;  ///< one of each step, in shades of one colour (classes t0 to t2)
};

/// Shares against a line at 100 %; a bar beyond `longest` is cut there, its number says how long it is.
std::string bar_chart(const std::vector<BarGroup>& groups, std::string_view name, std::string_view label,
                      double longest = 2);

}  // namespace salient
