// What the benchmarks that train or plan share: reading their command line, errors as one line.
#pragma once

#include <charconv>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "launch/config.h"
#include "runtime/error.h"

namespace caravan {

// Takes "name=N" out of the arguments; a name without a dot is no key of a configuration.
inline int take_option(std::vector<std::string>& arguments, const std::string& name, int value) {
  std::erase_if(arguments, [&](const std::string& argument) {
    if (!argument.starts_with(name + "=")) return false;
    const char* const end = argument.data() + argument.size();
    const auto parsed = std::from_chars(argument.data() + name.size() + 1, end, value);
    if (parsed.ec == std::errc() && parsed.ptr == end && value >= 0) return true;
    throw config_error(absl::StrFormat("%s: give a whole number", argument));
  });
  return value;
}

// CONFIG [key=value ...]. Without data there is no vocabulary: the quickstart's then.
inline Config load_bench_config(const std::vector<std::string>& arguments) {
  Config config = load_config(arguments.at(0), std::span(arguments).subspan(1));
  if (config.model.vocab_size == 0) config.model.vocab_size = 4096;
  return config;
}

// Runs body(arguments); what it throws becomes one line and the exit code of a run.
inline int run_bench(const char* name, int argc, char** argv,
                     const std::function<void(std::vector<std::string>)>& body) {
  try {
    body(std::vector<std::string>(argv + 1, argv + argc));
    return 0;
  } catch (const Error& error) {
    std::cerr << name << ": " << error.what() << std::endl;
    return static_cast<int>(error.code());
  }
}

}  // namespace caravan
