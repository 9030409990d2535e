#include "backend/cpu/isa.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"

namespace salient {
namespace {

constexpr std::array kIsas{Isa::portable, Isa::avx2, Isa::avx512, Isa::neon};

/// What `word` switches off, or null.
bool* extension_switched_off(IsaChoice& choice, std::string_view word) {
  if (word == "no-vnni") return &choice.vnni;
  if (word == "no-amx") return &choice.amx;
  return word == "no-dotprod" ? &choice.dotprod : nullptr;
}

}  // namespace

std::string_view to_string(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
  }
  return "?";
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> result;
  for (const Isa isa : built_isas()) {
    if (cpu_supports(isa)) result.push_back(isa);
  }
  return result;
}

IsaChoice choose_isa(std::string_view text) {
  const auto refuse = [&] {
    fail(ErrorKind::invalid_argument,
         "{}: unknown, expected portable, avx2, avx512 or neon, then any of no-vnni, no-amx and no-dotprod, "
         "with "
         "commas between",
         text);
  };
  if (text.ends_with(',')) refuse();
  std::optional<Isa> named;
  IsaChoice choice = Isa::portable;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view word = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const auto* isa = std::ranges::find(kIsas, word, [](Isa candidate) { return to_string(candidate); });
    bool* extension = extension_switched_off(choice, word);
    if (isa != kIsas.end() && !named) {
      named = *isa;
    } else if (extension != nullptr && *extension) {
      *extension = false;
    } else {
      refuse();
    }
  }
  if (named && !cpu_supports(*named)) {
    fail(ErrorKind::unsupported, "{}: this processor lacks it (best here: {})", text,
         to_string(supported_isas().back()));
  }
  choice.isa = named.value_or(supported_isas().back());
  return choice;
}

}  // namespace salient
