#include "tests/e2e/caravan_process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/folders.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"(output_dir: runs/unnamed
model:
  family: llama
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  tie_word_embeddings: true
data: {train: data, validation: data, sequence_len: 32}
train: {max_steps: 6, micro_batch_size: 2, global_batch_size: 8, seed: 3}
optimizer: {learning_rate: 3e-3, lr_scheduler_type: constant, warmup_steps: 2}
runtime: {threads: 1}
log: {logging_steps: 1}
)";

// Sentences with enough regularity to learn something, in documents of different lengths.
std::string document(int number) {
  constexpr std::array kNouns = {"caravan", "llama", "load", "walker", "pass", "valley", "bridge"};
  constexpr std::array kVerbs = {"carries", "crosses", "leads", "follows", "meets"};
  std::string text;
  for (int i = 0; i < 10 + number % 7; ++i) {
    const int key = number * 31 + i * 17;
    text += std::string("The ") + kNouns[key % 7] + " " + kVerbs[key % 5] + " the " +
            kNouns[(key / 3) % 7] + ".\n";
  }
  return text;
}

// Before mpirun: what a container and root need, and more ranks than processors.
constexpr char kMpiEnvironment[] =
    "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 "
    "OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none ";

}  // namespace

std::string program_folder() {
  const std::string bundle = bundle_folder();
  return bundle.empty() ? CARAVAN_BINARY_DIR : bundle + "/bin";
}

ProcessResult run_caravan(const std::string& command, int num_ranks, const std::string& prefix) {
  return run_program("caravan " + command, num_ranks, prefix);
}

ProcessResult run_program(const std::string& command, int num_ranks, const std::string& prefix) {
  std::string line = program_folder() + "/" + command + " 2>&1";
  if (num_ranks > 0) line = "mpirun -n " + std::to_string(num_ranks) + " " + line;
  line = kMpiEnvironment + prefix + " " + line;
  const auto start = std::chrono::steady_clock::now();
  ProcessResult result;
  FILE* pipe = popen(line.c_str(), "r");
  std::array<char, 4096> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.output.append(buffer.data(), n);
  }
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Workbench::Workbench() {
  fs::create_directory(path("text"));
  for (int i = 0; i < 60; ++i) {
    std::ofstream(path("text/document-" + std::to_string(i) + ".txt")) << document(i);
  }
  std::ofstream(path("tiny.yaml")) << kConfig;
  const ProcessResult built =
      run_caravan("data build " + path("text") + " --output " + path("data") +
                  " --vocab-size 300 " + "--validation-fraction 0.1");
  EXPECT_EQ(built.exit_code, 0) << built.output;
}

std::string Workbench::train_command(const std::string& run, const std::string& overrides) const {
  const std::string data = path("data");
  return "train " + path("tiny.yaml") + " output_dir=" + path(run) + " data.train=" + data +
         " data.validation=" + data + " " + overrides;
}

ProcessResult Workbench::train(const std::string& run, const std::string& overrides,
                               int num_ranks) const {
  return run_caravan(train_command(run, overrides), num_ranks);
}

std::vector<double> Workbench::losses(const std::string& run) const {
  std::ifstream file(path(run) + "/metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json object = nlohmann::json::parse(line);
    if (!object.contains("event")) losses.push_back(object.at("loss").get<double>());
  }
  return losses;
}

}  // namespace caravan
