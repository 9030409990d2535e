#include "backend/cuda/driver_api.h"

#include "base/error.h"

namespace salient::cuda::driver {

Driver::Driver(const std::string& path) {
  const SharedLibrary library(path);
#define SALIENT_DRIVER_LOAD(member, name, exported, ...)                                      \
  member.function = reinterpret_cast<decltype(member.function)>(library.find(member.symbol)); \
  if (member.function == nullptr && missing.empty()) missing = member.symbol;
  SALIENT_DRIVER_FUNCTIONS(SALIENT_DRIVER_LOAD)
#undef SALIENT_DRIVER_LOAD
}

std::string Driver::text_of(Result result) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (error_name.function(result, &name) != kSuccess || name == nullptr)
    return fmt::format("error {}", result);
  if (error_text.function(result, &text) != kSuccess || text == nullptr) return name;
  return fmt::format("{} ({})", name, text);
}

void Driver::fail_call(const char* symbol, Result result) const {
  fail(result == kOutOfMemory ? ErrorKind::out_of_memory : ErrorKind::internal, "{}: {}", symbol,
       text_of(result));
}

ContextScope::ContextScope(const Driver& driver, Context context) noexcept : driver_(driver) {
  Context current = nullptr;
  driver.try_call(driver.current_context, &current);
  if (current != context) pushed_ = driver.push_context.function(context) == kSuccess;
}

ContextScope::~ContextScope() {
  Context popped = nullptr;
  if (pushed_) driver_.try_call(driver_.pop_context, &popped);
}

}  // namespace salient::cuda::driver
