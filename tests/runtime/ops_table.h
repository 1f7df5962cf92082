// One table of all ops: shapes, kinds of inputs, what is differentiable, how inputs may lie on the
// mesh, and inputs that the op must refuse. It drives the checks of ops_test.cpp and
// ops_sharded_test.cpp: a new op gets all of them with one entry.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "runtime/ops.h"
#include "tests/support/program_runner.h"

namespace caravan {

struct OpInput {
  enum class Content : uint8_t {
    normal,     // mean 0, variance 1
    positive,   // in (0.5, 1.5)
    distinct,   // f32, 8 that follow one another are 0.4 apart or more
    ids,        // i32 in [0, 8)
    targets,    // i32 in [-1, 8)
    positions,  // i32, i % 4
    documents,  // i32, starts inside sequences of 4 tokens: 0 0 2 2
  };
  Shape shape;
  Content content = Content::normal;
  bool differentiable = false;
  bool may_be_partial = true;  // false: state and scalars that are never declared so
  bool splits_columns = true;  // false: dim 1 is never sharded, as heads would be cut
};

// Inputs that `infer` refuses: input number `input` gets this spec instead.
struct BadInput {
  size_t input;
  TensorSpec spec;
  std::string message;  // part of it
};

struct OpEntry {
  std::string label;
  Op op;
  std::vector<OpInput> inputs;
  TensorSpecs outputs;
  std::vector<BadInput> refused = {};
  // The mesh axis has so many ranks (collectives, which rules of placement never see).
  int axis_size = 1;
};

// At least one case of every alternative of Op.
std::vector<OpEntry> ops_table();

TensorSpec spec_of(const OpInput& input);
TensorSpecs specs_of(const OpEntry& entry);
// The same tensor whenever it is asked for.
HostTensor make_tensor(const OpInput& input, uint64_t index);
void PrintTo(const OpEntry& entry, std::ostream* out);  // for GoogleTest
bool is_differentiable(const OpEntry& entry);

}  // namespace caravan
