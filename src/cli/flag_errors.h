#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace salient::cli {

/// What is wrong with arguments that no command takes, and the flag that was probably meant; empty where all
/// were taken. After a parse that failed.
std::string unexpected_argument(const CLI::App& app);

/// The library names what it refuses by the keys of recipes. In `message` those that were said by flags of
/// `command` become the flags: "group_size is 96" -> "--group-size is 96".
std::string with_flag_names(const CLI::App& command, std::string message);

}  // namespace salient::cli
