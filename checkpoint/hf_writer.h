// Writing a model's weights as Hugging Face has them, out of any source, a few megabytes at a time;
// and holding what was written against the source. Several processes share the work by files.
//
// Memory: three slices of 16 MiB. Errors: checkpoint errors that name the tensor.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/weight_source.h"
#include "models/hf_tensors.h"

namespace caravan {

// Which process of how many does a share of the files.
struct Worker {
  int index = 0;
  int count = 1;
};

class HfWriter {
 public:
  // `dtype`: f32 or bf16. `weights` gives the parameters in f32 and outlives the writer.
  HfWriter(const std::vector<HfTensor>& tensors, SafetensorsDType dtype, int64_t max_shard_bytes,
           WeightSource& weights);

  const SafetensorsPlan& plan() const { return plan_; }

  // Writes this worker's files into `folder`, durably.
  void write(const std::string& folder, Worker worker);

  // Reads this worker's files again and compares every element with what the source gives, rounded
  // to the dtype: the checksums (CRC32C) of the bytes of each tensor, by name. The first difference
  // is an error.
  std::map<std::string, uint32_t> verify(const std::string& folder, Worker worker);

 private:
  const HfTensor& tensor(const std::string& name) const;
  // A box of a tensor, dense, as it should be stored.
  void gather(const HfTensor& tensor, const Box& box, std::vector<float>& values);

  std::map<std::string, HfTensor> tensors_;
  SafetensorsDType dtype_;
  SafetensorsPlan plan_;
  WeightSource& weights_;
  std::vector<float> part_;  // of gather
};

}  // namespace caravan
