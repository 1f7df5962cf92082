// Logits of models that Hugging Face's transformers saved, loaded as a user would: config.json,
// names, safetensors. What the folders hold: tests/golden/make_hf_models.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_weights.h"
#include "models/model.h"
#include "parallel/expand_experts.h"
#include "parallel/parallelize.h"
#include "runtime/passes/schedule.h"
#include "tests/support/program_runner.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

std::string golden_folder(const std::string& name) {
  return std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/hf/" + name;
}

std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

HfConfig config_of(const std::string& folder, const std::string& file = kHfConfigName) {
  return read_hf_config(file_text(folder + "/" + file), file);
}

HostTensors batch_of(const Json& golden) {
  std::vector<int32_t> ids, positions;
  for (const Json& sequence : golden.at("input_ids")) {
    for (size_t i = 0; i < sequence.size(); ++i) {
      ids.push_back(sequence[i].get<int32_t>());
      positions.push_back(static_cast<int32_t>(i));
    }
  }
  const std::vector<int32_t> zeros(ids.size(), 0);
  return {{"input_ids", int_tensor(ids)},
          {"targets", int_tensor(zeros)},
          {"positions", int_tensor(positions)},
          {"document_start", int_tensor(zeros)}};
}

// The model, with the logits that its loss is made of as another output.
Graph logits_graph(const ModelConfig& model, const Json& golden) {
  const int64_t sequences = std::ssize(golden.at("input_ids"));
  const int64_t length = std::ssize(golden.at("input_ids")[0]);
  const ModelOptions options = {.training = false,
                                .slots = {length, length * model.num_experts_per_tok}};
  Graph graph;
  Builder b(graph);
  b.output("loss", model_loss(b, model, declare_batch(b, sequences, length), options).loss_sum);
  const Node loss = graph.nodes.back();
  check(std::holds_alternative<LinearCrossEntropy>(loss.op), "the loss is not the last op");
  b.output("logits", b.linear(loss.inputs[0], loss.inputs[1]));
  return reorder(expand_experts(parallelize(graph, Mesh{}), Mesh{}));
}

HostTensor parameter_of(HfWeights& weights, const Value& value) {
  HostTensor tensor = zeros(value.shape);
  weights.read({value.name, DType::f32, value.shape, Shape(value.shape.size(), 0), value.shape,
                tensor.words.data()});
  return tensor;
}

HostTensor logits_of(const std::string& folder, const HfConfig& config, const Json& golden) {
  HfWeights weights(folder, config);
  const Graph graph = logits_graph(config.model, golden);
  HostTensors made = run_on_ranks({{"logits", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
    for (const Value& value : graph.values) {
      if (value.kind == ValueKind::parameter) runner.set(value.name, parameter_of(weights, value));
    }
    runner.run("logits", batch_of(golden));
    runner.record_output("logits", "logits", "logits");
  });
  return made.at("logits");
}

double largest_difference(const HostTensor& logits, const Json& golden) {
  const auto columns = golden.at("columns").get<std::vector<int64_t>>();
  const auto expected = golden.at("logits").get<std::vector<double>>();
  const int64_t vocab = logits.shape.at(1);
  check(std::ssize(expected) == logits.shape.at(0) * std::ssize(columns), "other logits");
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto token = static_cast<int64_t>(i / columns.size());
    const double logit = logits.at(token * vocab + columns[i % columns.size()]);
    largest = std::max(largest, std::abs(logit - expected[i]));
  }
  return largest;
}

Json golden_of(const std::string& name) {
  return Json::parse(std::ifstream(golden_folder(name) + "/golden.json"));
}

class HfLogits : public testing::TestWithParam<const char*> {};

TEST_P(HfLogits, AreThoseOfTransformers) {
  const std::string folder = golden_folder(GetParam());
  const Json golden = golden_of(GetParam());
  const double difference =
      largest_difference(logits_of(folder, config_of(folder), golden), golden);
  std::printf("%s: largest difference %.2g\n", GetParam(), difference);
  EXPECT_LT(difference, 1e-4);
}

constexpr auto kFolders = {"llama_gqa",   "llama_mha_biases",   "llama_scaled_rope",
                           "llama_tied",  "llama_bf16_sharded", "llama_fp16",
                           "llama4_top1", "llama4_top2_dense",  "llama4_multimodal"};

INSTANTIATE_TEST_SUITE_P(All, HfLogits, testing::ValuesIn(kFolders),
                         [](const auto& info) { return info.param; });

TEST(HfLogits, HasEveryGoldenFolder) {
  const std::filesystem::directory_iterator folders(golden_folder("")), end;
  EXPECT_EQ(std::distance(folders, end), std::ssize(kFolders));
}

// The same config in the words of version 4.
TEST(HfLogits, DialectsOfConfigAgree) {
  for (const char* name : {"llama_scaled_rope", "llama4_top2_dense"}) {
    const std::string folder = golden_folder(name);
    EXPECT_EQ(config_of(folder, "config-4.json"), config_of(folder)) << name;
  }
}

// The comparison must see one byte of one weight.
TEST(HfLogits, OneByteOfAWeightChangesThem) {
  const TemporaryFolder copy;
  const std::string folder = golden_folder("llama_gqa");
  for (const char* file : {kHfConfigName, kSafetensorsName}) {
    std::filesystem::copy_file(folder + "/" + file, copy / file);
  }
  const Json golden = golden_of("llama_gqa");
  const HfConfig config = config_of(copy.path());
  EXPECT_LT(largest_difference(logits_of(copy.path(), config, golden), golden), 1e-4);

  const SafetensorsFolder tensors(folder);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const auto size = static_cast<int64_t>(std::filesystem::file_size(tensors.file_of(name)));
  const int64_t data = SafetensorsFile(tensors.file_of(name)).data_bytes();
  std::fstream file(copy / kSafetensorsName, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(size - data + tensors.tensor(name).begin + 3);  // sign and exponent of an element
  const int byte = file.get();
  file.seekp(size - data + tensors.tensor(name).begin + 3);
  file.put(static_cast<char>(byte ^ 0x80));
  file.close();
  EXPECT_GT(largest_difference(logits_of(copy.path(), config, golden), golden), 1e-3);
}

// What is not of the text model is left out, and said.
TEST(HfLogits, VisionPartIsLeftOut) {
  const std::string folder = golden_folder("llama4_multimodal");
  const HfWeights weights(folder, config_of(folder));
  ASSERT_EQ(weights.notes().size(), 1u);
  EXPECT_EQ(weights.notes()[0],
            "26 tensors left out: the vision part, of which only the text model is taken");
}

// Boxes of parameters that share a tensor: only their bytes are read.
TEST(HfLogits, BoxesOfExpertsReadOnlyTheirBytes) {
  const std::string folder = golden_folder("llama4_top1");
  HfWeights weights(folder, config_of(folder));
  const std::string prefix = "model.layers.1.feed_forward.experts.";
  const Shape shape = {4, 16, 12};
  std::vector<float> fused(4 * 16 * 24);
  SafetensorsFolder(folder).read(prefix + "gate_up_proj", {{0, 0, 0}, {4, 16, 24}}, fused.data());
  for (const int64_t up : {0, 1}) {
    const std::string name = prefix + (up == 1 ? "up_proj" : "gate_proj");
    std::vector<float> part(2 * 16 * 5);
    const int64_t before = weights.bytes_read();
    weights.read({name, DType::f32, shape, {1, 0, 6}, {2, 16, 5}, part.data()});
    EXPECT_EQ(weights.bytes_read() - before, std::ssize(part) * 4);
    for (int64_t i = 0; i < std::ssize(part); ++i) {
      const int64_t row = 16 + i / 5, column = 12 * up + 6 + i % 5;
      ASSERT_EQ(part[static_cast<size_t>(i)], fused[static_cast<size_t>(row * 24 + column)]);
    }
  }
}

}  // namespace
}  // namespace caravan
