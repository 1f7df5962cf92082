#include "launch/run_state.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

// Parameters and state of the first program, which declares all of them.
std::vector<const Value*> saved_values(const RunPlan& run) {
  std::vector<const Value*> values;
  for (const Value& value : run.programs.front().graph.values) {
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

// What passes through host memory at a time on its way to the device.
constexpr int64_t kChunkBytes = int64_t{32} << 20;

// The box seen as rows of its last dim.
struct Rows {
  explicit Rows(const Box& box)
      : columns(box.extent.empty() ? 1 : box.extent.back()),
        count(columns == 0 ? 0 : num_elements(box.extent) / columns) {}
  int64_t columns;
  int64_t count;
};

// Rows [begin, end) of the box.
void draw_normal(const Value& value, const Box& box, int64_t begin, int64_t end, float* out,
                 uint64_t seed, int num_threads) {
  const RandomStream stream(seed, RandomPurpose::init, stable_hash(value.name));
  const int64_t columns = Rows(box).columns;
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (int64_t row = begin; row < end; ++row) {
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
      out[(row - begin) * columns + column] = static_cast<float>(normal * value.init.std);
    }
  }
}

void fill_normal(const Value& value, const Box& box, Backend& backend, std::byte* to, uint64_t seed,
                 int num_threads) {
  const Rows rows(box);
  if (backend.is_host_memory()) {
    draw_normal(value, box, 0, rows.count, reinterpret_cast<float*>(to), seed, num_threads);
    return;
  }
  const int64_t row_bytes = rows.columns * size_bytes(DType::f32);
  const int64_t step = std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, row_bytes));
  std::vector<float> chunk(static_cast<size_t>(std::min(step, rows.count) * rows.columns));
  for (int64_t begin = 0; begin < rows.count; begin += step) {
    const int64_t end = std::min(rows.count, begin + step);
    draw_normal(value, box, begin, end, chunk.data(), seed, num_threads);
    backend.copy_in(to + begin * row_bytes, chunk.data(), (end - begin) * row_bytes);
  }
}

void fill(Backend& backend, std::byte* to, const Box& box, float value) {
  backend.fill(to, std::bit_cast<uint32_t>(value),
               num_elements(box.extent) * size_bytes(DType::f32));
}

}  // namespace

void initialize_parameters(const RunPlan& run, const Mesh& mesh, Backend& backend,
                           const Arena& arena, uint64_t seed, int num_threads, Progress& progress) {
  for (const Value* value : saved_values(run)) {
    progress.moved();
    const Box box = local_box(value->global_shape, value->placement, mesh);
    std::byte* const to = address(arena, *value);
    switch (value->init.kind) {
      case Initializer::Kind::zeros:
        fill(backend, to, box, 0.0f);
        break;
      case Initializer::Kind::ones:
        fill(backend, to, box, 1.0f);
        break;
      case Initializer::Kind::normal:
        fill_normal(*value, box, backend, to, seed, num_threads);
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

// Into device memory: some rows of dim 0 at a time. The reader checks whole blocks of a file, so
// few rows would have it read blocks twice.
void read_through_host(TensorRequest request, Backend& backend, WeightSource& source) {
  auto* const to = static_cast<std::byte*>(request.data);
  const Box box{request.offset, request.extent};
  const int64_t rows = box.extent.empty() ? 1 : box.extent[0];
  const int64_t row_bytes = num_elements(box.extent) / rows * size_bytes(request.dtype);
  const int64_t step = std::clamp<int64_t>(kChunkBytes / row_bytes, 1, rows);
  std::vector<std::byte> chunk(static_cast<size_t>(step * row_bytes));
  request.data = chunk.data();
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t count = std::min(step, rows - begin);
    if (!box.extent.empty()) {
      request.offset[0] = box.offset[0] + begin;
      request.extent[0] = count;
    }
    source.read(request);
    backend.copy_in(to + begin * row_bytes, chunk.data(), count * row_bytes);
  }
}

// `box` of the value, which is what this rank holds of it and not empty.
void read_value(const Value& value, const Box& box, Backend& backend, const Arena& arena,
                WeightSource& source) {
  const TensorRequest request{.name = value.name,
                              .dtype = value.dtype,
                              .global_shape = value.global_shape,
                              .offset = box.offset,
                              .extent = box.extent,
                              .data = address(arena, value)};
  if (backend.is_host_memory()) {
    source.read(request);
  } else {
    read_through_host(request, backend, source);
  }
}

}  // namespace

void load_persistent(const RunPlan& run, const Mesh& mesh, Backend& backend, const Arena& arena,
                     CheckpointReader& checkpoint, Progress& progress) {
  for (const Value* value : saved_values(run)) {
    progress.moved();
    const Box box = local_box(value->global_shape, value->placement, mesh);
    if (num_elements(box.extent) == 0) continue;  // all of it is on other ranks
    if (starts_anew(*value, checkpoint)) {
      fill(backend, address(arena, *value), box, 0.0f);
      continue;
    }
    read_value(*value, box, backend, arena, checkpoint);
  }
}

void load_weights(const RunPlan& run, const Mesh& mesh, Backend& backend, const Arena& arena,
                  WeightSource& weights, Progress& progress) {
  for (const Value* value : saved_values(run)) {
    progress.moved();
    const Box box = local_box(value->global_shape, value->placement, mesh);
    if (num_elements(box.extent) == 0) continue;  // all of it is on other ranks
    if (value->kind == ValueKind::parameter) {
      read_value(*value, box, backend, arena, weights);
    } else {
      fill(backend, address(arena, *value), box, 0.0f);
    }
  }
}

int64_t share_bytes(const RunPlan& run, const Mesh& mesh, const WeightSource& weights) {
  int64_t bytes = 0;
  for (const Value* value : saved_values(run)) {
    if (value->kind != ValueKind::parameter) continue;
    const Box box = local_box(value->global_shape, value->placement, mesh);
    bytes += num_elements(box.extent) * weights.stored_bytes(value->name);
  }
  return bytes;
}

int64_t num_parameters(const RunPlan& run) {
  int64_t count = 0;
  for (const Value* value : saved_values(run)) {
    if (value->kind == ValueKind::parameter) count += num_elements(value->global_shape);
  }
  return count;
}

}  // namespace caravan
