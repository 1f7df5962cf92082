#include "checkpoint/hf_writer.h"

#include <bit>

#include "checkpoint/box.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/diff.h"
#include "runtime/bfloat16.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int64_t kSliceElements = int64_t{4} << 20;

std::vector<SafetensorsSpec> specs_of(const std::vector<HfTensor>& tensors,
                                      SafetensorsDType dtype) {
  std::vector<SafetensorsSpec> specs;
  for (const HfTensor& tensor : tensors) specs.push_back({tensor.name, dtype, tensor.shape});
  return specs;
}

// The box of the parameter that `common`, a box of the tensor, is of.
Box inside(const Box& common, const Box& place) {
  Box box = common;
  for (size_t d = 0; d < box.offset.size(); ++d) box.offset[d] -= place.offset[d];
  return box;
}

}  // namespace

HfWriter::HfWriter(const std::vector<HfTensor>& tensors, SafetensorsDType dtype,
                   int64_t max_shard_bytes, WeightSource& weights)
    : dtype_(dtype),
      plan_(plan_safetensors(specs_of(tensors, dtype), max_shard_bytes)),
      weights_(weights) {
  for (const HfTensor& tensor : tensors) tensors_.emplace(tensor.name, tensor);
}

const HfTensor& HfWriter::tensor(const std::string& name) const { return tensors_.at(name); }

void HfWriter::gather(const HfTensor& tensor, const Box& box, std::vector<float>& values) {
  values.resize(static_cast<size_t>(num_elements(box.extent)));
  for (const HfPart& part : tensor.parts) {
    const std::optional<Box> common = intersect(part.box, box);
    if (!common) continue;
    const Box wanted = inside(*common, part.box);
    const bool is_all = common->extent == box.extent;
    if (!is_all) part_.resize(static_cast<size_t>(num_elements(wanted.extent)));
    float* const to = is_all ? values.data() : part_.data();
    weights_.read({part.parameter, DType::f32, part.box.extent, wanted.offset, wanted.extent, to});
    if (is_all) continue;
    SharedRuns(*common, box, *common)
        .copy(0, std::ssize(part_), reinterpret_cast<const char*>(part_.data()), sizeof(float),
              reinterpret_cast<char*>(values.data()));
  }
  if (dtype_ != SafetensorsDType::bf16) return;
  for (float& value : values) value = to_float(to_bfloat16(value));
}

void HfWriter::write(const std::string& folder, Worker worker) {
  std::vector<float> values;
  for (size_t i = static_cast<size_t>(worker.index); i < plan_.shards.size();
       i += static_cast<size_t>(worker.count)) {
    SafetensorsWriter writer(folder, plan_.shards[i]);
    for (const SafetensorsTensor& stored : plan_.shards[i].tensors) {
      for_each_slice(stored.shape, kSliceElements, [&](const Box& box) {
        gather(tensor(stored.name), box, values);
        writer.append(stored.name, values);
      });
    }
    writer.finish();
  }
}

std::map<std::string, uint32_t> HfWriter::verify(const std::string& folder, Worker worker) {
  std::map<std::string, uint32_t> checksums;
  std::vector<float> expected, found;
  std::vector<char> buffer(size_t{1} << 20);
  for (size_t i = static_cast<size_t>(worker.index); i < plan_.shards.size();
       i += static_cast<size_t>(worker.count)) {
    SafetensorsFile file(folder + "/" + plan_.shards[i].file);
    for (const SafetensorsTensor& stored : file.tensors()) {
      for_each_slice(stored.shape, kSliceElements, [&](const Box& box) {
        gather(tensor(stored.name), box, expected);
        found.resize(expected.size());
        file.read(stored, box, buffer, found.data());
        for (size_t e = 0; e < expected.size(); ++e) {
          if (std::bit_cast<uint32_t>(expected[e]) == std::bit_cast<uint32_t>(found[e])) continue;
          throw checkpoint_error(absl::StrFormat(
              "%s: tensor '%s' differs from %s: %.9g was written for %.9g; the disk may be bad",
              file.path(), stored.name, weights_.path(), found[e], expected[e]));
        }
      });
      uint32_t crc = 0;
      for (int64_t at = stored.begin; at < stored.end; at += std::ssize(buffer)) {
        const int64_t count = std::min(stored.end - at, std::ssize(buffer));
        file.read_bytes(at, count, buffer.data());
        crc = crc32c(buffer.data(), static_cast<size_t>(count), crc);
      }
      checksums[stored.name] = crc;
    }
  }
  return checksums;
}

}  // namespace caravan
