// Import and export by the real program: there and back bit for bit, shares of ranks, reference
// logits, training from what was imported, and folders that are wrong or hostile. Folders are those
// of tests/golden/hf, which transformers wrote.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/work_folder.h"
#include "tests/e2e/caravan_process.h"
#include "tests/support/folders.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/text.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) { return source_folder() + "/tests/golden/hf/" + name; }

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Bytes of the files in a folder, by name.
std::map<std::string, std::string> files_in(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename().string()] = content(entry.path());
  }
  return files;
}

// Everything below a folder, by name; links are not followed.
std::set<std::string> names_below(const std::string& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    names.insert(entry.path().string());
  }
  return names;
}

class HuggingFace : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ / name; }

  // What it printed; a test failure when it does not end well.
  static std::string run(const std::string& command, int num_ranks = 0) {
    const ProcessResult result = run_caravan(command, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << command << ": " << result.output;
    return result.output;
  }

  // Ends with this code, one line that has all the parts, and leaves every folder as it was.
  void expect_refused(const std::string& command, int exit_code,
                      const std::vector<std::string>& parts, int num_ranks = 0) const {
    const std::set<std::string> before = names_below(folder_.path());
    const ProcessResult result = run_caravan(command, num_ranks);
    EXPECT_EQ(result.exit_code, exit_code) << command << ": " << result.output;
    EXPECT_EQ(count(result.output, "caravan: error: "), 1u) << result.output;
    // mpirun has its own words.
    EXPECT_TRUE(num_ranks > 0 || count(result.output, "\n") == 1) << result.output;
    for (const std::string& part : parts) {
      EXPECT_NE(result.output.find(part), std::string::npos)
          << "no '" << part << "' in: " << result.output;
    }
    EXPECT_EQ(names_below(folder_.path()), before) << command;
  }

  void expect_same_tensors(const std::string& a, const std::string& b) const {
    const std::string said = run("ckpt diff " + path(a) + " " + path(b));
    EXPECT_NE(said.find("identical: all "), std::string::npos) << said;
  }

  TemporaryFolder folder_;
};

struct Journey {
  std::string model, options;
  size_t min_files = 1;  // of weights
};
void PrintTo(const Journey& journey, std::ostream* out) {
  *out << journey.model << " " << journey.options;
}

class HuggingFaceJourney : public HuggingFace, public testing::WithParamInterface<Journey> {};

// What was exported once is exported again with the same bytes, whatever was rounded at first.
TEST_P(HuggingFaceJourney, ThereAndBackIsBitEqual) {
  const auto [model, options, min_files] = GetParam();
  run("import " + golden(model) + " --output " + path("0"));
  run("export " + path("0") + " --output " + path("first") + options);
  run("import " + path("first") + " --output " + path("1"));
  run("export " + path("1") + " --output " + path("second") + options);
  run("import " + path("second") + " --output " + path("2"));
  expect_same_tensors("1", "2");
  if (options.find("bfloat16") == std::string::npos) expect_same_tensors("0", "1");

  std::map<std::string, std::string> first = files_in(path("first")),
                                     second = files_in(path("second"));
  size_t num_files = 0;
  for (const auto& [name, bytes] : first) num_files += name.ends_with(".safetensors") ? 1 : 0;
  EXPECT_GE(num_files, min_files);
  EXPECT_EQ(first.contains("model.safetensors.index.json"), num_files > 1);
  // Only the first export may have rounded, and says by how much in its logits.
  nlohmann::json a = nlohmann::json::parse(first["parity.json"]),
                 b = nlohmann::json::parse(second["parity.json"]);
  EXPECT_EQ(a.at("crc32c"), b.at("crc32c"));
  EXPECT_EQ(b.at("logits").at("max_abs_difference"), 0);
  EXPECT_GT(b.at("logits").at("max_abs_logit"), 0.1);
  first.erase("parity.json");
  second.erase("parity.json");
  EXPECT_EQ(first, second);
}

INSTANTIATE_TEST_SUITE_P(
    , HuggingFaceJourney,
    testing::Values(Journey{"llama_scaled_rope", " --dtype float32"},
                    Journey{"llama_scaled_rope", " --dtype bfloat16 --max-shard-size 4KiB", 2},
                    Journey{"llama4_top2_dense", " --dtype float32 --max-shard-size 4KiB", 2},
                    Journey{"llama4_top2_dense", " --dtype bfloat16"}));

// "read per rank" of what import prints: bytes in its words, and percent of the share.
double percent_read(const std::string& said) {
  const size_t row = said.find("| read per rank"), end = said.find(" % of its share", row);
  if (row == std::string::npos || end == std::string::npos) return INFINITY;
  return std::stod(said.substr(said.rfind(", ", end) + 2));
}

// By how many MiB a rank held more than was planned: "1.5 MiB planned, 2.5 MiB measured".
double mebibytes_above_plan(const std::string& said) {
  const size_t row = said.find("| memory per rank | ");
  double planned = 0, measured = INFINITY;
  if (row != std::string::npos) {
    std::sscanf(said.c_str() + row, "| memory per rank | %lf MiB planned, %lf MiB measured",
                &planned, &measured);
  }
  return measured - planned;
}

TEST_F(HuggingFace, RanksReadTheirSharesAndWriteTheSameTensors) {
  const std::map<std::string, std::vector<std::string>> meshes = {
      {"llama_gqa", {"parallel.tp=2", "parallel.tp=4"}},
      {"llama4_top2_dense", {"parallel.zero=3"}}};
  for (const auto& [model, overrides] : meshes) {
    run("import " + golden(model) + " --output " + path(model));
    for (const std::string& mesh : overrides) {
      const std::string output = model + "-" + mesh;
      const std::string said =
          run("import " + golden(model) + " --output " + path(output) + " " + mesh, 4);
      EXPECT_LE(percent_read(said), 105) << said;
      EXPECT_GE(percent_read(said), 99) << said;
      EXPECT_LE(mebibytes_above_plan(said), 1) << said;
      expect_same_tensors(output, model);
    }
  }
}

TEST_F(HuggingFace, ReferenceLogitsPass) {
  const auto compare = [&](const std::string& model, const std::string& output, int num_ranks) {
    const std::string said = run("import " + golden(model) + " --output " + path(output) +
                                     " --tolerance 1e-4 --reference " + golden(model) +
                                     "/reference.npz" + (num_ranks > 0 ? " parallel.tp=2" : ""),
                                 num_ranks);
    EXPECT_NE(said.find("| logits "), std::string::npos) << said;
  };
  compare("llama_scaled_rope", "llama", 0);
  compare("llama4_top2_dense", "llama4", 0);
  compare("llama4_top2_dense", "llama4-tp2", 2);
}

TEST_F(HuggingFace, TamperedWeightsFailTheReference) {
  const std::string folder = path("tampered");
  fs::copy(golden("llama_scaled_rope"), folder);
  // The last element of the last tensor, the final norm or a projection: 0.5 instead.
  std::fstream file(folder + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  const float half = 0.5f;
  file.seekp(-static_cast<std::streamoff>(sizeof(half)), std::ios::end);
  file.write(reinterpret_cast<const char*>(&half), sizeof(half));
  file.close();
  const std::string command = "import " + folder + " --output " + path("never") + " --reference " +
                              golden("llama_scaled_rope") + "/reference.npz";
  expect_refused(command, 4, {"reference.npz: logits differ by up to ", "--tolerance 0.001"});
  expect_refused(command + " parallel.tp=2", 4, {"logits differ by up to "}, 2);
}

TEST_F(HuggingFace, WrongFoldersAreRefused) {
  using Change = std::function<void(const std::string& folder)>;
  struct Case {
    std::string name, model;
    Change change;
    std::vector<std::string> parts;
  };
  const auto begin_with = [](const std::string& path, const std::string& bytes) {
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << bytes;
  };
  const auto replace = [](const std::string& path, const std::string& from, const std::string& to) {
    std::string text = content(path);
    ASSERT_NE(text.find(from), std::string::npos);
    text.replace(text.find(from), from.size(), to);
    std::ofstream(path, std::ios::binary) << text;
  };
  const std::string shard = "model-00003-of-00007.safetensors";
  const std::vector<Case> cases = {
      {"missing-shard",
       "llama_bf16_sharded",
       [&](auto& f) { fs::remove(f + "/" + shard); },
       {"missing-shard", shard}},
      {"index-leads-out",
       "llama_bf16_sharded",
       [&](auto& f) {
         replace(f + "/model.safetensors.index.json", shard, "../missing-shard/" + shard);
       },
       {"index-leads-out", "no plain name of a file"}},
      {"truncated",
       "llama_tied",
       [](auto& f) {
         fs::resize_file(f + "/model.safetensors", fs::file_size(f + "/model.safetensors") - 10);
       },
       {"truncated/model.safetensors", "is it whole?"}},
      {"quantised",
       "llama_tied",
       [&](auto& f) {
         replace(f + "/config.json", "{", "{\"quantization_config\": {\"quant_method\": \"fp8\"},");
       },
       {"quantised/config.json", "quantization_config", "take the model without it"}},
      {"linked",
       "llama_tied",
       [&](auto& f) {
         fs::rename(f + "/model.safetensors", path("elsewhere.safetensors"));
         fs::create_symlink("../elsewhere.safetensors", f + "/model.safetensors");
       },
       {"linked/model.safetensors", "link to a file outside"}},
      {"huge-header",
       "llama_tied",
       [&](auto& f) { begin_with(f + "/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f"); },
       {"huge-header/model.safetensors", "header"}},
      {"no-weights",
       "llama_tied",
       [](auto& f) { fs::remove(f + "/model.safetensors"); },
       {"no-weights", "model.safetensors"}},
      {"no-config",
       "llama_tied",
       [](auto& f) { fs::remove(f + "/config.json"); },
       {"no-config", "config.json"}},
  };
  for (const Case& wrong : cases) {
    SCOPED_TRACE(wrong.name);
    const std::string folder = path(wrong.name);
    fs::copy(golden(wrong.model), folder);
    wrong.change(folder);
    expect_refused("import " + folder + " --output " + path("never"), 4, wrong.parts);
  }
  expect_refused("import " + path("truncated") + " --output " + path("never"), 4, {"is it whole?"},
                 2);
}

TEST_F(HuggingFace, OutputsThatExistStay) {
  fs::create_directory(path("mine"));
  std::ofstream(path("mine") + "/file") << "precious";
  run("import " + golden("llama_tied") + " --output " + path("checkpoint"));
  for (const std::string& command :
       {"import " + golden("llama_tied"), "export " + path("checkpoint")}) {
    expect_refused(command + " --output " + path("mine"), 2, {"--output", "exists already"});
  }
  expect_refused("export " + path("checkpoint") + " --output " + path("mine"), 2,
                 {"--output", "exists already"}, 2);
  EXPECT_EQ(content(path("mine") + "/file"), "precious");
  expect_refused("import " + path("checkpoint") + " --output " + path("never"), 2,
                 {"is a checkpoint already", "model.init_from="});
}

// What a killed process left is no hindrance, and no part of what is published.
TEST_F(HuggingFace, LeftoversOfKilledProcessesAreRemoved) {
  const auto leave_half = [&](const std::string& output) {
    fs::create_directories(path(output + ".partial/.tmp-step-00000000-import-1-0"));
    std::ofstream(path(output + ".partial/model-00001-of-00002.safetensors")) << "half";
  };
  leave_half("checkpoint");
  run("import " + golden("llama_tied") + " --output " + path("checkpoint"));
  leave_half("folder");
  run("export " + path("checkpoint") + " --output " + path("folder"));
  const std::map<std::string, std::string> files = files_in(path("folder"));
  EXPECT_FALSE(files.contains("model-00001-of-00002.safetensors"));
  EXPECT_TRUE(files.contains("model.safetensors"));
  std::set<std::string> outputs;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_.path())) {
    outputs.insert(entry.path().filename().string());
  }
  EXPECT_EQ(outputs, (std::set<std::string>{"checkpoint", "folder"}));
  run("ckpt verify " + path("checkpoint"));
}

// The lock of a process that writes the same output.
TEST_F(HuggingFace, OneAtATimeWritesAnOutput) {
  run("import " + golden("llama_tied") + " --output " + path("checkpoint"));
  const WorkFolder other(path("output"));
  for (const std::string& command :
       {"import " + golden("llama_tied"), "export " + path("checkpoint")}) {
    expect_refused(command + " --output " + path("output"), 2, {"another process is writing"});
  }
}

class InitFrom : public HuggingFace {
 protected:
  double first_loss(const std::string& name, const std::string& overrides, int num_ranks = 0) {
    const ProcessResult result = bench_.train(name, "train.max_steps=1 " + overrides, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    const std::vector<double> losses = bench_.losses(name);
    return losses.size() == 1 ? losses[0] : NAN;
  }

  // A few steps with `model`; then step 1 from the checkpoint, from its export and from the import
  // of that, and on meshes.
  void expect_same_start(const std::string& model,
                         const std::vector<std::pair<int, std::string>>& meshes) {
    const ProcessResult trained = bench_.train("run", "train.max_steps=4 " + model);
    ASSERT_EQ(trained.exit_code, 0) << trained.output;
    const std::string folder = bench_.path("folder"), imported = bench_.path("imported");
    run("export " + bench_.path("run") + " --output " + folder);
    run("import " + folder + " --output " + imported);
    const double expected = first_loss("a", model + " model.init_from=" + bench_.path("run"));
    EXPECT_NE(expected, bench_.losses("run")[0]) << "it began with other weights than it should";
    EXPECT_EQ(first_loss("b", model + " model.init_from=" + folder), expected);
    EXPECT_EQ(first_loss("c", model + " model.init_from=" + imported), expected);
    for (const auto& [num_ranks, mesh] : meshes) {
      const std::string name = "on-" + std::to_string(num_ranks) + mesh;
      EXPECT_NEAR(first_loss(name, model + " model.init_from=" + folder + " " + mesh, num_ranks),
                  expected, 1e-5)
          << num_ranks << " ranks, " << mesh;
    }
  }

  Workbench bench_;
};

TEST_F(InitFrom, StartsAllMeshesAlike) {
  expect_same_start("", {{2, "parallel.zero=3"}, {4, "parallel.tp=2"}});
  const ProcessResult resumed =
      bench_.train("never", "checkpoint.resume_from_checkpoint=" + bench_.path("imported"));
  EXPECT_EQ(resumed.exit_code, 2) << resumed.output;
  EXPECT_NE(resumed.output.find("start from it with model.init_from="), std::string::npos)
      << resumed.output;
  const ProcessResult other =
      bench_.train("never", "model.hidden_size=64 model.init_from=" + bench_.path("folder"));
  EXPECT_EQ(other.exit_code, 2) << other.output;
  EXPECT_NE(other.output.find("has other weights than"), std::string::npos) << other.output;
}

TEST_F(InitFrom, StartsExpertsOnRanksOfTheirOwn) {
  expect_same_start(
      "model.family=llama4_text model.num_local_experts=4 model.num_experts_per_tok=2 "
      "model.interleave_moe_layer_step=2 model.intermediate_size_mlp=64 "
      "model.attention_chunk_size=8",
      {{2, "parallel.ep=2"}});
}

}  // namespace
}  // namespace caravan
