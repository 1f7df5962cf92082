// What the checkpoint tests share: a small model with known bits, and ranks that are simulated by
// calling the steps of a save one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/reader.h"
#include "checkpoint/writer.h"
#include "tests/support/temporary_folder.h"

namespace caravan::test {

struct TestTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  int split_dim = -1;  // -1: replicated, written by rank 0 only
};

// Tensors of 0 to 3 dims in all dtypes, split along different dims with uneven parts.
std::vector<TestTensor> small_model();

// Which box rank r of `num_ranks` holds: even parts, the first ones larger by one. Empty extent
// (no shard) when there are more ranks than rows.
Box rank_box(const TestTensor& spec, int rank, int num_ranks);

// The bytes of a box of a tensor: a function of (name, step, global element).
std::vector<char> box_bytes(const TestTensor& spec, const Box& box, int64_t step);

CheckpointHeader header_of_step(int64_t step);

// Saves the model as `num_ranks` ranks would. Throws what commit_save throws.
SavedCheckpoint save_model(const std::string& folder, const std::vector<TestTensor>& model,
                           int64_t step, int num_ranks, int64_t save_total_limit = 0);

// Reads the boxes of all `num_ranks` ranks, each with a reader of its own, and returns whether
// every element has the bits of `step`. Throws what the reader throws.
bool loads_exactly(const std::string& checkpoint, const std::vector<TestTensor>& model,
                   int64_t step, int num_ranks);

// The message of the Error that `action` throws; "" when it throws none. Fails the test when the
// exit code is another one or the message has more than one line.
std::string error_of(const std::function<void()>& action, ExitCode expected = ExitCode::checkpoint);

std::string read_bytes(const std::string& path);
void write_bytes(const std::string& path, const std::string& bytes);

}  // namespace caravan::test
