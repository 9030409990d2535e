#include "gpu/temporary_folder.h"

#include <stdlib.h>

#include "base/error.h"

namespace salient::gpu {

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "salient-gpu-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail(ErrorKind::io, "{} cannot be made", name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace salient::gpu
