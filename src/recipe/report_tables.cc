#include "recipe/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "quant/scheme.h"
#include "recipe/svg_plot.h"

namespace salient {
namespace {

struct Column {
  std::string_view key;  ///< in the page's address: #sort=loss
  std::string_view title;
  enum class Kind { number, text } kind = Kind::number;
  std::string_view help = "";
};

using Kind = Column::Kind;

std::string open_table(std::string_view id, std::span<const Column> columns) {
  std::string html = fmt::format(R"(<div class="scroll"><table id="{}"><thead><tr>)", id);
  for (const Column& column : columns) {
    html += fmt::format(R"(<th scope="col" data-key="{}" class="{}" title="{}">{}</th>)", column.key,
                        column.kind == Kind::text ? "text" : "number", column.help, column.title);
  }
  return html + "</tr></thead><tbody>\n";
}

constexpr std::string_view kEndOfTable = "</tbody></table></div>";

std::string text_cell(std::string_view text) {
  return fmt::format(R"(<td class="text">{}</td>)", escape_html(text));
}

std::string number_cell(double value, std::string_view text) {
  if (std::isfinite(value)) return fmt::format("<td>{}</td>", text);
  return R"(<td class="bad" data-value="1e999">not finite</td>)";
}

std::string loss_cell(double loss) { return number_cell(loss, fmt::format("{:.2e}", loss)); }

std::string count_cell(int64_t count) { return fmt::format("<td>{}</td>", count); }

/// A ratio that is none: nothing was lost, or a loss is no number.
std::string db_cell(std::optional<double> db, bool exact) {
  if (db) return fmt::format("<td>{:.2f}</td>", *db);
  if (exact) return R"(<td data-value="1e999">exact</td>)";
  return R"(<td class="none" data-value="-1e999">–</td>)";
}

std::string share_cell(std::optional<double> share) {
  if (!share) return R"(<td class="none" data-value="1e999">–</td>)";
  return fmt::format("<td>{:.1f} %</td>", 100 * *share);
}

std::string channel_text(const LinearReport& linear) {
  std::string text;
  for (const ChannelReport& channel : linear.largest_channels) {
    const std::string_view comma = text.empty() ? "" : ", ";
    if (std::isfinite(channel.times_median)) {
      text += fmt::format("{}{} (×{:.3g})", comma, channel.channel, channel.times_median);
    } else {
      text += fmt::format("{}{}", comma, channel.channel);
    }
  }
  return text;
}

/// How far a channel stands out, for sorting: the first is the largest.
double outstanding(const LinearReport& linear) {
  const double times = linear.largest_channels.empty() ? 0 : linear.largest_channels.front().times_median;
  return std::isfinite(times) ? times : 0;
}

constexpr Column kLinearColumns[] = {
    {"layer", "layer"},
    {"name", "linear", Kind::text},
    {"scheme", "scheme", Kind::text, "bits, symmetry, columns that share a scale"},
    {"nearest", "nearest", Kind::number, "loss of the original weight rounded to nearest"},
    {"scaled", "scaled", Kind::number, "loss with the chosen scales, rounded to nearest"},
    {"clipped", "clipped", Kind::number, "loss with the chosen clips as well"},
    {"loss", "written", Kind::number, "loss as it is written"},
    {"share", "left", Kind::number, "loss as written, of the loss of round-to-nearest"},
    {"snr_nearest", "dB nearest", Kind::number, "signal-to-noise ratio of round-to-nearest"},
    {"snr", "dB written", Kind::number, "signal-to-noise ratio as it is written"},
    {"channels", "largest channels (× median)", Kind::text,
     "input channels whose activations are largest in the mean"}};

std::string figure_cells(std::span<const LinearReport* const> linears) {
  const auto exact = [&](double LinearReport::*loss) {
    return std::all_of(linears.begin(), linears.end(),
                       [&](const auto* linear) { return linear->*loss == 0; });
  };
  return share_cell(mean_share(linears, &LinearReport::loss)) +
         db_cell(mean_db(linears, &LinearReport::loss_nearest), exact(&LinearReport::loss_nearest)) +
         db_cell(mean_db(linears, &LinearReport::loss), exact(&LinearReport::loss));
}

/// "int4 asym, 128": short, as there is one in each row.
std::string scheme_text(const QuantizationScheme& scheme) {
  const std::string_view symmetry = scheme.symmetric ? "sym" : "asym";
  if (scheme.group_size > 0) return fmt::format("int{} {}, {}", scheme.num_bits, symmetry, scheme.group_size);
  return fmt::format("int{} {}, {}", scheme.num_bits, symmetry, strategy_name(scheme));
}

std::string linear_row(int64_t layer, const std::string& name, std::span<const LinearReport* const> linears) {
  const LinearReport& first = *linears.front();
  std::string row = "<tr>" + count_cell(layer) + text_cell(name) + text_cell(scheme_text(first.scheme));
  for (const auto member : {&LinearReport::loss_nearest, &LinearReport::loss_scaled,
                            &LinearReport::loss_clipped, &LinearReport::loss}) {
    double sum = 0;
    for (const LinearReport* linear : linears) sum += linear->*member;
    row += loss_cell(sum / static_cast<double>(linears.size()));
  }
  row += figure_cells(linears);
  const bool single = linears.size() == 1;
  row += fmt::format(R"(<td class="text channels" data-value="{:.6g}">{}</td>)",
                     single ? outstanding(first) : 0, single ? channel_text(first) : "");
  return row + "</tr>\n";
}

constexpr Column kRoleColumns[] = {
    {"role", "role", Kind::text},
    {"linears", "linears"},
    {"scaled", "after scales", Kind::number, "loss, of that of round-to-nearest"},
    {"clipped", "after clips", Kind::number, "loss, of that of round-to-nearest"},
    {"share", "as written", Kind::number, "loss, of that of round-to-nearest"},
    {"snr_nearest", "dB nearest", Kind::number, "mean signal-to-noise ratio of round-to-nearest"},
    {"snr", "dB written", Kind::number, "mean signal-to-noise ratio as written"}};

constexpr Column kMappingColumns[] = {
    {"layer", "layer"},
    {"mapping", "mapping", Kind::text},
    {"identity", "identity", Kind::number, "mean squared output error without scales"},
    {"scaled", "scaled", Kind::number, "mean squared output error with the chosen scales"},
    {"share", "left", Kind::number, "loss with scales, of that of the identity"},
    {"exponent", "exponent", Kind::number, "of mean|x| in the chosen scales"},
    {"formula", "scales", Kind::text, "from the means of activations and weights by channel"},
    {"least", "least", Kind::number, "smallest of the chosen scales"},
    {"median", "median"},
    {"largest", "largest"},
    {"note", "note", Kind::text}};

std::string mapping_note(const MappingReport& mapping) {
  if (!mapping.failure.empty())
    return fmt::format(R"(<td class="text bad">{}</td>)", escape_html(mapping.failure));
  return text_cell(mapping.left_alone ? "left alone" : "");
}

std::optional<double> quotient(double loss, double of) {
  if (!std::isfinite(loss) || !std::isfinite(of) || of <= 0) return std::nullopt;
  return loss / of;
}

std::string mapping_row(int64_t layer, const MappingReport& mapping) {
  std::string row = "<tr>" + count_cell(layer) + text_cell(mapping.mapping) + loss_cell(mapping.loss_before) +
                    loss_cell(mapping.loss_after) +
                    share_cell(quotient(mapping.loss_after, mapping.loss_before));
  if (mapping.left_alone) {
    row += R"(<td class="none" data-value="-1e999">–</td><td class="text">identity</td>)";
  } else {
    row += number_cell(mapping.ratio, fmt::format("{:.3g}", mapping.ratio));
    row += text_cell(mapping.duo ? "x^r / w^(1-r)" : "x^r");
  }
  for (const size_t quantile : {0, 3, 6}) {
    const double scale = mapping.scale_quantiles[quantile];
    row += number_cell(scale, fmt::format("{:.3g}", scale));
  }
  return row + mapping_note(mapping) + "</tr>\n";
}

/// Of experts: what they have in the mean, and how many were left alone.
std::string mapping_group_row(const MappingRoles& roles, const MappingGroup& group) {
  MappingReport mean{.mapping = fmt::format("{} ({})", roles.names[group.role], group.mappings.size())};
  const auto count = static_cast<double>(group.mappings.size());
  size_t duo = 0;
  size_t left_alone = 0;
  mean.scale_quantiles = group.mappings.front()->scale_quantiles;
  mean.scale_quantiles[3] = 0;
  for (const MappingReport* mapping : group.mappings) {
    mean.loss_before += mapping->loss_before / count;
    mean.loss_after += mapping->loss_after / count;
    mean.ratio += mapping->ratio / count;
    mean.scale_quantiles[0] = std::min(mean.scale_quantiles[0], mapping->scale_quantiles[0]);
    mean.scale_quantiles[3] += mapping->scale_quantiles[3] / count;
    mean.scale_quantiles[6] = std::max(mean.scale_quantiles[6], mapping->scale_quantiles[6]);
    duo += mapping->duo ? 1 : 0;
    left_alone += mapping->left_alone ? 1 : 0;
    if (mean.failure.empty()) mean.failure = mapping->failure;
  }
  mean.duo = 2 * duo >= group.mappings.size();
  mean.left_alone = left_alone == group.mappings.size();
  return mapping_row(group.layer, mean);
}

/// A column of the table of layers, which stands there if `has` holds for some layer: what a run did not do
/// would be a column of zeros.
struct LayerColumn {
  Column column;
  bool (*has)(const LayerReport&);
  std::string (*cell)(const LayerReport&);
};

bool was_clipped(const LayerReport& layer) { return layer.clip_loss_before != 0; }

constexpr LayerColumn kLayerColumns[] = {
    {{"layer", "layer"},
     [](const LayerReport&) { return true; },
     [](const LayerReport& layer) { return count_cell(layer.layer); }},
    {{"clip_before", "loss before clips", Kind::number, "summed over the clipped linears"},
     was_clipped,
     [](const LayerReport& layer) { return loss_cell(layer.clip_loss_before); }},
    {{"clip_after", "after clips"},
     was_clipped,
     [](const LayerReport& layer) { return loss_cell(layer.clip_loss_after); }},
    {{"equivalence", "equivalence error", Kind::number,
      "relative change of the layer's function by the smoothing, before rounding"},
     [](const LayerReport& layer) { return !layer.mappings.empty(); },
     [](const LayerReport& layer) {
       return number_cell(layer.equivalence_error, fmt::format("{:.1e}", layer.equivalence_error));
     }},
    {{"pooled", "experts on all tokens", Kind::number,
      "experts that saw too few tokens of their own and took the statistics of all"},
     [](const LayerReport& layer) { return !layer.pooled_experts.empty(); },
     [](const LayerReport& layer) { return count_cell(static_cast<int64_t>(layer.pooled_experts.size())); }},
    {{"seconds", "seconds"},
     [](const LayerReport&) { return true; },
     [](const LayerReport& layer) {
       return number_cell(layer.seconds.total, fmt::format("{:.2f}", layer.seconds.total));
     }}};

}  // namespace

std::string role_table(const LinearRoles& roles) {
  if (roles.groups.empty()) return "";
  std::string html = open_table("roles", kRoleColumns);
  for (const RoleFigures& figures : figures_by_role(roles)) {
    html += "<tr>" + text_cell(figures.role) + count_cell(static_cast<int64_t>(figures.linears.size())) +
            share_cell(mean_share(figures.linears, &LinearReport::loss_scaled)) +
            share_cell(mean_share(figures.linears, &LinearReport::loss_clipped)) +
            figure_cells(figures.linears) + "</tr>\n";
  }
  return html.append(kEndOfTable);
}

std::string linear_table(const LinearRoles& roles) {
  if (roles.groups.empty()) return "";
  size_t count = 0;
  for (const LinearGroup& group : roles.groups) count += group.linears.size();
  std::string html = open_table("linears", kLinearColumns);
  for (const LinearGroup& group : roles.groups) {
    if (count > kMostRows && group.linears.size() > 1) {
      const std::string name = fmt::format("{} (mean of {})", roles.names[group.role], group.linears.size());
      html += linear_row(group.layer, name, group.linears);
      continue;
    }
    for (const LinearReport* linear : group.linears)
      html += linear_row(group.layer, linear->name, std::span(&linear, 1));
  }
  return html.append(kEndOfTable);
}

std::string mapping_table(const MappingRoles& roles) {
  if (roles.groups.empty()) return "";
  size_t count = 0;
  for (const MappingGroup& group : roles.groups) count += group.mappings.size();
  std::string html = open_table("mappings", kMappingColumns);
  for (const MappingGroup& group : roles.groups) {
    if (count > kMostRows && group.mappings.size() > 1) {
      html += mapping_group_row(roles, group);
      continue;
    }
    for (const MappingReport* mapping : group.mappings) html += mapping_row(group.layer, *mapping);
  }
  return html.append(kEndOfTable);
}

std::string layer_table(std::span<const LayerReport> layers) {
  if (layers.empty()) return "";
  std::vector<const LayerColumn*> shown;
  std::vector<Column> heads;
  for (const LayerColumn& column : kLayerColumns) {
    if (std::ranges::none_of(layers, column.has)) continue;
    shown.push_back(&column);
    heads.push_back(column.column);
  }
  std::string html = open_table("layers", heads);
  for (const LayerReport& layer : layers) {
    html += "<tr>";
    for (const LayerColumn* column : shown) html += column->cell(layer);
    html += "</tr>\n";
  }
  return html.append(kEndOfTable);
}

}  // namespace salient
