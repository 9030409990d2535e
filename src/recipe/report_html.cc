#include "recipe/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "recipe/report_charts.h"
#include "recipe/report_figures.h"
#include "recipe/report_reader.h"
#include "recipe/report_style.h"
#include "recipe/report_tables.h"
#include "recipe/svg_plot.h"

namespace salient {
namespace {

/// In the units of the command line.
std::string bytes_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "unknown";
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02} h", whole / 3600, whole / 60 % 60, whole % 60);
}

/// "1,234,567".
std::string count_text(int64_t count) {
  const std::string digits = fmt::format("{}", std::abs(count));
  std::string text = count < 0 ? "-" : "";
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string tile(std::string_view name, std::string_view value, std::string_view detail = "") {
  const std::string small = detail.empty() ? "" : fmt::format("<small>{}</small>", escape_html(detail));
  return fmt::format("<dl class=\"tile\"><dt>{}</dt><dd>{}{}</dd></dl>\n", name, escape_html(value), small);
}

std::string list_box(std::string_view kind, std::string_view title, const std::vector<std::string>& texts) {
  constexpr size_t kMost = 50;
  if (texts.empty()) return "";
  std::string html = fmt::format("<div class=\"note {}\"><strong>{}</strong><ul>\n", kind, title);
  for (size_t i = 0; i < std::min(texts.size(), kMost); ++i)
    html += fmt::format("<li>{}</li>\n", escape_html(texts[i]));
  if (texts.size() > kMost) html += fmt::format("<li>and {} more</li>\n", texts.size() - kMost);
  return html + "</ul></div>\n";
}

/// Nothing without what it would hold.
std::string section(std::string_view title, std::string_view explanation, const std::string& content) {
  if (content.empty()) return "";
  return fmt::format("<section><h2>{}</h2>\n<p class=\"soft\">{}</p>\n{}\n</section>\n", title, explanation,
                     content);
}

std::string panels(const std::string& content) {
  return content.empty() ? "" : fmt::format("<div class=\"panels\">{}</div>", content);
}

std::string quality_tiles(const OneshotReport& report) {
  const std::vector<const LinearReport*> linears = all_linears(report.layers);
  std::string html;
  const auto nearest = mean_db(linears, &LinearReport::loss_nearest);
  if (const auto db = mean_db(linears, &LinearReport::loss)) {
    html += tile("signal-to-noise ratio", fmt::format("{:.2f} dB", *db),
                 nearest ? fmt::format("nearest: {:.2f} dB", *nearest) : "");
  }
  if (const auto share = mean_share(linears, &LinearReport::loss))
    html += tile("loss left", fmt::format("{:.1f} %", 100 * *share), "of round-to-nearest");
  return html;
}

std::string evaluation_tiles(const Json& report) {
  const auto evaluation = JsonView(report, "report").find("evaluation");
  if (!evaluation) return "";
  const auto before = evaluation->find("reference");
  const double perplexity = evaluation->double_or("perplexity", std::nan(""));
  std::string html = tile("perplexity", fmt::format("{:.4f}", perplexity),
                          before ? fmt::format("before: {:.4f}", before->double_or("perplexity", 0)) : "");
  if (!before) return html;
  return html + tile("KL divergence",
                     fmt::format("{:.5f} nats", evaluation->double_or("mean_kl", std::nan(""))),
                     fmt::format("same top token: {:.2f} %", 100 * evaluation->double_or("same_top", 0)));
}

std::string run_tiles(const OneshotReport& report) {
  const bool scaled = report.result == OneshotResult::scaled;
  std::string html = tile("linears quantized", count_text(report.quantized_linears),
                          scaled ? "the weights are scaled and stay dense" : "");
  const double ratio =
      static_cast<double>(report.bytes_before) / std::max(1.0, static_cast<double>(report.bytes_after));
  html += tile("size", bytes_text(report.bytes_after),
               fmt::format("before: {}{}", bytes_text(report.bytes_before),
                           scaled ? "" : fmt::format(", {:.2f}x smaller", ratio)));
  html += tile("calibration tokens", count_text(report.calibration_tokens));
  html += tile("wall time", duration_text(report.seconds));
  return html + tile("peak memory", bytes_text(report.peak_memory),
                     report.gram_block == 0
                         ? ""
                         : fmt::format("Gram matrices in blocks of {}", count_text(report.gram_block)));
}

std::string model_name(const OneshotReport& report) {
  const std::filesystem::path path(report.model);
  const std::filesystem::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  return name.empty() ? "a model" : name.string();
}

std::string page_head(const OneshotReport& report) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      // Whatever a name might smuggle in, nothing is fetched.
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
      "<title>Quantization of {}</title>\n<style>{}</style>\n</head>\n",
      escape_html(model_name(report)), kReportStyle);
}

std::string header(const OneshotReport& report, const Json& json) {
  std::string html = fmt::format("<h1>Quantization of {}</h1>\n", escape_html(model_name(report)));
  html += fmt::format("<p class=\"soft\">{}</p>\n", escape_html(report.method));
  html += fmt::format("<div class=\"tiles\">\n{}{}{}</div>\n", quality_tiles(report), evaluation_tiles(json),
                      run_tiles(report));
  html += list_box("failures", "Searches that failed; what they were for was left as it was",
                   failure_texts(report.layers));
  return html + list_box("warnings", "Warnings", report.warnings);
}

std::string linear_sections(const LinearRoles& roles) {
  if (roles.groups.empty()) {
    return "<p class=\"note warnings\">No losses were measured: without calibration data, or where nothing "
           "is "
           "rounded, there is nothing to measure them on.</p>\n";
  }
  return section("Signal-to-noise ratio by depth",
                 "10 log<sub>10</sub> of the mean squared output of the original weight over the mean "
                 "squared error of "
                 "the outputs as the weight is written, on the calibration tokens. Higher is better: 20 dB "
                 "is an error "
                 "of 1&nbsp;% of the energy. Of experts the mean.",
                 depth_chart(roles)) +
         section("Before and after",
                 "What scales, clips and rounding leave of the loss of rounding each weight to nearest (the "
                 "dashed line), "
                 "one step after the other: geometric means over the linears of a role.",
                 share_chart(roles) + role_table(roles));
}

std::string mapping_sections(const MappingRoles& roles) {
  return section("Scales by depth",
                 "The scales that the search chose, by which activations are divided and weights multiplied: "
                 "half of the "
                 "channels lie within a box, 90 % within its whiskers, all within the dotted line; the bar "
                 "in the box is "
                 "the median. Where all are 1 the mapping was left alone.",
                 panels(scale_charts(roles))) +
         section("Exponents by depth",
                 "The exponent r of the chosen scales: mean|x|<sup>r</sup> / mean|w|<sup>1-r</sup> where the "
                 "mark is "
                 "filled, mean|x|<sup>r</sup> where it is hollow. A cross: the identity was best, or the "
                 "search failed.",
                 panels(exponent_charts(roles)));
}

std::string table_sections(const OneshotReport& report, const LinearRoles& linears,
                           const MappingRoles& mappings) {
  return section("Linears",
                 "Losses are mean squared errors of a linear's outputs over the calibration tokens. A click "
                 "on a column's "
                 "head sorts by it.",
                 linear_table(linears)) +
         section("Mappings", "What the search for scales found.", mapping_table(mappings)) +
         section("Layers", "Sums and times of each layer.", layer_table(report.layers));
}

}  // namespace

std::string report_html(const Json& json) {
  const OneshotReport report = read_report({json, "report"});
  const LinearRoles linears = group_linears(report.layers);
  const MappingRoles mappings = group_mappings(report.layers);
  std::string html = page_head(report);
  for (const std::string& part :
       {std::string("<body>\n<main>\n"), header(report, json), linear_sections(linears),
        mapping_sections(mappings), table_sections(report, linears, mappings)}) {
    html += part;
  }
  html += fmt::format("</main>\n<footer>Salient {}</footer>\n<script>{}</script>\n</body>\n</html>\n",
                      SALIENT_VERSION, kReportScript);
  return html;
}

}  // namespace salient
