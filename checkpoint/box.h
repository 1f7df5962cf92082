// Boxes of a tensor: the part of a global tensor that a shard holds or a rank wants, and the
// copying of what two boxes share. Everything is counted in elements, row-major.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/types.h"

namespace caravan {

std::string to_string(const Box& box);  // "[0:4, 8:16]"

// Whether the box has the dims of `shape`, no empty dim, and lies inside it. Safe for any numbers.
bool lies_inside(const Box& box, const Shape& shape);

// Whether two boxes of the same tensor share an element.
bool overlap(const Box& a, const Box& b);

// What two boxes of the same tensor share; nothing when they do not touch.
std::optional<Box> intersect(const Box& a, const Box& b);

// The elements that the dense array of box `source` and the dense array of box `destination` have
// in common, as runs that are contiguous in both, in rising order of the source.
class SharedRuns {
 public:
  SharedRuns(const Box& source, const Box& destination, const Box& common);

  int64_t source_begin() const;  // first element of the source that is needed
  int64_t source_end() const;    // one past the last

  // Where in the destination the source elements [begin, begin + count) lie, when all of them
  // belong there, in a row.
  std::optional<int64_t> place(int64_t begin, int64_t count) const;

  // Copies what lies in the source elements [begin, begin + count), which `elements` holds, to its
  // place in `destination`. Calls must follow each other with rising, adjoining ranges.
  void copy(int64_t begin, int64_t count, const char* elements, int64_t element_bytes,
            char* destination);

 private:
  struct OuterDim {
    int64_t count, source_stride, destination_stride, index;
  };
  void advance();

  std::vector<OuterDim> outer_;  // the dims around a run
  int64_t run_ = 1;              // elements in each run
  int64_t source_ = 0;           // first element of the current run, in both arrays
  int64_t destination_ = 0;
  int64_t first_source_ = 0;
  bool done_ = false;
};

}  // namespace caravan
