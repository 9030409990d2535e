#include <array>

#include "text/bpe.h"
#include "text/component.h"

namespace salient {
namespace {

template <typename Component>
std::unique_ptr<TokenModel> make(const JsonView& description, Vocabulary& vocabulary) {
  return std::make_unique<Component>(description, vocabulary);
}

struct ModelRow {
  std::string_view type;
  std::unique_ptr<TokenModel> (*build)(const JsonView& description, Vocabulary& vocabulary);
};

constexpr ModelRow kModels[] = {
    {"BPE", make<BpeModel>},
};

}  // namespace

std::unique_ptr<TokenModel> build_model(const JsonView& description, Vocabulary& vocabulary) {
  // The oldest files (GPT-2's) do not name the type.
  if (!description.find("type") && description.find("merges")) return make<BpeModel>(description, vocabulary);
  const std::string& type = description.at("type").as_string();
  std::array<std::string_view, std::size(kModels)> types;
  for (size_t i = 0; i < types.size(); ++i) {
    if (kModels[i].type == type) return kModels[i].build(description, vocabulary);
    types[i] = kModels[i].type;
  }
  refuse_component(description, "model", types);
}

}  // namespace salient
