#include "tests/e2e/run_record.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/directory.h"

namespace caravan {

namespace fs = std::filesystem;

std::map<int64_t, std::string> step_lines(const std::string& run) {
  std::ifstream file(run + "/metrics.jsonl");
  std::map<int64_t, std::string> lines;
  for (std::string line; std::getline(file, line);) {
    nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    if (object.is_discarded() || object.contains("event")) continue;
    for (const char* clock : {"time", "step_ms", "tok_s", "mem_gib", "data_ms", "save_ms"}) {
      object.erase(clock);
    }
    const std::string text = object.dump();
    const auto known = lines.emplace(object.at("step").get<int64_t>(), text).first;
    EXPECT_EQ(text, known->second) << "a step that was repeated came out differently";
  }
  return lines;
}

size_t num_step_lines(const std::string& run) {
  std::ifstream file(run + "/metrics.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(file, line);) count += line.starts_with("{\"step\"");
  return count;
}

Manifest manifest_of(const std::string& run, int64_t step) {
  Manifest manifest = read_committed(run + "/checkpoints/" + step_folder_name(step));
  manifest.header.unix_time = 0;
  manifest.header.config_hash = "";  // output_dir differs
  manifest.header.texts.clear();
  manifest.header.run_id = "";
  manifest.files.clear();
  return manifest;
}

void copy_checkpoint(const std::string& from, const std::string& to, int64_t step) {
  fs::remove_all(to);
  fs::create_directories(to + "/checkpoints");
  const std::string folder = "/checkpoints/" + step_folder_name(step);
  fs::copy(from + folder, to + folder, fs::copy_options::recursive);
}

}  // namespace caravan
