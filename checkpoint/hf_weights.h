// The weights of a Hugging Face folder as our parameters: any box of any of them, in f32, read from
// safetensors when it is asked for. What the folder must hold is checked at once: every tensor of
// the model with its shape, and nothing besides that is not known to be without effect.
//
// Memory, threads and errors: as checkpoint/safetensors.h.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/weight_source.h"
#include "models/hf_config.h"
#include "models/hf_tensors.h"

namespace caravan {

class HfWeights : public WeightSource {
 public:
  // `config` is that of the folder's config.json.
  HfWeights(const std::string& folder, const HfConfig& config);

  const std::string& path() const override { return folder_.path(); }
  bool has_parameter(const std::string& name) const { return places_.count(name) > 0; }
  // How the tensor that holds a parameter is stored.
  SafetensorsDType stored_dtype(const std::string& parameter) const;
  int64_t stored_bytes(const std::string& parameter) const override {
    return size_bytes(stored_dtype(parameter));
  }

  // Fills request.data with a box of a parameter, in f32 (request.dtype must be).
  void read(const TensorRequest& request) override;
  int64_t bytes_read() const override { return folder_.bytes_read(); }

  // A tied model needs no head, but some folders store one: an error when that is another matrix
  // than the embedding, since programs do not agree on which of them counts. Reads all of both.
  void check_stored_head();

  // What was left out of the folder and why; a line each.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Place {
    std::string tensor;
    Box box;
  };
  void check_tensors(const std::vector<HfTensor>& tensors) const;
  void account_for_rest(const std::vector<HfTensor>& tensors, const HfConfig& config);
  const Place& place(const std::string& parameter) const;

  SafetensorsFolder folder_;
  std::map<std::string, Place> places_;
  std::vector<std::string> notes_;
  std::string embedding_, stored_head_;  // tensors of a tied model; "": there is no such head
};

}  // namespace caravan
