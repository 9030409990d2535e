#include "backend/backend.h"
#include "base/error.h"

namespace salient {

std::unique_ptr<Backend> make_backend(const std::string& device) {
  if (device == "auto" || device == "cpu") return make_cpu_backend();
  fail(ErrorKind::invalid_argument, "device \"{}\" is not known (auto, cpu)", device);
}

}  // namespace salient
