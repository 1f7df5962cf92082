// Folders whose tensors are not those of their config.
#include "checkpoint/hf_weights.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/safetensors_writer.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

HfConfig tiny_config() {
  HfConfig config;
  config.model.vocab_size = 8;
  config.model.hidden_size = 4;
  config.model.intermediate_size = 6;
  config.model.num_hidden_layers = 1;
  config.model.num_attention_heads = 2;
  config.model = canonical(config.model);
  return config;
}

// A folder with these tensors, all ones but for the head.
struct Weights {
  TemporaryFolder folder;

  explicit Weights(const std::vector<SafetensorsSpec>& specs, float head = 1.0f) {
    const SafetensorsPlan plan = plan_safetensors(specs, int64_t{1} << 30);
    SafetensorsWriter writer(folder.path(), plan.shards[0]);
    for (const SafetensorsTensor& tensor : plan.shards[0].tensors) {
      const float value = tensor.name == "lm_head.weight" ? head : 1.0f;
      writer.append(tensor.name,
                    std::vector<float>(static_cast<size_t>(num_elements(tensor.shape)), value));
    }
    writer.finish();
  }
};

std::vector<SafetensorsSpec> specs_of(const HfConfig& config) {
  std::vector<SafetensorsSpec> specs;
  for (const HfTensor& tensor : hf_tensors(config.model, config.tensor_prefix)) {
    specs.push_back({tensor.name, SafetensorsDType::f32, tensor.shape});
  }
  return specs;
}

// The message about such a folder; its path is left out.
std::string error_with(const std::vector<SafetensorsSpec>& specs, const HfConfig& config) {
  const Weights weights(specs);
  const std::string message = error_of([&] { HfWeights(weights.folder.path(), config); });
  const size_t colon = message.find(": ");
  return colon == std::string::npos ? message : message.substr(colon + 2);
}

TEST(HfWeights, MustBeThoseOfTheConfig) {
  const HfConfig config = tiny_config();
  const std::vector<SafetensorsSpec> specs = specs_of(config);
  EXPECT_EQ(error_with(specs, config), "");

  std::vector<SafetensorsSpec> changed = specs;
  ASSERT_EQ(changed[0].name, "lm_head.weight");
  changed[0].shape = {8, 5};
  EXPECT_EQ(error_with(changed, config),
            "tensor 'lm_head.weight' has shape [8,5], but config.json asks for [8,4]: do config "
            "and weights belong together?");
  changed.erase(changed.begin());
  EXPECT_EQ(error_with(changed, config),
            "tensor 'lm_head.weight' [8,4] is missing; its config.json asks for it: do config and "
            "weights belong together?");
  changed = specs;
  changed.push_back({"model.layers.0.self_attn.q_proj.bias", SafetensorsDType::f32, {4}});
  EXPECT_EQ(error_with(changed, config),
            "tensor 'model.layers.0.self_attn.q_proj.bias' is none of the model that config.json "
            "describes: do config and weights belong together?");
  changed = specs;
  changed.push_back({"vision_model.class_embedding", SafetensorsDType::f32, {4}});
  EXPECT_NE(error_with(changed, config), "") << "only a llama4 has a vision part";
}

TEST(HfWeights, SayWhatTheyLeaveOut) {
  HfConfig config = tiny_config();
  std::vector<SafetensorsSpec> specs = specs_of(config);
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"}) {
    specs.push_back({name, SafetensorsDType::f32, {1}});
  }
  const Weights buffers(specs);
  const std::string buffers_note =
      "2 tensors left out: buffers of rope, which follow from the config";
  EXPECT_EQ(HfWeights(buffers.folder.path(), config).notes(),
            std::vector<std::string>{buffers_note});

  config.model.tie_word_embeddings = true;  // the stored head is not used then
  HfWeights tied(buffers.folder.path(), config);
  tied.check_stored_head();  // all ones, as the embedding is
  EXPECT_FALSE(tied.has_parameter("lm_head.weight"));
  EXPECT_EQ(tied.notes(),
            (std::vector<std::string>{buffers_note,
                                      "1 tensor left out: the head of a tied model "
                                      "(tie_word_embeddings), which is the embedding"}));
}

// Before anything is read: an import of a large model must not fail half way.
TEST(HfWeights, MustBeNumbersThatAreRead) {
  const HfConfig config = tiny_config();
  const Weights weights(specs_of(config));
  const std::string path = weights.folder / kSafetensorsName;
  std::string bytes = read_bytes(path);
  const size_t place = bytes.find("F32");
  bytes.replace(place, 3, "I32");
  write_bytes(path, bytes);
  EXPECT_NE(
      error_of([&] { HfWeights(weights.folder.path(), config); }).find("is I32, which is not"),
      std::string::npos);
}

TEST(HfWeights, AreReadByTheirParameters) {
  const HfConfig config = tiny_config();
  const Weights folder(specs_of(config));
  HfWeights weights(folder.folder.path(), config);
  EXPECT_EQ(weights.bytes_read(), 0);
  EXPECT_EQ(weights.stored_dtype("model.norm.weight"), SafetensorsDType::f32);
  std::vector<float> values(2, 0.0f);
  weights.read({"model.norm.weight", DType::f32, {4}, {1}, {2}, values.data()});
  EXPECT_EQ(values, (std::vector<float>{1, 1}));
  EXPECT_EQ(weights.bytes_read(), 8);
  const auto wrong = [&](const TensorRequest& request) {
    return error_of([&] { weights.read(request); }, ExitCode::internal);
  };
  EXPECT_NE(wrong({"model.norm.bias", DType::f32, {4}, {1}, {2}, values.data()}), "");
  EXPECT_NE(wrong({"model.norm.weight", DType::bf16, {4}, {1}, {2}, values.data()}), "");
  EXPECT_NE(wrong({"model.norm.weight", DType::f32, {5}, {1}, {2}, values.data()}), "");
  EXPECT_NE(wrong({"model.norm.weight", DType::f32, {4}, {3}, {2}, values.data()}), "");
}

TEST(HfWeights, AStoredHeadOfATiedModelMustBeTheEmbedding) {
  HfConfig config = tiny_config();
  std::vector<SafetensorsSpec> specs = specs_of(config);  // with a head
  config.model.tie_word_embeddings = true;
  const Weights weights(specs, 2.0f);
  HfWeights tied(weights.folder.path(), config);
  const std::string message = error_of([&] { tied.check_stored_head(); });
  EXPECT_NE(message.find("'lm_head.weight' is stored and is not the embedding"), std::string::npos)
      << message;
}

}  // namespace
}  // namespace caravan::test
