// How unusual a number is among the last ones: the z-score over a window of 128 (the spike guard of
// llm.c). Numbers that are not finite are no part of the window.
#pragma once

#include <optional>
#include <vector>

namespace caravan {

class RollingStatistics {
 public:
  static constexpr size_t kWindow = 128;

  RollingStatistics() { values_.reserve(kWindow); }  // add() allocates nothing
  explicit RollingStatistics(
      const std::vector<double>& values);  // the oldest first; the newest count

  // (value - mean) / standard deviation of the window before it, then the value joins. Absent until
  // the window is full, for a value that is not finite, and when all of the window is alike.
  std::optional<double> add(double value);

  const std::vector<double>& values() const { return values_; }  // the oldest first

 private:
  std::vector<double> values_;
};

}  // namespace caravan
