#include "cli/flag_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <vector>

#include "base/spelling.h"

namespace salient::cli {
namespace {

struct Hint {
  std::string_view word;  ///< what other programs call it
  std::string_view flag;
  std::string_view value;  ///< said behind the flag
};

constexpr std::string_view kBits =
    " W4A16 (W2A16 to W8A16, or W4A16_ASYM), or --target-bits for a mean over all linears";

constexpr Hint kHints[] = {
    {"--bits", "--scheme", kBits},
    {"-b", "--scheme", kBits},
    {"--w-bit", "--scheme", kBits},
    {"--w_bit", "--scheme", kBits},
    {"--wbits", "--scheme", kBits},
    {"--num-bits", "--scheme", kBits},
    {"--num_bits", "--scheme", kBits},
    {"--nbits", "--scheme", kBits},
    {"--sym", "--scheme", " W4A16"},
    {"--asym", "--scheme", " W4A16_ASYM"},
    {"--zero-point", "--scheme", " W4A16_ASYM"},
    {"--calib-data", "--data", ""},
    {"--calibration-data", "--data", ""},
    {"--nsamples", "--num-calibration-samples", ""},
    {"--samples", "--num-calibration-samples", ""},
    {"--seqlen", "--max-seq-length", ""},
    {"--group", "--group-size", ""},
    {"-g", "--group-size", ""},
    {"--mem", "--max-memory", ""},
    {"--force", "--overwrite", ""},
    {"--jobs", "--threads", ""},
    {"-j", "--threads", ""},
    {"-t", "--threads", ""},
};

bool is_flag(const std::string& argument) {
  return argument.size() > 1 && argument.front() == '-' &&
         std::isdigit(static_cast<unsigned char>(argument[1])) == 0;
}

/// Long names of all flags that may stand behind `command`.
std::vector<std::string> flags_of(const CLI::App& command) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

/// "--group-size"; empty where nothing comes near.
std::string meant(const std::string& flag, const std::vector<std::string>& known) {
  for (const Hint& hint : kHints) {
    if (hint.word == flag && std::ranges::find(known, hint.flag) != known.end())
      return fmt::format("{}{}", hint.flag, hint.value);
  }
  const std::vector<std::string_view> words(known.begin(), known.end());
  return std::string(closest_word(flag, words));
}

/// The key of a recipe that a flag stands for.
struct Setting {
  std::string_view key;
  const char* flag;
  enum class Place {
    anywhere,
    at_start
  } place = Place::anywhere;  ///< words of English only where they are keys
};

constexpr Setting kSettings[] = {
    {"group_size", "--group-size"},
    {"n_grid", "--n-grid"},
    {"target_bits", "--target-bits"},
    {"max_memory", "--max-memory"},
    {"max_seq_length", "--max-seq-length"},
    {"num_samples", "--num-calibration-samples"},
    {"duo_scaling", "--duo-scaling"},
    {"propagate_error", "--propagation"},
    {"scheme", "--scheme", Setting::Place::at_start},
    {"format", "--format", Setting::Place::at_start},
    {"ignore", "--ignore", Setting::Place::at_start},
    {"sweeps", "--sweeps", Setting::Place::at_start},
    {"effort", "--effort", Setting::Place::at_start},
    {"resume", "--resume", Setting::Place::at_start},
};

/// What a longer name or a path consists of.
bool joins(char character) {
  constexpr std::string_view kMarks = "_-./\\";
  return std::isalnum(static_cast<unsigned char>(character)) != 0 ||
         kMarks.find(character) != std::string_view::npos;
}

void replace_words(std::string& text, std::string_view word, std::string_view replacement) {
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at)) {
    const size_t end = at + word.size();
    const bool whole = (at == 0 || !joins(text[at - 1])) && (end == text.size() || !joins(text[end]));
    if (whole) text.replace(at, word.size(), replacement);
    at += whole ? replacement.size() : word.size();
  }
}

}  // namespace

std::string unexpected_argument(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining(true);
  if (left.empty()) return "";
  const std::vector<CLI::App*> commands = app.get_subcommands();
  const CLI::App& command = commands.empty() ? app : *commands.front();
  const std::string help =
      commands.empty() ? "salient --help" : fmt::format("salient {} --help", command.get_name());
  const auto found = std::ranges::find_if(left, is_flag);
  if (found == left.end()) {
    return fmt::format("\"{}\" was not expected; {} shows what may stand there", left.back(), help);
  }
  const std::string flag = found->substr(0, found->find('='));
  const std::string likely = meant(flag, flags_of(command));
  if (likely.empty()) return fmt::format("there is no flag {}; {} lists them", flag, help);
  return fmt::format("there is no flag {}; did you mean {}?", flag, likely);
}

std::string with_flag_names(const CLI::App& command, std::string message) {
  for (const Setting& setting : kSettings) {
    if (command.count(setting.flag) == 0) continue;
    if (setting.place == Setting::Place::anywhere) {
      replace_words(message, setting.key, setting.flag);
    } else if (message.starts_with(std::string(setting.key) + " ")) {
      message.replace(0, setting.key.size(), setting.flag);
    }
  }
  return message;
}

}  // namespace salient::cli
