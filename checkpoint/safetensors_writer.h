// Writing safetensors files: first a plan, which fixes every byte but the values, then one writer
// per shard, to which values come in order and in pieces of any size. The same plan and values give
// the same bytes.
//
// Memory: a buffer of 1 MiB per writer. Threads: one at a time per writer. Errors: checkpoint
// errors that name the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors_header.h"

namespace caravan {

struct SafetensorsSpec {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::f32;  // or bf16: others are not written
  Shape shape;
};

struct SafetensorsShard {
  std::string file;                        // "model-00001-of-00003.safetensors"
  std::string header;                      // the first bytes of the file, up to the data
  std::vector<SafetensorsTensor> tensors;  // in the order of their bytes
  int64_t data_bytes = 0;
};

struct SafetensorsPlan {
  std::vector<SafetensorsShard> shards;
  std::string index;        // content of model.safetensors.index.json; "" when there is one shard
  int64_t total_bytes = 0;  // of all tensors
};

// Tensors go by name into shards of at most so many bytes of data; a larger one has a shard of its
// own. In a shard they are ordered by dtype, the wider first, then by name, and so are aligned.
SafetensorsPlan plan_safetensors(std::vector<SafetensorsSpec> tensors, int64_t max_shard_bytes);

// Writes folder/shard.file, which must not exist yet. Without a call of finish() the file is
// incomplete, and is removed.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& folder, const SafetensorsShard& shard);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next elements of `tensor`: tensors come in the order of the shard, each whole. To bf16
  // values are rounded to nearest, ties to even; a NaN stays one.
  void append(const std::string& tensor, std::span<const float> values);
  // Flushes, fsyncs and closes. All tensors must have been appended.
  void finish();

 private:
  void skip_empty();
  void write(const char* bytes, size_t count);

  std::string path_;
  std::vector<SafetensorsTensor> tensors_;
  size_t current_ = 0;    // index of the tensor that is not whole yet
  int64_t elements_ = 0;  // of it that are written
  int descriptor_ = -1;
  std::vector<char> buffer_;
};

}  // namespace caravan
