#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "text/component.h"

namespace salient {
namespace {

/// Moves offsets about in HF; the ids stay as they are.
class ByteLevelPostProcessor : public PostProcessor {
 public:
  explicit ByteLevelPostProcessor(const JsonView&) {}
  std::vector<int32_t> apply(std::vector<int32_t> ids) const override { return ids; }
};

class TemplatePostProcessor : public PostProcessor {
 public:
  explicit TemplatePostProcessor(const JsonView& description) {
    for (const JsonView& part : description.at("single").elements()) {
      if (const auto special = part.find("SpecialToken")) {
        parts_.push_back({.ids = read_ids(description, special->at("id"))});
      } else {
        const JsonView name = part.at("Sequence").at("id");
        if (name.as_string() != "A") name.reject("a template for a single text has sequence \"A\" only");
        parts_.push_back({.is_text = true});
      }
    }
    // Repeating the text would let a chain of templates grow it without bound, and means nothing.
    if (std::count_if(parts_.begin(), parts_.end(), [](const Part& part) { return part.is_text; }) != 1) {
      description.at("single").reject("expected sequence \"A\" exactly once");
    }
  }

  std::vector<int32_t> apply(std::vector<int32_t> ids) const override {
    std::vector<int32_t> result;
    result.reserve(ids.size() + parts_.size());
    for (const Part& part : parts_) {
      const auto& source = part.is_text ? ids : part.ids;
      result.insert(result.end(), source.begin(), source.end());
    }
    return result;
  }

 private:
  struct Part {
    bool is_text = false;
    std::vector<int32_t> ids = {};
  };

  static std::vector<int32_t> read_ids(const JsonView& description, const JsonView& name) {
    std::vector<int32_t> ids;
    const JsonView token = description.at("special_tokens").at(name.as_string());
    for (const JsonView& id : token.at("ids").elements()) {
      ids.push_back(static_cast<int32_t>(id.as_int(0, std::numeric_limits<int32_t>::max())));
    }
    return ids;
  }

  std::vector<Part> parts_;
};

class PostProcessorSequence : public PostProcessor {
 public:
  explicit PostProcessorSequence(const JsonView& description) {
    for (const JsonView& part : description.at("processors").elements()) {
      if (auto processor = build_post_processor(part)) parts_.push_back(std::move(processor));
    }
  }
  std::vector<int32_t> apply(std::vector<int32_t> ids) const override {
    for (const auto& part : parts_) ids = part->apply(std::move(ids));
    return ids;
  }

 private:
  std::vector<std::unique_ptr<PostProcessor>> parts_;
};

template <typename Component>
std::unique_ptr<PostProcessor> make(const JsonView& description) {
  return std::make_unique<Component>(description);
}

struct PostProcessorRow {
  std::string_view type;
  std::unique_ptr<PostProcessor> (*build)(const JsonView& description);
};

constexpr PostProcessorRow kPostProcessors[] = {
    {"Sequence", make<PostProcessorSequence>},
    {"ByteLevel", make<ByteLevelPostProcessor>},
    {"TemplateProcessing", make<TemplatePostProcessor>},
};

}  // namespace

std::unique_ptr<PostProcessor> build_post_processor(const JsonView& description) {
  if (description.json().is_null()) return nullptr;
  const std::string& type = description.at("type").as_string();
  std::array<std::string_view, std::size(kPostProcessors)> types;
  for (size_t i = 0; i < types.size(); ++i) {
    if (kPostProcessors[i].type == type) return kPostProcessors[i].build(description);
    types[i] = kPostProcessors[i].type;
  }
  refuse_component(description, "post-processor", types);
}

}  // namespace salient
