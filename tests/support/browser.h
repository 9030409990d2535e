#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "support/program.h"

namespace salient {

/// Chromium, as Debian and others name it, on the PATH; nothing where there is none.
inline std::optional<std::string> find_browser() {
  const char* const path = std::getenv("PATH");
  for (const char* name : {"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"}) {
    std::istringstream folders(path == nullptr ? "" : path);
    for (std::string folder; std::getline(folders, folder, ':');) {
      const std::filesystem::path file = std::filesystem::path(folder) / name;
      if (std::filesystem::exists(file)) return file.string();
    }
  }
  return std::nullopt;
}

/// What a browser makes of a page after its scripts have run: the document as `output`, what it would show in
/// its console as `errors`. `address`: "file:///report.html#sort=loss".
inline ProgramResult open_in_browser(const std::string& browser, const std::string& address,
                                     std::vector<std::string> more = {"--dump-dom"}) {
  const TemporaryDirectory profile;  // else it writes into the home directory
  std::vector<std::string> arguments{"--headless",
                                     "--no-sandbox",  // needs what containers and root do not have
                                     "--disable-gpu",
                                     "--disable-dev-shm-usage",
                                     "--no-first-run",
                                     "--disable-background-networking",
                                     "--enable-logging=stderr",
                                     "--user-data-dir=" + profile.path().string()};
  arguments.insert(arguments.end(), more.begin(), more.end());
  arguments.push_back(address);
  return Program(arguments, browser).wait();
}

}  // namespace salient
