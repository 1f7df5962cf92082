// Names and shapes of Hugging Face's tensors, and our parameters in them.
#include "models/hf_tensors.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/error.h"

namespace caravan {
namespace {

ModelConfig small_model(ModelFamily family) {
  ModelConfig model = default_config(family);
  model.vocab_size = 11;
  model.hidden_size = 8;
  model.intermediate_size = 6;
  model.intermediate_size_mlp = 10;
  model.num_hidden_layers = 2;
  model.num_attention_heads = 4;
  model.num_key_value_heads = 2;
  model.head_dim = 4;
  if (family == ModelFamily::llama4_text) model.num_local_experts = 3;
  if (family == ModelFamily::llama4_text) model.interleave_moe_layer_step = 2;
  return with_derived_sizes(model);
}

std::map<std::string, Shape> shapes_of(const std::vector<HfTensor>& tensors) {
  std::map<std::string, Shape> shapes;
  for (const HfTensor& tensor : tensors) shapes[tensor.name] = tensor.shape;
  EXPECT_EQ(shapes.size(), tensors.size());
  return shapes;
}

std::map<std::string, Shape> layer_shapes(const std::string& layer) {
  return {{layer + "input_layernorm.weight", {8}},
          {layer + "post_attention_layernorm.weight", {8}},
          {layer + "self_attn.q_proj.weight", {16, 8}},
          {layer + "self_attn.k_proj.weight", {8, 8}},
          {layer + "self_attn.v_proj.weight", {8, 8}},
          {layer + "self_attn.o_proj.weight", {8, 16}}};
}

std::map<std::string, Shape> mlp_shapes(const std::string& mlp, int64_t width) {
  return {{mlp + "gate_proj.weight", {width, 8}},
          {mlp + "up_proj.weight", {width, 8}},
          {mlp + "down_proj.weight", {8, width}}};
}

TEST(HfTensors, AreThoseOfLlama) {
  ModelConfig model = small_model(ModelFamily::llama);
  std::map<std::string, Shape> expected = {{"model.embed_tokens.weight", {11, 8}},
                                           {"model.norm.weight", {8}},
                                           {"lm_head.weight", {11, 8}}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    expected.merge(layer_shapes(layer));
    expected.merge(mlp_shapes(layer + "mlp.", 6));
  }
  EXPECT_EQ(shapes_of(hf_tensors(model, "")), expected);
  model.tie_word_embeddings = true;
  expected.erase("lm_head.weight");
  EXPECT_EQ(shapes_of(hf_tensors(model, "")), expected);
  model.attention_bias = model.mlp_bias = true;
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    const std::map<std::string, int64_t> widths = {
        {"self_attn.q_proj", 16}, {"self_attn.k_proj", 8}, {"self_attn.v_proj", 8},
        {"self_attn.o_proj", 8},  {"mlp.gate_proj", 6},    {"mlp.up_proj", 6},
        {"mlp.down_proj", 8}};
    for (const auto& [name, width] : widths) expected[layer + name + ".bias"] = {width};
  }
  EXPECT_EQ(shapes_of(hf_tensors(model, "")), expected);
}

TEST(HfTensors, AreThoseOfLlama4) {
  const std::string p = "language_model.";
  std::map<std::string, Shape> expected = {{p + "model.embed_tokens.weight", {11, 8}},
                                           {p + "model.norm.weight", {8}},
                                           {p + "lm_head.weight", {11, 8}}};
  for (const std::string layer : {"0.", "1."})
    expected.merge(layer_shapes(p + "model.layers." + layer));
  expected.merge(mlp_shapes(p + "model.layers.0.feed_forward.", 10));
  const std::string experts = p + "model.layers.1.feed_forward.";
  expected.merge(mlp_shapes(experts + "shared_expert.", 6));
  expected[experts + "router.weight"] = {3, 8};
  expected[experts + "experts.gate_up_proj"] = {3, 8, 12};
  expected[experts + "experts.down_proj"] = {3, 6, 8};
  EXPECT_EQ(shapes_of(hf_tensors(small_model(ModelFamily::llama4_text), p)), expected);
}

// Parts cover each tensor once, and every parameter is somewhere; tensors are ordered.
TEST(HfTensors, HoldEveryParameterOnce) {
  for (const ModelFamily family : {ModelFamily::llama, ModelFamily::llama4_text}) {
    std::set<std::string> parameters;
    std::string last;
    for (const HfTensor& tensor : hf_tensors(small_model(family), "p.")) {
      EXPECT_LT(last, tensor.name);
      last = tensor.name;
      int64_t elements = 0;
      for (const HfPart& part : tensor.parts) {
        EXPECT_TRUE(parameters.insert(part.parameter).second) << part.parameter;
        EXPECT_TRUE(part.parameter.starts_with("model.") || part.parameter == "lm_head.weight");
        elements += num_elements(part.box.extent);
      }
      EXPECT_EQ(elements, num_elements(tensor.shape));
    }
  }
}

TEST(HfTensors, HaveGateBesideUp) {
  const std::string layer = "model.layers.1.feed_forward.experts.";
  for (const HfTensor& tensor : hf_tensors(small_model(ModelFamily::llama4_text), "")) {
    if (tensor.name != layer + "gate_up_proj") continue;
    const std::vector<HfPart> expected = {{layer + "gate_proj", {{0, 0, 0}, {3, 8, 6}}},
                                          {layer + "up_proj", {{0, 0, 6}, {3, 8, 6}}}};
    EXPECT_EQ(tensor.parts, expected);
    return;
  }
  FAIL() << "no fused tensor";
}

TEST(HfTensors, RefuseWhatTransformersHasNot) {
  ModelConfig model = small_model(ModelFamily::llama);
  model.num_local_experts = 3;
  try {
    hf_tensors(model, "");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    EXPECT_NE(std::string(error.what()).find("use family llama4_text"), std::string::npos);
  }
}

}  // namespace
}  // namespace caravan
