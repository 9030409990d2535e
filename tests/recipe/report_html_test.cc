#if defined(__GNUC__) && !defined(__clang__)
// With sanitizers GCC 12 believes parts of std::regex used before they are set.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "recipe/report_html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "recipe/report_json.h"
#include "recipe/report_tables.h"
#include "recipe/svg_plot.h"
#include "support/browser.h"
#include "support/error_matcher.h"
#include "support/example_report.h"

namespace salient {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kHostile = "</script><script>document.title='broken'</script>";

std::string page_of(const OneshotReport& report) { return report_html(to_json(report)); }

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// A report that holds everything that may go wrong.
OneshotReport troubled_report() {
  OneshotReport report = ExampleReport(4).get();
  report.model = std::string("/models/") + "<b>\"bold\"</b>";
  report.warnings = {kHostile};
  MappingReport& failed = report.layers[1].mappings[2];
  failed = {.mapping = kHostile, .left_alone = true, .failure = kHostile};
  report.layers[0].linears[0].loss = std::nan("");
  report.layers[0].linears[1].loss_scaled = INFINITY;
  report.layers[0].linears[2].loss = 0;
  report.layers[3].linears[6].name = kHostile;
  report.layers[2].mappings[0].scale_quantiles = {0, 1, 1, 1, 1, 1, INFINITY};
  report.layers[2].mappings[0].ratio = std::nan("");
  return report;
}

TEST(EscapeHtml, LeavesNoMarkup) {
  EXPECT_EQ(escape_html("<a href=\"x\" title='y'>&amp;"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;amp;");
  EXPECT_EQ(escape_html("naïve\n\tText"), "naïve\n\tText");
  EXPECT_EQ(escape_html(std::string("a\0b\x1b", 4)),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd");
}

TEST(ReportHtml, StandsAlone) {
  const std::string page = page_of(ExampleReport(6).get());
  EXPECT_THAT(page, ::testing::StartsWith("<!DOCTYPE html>"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* fetching : {"http://", "https://", "src=", "href=", "url(", "@import"})
    EXPECT_THAT(page, Not(HasSubstr(fetching)));
}

TEST(ReportHtml, SaysWhatWasMeasured) {
  OneshotReport report = ExampleReport(2).get();
  for (LayerReport& layer : report.layers) {
    for (LinearReport& linear : layer.linears) {
      linear.signal = 1;
      linear.loss_nearest = 0.1;
      linear.loss_scaled = 0.08;
      linear.loss_clipped = 0.05;
      linear.loss = 0.01;
    }
  }
  const std::string page = page_of(report);
  EXPECT_THAT(page,
              AllOf(HasSubstr("Quantization of Example-1B"), HasSubstr("65,536"), HasSubstr("3.04x smaller"),
                    HasSubstr("20.00 dB"), HasSubstr("nearest: 10.00 dB"), HasSubstr("10.0 %"),
                    HasSubstr("q_proj, scales: 80.0 % of the loss of round-to-nearest (+0.97 dB)"),
                    HasSubstr("q_proj, scales and clips: 50.0 %")));
  EXPECT_EQ(count(page, "<svg viewBox=\"0 0 1080"), 2u);  // by depth, by role
  EXPECT_EQ(count(page, "<figure>"), 8u);                 // scales and exponents of four mappings
  EXPECT_THAT(page, Not(HasSubstr("perplexity")));
}

TEST(ReportHtml, SaysThatGramMatricesWereInBlocks) {
  OneshotReport report = ExampleReport(2).get();
  EXPECT_THAT(page_of(report), Not(HasSubstr("in blocks of")));
  report.gram_block = 2048;
  EXPECT_THAT(page_of(report), HasSubstr("Gram matrices in blocks of 2,048"));
}

TEST(ReportHtml, ShowsAnEvaluation) {
  Json json = to_json(ExampleReport(2).get());
  json["evaluation"] = {
      {"perplexity", 12.5}, {"mean_kl", 0.0125}, {"same_top", 0.955}, {"reference", {{"perplexity", 12.25}}}};
  EXPECT_THAT(report_html(json), AllOf(HasSubstr("12.5000"), HasSubstr("before: 12.2500"),
                                       HasSubstr("0.01250 nats"), HasSubstr("95.50 %")));
}

TEST(ReportHtml, NamesAreText) {
  const std::string page = page_of(troubled_report());
  EXPECT_EQ(count(page, "<script>"), 1u);
  EXPECT_EQ(count(page, "</script>"), 1u);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<b>")), HasSubstr("&lt;/script&gt;&lt;script&gt;document.title")));
}

TEST(ReportHtml, WhatIsNoNumberIsSaidAndNotDrawn) {
  const std::string page = page_of(troubled_report());
  EXPECT_THAT(page, AllOf(HasSubstr("not finite"), HasSubstr("exact")));
  EXPECT_FALSE(std::regex_search(page, std::regex("[^a-z](nan|inf)[^a-z]")));
}

TEST(ReportHtml, DegenerateReportsHavePages) {
  EXPECT_THAT(report_html(Json::object()), HasSubstr("No losses were measured"));
  OneshotReport nearest = ExampleReport(2).get();
  for (LayerReport& layer : nearest.layers) {
    layer.linears.clear();
    layer.mappings.clear();
  }
  EXPECT_THAT(page_of(nearest), AllOf(HasSubstr("No losses were measured"), Not(HasSubstr("<svg"))));
  // Round to nearest knows how long a layer took, and has no column of zeros beside it.
  for (LayerReport& layer : nearest.layers)
    layer = {
        .layer = layer.layer, .mappings = {}, .linears = {}, .pooled_experts = {}, .seconds = {.total = 1.5}};
  EXPECT_THAT(page_of(nearest), AllOf(HasSubstr("<td>0</td><td>1.50</td></tr>"), Not(HasSubstr("0.0e+00")),
                                      Not(HasSubstr("0.00e+00")), Not(HasSubstr("loss before clips"))));
  EXPECT_THAT(page_of(ExampleReport(1).get()), HasSubstr("<svg"));
  OneshotReport zeros;  // nothing measured is a number above zero
  zeros.layers.resize(1);
  zeros.layers[0].linears.resize(1);
  zeros.layers[0].mappings.resize(1);
  zeros.layers[0].mappings[0].scale_quantiles = {};
  EXPECT_THAT(page_of(zeros), HasSubstr("exact"));
}

TEST(ReportHtml, DeepModelsAndManyExpertsStaySmall) {
  const std::string deep = page_of(ExampleReport(126).get());
  EXPECT_LT(deep.size(), 2'000'000u);
  EXPECT_EQ(count(deep, ".down_proj</td>"), 126u);
  const OneshotReport report = ExampleReport(20, 256).get();
  ASSERT_GT(report.layers.size() * report.layers[0].linears.size(), kMostRows);
  const std::string experts = page_of(report);
  EXPECT_LT(experts.size(), 1'000'000u);
  EXPECT_EQ(count(experts, "experts.*.down_proj (mean of 256)"), 20u);
  EXPECT_EQ(count(experts, "experts.*.down_proj (256)"), 20u);
}

/// What no run writes but a file may hold.
TEST(ReportHtml, NumbersBeyondAllBoundsAreDrawnWithinThem) {
  OneshotReport report = ExampleReport(3).get();
  for (LayerReport& layer : report.layers) {
    layer.mappings[0].ratio = layer.layer == 0 ? -1e308 : 1e308;
    layer.mappings[0].left_alone = false;
    layer.mappings[1].ratio = 1e12 + 1e-4 * static_cast<double>(layer.layer);
    layer.mappings[2].scale_quantiles = {5e-324, 1, 1, 1, 1, 1, 1e308};
    layer.linears[0].signal = 1e308;
    layer.linears[0].loss = 5e-324;
  }
  const std::string page = page_of(report);
  EXPECT_LT(page.size(), 1'000'000u);
  EXPECT_FALSE(std::regex_search(page, std::regex("[^a-z](nan|inf)[^a-z]")));
}

TEST(ReportHtml, RefusesWhatIsNoReport) {
  EXPECT_THAT([] { report_html(Json::array({1})); },
              throws_error(ErrorKind::bad_format, HasSubstr("report")));
  EXPECT_THAT(
      [] {
        report_html({{"evaluation", {{"perplexity", "low"}}}});
      },
      throws_error(ErrorKind::bad_format, HasSubstr("perplexity")));
}

/// What Chromium makes of pages; skips where none is installed.
class ReportInBrowser : public ::testing::Test {
 protected:
  void SetUp() override {
    browser_ = find_browser();
    if (!browser_) GTEST_SKIP() << "no Chromium; Debian's package is chromium-headless-shell";
  }

  /// The document after its scripts, and `script` behind them, have run. What a script's end and the console
  /// say is checked here.
  std::string document(const OneshotReport& report, const std::string& fragment = "",
                       const std::string& script = "", int width = 800) {
    const std::string path = (scratch_.path() / "report.html").string();
    std::string page = page_of(report);
    page.insert(page.find("</body>"), fmt::format("<script>{}</script>", script));
    write_file_atomically(path, page);
    const ProgramResult result = open_in_browser(*browser_, "file://" + path + fragment,
                                                 {fmt::format("--window-size={},900", width), "--dump-dom"});
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_THAT(result.errors, Not(HasSubstr("CONSOLE")));
    return result.output;
  }

  /// The column `column` of the table of linears, row by row.
  static std::vector<std::string> cells(const std::string& document, size_t column) {
    const size_t begin = document.find("<tbody>", document.find("<table id=\"linears\">"));
    const std::string body = document.substr(begin, document.find("</tbody>", begin) - begin);
    const std::regex row("<tr>(.*?)</tr>");
    const std::regex cell("<td[^>]*>(.*?)</td>");
    std::vector<std::string> values;
    for (std::sregex_iterator at(body.begin(), body.end(), row), end; at != end; ++at) {
      const std::string text = at->str(1);
      std::sregex_iterator found(text.begin(), text.end(), cell);
      std::advance(found, column);
      values.push_back(found->str(1));
    }
    return values;
  }

  static std::vector<double> losses(const std::string& document) {
    constexpr size_t kWritten = 6;
    std::vector<double> values;
    for (const std::string& cell : cells(document, kWritten))
      values.push_back(cell == "not finite" ? INFINITY : std::stod(cell));
    return values;
  }

  std::optional<std::string> browser_;
  TemporaryDirectory scratch_;
};

TEST_F(ReportInBrowser, EveryLinearAndPlotIsThere) {
  const OneshotReport report = ExampleReport(5).get();
  const std::string page = document(report);
  std::vector<std::string> names;
  for (const LayerReport& layer : report.layers) {
    for (const LinearReport& linear : layer.linears) names.push_back(linear.name);
  }
  EXPECT_EQ(cells(page, 1), names);
  EXPECT_EQ(count(page, "<svg viewBox=\"0 0 1080"), 2u);
  EXPECT_EQ(count(page, "<svg viewBox=\"0 0 530"), 8u);
}

TEST_F(ReportInBrowser, SortsByTheAddressAndByClicks) {
  const OneshotReport report = ExampleReport(5).get();
  const std::vector<double> plain = losses(document(report));
  EXPECT_FALSE(std::is_sorted(plain.begin(), plain.end()));
  const std::vector<double> rising = losses(document(report, "#sort=loss"));
  EXPECT_EQ(rising.size(), plain.size());
  EXPECT_TRUE(std::is_sorted(rising.begin(), rising.end()));
  const std::vector<double> falling = losses(document(report, "#sort=-loss"));
  EXPECT_TRUE(std::is_sorted(falling.rbegin(), falling.rend()));
  const std::string click = "document.querySelector('#linears th[data-key=loss] button').click();";
  EXPECT_EQ(losses(document(report, "", click)), falling);
  EXPECT_EQ(losses(document(report, "", click + click)), rising);
}

TEST_F(ReportInBrowser, FiltersRows) {
  const std::string type =
      "var input = document.querySelector('#linears').parentNode.previousElementSibling;"
      "input.value = 'q_PROJ'; input.dispatchEvent(new Event('input'));";
  const std::string page = document(ExampleReport(5).get(), "", type);
  EXPECT_EQ(count(page, "<tr hidden=\"\">"), 30u);  // six other roles in five layers
}

TEST_F(ReportInBrowser, HostileNamesDoNothing) {
  const std::string page = document(troubled_report(), "#sort=-loss");
  EXPECT_THAT(page, HasSubstr("<title>Quantization of b&gt;</title>"));
  EXPECT_EQ(losses(page).front(), INFINITY);
}

/// A window of a usual width shows all columns of every table.
TEST_F(ReportInBrowser, TablesFitAWindow) {
  OneshotReport report = ExampleReport(30).get();
  for (LayerReport& layer : report.layers) {
    for (LinearReport& linear : layer.linears)
      linear.largest_channels.assign(5, {.channel = 11007, .mean_absolute = 1, .times_median = 123});
  }
  const std::string measure =
      "document.title = 'cut: ' + Array.from(document.querySelectorAll('.scroll')).filter(function (box) {"
      "  return box.scrollWidth > box.clientWidth;"
      "}).map(function (box) { return box.firstChild.id; }).join(', ');";
  const std::string page = document(report, "", measure, 1300);
  EXPECT_THAT(page, HasSubstr("<title>cut: </title>")) << page.substr(page.find("<title>"), 100);
}

/// A browser draws nothing of paths that it cannot read, and says so nowhere but in a box without size.
TEST_F(ReportInBrowser, EveryMarkHasASize) {
  for (const int64_t layers : {1, 126}) {
    const std::string measure =
        "var marks = Array.from(document.querySelectorAll("
        "  'svg path:not(.reach):not(.whisker), svg rect'));"  // scales that are all 1 reach nowhere
        "document.title = marks.filter(function (mark) {"
        "  var box = mark.getBBox(); return !(box.width + box.height > 0) || !isFinite(box.x + box.y);"
        "}).length + ' of ' + marks.length;";
    const std::string page = document(ExampleReport(layers).get(), "", measure);
    EXPECT_TRUE(std::regex_search(page, std::regex("<title>0 of [1-9][0-9]+</title>")))
        << page.substr(page.find("<title>"), 60);
  }
}

/// No text of a plot lies on another, or sticks out of its plot.
TEST_F(ReportInBrowser, LabelsDoNotOverlap) {
  const std::string measure = R"js(
    var wrong = [];
    document.querySelectorAll('.plot svg').forEach(function (plot) {
      var frame = plot.getBoundingClientRect();
      var boxes = Array.from(plot.querySelectorAll('text')).map(function (text) {
        return [text.textContent, text.getBoundingClientRect()];
      });
      boxes.forEach(function (a, i) {
        if (a[1].left < frame.left - 1 || a[1].right > frame.right + 1 || a[1].bottom > frame.bottom + 1)
          wrong.push(a[0] + ' sticks out');
        boxes.slice(i + 1).forEach(function (b) {
          if (a[1].left < b[1].right && b[1].left < a[1].right && a[1].top + 2 < b[1].bottom && b[1].top + 2 < a[1].bottom)
            wrong.push(a[0] + ' on ' + b[0]);
        });
      });
    });
    document.title = 'wrong: ' + wrong.join(', ');)js";
  for (const int64_t layers : {1, 30, 126}) {
    const std::string page = document(ExampleReport(layers, layers == 30 ? 4 : 0).get(), "", measure);
    EXPECT_THAT(page, HasSubstr("<title>wrong: </title>")) << page.substr(page.find("<title>"), 400);
  }
}

}  // namespace
}  // namespace salient
