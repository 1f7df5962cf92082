#include "checkpoint/hf_weights.h"

#include <algorithm>
#include <set>

#include "checkpoint/box.h"
#include "checkpoint/diff.h"
#include "checkpoint/safetensors_values.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr char kHead[] = "lm_head.weight";
constexpr int64_t kCompareElements = int64_t{1} << 18;

// Why a tensor that the model does not have may be left out; "" when nothing is known of it.
std::string reason_to_leave_out(const std::string& name, const HfConfig& config) {
  if (name.ends_with(".rotary_emb.inv_freq"))
    return "buffers of rope, which follow from the config";
  if (config.model.tie_word_embeddings && name == config.tensor_prefix + kHead) {
    return "the head of a tied model (tie_word_embeddings), which is the embedding";
  }
  if (config.tensor_prefix.empty()) return "";
  for (const char* part : {"vision_model.", "multi_modal_projector."}) {
    if (name.starts_with(part)) return "the vision part, of which only the text model is taken";
  }
  return "";
}

}  // namespace

HfWeights::HfWeights(const std::string& folder, const HfConfig& config) : folder_(folder) {
  const std::vector<HfTensor> tensors = hf_tensors(config.model, config.tensor_prefix);
  check_tensors(tensors);
  account_for_rest(tensors, config);
  for (const HfTensor& tensor : tensors) {
    for (const HfPart& part : tensor.parts) places_[part.parameter] = {tensor.name, part.box};
  }
  const std::string head = config.tensor_prefix + kHead;
  if (!config.model.tie_word_embeddings || !folder_.has(head)) return;
  embedding_ = config.tensor_prefix + "model.embed_tokens.weight";
  stored_head_ = head;
}

void HfWeights::check_stored_head() {
  if (stored_head_.empty()) return;
  const Shape& shape = folder_.tensor(embedding_).shape;
  std::vector<float> expected(kCompareElements), found(kCompareElements);
  bool is_same = folder_.tensor(stored_head_).shape == shape;
  for_each_slice(shape, kCompareElements, [&](const Box& box) {
    if (!is_same) return;
    expected.resize(static_cast<size_t>(num_elements(box.extent)));
    found.resize(expected.size());
    folder_.read(embedding_, box, expected.data());
    folder_.read(stored_head_, box, found.data());
    is_same = expected == found;
  });
  if (is_same) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: config.json has tie_word_embeddings, but '%s' is stored and is not the embedding; set "
      "tie_word_embeddings to false if the model has a head of its own, else remove the tensor",
      path(), stored_head_));
}

void HfWeights::check_tensors(const std::vector<HfTensor>& tensors) const {
  for (const HfTensor& tensor : tensors) {
    if (!folder_.has(tensor.name)) {
      throw checkpoint_error(absl::StrFormat(
          "%s: tensor '%s' %s is missing; its config.json asks for it: do config and weights "
          "belong together?",
          folder_.path(), tensor.name, to_string(tensor.shape)));
    }
    const SafetensorsTensor& found = folder_.tensor(tensor.name);
    const std::string& file = folder_.file_of(tensor.name);
    if (found.shape != tensor.shape) {
      throw checkpoint_error(absl::StrFormat(
          "%s: tensor '%s' has shape %s, but config.json asks for %s: do config and weights belong "
          "together?",
          file, tensor.name, to_string(found.shape), to_string(tensor.shape)));
    }
    expect_weight_dtype(found, file);  // now, and not after hours of reading others
  }
}

// A tensor that nobody asks for may be all that tells a model from ours.
void HfWeights::account_for_rest(const std::vector<HfTensor>& tensors, const HfConfig& config) {
  std::set<std::string> expected;
  for (const HfTensor& tensor : tensors) expected.insert(tensor.name);
  std::map<std::string, int64_t> left_out;  // by reason
  for (const std::string& name : folder_.names()) {
    if (expected.count(name) > 0) continue;
    const std::string reason = reason_to_leave_out(name, config);
    if (reason.empty()) {
      throw checkpoint_error(absl::StrFormat(
          "%s: tensor '%s' is none of the model that config.json describes: do config and weights "
          "belong together?",
          folder_.file_of(name), name));
    }
    ++left_out[reason];
  }
  for (const auto& [reason, count] : left_out) {
    notes_.push_back(
        absl::StrFormat("%d tensor%s left out: %s", count, count == 1 ? "" : "s", reason));
  }
}

const HfWeights::Place& HfWeights::place(const std::string& parameter) const {
  const auto found = places_.find(parameter);
  check(found != places_.end(), "'%s' is no parameter of the model", parameter);
  return found->second;
}

SafetensorsDType HfWeights::stored_dtype(const std::string& parameter) const {
  return folder_.tensor(place(parameter).tensor).dtype;
}

void HfWeights::read(const TensorRequest& request) {
  const Place& found = place(request.name);
  check(request.dtype == DType::f32, "'%s' is read as f32 only", request.name);
  check(request.global_shape == found.box.extent, "'%s' has shape %s, not %s", request.name,
        to_string(found.box.extent), to_string(request.global_shape));
  check(lies_inside({request.offset, request.extent}, request.global_shape),
        "a box of '%s' leaves its shape", request.name);
  // The parameter is a box of the tensor, and the request a box of the parameter.
  Box box{found.box.offset, request.extent};
  for (size_t d = 0; d < box.offset.size(); ++d) box.offset[d] += request.offset[d];
  folder_.read(found.tensor, box, static_cast<float*>(request.data));
}

}  // namespace caravan
