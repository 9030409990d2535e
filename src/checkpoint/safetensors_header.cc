#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/spelling.h"

namespace salient {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kHeaderLimit = 100'000'000;  // the limit of the safetensors library
constexpr int kDepthLimit = 4;                // {"name": {"shape": [1]}} needs 3

/// The header's length, checked against the file's.
size_t header_length(std::span<const std::byte> file, std::string_view source) {
  if (file.size() < kLengthBytes) {
    fail(ErrorKind::bad_format, "{}: {} bytes are too few for a safetensors file", source, file.size());
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  if (length > kHeaderLimit) {
    fail(ErrorKind::bad_format, "{}: the header claims {} bytes; {} is the limit", source, length,
         kHeaderLimit);
  }
  if (length > file.size() - kLengthBytes) {
    fail(ErrorKind::bad_format, "{}: the header claims {} bytes, the whole file has {}", source, length,
         file.size());
  }
  return static_cast<size_t>(length);
}

Shape parse_shape(const JsonView& view) {
  Shape shape;
  for (const auto& dim : view.elements()) shape.push_back(dim.as_int(0));
  return shape;
}

/// Bytes of `shape`. A zero dimension counts as one for the overflow check, so that no part of the product
/// that a user of the tensor may form overflows either.
size_t checked_byte_size(const JsonView& entry, const Shape& shape, size_t element_bytes) {
  uint64_t bound = element_bytes;
  for (const int64_t dim : shape) {
    const auto factor = static_cast<uint64_t>(std::max<int64_t>(dim, 1));
    if (bound > uint64_t{INT64_MAX} / factor)
      entry.reject(fmt::format("shape {} overflows", to_string(shape)));
    bound *= factor;
  }
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? static_cast<size_t>(bound) : 0;
}

struct DataRange {
  size_t begin;
  size_t size;
};

SafetensorsEntry parse_entry(const JsonView& view, const DataRange& data) {
  SafetensorsEntry entry{.dtype = view.at("dtype").as_string(), .shape = parse_shape(view.at("shape"))};
  const auto offsets = view.at("data_offsets").elements();
  if (offsets.size() != 2) view.reject(fmt::format("data_offsets has {} numbers, not 2", offsets.size()));
  const auto begin = static_cast<size_t>(offsets[0].as_int(0));
  const auto end = static_cast<size_t>(offsets[1].as_int(0));
  if (begin > end) view.reject(fmt::format("offsets [{}, {}) run backwards", begin, end));
  if (end > data.size) {
    view.reject(fmt::format("offsets [{}, {}) leave the {} bytes of data", begin, end, data.size));
  }
  const auto dtype = dtype_from_safetensors(entry.dtype);
  const size_t bytes = checked_byte_size(view, entry.shape, dtype ? byte_size(*dtype) : 1);
  if (dtype && bytes != end - begin) {
    view.reject(fmt::format("{} {} takes {} bytes, the offsets [{}, {}) hold {}", entry.dtype,
                            to_string(entry.shape), bytes, begin, end, end - begin));
  }
  entry.begin = data.begin + begin;
  entry.end = data.begin + end;
  return entry;
}

/// Names in order of their offsets; the tensors must fill the data without overlap or hole.
std::vector<std::string> ordered_names(const SafetensorsHeader& header, const DataRange& data,
                                       std::string_view source) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  for (const auto& entry : header.entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::tie(a->second.begin, a->second.end) < std::tie(b->second.begin, b->second.end);
  });
  std::vector<std::string> names;
  size_t position = data.begin;
  for (const auto* item : order) {
    const auto& [name, entry] = *item;
    if (entry.begin != position) {
      fail(ErrorKind::bad_format, "{}: {}: offsets [{}, {}) {} at {}", source, quoted_name(name),
           entry.begin - data.begin, entry.end - data.begin,
           entry.begin < position ? "overlap the tensor that ends"
                                  : "leave a hole behind the tensor that ends",
           position - data.begin);
    }
    position = entry.end;
    names.push_back(name);
  }
  const size_t end = data.begin + data.size;
  if (position != end)
    fail(ErrorKind::bad_format, "{}: {} bytes follow the last tensor", source, end - position);
  return names;
}

/// Takes the entries one by one as the parser completes them, and lets the parser forget them: a document of
/// a hundred thousand tensors would be slow to build. Refuses what the parser would pass over: a key that
/// stands twice (it keeps the last) and deep nesting.
class HeaderReader {
 public:
  using Event = Json::parse_event_t;

  HeaderReader(const DataRange& data, std::string_view source) : data_(data), source_(source) {}

  void read(std::string_view text) {
    if (text.empty() || text.front() != '{') {
      fail(ErrorKind::bad_format, "{}: the header is not a JSON object", source_);
    }
    try {
      // The callback keeps what matters; the document itself comes back empty.
      [[maybe_unused]] const Json rest = Json::parse(
          text, [this](int depth, Event event, const Json& parsed) { return handle(depth, event, parsed); });
    } catch (const Json::parse_error& error) {
      // The library's own text quotes raw bytes of the file; the position says enough.
      fail(ErrorKind::bad_format, "{}: the header is not valid JSON at byte {}", source_, error.byte);
    } catch (const Json::exception&) {
      fail(ErrorKind::bad_format, "{}: the header holds a number beyond all ranges", source_);
    }
  }

  SafetensorsHeader take() {
    header_.names = ordered_names(header_, data_, source_);
    return std::move(header_);
  }

 private:
  /// Returns whether the parser shall keep the value.
  bool handle(int depth, Event event, const Json& parsed) {
    if (depth > kDepthLimit) fail(ErrorKind::bad_format, "{}: the header is nested too deeply", source_);
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key) require_new_key(parsed.get_ref<const std::string&>());
    if (depth != 1) return true;
    if (event == Event::key) name_ = parsed.get<std::string>();
    const bool complete = event == Event::object_end || event == Event::array_end || event == Event::value;
    if (complete) take_entry(parsed);
    return !complete;
  }

  void require_new_key(const std::string& key) {
    if (keys_.back().insert(key).second) return;
    fail(ErrorKind::bad_format, "{}: the header has the key {} twice", source_, quoted_name(key));
  }

  void take_entry(const Json& value) {
    const JsonView view(value, fmt::format("{}: {}", source_, quoted_name(name_)));
    if (name_ != "__metadata__") {
      header_.entries.emplace(name_, parse_entry(view, data_));
      return;
    }
    for (const auto& [key, text] : view.members()) header_.metadata.emplace(key, text.as_string());
  }

  DataRange data_;
  std::string_view source_;
  std::vector<std::set<std::string>> keys_;
  std::string name_;
  SafetensorsHeader header_;
};

}  // namespace

std::string quoted_name(std::string_view name) {
  constexpr size_t kLimit = 120;
  const bool cut = name.size() > kLimit;
  return Json(whole_characters(name, kLimit)).dump(-1, ' ', true, Json::error_handler_t::replace) +
         (cut ? "..." : "");
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view source) {
  const size_t length = header_length(file, source);
  const DataRange data{.begin = kLengthBytes + length, .size = file.size() - kLengthBytes - length};
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  HeaderReader reader(data, source);
  reader.read(text);
  return reader.take();
}

}  // namespace salient
