#include "launch/run_state.h"

#include <algorithm>
#include <optional>

#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

// Parameters and state of the update program, which declares all of them.
std::vector<const Value*> saved_values(const RunPlan& run) {
  std::vector<const Value*> values;
  for (const Value& value : run.program("update").graph.values) {
    if (value.kind == ValueKind::parameter || value.kind == ValueKind::state) {
      values.push_back(&value);
    }
  }
  return values;
}

// Address of what this rank holds of a persistent value. Persistent values own their storage, so
// a shard begins where the value does.
std::byte* address(const Arena& arena, const Value& value) { return arena.persistent(value.name); }

// What this rank writes of a value that it holds: nothing when others do. What the data-parallel
// ranks hold alike they write in equal parts.
std::optional<Box> box_to_save(const Value& value, const Mesh& mesh) {
  Placement saved = value.placement;
  if (saved[Axis::dp] == kReplicate && !value.global_shape.empty()) saved[Axis::dp] = shard(0);
  const bool is_first_replica = std::ranges::all_of(
      kAxes, [&](Axis axis) { return saved[axis] != kReplicate || mesh.coordinate(axis) == 0; });
  Box box = local_box(value.global_shape, saved, mesh);
  if (!is_first_replica || num_elements(box.extent) == 0) return std::nullopt;
  return box;
}

void fill_normal(const Value& value, const Box& box, float* out, uint64_t seed, int num_threads) {
  const RandomStream stream(seed, RandomPurpose::init, stable_hash(value.name));
  const int64_t columns = box.extent.empty() ? 1 : box.extent.back();
  const int64_t rows = columns == 0 ? 0 : num_elements(box.extent) / columns;
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    int64_t rest = row, global = 0, stride = 1;  // element of the global tensor, last dim first
    for (size_t d = box.extent.size(); d-- > 0;) {
      const bool is_last = d + 1 == box.extent.size();
      const int64_t at = is_last ? 0 : rest % box.extent[d];
      if (!is_last) rest /= box.extent[d];
      global += (box.offset[d] + at) * stride;
      stride *= value.global_shape[d];
    }
    for (int64_t column = 0; column < columns; ++column) {
      const double normal = stream.normal(static_cast<uint64_t>(global + column));
      out[row * columns + column] = static_cast<float>(normal * value.init.std);
    }
  }
}

}  // namespace

void initialize_parameters(const RunPlan& run, const Mesh& mesh, const Arena& arena, uint64_t seed,
                           int num_threads, Progress& progress) {
  for (const Value* value : saved_values(run)) {
    progress.moved();
    const Box box = local_box(value->global_shape, value->placement, mesh);
    auto* out = reinterpret_cast<float*>(address(arena, *value));
    switch (value->init.kind) {
      case Initializer::Kind::zeros:
        std::fill_n(out, num_elements(box.extent), 0.0f);
        break;
      case Initializer::Kind::ones:
        std::fill_n(out, num_elements(box.extent), 1.0f);
        break;
      case Initializer::Kind::normal:
        fill_normal(*value, box, out, seed, num_threads);
        break;
    }
  }
}

std::vector<TensorShard> shards_to_save(const RunPlan& run, const Mesh& mesh, const Arena& arena) {
  std::vector<TensorShard> shards;
  for (const Value* value : saved_values(run)) {
    const std::optional<Box> box = box_to_save(*value, mesh);
    if (!box) continue;
    const Box held = local_box(value->global_shape, value->placement, mesh);
    int64_t skipped = 0;  // elements held before those written: whole rows of dim 0
    if (!box->extent.empty()) {
      skipped = (box->offset[0] - held.offset[0]) * (num_elements(box->extent) / box->extent[0]);
    }
    shards.push_back({.name = value->name,
                      .dtype = value->dtype,
                      .global_shape = value->global_shape,
                      .offset = box->offset,
                      .extent = box->extent,
                      .data = address(arena, *value) + skipped * size_bytes(value->dtype)});
  }
  return shards;
}

int64_t bytes_to_save(const RunPlan& run, const Mesh& mesh) {
  int64_t bytes = 0;
  for (const Value* value : saved_values(run)) {
    const std::optional<Box> box = box_to_save(*value, mesh);
    if (box) bytes += num_elements(box->extent) * size_bytes(value->dtype);
  }
  return bytes;
}

int64_t checkpoint_bytes(const RunPlan& run) {
  int64_t bytes = 0;
  for (const Value* value : saved_values(run)) {
    bytes += num_elements(value->global_shape) * size_bytes(value->dtype);
  }
  return bytes;
}

int64_t checkpoint_copy_bytes(const Config& config, const RunPlan& run, const Mesh& mesh,
                              int64_t room_bytes) {
  const int64_t all = bytes_to_save(run, mesh);
  if (config.checkpoint.copy_bytes) return std::min(*config.checkpoint.copy_bytes, all);
  return std::clamp<int64_t>(room_bytes, 0, all);
}

namespace {

// A run that was not balanced by biases (moe.balance) may go on with them: from zero, as at step 1.
bool starts_anew(const Value& value, const CheckpointReader& checkpoint) {
  return value.name.starts_with("router_bias.") && !checkpoint.has_tensor(value.name);
}

}  // namespace

void load_persistent(const RunPlan& run, const Mesh& mesh, const Arena& arena,
                     CheckpointReader& checkpoint, Progress& progress) {
  for (const Value* value : saved_values(run)) {
    progress.moved();
    const Box box = local_box(value->global_shape, value->placement, mesh);
    if (num_elements(box.extent) == 0) continue;  // all of it is on other ranks
    if (starts_anew(*value, checkpoint)) {
      std::fill_n(reinterpret_cast<float*>(address(arena, *value)), num_elements(box.extent), 0.0f);
      continue;
    }
    checkpoint.read({.name = value->name,
                     .dtype = value->dtype,
                     .global_shape = value->global_shape,
                     .offset = box.offset,
                     .extent = box.extent,
                     .data = address(arena, *value)});
  }
}

int64_t num_parameters(const RunPlan& run) {
  int64_t count = 0;
  for (const Value* value : saved_values(run)) {
    if (value->kind == ValueKind::parameter) count += num_elements(value->global_shape);
  }
  return count;
}

}  // namespace caravan
